//! The walk over the tensor directory.

use crate::error::{Error, Result};
use crate::index::NameIndex;
use crate::printable::printable;
use crate::reader::Reader;
use crate::tensor_type::TensorType;

/// Longest tensor name; the format's own limit is 64 bytes with a final zero.
const MAX_NAME_BYTES: u64 = 63;
/// Most dimensions that the format has.
const MAX_DIMS: u32 = 4;
/// A directory entry: length of the name, one byte of it, number of dimensions, one dimension,
/// type, offset.
const MIN_TENSOR_BYTES: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// One tensor of the directory. Its extent lies within the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// How elements are stored.
    pub ty: TensorType,
    /// Elements along each dimension, innermost (row length) first; one to four, none of them 0,
    /// their product within `i64`.
    pub dims: Vec<u64>,
    /// First byte, from the start of its file.
    pub offset: u64,
    /// Length in bytes.
    pub n_bytes: u64,
    /// Which file of a split model holds it, from 0; known once its files are
    /// [joined](crate::split::join).
    pub shard: u16,
}

/// The tensors of a file in its order, with a way to find a name.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) data_offset: u64,
    index: NameIndex,
}

impl Directory {
    pub(crate) fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.index.find(name, |i| &self.tensors[i].name).map(|i| &self.tensors[i])
    }

    /// Reads `n` entries and checks that each tensor lies in the file, behind the one before it.
    pub(crate) fn read(r: &mut Reader<'_>, n: u64, alignment: u64) -> Result<Directory> {
        let most = (r.remaining() / MIN_TENSOR_BYTES as u64).min(u32::MAX.into());
        if n > most {
            return Err(Error::Count { what: "the number of tensors".into(), seen: n, most, offset: 8 });
        }
        // The header at hand may be a short prefix of the file that `n` was checked against.
        let mut tensors = Vec::with_capacity((n as usize).min(r.at_hand() / MIN_TENSOR_BYTES));
        for number in 0..n {
            tensors.push(entry(r, number, alignment)?);
        }
        let index = NameIndex::new(tensors.len(), |i| &tensors[i].name)
            .map_err(|twice| bad(&tensors[twice].name, "stands in the directory twice".into()))?;
        let data_offset = (r.offset() as u64).next_multiple_of(alignment);
        place(&mut tensors, data_offset, r.file_bytes())?;
        Ok(Directory { tensors, data_offset, index })
    }
}

/// Turns offsets within the data into offsets within the file.
fn place(tensors: &mut [TensorInfo], data_offset: u64, file_bytes: u64) -> Result<()> {
    let mut end_before = data_offset;
    for i in 0..tensors.len() {
        let (before, rest) = tensors.split_at_mut(i);
        let t = &mut rest[0];
        let start = data_offset.checked_add(t.offset);
        let Some((start, end)) = start.and_then(|s| Some((s, s.checked_add(t.n_bytes)?))).filter(|e| e.1 <= file_bytes)
        else {
            let problem = format!(
                "its {} bytes at offset {} of the data (which begins at byte {data_offset}) go beyond the file's end at \
                 {file_bytes}; the file may have been cut off",
                t.n_bytes, t.offset
            );
            return Err(bad(&t.name, problem));
        };
        if start < end_before {
            let name = before.last().map_or("", |b| &b.name);
            let problem = format!(
                "begins at byte {start}, but tensor {}, which stands before it in the directory, ends at byte {end_before}",
                printable(name)
            );
            return Err(bad(&t.name, problem));
        }
        t.offset = start;
        end_before = end;
    }
    Ok(())
}

fn bad(name: &str, problem: String) -> Error {
    Error::Tensor { name: printable(name), problem }
}

fn entry(r: &mut Reader<'_>, number: u64, alignment: u64) -> Result<TensorInfo> {
    let name = name(r, number)?;
    let n_dims = r.u32(name)?;
    if !(1..=MAX_DIMS).contains(&n_dims) {
        return Err(bad(name, format!("has {n_dims} dimensions, wanted 1 to {MAX_DIMS}")));
    }
    let mut dims = Vec::with_capacity(n_dims as usize);
    for i in 0..n_dims {
        let d = r.u64(name)?;
        if d == 0 || d > i64::MAX as u64 {
            return Err(bad(name, format!("dimension {i} is {}, wanted at least 1", d as i64)));
        }
        dims.push(d);
    }
    let ty = tensor_type(r, name)?;
    let offset = r.u64(name)?;
    if !offset.is_multiple_of(alignment) {
        return Err(bad(name, format!("its offset {offset} is no multiple of the alignment {alignment}")));
    }
    let n_bytes = n_bytes(ty, &dims).map_err(|problem| bad(name, problem))?;
    Ok(TensorInfo { name: name.to_owned(), ty, dims, offset, n_bytes, shard: 0 })
}

fn name<'a>(r: &mut Reader<'a>, number: u64) -> Result<&'a str> {
    let numbered = |problem: String| bad(&format!("number {number}"), problem);
    let bytes = match r.string_up_to(MAX_NAME_BYTES, "a tensor's name")? {
        Ok(bytes) => bytes,
        Err(n) => return Err(numbered(format!("its name has {n} bytes, wanted at most {MAX_NAME_BYTES}"))),
    };
    match std::str::from_utf8(bytes) {
        Ok("") => Err(numbered("its name is empty".into())),
        Ok(name) => Ok(name),
        Err(_) => Err(numbered("its name is not UTF-8".into())),
    }
}

fn tensor_type(r: &mut Reader<'_>, name: &str) -> Result<TensorType> {
    let id = r.u32(name)?;
    TensorType::from_id(id).ok_or_else(|| match TensorType::removed_name(id) {
        Some(removed) => bad(name, format!("has type {id} ({removed}), which was removed from the format")),
        None => bad(name, format!("has the unknown type {id}")),
    })
}

fn n_bytes(ty: TensorType, dims: &[u64]) -> Result<u64, String> {
    let too_large = || format!("its dimensions {dims:?} are too large");
    // Some types take less than a byte an element: the number of elements must fit too.
    let n_elements = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    n_elements.filter(|n| i64::try_from(*n).is_ok()).ok_or_else(too_large)?;
    let (k, rows) = (dims[0], &dims[1..]);
    if !k.is_multiple_of(ty.block_len() as u64) {
        return Err(format!("its rows have {k} elements, no multiple of the {} in a block of {ty}", ty.block_len()));
    }
    let row_bytes = usize::try_from(k).ok().and_then(|k| ty.row_bytes(k)).ok_or_else(too_large)?;
    let n_bytes = rows.iter().try_fold(row_bytes as u64, |n, &d| n.checked_mul(d));
    n_bytes.filter(|n| i64::try_from(*n).is_ok()).ok_or_else(too_large)
}
