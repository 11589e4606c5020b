#!/usr/bin/env python3
"""What llama.cpp's sampler chain keeps, for crates/engine/tests/it/sampler.rs.

    python tools/sampler_goldens.py

For each case: logits from a formula that the test repeats exactly (integers, and one division by a power of two), the
options, tokens accepted before, and then the ids kept after the whole chain with their probabilities, sorted by id.
Cases have no two equal logits near a cut, because llama.cpp's order of equals is not defined, and no cut that depends
on the rounding of llama.cpp's f32 sums over a large vocabulary: `exact` must keep the same tokens in f64.

`random` are the first 64-bit draws of the named generator (ChaCha8, seed as the first 8 bytes of the key), from the
definition in RFC 8439 with 8 rounds instead of 20.

Writes crates/engine/tests/goldens/sampler.json.
"""
import ctypes
import json
import os
import struct

import numpy as np
from llama_cpp import llama_cpp as L

OUT = os.path.join(os.path.dirname(__file__), "..", "crates", "engine", "tests", "goldens", "sampler.json")
NEUTRAL = dict(temp=1.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0, repeat_last_n=64)


def logits(n, seed, shift):
    """Bell-shaped: the sum of three uniform 24-bit integers around zero, divided by 2^shift."""
    x = seed
    out = np.empty(n, np.float32)
    for i in range(n):
        total = 0
        for _ in range(3):
            x = (x * 1664525 + 1013904223) % 2**32
            total += x >> 8
        out[i] = np.float32((total >> 2) - 3 * 2**21) / np.float32(2**shift)
    return out


def run(case):
    o = {**NEUTRAL, **case["options"]}
    values = logits(case["n"], case["seed"], case["shift"])
    chain = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())
    # The order of llama.cpp's common_params_sampling.samplers.
    for sampler in (
        L.llama_sampler_init_penalties(case["n"], o["repeat_last_n"], o["repeat_penalty"], 0.0, 0.0),
        L.llama_sampler_init_top_k(o["top_k"]),
        L.llama_sampler_init_top_p(o["top_p"], 1),
        L.llama_sampler_init_min_p(o["min_p"], 1),
        L.llama_sampler_init_temp(o["temp"]),
        L.llama_sampler_init_dist(1),  # computes the probabilities
    ):
        L.llama_sampler_chain_add(chain, sampler)
    for token in case["accepted"]:
        L.llama_sampler_accept(chain, token)
    data = (L.llama_token_data * case["n"])()
    for i, value in enumerate(values):
        data[i].id, data[i].logit, data[i].p = i, value, 0.0
    array = L.llama_token_data_array(data=data, size=case["n"], selected=-1, sorted=False)
    L.llama_sampler_apply(chain, ctypes.byref(array))
    kept = sorted((array.data[i].id, array.data[i].p) for i in range(array.size) if array.data[i].logit > -np.inf)
    L.llama_sampler_free(chain)
    return [id for id, _ in kept], [float(f"{p:.9g}") for _, p in kept]


def exact(case):
    """The ids that the chain keeps in f64."""
    o = {**NEUTRAL, **case["options"]}
    x = logits(case["n"], case["seed"], case["shift"]).astype(np.float64)
    window = case["accepted"][-o["repeat_last_n"] :] if o["repeat_last_n"] else []
    for token in set(window):
        x[token] *= o["repeat_penalty"] if x[token] <= 0 else 1 / o["repeat_penalty"]
    order = np.argsort(-x, kind="stable")
    if o["top_k"] > 0:
        order = order[: o["top_k"]]
    weight = np.exp(x[order] - x.max())
    keep = len(order)
    if o["top_p"] < 1:
        keep = int(np.searchsorted(np.cumsum(weight) / weight.sum(), o["top_p"])) + 1
    if o["min_p"] > 0:
        keep = min(keep, int((weight >= o["min_p"]).sum()))
    if o["temp"] == 0:
        keep = 1
    return sorted(int(i) for i in order[:keep])


def chacha8(seed, n):
    """The first n 64-bit words of the stream."""

    def quarter(s, a, b, c, d):
        for i, j, k, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[i] = (s[i] + s[j]) % 2**32
            x = s[k] ^ s[i]
            s[k] = (x << by | x >> (32 - by)) % 2**32

    words = []
    counter = 0
    while len(words) < 2 * n:
        start = list(struct.unpack("<4I", b"expand 32-byte k")) + [seed % 2**32, seed >> 32] + [0] * 6
        start += [counter % 2**32, counter >> 32, 0, 0]
        s = list(start)
        for _ in range(4):
            for i in range(4):
                quarter(s, i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        words += [(a + b) % 2**32 for a, b in zip(s, start)]
        counter += 1
    return [words[2 * i] | words[2 * i + 1] << 32 for i in range(n)]


def cases():
    # shift 20: logits of about -6 to 6; 19: -12 to 12; 21: -3 to 3, a flat distribution.
    def case(name, n=2000, seed=1, shift=19, accepted=(), **options):
        return dict(name=name, n=n, seed=seed, shift=shift, accepted=list(accepted), options=options)

    default = dict(temp=0.8, top_k=40, top_p=0.95, min_p=0.05)
    yield case("default", **default)
    yield case("default, flat", shift=21, **default)
    yield case("default, peaked", shift=17, **default)
    yield case("default, large vocabulary", n=262_144, seed=3, **default)
    yield case("default, large, penalty", n=262_144, seed=4, accepted=[5, 262_143, 5], repeat_penalty=1.3, **default)
    yield case("nothing", n=300)
    yield case("temperature 0.3", n=300, temp=0.3)
    yield case("temperature 2.5", n=300, temp=2.5)
    yield case("temperature 0", temp=0.0)
    yield case("temperature 0, top-k", temp=0.0, top_k=40)
    yield case("top-k 1", top_k=1)
    yield case("top-k 300", top_k=300)
    yield case("top-k of all", n=300, top_k=300)
    yield case("top-k above all", n=300, top_k=5000)
    yield case("top-p 0.5", top_p=0.5)
    yield case("top-p 0.95, flat", n=500, shift=21, top_p=0.95)
    yield case("top-p 0", top_p=0.0)
    yield case("top-p after top-k", shift=21, top_k=20, top_p=0.5)
    yield case("top-p, large vocabulary", n=32_768, seed=5, shift=18, top_p=0.9)
    yield case("top-p and min-p, large vocabulary", n=262_144, seed=6, temp=1.5, top_p=0.9, min_p=0.1)
    yield case("min-p 0.1", min_p=0.1)
    yield case("min-p 1", min_p=1.0)
    yield case("min-p 0.001", min_p=0.001)
    yield case("min-p tighter than top-p", top_p=0.99, min_p=0.3)
    yield case("top-p tighter than min-p", top_p=0.3, min_p=0.01)
    yield case("cuts are at temperature 1", temp=3.0, top_k=100, top_p=0.8, min_p=0.02)
    best = [int(i) for i in np.argsort(-logits(2000, 1, 19))[:8]]
    worst = [int(i) for i in np.argsort(logits(2000, 1, 19))[:2]]
    yield case("penalty", n=2000, accepted=best + worst, repeat_penalty=1.5, top_k=30)
    yield case("penalty counts a token once", accepted=[best[0]] * 5, repeat_penalty=1.2, top_k=10)
    yield case("penalty of a window", accepted=best, repeat_penalty=1.5, repeat_last_n=3, top_k=30)
    yield case("penalty without a window", accepted=best, repeat_penalty=1.5, repeat_last_n=0, top_k=30)
    yield case("reward", accepted=best[3:5], repeat_penalty=0.7, top_k=30)
    yield case("penalty, greedy", accepted=best, repeat_penalty=2.0, temp=0.0)


def main():
    rows = []
    for case in cases():
        values = logits(case["n"], case["seed"], case["shift"])
        case["logit_sum"] = float(values.sum(dtype=np.float64))
        case["ids"], case["p"] = run(case)
        if case["ids"] != exact(case):
            raise SystemExit(f"{case['name']}: llama.cpp keeps {len(case['ids'])} tokens, exact arithmetic {len(exact(case))}; choose another seed")
        print(f"{case['name']:40} keeps {len(case['ids']):5} of {case['n']}")
        rows.append(case)
    random = {str(seed): [str(x) for x in chacha8(seed, 20)] for seed in (0, 42, 2**64 - 1)}
    with open(OUT, "w") as f:
        f.write('{"random": ' + json.dumps(random) + ',\n"cases": [\n')
        f.write(",\n".join(json.dumps(row) for row in rows) + "\n]}\n")


if __name__ == "__main__":
    main()
