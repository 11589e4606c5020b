//! Measures attention on one thread: billions of multiply-adds a second, and for decoding GB/s of K and V.
//!
//! `cargo run --release -p modelembed-kernels --example attention -- [isa]`
//!
//! Prompt: 512 causal queries of one head. Decode: the queries of one group over 1024 cached positions.

use std::ops::Range;
use std::time::Instant;

use modelembed_kernels::{AttnInput, AttnState, Isa, Kernels};

/// Seconds of the fastest of several runs.
fn seconds(mut run: impl FnMut()) -> f64 {
    let (mut best, mut total) = (f64::INFINITY, 0.0);
    while total < 0.2 {
        let start = Instant::now();
        run();
        let elapsed = start.elapsed().as_secs_f64();
        best = best.min(elapsed);
        total += elapsed;
    }
    best
}

fn measure(kernels: &Kernels, head_dim: usize, n_pos: usize, visible: &[Range<usize>]) -> f64 {
    let n_q = visible.len();
    let cache: Vec<u16> = (0..n_pos * head_dim).map(|i| 0x2c00 + (i * 37 % 0x400) as u16).collect();
    let q: Vec<f32> = (0..n_q * head_dim).map(|i| (i * 13 % 17) as f32 * 0.02 - 0.16).collect();
    let (mut max, mut sum, mut acc) = (vec![0.0; n_q], vec![0.0; n_q], vec![0.0; n_q * head_dim]);
    seconds(|| {
        let mut state = AttnState { max: &mut max, sum: &mut sum, acc: &mut acc };
        state.clear();
        kernels.attend(AttnInput { q: &q, head_dim, k: &cache, v: &cache, visible, soft_cap: None }, state);
        std::hint::black_box(&acc);
    })
}

fn main() {
    let isa = std::env::args().nth(1).map(|name| Isa::from_name(&name).expect("an instruction set"));
    println!(
        "{:8} {:>4}  {:>16}  {:>20}  {:>20}",
        "isa", "head", "prompt GMAC/s", "decode 1: GMAC GB/s", "decode 4: GMAC GB/s"
    );
    for kernels in Kernels::all().filter(|t| isa.is_none_or(|want| want == t.isa())) {
        for head_dim in [64, 128, 256] {
            let causal: Vec<_> = (0..512).map(|i| 0..i + 1).collect();
            let macs = 512.0 * 513.0 * head_dim as f64; // half of the square, twice: scores and values
            print!("{:8} {head_dim:4}  ", kernels.isa().name());
            print!("{:16.1}", macs / measure(kernels, head_dim, 512, &causal) / 1e9);
            for n_q in [1, 4] {
                let s = measure(kernels, head_dim, 1024, &vec![0..1024; n_q]);
                let macs = (n_q * 1024 * 2 * head_dim) as f64;
                print!("  {:12.1} {:7.1}", macs / s / 1e9, (1024 * head_dim * 4) as f64 / s / 1e9);
            }
            println!();
        }
    }
}
