//! f32 vector maths: the second section of each table.
//!
//! Every algorithm stands once, over [`lanes::Lanes`]; the `functions!` macro compiles all of them
//! for one instruction set.

mod attend;
mod attend_int;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod columns;
mod elementwise;
mod exp;
mod fns;
pub(crate) mod half;
mod input;
mod kv;
mod lanes;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
mod reduce;
mod rows;
mod scalar;
#[cfg(test)]
mod tests;

pub use fns::KvElement;
pub(crate) use fns::VectorFns;
pub use input::{AttnInput, AttnPart, AttnState, Line};

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::VECTOR as AVX2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::VECTOR as AVX512;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub(crate) use neon::{VECTOR as NEON, f16x4_to_f32};
pub(crate) use scalar::VECTOR as SCALAR;
