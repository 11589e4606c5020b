//! Run GGUF language models straight from a memory map.
#![forbid(unsafe_code)]

mod arch;
mod attention;
mod chat;
mod config;
mod error;
mod files;
mod forward;
mod generate;
mod kv;
mod model;
mod rope;
mod sampler;
mod scratch;
mod session;
mod weights;

pub use arch::{ARCHITECTURES, Activation, Architecture};
pub use chat::{Chat, Turn};
pub use config::{Config, RopeConfig, WindowConfig};
pub use error::{Error, Result};
pub use files::ModelFiles;
pub use generate::{GenerateOptions, GenerateStats, StopReason, generate};
pub use model::{LoadOptions, LoadStats, Model};
pub use modelembed_gguf as gguf;
pub use modelembed_kernels::{Isa, Kernels};
pub use modelembed_storage as storage;
pub use modelembed_storage::LoadMode;
pub use modelembed_text as text;
pub use modelembed_text::TokenId;
pub use rope::RopeScaling;
pub use sampler::{Candidate, InvalidSamplerOption, Sampler, SamplerOptions};
pub use session::{Session, SessionOptions};
