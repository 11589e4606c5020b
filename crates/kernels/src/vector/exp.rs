//! Exponential and hyperbolic tangent of a register of lanes.
//!
//! Coefficients: minimax fits by the Remez algorithm, printed by `tools/fit_vector.py`.

use super::lanes::Lanes;

/// 1 / ln 2.
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts: the first has 9 significant bits, so that its product with any exponent is
/// exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// exp(r) = 1 + r + r^2 * (these), for |r| <= ln 2 / 2: relative error of the fit 4.3e-9 (2^-27.8).
const EXP: [f32; 5] = [0.499_999_97, 0.166_665_06, 0.041_667_09, 0.008_370_27, 0.001_389_340_4];
/// exp of less rounds to zero, of more to infinity.
const EXP_RANGE: (f32, f32) = (-104.0, 89.0);

/// e^x in every lane.
///
/// Error below 1.5 units in the last place where the result is normal; below the least normal
/// number the result underflows gradually to 0. exp(-inf) = 0, exp(inf) = inf, NaN stays NaN.
/// (Method: Cody and Waite's reduction to |r| <= ln 2 / 2, a polynomial, and a multiplication by a
/// power of two.)
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn exp<V: Lanes>(x: V) -> V {
    // SAFETY: no memory is touched; the caller vouches for the CPU.
    unsafe {
        // In this order of operands a NaN survives both.
        let x = V::splat(EXP_RANGE.0).max(x);
        let x = V::splat(EXP_RANGE.1).min(x);
        let n = x.mul(V::splat(LOG2_E)).round();
        let r = n.fma(V::splat(-LN_2_HIGH), x);
        let r = n.fma(V::splat(-LN_2_LOW), r);
        let mut p = V::splat(EXP[4]);
        p = p.fma(r, V::splat(EXP[3]));
        p = p.fma(r, V::splat(EXP[2]));
        p = p.fma(r, V::splat(EXP[1]));
        p = p.fma(r, V::splat(EXP[0]));
        let r2 = r.mul(r);
        p.fma(r2, r).add(V::splat(1.0)).times_power_of_two(n)
    }
}

/// Just above ln(2^-126) = -87.3365: from here on no result is subnormal.
const NORMAL_FROM: f32 = -87.336;

/// e^x in every lane for softmax weights: as [`exp`], but 0 where the result would be less than the
/// least normal number.
///
/// Many processors stop for a hundred cycles and more to make a result that is not, and most of the
/// weights that are so small are those of hidden positions, whose score is minus infinity.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn exp_or_zero<V: Lanes>(x: V) -> V {
    // SAFETY: as for `exp`.
    unsafe {
        let limit = V::splat(NORMAL_FROM);
        // In this order of operands a NaN survives.
        let value = exp(limit.max(x));
        x.select_less(limit, V::splat(0.0), value)
    }
}

/// Where tanh changes from its polynomial to the exponential.
const TANH_SMALL: f32 = 0.625;
/// tanh(y) = y + y^3 * (these in y^2), for |y| <= 0.625: relative error of the fit 4.4e-9.
const TANH: [f32; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_088, -0.005_704_987_3];

/// tanh in every lane: relative error below 2^-22 (4 units in the last place), also for small
/// arguments.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn tanh<V: Lanes>(y: V) -> V {
    // SAFETY: no memory is touched; the caller vouches for the CPU.
    unsafe {
        let z = y.mul(y);
        let mut p = V::splat(TANH[4]);
        p = p.fma(z, V::splat(TANH[3]));
        p = p.fma(z, V::splat(TANH[2]));
        p = p.fma(z, V::splat(TANH[1]));
        p = p.fma(z, V::splat(TANH[0]));
        let small = p.mul(z).fma(y, y);
        // 1 - 2 / (exp(2|y|) + 1)
        let magnitude = y.abs();
        let e = exp(magnitude.add(magnitude));
        let large = V::splat(1.0).sub(V::splat(2.0).div(e.add(V::splat(1.0)))).with_sign_of(y);
        magnitude.select_less(V::splat(TANH_SMALL), small, large)
    }
}
