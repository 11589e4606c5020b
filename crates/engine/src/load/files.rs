//! The files of a model, opened but not yet understood: enough to look at metadata, the directory
//! and the vocabulary.

use modelembed_gguf::{Gguf, SharedBytes, TensorInfo};
use modelembed_packed::Packed;
use modelembed_spec::ModelSpec;
use modelembed_storage::Storage;

use crate::error::Result;
use crate::gpu;
use crate::load::options::{ContextNeed, LoadOptions};
use crate::load::shard::{self, Shard};
use crate::load::share::CpuShare;
use crate::load::tensors::Compiled;
use crate::residency::devices::{self, DevicePlan};
use crate::residency::plan::Plan;
use crate::residency::{self, Sizes};

/// The opened files of a model. Works for any valid GGUF file: of an unknown architecture, or with
/// a vocabulary only.
pub struct ModelFiles {
    pub(crate) shards: Vec<Shard>,
    pub(crate) header: SharedBytes,
    pub(crate) packed: Option<Packed>,
}

impl ModelFiles {
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
