//! Whether a device's faster kernels compute what they should: drivers have lied about what they
//! can do. A small product is computed with them and compared with plain arithmetic here.

use modelembed_gguf::TensorType;

use crate::backend::{Backend, Columns, Op, Operand, Weight, half_words, int8_words};
use crate::error::Result;
use crate::kernels::Input;

const K: usize = 96;
/// Rounding of f32 is a thousandth of this, of elements up to 127 and 96 of them.
const BOUND: f64 = 0.05;

/// What rounding of four products as halves may come to besides, of sums up to 254, which halves
/// hold to 1 / 8.
const BOUND_OF_HALVES: f64 = 2.0;

/// Multiplies a Q8_0 matrix of some rows with some columns as `gpu` is set, with matrix units or
/// without. True if the products are right.
pub(crate) fn passes<G: Backend>(gpu: &G, input: Input, has_matrix: bool, rows: usize, n_cols: usize) -> Result<bool> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 as i8
    };
    let quants: Vec<i8> = (0..rows * K).map(|_| next()).collect();
    // Multiples of 1 / 127, and 1 in each block: 8-bit integers hold them without loss. So do
    // halves multiples of 1 / 128.
    let unit = if input == Input::Half { 128.0 } else { 127.0 };
    let x: Vec<f32> =
        (0..n_cols * K).map(|i| if i % 32 == 0 { 1.0 } else { f32::from(next().max(-127)) / unit }).collect();
    let w: Vec<u8> = quants
        .chunks_exact(32)
        .flat_map(|block| {
            let half = [0x00, 0x38]; // 0.5 as f16
            half.into_iter().chain(block.iter().map(|q| *q as u8))
        })
        .collect();
    let upload = |bytes: &[u8]| -> Result<_> {
        let buffer = gpu.alloc("the self-test", Weight::<()>::buffer_bytes(bytes.len() as u64))?;
        gpu.write(&buffer, 0, bytes)?;
        Ok(buffer)
    };
    let (w, x_buffer) = (upload(&w)?, upload(bytemuck::cast_slice(&x))?);
    let y = gpu.alloc("the self-test", (n_cols * rows * 4) as u64)?;
    let floats = Columns { buffer: x_buffer, first: 0, stride: K };
    let columns = |words: usize| -> Result<_> {
        Ok(Columns { buffer: gpu.alloc("the self-test", (n_cols * words * 4) as u64)?, first: 0, stride: words })
    };
    let mut ops = Vec::new();
    let operand = match input {
        Input::Float => Operand::Floats(floats),
        Input::Int8 => {
            let y = columns(int8_words(K))?;
            ops.push(Op::Quantize { x: floats, y: y.clone(), len: K, n_cols });
            Operand::Int8(y)
        }
        Input::Half => {
            let y = columns(half_words(K))?;
            ops.push(Op::Halve { x: floats, y: y.clone(), len: K, n_cols });
            Operand::Half(y)
        }
    };
    ops.push(Op::MatMul {
        w: Weight { buffer: w, ty: TensorType::Q8_0, rows, k: K },
        bias: None,
        x: operand,
        y: Columns { buffer: y.clone(), first: 0, stride: rows },
        n_cols,
    });
    gpu.run(&ops)?;
    let mut got = vec![0.0; n_cols * rows];
    gpu.read_f32(&y, 0, &mut got)?;
    let want = |c: usize, r: usize| -> f64 {
        let row = quants[r * K..][..K].iter().map(|q| 0.5 * f64::from(*q));
        row.zip(&x[c * K..][..K]).map(|(w, x)| w * f64::from(*x)).sum()
    };
    let sums_halves = input == Input::Half && !has_matrix;
    let bound = if sums_halves { BOUND_OF_HALVES } else { BOUND };
    Ok((0..n_cols).all(|c| (0..rows).all(|r| (f64::from(got[c * rows + r]) - want(c, r)).abs() < bound)))
}
