//! Models split over several files: their names, and whether the files belong together.
//!
//! Names count from 1 (`model-00001-of-00003.gguf`), the key `split.no` counts from 0; the first file holds the
//! model's metadata, every file the directory of its own tensors.

use crate::directory::TensorInfo;
use crate::error::{Error, Result};
use crate::gguf::Gguf;

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

/// Joins the directories of all files of a model, in order of their numbers. One unsplit file is the simple case.
///
/// # Errors
/// Files that are missing, out of order or of another model, a tensor that stands in two files, or a total that is not the
/// one that the metadata gives.
pub fn merge_directories(files: &[&Gguf]) -> Result<Vec<TensorInfo>> {
    let mut all = Vec::new();
    let mut names = std::collections::HashSet::new();
    let first = files.first().map(|f| f.split()).transpose()?.flatten();
    for (index, file) in files.iter().enumerate() {
        let split = file.split()?;
        let counts = (split.map_or(1, |s| s.count) as usize, split.map_or(0, |s| s.index) as usize);
        if counts != (files.len(), index) {
            return Err(Error::Split(format!(
                "file {} of {} says in its metadata that it is file {} of {}",
                index + 1,
                files.len(),
                counts.1 + 1,
                counts.0
            )));
        }
        if let (Some(a), Some(b)) = (first.and_then(|s| s.n_tensors), split.and_then(|s| s.n_tensors))
            && a != b
        {
            return Err(Error::Split(format!("file 1 is of a model of {a} tensors, file {} of one of {b}", index + 1)));
        }
        for t in file.tensors() {
            if !names.insert(t.name.clone()) {
                return Err(Error::Split(format!("tensor {} stands in two files", t.name)));
            }
            all.push(TensorInfo { shard: index as u16, ..t.clone() });
        }
    }
    match first.and_then(|s| s.n_tensors) {
        Some(wanted) if wanted != all.len() as u64 => {
            Err(Error::Split(format!("the files hold {} tensors, split.tensors.count is {wanted}", all.len())))
        }
        _ => Ok(all),
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
        for bad in
            ["m.gguf", "m-2-of-3.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-00001-of-0000x.gguf"]
        {
            assert_eq!(SplitName::parse(bad), None, "{bad}");
        }
    }
}
