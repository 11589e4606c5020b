//! Models split over several files: their names, and whether the files belong together.
//!
//! Names count from 1 (`model-00001-of-00003.gguf`), the key `split.no` counts from 0; the first
//! file holds the model's metadata, every file the directory of its own tensors.

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::printable::printable;

/// Files of one model at most: more than any real one, and what five digits and a `u16` hold.
const MAX_FILES: u32 = 9_999;

/// Which file of a split model this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitInfo {
    /// From 0.
    pub index: u32,
    /// Files of the model.
    pub count: u32,
    /// Tensors in all files.
    pub n_tensors: Option<u64>,
}

/// The place of one file name in a split model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitName {
    /// Everything before `-00001-of-`.
    pub prefix: String,
    /// From 1.
    pub number: u32,
    /// Files of the model.
    pub count: u32,
}

impl SplitName {
    /// Reads a file name (without folders); `None` where it is no split file's name.
    pub fn parse(file_name: &str) -> Option<SplitName> {
        // Names of siblings are made from this one: they must stay in its folder.
        if file_name.contains(std::path::is_separator) {
            return None;
        }
        let (rest, count) = file_name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let digits =
            |s: &str| (s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok()).flatten();
        let (number, count): (u32, u32) = (digits(number)?, digits(count)?);
        (1..=count).contains(&number).then(|| SplitName { prefix: prefix.to_owned(), number, count })
    }

    /// The name of file `number` (from 1) of the same model.
    pub fn sibling(&self, number: u32) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.prefix, self.count)
    }
}

impl Gguf {
    /// What the metadata says about splitting; `None` for a model in one file.
    ///
    /// # Errors
    /// Values of the wrong type, or an index beyond the count.
    pub fn split(&self) -> Result<Option<SplitInfo>> {
        let count = match self.u32("split.count")? {
            None | Some(0 | 1) => return Ok(None),
            Some(count) if count > MAX_FILES => {
                return Err(Error::Split(format!("split.count is {count}, wanted at most {MAX_FILES}")));
            }
            Some(count) => count,
        };
        let index = self.u32("split.no")?.ok_or(Error::MissingKey { key: "split.no".into() })?;
        if index >= count {
            return Err(Error::Split(format!("split.no is {index}, but split.count is {count}")));
        }
        Ok(Some(SplitInfo { index, count, n_tensors: self.u64("split.tensors.count")? }))
    }
}

/// Opens all files of the model that `named` is one of, in order of their numbers; a model that was
/// not split is that file alone. `open` opens the file of a number (from 1) and a name, in the
/// folder of the named one; `gguf` looks at the header of an opened one. Names come from
/// `file_name` alone, never from metadata.
///
/// # Errors
/// A file name that is not what the metadata asks for; whatever `open` fails with.
pub fn open_all<F, E: From<Error>>(
    named: F,
    file_name: Option<&str>,
    gguf: impl Fn(&F) -> &Gguf,
    mut open: impl FnMut(u32, &str) -> std::result::Result<F, E>,
) -> std::result::Result<Vec<F>, E> {
    let Some(split) = gguf(&named).split()? else { return Ok(vec![named]) };
    let number = split.index + 1;
    let name = file_name.and_then(SplitName::parse).filter(|n| n.count == split.count && n.number == number);
    let Some(name) = name else {
        let (count, wanted) = (split.count, format!("...-{number:05}-of-{:05}.gguf", split.count));
        let problem = format!("it is file {number} of {count} by its metadata, wanted the name {wanted}");
        return Err(Error::Split(problem).into());
    };
    let mut files = Vec::new();
    for before in 1..number {
        files.push(open(before, &name.sibling(before))?);
    }
    files.push(named);
    for behind in number + 1..=split.count {
        files.push(open(behind, &name.sibling(behind))?);
    }
    Ok(files)
}

/// Joins the directories of all files of a model, given in order of their numbers: each tensor
/// learns in which of them it is. One unsplit file is the simple case.
///
/// # Errors
/// Files that are missing, out of order or of another model, a tensor that stands in two files, or
/// a total that is not the one that the metadata gives.
pub fn join(files: &mut [&mut Gguf]) -> Result<()> {
    let n_files = files.len();
    if n_files == 0 || n_files > MAX_FILES as usize {
        return Err(Error::Split(format!("{n_files} files were given, wanted 1 to {MAX_FILES}")));
    }
    for (file, shard) in files.iter_mut().zip(0..) {
        file.set_shard(shard);
    }
    let files: Vec<&Gguf> = files.iter().map(|file| &**file).collect();
    check_numbers(&files)?;
    SAME_IN_ALL.iter().try_for_each(|key| check_same(&files, key))?;
    check_names(&files)
}

/// Each file says that it is where it is, and the totals agree.
fn check_numbers(files: &[&Gguf]) -> Result<()> {
    let n_files = files.len();
    let mut wanted = None;
    for (i, file) in files.iter().enumerate() {
        let split = file.split()?.unwrap_or(SplitInfo { index: 0, count: 1, n_tensors: None });
        if (split.count as usize, split.index as usize) != (n_files, i) {
            let (number, count) = (split.index + 1, split.count);
            let problem =
                format!("file {} of {n_files} says in its metadata that it is file {number} of {count}", i + 1);
            return Err(Error::Split(problem));
        }
        match (wanted, split.n_tensors) {
            (Some(a), Some(b)) if a != b => {
                let problem = format!("split.tensors.count is {b} in file {}, but {a} in a file before it", i + 1);
                return Err(Error::Split(problem));
            }
            _ => wanted = wanted.or(split.n_tensors),
        }
    }
    let n_tensors: usize = files.iter().map(|f| f.tensors().len()).sum();
    match wanted.filter(|wanted| *wanted != n_tensors as u64) {
        Some(wanted) => {
            Err(Error::Split(format!("the files hold {n_tensors} tensors, but split.tensors.count is {wanted}")))
        }
        None => Ok(()),
    }
}

/// What tells models apart. Only the first file has to say it, but no two files may differ.
const SAME_IN_ALL: [&str; 4] = ["general.architecture", "general.name", "general.uuid", "general.size_label"];

fn check_same(files: &[&Gguf], key: &str) -> Result<()> {
    let mut values = files.iter().zip(1..).filter_map(|(file, number)| Some((number, file.get(key)?)));
    let Some((first, wanted)) = values.next() else { return Ok(()) };
    match values.find(|(_, value)| *value != wanted) {
        Some((number, value)) => {
            let (seen, wanted) = (value.describe(), wanted.describe());
            Err(Error::Split(format!("{key} is {seen} in file {number}, but {wanted} in file {first}")))
        }
        None => Ok(()),
    }
}

fn check_names(files: &[&Gguf]) -> Result<()> {
    if files.len() == 1 {
        return Ok(()); // names are unique in a file
    }
    let mut names: Vec<&str> = Vec::with_capacity(files.iter().map(|f| f.tensors().len()).sum());
    names.extend(files.iter().flat_map(|f| f.tensors()).map(|t| &*t.name));
    names.sort_unstable();
    match names.windows(2).find(|w| w[0] == w[1]) {
        Some(twice) => Err(Error::Split(format!("tensor {} stands in two files", printable(twice[0])))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = SplitName::parse("big-model-00002-of-00003.gguf").unwrap();
        assert_eq!((name.number, name.count), (2, 3));
        assert_eq!(name.sibling(1), "big-model-00001-of-00003.gguf");
        let bad = [
            "",
            ".gguf",
            "-of-.gguf",
            "m.gguf",
            "m-2-of-3.gguf",
            "m-00004-of-00003.gguf",
            "m-00000-of-00003.gguf",
            "m-00000-of-00000.gguf",
            "m-00001-of-0000x.gguf",
            "m-+0001-of-00002.gguf",
            "m-000001-of-00002.gguf",
            "m-00001-of-00002.gguf.part",
            "m00001-of-00002.gguf",
            "../m-00001-of-00002.gguf",
        ];
        let read: Vec<_> = bad.iter().filter(|b| SplitName::parse(b).is_some()).collect();
        assert!(read.is_empty(), "{read:?}");
    }
}
