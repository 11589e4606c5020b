#!/usr/bin/env python3
"""Logits of the tiny models from exact arithmetic, for crates/engine/tests/it/tiny.rs.

    cargo run -p modelembed-testkit --example tiny_models -- FOLDER
    python tools/tiny_goldens.py FOLDER [NAME ...] [--verbose]

With names, only these models are computed and the records of all others stay as they are.

Two independent programs compute each model over one prompt: llama.cpp (on an F32 copy, with an F32 KV cache, flash
attention off) and tools/reference.py (numpy, f64). They must agree, and the golden is llama.cpp's but for two exceptions, where
it is the reference's because llama.cpp itself rounds more than f32 sums do:
- GELU comes from a table of f16 values. The reference imitates the table to prove itself, and the golden is what it
  computes without. (Even so the two agree less closely: a value on the edge between two f16 numbers may fall either
  way, and each such step moves what follows.)
- Rotary angles are repeated f32 products, whose error grows with the position: long prompts.

Writes NAME.f32 (logits as little-endian f32, (positions, vocabulary)) and tiny.json to crates/engine/tests/goldens/tiny.
"""
import argparse
import json
import os
import sys
import tempfile

import numpy as np

import peer
import reference

# Prompts: the length, and the positions whose logits are kept. The short one goes past gemma3's window of 16 and is
# for every model; the long one goes past two spans of 256 that the engine's attention cuts a context into.
PROMPTS = {
    "short": (40, [0, 1, 2, 7, 15, 16, 17, 24, 31, 32, 38, 39]),
    "long": (600, [254, 255, 256, 271, 300, 511, 512, 599]),
}
LONG_TOO = ["llama", "llama-rope-factors", "qwen2-yarn", "qwen3", "gemma3", "gemma3-rope-linear", "q8_0"]
LONG_TOO += ["phi4-mini", "gemma2", "falcon-h1", "falcon-h1-odd", "nemotron-h", "gpt-oss", "qwen35", "gemma4"]
LONG_TOO += ["granitehybrid", "mamba"]
# Largest |logit difference| between the two programs; logits have a standard deviation of 3. Of the table's steps more
# fall together in a long prompt of a model with two activations a layer.
AGREE, AGREE_LONG, AGREE_GELU, AGREE_GELU_LONG = 1e-4, 5e-4, 3e-3, 5e-3


def compare(path, ids, positions):
    """Golden logits of some positions, (positions, n_vocab), and what is known about them."""
    with tempfile.TemporaryDirectory() as tmp:
        f32 = path
        if any(t != peer.F32 for _, t in peer.tensor_types(path)):
            f32 = os.path.join(tmp, "f32.gguf")
            peer.dequantise(path, f32)
        # The size of the context chooses LongRoPE's divisors.
        run = peer.Runner(f32, n_ctx=len(ids), exact=True)
        theirs = feed(run, ids, positions)
        model = reference.Model(f32)
        ours = model.logits(ids, gelu_table=True)[positions]
        exact = model.logits(ids)[positions]
    run = peer.Runner(path, n_ctx=len(ids), exact=False)
    default = feed(run, ids, positions)
    rounded = lambda x: float(f"{x:.2e}")
    of_short, of_long = (AGREE_GELU, AGREE_GELU_LONG) if model.uses_gelu else (AGREE, AGREE_LONG)
    bound = of_long if len(ids) > 100 else of_short
    return theirs if bound == AGREE else exact.astype(np.float32), {
        "sha256": peer.sha256(path),
        "from": "llama.cpp" if bound == AGREE else "reference",
        "bound": bound,
        "llama_cpp_to_reference": rounded(np.abs(theirs - ours).max()),
        "llama_cpp_default_rms": rounded(np.sqrt(((default - exact) ** 2).mean())),
    }


def feed(run, ids, positions):
    """Logits of some positions, the prompt fed in parts that llama.cpp takes at once."""
    out = np.concatenate([run.feed(ids[i : i + 256]) for i in range(0, len(ids), 256)])
    run.close()
    return out[positions]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", help="folder that the tiny_models example wrote")
    p.add_argument("names", nargs="*", help="only these models")
    p.add_argument("--verbose", action="store_true", help="show llama.cpp's log")
    p.add_argument("--out", default=os.path.join(peer.ROOT, "crates/engine/tests/goldens/tiny"))
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    prompt = [int(i) for i in open(os.path.join(a.models, "prompt.txt")).read().split()]
    prompts = {k: {"ids": prompt[:n], "positions": positions} for k, (n, positions) in PROMPTS.items()}
    peer.init(a.verbose)
    record, failures = {}, []
    if a.names:
        record = json.load(open(os.path.join(a.out, "tiny.json")))["models"]
    for file in sorted(os.listdir(a.models)):
        name, ext = os.path.splitext(file)
        if ext != ".gguf" or a.names and name not in a.names:
            continue
        path = os.path.join(a.models, file)
        for which in ["short", "long"] if name in LONG_TOO else ["short"]:
            stem = name if which == "short" else f"{name}-{which}"
            golden, facts = compare(path, **prompts[which])
            spread, apart = golden.std(), facts["llama_cpp_to_reference"]
            print(f"{stem:24} logit deviation {spread:5.2f}  llama.cpp to reference {apart:.2e}, default rms {facts['llama_cpp_default_rms']:.2e}")
            if apart > facts.pop("bound"):
                failures.append(stem)
            golden.astype("<f4").tofile(os.path.join(a.out, stem + ".f32"))
            record[stem] = {"model": name, "prompt": which, **facts}
    if failures:
        sys.exit(f"llama.cpp and the reference disagree on: {', '.join(failures)}; tiny.json is not written")
    in_order = sorted(record.items(), key=lambda r: (r[1]["model"] + ".gguf", r[1]["prompt"] != "short"))
    head = {"made_by": "tools/tiny_goldens.py", "versions": peer.versions(), "prompts": prompts}
    peer.write_json(os.path.join(a.out, "tiny.json"), {**head, "models": dict(in_order)})


main()
