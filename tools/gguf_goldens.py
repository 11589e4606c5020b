#!/usr/bin/env python3
"""What gguf-py reads in GGUF files, for crates/gguf/tests/it/goldens.rs.

    python tools/gguf_goldens.py MODEL_DIR

Needs the packages `gguf` and `numpy`. Writes crates/gguf/tests/goldens/all-types.gguf (a file with each kind of metadata,
made by gguf-py's own writer), and for it and for the two real models NAME.txt with tab-separated lines:
`pair KEY TYPE VALUE` and `tensor NAME TYPE DIMS OFFSET BYTES`. Floats are their bits in hex; strings and arrays are their
length and the SHA-256 of their bytes as the file has them (the elements only).
"""
import hashlib
import pathlib
import struct
import sys

import numpy
from gguf import GGMLQuantizationType as Type, GGUFReader, GGUFValueType, GGUFWriter

GOLDENS = pathlib.Path(__file__).parent.parent / "crates/gguf/tests/goldens"
MODELS = {"smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3": "gemma-3-270m-q4_k_m.gguf"}
NAMES = {
    "UINT8": "u8", "INT8": "i8", "UINT16": "u16", "INT16": "i16", "UINT32": "u32", "INT32": "i32", "FLOAT32": "f32",
    "BOOL": "bool", "STRING": "string", "ARRAY": "array", "UINT64": "u64", "INT64": "i64", "FLOAT64": "f64",
}


def value(field):
    """Type and value of a field, as text."""
    kind = NAMES[field.types[0].name]
    if kind == "string":
        text = field.parts[field.data[0]].tobytes()
        return f"string\t{len(text)} {hashlib.sha256(text).hexdigest()}"
    if kind == "array":
        item = NAMES[field.types[1].name]
        elements = [field.parts[i].tobytes() for i in field.data]
        if item == "string":
            elements = [struct.pack("<Q", len(e)) + e for e in elements]
        return f"array {item}\t{len(field.data)} {hashlib.sha256(b''.join(elements)).hexdigest()}"
    raw = field.parts[field.data[0]].tobytes()
    if kind in ("f32", "f64"):
        return f"{kind}\t{raw[::-1].hex()}"
    return f"{kind}\t{str(field.contents()).lower()}"


def describe(path):
    """Everything that gguf-py reads in a file, a line each."""
    reader = GGUFReader(path)
    lines = [f"pair\t{name}\t{value(field)}" for name, field in reader.fields.items() if not name.startswith("GGUF.")]
    for t in reader.tensors:
        dims = "x".join(str(int(d)) for d in t.shape)
        lines.append(f"tensor\t{t.name}\t{t.tensor_type.name}\t{dims}\t{t.data_offset}\t{t.n_bytes}")
    return "".join(line + "\n" for line in lines)


def write_all_types(path):
    """A small file with each type of value, arrays of most, tensors of several types, and an alignment of 64."""
    w = GGUFWriter(path, "test")
    w.add_custom_alignment(64)
    w.add_uint8("t.u8", 200)
    w.add_int8("t.i8", -100)
    w.add_uint16("t.u16", 60000)
    w.add_int16("t.i16", -30000)
    w.add_uint32("t.u32", 4000000000)
    w.add_int32("t.i32", -2000000000)
    w.add_uint64("t.u64", 2**63 + 1)
    w.add_int64("t.i64", -(2**62))
    w.add_float32("t.f32", 0.1)
    w.add_float64("t.f64", -1e300)
    w.add_bool("t.true", True)
    w.add_bool("t.false", False)
    w.add_string("t.string", "häßlich \U0001f980\n")
    w.add_array("t.strings", ["a", "", "▁the", "x" * 300])
    w.add_array("t.i32s", [1, -2, 3])
    w.add_array("t.f32s", [0.5, -1.25, 3e38])
    w.add_array("t.bools", [True, False, True])
    w.add_key_value("t.u8s", bytes([0, 128, 255]), GGUFValueType.ARRAY, sub_type=GGUFValueType.UINT8)
    w.add_tensor("scale", numpy.float32([1.5]))
    w.add_tensor("matrix", numpy.arange(15, dtype=numpy.float16).reshape(5, 3))
    w.add_tensor("cube", numpy.arange(24, dtype=numpy.int32).reshape(2, 3, 4))
    blocks = numpy.arange(4 * 2 * 34, dtype=numpy.uint32).astype(numpy.uint8).reshape(4, 2 * 34)
    w.add_tensor("blocks", blocks, raw_dtype=Type.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


GOLDENS.mkdir(parents=True, exist_ok=True)
write_all_types(GOLDENS / "all-types.gguf")
(GOLDENS / "all-types.txt").write_text(describe(GOLDENS / "all-types.gguf"))
for name, file in MODELS.items():
    (GOLDENS / f"{name}.txt").write_text(describe(pathlib.Path(sys.argv[1]) / file))
