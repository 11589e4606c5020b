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


def layer_norm(x, weight, eps):
    return rms_norm(x - x.mean(-1, keepdims=True), weight, eps)


def relu_squared(x):
    return np.maximum(x, 0) ** 2


def soft_cap(x, cap):
    return x if cap is None else cap * np.tanh(x / cap)


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


# Where there is a window: of so many layers all but the last see it only.
PERIODS = {"gemma2": 2, "gemma3": 6, "olmo2": 4, "gpt-oss": 2, "cohere2": 4, "exaone4": 4, "afmoe": 4, "exaone-moe": 4, "mellum": 4}
# Layers with a window where it is not the last of a period that has none.
WINDOWED = {"laguna": lambda i: i % 4 != 0}
# Pairs of RoPE are neighbours; those of others lie half of the rotated part apart.
NEIGHBOURS = "llama command-r cohere2 granite granitemoe minicpm smollm3 glm4 chatglm mistral3 ernie4_5 olmo internlm2"
NEIGHBOURS = set((NEIGHBOURS + " xverse arcee deepseek baichuan maincoder bailingmoe ernie4_5-moe granitehybrid llama4 deci").split())
# No rotation at all.
STILL = {"jamba", "nemotron_h", "nemotron_h_moe", "gpt2", "starcoder", "bloom", "mpt", "jais", "refact"}
# Both halves of a layer read its input.
PARALLEL = {"command-r", "cohere2", "plamo", "phi2", "falcon"}
# Networks without a gate, and those with one that is no SiLU.
GELU = {"gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "gpt2", "starcoder", "starcoder2", "codeshell", "phi2", "gptneox", "falcon", "bloom", "mpt"}
SQUARED = {"arcee", "nemotron", "jais2", "nemotron_h"}
# Its second norm has the name of a norm of attention's output.
RENAMED = {"gpt-oss", "qwen3next", "qwen35", "qwen35moe", "seed_oss", "glm4moe"}
# Each query has a gate of the output behind it.
GATED_QUERIES = {"qwen3next", "qwen35", "qwen35moe"}
# Experts are chosen by the logistic function of the router's numbers, unless the file says otherwise.
LOGISTIC = {"llama4", "mimo2", "step35", "laguna", "nemotron_h_moe", "glm4moe", "afmoe", "exaone-moe", "hy_v3"}
# Weights of experts are left as they are, unless the file says otherwise.
UNNORMED = {"llama4", "step35", "laguna", "qwen2moe", "olmoe", "deepseek", "bailingmoe", "jamba", "afmoe", "exaone-moe", "hy_v3"}
# Queries and keys are normed behind the rotation.
NORMED_LAST = {"hunyuan-dense", "hunyuan-moe", "maincoder"}


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
        if isinstance(self.n_head_kv, list) and self.arch not in ("openelm", "mimo2", "deci"):
            self.n_head_kv = max(self.n_head_kv)
        self.head_dim = key("attention.key_length") or self.n_embd // (self.n_head or 1)
        self.rope_dims = key("rope.dimension_count", self.head_dim)
        self.base = key("rope.freq_base")
        alpha = key("rope.scaling.alpha")
        if alpha:
            self.base *= alpha ** (self.rope_dims / (self.rope_dims - 2))
        self.eps = key("attention.layer_norm_rms_epsilon", key("attention.layer_norm_epsilon"))
        self.scaling, self.factor = key("rope.scaling.type", "none"), key("rope.scaling.factor", 1.0)
        self.original_ctx, self.magnitude = key("rope.scaling.original_context_length"), key("rope.scaling.attn_factor", 1.0)
        self.windows = key("attention.sliding_window_pattern")
        has_window = self.arch in PERIODS or self.arch in WINDOWED or isinstance(self.windows, list)
        self.window = key("attention.sliding_window") if has_window else None
        self.score_cap, self.logit_cap = key("attn_logit_softcapping"), key("final_logit_softcapping")
        if self.arch == "gemma3n":
            self.logit_cap = 30.0
        self.logit_scale = key("logit_scale", 1.0)
        self.uses_gelu = self.arch in GELU
        self.has_layer_norms = key("attention.layer_norm_rms_epsilon") is None
        self.scales()

    def scales(self):
        """Factors of the embedding, of scores, of each half's output and of the logits."""
        key = lambda k, default=None: self.meta.get(f"{self.arch}.{k}", default)
        self.embedding_scale = np.sqrt(self.n_embd) if self.arch.startswith("gemma") or self.arch == "afmoe" else 1.0
        self.score_scale, self.residual_scale = key("attention.scale", 1 / np.sqrt(self.head_dim)), 1.0
        if self.arch == "jais":
            self.score_scale = 1 / self.head_dim
        if self.arch.startswith("granite"):
            self.embedding_scale, self.residual_scale = key("embedding_scale", 1.0), key("residual_scale", 1.0)
            self.logit_scale = 1 / self.logit_scale
        if self.arch == "minicpm3":
            self.embedding_scale, self.residual_scale = 12, 1.4 / np.sqrt(self.n_layer)
            self.logit_scale = 256 / self.n_embd
        if self.arch == "minicpm":
            self.embedding_scale = key("embedding_scale", 12)
            self.residual_scale = key("residual_scale", 1.4 / np.sqrt(self.n_layer))
            self.logit_scale = 1 / key("logit_scale", self.n_embd / 256)

    def is_local(self, i):
        if self.arch == "smallthinker" and self.meta.get("smallthinker.attention.sliding_window"):
            return i % 4 != 0  # the window is longer than any prompt here
        if isinstance(self.windows, list):
            return bool(self.windows[i])
        if self.arch in WINDOWED:
            return bool(self.window) and WINDOWED[self.arch](i)
        return bool(self.window) and i % PERIODS[self.arch] < PERIODS[self.arch] - 1

    def norm(self, name, x):
        """The norm of this name; models without it take x as it is."""
        weight = self.w.get(f"{name}.weight", self.w.get(name))
        kind = layer_norm if self.has_layer_norms else rms_norm
        if self.arch == "olmo" and name.endswith(("attn_norm", "ffn_norm", "output_norm")):
            return kind(x, 1.0, self.eps)
        return x if weight is None else kind(x, weight, self.eps) + self.w.get(f"{name}.bias", 0.0)

    def rope_factors(self, n_ctx):
        """Divisors of the angles. LongRoPE has two sets: it is the size of the context that counts, not the position."""
        name = "rope_factors_long" if n_ctx > (self.original_ctx or n_ctx) else "rope_factors_short"
        return self.w.get("rope_freqs.weight", self.w.get(f"{name}.weight", 1.0))

    def yarn_share(self):
        """How far each pair is interpolated, 0 to 1: none above 32 turns in the original context, all below 1."""
        n = self.rope_dims
        pair = lambda turns: n * np.log(self.original_ctx / (turns * 2 * np.pi)) / (2 * np.log(self.base))
        key = lambda k, default: self.meta.get(f"{self.arch}.rope.scaling.{k}", default)
        fast, slow = key("yarn_beta_fast", 32), key("yarn_beta_slow", 1)
        low, high = max(0, np.floor(pair(fast))), min(n - 1, np.ceil(pair(slow)))
        return np.clip((np.arange(n // 2) - low) / max(0.001, high - low), 0, 1)

    def rope(self, x, local, n_ctx):
        """Rotates pairs of the first rope_dims elements; x: (tokens, heads, head_dim)."""
        key = lambda k, default: self.meta.get(f"{self.arch}.rope.{k}", default)
        dims, base = self.rope_dims, self.base
        factors = self.rope_factors(n_ctx)
        if local and self.arch in ("gemma3", "mimo2", "step35", "laguna"):
            base = 10000.0 if self.arch == "gemma3" else key("freq_base_swa", 10000.0)
            dims = key("dimension_count_swa", dims)
        if self.arch == "step35":
            dims, factors = (dims, 1.0) if local else (dims // 2, factors[: dims // 4])
        half = dims // 2
        freq = base ** (-np.arange(half) * 2 / dims) / factors
        plain = local and self.arch in ("gemma3", "olmo2", "mimo2", "step35", "laguna", "mellum")
        scaling = "none" if plain else self.scaling
        magnitude = 1.0 if local and self.arch in ("olmo2", "laguna", "mellum") else self.magnitude
        sections = self.meta.get(f"{self.arch}.rope.dimension_sections")
        if sections is not None:  # pairs of the fourth number of a position do not turn for text
            s = np.arange(half) % sum(sections)
            turns = s < sum(sections[:3]) if self.arch == "qwen2vl" else s < 3 * np.array(sections)[s % 3]
            freq = np.where(turns, freq, 0.0)
        if scaling == "linear":
            freq = freq / self.factor
        if scaling == "yarn":
            share = self.yarn_share()
            freq = freq * (share / self.factor + 1 - share)
            multiplier = self.meta.get(f"{self.arch}.rope.scaling.yarn_log_multiplier", 0)
            magnitude = magnitude * (1 + 0.1 * np.log(self.factor)) / (1 + 0.1 * multiplier * np.log(self.factor))
        x = np.concatenate([x[..., : 2 * half] * magnitude, x[..., 2 * half :]], -1)
        angle = np.arange(len(x))[:, None, None] * freq
        neighbours = self.arch in NEIGHBOURS
        a, b = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if neighbours else (slice(0, half), slice(half, 2 * half))
        out = x.copy()
        out[..., a] = x[..., a] * np.cos(angle) - x[..., b] * np.sin(angle)
        out[..., b] = x[..., a] * np.sin(angle) + x[..., b] * np.cos(angle)
        return out

    def head_norm(self, i, name, x):
        """The norm of each head, x: (tokens, heads, head_dim), whose weights are for one or for all."""
        return self.norm(f"blk.{i}.{name}", x)

    def is_turned(self, i):
        """Whether a layer's queries and keys are rotated."""
        if self.arch in ("cohere2", "exaone-moe") or self.arch == "exaone4" and self.window:
            return self.is_local(i)
        if self.arch == "smallthinker" and self.meta.get("smallthinker.attention.sliding_window"):
            return i % 4 != 0
        if self.arch in ("smollm3", "afmoe", "llama4"):
            return (i + 1) % 4 != 0
        if self.arch == "baichuan":
            return self.n_layer == 32
        return self.arch not in STILL and self.meta.get(f"{self.arch}.rope.scaling.finetuned", True)

    def slopes(self, n_head):
        """What the scores of each head lose with each position of distance (ALiBi)."""
        has_them = self.arch in ("bloom", "mpt", "jais", "refact") or self.arch == "baichuan" and self.n_layer == 40
        greatest = self.meta.get(f"{self.arch}.attention.max_alibi_bias", 8.0) if has_them else 0.0
        heads = np.arange(n_head)
        even = 2 ** int(np.log2(n_head))
        powers = np.where(heads < even, heads + 1, (2 * (heads - even) + 1) / 2)
        return 2.0 ** (-greatest / even * powers) if has_them else 0.0 * heads

    def attention(self, i, x, n_ctx):
        w = lambda name: self.w[f"blk.{i}.{name}"]
        local, dim = self.is_local(i), self.head_dim
        heads, kv_heads = (n[i] if isinstance(n, list) else n for n in (self.n_head, self.n_head_kv))
        project = lambda name: x @ w(f"{name}.weight").T + self.w.get(f"blk.{i}.{name}.bias", 0.0)
        if f"blk.{i}.attn_qkv.weight" in self.w:
            q, k, v = np.split(project("attn_qkv"), [heads * dim, (heads + kv_heads) * dim], -1)
        else:
            q, k, v = project("attn_q"), project("attn_k"), project("attn_v")
        limit = self.meta.get(f"{self.arch}.attention.clamp_kqv")
        if limit:
            q, k, v = (np.clip(y, -limit, limit) for y in (q, k, v))
        if self.arch in GATED_QUERIES:  # each query has a gate behind it
            q, gate = np.split(q.reshape(len(x), heads, 2 * dim), 2, -1)
            q, gate = q.reshape(len(x), -1), gate.reshape(len(x), -1)
        split = lambda y: y.reshape(len(x), -1, dim)
        if self.arch in ("olmo2", "olmoe", "minimax-m2"):  # over all heads together, the others over each
            q, k = self.norm(f"blk.{i}.attn_q_norm", q), self.norm(f"blk.{i}.attn_k_norm", k)
            q, k, v = split(q), split(k), split(v)
        else:
            q, k, v = split(q), split(k), v.reshape(len(x), kv_heads, -1)
            if self.arch not in NORMED_LAST:
                q, k = self.head_norm(i, "attn_q_norm", q), self.head_norm(i, "attn_k_norm", k)
        if self.is_turned(i):
            q, k = self.rope(q, local, n_ctx), self.rope(k, local, n_ctx)
        if self.arch in NORMED_LAST:
            q, k = self.head_norm(i, "attn_q_norm", q), self.head_norm(i, "attn_k_norm", k)
        grows = self.meta.get(f"{self.arch}.attention.temperature_scale")
        if grows:
            q = q * (1 + grows * np.log(np.arange(len(x)) // self.original_ctx + 1))[:, None, None]
        group = heads // kv_heads
        if self.arch == "llama4" and (i + 1) % 4 == 0:
            q = q * (1 + 0.1 * np.log((np.arange(len(x)) + 1) // 8192 + 1))[:, None, None]
        elif self.arch == "llama4" and self.meta["llama4.expert_count"] != 128:
            q, k = rms_norm(q, 1.0, self.eps), rms_norm(k, 1.0, self.eps)
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        score = soft_cap(np.einsum("qhd,khd->hqk", q, k) * self.score_scale, self.score_cap)
        back = np.arange(len(x))[:, None] - np.arange(len(x))[None, :]
        score = score - self.slopes(heads)[:, None, None] * back
        seen = (back >= 0) & (back < (self.window if local and self.window else len(x)))
        score = np.where(seen, score, -np.inf)
        sinks = self.w.get(f"blk.{i}.attn_sinks.weight")
        if sinks is not None:  # a key more, whose value is zero
            score = np.concatenate([score, np.broadcast_to(sinks[:, None, None], (heads, len(x), 1))], -1)
        out = np.einsum("hqk,khd->qhd", softmax(score)[..., : len(x)], v).reshape(len(x), -1)
        if self.arch in GATED_QUERIES:
            out = out / (1 + np.exp(-gate))
        of_output = self.w.get(f"blk.{i}.attn_gate.weight")
        if of_output is not None:  # a gate for each element or for each head
            gate = np.repeat(x @ of_output.T, out.shape[1] // of_output.shape[0], 1)
            out = out * (np.log1p(np.exp(gate)) if self.arch == "laguna" else 1 / (1 + np.exp(-gate)))
        out = self.norm(f"blk.{i}.attn_sub_norm", out * self.meta.get(f"{self.arch}.attention.value_scale", 1.0))
        return out @ w("attn_output.weight").T + self.w.get(f"blk.{i}.attn_output.bias", 0.0)

    def short_conv(self, i, x):
        b, c, u = np.split(x @ self.w[f"blk.{i}.shortconv.in_proj.weight"].T, 3, -1)
        taps = self.w[f"blk.{i}.shortconv.conv.weight"]
        padded = np.concatenate([np.zeros((taps.shape[1] - 1, x.shape[1])), b * u])
        conv = sum(padded[j : j + len(x)] * taps[:, j] for j in range(taps.shape[1]))
        return (c * conv) @ self.w[f"blk.{i}.shortconv.out_proj.weight"].T

    def delta_net(self, i, x):
        w = lambda name: self.w[f"blk.{i}.{name}"]
        key = lambda k: self.meta[f"{self.arch}.ssm.{k}"]
        inner, dim, heads, groups = (key(k) for k in ("inner_size", "state_size", "time_step_rank", "group_count"))
        raw, gate, strength, step = self.delta_inputs(i, x)
        taps = w("ssm_conv1d.weight")
        padded = np.concatenate([np.zeros((taps.shape[1] - 1, raw.shape[1])), raw])
        mixed = silu(sum(padded[j : j + len(x)] * taps[:, j] for j in range(taps.shape[1])))
        q, k, v = np.split(mixed, [groups * dim, 2 * groups * dim], -1)
        unit = lambda y: y / np.sqrt((y * y).sum(-1, keepdims=True) + self.eps)
        # Value heads take turns with the key heads; in qwen3next those that follow each other share one.
        spread = (lambda y: np.repeat(y, heads // groups, 1)) if self.arch == "qwen3next" else (lambda y: np.tile(y, (1, heads // groups, 1)))
        q, k = (spread(unit(y.reshape(len(x), groups, dim))) for y in (q, k))
        q, v = q / np.sqrt(dim), v.reshape(len(x), heads, -1)
        beta = 1 / (1 + np.exp(-strength))
        decay = w("ssm_a").reshape(heads) * np.log1p(np.exp(step + w("ssm_dt.bias")))
        state, out = np.zeros((heads, dim, inner // heads)), []
        for t in range(len(x)):
            state = np.exp(decay[t])[:, None, None] * state
            new = beta[t][:, None] * (v[t] - np.einsum("hd,hdp->hp", k[t], state))
            state = state + k[t][:, :, None] * new[:, None, :]
            out.append(np.einsum("hd,hdp->hp", q[t], state))
        y = rms_norm(np.stack(out), w("ssm_norm.weight"), self.eps).reshape(len(x), inner)
        return (y * silu(gate)) @ w("ssm_out.weight").T

    def delta_inputs(self, i, x):
        """What the convolution of a delta net goes over, gates, strengths and step sizes."""
        w = lambda name: self.w[f"blk.{i}.{name}.weight"].T
        if self.arch != "qwen3next":
            return x @ w("attn_qkv"), x @ w("attn_gate"), x @ w("ssm_beta"), x @ w("ssm_alpha")
        key = lambda k: self.meta[f"{self.arch}.ssm.{k}"]
        inner, dim, groups = (key(k) for k in ("inner_size", "state_size", "group_count"))
        of_group = lambda y: y.reshape(len(x), groups, -1)
        strength, step = (y.reshape(len(x), -1) for y in np.split(of_group(x @ w("ssm_ba")), 2, -1))
        if f"blk.{i}.ssm_in.weight" not in self.w:
            return x @ w("attn_qkv"), x @ w("attn_gate"), strength, step
        parts = np.split(of_group(x @ w("ssm_in")), [dim, 2 * dim, 2 * dim + inner // groups], -1)
        q, k, v, gate = (y.reshape(len(x), -1) for y in parts)
        return np.concatenate([q, k, v], -1), gate, strength, step

    def mamba(self, i, x):
        w = lambda name: self.w[f"blk.{i}.{name}"]
        key = lambda k: self.meta[f"{self.arch}.ssm.{k}"]
        inner, dim, rank = (key(k) for k in ("inner_size", "state_size", "time_step_rank"))
        raw, gate = np.split(x @ w("ssm_in.weight").T, 2, -1)
        taps = w("ssm_conv1d.weight")
        padded = np.concatenate([np.zeros((taps.shape[1] - 1, inner)), raw])
        value = silu(sum(padded[j : j + len(x)] * taps[:, j] for j in range(taps.shape[1])) + w("ssm_conv1d.bias"))
        parts = np.split(value @ w("ssm_x.weight").T, [rank, rank + dim], -1)
        if self.arch == "jamba" or self.meta.get("mamba.ssm.dt_b_c_rms"):
            names = ("ssm_dt_norm", "ssm_b_norm", "ssm_c_norm")
            parts = [rms_norm(y, self.w.get(f"blk.{i}.{name}.weight", 1.0), self.eps) for y, name in zip(parts, names)]
        step, k, q = parts
        step = np.log1p(np.exp(step @ w("ssm_dt.weight").T + w("ssm_dt.bias")))
        state, out = np.zeros((inner, dim)), []
        for t in range(len(x)):
            state = np.exp(step[t][:, None] * w("ssm_a")) * state + (step[t] * value[t])[:, None] * k[t]
            out.append(state @ q[t] + w("ssm_d") * value[t])
        return (np.stack(out) * silu(gate)) @ w("ssm_out.weight").T

    def mamba2(self, i, x):
        w = lambda name: self.w[f"blk.{i}.{name}"]
        key = lambda k: self.meta[f"{self.arch}.ssm.{k}"]
        inner, dim, heads, groups = (key(k) for k in ("inner_size", "state_size", "time_step_rank", "group_count"))
        gate, raw, step = np.split(x @ w("ssm_in.weight").T, [inner, 2 * inner + 2 * groups * dim], -1)
        taps = w("ssm_conv1d.weight")  # (channels, positions)
        padded = np.concatenate([np.zeros((taps.shape[1] - 1, raw.shape[1])), raw])
        conv = sum(padded[j : j + len(x)] * taps[:, j] for j in range(taps.shape[1]))
        mixed = silu(conv + self.w.get(f"blk.{i}.ssm_conv1d.bias", 0.0))
        value, k, q = np.split(mixed, [inner, inner + groups * dim], -1)
        value = value.reshape(len(x), heads, -1)
        k, q = (np.repeat(y.reshape(len(x), groups, dim), heads // groups, 1) for y in (k, q))
        step = np.log1p(np.exp(step + w("ssm_dt.bias")))
        decay, skip = w("ssm_a").reshape(heads), w("ssm_d").reshape(heads)
        state, out = np.zeros((heads, dim, inner // heads)), []
        for t in range(len(x)):
            state = np.exp(step[t] * decay)[:, None, None] * state
            state = state + step[t][:, None, None] * k[t][:, :, None] * value[t][:, None, :]
            out.append(np.einsum("hd,hdp->hp", q[t], state) + skip[:, None] * value[t])
        y = np.stack(out).reshape(len(x), inner) * silu(gate)
        norm = self.w.get(f"blk.{i}.ssm_norm.weight")
        if norm is not None:
            y = rms_norm(y.reshape(len(x), groups, -1), norm.reshape(groups, -1), self.eps).reshape(len(x), inner)
        return y @ w("ssm_out.weight").T

    def expert(self, i, e, x):
        w = lambda name: self.w[f"blk.{i}.{name}_exps.weight"][e]
        bias = lambda name: self.w[f"blk.{i}.{name}_exps.bias"][e] if f"blk.{i}.{name}_exps.bias" in self.w else 0.0
        up = x @ w("ffn_up").T + bias("ffn_up")
        if f"blk.{i}.ffn_gate_exps.weight" not in self.w:
            hidden = np.maximum(up, 0) ** 2
        else:
            gate = x @ w("ffn_gate").T + bias("ffn_gate")
            if self.arch == "gpt-oss":
                gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
                hidden = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
            else:
                gate = np.maximum(gate, 0) if self.arch == "smallthinker" else silu(gate)
                hidden = self.limited(i, "swiglu_clamp_exp", gate, up)
        return hidden @ w("ffn_down").T + bias("ffn_down")

    def limited(self, i, key, gate, up):
        """gate * up, within the limit that a layer has, if it has one."""
        limit = self.meta.get(f"{self.arch}.{key}", [0.0] * self.n_layer)[i]
        return np.minimum(gate, limit) * np.clip(up, -limit, limit) if limit else gate * up

    def experts(self, i, x, seen=None):
        """A mixture; `seen` is what the router reads if it is not x."""
        key = lambda k, default=None: self.meta.get(f"{self.arch}.{k}", default)
        n, used, of_chosen = key("expert_count"), key("expert_used_count"), self.arch == "gpt-oss"
        z = (x if seen is None else seen) @ self.w[f"blk.{i}.ffn_gate_inp.weight"].T + self.w.get(f"blk.{i}.ffn_gate_inp.bias", 0.0)
        is_logistic = self.arch in LOGISTIC or key("expert_gating_func") == 2
        prob = 1 / (1 + np.exp(-z)) if is_logistic else z if of_chosen else softmax(z)
        bias = f"blk.{i}.exp_probs_b"
        score = prob + self.w.get(f"{bias}.bias", self.w.get(bias, 0.0))
        groups, groups_used = key("expert_group_count", 1), key("expert_group_used_count", 1)
        if groups > 1:
            by_group = score.reshape(len(x), groups, -1)
            best = np.sort(by_group, -1)[..., -2:].sum(-1)
            rank = np.argsort(np.argsort(-best, -1), -1)
            score = np.where((rank < groups_used)[..., None], by_group, -np.inf).reshape(len(x), n)
        out = np.zeros_like(x)
        for t in range(len(x)):
            chosen = np.argsort(-score[t], kind="stable")[:used]
            weight = softmax(prob[t, chosen]) if of_chosen else prob[t, chosen]
            if key("expert_weights_norm", self.arch not in UNNORMED):
                weight = weight / weight.sum()
            weight = weight * key("expert_weights_scale", 1.0)
            if self.arch == "llama4":  # it is the input that is weighed
                out[t] = sum(self.expert(i, e, w * x[t]) for w, e in zip(weight, chosen))
                continue
            out[t] = sum(w * self.expert(i, e, x[t]) for w, e in zip(weight, chosen))
        shared = lambda name: self.w[f"blk.{i}.{name}_shexp.weight"].T
        if f"blk.{i}.ffn_up_shexp.weight" not in self.w:
            return out
        up = x @ shared("ffn_up")
        gated = f"blk.{i}.ffn_gate_shexp.weight" in self.w
        hidden = self.limited(i, "swiglu_clamp_shexp", silu(x @ shared("ffn_gate")), up) if gated else np.maximum(up, 0) ** 2
        y = hidden @ shared("ffn_down")
        if f"blk.{i}.ffn_gate_inp_shexp.weight" in self.w:
            y = y / (1 + np.exp(-x @ self.w[f"blk.{i}.ffn_gate_inp_shexp.weight"].reshape(-1, 1)))
        return out + y

    def block(self, i, x, n_ctx):
        """A layer of nemotron_h, with experts or without: one of three things behind one norm."""
        y = self.norm(f"blk.{i}.attn_norm", x)
        if self.meta[f"{self.arch}.feed_forward_length"][i] and self.arch == "nemotron_h_moe":
            return x + self.experts(i, y)
        if self.meta[f"{self.arch}.feed_forward_length"][i]:
            return x + self.feed_forward(i, y, relu_squared)
        if self.meta[f"{self.arch}.attention.head_count_kv"][i]:
            return x + self.attention(i, y, n_ctx)
        return x + self.mamba2(i, y)

    def gemma4_attention(self, i, x, kept):
        """Attention of a layer of gemma4; `kept` has the keys and values of the layers before."""
        w = lambda name: self.w[f"blk.{i}.{name}.weight"]
        key = lambda k: self.meta[f"gemma4.{k}"]
        local = key("attention.sliding_window_pattern")[i]
        dim, base = (key("attention.key_length_swa"), key("rope.freq_base_swa")) if local else (self.head_dim, self.base)
        freq = base ** (-np.arange(dim // 2) * 2 / dim) / (1.0 if local else self.w["rope_freqs.weight"])
        angle = np.arange(len(x))[:, None, None] * freq

        def turn(y):
            a, b = np.split(y, 2, -1)
            return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], -1)

        split = lambda y: y.reshape(len(x), -1, dim)
        q = turn(rms_norm(split(x @ w("attn_q").T), w("attn_q_norm"), self.eps))
        own = self.n_layer - key("attention.shared_kv_layers")
        if i < own:
            k = split(x @ w("attn_k").T)
            v = split(x @ w("attn_v").T) if f"blk.{i}.attn_v.weight" in self.w else k
            kept[i] = turn(rms_norm(k, w("attn_k_norm"), self.eps)), rms_norm(v, 1.0, self.eps)
        k, v = (np.repeat(y, self.n_head // y.shape[1], 1) for y in kept[i if i < own else own - (2 if local else 1)])
        back = np.arange(len(x))[:, None] - np.arange(len(x))[None, :]
        seen = (back >= 0) & (back < (key("attention.sliding_window") if local else len(x)))
        score = np.where(seen, np.einsum("qhd,khd->hqk", q, k), -np.inf)
        return np.einsum("hqk,khd->qhd", softmax(score), v).reshape(len(x), -1) @ w("attn_output").T

    def gemma4_experts(self, i, x, act):
        w = lambda name: self.w[f"blk.{i}.{name}"]
        y = self.norm(f"blk.{i}.pre_ffw_norm_2", x)
        prob = softmax(rms_norm(x, w("ffn_gate_inp.scale"), self.eps) / np.sqrt(self.n_embd) @ w("ffn_gate_inp.weight").T)
        out = np.zeros_like(x)
        for t in range(len(x)):
            chosen = np.argsort(-prob[t], kind="stable")[: self.meta["gemma4.expert_used_count"]]
            for e in chosen:
                gate, up = np.split(w("ffn_gate_up_exps.weight")[e] @ y[t], 2)
                given = w("ffn_down_exps.weight")[e] @ (act(gate) * up) * w("ffn_down_exps.scale")[e]
                out[t] += prob[t, e] / prob[t, chosen].sum() * given
        return out

    def gemma4_layer(self, i, x, kept, own, act):
        norm = lambda name, y: self.norm(f"blk.{i}.{name}", y)
        w = lambda name: self.w[f"blk.{i}.{name}.weight"]
        x = x + norm("post_attention_norm", self.gemma4_attention(i, norm("attn_norm", x), kept))
        y = self.feed_forward(i, norm("ffn_norm", x), act)
        if f"blk.{i}.ffn_gate_inp.weight" in self.w:
            y = norm("post_ffw_norm_1", y) + norm("post_ffw_norm_2", self.gemma4_experts(i, x, act))
        x = x + norm("post_ffw_norm", y)
        if own is not None:
            x = x + norm("post_norm", (act(x @ w("inp_gate").T) * own[:, i]) @ w("proj").T)
        return x * self.w.get(f"blk.{i}.layer_output_scale.weight", 1.0)

    def gemma3n_streams(self, x):
        """The embedding, and three projections of it that are as long: (4, tokens, elements)."""
        others = np.einsum("td,jed->jte", x, self.w["altup_proj.weight"])
        return np.concatenate([x[None], others * self.lengths(x) / self.lengths(others)])

    def lengths(self, x):
        return np.sqrt((x * x).sum(-1, keepdims=True))

    def gemma3n_layer(self, i, streams, kept, own, act):
        norm = lambda name, y: self.norm(f"blk.{i}.{name}", y)
        w = lambda name: self.w[f"blk.{i}.{name}.weight"]
        numbers = lambda y: np.tanh(norm("altup_router_norm", y) / self.n_embd @ w("altup_router").T)
        weights = (numbers(streams[0]) @ w("altup_predict_coef").T).reshape(-1, 4, 4)  # (tokens, to, from)
        predicted = streams + np.einsum("tji,ite->jte", weights, streams)
        x = predicted[0]
        y = norm("attn_norm", x)
        branch = y + norm("laurel_post_norm", y @ w("laurel_l").T @ w("laurel_r").T)
        x = (x + norm("post_attention_norm", self.gemma3n_attention(i, y, kept)) + branch) / np.sqrt(2)
        y = norm("ffn_norm", x)
        gate, up = y @ w("ffn_gate").T, y @ w("ffn_up").T
        if i < 10:  # what is not far above the mean is nothing
            cut = gate.mean(-1, keepdims=True) + 1.6448533535003662 * gate.std(-1, ddof=1, keepdims=True)
            gate = np.maximum(0, gate - cut)
        x = x + norm("post_ffw_norm", (act(gate) * up) @ w("ffn_down").T)
        weights = numbers(x) @ w("altup_correct_coef").T + 1
        streams = predicted + weights.T[:, :, None] * (x - predicted[0])
        first = self.w[f"blk.{i}.altup_correct_scale.weight"] * streams[0]
        streams[1:] += norm("post_norm", (act(first @ w("inp_gate").T) * own[:, i]) @ w("proj").T)
        return streams

    def gemma3n_attention(self, i, x, kept):
        w = lambda name: self.w[f"blk.{i}.{name}.weight"]
        local, dim = i % 5 != 4, self.head_dim
        freq = (self.meta["gemma3n.rope.freq_base_swa"] if local else self.base) ** (-np.arange(dim // 2) * 2 / dim)
        angle = np.arange(len(x))[:, None, None] * freq

        def turn(y):
            a, b = np.split(y, 2, -1)
            return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], -1)

        split = lambda y: y.reshape(len(x), -1, dim)
        q = turn(rms_norm(split(x @ w("attn_q").T), w("attn_q_norm"), self.eps))
        own = min(20, self.n_layer)
        if i < own:
            k = turn(rms_norm(split(x @ w("attn_k").T), w("attn_k_norm"), self.eps))
            kept[i] = k, rms_norm(split(x @ w("attn_v").T), 1.0, self.eps)
        k, v = (np.repeat(y, self.n_head // y.shape[1], 1) for y in kept[i if i < own else own - (2 if local else 1)])
        back = np.arange(len(x))[:, None] - np.arange(len(x))[None, :]
        seen = (back >= 0) & (back < (self.meta["gemma3n.attention.sliding_window"] if local else len(x)))
        score = np.where(seen, np.einsum("qhd,khd->hqk", q, k), -np.inf)
        return np.einsum("hqk,khd->qhd", softmax(score), v).reshape(len(x), -1) @ w("attn_output").T

    def gemma3n_mean(self, streams):
        others = np.einsum("jtd,jed->jte", streams[1:], self.w["altup_unembd_proj.weight"])
        return (streams[0] + (others * self.lengths(streams[0]) / self.lengths(others)).sum(0)) / 4

    def own_embeddings(self, ids, x):
        """Each layer's own embedding of the tokens: (tokens, layers, elements)."""
        if "per_layer_token_embd.weight" not in self.w:
            return None
        split = lambda y: y.reshape(len(x), self.n_layer, -1)
        own = split(self.w["per_layer_token_embd.weight"][ids])
        projected = split(x @ self.w["per_layer_model_proj.weight"].T / np.sqrt(self.n_embd))
        return (own * np.sqrt(own.shape[-1]) + self.norm("per_layer_proj_norm", projected)) / np.sqrt(2)

    def feed_forward(self, i, x, act):
        w = lambda name: self.w[f"blk.{i}.{name}.weight"].T
        bias = lambda name: self.w.get(f"blk.{i}.{name}.bias", 0.0)
        up = x @ w("ffn_up") + bias("ffn_up")
        if self.arch in ("phi3", "glm4", "chatglm"):  # the gate's rows, then those of the up projection
            gate, up = np.split(up, 2, -1)
            hidden = act(gate) * up
        elif f"blk.{i}.ffn_gate.weight" in self.w:
            hidden = self.limited(i, "swiglu_clamp_shexp", act(x @ w("ffn_gate") + bias("ffn_gate")), up)
        else:
            hidden = self.xielu(i, up) if self.arch == "apertus" else act(up)
        return self.norm(f"blk.{i}.ffn_sub_norm", hidden) @ w("ffn_down") + bias("ffn_down")

    def xielu(self, i, x):
        negative, positive, beta, eps = (self.meta[f"xielu.{k}"][i] for k in ("alpha_n", "alpha_p", "beta", "eps"))
        softplus = lambda y: np.log1p(np.exp(y))
        below = (beta + softplus(negative)) * (np.expm1(np.minimum(x, eps)) - x)
        return np.where(x > 0, softplus(positive) * x * x, below) + beta * x

    def logits(self, ids, gelu_table=False):
        """Logits of every position, in a context that holds just these: (len(ids), vocabulary), f64."""
        act = (gelu_f16 if gelu_table else gelu) if self.uses_gelu else relu_squared if self.arch in SQUARED else silu
        x = self.w["token_embd.weight"][ids] * self.embedding_scale
        if self.arch == "bloom":
            x = self.norm("token_embd_norm", x)
        if "position_embd.weight" in self.w:
            x = x + self.w["position_embd.weight"][: len(ids)]
        kept, own = {}, self.own_embeddings(ids, x) if self.arch in ("gemma3n", "gemma4") else None
        if self.arch == "gemma3n":
            x = self.gemma3n_streams(x)
        for i in range(self.n_layer):
            norm = lambda name, y: self.norm(f"blk.{i}.{name}", y)
            if self.arch == "gemma3n":
                x = self.gemma3n_layer(i, x, kept, own, act)
                continue
            if self.arch == "gemma4":
                x = self.gemma4_layer(i, x, kept, own, act)
                continue
            if self.arch.startswith("nemotron_h"):
                x = self.block(i, x, len(ids))
                continue
            y = norm("attn_norm", x)
            if self.arch == "falcon-h1":
                x = x + self.attention(i, y, len(ids)) + self.mamba2(i, y)
                x = x + self.feed_forward(i, self.norm(f"blk.{i}.ffn_norm", x), act)
                continue
            if self.is_parallel(i):
                of_mixer = norm("attn_norm_2", x) if f"blk.{i}.attn_norm_2.weight" in self.w else y
                of_ffn = norm("ffn_norm", x) if f"blk.{i}.ffn_norm.weight" in self.w else y
                x = x + self.attention(i, of_mixer, len(ids)) + self.feed_forward(i, of_ffn, act)
                continue
            if self.arch in ("lfm2", "lfm2moe"):
                short = f"blk.{i}.shortconv.conv.weight" in self.w
                x = x + (self.short_conv(i, y) if short else self.attention(i, y, len(ids)))
                y = norm("ffn_norm", x)
                mixed = f"blk.{i}.ffn_gate_inp.weight" in self.w
                x = x + (self.experts(i, y) if mixed else self.feed_forward(i, y, act))
                continue
            if self.arch in RENAMED:
                recurrent = f"blk.{i}.ssm_out.weight" in self.w
                x = x + (self.delta_net(i, y) if recurrent else self.attention(i, y, len(ids)))
                y = norm("post_attention_norm", x)
                mixed = f"blk.{i}.ffn_gate_inp.weight" in self.w
                x = x + (self.experts(i, y) if mixed else self.feed_forward(i, y, act))
                continue
            # Behind each half a norm, where the file has one.
            behind = lambda name, y: norm(name, y) if f"blk.{i}.{name}.weight" in self.w else y
            before = x
            x = x + self.residual_scale * behind("post_attention_norm", self.mixer(i, y, len(ids)))
            if self.arch in ("mamba", "mamba2"):
                continue
            y = norm("attn_output_norm" if self.arch == "dbrx" else "ffn_norm", x)
            if f"blk.{i}.ffn_gate_inp.weight" in self.w:
                seen = before if self.arch == "smallthinker" else None
                x = x + self.residual_scale * behind("post_ffw_norm", self.experts(i, y, seen))
                continue
            x = x + self.residual_scale * behind("post_ffw_norm", self.feed_forward(i, y, act))
        if self.arch == "gemma3n":
            x = self.gemma3n_mean(x)
        out = self.w.get("output.weight", self.w["token_embd.weight"])
        last = "token_embd_norm" if self.arch in ("lfm2", "lfm2moe") else "output_norm"
        logits = self.norm(last, x) @ out.T + self.w.get("output.bias", 0.0)
        return soft_cap(logits * self.logit_scale, self.logit_cap)

    def latent_attention(self, i, x, n_ctx):
        """Keys and values made of one row a position, and a rotated part of keys for all heads."""
        w = lambda name: self.w[f"blk.{i}.{name}.weight"].T
        key = lambda k: self.meta[f"{self.arch}.attention.{k}"]
        rank, heads, rotated = key("kv_lora_rank"), self.n_head, self.rope_dims
        own = self.head_dim - rotated
        turn = lambda y: np.concatenate([y[..., :-rotated], self.rope(y[..., -rotated:], False, n_ctx)], -1)
        compressed = f"blk.{i}.attn_q_a.weight" in self.w
        q = self.norm(f"blk.{i}.attn_q_a_norm", x @ w("attn_q_a")) @ w("attn_q_b") if compressed else x @ w("attn_q")
        row, end = np.split(x @ w("attn_kv_a_mqa"), [rank], -1)
        parts = (self.norm(f"blk.{i}.attn_kv_a_norm", row) @ w("attn_kv_b")).reshape(len(x), heads, -1)
        k = np.concatenate([parts[..., :own], np.repeat(end[:, None], heads, 1)], -1)
        q, k = turn(q.reshape(len(x), heads, -1)), turn(k)
        score = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(self.head_dim)
        score = np.where(np.tri(len(x), dtype=bool), score, -np.inf)
        return np.einsum("hqk,khd->qhd", softmax(score), parts[..., own:]).reshape(len(x), -1) @ w("attn_output")

    def mixer(self, i, x, n_ctx):
        """What lets positions see each other in a layer, by its tensors."""
        if f"blk.{i}.attn_kv_a_mqa.weight" in self.w:
            return self.latent_attention(i, x, n_ctx)
        if f"blk.{i}.ssm_x.weight" in self.w:
            return self.mamba(i, x)
        if self.arch == "deci" and f"blk.{i}.attn_q.weight" not in self.w:  # a matrix, or nothing
            return x @ self.w[f"blk.{i}.attn_output.weight"].T if f"blk.{i}.attn_output.weight" in self.w else 0.0
        return self.mamba2(i, x) if f"blk.{i}.ssm_out.weight" in self.w else self.attention(i, x, n_ctx)

    def is_parallel(self, i):
        """Whether both halves of a layer read its input."""
        if self.arch == "stablelm":
            return f"blk.{i}.ffn_norm.weight" not in self.w
        return self.arch in PARALLEL or bool(self.meta.get(f"{self.arch}.use_parallel_residual"))
