//! Writes GGUF files: any metadata, any tensors, either version. It checks nothing, so that tests can write bad files too.

use modelembed_gguf::{TensorType, ValueType};

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
            GgufValue::Array(..) => ValueType::Array,
            GgufValue::U64(_) => ValueType::U64,
            GgufValue::I64(_) => ValueType::I64,
            GgufValue::F64(_) => ValueType::F64,
        }
    }

    /// Appends the value without its type.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            GgufValue::U8(v) => out.push(*v),
            GgufValue::I8(v) => out.extend(v.to_le_bytes()),
            GgufValue::U16(v) => out.extend(v.to_le_bytes()),
            GgufValue::I16(v) => out.extend(v.to_le_bytes()),
            GgufValue::U32(v) => out.extend(v.to_le_bytes()),
            GgufValue::I32(v) => out.extend(v.to_le_bytes()),
            GgufValue::F32(v) => out.extend(v.to_le_bytes()),
            GgufValue::Bool(v) => out.push(u8::from(*v)),
            GgufValue::String(v) => string(v, out),
            GgufValue::Array(item, values) => {
                out.extend(item.id().to_le_bytes());
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|v| v.write(out));
            }
            GgufValue::U64(v) => out.extend(v.to_le_bytes()),
            GgufValue::I64(v) => out.extend(v.to_le_bytes()),
            GgufValue::F64(v) => out.extend(v.to_le_bytes()),
        }
    }
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

struct Tensor {
    name: String,
    ty: TensorType,
    dims: Vec<u64>,
    data: Vec<u8>,
}

/// Builds the bytes of one GGUF file: header, metadata, directory, then each tensor at a multiple of the alignment.
///
/// ```
/// use modelembed_gguf::{Gguf, TensorType};
/// use modelembed_testkit::GgufWriter;
///
/// let bytes = GgufWriter::new()
///     .pair("general.architecture", "llama")
///     .tensor("token_embd.weight", TensorType::F32, &[2, 3], &[0; 24])
///     .build();
/// let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
/// assert_eq!(gguf.tensor("token_embd.weight").unwrap().dims, [2, 3]);
/// ```
pub struct GgufWriter {
    version: u32,
    alignment: usize,
    metadata: Vec<(String, GgufValue)>,
    tensors: Vec<Tensor>,
}

impl Default for GgufWriter {
    fn default() -> Self {
        GgufWriter { version: 3, alignment: 32, metadata: Vec::new(), tensors: Vec::new() }
    }
}

impl GgufWriter {
    /// A version 3 file with the default alignment of 32 bytes and nothing in it.
    pub fn new() -> GgufWriter {
        GgufWriter::default()
    }

    /// Writes this version number; nothing else changes.
    pub fn version(self, version: u32) -> GgufWriter {
        GgufWriter { version, ..self }
    }

    /// Aligns tensors to this many bytes (not 0) and says so in `general.alignment`, which becomes the next pair.
    pub fn alignment(self, alignment: u32) -> GgufWriter {
        GgufWriter { alignment: alignment as usize, ..self }.pair("general.alignment", alignment)
    }

    /// Appends a metadata pair. Keys are not checked: a key written twice stands in the file twice.
    pub fn pair(mut self, key: &str, value: impl Into<GgufValue>) -> GgufWriter {
        self.metadata.push((key.to_owned(), value.into()));
        self
    }

    /// Appends what a file of a split model says of itself: its number from 0, the number of files, and of all their tensors.
    pub fn split(self, index: u16, count: u16, n_tensors: i32) -> GgufWriter {
        self.pair("split.no", index).pair("split.count", count).pair("split.tensors.count", n_tensors)
    }

    /// Appends a tensor; `dims` has the row length first. Its bytes are written as they are, whatever the dimensions say.
    pub fn tensor(mut self, name: &str, ty: TensorType, dims: &[u64], data: &[u8]) -> GgufWriter {
        self.tensors.push(Tensor { name: name.to_owned(), ty, dims: dims.to_vec(), data: data.to_vec() });
        self
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(key.as_bytes(), &mut out);
            out.extend(value.ty().id().to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0;
        for t in &self.tensors {
            string(t.name.as_bytes(), &mut out);
            out.extend((t.dims.len() as u32).to_le_bytes());
            t.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.ty.id().to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += t.data.len().next_multiple_of(self.alignment);
        }
        for t in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend_from_slice(&t.data);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out
    }
}

fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}
