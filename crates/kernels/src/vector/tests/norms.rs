//! Laws of the norms: every table that this CPU has against naive f64 arithmetic.

use super::{Failures, LENGTHS, Random, wide};
use crate::table::Kernels;

const EPS: f32 = 1e-5;

/// Numbers as a file has them, at an address that no f32 would have.
struct Parameters {
    bytes: Vec<u8>,
    start: usize,
}

impl Parameters {
    fn new(values: &[f32]) -> Parameters {
        let mut bytes = vec![0xff; values.len() * 4 + 2];
        let start = 1 - bytes.as_ptr() as usize % 2;
        for (to, value) in bytes[start..].chunks_exact_mut(4).zip(values) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        Parameters { bytes, start }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.bytes.len() - 2 + self.start]
    }
}

/// `values[i] * weight[i] + bias[i]` as far as there are any.
fn scaled(values: &[f64], weight: Option<&[f32]>, bias: Option<&[f32]>) -> Vec<f64> {
    let of = |numbers: Option<&[f32]>, i: usize, none: f64| numbers.map_or(none, |numbers| f64::from(numbers[i]));
    values.iter().enumerate().map(|(i, x)| x * of(weight, i, 1.0) + of(bias, i, 0.0)).collect()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// Deviations from the mean, in units of their root mean square.
fn normalized(x: &[f32]) -> Vec<f64> {
    let x = wide(x);
    let deviations: Vec<f64> = x.iter().map(|v| v - mean(&x)).collect();
    let variance = mean(&deviations.iter().map(|d| d * d).collect::<Vec<_>>());
    deviations.iter().map(|d| d / (variance + f64::from(EPS)).sqrt()).collect()
}

#[test]
fn rms_norms_match_f64_with_and_without_weights() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for n in LENGTHS {
            let mut random = Random(0x1234_5678 ^ n as u32);
            // One element into a longer vector: never aligned.
            let (x, weight) = (&random.vector(n + 1, 6.0)[1..], random.vector(n, 3.0));
            let mean = mean(&wide(x).iter().map(|x| x * x).collect::<Vec<_>>());
            let values: Vec<f64> = wide(x).iter().map(|x| x / (mean + f64::from(EPS)).sqrt()).collect();
            let bytes = Parameters::new(&weight);
            for weight in [None, Some(&weight[..])] {
                let mut out = vec![f32::NAN; n];
                kernels.rms_norm(x, weight.map(|_| bytes.get()), EPS, &mut out);
                let what = format!("{} rms_norm of {n}, weight {}", kernels.isa(), weight.is_some());
                fail.close(&what, &out, &scaled(&values, weight, None), 4e-7, 0.0);
            }
        }
    }
}

#[test]
fn layer_norms_match_f64_whatever_the_mean() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for (n, center) in LENGTHS.into_iter().flat_map(|n| [0.0, 3.0, -1e3, 1e6].map(|center| (n, center))) {
            let mut random = Random(0x2345_6789 ^ n as u32);
            let x: Vec<f32> = random.vector(n + 1, 6.0).iter().map(|x| x + center).collect();
            let x = &x[1..];
            let (weight, bias) = (random.vector(n, 3.0), random.vector(n, 2.0));
            let bytes = [&weight, &bias].map(|values| Parameters::new(values));
            let values = normalized(x);
            for (weight, bias) in
                [(None, None), (Some(&weight[..]), None), (None, Some(&bias[..])), (Some(&weight[..]), Some(&bias[..]))]
            {
                let mut out = vec![f32::NAN; n];
                let [with, and] = [(weight, 0), (bias, 1)].map(|(has, i)| has.map(|_| bytes[i].get()));
                kernels.layer_norm(x, with, and, EPS, &mut out);
                let what = format!(
                    "{} layer_norm of {n} around {center}, weight {}, bias {}",
                    kernels.isa(),
                    weight.is_some(),
                    bias.is_some()
                );
                // Values are below 4, weights below 3.
                fail.close(&what, &out, &scaled(&values, weight, bias), 5e-7, 4.0);
            }
        }
    }
}

#[test]
fn equal_elements_have_no_deviations() {
    for kernels in Kernels::all() {
        for x in [0.0, 0.1, -7.3, 1e5 / 3.0, 1e9 / 7.0] {
            for n in [1, 2, 3, 7, 100, 1023] {
                let mut out = vec![f32::NAN; n];
                kernels.layer_norm(&vec![x; n], None, None, EPS, &mut out);
                // What is left of a mean is an ulp of its own rounding error, and eps does not make
                // much of it.
                assert!(out.iter().all(|y| y.abs() <= x.abs() * 1e-9), "{} {n} times {x}: {:?}", kernels.isa(), out[0]);
            }
        }
    }
}

#[test]
fn what_is_no_number_shows_in_every_element_of_a_norm() {
    for kernels in Kernels::all() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = Random(3).vector(37, 1.0);
            x[35] = bad;
            let mut out = vec![0.0; 37];
            kernels.layer_norm(&x, None, None, EPS, &mut out);
            assert!(out.iter().all(|y| y.is_nan()), "{} {bad}: {out:?}", kernels.isa());
        }
    }
}
