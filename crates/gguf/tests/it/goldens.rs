//! What we read in a file is what gguf-py reads in it (`tools/gguf_goldens.py`).

use std::fmt::Write;
use std::path::Path;

use modelembed_gguf::{Gguf, Value};
use modelembed_testkit::{GEMMA3, SMOLLM2, real_model, sha256_hex};

fn value(value: &Value, header: &[u8]) -> String {
    let ty = value.ty().name();
    match value {
        Value::F32(v) => format!("{ty}\t{:08x}", v.to_bits()),
        Value::F64(v) => format!("{ty}\t{:016x}", v.to_bits()),
        Value::Bool(v) => format!("{ty}\t{v}"),
        Value::String(s) => format!("{ty}\t{} {}", s.len(), sha256_hex(s.as_bytes())),
        Value::Array(a) => {
            // Strings through the accessor, everything else as the file has it.
            let bytes = match a.strings() {
                None => header[a.byte_range()].to_vec(),
                Some(strings) => {
                    strings.iter(header).flat_map(|s| [&(s.len() as u64).to_le_bytes(), s].concat()).collect()
                }
            };
            format!("{ty} {}\t{} {}", a.item().name(), a.len(), sha256_hex(&bytes))
        }
        integer => format!("{ty}\t{}", integer.as_int().expect("all else are integers")),
    }
}

fn describe(gguf: &Gguf, header: &[u8]) -> String {
    let mut out = String::new();
    for (key, v) in gguf.metadata() {
        writeln!(out, "pair\t{key}\t{}", value(v, header)).unwrap();
    }
    for t in gguf.tensors() {
        let dims: Vec<String> = t.dims.iter().map(u64::to_string).collect();
        writeln!(out, "tensor\t{}\t{}\t{}\t{}\t{}", t.name, t.ty, dims.join("x"), t.offset, t.n_bytes).unwrap();
    }
    out
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens"))
}

fn check(file: &Path, golden: &str) {
    let bytes = std::fs::read(file).unwrap();
    let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
    let seen = describe(&gguf, &bytes);
    let wanted = std::fs::read_to_string(folder().join(golden)).unwrap();
    let different: Vec<_> = seen.lines().zip(wanted.lines()).filter(|(s, w)| s != w).collect();
    assert!(different.is_empty(), "{golden}: (seen, wanted) {different:#?}");
    assert_eq!(seen.lines().count(), wanted.lines().count(), "{golden}: lines");
    for t in gguf.tensors() {
        assert_eq!(gguf.tensor(&t.name), Some(t));
    }
    for (key, v) in gguf.metadata() {
        assert_eq!(gguf.get(key), Some(v));
    }
}

#[test]
fn a_file_with_every_type_of_value() {
    check(&folder().join("all-types.gguf"), "all-types.txt");
}

#[test]
fn smollm2() {
    if let Some(path) = real_model(SMOLLM2) {
        check(&path, "smollm2.txt");
    }
}

#[test]
fn gemma3() {
    if let Some(path) = real_model(GEMMA3) {
        check(&path, "gemma3.txt");
    }
}

/// The writer that all other tests build on writes what gguf-py writes, byte for byte.
#[test]
fn our_writer_agrees_with_gguf_py() {
    use modelembed_gguf::TensorType;
    use modelembed_testkit::{GgufValue, GgufWriter};

    let le = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    // 0 to 14 in f16.
    let matrix: Vec<u8> = [
        0x0000u16, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800, 0x4880, 0x4900, 0x4980, 0x4a00,
        0x4a80, 0x4b00,
    ]
    .into_iter()
    .flat_map(u16::to_le_bytes)
    .collect();
    let cube: Vec<u8> = (0..24i32).flat_map(i32::to_le_bytes).collect();
    let blocks: Vec<u8> = (0..4 * 2 * 34).map(|i| i as u8).collect();
    let long = "x".repeat(300);
    let bytes = GgufWriter::new()
        .pair("general.architecture", "test")
        .alignment(64)
        .pair("t.u8", 200u8)
        .pair("t.i8", -100i8)
        .pair("t.u16", 60_000u16)
        .pair("t.i16", -30_000i16)
        .pair("t.u32", 4_000_000_000u32)
        .pair("t.i32", -2_000_000_000i32)
        .pair("t.u64", (1u64 << 63) + 1)
        .pair("t.i64", -(1i64 << 62))
        .pair("t.f32", 0.1f32)
        .pair("t.f64", -1e300f64)
        .pair("t.true", true)
        .pair("t.false", false)
        .pair("t.string", "h\u{e4}\u{df}lich \u{1f980}\n")
        .pair("t.strings", vec!["a", "", "\u{2581}the", long.as_str()])
        .pair("t.i32s", vec![1i32, -2, 3])
        .pair("t.f32s", vec![0.5f32, -1.25, 3e38])
        .pair("t.bools", GgufValue::from(vec![true, false, true]))
        .pair("t.u8s", vec![0u8, 128, 255])
        .tensor("scale", TensorType::F32, &[1], &le(&[1.5]))
        .tensor("matrix", TensorType::F16, &[3, 5], &matrix)
        .tensor("cube", TensorType::I32, &[4, 3, 2], &cube)
        .tensor("blocks", TensorType::Q8_0, &[64, 4], &blocks)
        .build();
    let wanted = std::fs::read(folder().join("all-types.gguf")).unwrap();
    let first = bytes.iter().zip(&wanted).position(|(a, b)| a != b);
    assert_eq!((first, bytes.len()), (None, wanted.len()), "first different byte, length");
}
