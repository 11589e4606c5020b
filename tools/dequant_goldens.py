#!/usr/bin/env python3
"""Writes crates/kernels/tests/goldens/dequant.txt: random blocks of each type and what gguf-py decodes them to.

Needs the packages `gguf` and `numpy`. Each line is: type name, the blocks in hex, the f32 values in hex (little endian).
"""

import pathlib
import numpy
from gguf import GGMLQuantizationType as Type, GGML_QUANT_SIZES, quants

# Offsets of the f16 fields in a block: random bits there could be infinite or NaN.
F16_FIELDS = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}

random = numpy.random.default_rng(20)
out = pathlib.Path(__file__).parent.parent / "crates/kernels/tests/goldens/dequant.txt"
lines = []
for name in ["F16", "BF16", *F16_FIELDS]:
    ty = Type[name]
    length, size = GGML_QUANT_SIZES[ty]
    n = 2 if length == 256 else 3 if length == 32 else 32
    if name in F16_FIELDS:
        data = random.integers(0, 256, (n, size), dtype=numpy.uint8)
        for at in F16_FIELDS[name]:
            scale = (random.normal(size=(n, 1)) * 0.05).astype("<f2")
            data[:, at : at + 2] = scale.view(numpy.uint8)
    elif name == "F16":
        data = random.normal(size=n).astype("<f2").view(numpy.uint8).reshape(n, size)
    else:
        data = (random.normal(size=n).astype("<f4").view("<u4") >> 16).astype("<u2").view(numpy.uint8).reshape(n, size)
    if name == "F16":
        values = data.reshape(-1).view("<f2").astype("<f4")
    else:
        values = quants.dequantize(data.reshape(-1), ty).astype("<f4").reshape(-1)
    assert values.size == n * length, name
    lines.append(f"{name} {data.tobytes().hex()} {values.tobytes().hex()}\n")
out.write_text("".join(lines))
