//! What the graphics library calls experimental: matrix units. All that is unsafe in this crate.
#![allow(unsafe_code)]

/// Leave to use matrix units.
pub(crate) fn leave() -> wgpu::ExperimentalFeatures {
    // SAFETY: what is asked for is to know that the library's code for such features may have bugs.
    // It is used for the one kernel of `gemm_matrix.wgsl`, which the library checks like any other;
    // whatever it computes is compared with plain arithmetic before it is used.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
