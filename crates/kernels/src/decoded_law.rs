//! The law of the panel for formats without functions of their own: it is right for every format,
//! those with offsets and minimums too, which today all have their own.

use modelembed_gguf::TensorType;

#[cfg(target_arch = "x86_64")]
use crate::avx2::any_format;
use crate::format::for_each_format;
use crate::functions::DotArgs;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use crate::neon::any_format;
use crate::{ActKind, ActLayout, Isa, Kernels, MatRef, Strided, scalar};

const ROWS: usize = 19;
const COLS: usize = 7;

/// Rows of a type that has f16 scales: random bits, and scales between 2^-4 and 2^-3.
fn random_rows(ty: TensorType, fields: &[usize], k: usize, next: &mut impl FnMut() -> u8) -> Vec<u8> {
    let mut rows: Vec<u8> = (0..ROWS * ty.row_bytes(k).unwrap()).map(|_| next()).collect();
    for block in rows.chunks_exact_mut(ty.block_bytes()) {
        for &at in fields {
            block[at + 1] = 0x2c | next() & 0x83;
        }
    }
    rows
}

#[test]
fn every_format_is_right_without_functions_of_its_own() {
    let isa = if cfg!(target_arch = "x86_64") { Isa::Avx2 } else { Isa::Neon };
    if !isa.is_available() {
        return;
    }
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut n_types = 0;
    macro_rules! types {
        ($($f:ident),*) => { [$(TensorType::$f),*] };
    }
    for ty in for_each_format!(types) {
        let Some(fields) = ty.f16_fields() else { continue };
        n_types += 1;
        // Longer than a panel, and cut within a step where blocks are short.
        let k = 2816 + if ty.block_len() < 256 { ty.block_len() } else { 0 };
        let w = random_rows(ty, fields, k, &mut next);
        let matrix = MatRef::new(ty, &w, ROWS, k).unwrap();
        let x: Vec<f32> = (0..COLS * k).map(|_| f32::from(next() as i8) / 16.0).collect();
        for kind in [ActKind::Q8, ActKind::F32] {
            let layout = ActLayout::new(kind, k);
            let mut acts = vec![0; COLS * layout.col_bytes()];
            for (x, out) in x.chunks_exact(k).zip(acts.chunks_exact_mut(layout.col_bytes())) {
                Kernels::best().quantize(layout, x, out);
            }
            let args = |cols: std::ops::Range<usize>| DotArgs {
                ty,
                w: &w,
                row_bytes: matrix.row_bytes(),
                n_rows: ROWS,
                acts: &acts[cols.start * layout.col_bytes()..cols.end * layout.col_bytes()],
                layout,
                n_cols: cols.len(),
            };
            let (row_dots, panel) = any_format(ty, kind);
            let [mut want, mut one, mut many] = [(); 3].map(|()| vec![0.0f32; ROWS * COLS]);
            // SAFETY: the CPU has the instructions; lengths are those of the shapes.
            unsafe {
                (scalar::MATRIX.row_dots)(ty, kind).unwrap()(&args(0..COLS), &mut want, ROWS);
                for (c, out) in one.chunks_exact_mut(ROWS).enumerate() {
                    row_dots(&args(c..c + 1), out, ROWS);
                }
                panel(&args(0..COLS), &mut Strided { data: &mut many, stride: ROWS, rows: ROWS });
            }
            let largest = want.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            for i in 0..want.len() {
                assert_eq!(one[i].to_bits(), many[i].to_bits(), "{ty} {kind:?}: product {i}");
                let error = (one[i] - want[i]).abs();
                assert!(error <= largest * 1e-4, "{ty} {kind:?}: product {i} is {} not {}", one[i], want[i]);
            }
        }
    }
    assert!(n_types > 10, "{n_types} types");
}
