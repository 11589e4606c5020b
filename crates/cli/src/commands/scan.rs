//! Looks for infinities and NaNs among the scales of quantised blocks and among float weights.

use modelembed_gguf::{TensorInfo, TensorType};
use std::ops::Range;

/// What a type's blocks are searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// f16 at these offsets of each block.
    F16(&'static [usize]),
    /// One f32 a block.
    F32,
    /// One bf16 a block.
    Bf16,
    /// The upper four bits of four u16 from this byte on, the lowest bits first.
    F16InFourths(usize),
    /// A byte of exponent that begins the block: the largest is NaN, says the format of OCP.
    Exponent,
    /// Scales are finite whatever their bits.
    Nothing,
}

fn search(ty: TensorType) -> Option<Search> {
    match ty {
        TensorType::F32 => Some(Search::F32),
        TensorType::BF16 => Some(Search::Bf16),
        TensorType::IQ1_M => Some(Search::F16InFourths(48)),
        TensorType::MXFP4 => Some(Search::Exponent),
        TensorType::NVFP4 => Some(Search::Nothing),
        _ => ty.f16_fields().map(Search::F16),
    }
}

/// Whether [`bad_block`] knows where a type's scales are.
pub fn can_scan(ty: TensorType) -> bool {
    search(ty).is_some()
}

/// The blocks of a tensor that begin within a range of its file's bytes, as bytes of the file:
/// whole blocks, so the last may reach beyond the range. Empty where none begins there.
pub fn blocks_within(tensor: &TensorInfo, range: &Range<u64>) -> Range<u64> {
    let block = tensor.ty.block_bytes() as u64;
    let end = tensor.offset + tensor.n_bytes;
    let begin = |at: u64| match at.checked_sub(tensor.offset) {
        None => tensor.offset,
        Some(past) => tensor.offset.saturating_add(past.next_multiple_of(block)).min(end),
    };
    begin(range.start)..begin(range.end)
}

/// The first of some whole blocks that holds an infinity or a NaN where a number must be.
pub fn bad_block(ty: TensorType, blocks: &[u8]) -> Option<usize> {
    let u16_at = |block: &[u8], at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let is_bad = |block: &[u8]| match search(ty) {
        None | Some(Search::Nothing) => false,
        Some(Search::F32) => !f32::from_le_bytes([block[0], block[1], block[2], block[3]]).is_finite(),
        // All bits of the exponent are set: 5 of a f16's, 8 of a bf16's.
        Some(Search::F16(fields)) => fields.iter().any(|&at| u16_at(block, at) & 0x7c00 == 0x7c00),
        Some(Search::Bf16) => u16_at(block, 0) & 0x7f80 == 0x7f80,
        // The exponent is in the upper two of the third and three of the fourth's lower bits.
        Some(Search::F16InFourths(at)) => block[at + 7] & 0x70 == 0x70 && block[at + 5] & 0xc0 == 0xc0,
        Some(Search::Exponent) => block[0] == 0xff,
    };
    blocks.chunks_exact(ty.block_bytes()).position(is_bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelembed_kernels::{Kernels, MatRef};

    /// The bytes of a block that make what it stands for infinite or NaN are those that are
    /// searched: found out by asking the kernels.
    #[test]
    fn the_fields_are_those_that_spoil_a_block() {
        let kernels = Kernels::best();
        let is_finite = |ty: TensorType, block: &[u8]| {
            let mut out = vec![0.0f32; ty.block_len()];
            kernels.dequantize_row(MatRef::new(ty, block, 1, ty.block_len()).unwrap(), 0, &mut out);
            out.iter().all(|x| x.is_finite())
        };
        let types: Vec<_> = TensorType::all().filter(|&ty| Kernels::supports(ty)).collect();
        assert!(types.len() >= 13);
        for ty in types {
            assert!(can_scan(ty), "{ty}");
            let size = ty.block_bytes();
            // NaN as an f16, a bf16 and an f32, at every even place of a block of small numbers.
            let pattern: &[u8] = if ty == TensorType::F32 { &[0, 0, 0xc0, 0x7f] } else { &[0xff, 0x7f] };
            for at in (0..=size - pattern.len()).step_by(2) {
                let mut block = vec![0x11u8; size];
                block[at..at + pattern.len()].copy_from_slice(pattern);
                assert_eq!(bad_block(ty, &block).is_none(), is_finite(ty, &block), "{ty} at {at}");
            }
        }
    }

    #[test]
    fn the_first_bad_block_is_named() {
        let mut blocks = vec![0u8; 34 * 5];
        assert_eq!(bad_block(TensorType::Q8_0, &blocks), None);
        blocks[34 * 3 + 1] = 0x7c; // infinity
        assert_eq!(bad_block(TensorType::Q8_0, &blocks), Some(3));
    }

    #[test]
    fn each_block_belongs_to_the_range_it_begins_in() {
        let tensor = |offset: u64, n_blocks: u64| TensorInfo {
            name: "t".into(),
            ty: TensorType::Q8_0,
            dims: vec![32 * n_blocks],
            offset,
            n_bytes: 34 * n_blocks,
            shard: 0,
        };
        let t = tensor(100, 4); // blocks at 100, 134, 168, 202; ends at 236
        let rows = [
            (0..100, 100..100),
            (0..101, 100..134),
            (101..134, 134..134),
            (134..200, 134..202),
            (200..999, 202..236),
            (300..999, 236..236),
        ];
        for (range, wanted) in rows {
            assert_eq!(blocks_within(&t, &range), wanted, "{range:?}");
        }
    }
}
