//! Rotary embeddings.

use modelembed_terms::RopeStyle;

/// A rotary position embedding (Su et al. 2021, arXiv 2104.09864).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Which elements form a pair.
    pub style: RopeStyle,
    /// Elements of a head that are rotated; even.
    pub n_rot: usize,
    /// Base of the angles.
    pub base: f32,
    /// Scaling for long contexts.
    pub scaling: RopeScaling,
    /// Factor on cosines and sines.
    pub magnitude: f32,
    /// Which divisors of the angles the file may hold.
    pub factors: RopeFactors,
    /// Elements of the head before the rotated ones.
    pub first: usize,
    /// Which pairs turn with which of a position's numbers; `None` where a position is one number.
    pub sections: Option<RopeSections>,
}

/// Pairs that turn with different numbers of a position: in time, height, width, and another one.
/// For text the first three are equal and the last is 0, so pairs of the last do not turn (M-RoPE:
/// Qwen2-VL 2024, arXiv 2409.12191).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RopeSections {
    /// Pairs that turn with each.
    pub pairs: [usize; 4],
    /// Whether pairs alternate between the first three, as long as each has some left; else one
    /// follows the other.
    pub is_interleaved: bool,
}

impl RopeSections {
    /// Whether a pair turns with the position of a text.
    pub fn turns(&self, pair: usize) -> bool {
        let [time, height, width, other] = self.pairs;
        let n = time + height + width + other;
        let pair = if n == 0 { pair } else { pair % n };
        match (self.is_interleaved, pair % 3) {
            (true, 0) => pair < 3 * time,
            (true, 1) => pair < 3 * height,
            (true, _) => pair < 3 * width,
            (false, _) => pair < time + height + width,
        }
    }
}

/// How angles shrink for contexts longer than the one trained first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Positions as they are.
    None,
    /// Positions divided by the factor.
    Linear {
        /// How many times the context grew.
        factor: f32,
    },
    /// Fast dimensions keep their angles, slow ones are interpolated, those between are mixed
    /// (YaRN: Peng et al. 2023, arXiv 2309.00071).
    Yarn {
        /// How many times the context grew.
        factor: f32,
        /// Context of the first training, in tokens.
        original_ctx_tokens: u32,
        /// Rotations in the original context above which a dimension is kept.
        beta_fast: f32,
        /// Rotations in the original context below which a dimension is interpolated.
        beta_slow: f32,
    },
}

/// Divisors of the angles, one a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeFactors {
    /// None.
    None,
    /// Those of `rope_freqs.weight`, if it is there.
    Fixed,
    /// The same, but the tensor has so many, of which the first are for the pairs.
    FirstOf(usize),
    /// `rope_factors_long.weight` for contexts above the original length, else
    /// `rope_factors_short.weight` (LongRoPE: Ding et al. 2024, arXiv 2402.13753).
    LongOrShort {
        /// Context of the first training, in tokens.
        original_ctx_tokens: usize,
    },
}

/// Index of a [`RopeSpec`] in its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RopeId(pub u8);
