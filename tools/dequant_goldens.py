#!/usr/bin/env python3
"""Writes crates/kernels/tests/goldens/dequant.txt: random blocks of each type and what others decode them to.

Needs the packages `gguf` and `numpy` and, as the other golden makers, `llama-cpp-python` (see tools/peer.py). Floats and
the types up to Q6_K are decoded by gguf-py, all others by llama.cpp's own C functions (`to_float` of
`ggml_get_type_traits`). Each line is: type name, the blocks in hex, the f32 values in hex (little endian).
"""

import ctypes
import glob
import os
import pathlib

import llama_cpp
import numpy
from gguf import GGMLQuantizationType as Type, GGML_QUANT_SIZES, quants

# Offsets of the f16 fields in a block: random bits there could be infinite or NaN.
GGUF_PY = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
# The same for what llama.cpp decodes, with the number that a type has in a file.
LLAMA_CPP = {
    "MXFP4": (39, []), "NVFP4": (40, []), "IQ4_NL": (20, [0]), "IQ4_XS": (23, [0]), "IQ3_S": (21, [0]), "IQ3_XXS": (18, [0]),
    "IQ2_S": (22, [0]), "IQ2_XS": (17, [0]), "IQ2_XXS": (16, [0]), "IQ1_M": (29, []), "IQ1_S": (19, [0]),
    "TQ1_0": (34, [52]), "TQ2_0": (35, [64]), "Q1_0": (41, [0]), "Q2_0": (42, [0]),
}


class Traits(ctypes.Structure):
    """The beginning of ggml_type_traits."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("len", ctypes.c_int64), ("len_interleave", ctypes.c_int64), ("size", ctypes.c_size_t),
        ("is_quantised", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    ]


ggml = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.so"))[0])
ggml.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
random = numpy.random.default_rng(20)


def scales(n):
    """n f16 numbers as pairs of bytes, (n, 2)."""
    return (random.normal(size=(n, 1)) * 0.05).astype("<f2").view(numpy.uint8)


def from_llama_cpp(name):
    """Blocks of a type and their values."""
    number, f16_fields = LLAMA_CPP[name]
    traits = ggml.ggml_get_type_traits(number).contents
    assert traits.name.decode().upper() == name, traits.name
    # All bytes that are scales of their own should occur: some at least that are treated apart.
    chosen = {"MXFP4": [0, 1, 2, 120, 127, 128, 255], "NVFP4": [0, 1, 7, 8, 0x3C, 0x7E, 0x7F, 0x80, 0x81, 0xB0, 0xFF]}
    n = 2 if traits.len == 256 else 3 if name not in chosen else len(chosen[name])
    data = random.integers(0, 256, (n, traits.size), dtype=numpy.uint8)
    for at in f16_fields:
        data[:, at : at + 2] = scales(n)
    if name in chosen:
        data[:, 0] = chosen[name]
    if name == "IQ1_M":
        # The f16 is the upper halves of four bytes.
        bits = scales(n).view("<u2")[:, 0]
        for i in range(4):
            data[:, 49 + 2 * i] = data[:, 49 + 2 * i] & 15 | (bits >> (4 * i) & 15).astype(numpy.uint8) << 4
    values = numpy.empty(n * traits.len, dtype="<f4")
    traits.to_float(data.ctypes.data, values.ctypes.data, values.size)
    return data, values


out = pathlib.Path(__file__).parent.parent / "crates/kernels/tests/goldens/dequant.txt"
lines = []
for name in ["F16", "BF16", *GGUF_PY]:
    ty = Type[name]
    length, size = GGML_QUANT_SIZES[ty]
    n = 2 if length == 256 else 3 if length == 32 else 32
    if name in GGUF_PY:
        data = random.integers(0, 256, (n, size), dtype=numpy.uint8)
        for at in GGUF_PY[name]:
            data[:, at : at + 2] = scales(n)
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
for name in LLAMA_CPP:
    data, values = from_llama_cpp(name)
    lines.append(f"{name} {data.tobytes().hex()} {values.tobytes().hex()}\n")
out.write_text("".join(lines))
