//! Run GGUF language models straight from a memory map.
//!
//! The model file is the in-memory format: nothing is repacked or copied at load, so a [`Model`] is
//! ready in milliseconds and its bytes are shared with every other process that maps the file.
//!
//! ```no_run
//! let model = modelembed::Model::open("model.gguf")?;
//! let mut session = model.session(Default::default())?;
//! for piece in session.generate("Once upon a time", Default::default())? {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), modelembed::Error>(())
//! ```
//!
//! - A [`Model`] is opened in one of three [`LoadMode`]s. It never changes; any number of threads
//!   and sessions share it.
//! - A [`Session`] is a context of tokens: [`generate`](Session::generate) turns a prompt into
//!   text, piece by piece, [`eval`](Session::eval) appends tokens and gives the logits of what
//!   follows. It can go back, and be [saved](Session::save).
//! - A [`Chat`] keeps a conversation in a session, through the model's own template.
//! - An [`Engine`] holds many contexts and computes them together; they can [fork](Engine::fork).
//! - A [`Sampler`] chooses a token from logits, and so can a function of one's own:
//!   [`ChooseToken`].
//! - A [`Runtime`] is what computes: models can share one.
//!
//! Options have defaults and setters; errors are variants with fields.
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

// A model: opened, and what is known of it.
pub use load::files::ModelFiles;
pub use load::model::Model;
pub use load::options::{ContextNeed, LoadOptions, LoadStats};
pub use modelembed_gguf::{Gguf, TensorInfo, TensorType, Value};
pub use modelembed_spec::{ModelSpec, Program};
pub use modelembed_storage::{LoadMode, Progress as LoadProgress, Storage};

// Text from it.
pub use run::generate::{
    ChooseToken, GenerateOptions, GenerateStats, Generation, Piece, Prompt, StopGate, StopReason, generate,
};
pub use run::progress::EvalProgress;
pub use run::saved::Restored;
pub use run::session::{Session, SessionOptions};

// Tokens: from text, back, and which comes next.
pub use modelembed_text::{Detokenizer, EncodeOptions, TokenId, Tokenizer};
pub use run::sampler::{
    Candidate, Dry, DryBreakers, Mirostat, MirostatVersion, Sampler, SamplerOptions, SamplerOrder, SamplerStep, Xtc,
    log_sum_exp,
};

// Chats and their templates.
pub use modelembed_text::chat::{
    ChatTemplate, Message, Selection as TemplateSelection, Source as TemplateSource, SpecialTokens,
    Wanted as TemplateWanted,
};
pub use run::chat::{Answer, Chat, Turn};

// Many contexts at once.
pub use modelembed_spec::Pooling;
pub use run::engine::{Engine, EngineOptions, Row, Run, SequenceId, Wants};
pub use state::pages::{PageUse, SealedPage};

// What computes, and in which memory.
pub use load::locking::{Lock, LockStats};
pub use modelembed_kernels::{Isa, Kernels};
pub use modelembed_pool::available_threads;
pub use modelembed_storage::{SlotStats, StreamReader, StreamStats};
pub use modelembed_terms::CacheType;
pub use residency::bandwidth::ReadBandwidth;
pub use residency::devices::{DevicePlan, DeviceShare};
pub use residency::forecast::Forecast;
pub use residency::plan::{ExpertSizes, HIT_RATES, Plan, PlanInput, RamBudget, Verdict};
pub use run::runtime::{Runtime, RuntimeOptions};
pub use run::timing::{PhaseTiming, Stage, StageTime, Timing};

// Layers on a GPU.
#[cfg(feature = "faults")]
#[doc(hidden)]
pub use gpu::GpuFaults;
pub use gpu::{GpuAdapter, GpuLayers, GpuLimits, GpuPlacement, gpu_adapters};

// What can go wrong.
pub use error::{Error, PageError, Result};
pub use gpu::GpuError;
pub use modelembed_gguf::Error as GgufError;
#[cfg(feature = "gpu")]
pub use modelembed_gpu::Error as GpuDeviceError;
pub use modelembed_packed::PackedError;
pub use modelembed_spec::Error as SpecError;
pub use modelembed_storage::StorageError;
pub use modelembed_text::TextError;
pub use modelembed_text::chat::TemplateError;
pub use run::sampler::{InvalidDryBreaker, InvalidSamplerOption, InvalidSamplerOrder};
pub use run::saved::SavedError;

/// The code in the project's documents, compiled.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../docs/library.md")]
    struct Library;

    #[doc = include_str!("../../../README.md")]
    struct Readme;
}
