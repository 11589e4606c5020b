//! How keys and values lie on a device.

use modelembed_terms::CacheType;

/// Bytes of one head's key or value on a device, a multiple of 4; `None` if such a head cannot be
/// stored. Integers of 16 bits, which the CPU's kernels alone multiply, are kept as halves. Of a
/// head in Q8_0 blocks first come all integers, then all scales.
pub fn cache_row_bytes(ty: CacheType, head_dim: usize) -> Option<u64> {
    let bytes = match ty {
        CacheType::I16 | CacheType::F16 if head_dim.is_multiple_of(2) => head_dim.checked_mul(2)?,
        CacheType::Q8 if head_dim.is_multiple_of(32) => head_dim.checked_add((head_dim / 32).div_ceil(2) * 4)?,
        CacheType::F32 if head_dim.is_multiple_of(2) => head_dim.checked_mul(4)?,
        _ => return None,
    };
    (bytes > 0).then_some(bytes as u64)
}

/// Pairs of a head's elements that one thread writes.
pub(crate) fn unit_pairs(ty: CacheType) -> usize {
    match ty {
        CacheType::I16 | CacheType::F16 | CacheType::F32 => 1,
        CacheType::Q8 => 32,
    }
}

/// The kernels' section for this type.
pub(crate) fn section_name(ty: CacheType) -> &'static str {
    match ty {
        CacheType::I16 | CacheType::F16 => "f16",
        CacheType::Q8 => "q8",
        CacheType::F32 => "f32",
    }
}
