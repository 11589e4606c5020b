//! Measures row-dots: GB/s of weights and GMAC/s, for each type, instruction set and number of
//! columns, on one thread.
//!
//! `cargo run --release -p modelembed-kernels --example dots --
//! [type=Q4_K] [isa=avx2] [cols=1] [k=2048] [mb=256] [exact]`
//!
//! Two matrices: one that fits a second-level cache (256 KiB) and one that does not fit any (256
//! MB). Each figure is the best of several passes. Weights are random bits, which cost the same as
//! real ones.

use std::time::Instant;

use modelembed_gguf::TensorType;
use modelembed_kernels::{ActLayout, Acts, Isa, Kernels, MatRef, Strided};

struct Options {
    ty: Option<TensorType>,
    isa: Option<Isa>,
    cols: Option<usize>,
    k: usize,
    mb: usize,
    exact: bool,
}

fn options() -> Options {
    let mut options = Options { ty: None, isa: None, cols: None, k: 2048, mb: 256, exact: false };
    for arg in std::env::args().skip(1) {
        let (name, value) = arg.split_once('=').unwrap_or((&arg, ""));
        let number = || value.parse().unwrap_or_else(|_| panic!("{name} wants a number, not {value:?}"));
        match name {
            "type" => options.ty = Some(TensorType::from_name(value).expect("a tensor type")),
            "isa" => options.isa = Some(Isa::from_name(value).expect("an instruction set")),
            "cols" => options.cols = Some(number()),
            "k" => options.k = number(),
            "mb" => options.mb = number(),
            "exact" => options.exact = true,
            _ => panic!("unknown option {name}"),
        }
    }
    options
}

/// Bytes that make finite weights in every format, none of them so small that products become
/// subnormal numbers, for which processors stop. (Other bytes would need the layouts.)
fn weights(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0x30 + (state >> 24) as u8 % 0x0c
    };
    (0..len).map(|_| next()).collect()
}

/// Seconds of the fastest pass over the matrix.
fn seconds(kernels: &Kernels, w: MatRef<'_>, acts: Acts<'_>, out: &mut [f32]) -> f64 {
    let mut best = f64::INFINITY;
    let mut total = 0.0;
    while total < 0.15 {
        let start = Instant::now();
        kernels.mul_rows(w, 0..w.rows(), acts, &mut Strided { data: out, stride: w.rows(), rows: w.rows() });
        let elapsed = start.elapsed().as_secs_f64();
        std::hint::black_box(&out);
        best = best.min(elapsed);
        total += elapsed;
    }
    best
}

fn main() {
    let options = options();
    let big = weights(options.mb << 20);
    println!("{:8} {:8} {:>5}  {:>21}  {:>21}", "", "", "", "256 KiB", format!("{} MiB", options.mb));
    println!(
        "{:8} {:8} {:>5}  {:>10} {:>10}  {:>10} {:>10}",
        "type", "isa", "cols", "GB/s", "GMAC/s", "GB/s", "GMAC/s"
    );
    for ty in TensorType::all().filter(|&ty| Kernels::supports(ty) && options.ty.is_none_or(|want| want == ty)) {
        let k = options.k.next_multiple_of(ty.block_len());
        let row_bytes = ty.row_bytes(k).expect("whole blocks");
        let layout = ActLayout::new(Kernels::act_kind(ty, options.exact), k);
        let x: Vec<f32> = (0..k).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        for kernels in Kernels::all().filter(|t| options.isa.is_none_or(|want| want == t.isa())) {
            for cols in options.cols.map_or(vec![1, 2, 4, 8, 64], |cols| vec![cols]) {
                // 64-byte aligned, as an engine's buffers are: misaligned 32-byte loads cross cache
                // lines.
                let mut acts = vec![0u8; cols * layout.col_bytes() + 63];
                let start = acts.as_ptr().align_offset(64);
                let acts = &mut acts[start..][..cols * layout.col_bytes()];
                acts.chunks_exact_mut(layout.col_bytes()).for_each(|out| kernels.quantize(layout, &x, out));
                let acts = Acts::new(layout, acts, cols);
                print!("{:8} {:8} {cols:5} ", ty.name(), kernels.isa().name());
                for bytes in [256 << 10, big.len()] {
                    let slow = kernels.isa() == Isa::Scalar || cols > 8;
                    let rows = bytes.min(if slow { 16 << 20 } else { bytes }) / row_bytes;
                    let w = MatRef::new(ty, &big[..rows * row_bytes], rows, k).expect("a matrix");
                    let mut out = vec![0.0f32; rows * cols];
                    let s = seconds(kernels, w, acts, &mut out);
                    let macs = (rows * k * cols) as f64;
                    print!(" {:10.2} {:10.1} ", (rows * row_bytes) as f64 / s / 1e9, macs / s / 1e9);
                }
                println!();
            }
        }
    }
}
