//! The walk over metadata pairs.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::index::NameIndex;
use crate::printable::printable;
use crate::reader::Reader;
use crate::value::{Array, Value, ValueType};

/// Longest key that the format allows.
const MAX_KEY_BYTES: u64 = (1 << 16) - 1;
/// A whole tokenizer.json (33 MB for 262,144 tokens) may be stored as one string; strings are
/// copied, so there is a limit.
const MAX_STRING_BYTES: u64 = 256 << 20;
/// Real files have some fifty pairs. The limit keeps the table of pairs small beside the file that
/// they were read from.
const MAX_PAIRS: u64 = 1 << 16;
/// A key-value pair: length of the key, one byte of it, type, one byte of value.
const MIN_PAIR_BYTES: usize = 8 + 1 + 4 + 1;

/// Metadata in the file's order, with a way to find a key.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) pairs: Vec<(Box<str>, Value)>,
    index: NameIndex,
}

impl Metadata {
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.index.find(key, |i| &*self.pairs[i].0).map(|i| &self.pairs[i].1)
    }

    /// Reads `n` pairs.
    pub(crate) fn read(r: &mut Reader<'_>, n: u64) -> Result<Metadata> {
        let mut again = r.clone();
        // The header at hand may be a short prefix of the file that `n` was checked against.
        let mut pairs: Vec<(Box<str>, Value)> = Vec::with_capacity((n as usize).min(r.at_hand() / MIN_PAIR_BYTES));
        for number in 0..n {
            let key = key(r, number)?;
            pairs.push((key.into(), value(r, key)?));
        }
        let index = match NameIndex::new(pairs.len(), |i| &*pairs[i].0) {
            Ok(index) => index,
            Err(twice) => {
                for number in 0..twice as u64 {
                    let key = key(&mut again, number)?;
                    value(&mut again, key)?;
                }
                let problem = "stands in the file twice".into();
                let offset = again.offset() as u64;
                return Err(Error::Metadata { key: printable(&pairs[twice].0), problem, offset });
            }
        };
        Ok(Metadata { pairs, index })
    }
}

/// Reads and checks the number of pairs.
pub(crate) fn n_pairs(r: &mut Reader<'_>) -> Result<u64> {
    let offset = r.offset() as u64;
    let what = "the number of metadata pairs";
    let seen = r.count(what, MIN_PAIR_BYTES as u64)?;
    match seen {
        0..=MAX_PAIRS => Ok(seen),
        _ => Err(Error::Count { what: what.into(), seen, most: MAX_PAIRS, offset }),
    }
}

fn key<'a>(r: &mut Reader<'a>, number: u64) -> Result<&'a str> {
    let offset = r.offset() as u64;
    let bad = |problem: String| Error::Metadata { key: format!("number {number}"), problem, offset };
    let bytes = match r.string_up_to(MAX_KEY_BYTES, "a metadata key")? {
        Ok(bytes) => bytes,
        Err(n) => return Err(bad(format!("the key has {n} bytes, wanted at most {MAX_KEY_BYTES}"))),
    };
    match std::str::from_utf8(bytes) {
        Ok("") => Err(bad("the key is empty".into())),
        Ok(key) => Ok(key),
        Err(_) => Err(bad("the key is not UTF-8".into())),
    }
}

fn value(r: &mut Reader<'_>, key: &str) -> Result<Value> {
    let offset = r.offset() as u64;
    let bad = |problem: String| Error::Metadata { key: printable(key), problem, offset };
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
            let bytes = match r.string_up_to(MAX_STRING_BYTES, key)? {
                Ok(bytes) => bytes,
                Err(n) => return Err(bad(format!("is a string of {n} bytes, wanted at most {MAX_STRING_BYTES}"))),
            };
            let text = std::str::from_utf8(bytes).map_err(|_| bad("is a string that is not UTF-8".into()))?;
            Value::String(text.to_owned())
        }
        ValueType::Array => Value::Array(array(r, key)?),
    })
}

fn array(r: &mut Reader<'_>, key: &str) -> Result<Array> {
    let offset = r.offset() as u64;
    let bad = |problem: String| Error::Metadata { key: printable(key), problem, offset };
    let id = r.u32(key)?;
    let item = match ValueType::from_id(id) {
        Some(ValueType::Array) => return Err(bad("is an array of arrays, which no known key is".into())),
        Some(item) => item,
        None => return Err(bad(format!("is an array of the unknown type {id}"))),
    };
    // The shortest element that is no number is the length field of an empty string.
    let len = r.count(key, item.size_bytes().unwrap_or(8) as u64)?;
    let start = r.offset();
    match item.size_bytes() {
        Some(size) => {
            r.take(len * size as u64, key)?;
            Ok(Array::of_numbers(item, start..r.offset(), len as usize))
        }
        None => {
            let starts = string_starts(r, len, key)?;
            Ok(Array::of_strings(start..r.offset(), starts))
        }
    }
}

/// Walks over strings and notes where each begins. This is the loop that half a million tokens and
/// merges go through: it touches only the length fields and allocates once.
fn string_starts(r: &mut Reader<'_>, len: u64, key: &str) -> Result<Arc<[u32]>> {
    let (bytes, base) = (r.bytes(), r.offset());
    let mut starts: Vec<u32> = Vec::with_capacity((len as usize).min(r.at_hand() / 8));
    let mut at = base;
    for _ in 0..len {
        let Some((length, rest)) = bytes[at..].split_first_chunk::<8>() else { break };
        let n = u64::from_le_bytes(*length);
        let Ok(start) = u32::try_from(at - base) else {
            let problem = "has more than 4 GiB of strings".into();
            return Err(Error::Metadata { key: printable(key), problem, offset: base as u64 });
        };
        if n > rest.len() as u64 {
            break;
        }
        starts.push(start);
        at += 8 + n as usize;
    }
    r.take((at - base) as u64, key)?;
    // A string that goes beyond the bytes at hand: the reader knows whether the file or only the
    // prefix ends there.
    for _ in starts.len() as u64..len {
        r.string(key)?;
    }
    Ok(starts.into())
}
