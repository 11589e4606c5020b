//! Fixed work for `bench/instructions.py`, which counts the instructions of each [`measured`] call
//! with callgrind.
//!
//! Prints one line a case: its name, and how many units (blocks of weights, and so on) one call
//! works on. To count another kernel, add a line to `main`.

use modelembed_gguf::TensorType;
use modelembed_kernels::{ActLayout, Acts, AttnInput, AttnState, Isa, Kernels, MatRef, Strided};

/// Rows of each matrix, and elements of a row: what a call has before and after its rows hardly
/// counts.
const ROWS: usize = 16;
const K: usize = 2048;

/// Callgrind collects in here only, and writes what it has collected each time this returns.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
    // Something to do behind the work: a jump in place of a call would never return here.
    std::hint::black_box(&work);
}

fn case(name: &str, units: usize, mut work: impl FnMut()) {
    println!("{name}\t{units}");
    measured(&mut work);
}

fn bytes(len: usize) -> Vec<u8> {
    // Below 0x3c in each byte, so that no f16 or f32 in it is infinite.
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 0x3c).collect()
}

fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

/// Row-dots of a type with some columns; a unit is a block, or 32 elements where there are none.
fn row_dot(kernels: &Kernels, ty: TensorType, n_cols: usize) {
    let data = bytes(ROWS * ty.row_bytes(K).expect("whole blocks"));
    let w = MatRef::new(ty, &data, ROWS, K).expect("a matrix");
    let layout = ActLayout::new(Kernels::act_kind(ty, false), K);
    let x = floats(K);
    let mut acts = vec![0u8; n_cols * layout.col_bytes()];
    acts.chunks_exact_mut(layout.col_bytes()).for_each(|out| kernels.quantize(layout, &x, out));
    let acts = Acts::new(layout, &acts, n_cols);
    let mut out = vec![0.0f32; ROWS * n_cols];
    case(&format!("row-dot {ty}, {n_cols} columns"), ROWS * K / ty.block_len().max(32), || {
        kernels.mul_rows(w, 0..ROWS, acts, &mut Strided { data: &mut out, stride: ROWS, rows: ROWS });
    });
}

/// Quantising activations; a unit is 32 elements.
fn quantize(kernels: &Kernels) {
    let layout = ActLayout::new(Kernels::act_kind(TensorType::Q4_0, false), K);
    let (x, mut out) = (floats(K), vec![0u8; layout.col_bytes()]);
    case("quantize", K / 32, || kernels.quantize(layout, &x, &mut out));
}

/// Attention of some queries over one head's cache, in halves or in integers; a unit is one query
/// at one position.
fn attend(kernels: &Kernels, head_dim: usize, n_q: usize) {
    let n_pos = 256;
    let halves: Vec<u16> = (0..n_pos * head_dim).map(|i| 0x2c00 + (i * 37 % 0x400) as u16).collect();
    let mut integers = vec![0; n_pos * head_dim];
    let heads = halves.chunks_exact(head_dim).zip(integers.chunks_exact_mut(head_dim));
    let scales: Vec<f32> = heads
        .map(|(halves, integers)| {
            let mut head = vec![0.0; head_dim];
            kernels.from_f16(halves, &mut head);
            kernels.to_i16(&head, integers)
        })
        .collect();
    let q = floats(n_q * head_dim);
    let (mut max, mut sum, mut acc) = (vec![0.0; n_q], vec![0.0; n_q], vec![0.0; n_q * head_dim]);
    let visible = vec![0..n_pos; n_q];
    let mut state = AttnState { max: &mut max, sum: &mut sum, acc: &mut acc };
    state.clear();
    case(&format!("attend, head of {head_dim}, {n_q} queries"), n_q * n_pos, || {
        let state = AttnState { max: &mut *state.max, sum: &mut *state.sum, acc: &mut *state.acc };
        let input = AttnInput {
            q: &q,
            head_dim,
            value_dim: head_dim,
            k: &halves,
            v: &halves,
            next: &[],
            visible: &visible,
            soft_cap: None,
            lines: &[],
        };
        kernels.attend(input, state);
    });
    case(&format!("attend to integers, head of {head_dim}, {n_q} queries"), n_q * n_pos, || {
        let state = AttnState { max: &mut *state.max, sum: &mut *state.sum, acc: &mut *state.acc };
        let input = AttnInput {
            q: &q,
            head_dim,
            value_dim: head_dim,
            k: &integers,
            v: &integers,
            next: &[],
            visible: &visible,
            soft_cap: None,
            lines: &[],
        };
        kernels.attend_i16(input, [&scales, &scales], state);
    });
}

fn main() {
    let Some(kernels) = Kernels::by_isa(Isa::Avx2) else {
        eprintln!("this CPU has no AVX2");
        std::process::exit(1);
    };
    for ty in TensorType::all().filter(|&ty| Kernels::supports(ty)) {
        for n_cols in [1, 4, 12] {
            row_dot(kernels, ty, n_cols);
        }
    }
    quantize(kernels);
    for n_q in [1, 4, 64] {
        attend(kernels, 64, n_q);
    }
}
