//! Headers written field by field, for files that no writer should write.
#![allow(dead_code, reason = "binaries beside this one use a part")]

/// Ids of value types.
pub mod types {
    pub const U8: u32 = 0;
    pub const U32: u32 = 4;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
}

/// The bytes so far.
pub struct Raw(pub Vec<u8>);

/// A version 3 header up to its counts.
pub fn file(n_tensors: u64, n_pairs: u64) -> Raw {
    Raw(b"GGUF".to_vec()).u32(3).u64(n_tensors).u64(n_pairs)
}

/// Two F32 tensors of 8 elements at these offsets, and 64 bytes of data after the padding.
pub fn two_tensors(raw: Raw, a: (&str, u64), b: (&str, u64)) -> Raw {
    let raw = raw.tensor(a.0, &[8], 0, a.1).tensor(b.0, &[8], 0, b.1);
    let padding = raw.0.len().next_multiple_of(32) - raw.0.len();
    raw.zeros(padding + 64)
}

impl Raw {
    pub fn bytes(mut self, bytes: &[u8]) -> Raw {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn zeros(self, n: usize) -> Raw {
        self.bytes(&vec![0; n])
    }

    pub fn u32(self, v: u32) -> Raw {
        self.bytes(&v.to_le_bytes())
    }

    pub fn u64(self, v: u64) -> Raw {
        self.bytes(&v.to_le_bytes())
    }

    /// Length and bytes.
    pub fn string(self, bytes: &[u8]) -> Raw {
        self.u64(bytes.len() as u64).bytes(bytes)
    }

    /// A key and the type of the value to come.
    pub fn key(self, key: &str, type_id: u32) -> Raw {
        self.string(key.as_bytes()).u32(type_id)
    }

    /// A key with a u32.
    pub fn pair(self, key: &str, value: u32) -> Raw {
        self.key(key, types::U32).u32(value)
    }

    /// A key, and an array's head: the elements follow.
    pub fn array(self, key: &str, item: u32, len: u64) -> Raw {
        self.key(key, types::ARRAY).u32(item).u64(len)
    }

    /// A directory entry.
    pub fn tensor(self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Raw {
        let raw = self.string(name.as_bytes()).u32(dims.len() as u32);
        dims.iter().fold(raw, |raw, &d| raw.u64(d)).u32(type_id).u64(offset)
    }
}
