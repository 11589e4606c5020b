//! Rows against one vector.

use super::{Failures, LENGTHS, Random, wide};
use crate::table::Kernels;

/// Rows, their length and the distance of their starts.
fn cases() -> impl Iterator<Item = (usize, usize, usize)> {
    let shapes = [0, 1, 2, 3, 4, 5, 63, 64].into_iter().flat_map(|n| LENGTHS.map(|len| (n, len)));
    shapes.filter(|(_, len)| *len < 600).map(|(n, len)| (n, len, len + n % 3))
}

#[test]
fn sums_of_rows_match_f64_and_may_be_cut() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for (n, len, stride) in cases() {
            let mut random = Random(0x51ed_2701 ^ (n * 1000 + len) as u32);
            let (w, rows) = (random.vector(n, 2.0), random.vector(n * stride.max(len), 2.0));
            let start = random.vector(len, 2.0);
            let mut want = wide(&start);
            for (w, row) in w.iter().zip(rows.chunks(stride.max(1))) {
                want.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*w) * f64::from(*x));
            }
            let mut got = start.clone();
            kernels.add_rows(&mut got, &w, &rows, stride);
            let what = format!("{} {n} rows of {len}", kernels.isa().name());
            fail.close(&what, &got, &want, 1e-6, 10.0);
            for cut in [1, n / 2].into_iter().filter(|cut| *cut < n) {
                let mut twice = start.clone();
                kernels.add_rows(&mut twice, &w[..cut], &rows, stride);
                kernels.add_rows(&mut twice, &w[cut..], &rows[cut * stride..], stride);
                fail.check(twice == got, || format!("{what}, cut at {cut}"));
            }
        }
    }
}

#[test]
fn products_with_rows_match_f64_and_depend_on_nothing_else() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for (n, len, stride) in cases() {
            let mut random = Random(0x0bad_cafe ^ (n * 1000 + len) as u32);
            let (x, rows) = (random.vector(len, 2.0), random.vector(n * stride.max(len), 2.0));
            let row = |j: usize| &rows[j * stride..][..len];
            let dot = |j: usize| wide(row(j)).iter().zip(wide(&x)).map(|(a, b)| a * b).sum::<f64>();
            let want: Vec<f64> = (0..n).map(dot).collect();
            let mut got = vec![0.0; n];
            kernels.dot_rows(&x, &rows, stride, &mut got);
            let what = format!("{} {n} rows of {len}", kernels.isa().name());
            fail.close(&what, &got, &want, 1e-6, 20.0);
            for (j, got) in got.iter().enumerate() {
                let mut alone = [0.0];
                kernels.dot_rows(&x, row(j), stride, &mut alone);
                fail.check(alone[0].to_bits() == got.to_bits(), || format!("{what}: row {j} alone"));
            }
        }
    }
}

#[test]
fn products_by_element_and_exponentials_match_f64() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for len in LENGTHS {
            let mut random = Random(0x7777_1234 ^ len as u32);
            let [acc, x, w] = [2.0, 2.0, 30.0].map(|limit| random.vector(len, limit));
            let mut got = acc.clone();
            kernels.mul_add(&mut got, &x, &w);
            let want: Vec<f64> = (0..len).map(|i| f64::from(acc[i]) + f64::from(x[i]) * f64::from(w[i])).collect();
            fail.close(&format!("{} mul_add {len}", kernels.isa().name()), &got, &want, 1e-6, 1.0);
            let mut got = w.clone();
            kernels.exp(&mut got);
            let want: Vec<f64> = w.iter().map(|x| f64::from(*x).exp()).collect();
            fail.close(&format!("{} exp {len}", kernels.isa().name()), &got, &want, 2e-7, 0.0);
        }
    }
}

#[test]
#[should_panic(expected = "3 rows of 4 elements, every 5, in 13")]
fn rows_must_fit() {
    Kernels::best().add_rows(&mut [0.0; 4], &[1.0; 3], &[0.0; 13], 5);
}
