//! The one table of tensor types: id in the file, name, block length and block size.

/// How a tensor's elements are stored.
///
/// A row of `k` elements is `k / block_len` blocks of `block_bytes` bytes, one after the other.
/// Ids, names and sizes are those of the GGUF format (ggml's `ggml_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types, missing_docs, reason = "the names are the format's own")]
pub enum TensorType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    I8,
    I16,
    I32,
    I64,
    F64,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
}

struct Row {
    ty: TensorType,
    id: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
}

const fn row(ty: TensorType, id: u32, name: &'static str, block_len: usize, block_bytes: usize) -> Row {
    Row { ty, id, name, block_len, block_bytes }
}

/// In the order of [`TensorType`]'s variants, so that a variant indexes its row.
const TABLE: [Row; 35] = [
    row(TensorType::F32, 0, "F32", 1, 4),
    row(TensorType::F16, 1, "F16", 1, 2),
    row(TensorType::Q4_0, 2, "Q4_0", 32, 18),
    row(TensorType::Q4_1, 3, "Q4_1", 32, 20),
    row(TensorType::Q5_0, 6, "Q5_0", 32, 22),
    row(TensorType::Q5_1, 7, "Q5_1", 32, 24),
    row(TensorType::Q8_0, 8, "Q8_0", 32, 34),
    row(TensorType::Q8_1, 9, "Q8_1", 32, 36),
    row(TensorType::Q2_K, 10, "Q2_K", 256, 84),
    row(TensorType::Q3_K, 11, "Q3_K", 256, 110),
    row(TensorType::Q4_K, 12, "Q4_K", 256, 144),
    row(TensorType::Q5_K, 13, "Q5_K", 256, 176),
    row(TensorType::Q6_K, 14, "Q6_K", 256, 210),
    row(TensorType::Q8_K, 15, "Q8_K", 256, 292),
    row(TensorType::IQ2_XXS, 16, "IQ2_XXS", 256, 66),
    row(TensorType::IQ2_XS, 17, "IQ2_XS", 256, 74),
    row(TensorType::IQ3_XXS, 18, "IQ3_XXS", 256, 98),
    row(TensorType::IQ1_S, 19, "IQ1_S", 256, 50),
    row(TensorType::IQ4_NL, 20, "IQ4_NL", 32, 18),
    row(TensorType::IQ3_S, 21, "IQ3_S", 256, 110),
    row(TensorType::IQ2_S, 22, "IQ2_S", 256, 82),
    row(TensorType::IQ4_XS, 23, "IQ4_XS", 256, 136),
    row(TensorType::I8, 24, "I8", 1, 1),
    row(TensorType::I16, 25, "I16", 1, 2),
    row(TensorType::I32, 26, "I32", 1, 4),
    row(TensorType::I64, 27, "I64", 1, 8),
    row(TensorType::F64, 28, "F64", 1, 8),
    row(TensorType::IQ1_M, 29, "IQ1_M", 256, 56),
    row(TensorType::BF16, 30, "BF16", 1, 2),
    row(TensorType::TQ1_0, 34, "TQ1_0", 256, 54),
    row(TensorType::TQ2_0, 35, "TQ2_0", 256, 66),
    row(TensorType::MXFP4, 39, "MXFP4", 32, 17),
    row(TensorType::NVFP4, 40, "NVFP4", 64, 36),
    row(TensorType::Q1_0, 41, "Q1_0", 128, 18),
    row(TensorType::Q2_0, 42, "Q2_0", 64, 18),
];

impl TensorType {
    /// Every type of the format, in the order of their ids.
    pub fn all() -> impl Iterator<Item = TensorType> {
        TABLE.iter().map(|r| r.ty)
    }

    /// The type with this id in a GGUF tensor directory; `None` for ids that are unknown or were
    /// removed.
    pub fn from_id(id: u32) -> Option<TensorType> {
        TABLE.iter().find(|r| r.id == id).map(|r| r.ty)
    }

    /// The name of a type that was once in the format: its files can be read by no current program.
    pub(crate) fn removed_name(id: u32) -> Option<&'static str> {
        Some(match id {
            4 => "Q4_2",
            5 => "Q4_3",
            31 => "Q4_0_4_4",
            32 => "Q4_0_4_8",
            33 => "Q4_0_8_8",
            36 => "IQ4_NL_4_4",
            37 => "IQ4_NL_4_8",
            38 => "IQ4_NL_8_8",
            _ => return None,
        })
    }

    /// The type with this name, in any case.
    pub fn from_name(name: &str) -> Option<TensorType> {
        TABLE.iter().find(|r| r.name.eq_ignore_ascii_case(name)).map(|r| r.ty)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The id in a GGUF tensor directory.
    pub fn id(self) -> u32 {
        self.row().id
    }

    /// The name that GGUF tools print.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Elements in one block.
    pub fn block_len(self) -> usize {
        self.row().block_len
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        self.row().block_bytes
    }

    /// Where the f16 scales and minimums of a block are, in bytes from its start. For F16 that is
    /// the element itself. `None` for types whose scales are not f16, or no f16 in one piece
    /// (IQ1_M), or whose blocks this project does not compute with.
    pub fn f16_fields(self) -> Option<&'static [usize]> {
        Some(match self {
            TensorType::F16 | TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 => &[0],
            TensorType::Q1_0 | TensorType::Q2_0 | TensorType::IQ4_NL | TensorType::IQ4_XS => &[0],
            TensorType::IQ3_S | TensorType::IQ3_XXS | TensorType::IQ1_S => &[0],
            TensorType::IQ2_S | TensorType::IQ2_XS | TensorType::IQ2_XXS => &[0],
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => &[0, 2],
            TensorType::Q2_K => &[80, 82],
            TensorType::Q3_K => &[108],
            TensorType::Q6_K => &[208],
            TensorType::TQ1_0 => &[52],
            TensorType::TQ2_0 => &[64],
            _ => return None,
        })
    }

    /// Bytes of a row of `k` elements; `None` where `k` is not a whole number of blocks or the size
    /// overflows.
    pub fn row_bytes(self, k: usize) -> Option<usize> {
        let blocks = k / self.block_len();
        if k.is_multiple_of(self.block_len()) { blocks.checked_mul(self.block_bytes()) } else { None }
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_variants() {
        for (i, r) in TABLE.iter().enumerate() {
            assert_eq!(r.ty as usize, i, "{}", r.name);
            assert_eq!(TensorType::from_id(r.id), Some(r.ty));
            assert_eq!(TensorType::from_name(&r.name.to_lowercase()), Some(r.ty));
        }
        assert_eq!(TensorType::from_id(4), None, "Q4_2 was removed from the format");
    }

    #[test]
    fn row_bytes_wants_whole_blocks() {
        assert_eq!(TensorType::Q4_K.row_bytes(512), Some(288));
        assert_eq!(TensorType::Q4_K.row_bytes(300), None);
        assert_eq!(TensorType::Q8_K.row_bytes(usize::MAX - 255), None);
    }
}
