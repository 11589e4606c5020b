//! Run GGUF language models straight from a memory map.
//!
//! The model file is the in-memory format: nothing is repacked or copied at load, so a [`Model`] is
//! ready in milliseconds and its bytes are shared with every other process that maps the file.
//!
//! - [`Model::load`] opens a file in one of three [`LoadMode`]s. A model never changes; any number
//!   of sessions share it.
//! - [`Session`] is a context: [`eval`](Session::eval) appends tokens and gives the logits of what
//!   follows.
//! - [`Engine`] holds many contexts and computes them together; a session is one with a single
//!   context.
//! - [`Sampler`] chooses a token from logits; [`generate`] turns a prompt into text, piece by
//!   piece.
//! - [`Chat`] keeps a conversation in one session, through the model's own template.
//! - [`text`], [`gguf`] and [`storage`] are the layers below: tokenizers and templates, the file
//!   format, where bytes live.
//!
//! ```no_run
//! use std::ops::ControlFlow::Continue;
//! use modelembed::{Chat, GenerateOptions, LoadOptions, Model, Sampler, Session, SessionOptions, text};
//!
//! let model = Model::load("model.gguf".as_ref(), &LoadOptions::default(), &mut |_| Continue(()))?;
//! let template = text::chat::for_model(model.gguf(), model.tokenizer(), None)?.template;
//! let session = Session::new(&model, SessionOptions { ctx_tokens: Some(2048), ..Default::default() })?;
//! let mut chat = Chat::new(session, Sampler::default(), template, GenerateOptions::default());
//! let turn = chat.send("What is the capital of France?", |piece| {
//!     print!("{piece}");
//!     Continue(())
//! })?;
//! println!("\n{:.1} tokens/s", turn.stats.decode_tokens_per_second());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A mapped file that is truncated by another program raises SIGBUS when its lost pages are read,
//! which ends the process. [`LoadMode::Buffer`] avoids that at the price of a private copy.
#![forbid(unsafe_code)]

mod cpu;
mod error;
mod gpu;
mod load;
mod residency;
mod run;
mod state;

pub use error::{Error, Result};
pub use gpu::{GpuAdapter, GpuError, GpuLayers, GpuLimits, GpuPlacement, gpu_adapters};
pub use load::files::ModelFiles;
pub use load::locking::{Lock, LockStats};
pub use load::model::Model;
pub use load::options::{ContextNeed, LoadOptions, LoadStats};
pub use modelembed_gguf as gguf;
#[cfg(feature = "gpu")]
pub use modelembed_gpu::Error as GpuDeviceError;
pub use modelembed_kernels::{Isa, Kernels};
pub use modelembed_packed as packed;
pub use modelembed_pool::available_threads;
pub use modelembed_spec as spec;
pub use modelembed_spec::Pooling;
pub use modelembed_storage as storage;
pub use modelembed_storage::LoadMode;
pub use modelembed_terms::{Activation, CacheType, RopeStyle};
pub use modelembed_text as text;
pub use modelembed_text::TokenId;
pub use residency::bandwidth::ReadBandwidth;
pub use residency::devices::{DevicePlan, DeviceShare};
pub use residency::forecast::Forecast;
pub use residency::plan::{Plan, PlanInput, RamBudget, Verdict};
pub use run::chat::{Chat, Turn};
pub use run::engine::{Engine, EngineOptions, Row, Run, SequenceId, Wants};
pub use run::generate::{GenerateOptions, GenerateStats, StopReason, generate};
pub use run::progress::EvalProgress;
pub use run::runtime::{Runtime, RuntimeOptions};
pub use run::sampler::{
    Candidate, Dry, DryBreakers, InvalidDryBreaker, InvalidSamplerOption, InvalidSamplerOrder, Mirostat,
    MirostatVersion, Sampler, SamplerOptions, SamplerOrder, SamplerStep, Xtc,
};
pub use run::saved::{Restored, SavedError};
pub use run::session::{Session, SessionOptions};
pub use run::timing::{PhaseTiming, Stage, StageTime, Timing};
pub use state::pages::SealedPage;
