//! What a KV cache is made of.

/// What keys and values are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheType {
    /// 16-bit integers with a scale in f32 for each head's key or value: as exact as half precision
    /// on the models that were measured, and multiplied as they are. Heads have at most
    /// [`MAX_I16_HEAD`] elements.
    I16,
    /// Half precision.
    F16,
    /// Blocks of 32 8-bit integers with a scale in half precision, as GGUF's Q8_0: 8.5 bits an
    /// element. Heads have a multiple of 32 elements.
    Q8,
    /// As computed: for exact runs.
    F32,
}

/// Elements of the longest head in [`CacheType::I16`].
pub const MAX_I16_HEAD: usize = 512;
/// Bytes of a head's scale in [`CacheType::I16`].
const I16_SCALE_BYTES: usize = 4;
/// Elements of a block of [`CacheType::Q8`].
pub const Q8_BLOCK_LEN: usize = 32;
/// Bytes of a block of [`CacheType::Q8`]: the scale in half precision, then 32 i8.
pub const Q8_BLOCK_BYTES: usize = 34;

impl CacheType {
    /// Its name, which is GGUF's where GGUF has it.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::I16 => "i16",
            CacheType::F16 => "f16",
            CacheType::Q8 => "q8_0",
            CacheType::F32 => "f32",
        }
    }

    /// Bytes of one head's key or value in main memory, a scale apart included; `None` if such a
    /// head cannot be stored.
    #[inline]
    pub fn row_bytes(self, head_dim: usize) -> Option<usize> {
        match self {
            CacheType::I16 => (head_dim <= MAX_I16_HEAD).then_some(2 * head_dim + I16_SCALE_BYTES),
            CacheType::F16 => head_dim.checked_mul(2),
            CacheType::Q8 if head_dim.is_multiple_of(Q8_BLOCK_LEN) => {
                (head_dim / Q8_BLOCK_LEN).checked_mul(Q8_BLOCK_BYTES)
            }
            CacheType::Q8 => None,
            CacheType::F32 => head_dim.checked_mul(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CacheType;

    #[test]
    fn rows_have_the_bytes_of_their_elements_and_scales() {
        let cases = [
            (CacheType::I16, 64, Some(132)),
            (CacheType::I16, 512, Some(1028)),
            (CacheType::I16, 513, None),
            (CacheType::F16, 80, Some(160)),
            (CacheType::Q8, 0, Some(0)),
            (CacheType::Q8, 64, Some(68)),
            (CacheType::Q8, 80, None),
            (CacheType::F32, 80, Some(320)),
            (CacheType::F16, usize::MAX, None),
            (CacheType::Q8, usize::MAX - 31, None),
            (CacheType::F32, usize::MAX, None),
        ];
        for (ty, head_dim, want) in cases {
            assert_eq!(ty.row_bytes(head_dim), want, "{} of {head_dim}", ty.name());
        }
    }
}
