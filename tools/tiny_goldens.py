#!/usr/bin/env python3
"""Logits of the tiny models from exact arithmetic, for crates/engine/tests/tiny.rs.

    cargo run -p modelembed-testkit --example tiny_models -- /tmp/tiny
    python tools/tiny_goldens.py /tmp/tiny [--verbose]

Two independent programs compute each model over one prompt: llama.cpp (on an F32 copy, with an F32 KV cache, flash
attention off) and tools/reference.py (numpy, f64). They must agree, and the golden is llama.cpp's, with one
exception: llama.cpp takes GELU from a table of f16 values, so for models with GELU the reference imitates that table
to prove itself, and the golden is what it computes without the table. (Even so the two agree less closely there: a
value that lies on the edge between two f16 numbers may fall either way, and each such step moves what follows.)

Writes NAME.f32 (logits as little-endian f32, (positions, vocabulary)) and tiny.json to crates/engine/tests/goldens/tiny.
"""
import argparse
import os
import sys
import tempfile

import numpy as np

import peer
import reference

TOKENS = 40
# Logits are kept for these positions: the start, around gemma3's window of 16, the middle, the end.
POSITIONS = [0, 1, 2, 7, 15, 16, 17, 24, 31, 32, 38, 39]
# Largest |logit difference| between the two programs; logits have a standard deviation of 3.
AGREE, AGREE_GELU = 2e-4, 3e-3


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", help="folder that the tiny_models example wrote")
    p.add_argument("--verbose", action="store_true", help="show llama.cpp's log")
    p.add_argument("--out", default=os.path.join(peer.ROOT, "crates/engine/tests/goldens/tiny"))
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    ids = [int(i) for i in open(os.path.join(a.models, "prompt.txt")).read().split()][:TOKENS]
    peer.init(a.verbose)
    record, failures = {}, []
    for file in sorted(os.listdir(a.models)):
        name, ext = os.path.splitext(file)
        if ext != ".gguf":
            continue
        path = os.path.join(a.models, file)
        with tempfile.TemporaryDirectory() as tmp:
            f32 = path
            if any(t != peer.F32 for _, t in peer.tensor_types(path)):
                f32 = os.path.join(tmp, "f32.gguf")
                peer.dequantise(path, f32)
            run = peer.Runner(f32, n_ctx=256, exact=True)
            theirs = run.feed(ids)
            run.close()
            model = reference.Model(f32)
            ours = model.logits(ids, gelu_table=True)
            apart = float(np.abs(theirs - ours).max())
            exact = model.logits(ids)
            golden = exact.astype(np.float32) if model.uses_gelu else theirs
        run = peer.Runner(path, n_ctx=256, exact=False)
        apart_default = (run.feed(ids) - exact)[POSITIONS]
        default = float(np.sqrt((apart_default**2).mean()))
        run.close()
        spread = float(exact.std())
        print(f"{name:20} logit deviation {spread:5.2f}  llama.cpp to reference {apart:.2e}, to golden {np.abs(theirs - golden).max():.2e}, its default run {default:.4f} rms")
        if apart > (AGREE_GELU if model.uses_gelu else AGREE):
            failures.append(name)
        golden[POSITIONS].astype("<f4").tofile(os.path.join(a.out, name + ".f32"))
        record[name] = {
            "sha256": peer.sha256(path),
            "n_vocab": int(golden.shape[1]),
            "from": "reference" if model.uses_gelu else "llama.cpp",
            "llama_cpp_to_reference": float(f"{apart:.2e}"),
            "llama_cpp_default_rms": float(f"{default:.2e}"),
        }
    if failures:
        sys.exit(f"llama.cpp and the reference disagree on: {', '.join(failures)}; tiny.json is not written")
    head = {"made_by": "tools/tiny_goldens.py", "versions": peer.versions(), "ids": ids, "positions": POSITIONS}
    peer.write_json(os.path.join(a.out, "tiny.json"), {**head, "models": record})


main()
