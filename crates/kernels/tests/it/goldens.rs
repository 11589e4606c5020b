//! Dequantisation against blocks that gguf-py or llama.cpp decoded (see `tools/dequant_goldens.py`).

use modelembed_gguf::TensorType;
use modelembed_kernels::{Kernels, MatRef};

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[i * 2..][..2], 16).expect("hex")).collect()
}

#[test]
fn every_table_dequantises_as_others_do() {
    let mut failures = Vec::new();
    let mut types = 0;
    for line in include_str!("../goldens/dequant.txt").lines() {
        let [name, blocks, values] = line.split(' ').collect::<Vec<_>>().try_into().expect("three fields");
        let ty = TensorType::from_name(name).expect("a type's name");
        let blocks = from_hex(blocks);
        let want: Vec<f32> =
            from_hex(values).as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let w = MatRef::new(ty, &blocks, 1, want.len()).expect("whole blocks");
        types += 1;
        for kernels in Kernels::all() {
            let mut got = vec![0.0f32; want.len()];
            kernels.dequantize_row(w, 0, &mut got);
            if let Some(i) = (0..got.len()).find(|&i| got[i] != want[i]) {
                failures.push(format!("{} {name}: element {i} is {} not {}", kernels.isa(), got[i], want[i]));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(types, TensorType::all().filter(|&ty| Kernels::supports(ty) && ty != TensorType::F32).count());
}
