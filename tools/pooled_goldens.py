#!/usr/bin/env python3
"""Pooled vectors of tiny models from llama.cpp, for crates/engine/tests/it/pooled.rs.

    cargo run -p modelembed-testkit --example tiny_models -- FOLDER
    python tools/pooled_goldens.py FOLDER

Writes pooled.json to crates/engine/tests/goldens: of each model and pooling the vector of the same tokens, not normalised.
"""
import json
import os
import sys

import numpy as np

import llama_cpp as L
import peer

# Not gemma3: its GELU comes from a table of f16 values there.
MODELS = ["llama", "qwen2", "qwen3"]
POOLINGS = {"mean": L.LLAMA_POOLING_TYPE_MEAN, "first": L.LLAMA_POOLING_TYPE_CLS, "last": L.LLAMA_POOLING_TYPE_LAST}
IDS = [(7 * i * i + 3 * i + 5) % 250 + 3 for i in range(40)]


def pooled(path, pooling):
    """The vector of IDS: (n_embd)."""
    model = L.llama_model_load_from_file(path.encode(), L.llama_model_default_params())
    params = L.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    params.type_k = params.type_v = peer.F32
    params.flash_attn_type = L.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.embeddings, params.pooling_type = True, pooling
    ctx = L.llama_init_from_model(model, params)
    batch = L.llama_batch_init(len(IDS), 0, 1)
    batch.n_tokens = len(IDS)
    for i, token in enumerate(IDS):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    if L.llama_decode(ctx, batch) != 0:
        raise RuntimeError(f"llama.cpp does not decode {path}")
    n_embd = L.llama_model_n_embd(model)
    vector = np.ctypeslib.as_array(L.llama_get_embeddings_seq(ctx, 0), shape=(n_embd,)).copy()
    L.llama_batch_free(batch)
    L.llama_free(ctx)
    L.llama_model_free(model)
    return [float(f"{x:.7g}") for x in vector]


def main():
    folder = sys.argv[1]
    peer.init()
    vectors = {
        name: {pooling: pooled(os.path.join(folder, f"{name}.gguf"), kind) for pooling, kind in POOLINGS.items()}
        for name in MODELS
    }
    golden = {"made_with": peer.versions(), "ids": IDS, "vectors": vectors}
    out = os.path.join(peer.ROOT, "crates/engine/tests/goldens/pooled.json")
    with open(out, "w") as file:
        json.dump(golden, file)
        file.write("\n")


if __name__ == "__main__":
    main()
