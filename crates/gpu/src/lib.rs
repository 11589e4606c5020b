//! Tensors and kernels on a GPU, behind a small interface.
//!
//! - [`Backend`] is what an engine needs: buffers, uploads, and lists of steps ([`Op`]) that run in
//!   order. Ops are plain data; no type of the graphics library leaves this crate.
//! - [`Gpu`] is the backend over Vulkan, Metal and Direct3D 12. [`adapters`] lists what there is,
//!   [`Gpu::open`] chooses.
//! - `wgsl/` holds the kernels. They read weight blocks as the model file holds them.
//!
//! Whatever goes wrong on a device, a lost one or memory that it does not have included, is an
//! [`Error`].
#![deny(unsafe_code)]

mod adapter;
mod adapter_info;
mod backend;
mod cache;
mod clock;
mod device;
mod encode;
mod error;
mod experimental;
mod kernels;
mod limits;
mod lock;
mod poll;
mod self_test;
mod upload;

pub use adapter::{Choice, adapters};
pub use adapter_info::{AdapterInfo, AdapterKind};
pub use backend::{
    Backend, Columns, KvCache, Op, Operand, TOP_K, Vectors, WIDE_COLS, Weight, half_words, int8_words, top_k_temp_bytes,
};
pub use cache::cache_row_bytes;
pub use device::{Buffer, Gpu, GpuOptions};
pub use error::{Error, Result};
pub use kernels::{MatrixUnits, Source, all_sources, supports, supports_half, supports_int8};
pub use limits::Limits;
