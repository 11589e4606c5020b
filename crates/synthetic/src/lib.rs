//! Models of a named shape with random valid weights: what speed depends on, without a download.
//!
//! [`Synthetic::new`] plans the file of a spec such as `llama-1.1b:q4_k_m`: the tensors of a
//! [`Shape`] in the types that llama.cpp's quantiser gives them ([`Mix`]), with the vocabulary of
//! another file. [`Synthetic::write`] streams it. The same spec and vocabulary give the same bytes
//! everywhere. Activations of such a model neither grow without bound nor vanish, but it says
//! nothing.
//!
//! [`wanted_tensors`] lists the tensors that metadata implies, [`random_rows`], [`random_tensor`]
//! and [`Rng`] make their values; tests use them too.
#![forbid(unsafe_code)]

mod blocks;
mod mix;
mod rng;
mod shape;
mod vocab;
mod wanted;
mod write;

pub use blocks::random_tensor;
pub use mix::{MIXES, Mix};
pub use rng::Rng;
pub use shape::{Key, SHAPES, Shape};
pub use wanted::{random_rows, wanted_tensors};
pub use write::{CLUSTER, Synthetic};

/// Why a synthetic model cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not `SHAPE:FORMAT` with names that are known.
    #[error(
        "\"{seen}\" names no synthetic model, wanted SHAPE:FORMAT with a shape of {shapes} and a format of {formats}"
    )]
    Spec {
        /// What was given.
        seen: String,
        /// Names of the shapes.
        shapes: String,
        /// Names of the formats.
        formats: String,
    },
    /// More layers than the shape has, or none.
    #[error("{layers} layers are asked for, and {shape} has 1 to {most}")]
    Layers {
        /// The shape.
        shape: &'static str,
        /// What was asked for.
        layers: usize,
        /// All of its layers.
        most: usize,
    },
    /// The other file's vocabulary does not fit.
    #[error("the vocabulary does not fit: {0}")]
    Vocabulary(String),
    /// A file's metadata cannot be read.
    #[error(transparent)]
    Gguf(#[from] modelembed_gguf::Error),
    /// Metadata describes no model that is known.
    #[error(transparent)]
    Model(#[from] modelembed_spec::Error),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
