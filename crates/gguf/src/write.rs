//! The other direction: the header of a GGUF file, written. Tensors' bytes follow it; whoever has
//! them writes them.
//!
//! Nothing is checked, so that tests can write bad files too.

use crate::tensor_type::TensorType;
use crate::value::ValueType;

/// A metadata value to write.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "one variant a GGUF type")]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Bytes, since tokens need not be UTF-8.
    String(Vec<u8>),
    /// Type of the elements, which an empty array has too, and the elements.
    Array(ValueType, Vec<GgufValue>),
    /// Type and number of the elements, and all of them as they stand in a file: for arrays that
    /// come from another file.
    EncodedArray(ValueType, u64, Vec<u8>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl GgufValue {
    fn ty(&self) -> ValueType {
        match self {
            GgufValue::U8(_) => ValueType::U8,
            GgufValue::I8(_) => ValueType::I8,
            GgufValue::U16(_) => ValueType::U16,
            GgufValue::I16(_) => ValueType::I16,
            GgufValue::U32(_) => ValueType::U32,
            GgufValue::I32(_) => ValueType::I32,
            GgufValue::F32(_) => ValueType::F32,
            GgufValue::Bool(_) => ValueType::Bool,
            GgufValue::String(_) => ValueType::String,
            GgufValue::Array(..) | GgufValue::EncodedArray(..) => ValueType::Array,
            GgufValue::U64(_) => ValueType::U64,
            GgufValue::I64(_) => ValueType::I64,
            GgufValue::F64(_) => ValueType::F64,
        }
    }

    /// Appends the value without its type, as a file has it: this is how elements of a
    /// [`GgufValue::EncodedArray`] are made.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            GgufValue::U8(v) => out.push(*v),
            GgufValue::I8(v) => out.extend(v.to_le_bytes()),
            GgufValue::U16(v) => out.extend(v.to_le_bytes()),
            GgufValue::I16(v) => out.extend(v.to_le_bytes()),
            GgufValue::U32(v) => out.extend(v.to_le_bytes()),
            GgufValue::I32(v) => out.extend(v.to_le_bytes()),
            GgufValue::F32(v) => out.extend(v.to_le_bytes()),
            GgufValue::Bool(v) => out.push(u8::from(*v)),
            GgufValue::String(v) => encode_string(v, out),
            GgufValue::Array(item, values) => {
                array_head(*item, values.len() as u64, out);
                values.iter().for_each(|v| v.encode(out));
            }
            GgufValue::EncodedArray(item, len, elements) => {
                array_head(*item, *len, out);
                out.extend_from_slice(elements);
            }
            GgufValue::U64(v) => out.extend(v.to_le_bytes()),
            GgufValue::I64(v) => out.extend(v.to_le_bytes()),
            GgufValue::F64(v) => out.extend(v.to_le_bytes()),
        }
    }
}

fn array_head(item: ValueType, len: u64, out: &mut Vec<u8>) {
    out.extend(item.id().to_le_bytes());
    out.extend(len.to_le_bytes());
}

/// Appends a string as a file has it: its length in bytes, then the bytes.
pub fn encode_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

macro_rules! value_from {
    ($($t:ty => $variant:ident),+) => {$(
        impl From<$t> for GgufValue {
            fn from(v: $t) -> GgufValue {
                GgufValue::$variant(v.into())
            }
        }
        impl From<Vec<$t>> for GgufValue {
            fn from(values: Vec<$t>) -> GgufValue {
                GgufValue::Array(ValueType::$variant, values.into_iter().map(GgufValue::from).collect())
            }
        }
    )+};
}

value_from!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bool => Bool, &str => String,
    String => String, u64 => U64, i64 => I64, f64 => F64);

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    ty: TensorType,
    dims: Vec<u64>,
    n_bytes: u64,
}

/// Everything of a GGUF file before its tensors: the counts, metadata and directory.
///
/// [`HeaderWriter::build`] gives the header's bytes, padded to where the first tensor begins. The
/// tensors' bytes follow in order, each padded with zeros to a multiple of the alignment
/// ([`HeaderWriter::padding`]).
#[derive(Clone, Debug)]
pub struct HeaderWriter {
    /// Number of the format's version.
    pub version: u32,
    alignment: u64,
    metadata: Vec<(String, GgufValue)>,
    tensors: Vec<Entry>,
}

impl Default for HeaderWriter {
    /// Version 3, tensors at multiples of 32 bytes, nothing in it.
    fn default() -> Self {
        HeaderWriter { version: 3, alignment: 32, metadata: Vec::new(), tensors: Vec::new() }
    }
}

impl HeaderWriter {
    /// Aligns tensors to this many bytes (not 0) and says so in `general.alignment`, which becomes
    /// the next pair.
    pub fn alignment(&mut self, alignment: u32) {
        self.alignment = alignment.into();
        self.pair("general.alignment", alignment);
    }

    /// Appends a metadata pair. A key written twice stands in the file twice.
    pub fn pair(&mut self, key: &str, value: impl Into<GgufValue>) {
        self.metadata.push((key.to_owned(), value.into()));
    }

    /// Appends a tensor of `n_bytes` bytes; `dims` has the row length first.
    pub fn tensor(&mut self, name: &str, ty: TensorType, dims: &[u64], n_bytes: u64) {
        self.tensors.push(Entry { name: name.to_owned(), ty, dims: dims.to_vec(), n_bytes });
    }

    /// Zeros between `n_bytes` bytes (the file so far, or a tensor) and the next multiple of the
    /// alignment.
    pub fn padding(&self, n_bytes: u64) -> usize {
        (n_bytes.next_multiple_of(self.alignment) - n_bytes) as usize
    }

    /// The header.
    pub fn build(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            encode_string(key.as_bytes(), &mut out);
            out.extend(value.ty().id().to_le_bytes());
            value.encode(&mut out);
        }
        let mut offset = 0;
        for t in &self.tensors {
            encode_string(t.name.as_bytes(), &mut out);
            out.extend((t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.ty.id().to_le_bytes());
            out.extend(u64::to_le_bytes(offset));
            offset += t.n_bytes.next_multiple_of(self.alignment);
        }
        out.resize(out.len() + self.padding(out.len() as u64), 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gguf;

    #[test]
    fn an_encoded_array_is_the_array() {
        let values = vec!["a".to_string(), String::new(), "bc".to_string()];
        let mut elements = Vec::new();
        values.iter().for_each(|v| encode_string(v.as_bytes(), &mut elements));
        let (mut plain, mut encoded) = (Vec::new(), Vec::new());
        GgufValue::from(values).encode(&mut plain);
        GgufValue::EncodedArray(ValueType::String, 3, elements).encode(&mut encoded);
        assert_eq!(plain, encoded);
    }

    #[test]
    fn the_header_ends_where_the_first_tensor_begins() {
        let mut header = HeaderWriter::default();
        header.alignment(64);
        header.tensor("a", TensorType::F32, &[3], 12);
        header.tensor("b", TensorType::F32, &[2], 8);
        let bytes = header.build();
        let gguf = Gguf::parse(&bytes, bytes.len() as u64 + 128).unwrap();
        assert_eq!((gguf.alignment(), gguf.data_offset()), (64, bytes.len() as u64));
        assert_eq!((header.padding(12), header.padding(64)), (52, 0));
        assert_eq!(gguf.tensors()[1].offset, bytes.len() as u64 + 64);
    }
}
