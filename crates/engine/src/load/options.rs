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
    /// The runtime that was given, or one of its own.
    ///
    /// # Errors
    /// As [`Runtime::new`], or options of a runtime beside one that is there.
    pub(crate) fn runtime(&self) -> Result<Arc<Runtime>> {
        match &self.runtime {
            Some(_) if self.threads.is_some() || self.isa.is_some() => {
                let problem = "threads and instruction set are those of the runtime that was given";
                Err(Error::InvalidOption(problem.into()))
            }
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
pub struct LoadStats {
    /// From the call until the model was ready for a prompt.
    pub load_time: Duration,
    /// Whatever a user should know, one sentence each.
    pub warnings: Vec<String>,
    /// What was locked in memory, if that was asked for.
    pub locked: Option<LockStats>,
}
