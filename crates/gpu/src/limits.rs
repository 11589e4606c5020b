//! What steps must be fitted to on a device.

use modelembed_gguf::TensorType;

use crate::kernels::{MatrixUnits, supports_half, supports_int8};

/// What steps are fitted to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a buffer that a kernel may see at a time.
    pub max_binding_bytes: u64,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
    /// What the first byte of a binding must be a multiple of.
    pub offset_alignment: u64,
    /// Kernels may sum over subgroups.
    pub subgroups: bool,
    /// Products with 8-bit integers pay, and are right.
    pub int8: bool,
    /// Products of halves are right.
    pub f16: bool,
    /// Products by matrix units are right; how they are used.
    pub matrix: Option<MatrixUnits>,
    /// Threads that share a row of a matrix-vector product without subgroups.
    pub lanes: u32,
}

impl Limits {
    /// Whether columns of many that meet `ty` weights of `k` elements a row are best
    /// [halves](crate::Operand::Half).
    pub fn prefers_half(&self, ty: TensorType, k: usize) -> bool {
        let has_int8 = self.int8 && supports_int8(ty);
        supports_half(ty) && k.is_multiple_of(32) && (self.matrix.is_some() || self.f16 && !has_int8)
    }
}
