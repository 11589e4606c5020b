"""The forward pass of the supported architectures in numpy and f64, one line a step: slow, and meant to be read.

It is written from the architectures' papers and configurations, shares nothing with the engine, and is proven
against llama.cpp by tools/tiny_goldens.py. It reads GGUF files whose tensors are all F32 (through gguf-py).
"""
import sys

try:
    import numpy as np
    from gguf import GGUFReader
except ImportError as e:
    sys.exit(f"{e.name} is missing: pip install numpy gguf")


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_f16(x):
    """GELU from f16 to f16, as llama.cpp's table has it."""
    with np.errstate(over="ignore"):
        y = gelu(x.astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float64)
    return np.where(x <= -10, 0.0, np.where(x >= 10, x, y))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Model:
    def __init__(self, path):
        r = GGUFReader(path)
        self.meta = {k: f.contents() for k, f in r.fields.items()}
        # gguf-py gives matrices as (rows, row length).
        self.w = {t.name: np.array(t.data, dtype=np.float64) for t in r.tensors}
        self.arch = self.meta["general.architecture"]
        key = lambda k, default=None: self.meta.get(f"{self.arch}.{k}", default)
        self.n_layer, self.n_embd = key("block_count"), key("embedding_length")
        self.n_head, self.n_head_kv = key("attention.head_count"), key("attention.head_count_kv")
        self.head_dim = key("attention.key_length", self.n_embd // self.n_head)
        self.rope_dims = key("rope.dimension_count", self.head_dim)
        self.base, self.eps = key("rope.freq_base"), key("attention.layer_norm_rms_epsilon")
        self.scaling, self.factor = key("rope.scaling.type", "none"), key("rope.scaling.factor", 1.0)
        self.original_ctx = key("rope.scaling.original_context_length")
        self.window = key("attention.sliding_window")
        self.uses_gelu = self.arch == "gemma3"

    def yarn_share(self):
        """How far each pair is interpolated, 0 to 1: none above 32 turns in the original context, all below 1."""
        n = self.rope_dims
        pair = lambda turns: n * np.log(self.original_ctx / (turns * 2 * np.pi)) / (2 * np.log(self.base))
        low, high = max(0, np.floor(pair(32))), min(n - 1, np.ceil(pair(1)))
        return np.clip((np.arange(n // 2) - low) / max(0.001, high - low), 0, 1)

    def rope(self, x, local):
        """Rotates pairs of the first rope_dims elements; x: (tokens, heads, head_dim)."""
        half = self.rope_dims // 2
        freq = (10000.0 if local else self.base) ** (-np.arange(half) * 2 / self.rope_dims) / self.w.get("rope_freqs.weight", 1.0)
        if self.scaling == "linear" and not local:
            freq = freq / self.factor
        if self.scaling == "yarn":
            share = self.yarn_share()
            freq = freq * (share / self.factor + 1 - share)
            x = np.concatenate([x[..., : 2 * half] * (1 + 0.1 * np.log(self.factor)), x[..., 2 * half :]], -1)
        angle = np.arange(len(x))[:, None, None] * freq
        # llama pairs neighbours, the others pair the halves.
        a, b = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if self.arch == "llama" else (slice(0, half), slice(half, 2 * half))
        out = x.copy()
        out[..., a] = x[..., a] * np.cos(angle) - x[..., b] * np.sin(angle)
        out[..., b] = x[..., a] * np.sin(angle) + x[..., b] * np.cos(angle)
        return out

    def attention(self, i, x):
        w = lambda name: self.w[f"blk.{i}.{name}"]
        local = self.window is not None and i % 6 != 5

        def project(name, heads):
            y = x @ w(f"{name}.weight").T + self.w.get(f"blk.{i}.{name}.bias", 0.0)
            return y.reshape(len(x), heads, self.head_dim)

        q, k, v = project("attn_q", self.n_head), project("attn_k", self.n_head_kv), project("attn_v", self.n_head_kv)
        if self.arch in ("qwen3", "gemma3"):
            q, k = rms_norm(q, w("attn_q_norm.weight"), self.eps), rms_norm(k, w("attn_k_norm.weight"), self.eps)
        q, k = self.rope(q, local), self.rope(k, local)
        group = self.n_head // self.n_head_kv
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        score = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(self.head_dim)
        back = np.arange(len(x))[:, None] - np.arange(len(x))[None, :]
        seen = (back >= 0) & (back < (self.window if local else len(x)))
        out = np.einsum("hqk,khd->qhd", softmax(np.where(seen, score, -np.inf)), v)
        return out.reshape(len(x), -1) @ w("attn_output.weight").T

    def logits(self, ids, gelu_table=False):
        """Logits of every position: (len(ids), vocabulary), f64."""
        norm = lambda name, x: rms_norm(x, self.w[f"{name}.weight"], self.eps)
        gemma = self.arch == "gemma3"
        act = (gelu_f16 if gelu_table else gelu) if gemma else silu
        x = self.w["token_embd.weight"][ids] * (np.sqrt(self.n_embd) if gemma else 1.0)
        for i in range(self.n_layer):
            y = self.attention(i, norm(f"blk.{i}.attn_norm", x))
            x = x + (norm(f"blk.{i}.post_attention_norm", y) if gemma else y)
            y = norm(f"blk.{i}.ffn_norm", x)
            y = act(y @ self.w[f"blk.{i}.ffn_gate.weight"].T) * (y @ self.w[f"blk.{i}.ffn_up.weight"].T)
            y = y @ self.w[f"blk.{i}.ffn_down.weight"].T
            x = x + (norm(f"blk.{i}.post_ffw_norm", y) if gemma else y)
        out = self.w.get("output.weight", self.w["token_embd.weight"])
        return norm("output_norm", x) @ out.T
