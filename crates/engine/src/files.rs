//! The files of a model, opened but not yet understood: enough to look at metadata, the directory
//! and the vocabulary.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;

use modelembed_gguf::split;
use modelembed_gguf::{Gguf, SharedBytes, TensorInfo};
use modelembed_packed::{Packed, PackedError, Part};
use modelembed_spec::ModelSpec;
use modelembed_storage::{LoadMode, Progress, Storage};

use crate::devices::{self, DevicePlan};
use crate::error::{Error, Result};
use crate::gpu;
use crate::options::{ContextNeed, LoadOptions};
use crate::plan::Plan;
use crate::residency::{self, Sizes};
use crate::shard::{self, Shard};
use crate::share::CpuShare;
use crate::tensors::Compiled;

/// The opened files of a model. Works for any valid GGUF file: of an unknown architecture, or with
/// a vocabulary only.
pub struct ModelFiles {
    pub(crate) shards: Vec<Shard>,
    pub(crate) header: SharedBytes,
    pub(crate) packed: Option<Packed>,
}

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

    /// Metadata and directory of the (first) file.
    pub fn gguf(&self) -> &Gguf {
        &self.shards[0].gguf
    }

    /// The (first) header's bytes, which [`Gguf`]'s arrays are read from.
    pub fn header(&self) -> &SharedBytes {
        &self.header
    }

    /// Directory of all files.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> + Clone {
        shard::directory(&self.shards)
    }

    /// Where the bytes of each file live.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.shards.iter().map(|s| &s.storage)
    }

    /// What a program says of the model that was packed into it; `None` for a model in files of its
    /// own.
    pub fn packed(&self) -> Option<&Packed> {
        self.packed.as_ref()
    }

    /// The files, as they are to be packed into a program.
    pub fn sources(&self) -> Vec<modelembed_packed::Source> {
        let source = |(i, shard): (usize, &Shard)| {
            let (path, start, len) = (shard.storage.path(), shard.storage.file_offset(), shard.storage.len());
            let name = match &self.packed {
                Some(packed) => packed.manifest().parts[i].name.clone(),
                None => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            };
            // Characters that are no part of a file name on every system.
            let name = name.replace(|c: char| c.is_control() || matches!(c, '\\' | ':'), "_");
            let header_bytes = shard.gguf.data_offset().min(len);
            modelembed_packed::Source { path: path.to_owned(), range: start..start + len, name, header_bytes }
        };
        self.shards.iter().enumerate().map(source).collect()
    }

    /// The plan that [`Model::load`](crate::Model::load) would make for these files here and now,
    /// of what the CPU computes. Reads no tensor.
    ///
    /// # Errors
    /// Whatever keeps the model from running: an unknown architecture, a missing or misshapen
    /// tensor.
    pub fn plan(&self, options: &LoadOptions) -> Result<Plan> {
        Ok(self.plan_devices(options)?.plan)
    }

    /// The same, and which device would compute what. Memory of a GPU is taken for the layers that
    /// are meant for it, and given back.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), and whatever keeps the layers from a GPU that must be there.
    pub fn plan_devices(&self, options: &LoadOptions) -> Result<DevicePlan> {
        self.plan_devices_for(options, None)
    }

    /// The same for a session that needs no more than that; see
    /// [`Model::load_for`](crate::Model::load_for).
    ///
    /// # Errors
    /// As [`plan_devices`](Self::plan_devices).
    pub fn plan_devices_for(&self, options: &LoadOptions, need: Option<ContextNeed>) -> Result<DevicePlan> {
        let compiled = self.compile()?;
        let of_need = need.map(|need| options.needing(need, compiled.spec.ctx_train));
        let options = of_need.as_ref().unwrap_or(options);
        let mut warnings = Vec::new();
        let gpu = gpu::plan(&compiled, options, &mut warnings)?;
        let (n_layer, all) = (compiled.program.n_layer(), CpuShare::all(&compiled.program));
        let sizes = Sizes::of(options, &compiled, gpu.as_ref().map_or(all, |gpu| gpu.cpu_share(n_layer)));
        let kv_bytes = sizes.kv_bytes(&compiled.program);
        Ok(DevicePlan {
            plan: residency::plan(&self.shards, &compiled, options.ram_budget, sizes),
            devices: devices::shares(n_layer, compiled.bytes_per_token(), kv_bytes, gpu),
            warnings,
        })
    }

    /// What the metadata say that the model is. It need not be one that runs.
    ///
    /// # Errors
    /// Metadata that describe no model that is known.
    pub fn spec(&self) -> Result<ModelSpec> {
        Ok(ModelSpec::from_gguf(self.gguf(), (*self.header).as_ref())?)
    }

    /// The steps that would compute the model, as text.
    ///
    /// # Errors
    /// Whatever keeps the model from running.
    pub fn describe_program(&self) -> Result<String> {
        let compiled = self.compile()?;
        Ok(compiled.program.describe(&compiled.spec))
    }

    fn compile(&self) -> Result<Compiled> {
        Compiled::new(self.gguf(), (*self.header).as_ref(), self.tensors())
    }

    /// Length of all files, in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.storages().map(|s| s.len()).sum()
    }
}

impl std::fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelFiles")
            .field("n_tensors", &self.tensors().count())
            .field("n_bytes", &self.n_bytes())
            .finish_non_exhaustive()
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
    let none = || packed_error(PackedError::Changed("it has no parts".into()));
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
