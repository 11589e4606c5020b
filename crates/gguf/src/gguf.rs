//! A parsed file header and typed access to its metadata.
//!
//! Format: the GGUF specification of the ggml project (docs/gguf.md), versions 2 and 3.

use crate::directory::{Directory, TensorInfo};
use crate::error::{Error, Result};
use crate::metadata::{Metadata, n_pairs};
use crate::printable::printable;
use crate::reader::Reader;
use crate::value::{NumArray, Number, StrArray, Value};

/// Alignments above this are no real file's.
const MAX_ALIGNMENT: u32 = 64 << 10;
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// A parsed header. Owns keys, scalars and strings; arrays stay in the file.
///
/// Its memory is bounded by four times the header's length and one megabyte, whatever the header
/// says.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    directory: Directory,
}

impl Gguf {
    /// Parses a header. `header` holds the file's first bytes (or all of them), `file_bytes` is the
    /// file's length.
    ///
    /// # Errors
    /// [`Error::HeaderTruncated`] if a longer prefix of the file is needed; any other error is the
    /// file's fault.
    pub fn parse(header: &[u8], file_bytes: u64) -> Result<Gguf> {
        let mut r = Reader::new(header, file_bytes);
        let version = version(&mut r)?;
        let n_tensors = r.u64("the number of tensors")?;
        let n_pairs = n_pairs(&mut r)?;
        let metadata = Metadata::read(&mut r, n_pairs)?;
        let alignment = alignment(metadata.get(ALIGNMENT_KEY))?;
        let directory = Directory::read(&mut r, n_tensors, alignment)?;
        Ok(Gguf { version, alignment, metadata, directory })
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Tensors begin at multiples of this many bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// First byte after the header and its padding. May lie beyond the end of a file without
    /// tensors.
    pub fn data_offset(&self) -> u64 {
        self.directory.data_offset
    }

    /// All pairs, in the file's order.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.metadata.pairs.iter().map(|(k, v)| (&**k, v))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.directory.tensors
    }

    /// Notes in each tensor that this is file `shard` of its model.
    pub(crate) fn set_shard(&mut self, shard: u16) {
        self.directory.tensors.iter_mut().for_each(|t| t.shard = shard);
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.directory.get(name)
    }

    /// The value of a key as `T`: `Ok(None)` where the key is absent.
    fn typed<T>(&self, key: &str, wanted: &'static str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| Error::WrongType { key: printable(key), seen: value.describe(), wanted })
    }

    /// An integer of any type whose value fits.
    ///
    /// # Errors
    /// [`Error::WrongType`], as for all typed accessors.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "an integer of 32 bits, not negative", |v| v.as_int()?.try_into().ok())
    }

    /// An integer of any type whose value fits.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "an integer, not negative", |v| v.as_int()?.try_into().ok())
    }

    /// An f32, or an f64 rounded to one.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a floating-point number", |v| match *v {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        })
    }

    /// A bool.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |v| if let Value::Bool(b) = *v { Some(b) } else { None })
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(Error::WrongType { key: printable(key), seen: other.describe(), wanted: "a string" }),
        }
    }

    /// An array of strings.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn strings(&self, key: &str) -> Result<Option<StrArray>> {
        self.typed(key, "an array of strings", |v| if let Value::Array(a) = v { a.strings() } else { None })
    }

    fn numbers<T: Number>(&self, key: &str, wanted: &'static str) -> Result<Option<NumArray<T>>> {
        self.typed(key, wanted, |v| if let Value::Array(a) = v { a.numbers() } else { None })
    }

    /// An array of f32.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn f32s(&self, key: &str) -> Result<Option<NumArray<f32>>> {
        self.numbers(key, "an array of f32")
    }

    /// An array of 32-bit integers, read as signed.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn i32s(&self, key: &str) -> Result<Option<NumArray<i32>>> {
        self.numbers(key, "an array of i32")
    }

    /// An array of 32-bit integers, read as unsigned.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn u32s(&self, key: &str) -> Result<Option<NumArray<u32>>> {
        self.numbers(key, "an array of u32")
    }

    /// An array of bools; a byte other than 0 counts as true.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn bools(&self, key: &str) -> Result<Option<NumArray<bool>>> {
        self.numbers(key, "an array of bools")
    }

    /// An array of bytes.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn u8s(&self, key: &str) -> Result<Option<NumArray<u8>>> {
        self.numbers(key, "an array of bytes")
    }
}

fn version(r: &mut Reader<'_>) -> Result<u32> {
    const MAGIC: &[u8; 4] = b"GGUF";
    // Of a shorter file, what there is: it may be no GGUF file at all rather than one that was cut
    // off.
    let seen = r.clone().take(r.file_bytes().min(MAGIC.len() as u64), "the magic number")?;
    if !MAGIC.starts_with(seen) {
        return Err(Error::Magic { seen: seen.to_vec() });
    }
    r.take(MAGIC.len() as u64, "the magic number")?;
    match r.u32("the version")? {
        v @ (2 | 3) => Ok(v),
        1 => Err(Error::Version("1 (an early draft with 32-bit lengths)".into())),
        v if v.trailing_zeros() >= 16 && v != 0 => {
            Err(Error::Version(format!("{} in big-endian byte order", v.swap_bytes())))
        }
        v => Err(Error::Version(v.to_string())),
    }
}

fn alignment(value: Option<&Value>) -> Result<u64> {
    match value {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::U32(a)) if a.is_power_of_two() && a <= MAX_ALIGNMENT => Ok(a.into()),
        Some(other) => Err(Error::WrongType {
            key: ALIGNMENT_KEY.into(),
            seen: other.describe(),
            wanted: "a power of two up to 65536, of type u32",
        }),
    }
}
