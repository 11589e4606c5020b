//! Lays a tiny model out as a GGUF version 3 file.

use super::arch::{TinyTensor, TinyValue};

/// Alignment of tensor data; GGUF's default.
const ALIGNMENT: usize = 32;

fn text(s: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(s.len() as u64).to_le_bytes());
    out.extend_from_slice(s.as_bytes());
}

fn value(v: &TinyValue, out: &mut Vec<u8>) {
    let array = |item: u32, n: usize, out: &mut Vec<u8>| {
        out.extend_from_slice(&item.to_le_bytes());
        out.extend_from_slice(&(n as u64).to_le_bytes());
    };
    let type_id: u32 = match v {
        TinyValue::U32(_) => 4,
        TinyValue::F32(_) => 6,
        TinyValue::Bool(_) => 7,
        TinyValue::Str(_) => 8,
        TinyValue::Strs(_) | TinyValue::F32s(_) | TinyValue::I32s(_) => 9,
    };
    out.extend_from_slice(&type_id.to_le_bytes());
    match v {
        TinyValue::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
        TinyValue::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        TinyValue::Bool(v) => out.push(u8::from(*v)),
        TinyValue::Str(s) => text(s, out),
        TinyValue::Strs(items) => {
            array(8, items.len(), out);
            items.iter().for_each(|s| text(s, out));
        }
        TinyValue::F32s(items) => {
            array(6, items.len(), out);
            items.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        }
        TinyValue::I32s(items) => {
            array(5, items.len(), out);
            items.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
        }
    }
}

/// The bytes of a GGUF file: header, metadata, directory, then each tensor at a multiple of [`ALIGNMENT`].
pub fn layout(metadata: &[(String, TinyValue)], tensors: &[TinyTensor]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend_from_slice(&3u32.to_le_bytes());
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    for (key, v) in metadata {
        text(key, &mut out);
        value(v, &mut out);
    }
    let mut offset = 0;
    for t in tensors {
        text(&t.name, &mut out);
        out.extend_from_slice(&(t.dims.len() as u32).to_le_bytes());
        t.dims.iter().for_each(|d| out.extend_from_slice(&d.to_le_bytes()));
        out.extend_from_slice(&t.ty.id().to_le_bytes());
        out.extend_from_slice(&(offset as u64).to_le_bytes());
        offset += t.data.len().next_multiple_of(ALIGNMENT);
    }
    for t in tensors {
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend_from_slice(&t.data);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out
}
