//! What a parallel loop costs: ns for starting and joining it, as seen by the caller.
//!
//! `cargo run --release -p modelembed-pool --example fork_join -- [threads] [chunks]`
//!
//! Prints the 10th, 50th and 99th percentile over batches of 100 loops, for bodies of some lengths.
//! The time of the body itself (all chunks divided by the threads) is subtracted, so the number is
//! the pool's own cost.

use std::{hint::black_box, time::Instant};

use modelembed_pool::{Pool, available_threads};

fn work(units: u32) {
    for i in 0..units {
        black_box(i);
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().expect("a number"));
    let threads = args.next().unwrap_or(2);
    let n_chunks = args.next().unwrap_or(threads);
    println!("{threads} threads of {} available, {n_chunks} chunks a loop", available_threads());
    let pool = Pool::new(threads);
    for units in [0, 1000, 10_000, 100_000] {
        let batches = if units > 10_000 { 40 } else { 400 };
        let start = Instant::now();
        work(units * 100);
        let unit_ns = start.elapsed().as_nanos() as f64 / 100.0;
        let body_ns = unit_ns * n_chunks.div_ceil(threads) as f64;
        let mut costs: Vec<f64> = (0..batches)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..100 {
                    pool.run(n_chunks, 1, (), |_, (), _| work(units));
                }
                start.elapsed().as_nanos() as f64 / 100.0 - body_ns
            })
            .collect();
        costs.sort_by(f64::total_cmp);
        let at = |p: usize| costs[costs.len() * p / 100];
        println!("body {body_ns:9.0} ns: fork-join p10 {:7.0}  p50 {:7.0}  p99 {:7.0} ns", at(10), at(50), at(99));
    }
}
