//! How a model is loaded, and what loading did.

use std::sync::Arc;
use std::time::Duration;

use modelembed_kernels::Isa;
use modelembed_storage::{LoadMode, StreamReader};
use modelembed_terms::CacheType;

use crate::error::{Error, Result};
use crate::gpu::{GpuLayers, GpuLimits};
use crate::load::locking::{Lock, LockStats};
use crate::residency::plan::RamBudget;
use crate::run::runtime::{Runtime, RuntimeOptions};

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Where the model's bytes live.
    pub mode: LoadMode,
    /// What computes; `None` starts a runtime of `threads` and `isa` for this model alone.
    pub runtime: Option<Arc<Runtime>>,
    /// Worker threads of a runtime of its own, the calling one included; `None` takes the physical
    /// cores that this process may use.
    pub threads: Option<usize>,
    /// Instruction set of the kernels of a runtime of its own; `None` takes the best that the CPU
    /// has.
    pub isa: Option<Isa>,
    /// Activations stay f32 and weights are dequantised on the fly: exact and slower.
    pub exact: bool,
    /// How much memory a mapped model may use; what is more streams from the disk.
    pub ram_budget: RamBudget,
    /// Tokens of the context that the plan leaves memory for; `None` takes the length that the
    /// model was trained for.
    pub ctx_tokens: Option<usize>,
    /// Tokens that a session computes together at most, as
    /// [`SessionOptions::chunk_tokens`](crate::SessionOptions::chunk_tokens).
    pub chunk_tokens: Option<usize>,
    /// What keys and values of that context are stored in; `None` takes what a session takes that
    /// does not say.
    pub cache_type: Option<CacheType>,
    /// How much of the weights is locked in memory.
    pub lock: Lock,
    /// How many of the last layers a GPU computes.
    pub gpu_layers: GpuLayers,
    /// Which GPU: its index in [`gpu_adapters`](crate::gpu_adapters) or a part of its name; `None`
    /// takes the best that is no software.
    pub gpu_device: Option<String>,
    /// Limits below those that the GPU reports.
    pub gpu_limits: GpuLimits,
    /// Who reads what streams.
    pub stream_reader: StreamReader,
}

/// What a session will need, where that is known before memory is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextNeed {
    /// Tokens that it will hold.
    pub ctx_tokens: usize,
    /// Tokens that it will be given at once.
    pub chunk_tokens: usize,
}

impl LoadOptions {
    /// These options with the model's bytes living there.
    #[must_use]
    pub fn mode(mut self, mode: LoadMode) -> LoadOptions {
        self.mode = mode;
        self
    }

    /// These options with a runtime that other models use too.
    #[must_use]
    pub fn runtime(mut self, runtime: impl Into<Option<Arc<Runtime>>>) -> LoadOptions {
        self.runtime = runtime.into();
        self
    }

    /// These options with so many worker threads.
    #[must_use]
    pub fn threads(mut self, threads: impl Into<Option<usize>>) -> LoadOptions {
        self.threads = threads.into();
        self
    }

    /// These options with the kernels of this instruction set.
    #[must_use]
    pub fn isa(mut self, isa: impl Into<Option<Isa>>) -> LoadOptions {
        self.isa = isa.into();
        self
    }

    /// These options for exact arithmetic, or for fast one.
    #[must_use]
    pub fn exact(mut self, exact: bool) -> LoadOptions {
        self.exact = exact;
        self
    }

    /// These options with so much memory for a mapped model.
    #[must_use]
    pub fn ram_budget(mut self, ram_budget: RamBudget) -> LoadOptions {
        self.ram_budget = ram_budget;
        self
    }

    /// These options with memory planned for a context of so many tokens.
    #[must_use]
    pub fn ctx_tokens(mut self, ctx_tokens: impl Into<Option<usize>>) -> LoadOptions {
        self.ctx_tokens = ctx_tokens.into();
        self
    }

    /// These options with memory planned for so many tokens computed together.
    #[must_use]
    pub fn chunk_tokens(mut self, chunk_tokens: impl Into<Option<usize>>) -> LoadOptions {
        self.chunk_tokens = chunk_tokens.into();
        self
    }

    /// These options with memory planned for keys and values in this type.
    #[must_use]
    pub fn cache_type(mut self, cache_type: impl Into<Option<CacheType>>) -> LoadOptions {
        self.cache_type = cache_type.into();
        self
    }

    /// These options with so much of the weights locked in memory.
    #[must_use]
    pub fn lock(mut self, lock: Lock) -> LoadOptions {
        self.lock = lock;
        self
    }

    /// These options with so many layers on a GPU.
    #[must_use]
    pub fn gpu_layers(mut self, gpu_layers: GpuLayers) -> LoadOptions {
        self.gpu_layers = gpu_layers;
        self
    }

    /// These options with this GPU: its index or a part of its name.
    #[must_use]
    pub fn gpu_device(mut self, gpu_device: impl Into<String>) -> LoadOptions {
        self.gpu_device = Some(gpu_device.into());
        self
    }

    /// These options with these limits of the GPU.
    #[must_use]
    pub fn gpu_limits(mut self, gpu_limits: GpuLimits) -> LoadOptions {
        self.gpu_limits = gpu_limits;
        self
    }

    /// These options with this reader of what streams.
    #[must_use]
    pub fn stream_reader(mut self, stream_reader: StreamReader) -> LoadOptions {
        self.stream_reader = stream_reader;
        self
    }

    /// The runtime that was given, or one of its own.
    ///
    /// # Errors
    /// As [`Runtime::new`], or options of a runtime beside one that is there.
    pub(crate) fn runtime_or_own(&self) -> Result<Arc<Runtime>> {
        match &self.runtime {
            Some(_) if self.threads.is_some() || self.isa.is_some() => Err(Error::InvalidOption {
                option: "threads or isa",
                seen: "set beside a runtime".into(),
                wanted: "those of the runtime that was given".into(),
            }),
            Some(runtime) => Ok(Arc::clone(runtime)),
            None => Runtime::new(&RuntimeOptions { threads: self.threads, isa: self.isa, ..RuntimeOptions::default() }),
        }
    }

    /// These options for a session that needs no more than that, and gets no more than they allow;
    /// without a length that was asked for that is the one the model was trained for.
    pub(crate) fn needing(&self, need: ContextNeed, ctx_train: usize) -> LoadOptions {
        let ctx_tokens = need.ctx_tokens.min(self.ctx_tokens.unwrap_or(ctx_train));
        LoadOptions { ctx_tokens: Some(ctx_tokens), chunk_tokens: Some(need.chunk_tokens), ..self.clone() }
    }
}

/// What loading did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoadStats {
    /// From the call until the model was ready for a prompt.
    pub load_time: Duration,
    /// Whatever a user should know, one sentence each.
    pub warnings: Vec<String>,
    /// What was locked in memory, if that was asked for.
    pub locked: Option<LockStats>,
}
