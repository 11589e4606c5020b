//! Rotary position embedding: the angles of a position, with the scalings that models were trained
//! with.
//!
//! RoPE: Su et al. 2021 (arXiv 2104.09864). YaRN: Peng et al. 2023 (arXiv 2309.00071).

use std::f64::consts::PI;

use modelembed_spec::{RopeFactors, RopeScaling, RopeSpec};

/// A rotary embedding of a model: the angles, which may depend on how long the context is.
pub(crate) struct Rope {
    /// For contexts of any length, or up to the one that was trained first.
    table: RopeTable,
    /// Above that length in tokens.
    long: Option<(usize, RopeTable)>,
}

/// Divisors of a rotary embedding's angles, one a pair, out of the file.
#[derive(Default)]
pub(crate) struct Divisors {
    pub(crate) fixed: Option<Vec<f32>>,
    pub(crate) long: Option<Vec<f32>>,
    pub(crate) short: Option<Vec<f32>>,
}

impl Rope {
    pub(crate) fn new(spec: &RopeSpec, divisors: &Divisors) -> Rope {
        let table = |divisors: &Option<Vec<f32>>| RopeTable::new(spec, divisors.as_deref());
        match spec.factors {
            RopeFactors::None | RopeFactors::Fixed | RopeFactors::FirstOf(_) => {
                Rope { table: table(&divisors.fixed), long: None }
            }
            RopeFactors::LongOrShort { original_ctx_tokens } => {
                let long = divisors.long.is_some().then(|| (original_ctx_tokens, table(&divisors.long)));
                Rope { table: table(&divisors.short), long }
            }
        }
    }

    /// Whether a session that holds `ctx_tokens` has the angles of long contexts.
    pub(crate) fn is_long(&self, ctx_tokens: usize) -> bool {
        self.long.as_ref().is_some_and(|(original, _)| ctx_tokens > *original)
    }

    /// The angles of a session that holds `ctx_tokens`.
    pub(crate) fn table(&self, ctx_tokens: usize) -> &RopeTable {
        match &self.long {
            Some((original, long)) if ctx_tokens > *original => long,
            _ => &self.table,
        }
    }
}

/// Angles per position of every rotated pair, and the magnitude that goes with them.
#[derive(Clone, Debug)]
pub(crate) struct RopeTable {
    radians_per_position: Box<[f64]>, // (n_rot / 2)
    magnitude: f32,
}

impl RopeTable {
    /// As the spec says, with the optional per-pair divisors (`rope_freqs.weight` of Llama 3.1,
    /// `n_rot / 2` of them).
    pub(crate) fn new(spec: &RopeSpec, divisors: Option<&[f32]>) -> RopeTable {
        let &RopeSpec { n_rot, base, magnitude, .. } = spec;
        let divisor = |i: usize| divisors.map_or(1.0, |d| f64::from(d[i]));
        let plain = |i: usize| f64::from(base).powf(-2.0 * i as f64 / n_rot as f64) / divisor(i);
        let pairs = 0..n_rot / 2;
        let radians_per_position = match spec.scaling {
            RopeScaling::None => pairs.map(plain).collect(),
            RopeScaling::Linear { factor } => pairs.map(|i| plain(i) / f64::from(factor)).collect(),
            RopeScaling::Yarn { factor, original_ctx_tokens, beta_fast, beta_slow } => {
                let factor = f64::from(factor);
                // The pair that turns `rotations` times within the original context.
                let pair_of = |rotations: f32| {
                    let wavelength = f64::from(original_ctx_tokens) / (f64::from(rotations) * 2.0 * PI);
                    n_rot as f64 * wavelength.ln() / (2.0 * f64::from(base).ln())
                };
                let low = pair_of(beta_fast).floor().max(0.0);
                let high = pair_of(beta_slow).ceil().min(n_rot as f64 - 1.0);
                let angle = |i: usize| {
                    let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    plain(i) * (ramp / factor + (1.0 - ramp))
                };
                pairs.map(angle).collect()
            }
        };
        let mut radians_per_position: Box<[f64]> = radians_per_position;
        if let Some(sections) = &spec.sections {
            let still = radians_per_position.iter_mut().enumerate().filter(|(pair, _)| !sections.turns(*pair));
            still.for_each(|(_, rate)| *rate = 0.0);
        }
        RopeTable { radians_per_position, magnitude }
    }

    /// Pairs that are rotated: half of the rotated elements of a head.
    pub(crate) fn n_pairs(&self) -> usize {
        self.radians_per_position.len()
    }

    /// Writes cosines and sines, scaled by the magnitude, for one position; both slices hold
    /// [`n_pairs`](Self::n_pairs).
    pub(crate) fn fill(&self, position: usize, cos: &mut [f32], sin: &mut [f32]) {
        self.fill_angles(position as f64, f64::from(self.magnitude), cos, sin);
    }

    /// Cosines and sines that move an already rotated key by `delta` positions.
    pub(crate) fn fill_shift(&self, delta: i64, cos: &mut [f32], sin: &mut [f32]) {
        self.fill_angles(delta as f64, 1.0, cos, sin);
    }

    fn fill_angles(&self, positions: f64, magnitude: f64, cos: &mut [f32], sin: &mut [f32]) {
        for ((rate, c), s) in self.radians_per_position.iter().zip(cos).zip(sin) {
            let (sine, cosine) = (positions * rate).sin_cos();
            *c = (cosine * magnitude) as f32;
            *s = (sine * magnitude) as f32;
        }
    }
}

/// Cosines and sines that move rotated keys by some positions, one a pair.
pub(crate) struct Turn {
    pub(crate) cos: Box<[f32]>,
    pub(crate) sin: Box<[f32]>,
}

impl Turn {
    /// By `delta` positions.
    pub(crate) fn new(table: &RopeTable, delta: i64) -> Turn {
        let n = table.n_pairs();
        let mut turn = Turn { cos: vec![0.0; n].into(), sin: vec![0.0; n].into() };
        table.fill_shift(delta, &mut turn.cos, &mut turn.sin);
        turn
    }
}

#[cfg(test)]
mod tests {
    use modelembed_terms::RopeStyle;

    use super::*;

    const YARN: RopeScaling =
        RopeScaling::Yarn { factor: 4.0, original_ctx_tokens: 4096, beta_fast: 32.0, beta_slow: 1.0 };

    fn table(n_rot: usize, scaling: RopeScaling) -> RopeTable {
        RopeTable::new(&spec(n_rot, scaling), None)
    }

    fn spec(n_rot: usize, scaling: RopeScaling) -> RopeSpec {
        RopeSpec {
            style: RopeStyle::Halves,
            n_rot,
            base: 10_000.0,
            scaling,
            magnitude: 1.0,
            factors: RopeFactors::None,
            first: 0,
            sections: None,
        }
    }

    fn angles(table: &RopeTable, position: usize) -> Vec<(f32, f32)> {
        let (mut cos, mut sin) = (vec![0.0; table.n_pairs()], vec![0.0; table.n_pairs()]);
        table.fill(position, &mut cos, &mut sin);
        cos.into_iter().zip(sin).collect()
    }

    #[test]
    fn first_pair_turns_one_radian_a_position() {
        let (cos, sin) = angles(&table(64, RopeScaling::None), 3)[0];
        assert!((cos - 3f32.cos()).abs() < 1e-6 && (sin - 3f32.sin()).abs() < 1e-6);
    }

    #[test]
    fn linear_scaling_divides_positions() {
        let plain = table(64, RopeScaling::None);
        let scaled = table(64, RopeScaling::Linear { factor: 4.0 });
        for (a, b) in angles(&plain, 5).into_iter().zip(angles(&scaled, 20)) {
            assert!((a.0 - b.0).abs() < 1e-6 && (a.1 - b.1).abs() < 1e-6);
        }
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_interpolates_slow_ones() {
        let yarn = table(128, YARN);
        let plain = table(128, RopeScaling::None);
        assert_eq!(yarn.radians_per_position[0], plain.radians_per_position[0]);
        assert!((yarn.radians_per_position[63] * 4.0 / plain.radians_per_position[63] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn every_scaling_has_its_magnitude_in_cosines_and_sines() {
        for scaling in [RopeScaling::None, RopeScaling::Linear { factor: 4.0 }, YARN] {
            let wide = RopeTable::new(&RopeSpec { magnitude: 1.25, ..spec(64, scaling) }, None);
            for (a, b) in angles(&wide, 5).into_iter().zip(angles(&table(64, scaling), 5)) {
                assert!((a.0 - 1.25 * b.0).abs() < 1e-6 && (a.1 - 1.25 * b.1).abs() < 1e-6, "{scaling:?}");
            }
        }
    }

    #[test]
    fn a_shift_undoes_positions() {
        let table = table(2, RopeScaling::None);
        let (mut c, mut s) = ([0.0], [0.0]);
        table.fill_shift(-7, &mut c, &mut s);
        let (c7, s7) = angles(&table, 7)[0];
        assert!((c7 * c[0] - s7 * s[0] - 1.0).abs() < 1e-6, "cos(7 - 7) is 1");
    }
}
