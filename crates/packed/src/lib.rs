//! A program and a model in one executable file.
//!
//! ```text
//! program        the executable's bytes, unchanged
//! padding        zeros
//! front mark     64 bytes that end at the next multiple of 64 KiB: a model follows
//! part           the model's file, byte for byte; of a split model several, each at a multiple of 64 KiB
//! manifest       JSON: length and SHA-256 of the program, of each part and of its GGUF header; default flags
//! end mark       64 bytes: length of the manifest, SHA-256 over manifest and mark
//! ```
//!
//! 64 KiB is a multiple of every system's page and of Windows's granularity of mappings, so that
//! each part can be mapped out of the file where it lies. The end mark and the manifest are checked
//! before anything is used; both together are some hundred bytes, whatever the size of the model.
//! The front mark tells a program whose end was cut off from one without a model. Nothing in the
//! file is trusted: each number is checked against the file's length and the layout above, which
//! leaves none of them free.
//!
//! - [`Packed::find`] looks for a model in a file; [`Packed::check`] hashes all of it.
//! - [`Plan::write`] makes such a file, [`Packed::unpack`] gives the model's files back.
#![forbid(unsafe_code)]

mod copy;
mod error;
mod manifest;
mod mark;
mod packed;
mod unfinished;
mod write;

pub use copy::Progress;
pub use error::PackedError;
pub use manifest::{Manifest, Part, Program, sha256_hex};
pub use packed::Packed;
pub use write::{Plan, Source, unpack_names};
