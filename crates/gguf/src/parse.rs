//! One walk over a file's header: metadata, then the tensor directory, each number checked before it is used.
//!
//! Format: the GGUF specification of the ggml project (docs/gguf.md), versions 2 and 3.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::reader::Reader;
use crate::tensor_type::TensorType;
use crate::value::{Array, NumArray, Number, StrArray, Value, ValueType};

/// Longest key that the format allows.
const MAX_KEY_BYTES: usize = (1 << 16) - 1;
/// Longest tensor name; the format's own limit is 64 bytes with a final zero.
const MAX_NAME_BYTES: usize = 63;
/// Alignments above this are no real file's.
const MAX_ALIGNMENT: u64 = 64 << 10;
const DEFAULT_ALIGNMENT: u64 = 32;
/// A key-value pair: length of the key, one byte of it, type, one byte of value.
const MIN_PAIR_BYTES: u64 = 8 + 1 + 4 + 1;
/// A directory entry: length of the name, number of dimensions, one dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// One tensor of the directory. Its extent lies within the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// How elements are stored.
    pub ty: TensorType,
    /// Elements along each dimension, innermost (row length) first; one to four, none of them 0.
    pub dims: Vec<u64>,
    /// First byte, from the start of its file.
    pub offset: u64,
    /// Length in bytes.
    pub n_bytes: u64,
    /// Which file of a split model holds it, from 0.
    pub shard: u16,
}

/// A parsed header. Owns keys, scalars and strings; arrays stay in the file.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    alignment: u64,
    data_offset: u64,
    metadata: Vec<(String, Value)>,
    keys: HashMap<String, usize>,
    tensors: Vec<TensorInfo>,
    names: HashMap<String, usize>,
}

impl Gguf {
    /// Parses a header. `header` holds the file's first bytes (or all of them), `file_bytes` is the file's length.
    ///
    /// # Errors
    /// [`Error::HeaderTruncated`] if a longer prefix of the file is needed; any other error is the file's fault.
    pub fn parse(header: &[u8], file_bytes: u64) -> Result<Gguf> {
        let mut r = Reader::new(header, file_bytes);
        let version = version(&mut r)?;
        let n_tensors = r.u64("the number of tensors")?;
        let n_pairs = r.count("the number of metadata pairs", MIN_PAIR_BYTES)?;
        let (metadata, keys) = metadata(&mut r, n_pairs)?;
        let mut gguf = Gguf {
            version,
            alignment: DEFAULT_ALIGNMENT,
            data_offset: 0,
            metadata,
            keys,
            tensors: Vec::new(),
            names: HashMap::new(),
        };
        gguf.alignment = gguf.read_alignment()?;
        gguf.directory(&mut r, n_tensors, file_bytes)?;
        Ok(gguf)
    }

    fn read_alignment(&self) -> Result<u64> {
        let key = "general.alignment";
        match self.get(key) {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(&Value::U32(a)) if a.is_power_of_two() && u64::from(a) <= MAX_ALIGNMENT => Ok(a.into()),
            Some(other) => Err(Error::WrongType {
                key: key.into(),
                seen: format!("{other:?}"),
                wanted: "a u32 power of two up to 65536",
            }),
        }
    }

    fn directory(&mut self, r: &mut Reader<'_>, n_tensors: u64, file_bytes: u64) -> Result<()> {
        let most = r.remaining() / MIN_TENSOR_BYTES;
        if n_tensors > most {
            return Err(Error::Count { what: "the number of tensors".into(), seen: n_tensors, most, offset: 8 });
        }
        for index in 0..n_tensors {
            let info = tensor(r, index, self.alignment)?;
            if self.names.insert(info.name.clone(), self.tensors.len()).is_some() {
                return Err(Error::Tensor { name: info.name, problem: "stands in the directory twice".into() });
            }
            self.tensors.push(info);
        }
        let end = r.offset() as u64;
        self.data_offset = end.next_multiple_of(self.alignment);
        for t in &mut self.tensors {
            let start = self.data_offset.checked_add(t.offset);
            match start.and_then(|s| s.checked_add(t.n_bytes)) {
                Some(tensor_end) if tensor_end <= file_bytes => t.offset += self.data_offset,
                _ => {
                    let problem = format!(
                        "its {} bytes at offset {} of the data (which begins at byte {}) go beyond the file's end at {file_bytes}; \
                         the file may have been cut off",
                        t.n_bytes, t.offset, self.data_offset
                    );
                    return Err(Error::Tensor { name: t.name.clone(), problem });
                }
            }
        }
        self.check_overlap()
    }

    fn check_overlap(&self) -> Result<()> {
        let mut order: Vec<&TensorInfo> = self.tensors.iter().collect();
        order.sort_by_key(|t| t.offset);
        match order.windows(2).find(|w| w[0].offset + w[0].n_bytes > w[1].offset) {
            None => Ok(()),
            Some(w) => {
                let problem = format!("begins at byte {}, inside tensor {}", w[1].offset, w[0].name);
                Err(Error::Tensor { name: w[1].name.clone(), problem })
            }
        }
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Tensors begin at multiples of this many bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// First byte after the header (and its padding).
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// All pairs, in the file's order.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.metadata.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).map(|&i| &self.metadata[i].1)
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.names.get(name).map(|&i| &self.tensors[i])
    }

    /// The value of a key as `T`: `Ok(None)` where the key is absent.
    fn typed<T>(&self, key: &str, wanted: &'static str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| Error::WrongType { key: key.to_owned(), seen: describe(value), wanted })
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
            Some(other) => Err(Error::WrongType { key: key.to_owned(), seen: describe(other), wanted: "a string" }),
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

    /// An array of bytes or bools.
    ///
    /// # Errors
    /// [`Error::WrongType`].
    pub fn u8s(&self, key: &str) -> Result<Option<NumArray<u8>>> {
        self.numbers(key, "an array of bytes or bools")
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Array(a) => format!("an array of {} {}", a.len(), a.item().name()),
        Value::String(_) => "a string".into(),
        other => format!("{other:?}"),
    }
}

fn version(r: &mut Reader<'_>) -> Result<u32> {
    let magic = r.take(4, "the magic number")?;
    if magic != b"GGUF" {
        return Err(Error::Magic { seen: [magic[0], magic[1], magic[2], magic[3]] });
    }
    match r.u32("the version")? {
        v @ (2 | 3) => Ok(v),
        1 => Err(Error::Version("1 (an early draft with 32-bit lengths)".into())),
        v if (1..=0xff).contains(&v.swap_bytes()) => {
            Err(Error::Version(format!("{} in big-endian byte order", v.swap_bytes())))
        }
        v => Err(Error::Version(v.to_string())),
    }
}

type Pairs = (Vec<(String, Value)>, HashMap<String, usize>);

fn metadata(r: &mut Reader<'_>, n_pairs: u64) -> Result<Pairs> {
    let (mut pairs, mut keys) = (Vec::new(), HashMap::new());
    for index in 0..n_pairs {
        let offset = r.offset() as u64;
        let bytes = r.string("a metadata key")?;
        let bad = |key: &str, problem: String| Error::Metadata { key: key.to_owned(), problem, offset };
        let numbered = || format!("number {index}");
        let key = match std::str::from_utf8(bytes) {
            Ok("") => return Err(bad(&numbered(), "the key is empty".into())),
            Ok(key) if key.len() > MAX_KEY_BYTES => {
                return Err(bad(
                    &numbered(),
                    format!("the key has {} bytes, wanted at most {MAX_KEY_BYTES}", key.len()),
                ));
            }
            Ok(key) => key,
            Err(_) => return Err(bad(&numbered(), "the key is not UTF-8".into())),
        };
        let value = value(r, key)?;
        if keys.insert(key.to_owned(), pairs.len()).is_some() {
            return Err(bad(key, "stands in the file twice".into()));
        }
        pairs.push((key.to_owned(), value));
    }
    Ok((pairs, keys))
}

fn value(r: &mut Reader<'_>, key: &str) -> Result<Value> {
    let offset = r.offset() as u64;
    let bad = |problem: String| Error::Metadata { key: key.to_owned(), problem, offset };
    let id = r.u32(key)?;
    let ty = ValueType::from_id(id).ok_or_else(|| bad(format!("has the unknown type {id}")))?;
    Ok(match ty {
        ValueType::U8 => Value::U8(r.u8(key)?),
        ValueType::I8 => Value::I8(r.u8(key)? as i8),
        ValueType::U16 => Value::U16(r.u16(key)?),
        ValueType::I16 => Value::I16(r.u16(key)? as i16),
        ValueType::U32 => Value::U32(r.u32(key)?),
        ValueType::I32 => Value::I32(r.u32(key)? as i32),
        ValueType::F32 => Value::F32(f32::from_bits(r.u32(key)?)),
        ValueType::U64 => Value::U64(r.u64(key)?),
        ValueType::I64 => Value::I64(r.u64(key)? as i64),
        ValueType::F64 => Value::F64(f64::from_bits(r.u64(key)?)),
        ValueType::Bool => match r.u8(key)? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            b => return Err(bad(format!("is the bool {b}, wanted 0 or 1"))),
        },
        ValueType::String => {
            let text = std::str::from_utf8(r.string(key)?).map_err(|_| bad("is a string that is not UTF-8".into()))?;
            Value::String(text.to_owned())
        }
        ValueType::Array => Value::Array(array(r, key)?),
    })
}

fn array(r: &mut Reader<'_>, key: &str) -> Result<Array> {
    let offset = r.offset() as u64;
    let bad = |problem: String| Error::Metadata { key: key.to_owned(), problem, offset };
    let id = r.u32(key)?;
    let item = match ValueType::from_id(id) {
        Some(ValueType::Array) => return Err(bad("is an array of arrays, which no known key is".into())),
        Some(item) => item,
        None => return Err(bad(format!("is an array of the unknown type {id}"))),
    };
    // The length field of an empty string is the shortest element that is no number.
    let len = r.count(key, item.size_bytes().unwrap_or(8) as u64)?;
    let start = r.offset();
    let starts = match item.size_bytes() {
        Some(size) => {
            r.take(len * size as u64, key)?;
            None
        }
        None => Some(string_starts(r, len as usize, key)?),
    };
    Ok(Array { item, len: len as usize, bytes: start..r.offset(), starts })
}

/// Walks over strings and notes where each begins. This is the loop that half a million tokens and merges go through.
fn string_starts(r: &mut Reader<'_>, len: usize, key: &str) -> Result<Arc<[u32]>> {
    let (bytes, base) = (r.bytes(), r.offset());
    // Grows with what was really seen: `len` is bounded by the file, but the header at hand may be a short prefix of it.
    let mut starts = Vec::with_capacity(len.min((bytes.len() - base) / 8));
    let mut at = base;
    for _ in 0..len {
        let length = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        match length {
            Some(n) if n <= (bytes.len() - at - 8) as u64 => {
                starts.push(u32::try_from(at - base).map_err(|_| Error::Metadata {
                    key: key.to_owned(),
                    problem: "has more than 4 GiB of strings".into(),
                    offset: base as u64,
                })?);
                at += 8 + n as usize;
            }
            // Beyond the bytes at hand: the reader knows whether the file or only the prefix ends here.
            _ => {
                r.take((at - base) as u64, key)?;
                r.string(key)?;
                unreachable!("a string that did not fit was read");
            }
        }
    }
    r.take((at - base) as u64, key)?;
    Ok(starts.into())
}

fn tensor(r: &mut Reader<'_>, index: u64, alignment: u64) -> Result<TensorInfo> {
    let numbered = || format!("number {index}");
    let name_bytes = r.string("a tensor's name")?;
    let bad = |name: &str, problem: String| Error::Tensor { name: name.to_owned(), problem };
    let name = match std::str::from_utf8(name_bytes) {
        Ok("") => return Err(bad(&numbered(), "its name is empty".into())),
        Ok(name) if name.len() > MAX_NAME_BYTES => {
            return Err(bad(
                &numbered(),
                format!("its name has {} bytes, wanted at most {MAX_NAME_BYTES}", name.len()),
            ));
        }
        Ok(name) => name,
        Err(_) => return Err(bad(&numbered(), "its name is not UTF-8".into())),
    };
    let n_dims = r.u32(name)?;
    if !(1..=4).contains(&n_dims) {
        return Err(bad(name, format!("has {n_dims} dimensions, wanted 1 to 4")));
    }
    let dims = (0..n_dims).map(|_| r.u64(name)).collect::<Result<Vec<u64>>>()?;
    if let Some(d) = dims.iter().position(|&d| d == 0 || d > i64::MAX as u64) {
        return Err(bad(name, format!("dimension {d} is {}", dims[d] as i64)));
    }
    let id = r.u32(name)?;
    let ty = TensorType::from_id(id).ok_or_else(|| bad(name, format!("has the unknown type {id}")))?;
    let offset = r.u64(name)?;
    if offset % alignment != 0 {
        return Err(bad(name, format!("its offset {offset} is no multiple of the alignment {alignment}")));
    }
    let n_bytes = n_bytes(ty, &dims).map_err(|problem| bad(name, problem))?;
    Ok(TensorInfo { name: name.to_owned(), ty, dims, offset, n_bytes, shard: 0 })
}

fn n_bytes(ty: TensorType, dims: &[u64]) -> Result<u64, String> {
    let too_large = || format!("its dimensions {dims:?} are too large");
    if dims[0] % ty.block_len() as u64 != 0 {
        return Err(format!(
            "its rows have {} elements, no multiple of the {} in a block of {ty}",
            dims[0],
            ty.block_len()
        ));
    }
    let row = usize::try_from(dims[0]).ok().and_then(|k| ty.row_bytes(k)).ok_or_else(too_large)?;
    dims[1..]
        .iter()
        .try_fold(row as u64, |n, &d| n.checked_mul(d))
        .filter(|n| *n <= i64::MAX as u64)
        .ok_or_else(too_large)
}
