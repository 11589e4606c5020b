//! The files of a model, opened but not yet understood: enough to look at metadata, the directory and the vocabulary.

use std::ops::ControlFlow;
use std::path::Path;

use modelembed_gguf::split::{self, SplitName};
use modelembed_gguf::{Gguf, SharedBytes, TensorInfo};
use modelembed_storage::{LoadMode, Progress, Storage};

use crate::error::{Error, Result};

/// One file of a model with its directory.
pub(crate) struct Shard {
    pub storage: Storage,
    pub gguf: Gguf,
}

/// The opened files of a model. Works for any valid GGUF file: of an unknown architecture, or with a vocabulary only.
pub struct ModelFiles {
    pub(crate) shards: Vec<Shard>,
    pub(crate) header: SharedBytes,
    pub(crate) tensors: Vec<TensorInfo>,
}

impl ModelFiles {
    /// Maps a model's file, and where it is one of a split model, all the others; reads and checks the headers.
    ///
    /// # Errors
    /// A file that cannot be opened or is no valid GGUF file; a split model of which files are missing.
    pub fn open(path: &Path) -> Result<ModelFiles> {
        ModelFiles::open_with(path, LoadMode::Map, &mut |_| ControlFlow::Continue(()))
    }

    pub(crate) fn open_with(
        path: &Path,
        mode: LoadMode,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<ModelFiles> {
        let (shards, header) = open_shards(path, mode, progress)?;
        let tensors = directory(&shards, path)?;
        Ok(ModelFiles { shards, header, tensors })
    }

    /// Metadata and directory of the (first) file.
    pub fn gguf(&self) -> &Gguf {
        &self.shards[0].gguf
    }

    /// The (first) header's bytes, which [`Gguf`]'s arrays are read from.
    pub fn header(&self) -> &SharedBytes {
        &self.header
    }

    /// Directory of all files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Where the bytes of each file live.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.shards.iter().map(|s| &s.storage)
    }

    /// Length of all files, in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.storages().map(|s| s.len()).sum()
    }
}

impl std::fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelFiles")
            .field("n_tensors", &self.tensors.len())
            .field("n_bytes", &self.n_bytes())
            .finish_non_exhaustive()
    }
}

/// Opens the named file and, where it is one of a split model, all the others.
fn open_shards(
    path: &Path,
    mode: LoadMode,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Vec<Shard>, SharedBytes)> {
    let (named, header) = open_shard(path, mode, progress)?;
    let gguf_error = |source| Error::Gguf { path: path.to_owned(), source };
    let Some(split) = named.gguf.split().map_err(gguf_error)? else { return Ok((vec![named], header)) };
    let name = path.file_name().and_then(|n| n.to_str()).and_then(SplitName::parse);
    let Some(name) = name.filter(|n| n.count == split.count && n.number == split.index + 1) else {
        let wanted = format!("...-{:05}-of-{:05}.gguf", split.index + 1, split.count);
        let problem =
            format!("it is file {} of {} by its metadata, wanted the name {wanted}", split.index + 1, split.count);
        return Err(gguf_error(modelembed_gguf::Error::Split(problem)));
    };
    let mut named = Some((named, header));
    let mut shards = Vec::new();
    let mut first_header = None;
    for number in 1..=name.count {
        let (shard, header) = match (number == name.number, named.take()) {
            (true, Some(opened)) => opened,
            (_, kept) => {
                named = kept;
                open_shard(&path.with_file_name(name.sibling(number)), mode, progress)?
            }
        };
        first_header.get_or_insert(header);
        shards.push(shard);
    }
    let header = first_header.unwrap_or_else(|| unreachable!("a split model has at least two files"));
    Ok((shards, header))
}

fn open_shard(
    path: &Path,
    mode: LoadMode,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Shard, SharedBytes)> {
    // Most headers fit; others say how much more they need.
    const FIRST_BYTES: u64 = 1 << 20;
    let storage = Storage::open(path, mode, progress)?;
    let mut wanted = FIRST_BYTES;
    loop {
        let header = storage.header(wanted)?;
        let bytes = (*header).as_ref();
        match Gguf::parse(bytes, storage.len()) {
            Ok(gguf) => return Ok((Shard { storage, gguf }, header)),
            Err(modelembed_gguf::Error::HeaderTruncated { needed_bytes, .. }) => {
                // Doubling keeps the number of tries low; growing past what is asked for is bounded by the file.
                wanted = needed_bytes.max(2 * bytes.len() as u64).min(storage.len());
            }
            Err(modelembed_gguf::Error::Magic { .. }) => {
                let found = modelembed_gguf::identify(bytes).description().to_owned();
                return Err(Error::NotGguf { path: path.to_owned(), found });
            }
            Err(source) => return Err(Error::Gguf { path: path.to_owned(), source }),
        }
    }
}

fn directory(shards: &[Shard], path: &Path) -> Result<Vec<TensorInfo>> {
    let files: Vec<&Gguf> = shards.iter().map(|s| &s.gguf).collect();
    split::merge_directories(&files).map_err(|source| Error::Gguf { path: path.to_owned(), source })
}
