//! Measures attention on one thread, over a cache in 16-bit integers and in f16: billions of
//! multiply-adds a second, and for decoding GB/s of K and V.
//!
//! `cargo run --release -p modelembed-kernels --example attention -- [isa]`
//!
//! Prompt: 512 causal queries of one head. Decode: the queries of one group over cached positions,
//! in runs of 256, from a cache that the second-level cache of the processor holds, and from
//! memory.

use std::ops::Range;
use std::time::Instant;

use modelembed_kernels::{AttnInput, AttnState, Isa, Kernels};

/// Positions of a run.
const RUN: usize = 256;

/// Seconds of the fastest of several runs.
fn seconds(mut run: impl FnMut()) -> f64 {
    let (mut best, mut total) = (f64::INFINITY, 0.0);
    while total < 0.3 {
        let start = Instant::now();
        run();
        let elapsed = start.elapsed().as_secs_f64();
        best = best.min(elapsed);
        total += elapsed;
    }
    best
}

/// The seconds of each query range over `run` positions of `n_pos`, one run after the other.
fn measure(
    kernels: &Kernels,
    is_i16: bool,
    head_dim: usize,
    n_pos: usize,
    run: usize,
    visible: &[Range<usize>],
) -> f64 {
    let n_q = visible.len();
    let heads =
        |from: usize| -> Vec<f32> { (0..n_pos * head_dim).map(|i| ((i + from) * 37 % 1024) as f32 / 512.0).collect() };
    let (k, v) = (heads(0), heads(5));
    let halves = [&k, &v].map(|x| {
        let mut halves = vec![0; x.len()];
        kernels.to_f16(x, &mut halves);
        halves
    });
    let integers = [&k, &v].map(|x| {
        let mut integers = vec![0; x.len()];
        let heads = x.chunks_exact(head_dim).zip(integers.chunks_exact_mut(head_dim));
        let scales: Vec<f32> = heads.map(|(head, row)| kernels.to_i16(head, row)).collect();
        (integers, scales)
    });
    let q: Vec<f32> = (0..n_q * head_dim).map(|i| (i * 13 % 17) as f32 * 0.02 - 0.16).collect();
    let (mut max, mut sum, mut acc) = (vec![0.0; n_q], vec![0.0; n_q], vec![0.0; n_q * head_dim]);
    let time = seconds(|| {
        for first in (0..n_pos).step_by(run) {
            let (rows, positions) = (first * head_dim..(first + run) * head_dim, first..first + run);
            let mut state = AttnState { max: &mut max, sum: &mut sum, acc: &mut acc };
            state.clear();
            if is_i16 {
                let [(k, k_scales), (v, v_scales)] = &integers;
                let (k, v, soft_cap) = (&k[rows.clone()], &v[rows], None);
                let scales = [&k_scales[positions.clone()], &v_scales[positions]];
                kernels.attend_i16(
                    AttnInput { q: &q, head_dim, value_dim: head_dim, k, v, next: &[], visible, soft_cap, lines: &[] },
                    scales,
                    state,
                );
            } else {
                let (k, v, soft_cap) = (&halves[0][rows.clone()], &halves[1][rows], None);
                kernels.attend(
                    AttnInput { q: &q, head_dim, value_dim: head_dim, k, v, next: &[], visible, soft_cap, lines: &[] },
                    state,
                );
            }
            std::hint::black_box(&acc);
        }
    });
    time / (n_pos / run) as f64
}

fn main() {
    let isa = std::env::args().nth(1).map(|name| Isa::from_name(&name).expect("an instruction set"));
    println!(
        "{:8} {:>5} {:>4} {:>13}  decode, queries: GB/s from cache, from memory",
        "isa", "cache", "head", "prompt GMAC/s"
    );
    for kernels in Kernels::all().filter(|t| isa.is_none_or(|want| want == t.isa())) {
        for (head_dim, is_i16) in [64, 128, 256].into_iter().flat_map(|head_dim| [(head_dim, true), (head_dim, false)])
        {
            let causal: Vec<_> = (0..512).map(|i| 0..i + 1).collect();
            let macs = 512.0 * 513.0 * head_dim as f64; // half of the square, twice: scores and values
            print!("{:8} {:>5} {head_dim:4} ", kernels.isa().name(), if is_i16 { "i16" } else { "f16" });
            print!("{:13.1}", macs / measure(kernels, is_i16, head_dim, 512, 512, &causal) / 1e9);
            for n_q in [1, 2, 3, 4, 8] {
                let rate = |n_pos| {
                    let s = measure(kernels, is_i16, head_dim, n_pos, RUN, &vec![0..RUN; n_q]);
                    (RUN * head_dim * 4) as f64 / s / 1e9
                };
                print!("  {n_q:2}: {:5.1} {:5.1}", rate(RUN), rate((64 << 20) / 2 / head_dim));
            }
            println!();
        }
    }
}
