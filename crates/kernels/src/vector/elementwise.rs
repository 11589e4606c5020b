//! Norm, residual, gated activations, rotary embedding, conversions: everything that walks one
//! vector.

use super::exp::{exp, tanh};
use super::fns::Parameters;
use super::lanes::{Lanes, for_lanes, load_n, store_n};

/// Independent accumulators of a sum over a vector: enough to hide an addition's latency.
const CHAINS: usize = 4;

/// The sum of squares. Its order of additions depends on the length only.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn sum_of_squares<V: Lanes>(x: &[f32]) -> f32 {
    // SAFETY: offsets stay below x.len().
    unsafe {
        let mut sums = [V::splat(0.0); CHAINS];
        let strides = x.chunks_exact(CHAINS * V::N);
        let tail = strides.remainder();
        for stride in strides {
            for (c, sum) in sums.iter_mut().enumerate() {
                let v = V::load(stride.as_ptr().add(c * V::N));
                *sum = v.fma(v, *sum);
            }
        }
        for_lanes!(V, tail.as_ptr(), tail.len(), |v, i, _n| {
            sums[i / V::N] = v.fma(v, sums[i / V::N]);
        });
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
    }
}

/// The sum, in the order of [`sum_of_squares`].
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn sum<V: Lanes>(x: &[f32]) -> f32 {
    // SAFETY: offsets stay below x.len().
    unsafe {
        let mut sums = [V::splat(0.0); CHAINS];
        let strides = x.chunks_exact(CHAINS * V::N);
        let tail = strides.remainder();
        for stride in strides {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(V::load(stride.as_ptr().add(c * V::N)));
            }
        }
        for_lanes!(V, tail.as_ptr(), tail.len(), |v, i, _n| {
            sums[i / V::N] = sums[i / V::N].add(v);
        });
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
    }
}

/// # Safety
/// As [`Lanes`]; `weight` holds 4 bytes an element of `x`, `out` is as long as `x`.
#[inline(always)]
pub(super) unsafe fn rms_norm<V: Lanes>(x: &[f32], weight: Parameters<'_>, eps: f32, out: &mut [f32]) {
    // SAFETY: offsets stay below x.len(), which is the length of the others.
    unsafe {
        let mean = sum_of_squares::<V>(x) / x.len() as f32;
        let scale = V::splat(1.0 / (mean + eps).sqrt());
        let out = out.as_mut_ptr();
        match weight {
            Some(weight) => {
                let weight = weight.as_ptr().cast::<f32>();
                for_lanes!(V, x.as_ptr(), x.len(), |v, i, n| {
                    store_n(v.mul(scale).mul(load_n(weight.add(i), n)), out.add(i), n);
                });
            }
            None => for_lanes!(V, x.as_ptr(), x.len(), |v, i, n| store_n(v.mul(scale), out.add(i), n)),
        }
    }
}

/// `x` minus its mean, and that minus its own mean, since rounding leaves some of a mean that is
/// large beside the deviations from it.
///
/// # Safety
/// As [`Lanes`]; `out` is as long as `x`.
#[inline(always)]
unsafe fn deviations<V: Lanes>(x: &[f32], out: &mut [f32]) {
    // SAFETY: offsets stay below x.len(); a run is read before it is written.
    unsafe {
        let mean = V::splat(sum::<V>(x) / x.len() as f32);
        let to = out.as_mut_ptr();
        for_lanes!(V, x.as_ptr(), x.len(), |v, i, n| store_n(v.sub(mean), to.add(i), n));
        let rest = V::splat(sum::<V>(out) / x.len() as f32);
        let to = out.as_mut_ptr();
        for_lanes!(V, to, x.len(), |v, i, n| store_n(v.sub(rest), to.add(i), n));
    }
}

/// # Safety
/// As [`Lanes`]; `weight` and `bias` hold 4 bytes an element of `x`, `out` is as long as `x`.
#[inline(always)]
pub(super) unsafe fn layer_norm<V: Lanes>(x: &[f32], [weight, bias]: [Parameters<'_>; 2], eps: f32, out: &mut [f32]) {
    // SAFETY: offsets stay below x.len(), which is the length of the others; a run is read before
    // it is written.
    unsafe {
        deviations::<V>(x, out);
        let variance = sum_of_squares::<V>(out) / x.len() as f32;
        let scale = V::splat(1.0 / (variance + eps).sqrt());
        let to = out.as_mut_ptr();
        let [weight, bias] = [weight, bias].map(|bytes| bytes.map(|bytes| bytes.as_ptr().cast::<f32>()));
        for_lanes!(V, to, x.len(), |v, i, n| {
            let mut y = v.mul(scale);
            if let Some(weight) = weight {
                y = y.mul(load_n(weight.add(i), n));
            }
            if let Some(bias) = bias {
                y = y.add(load_n(bias.add(i), n));
            }
            store_n(y, to.add(i), n);
        });
    }
}

/// # Safety
/// As [`Lanes`]; `x` is as long as `acc`.
#[inline(always)]
pub(super) unsafe fn add<V: Lanes>(acc: &mut [f32], x: &[f32]) {
    // SAFETY: offsets stay below x.len().
    unsafe {
        let acc = acc.as_mut_ptr();
        for_lanes!(V, x.as_ptr(), x.len(), |v, i, n| store_n(load_n::<V>(acc.add(i), n).add(v), acc.add(i), n));
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn scale<V: Lanes>(x: &mut [f32], by: f32) {
    let (to, len) = (x.as_mut_ptr(), x.len());
    // SAFETY: offsets stay below len; a run is read before it is written.
    unsafe { for_lanes!(V, to, len, |v, i, n| store_n(v.mul(V::splat(by)), to.add(i), n)) }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn soft_cap<V: Lanes>(x: &mut [f32], cap: f32) {
    let (to, len) = (x.as_mut_ptr(), x.len());
    // SAFETY: offsets stay below len; a run is read before it is written.
    unsafe {
        let cap = V::splat(cap);
        for_lanes!(V, to, len, |v, i, n| store_n(tanh(v.div(cap)).mul(cap), to.add(i), n));
    }
}

/// v / (1 + exp(-t)): v times the logistic function of t.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn times_logistic<V: Lanes>(v: V, t: V) -> V {
    // SAFETY: no memory is touched.
    unsafe { v.div(exp(V::splat(0.0).sub(t)).add(V::splat(1.0))) }
}

/// sqrt(8 / pi): twice the factor inside the tanh form, since 0.5 * (1 + tanh(u)) is the logistic
/// function of 2u.
const GELU_OUTER: f32 = 1.595_769;
const GELU_CUBIC: f32 = 0.044_715;

/// What a feed-forward block applies to each of its elements.
trait Activate {
    /// # Safety
    /// As [`Lanes`].
    unsafe fn of<V: Lanes>(x: V) -> V;
}

struct Silu;

impl Activate for Silu {
    #[inline(always)]
    unsafe fn of<V: Lanes>(x: V) -> V {
        // SAFETY: no memory is touched.
        unsafe { times_logistic(x, x) }
    }
}

struct Gelu;

impl Activate for Gelu {
    #[inline(always)]
    unsafe fn of<V: Lanes>(x: V) -> V {
        // SAFETY: no memory is touched.
        unsafe {
            let inner = x.mul(x).fma(V::splat(GELU_CUBIC), V::splat(1.0)).mul(x).mul(V::splat(GELU_OUTER));
            times_logistic(x, inner)
        }
    }
}

struct Relu;

impl Activate for Relu {
    #[inline(always)]
    unsafe fn of<V: Lanes>(x: V) -> V {
        // SAFETY: no memory is touched. In this order of operands a NaN survives.
        unsafe { V::splat(0.0).max(x) }
    }
}

struct ReluSquared;

impl Activate for ReluSquared {
    #[inline(always)]
    unsafe fn of<V: Lanes>(x: V) -> V {
        // SAFETY: no memory is touched.
        unsafe {
            let x = Relu::of(x);
            x.mul(x)
        }
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn activate<V: Lanes, A: Activate>(x: &mut [f32]) {
    let (to, len) = (x.as_mut_ptr(), x.len());
    // SAFETY: offsets stay below len; a run is read before it is written.
    unsafe { for_lanes!(V, to, len, |v, i, n| store_n(A::of(v), to.add(i), n)) }
}

/// # Safety
/// As [`Lanes`]; `up` is as long as `gate`.
#[inline(always)]
unsafe fn gate_by<V: Lanes, A: Activate>(gate: &mut [f32], up: &[f32]) {
    // SAFETY: offsets stay below up.len().
    unsafe {
        let gate = gate.as_mut_ptr();
        for_lanes!(V, up.as_ptr(), up.len(), |u, i, n| {
            store_n(A::of(load_n::<V>(gate.add(i), n)).mul(u), gate.add(i), n);
        });
    }
}

/// The functions of the table: each activation alone, or as the gate of a product.
macro_rules! activations {
    (alone: $($name:ident = $alone:ty),*; gated: $($gated:ident = $gate:ty),*;) => {
        $(
            /// # Safety
            /// As [`Lanes`].
            #[inline(always)]
            pub(super) unsafe fn $name<V: Lanes>(x: &mut [f32]) {
                // SAFETY: the caller's promise.
                unsafe { activate::<V, $alone>(x) }
            }
        )*
        $(
            /// # Safety
            /// As [`Lanes`]; `up` is as long as `gate`.
            #[inline(always)]
            pub(super) unsafe fn $gated<V: Lanes>(gate: &mut [f32], up: &[f32]) {
                // SAFETY: the caller's promise.
                unsafe { gate_by::<V, $gate>(gate, up) }
            }
        )*
    };
}

activations! {
    alone: silu = Silu, gelu = Gelu, relu = Relu, relu_squared = ReluSquared;
    gated: silu_mul = Silu, gelu_mul = Gelu, relu_mul = Relu;
}

/// Rotates the pairs (x[i], x[i + n]), n = `cos.len()`.
///
/// # Safety
/// As [`Lanes`]; `sin` is as long as `cos`, `x` at least twice as long.
#[inline(always)]
pub(super) unsafe fn rope_halves<V: Lanes>(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    // SAFETY: offsets stay below cos.len() in each half.
    unsafe {
        let (a, sin) = (x.as_mut_ptr(), sin.as_ptr());
        let b = a.add(cos.len());
        for_lanes!(V, cos.as_ptr(), cos.len(), |c, i, n| {
            let (s, u, v) = (load_n::<V>(sin.add(i), n), load_n::<V>(a.add(i), n), load_n::<V>(b.add(i), n));
            store_n(u.mul(c).sub(v.mul(s)), a.add(i), n);
            store_n(v.mul(c).add(u.mul(s)), b.add(i), n);
        });
    }
}

/// Rotates the pairs (x[2i], x[2i + 1]).
///
/// # Safety
/// As [`Lanes`]; `sin` is as long as `cos`, `x` at least twice as long.
#[inline(always)]
pub(super) unsafe fn rope_adjacent<V: Lanes>(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = V::N / 2;
    let full = cos.len() / pairs * pairs;
    // SAFETY: whole registers of pairs below `full`.
    unsafe {
        for i in (0..full).step_by(pairs) {
            let to = x.as_mut_ptr().add(2 * i);
            let v = V::load(to);
            let (c, s) = (V::load_twice(cos.as_ptr().add(i)), V::load_twice(sin.as_ptr().add(i)));
            v.fma_sub_add(c, v.swap_pairs().mul(s)).store(to);
        }
    }
    for ((pair, c), s) in x.chunks_exact_mut(2).zip(cos).zip(sin).skip(full) {
        (pair[0], pair[1]) = (pair[0] * c - pair[1] * s, pair[1] * c + pair[0] * s);
    }
}

/// # Safety
/// As [`Lanes`]; `out` is as long as `x`.
#[inline(always)]
pub(super) unsafe fn to_f16<V: Lanes>(x: &[f32], out: &mut [u16]) {
    // SAFETY: offsets stay below x.len().
    unsafe {
        let out = out.as_mut_ptr();
        for_lanes!(V, x.as_ptr(), x.len(), |v, i, n| {
            if n == V::N { v.store_f16(out.add(i)) } else { v.store_f16_part(out.add(i), n) }
        });
    }
}

/// # Safety
/// As [`Lanes`]; `out` is as long as `x`.
#[inline(always)]
pub(super) unsafe fn from_f16<V: Lanes>(x: &[u16], out: &mut [f32]) {
    let (from, to) = (x.as_ptr(), out.as_mut_ptr());
    for i in (0..x.len()).step_by(V::N) {
        let n = V::N.min(x.len() - i);
        // SAFETY: offsets stay below x.len().
        unsafe { store_n(<u16 as super::kv::Element>::load::<V>(from, i, n), to.add(i), n) }
    }
}
