//! Quantised matrix products and vector maths, for each instruction set that a CPU may have.
//!
//! Weights are read where the model file holds them: a [`MatRef`] is a checked view of a tensor's
//! bytes, and no kernel wants them in another order. Activations are quantised once per distinct
//! input into one format that serves every weight type ([`ActLayout`]), so that projections of the
//! same input share the work even if their types differ.
//!
//! - [`Kernels`] is a table of functions for one [`Isa`]. Only [`Kernels::all`], [`Kernels::best`]
//!   and [`Kernels::by_isa`] hand one out, so holding one proves that this CPU can run it.
//! - `scalar` defines every format; the other tables are tested against it.
//! - `vector` is the f32 side: norms, rotary embedding, gated activations, attention.
//!
//! Nothing here starts threads, allocates or logs. Bad *data* (any bytes in a weight block, NaN
//! activations) gives bad numbers, never a panic; mismatched *shapes* are a caller's bug and panic.

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod ahead;
#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "kernels index several arrays of registers by row and column")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "as for AVX2")]
mod avx512;
#[cfg(all(test, any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
mod decoded_law;
mod format;
mod functions;
mod isa;
mod maths;
mod matrix;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
#[allow(clippy::needless_range_loop, reason = "as for AVX2")]
mod neon;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod panel;
mod scalar;
mod table;
mod vector;

/// Raised whenever a kernel gives other bits than before, or those who use kernels add things up in
/// another order: what was computed then is not gone on with now.
pub const BITS_VERSION: u32 = 3;

pub use isa::Isa;
pub use matrix::{ACT_BLOCK, ActKind, ActLayout, Acts, MatRef, Output, Strided};
pub use table::Kernels;
pub use vector::{AttnInput, AttnPart, AttnState, KvElement, Line};
