"""What the golden makers share: llama.cpp through llama-cpp-python, run as exactly as it can be run.

"Exact" means: weights dequantised to F32 in a copy of the file, a KV cache of F32, flash attention off, so that
nothing is rounded to less than F32 anywhere. llama.cpp's default run quantises activations and keeps K and V as f16.
"""
import ctypes
import hashlib
import json
import os
import sys

try:
    import numpy as np
    import llama_cpp as L
except ImportError as e:
    sys.exit(
        f"{e.name} is missing. The golden makers need (they are never needed to build or test):\n"
        "    python3 -m venv .venv && . .venv/bin/activate\n"
        "    pip install cmake ninja numpy typing_extensions diskcache jinja2\n"
        "    pip install --no-deps llama-cpp-python      # compiles llama.cpp, several minutes"
    )

F32 = 0  # ggml_type F32
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_quiet = L.llama_log_callback(lambda *_: None)
_loud = L.llama_log_callback(lambda level, text, _: sys.stderr.write(text.decode("utf-8", "replace")))


def init(verbose=False):
    """Starts llama.cpp's back end; its log goes to standard error or nowhere."""
    L.llama_backend_init()
    L.llama_log_set(_loud if verbose else _quiet, ctypes.c_void_p(0))


def versions():
    """The peer that a golden was made with, for the record inside it."""
    return {"llama_cpp_python": L.__version__}


def sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def dequantise(src, dst, threads=2):
    """Writes a copy of `src` with every tensor as F32, and checks that each one is."""
    p = L.llama_model_quantize_default_params()
    p.nthread = threads
    p.ftype = L.LLAMA_FTYPE_ALL_F32
    p.output_tensor_type = F32
    p.token_embedding_type = F32
    p.allow_requantize = True
    p.quantize_output_tensor = True
    p.pure = True
    if L.llama_model_quantize(src.encode(), dst.encode(), ctypes.byref(p)) != 0:
        raise RuntimeError(f"llama.cpp could not dequantise {src}")
    left = [(n, t) for n, t in tensor_types(dst) if t != F32]
    if left:
        raise RuntimeError(f"{dst}: still not F32: {left[:5]}")


def tensor_types(path):
    """(name, type id) of every tensor in a GGUF file."""
    import struct

    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    with open(path, "rb") as f:
        u32 = lambda: struct.unpack("<I", f.read(4))[0]
        u64 = lambda: struct.unpack("<Q", f.read(8))[0]
        text = lambda: f.read(u64()).decode("utf-8", "replace")

        def skip(ty):
            if ty == 8:
                f.seek(u64(), 1)
            elif ty == 9:
                inner, n = u32(), u64()
                if inner in sizes:
                    f.seek(sizes[inner] * n, 1)
                else:
                    for _ in range(n):
                        skip(inner)
            else:
                f.seek(sizes[ty], 1)

        assert f.read(4) == b"GGUF"
        u32()
        n_tensors, n_kv = u64(), u64()
        for _ in range(n_kv):
            text()
            skip(u32())
        out = []
        for _ in range(n_tensors):
            name = text()
            for _ in range(u32()):
                u64()
            out.append((name, u32()))
            u64()
        return out


class Runner:
    """One model in one context; `feed` continues the sequence, `clear` starts it again."""

    def __init__(self, path, n_ctx=1024, exact=True, threads=2):
        mp = L.llama_model_default_params()
        mp.use_mmap = True
        mp.n_gpu_layers = 0
        self.model = L.llama_model_load_from_file(path.encode(), mp)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        cp = L.llama_context_default_params()
        cp.n_ctx = n_ctx
        cp.n_batch = cp.n_ubatch = 512
        cp.n_threads = cp.n_threads_batch = threads
        if exact:
            cp.type_k = cp.type_v = F32
            cp.flash_attn_type = L.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.ctx = L.llama_init_from_model(self.model, cp)
        if not self.ctx:
            raise RuntimeError(f"llama.cpp makes no context for {path}")
        self.vocab = L.llama_model_get_vocab(self.model)
        self.n_vocab = L.llama_vocab_n_tokens(self.vocab)
        self.n_past = 0

    def close(self):
        L.llama_free(self.ctx)
        L.llama_model_free(self.model)

    def clear(self):
        L.llama_memory_clear(L.llama_get_memory(self.ctx), True)
        self.n_past = 0

    def tokenize(self, text, add_special=True, parse_special=True):
        """Token ids of a text."""
        raw = text.encode()
        buf = (L.llama_token * (len(raw) + 16))()
        n = L.llama_tokenize(self.vocab, raw, len(raw), buf, len(buf), add_special, parse_special)
        assert n >= 0
        return list(buf[:n])

    def text(self, ids):
        """The text of token ids, with special tokens written out."""
        out = b""
        for i in ids:
            buf = ctypes.create_string_buffer(256)
            n = L.llama_token_to_piece(self.vocab, i, buf, len(buf), 0, True)
            assert n >= 0
            out += buf.raw[:n]
        return out.decode("utf-8", "replace")

    def feed(self, ids):
        """Evaluates `ids` after what was fed before; logits of every one: (len(ids), n_vocab), f32."""
        b = L.llama_batch_init(len(ids), 0, 1)
        b.n_tokens = len(ids)
        for i, tok in enumerate(ids):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = tok, self.n_past + i, 1, 1
            b.seq_id[i][0] = 0
        rc = L.llama_decode(self.ctx, b)
        L.llama_batch_free(b)
        if rc != 0:
            raise RuntimeError(f"llama_decode returned {rc}")
        self.n_past += len(ids)
        ptr = L.llama_get_logits(self.ctx)
        flat = np.ctypeslib.as_array(ptr, shape=(len(ids) * self.n_vocab,))
        return flat.reshape(len(ids), self.n_vocab).copy()


def write_json(path, value):
    """JSON with one line for each key of the top level: short files that still diff."""
    lines = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in value.items()]
    with open(path, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(lines) + "\n}\n")
