//! Opening the files of a model: one, all those of a split model, or those that were packed into a
//! program.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;

use modelembed_gguf::split;
use modelembed_gguf::{Gguf, SharedBytes};
use modelembed_packed::{Packed, PackedError, Part};
use modelembed_storage::{LoadMode, Progress, Storage};

use crate::error::{Error, Result};
use crate::load::files::ModelFiles;
use crate::load::shard::Shard;

impl ModelFiles {
    /// Maps a model's file, and where it is one of a split model, all the others; reads and checks
    /// the headers. The file may be a program that a model was packed into.
    ///
    /// # Errors
    /// A file that cannot be opened or is no valid GGUF file; a split model of which files are
    /// missing.
    pub fn open(path: &Path) -> Result<ModelFiles> {
        ModelFiles::open_with(path, LoadMode::Map, &mut |_| ControlFlow::Continue(()))
    }

    pub(crate) fn open_with(
        path: &Path,
        mode: LoadMode,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<ModelFiles> {
        // A program is looked for through a mapping: a read of a few bytes would make the system
        // read megabytes ahead into small pages of its cache, and pages that came small stay small.
        // What is wrong with a file that cannot be mapped is said below; some file systems only
        // refuse mappings.
        let mapped = Storage::open(path, LoadMode::Map, &mut |_| ControlFlow::Continue(())).ok();
        let packed = match mapped.as_ref().and_then(|storage| storage.bytes(0..storage.len())) {
            Some(bytes) => Packed::find_in(&mut Cursor::new(bytes), path),
            None => Packed::find(path),
        }
        .map_err(|source| Error::Packed { path: path.to_owned(), source })?;
        let (mut shards, header) = match &packed {
            Some(packed) => open_parts(path, &packed.manifest().parts, mode, progress)?,
            None => {
                let storage = match mapped {
                    Some(storage) if mode == LoadMode::Map => storage,
                    _ => Storage::open(path, mode, progress)?,
                };
                open_shards(storage, mode, progress)?
            }
        };
        join(&mut shards, path)?;
        Ok(ModelFiles { shards, header, packed })
    }
}

/// Reads the header of the named file, and opens all others where it is one of a split model.
fn open_shards(
    named: Storage,
    mode: LoadMode,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Vec<Shard>, SharedBytes)> {
    let path = named.path().to_owned();
    let file_name = path.file_name().and_then(|n| n.to_str());
    let (named, mut first_header) = read_header(named)?;
    let open = |number, name: &str| {
        let (shard, header) = open_shard(&path.with_file_name(name), mode, progress).map_err(Failed::Opening)?;
        if number == 1 {
            first_header = header;
        }
        Ok(shard)
    };
    let shards = split::open_all(named, file_name, |shard| &shard.gguf, open).map_err(|error| match error {
        Failed::Opening(error) => error,
        Failed::Split(source) => Error::Gguf { path: path.clone(), source },
    })?;
    Ok((shards, first_header))
}

/// Why the files of a model could not be opened.
enum Failed {
    Opening(Error),
    Split(modelembed_gguf::Error),
}

impl From<modelembed_gguf::Error> for Failed {
    fn from(source: modelembed_gguf::Error) -> Failed {
        Failed::Split(source)
    }
}

/// Opens the files of a model that lie within a program, each of them once its header proved to be
/// what was packed.
fn open_parts(
    path: &Path,
    parts: &[Part],
    mode: LoadMode,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Vec<Shard>, SharedBytes)> {
    let packed_error = |source| Error::Packed { path: path.to_owned(), source };
    let mut shards = Vec::with_capacity(parts.len());
    let mut first_header = None;
    for part in parts {
        let storage = Storage::open_range(path, part.range(), mode, progress)?;
        let header = storage.header(part.header_bytes)?;
        part.check_header((*header).as_ref()).map_err(packed_error)?;
        drop(header);
        let (shard, header) = read_header(storage)?;
        first_header.get_or_insert(header);
        shards.push(shard);
    }
    let none = || packed_error(PackedError::Changed { problem: "it has no parts".into() });
    Ok((shards, first_header.ok_or_else(none)?))
}

fn open_shard(
    path: &Path,
    mode: LoadMode,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Shard, SharedBytes)> {
    read_header(Storage::open(path, mode, progress)?)
}

fn read_header(storage: Storage) -> Result<(Shard, SharedBytes)> {
    // Most headers fit; others say how much more they need.
    const FIRST_BYTES: u64 = 1 << 20;
    let path = storage.path().to_owned();
    let mut wanted = FIRST_BYTES;
    loop {
        let header = storage.header(wanted)?;
        let bytes = (*header).as_ref();
        match Gguf::parse(bytes, storage.len()) {
            Ok(gguf) => return Ok((Shard { storage, gguf }, header)),
            Err(modelembed_gguf::Error::HeaderTruncated { needed_bytes, .. }) => {
                // Doubling keeps the number of tries low; growing past what is asked for is bounded
                // by the file.
                wanted = needed_bytes.max(2 * bytes.len() as u64).min(storage.len());
            }
            Err(modelembed_gguf::Error::Magic { .. }) => {
                let found = modelembed_gguf::identify(bytes).description().to_owned();
                return Err(Error::NotGguf { path, found });
            }
            Err(source) => return Err(Error::Gguf { path, source }),
        }
    }
}

fn join(shards: &mut [Shard], path: &Path) -> Result<()> {
    let mut files: Vec<&mut Gguf> = shards.iter_mut().map(|s| &mut s.gguf).collect();
    split::join(&mut files).map_err(|source| Error::Gguf { path: path.to_owned(), source })
}
