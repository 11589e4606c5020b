//! Laws of the vector section: every table that this CPU has against naive f64 arithmetic.

mod attend_int;
mod attention;
mod norms;
mod rows;
mod soft_caps;

use modelembed_terms::RopeStyle;

use super::half;
use crate::table::Kernels;

/// Lengths around register sizes (4, 8, 16 lanes, 4 chains of 16) and beyond a block.
const LENGTHS: [usize; 19] = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 576, 1023, 2051];

/// Marsaglia's xorshift32; the numbers only have to be irregular.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// Uniform in -limit..limit.
    fn within(&mut self, limit: f32) -> f32 {
        ((self.next() >> 8) as f32 / (1 << 23) as f32 - 1.0) * limit
    }

    fn vector(&mut self, n: usize, limit: f32) -> Vec<f32> {
        (0..n).map(|_| self.within(limit)).collect()
    }

    fn halves(&mut self, n: usize, limit: f32) -> Vec<u16> {
        (0..n).map(|_| half::from_f32(self.within(limit))).collect()
    }
}

/// Collects every failing row, so that one run shows them all.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn check(&mut self, good: bool, row: impl FnOnce() -> String) {
        if !good && self.0.len() < 40 {
            self.0.push(row());
        }
    }

    /// `|got - want| <= tolerance * (|want| + floor)` for every element.
    fn close(&mut self, what: &str, got: &[f32], want: &[f64], tolerance: f64, floor: f64) {
        self.check(got.len() == want.len(), || format!("{what}: {} elements, wanted {}", got.len(), want.len()));
        for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(g) - w).abs();
            let good = error <= tolerance * (w.abs() + floor);
            self.check(good, || format!("{what}[{i}]: {g}, wanted {w} (error {error:e})"));
        }
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "failing rows:\n{}", self.0.join("\n"));
        }
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

#[test]
fn sums_and_caps_match_f64() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for n in LENGTHS {
            let mut random = Random(0x1234_5678 ^ n as u32);
            // One element into a longer vector: never aligned.
            let (x, y) = (&random.vector(n + 1, 6.0)[1..], &random.vector(n + 1, 3.0)[1..]);
            let name = |what: &str| format!("{} {what} of {n}", kernels.isa());

            let mut out = x.to_vec();
            kernels.add(&mut out, y);
            let want: Vec<f64> = x.iter().zip(y).map(|(x, y)| f64::from(x + y)).collect();
            fail.close(&name("add"), &out, &want, 0.0, 0.0);

            let mut out = x.to_vec();
            kernels.scale(&mut out, 0.3);
            let want: Vec<f64> = x.iter().map(|x| f64::from(x * 0.3)).collect();
            fail.close(&name("scale"), &out, &want, 0.0, 0.0);

            let mut out = x.to_vec();
            kernels.soft_cap(&mut out, 5.0);
            let want: Vec<f64> = wide(x).iter().map(|x| (x / 5.0).tanh() * 5.0).collect();
            fail.close(&name("soft_cap"), &out, &want, 5e-7, 0.0);
        }
    }
}

/// GELU in the tanh form.
fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

/// An activation's name, its function alone, as a gate (if the table has that) and in f64, and how
/// large a result is beside which its rounding counts: where GELU is nearly 0, its argument is what
/// was rounded.
type Activation =
    (&'static str, fn(&Kernels, &mut [f32]), Option<fn(&Kernels, &mut [f32], &[f32])>, fn(f64) -> f64, f64);

const ACTIVATIONS: [Activation; 4] = [
    ("silu", Kernels::silu, Some(Kernels::silu_mul), |x| x / (1.0 + (-x).exp()), 0.0),
    ("gelu", Kernels::gelu, Some(Kernels::gelu_mul), gelu, 0.2),
    ("relu", Kernels::relu, Some(Kernels::relu_mul), |x| x.max(0.0), 0.0),
    ("relu_squared", Kernels::relu_squared, None, |x| x.max(0.0).powi(2), 0.0),
];

#[test]
fn activations_match_f64_alone_and_as_gates() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for (n, (name, alone, gate, exact, floor)) in LENGTHS.into_iter().flat_map(|n| ACTIVATIONS.map(|a| (n, a))) {
            let mut random = Random(0x3456_789a ^ n as u32);
            let (x, y) = (&random.vector(n + 1, 6.0)[1..], &random.vector(n + 1, 3.0)[1..]);
            let mut values = x.to_vec();
            alone(kernels, &mut values);
            let want: Vec<f64> = wide(x).into_iter().map(exact).collect();
            fail.close(&format!("{} {name} of {n}", kernels.isa()), &values, &want, 6e-7, floor);
            if let Some(gate) = gate {
                let mut out = x.to_vec();
                gate(kernels, &mut out, y);
                let want: Vec<f64> = wide(x).into_iter().zip(wide(y)).map(|(x, y)| exact(x) * y).collect();
                fail.close(&format!("{} {name} of {n} as a gate", kernels.isa()), &out, &want, 6e-7, floor);
                // The same function, bit for bit.
                values.iter_mut().zip(y).for_each(|(value, y)| *value *= y);
                fail.check(out == values, || format!("{} {name} of {n}: {out:?}, not {values:?}", kernels.isa()));
            }
        }
    }
}

#[test]
fn gates_keep_their_limits() {
    for kernels in Kernels::all() {
        let mut gate = [-200.0, 200.0, -90.0, 0.0, -1e30, 1e30];
        kernels.silu_mul(&mut gate, &[1.0; 6]);
        assert!(gate[0].abs() < 1e-35 && gate[2].abs() < 1e-35 && gate[4] == 0.0, "{}: {gate:?}", kernels.isa());
        assert_eq!((gate[1], gate[3], gate[5]), (200.0, 0.0, 1e30), "{}", kernels.isa());
        let mut gate = [-200.0, 200.0, 0.0];
        kernels.gelu_mul(&mut gate, &[1.0; 3]);
        assert_eq!(gate, [0.0, 200.0, 0.0], "{}", kernels.isa());
        let mut gate = [-1e30, 1e10, -0.0, f32::INFINITY, f32::NEG_INFINITY];
        kernels.relu_squared(&mut gate);
        assert_eq!(gate, [0.0, 1e20, 0.0, f32::INFINITY, 0.0], "{}", kernels.isa());
        for (name, alone, ..) in ACTIVATIONS {
            // As the first lane of a register, and behind the last whole one.
            let mut x = [f32::NAN, 1.0, 1.0, f32::NAN, 1.0];
            alone(kernels, &mut x);
            assert_eq!(x.map(f32::is_nan), [true, false, false, true, false], "{} {name}", kernels.isa());
        }
        let mut logits = [f32::INFINITY, -1e9, 0.0, 1e-6];
        kernels.soft_cap(&mut logits, 30.0);
        assert_eq!(logits, [30.0, -30.0, 0.0, 1e-6], "{}", kernels.isa());
    }
}

#[test]
fn exponentials_are_accurate_over_their_whole_range() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        // softmax of (0, x) with x <= 0 is exp(x) / (1 + exp(x)); its numerator is what is measured
        // here.
        let mut worst = 0.0f64;
        for step in 0..200_000 {
            let x = -(step as f32) * (87.0 / 200_000.0);
            let mut pair = [0.0, x];
            kernels.softmax(&mut pair);
            let e = f64::from(x).exp();
            worst = worst.max((f64::from(pair[1]) / (e / (1.0 + e)) - 1.0).abs());
        }
        // 1.5 units in the last place for the exponential, 1 for the product with the factor and
        // the factor's own rounding.
        fail.check(worst <= 2.5 * 2f64.powi(-23), || format!("{}: relative error {worst:e}", kernels.isa()));
        let mut far = [0.0, -103.0, -104.1, -1e30, f32::NEG_INFINITY];
        kernels.softmax(&mut far);
        fail.check(far[1] > 0.0 && far[1] < 1e-44, || format!("{}: exp(-103) = {:e}", kernels.isa(), far[1]));
        fail.check(far[2..] == [0.0; 3], || format!("{}: far below {far:?}", kernels.isa()));
    }
}

#[test]
fn rope_rotates_pairs() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for pairs in [0, 1, 2, 4, 5, 8, 16, 20, 32, 40, 48, 61, 64, 128] {
            for style in [RopeStyle::Adjacent, RopeStyle::Halves] {
                let mut random = Random(99 + pairs as u32);
                let x = random.vector(2 * pairs + 3, 2.0);
                let angles = random.vector(pairs, 3.2);
                let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
                let mut out = x.clone();
                kernels.rope(&mut out, &cos, &sin, style);
                let mut want = wide(&x);
                for i in 0..pairs {
                    let (a, b) = match style {
                        RopeStyle::Adjacent => (2 * i, 2 * i + 1),
                        RopeStyle::Halves => (i, i + pairs),
                    };
                    let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
                    (want[a], want[b]) = (want[a] * c - want[b] * s, want[b] * c + want[a] * s);
                }
                fail.close(&format!("{} {style:?} {pairs}", kernels.isa()), &out, &want, 2e-7, 2.0);
            }
        }
    }
}

#[test]
fn halves_are_rounded_alike() {
    let edges = [
        0.0,
        -0.0,
        1.0,
        65504.0,
        65519.0,
        65520.0,
        1e30,
        f32::INFINITY,
        6e-8,
        2.9e-8,
        3e-8,
        6.1e-5,
        1e-40,
        2049.0,
        2051.0,
    ];
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for n in LENGTHS {
            let mut random = Random(7 + n as u32);
            let mut x: Vec<f32> =
                (0..n + 1).map(|_| random.within(1.0) * 2f32.powi(random.next() as i32 % 30)).collect();
            for (x, &edge) in x.iter_mut().zip(&edges) {
                *x = if n % 2 == 0 { edge } else { -edge };
            }
            let x = &x[1..];
            let mut out = vec![0u16; n];
            kernels.to_f16(x, &mut out);
            for (&x, &got) in x.iter().zip(&out) {
                let want = half::from_f32(x);
                fail.check(got == want, || format!("{}: {x:e} became {got:#06x}, wanted {want:#06x}", kernels.isa()));
            }
        }
        let mut out = [0u16];
        kernels.to_f16(&[f32::NAN], &mut out);
        fail.check(half::to_f32(out[0]).is_nan(), || format!("{}: NaN became {:#06x}", kernels.isa(), out[0]));
    }
}

#[test]
fn argmax_takes_the_first_of_equals_and_never_nan() {
    const NAN: f32 = f32::NAN;
    const LOW: f32 = f32::NEG_INFINITY;
    let cases: [(&[f32], usize); 9] = [
        (&[], 0),
        (&[NAN], 0),
        (&[NAN, LOW], 1),
        (&[LOW, LOW], 0),
        (&[NAN, NAN, -3.0, NAN], 2),
        (&[1.0, 2.0, 2.0], 1),
        (&[0.0, -0.0], 0),
        (&[-5.0, f32::INFINITY, NAN, f32::INFINITY], 1),
        (&[-0.0, 0.0], 0),
    ];
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for (x, want) in cases {
            let got = kernels.argmax(x);
            fail.check(got == want, || format!("{}: {x:?} gave {got}, wanted {want}", kernels.isa()));
        }
        for n in LENGTHS.into_iter().filter(|&n| n > 0) {
            let mut x = Random(5).vector(n, 1.0);
            for at in [0, n / 2, n - 1] {
                x[at] = 2.0;
                let mut later = x.clone();
                later[n - 1] = 2.0;
                let got = kernels.argmax(&later);
                fail.check(got == at, || {
                    format!("{}: {n} elements, the first maximum at {at}, got {got}", kernels.isa())
                });
                x[at] = 0.0;
            }
        }
    }
}

#[test]
fn softmax_and_log_sum_exp_match_f64() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for (n, limit) in LENGTHS.into_iter().flat_map(|n| [(n, 1.0), (n, 300.0)]).chain([(262_144, 20.0)]) {
            let x = &Random(n as u32 + 3).vector(n + 1, limit)[1..];
            let max = wide(x).into_iter().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = wide(x).iter().map(|x| (x - max).exp()).sum();
            let got = kernels.log_sum_exp(x);
            let want = if n == 0 { f64::NEG_INFINITY } else { max + sum.ln() };
            let good = f64::from(got) == want || (f64::from(got) - want).abs() <= 1e-7 * (want.abs() + 1.0);
            fail.check(good, || format!("{}: log_sum_exp of {n}: {got}, wanted {want}", kernels.isa()));
            let mut out = x.to_vec();
            kernels.softmax(&mut out);
            // The difference to the maximum is rounded to f32 first, as in any f32 softmax.
            let want: Vec<f64> = x.iter().map(|x| f64::from(x - max as f32).exp() / sum).collect();
            fail.close(&format!("{} softmax of {n}", kernels.isa()), &out, &want, 5e-7, 1e-37);
        }
        let mut none = [f32::NEG_INFINITY; 5];
        kernels.softmax(&mut none);
        fail.check(none == [0.0; 5], || format!("{}: softmax of nothing: {none:?}", kernels.isa()));
        let infinite = kernels.log_sum_exp(&[1.0, f32::INFINITY]);
        fail.check(infinite == f32::INFINITY, || format!("{}: {infinite}", kernels.isa()));
    }
}
