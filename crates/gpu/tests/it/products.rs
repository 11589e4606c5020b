//! Matrix products of every format against the scalar reference, in every variant of the device.

use modelembed_gguf::TensorType;
use modelembed_gpu::{
    Backend, Gpu, GpuOptions, Limits, MatrixUnits, Op, Operand, Weight, half_words, int8_words, supports,
    supports_half, supports_int8,
};
use modelembed_kernels::{ActKind, ActLayout, Acts, Isa, Kernels, MatRef, Strided};
use modelembed_testkit::{Rng, random_tensor};

use crate::common::{bytes_of, columns, floats, upload, variants};

/// (columns, rows) of y.
fn reference(ty: TensorType, w: &[u8], rows: usize, k: usize, x: &[f32]) -> Vec<f32> {
    let kernels = Kernels::by_isa(Isa::Scalar).expect("the scalar table");
    let mat = MatRef::new(ty, w, rows, k).expect("a matrix");
    let layout = ActLayout::new(ActKind::F32, k);
    let n = x.len() / k;
    let mut acts = vec![0; n * layout.col_bytes()];
    for (x, out) in x.chunks_exact(k).zip(acts.chunks_exact_mut(layout.col_bytes())) {
        kernels.quantize(layout, x, out);
    }
    let mut y = vec![0.0; n * rows];
    kernels.mul_rows(mat, 0..rows, Acts::new(layout, &acts, n), &mut Strided { data: &mut y, stride: rows, rows });
    y
}

/// Largest error, in units of the product of the lengths of row and column: what rounding of a sum
/// is relative to.
fn error(got: &[f32], want: &[f32], w: MatRef<'_>, x: &[f32]) -> f64 {
    let kernels = Kernels::by_isa(Isa::Scalar).expect("the scalar table");
    let length = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let mut row = vec![0.0; w.k()];
    let rows: Vec<f64> = (0..w.rows())
        .map(|r| {
            kernels.dequantize_row(w, r, &mut row);
            length(&row)
        })
        .collect();
    let columns: Vec<f64> = x.chunks_exact(w.k()).map(length).collect();
    let scales = columns.iter().flat_map(|c| rows.iter().map(move |r| r * c + 1e-3));
    let errors = got.iter().zip(want).zip(scales).map(|((g, w), s)| (f64::from(*g) - f64::from(*w)).abs() / s);
    errors.fold(0.0, |worst, e| if e.is_nan() || e > worst { e } else { worst })
}

#[allow(clippy::too_many_arguments, reason = "a table's row")]
fn check(
    name: &str,
    gpu: &Gpu,
    ty: TensorType,
    rows: usize,
    k: usize,
    n: usize,
    bias: bool,
    failures: &mut Vec<String>,
) {
    let mut rng = Rng::for_name(7, &format!("{ty} {rows} {k} {n}"));
    let w = random_tensor(ty, rows, k, 0.05, &mut rng);
    let x: Vec<f32> = (0..n * k).map(|_| rng.normal()).collect();
    let b: Vec<f32> = (0..rows).map(|_| rng.normal()).collect();
    let mut want = reference(ty, &w, rows, k, &x);
    if bias {
        want.chunks_exact_mut(rows).for_each(|y| y.iter_mut().zip(&b).for_each(|(y, b)| *y += b));
    }
    // Columns lie among others, whose NaN must not get in.
    let (x_first, x_stride, y_first, y_stride) = (5, k + 3, 2, rows + 1);
    let mut spread = vec![f32::NAN; x_first + n * x_stride + 8];
    for (c, x) in x.chunks_exact(k).enumerate() {
        spread[x_first + c * x_stride..][..k].copy_from_slice(x);
    }
    let y = upload(gpu, &bytes_of(&vec![7.0; y_first + n * y_stride]));
    let op = Op::MatMul {
        w: Weight { buffer: upload(gpu, &w), ty, rows, k },
        bias: bias.then(|| upload(gpu, &bytes_of(&b))),
        x: Operand::Floats(columns(&upload(gpu, &bytes_of(&spread)), x_first, x_stride)),
        y: columns(&y, y_first, y_stride),
        n_cols: n,
    };
    if let Err(e) = gpu.run(&[op]) {
        failures.push(format!("{name}: {ty} {rows}x{k}, {n} columns: {e}"));
        return;
    }
    let all = floats(gpu, &y, y_first + n * y_stride);
    let got: Vec<f32> = (0..n).flat_map(|c| all[y_first + c * y_stride..][..rows].to_vec()).collect();
    let untouched =
        all[..y_first].iter().all(|v| *v == 7.0) && (0..n).all(|c| all[y_first + c * y_stride + rows] == 7.0);
    let mat = MatRef::new(ty, &w, rows, k).expect("a matrix");
    let e = error(&got, &want, mat, &x);
    if e.is_nan() || e > 1e-6 || !untouched {
        failures.push(format!(
            "{name}: {ty} {rows}x{k}, {n} columns, bias {bias}: error {e:.2e}, rest untouched {untouched}"
        ));
    }
}

#[test]
fn products_of_every_format_equal_the_scalar_reference() {
    let mut failures = Vec::new();
    let types: Vec<TensorType> = TensorType::all().filter(|&ty| supports(ty)).collect();
    assert!(types.len() >= 13 && types.iter().all(|&ty| Kernels::supports(ty)), "{types:?}");
    for (name, gpu) in variants() {
        for &ty in &types {
            let block = ty.block_len();
            // An odd number of blocks puts every other row at an odd word.
            for (rows, blocks) in [(1, 1), (37, 3), (70, 2)] {
                let k = if block == 1 { 64 * blocks } else { block * blocks };
                for n in [1, 2, 7, 9, 33] {
                    check(name, &gpu, ty, rows, k, n, n % 2 == 1, &mut failures);
                }
            }
            if block == 1 {
                for k in [1, 7, 54, 77] {
                    check(name, &gpu, ty, 13, k, 1, false, &mut failures);
                    check(name, &gpu, ty, 13, k, 3, true, &mut failures);
                    check(name, &gpu, ty, 13, k, 12, true, &mut failures);
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_matrix_beyond_a_binding_is_multiplied_in_slices() {
    let mut failures = Vec::new();
    for (name, gpu) in variants() {
        // 19 MB, 70000 rows: more than 16 MiB, more than 65535 workgroups, and rows of 272 bytes,
        // which no alignment divides.
        check(
            name,
            &gpu,
            TensorType::Q8_0,
            if name.contains("KiB") { 2000 } else { 70_000 },
            256,
            1,
            true,
            &mut failures,
        );
        check(name, &gpu, TensorType::Q6_K, 1500, 256, 10, true, &mut failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_row_that_no_binding_holds_is_refused() {
    for (_, gpu) in variants().into_iter().filter(|(name, _)| name.contains("KiB")) {
        let k = 65536;
        let buffer = gpu.alloc("w", 4 * k as u64).expect("memory");
        let x = gpu.alloc("x", 4).expect("memory");
        let op = Op::MatMul {
            w: Weight { buffer, ty: TensorType::F32, rows: 1, k },
            bias: None,
            x: Operand::Floats(columns(&x, 0, k)),
            y: columns(&x, 0, 1),
            n_cols: 1,
        };
        let error = gpu.run(&[op]).expect_err("a limit").to_string();
        assert!(error.contains("largest binding"), "{error}");
    }
}

#[test]
fn products_of_8_bit_integers_are_those_of_the_numbers_that_they_stand_for() {
    let mut failures = Vec::new();
    for (name, gpu) in variants().into_iter().filter(|(name, _)| !name.contains("MiB")) {
        for ty in TensorType::all().filter(|&t| supports_int8(t)) {
            let (rows, k) = (37, 3 * ty.block_len().max(32));
            for n in [1, 2, 8, 9, 35] {
                let mut rng = Rng::for_name(9, &format!("{ty} {n}"));
                let w = random_tensor(ty, rows, k, 0.05, &mut rng);
                let mut x: Vec<f32> = (0..n * k).map(|_| rng.normal()).collect();
                x[..32].fill(0.0);
                // What blocks of 32 pairs of integers and a scale make of it.
                let rounded: Vec<f32> = x
                    .chunks_exact(32)
                    .flat_map(|block| {
                        let scale = block.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
                        block.iter().map(move |x| {
                            let high = (x / scale).round();
                            let low = ((x / scale - high) * 254.0).round() / 254.0;
                            if scale > 0.0 { (high + low) * scale } else { 0.0 }
                        })
                    })
                    .collect();
                let want = reference(ty, &w, rows, k, &rounded);
                let y = upload(&gpu, &bytes_of(&vec![7.0; n * rows]));
                let (from, stride) = (upload(&gpu, &bytes_of(&x)), int8_words(k));
                let int8 = gpu.alloc("integers", (n * stride * 4) as u64).expect("memory");
                let product = Op::MatMul {
                    w: Weight { buffer: upload(&gpu, &w), ty, rows, k },
                    bias: None,
                    x: Operand::Int8(columns(&int8, 0, stride)),
                    y: columns(&y, 0, rows),
                    n_cols: n,
                };
                let quantize =
                    Op::Quantize { x: columns(&from, 0, k), y: columns(&int8, 0, stride), len: k, n_cols: n };
                gpu.run(&[quantize, product]).expect("runs");
                let e = error(&floats(&gpu, &y, n * rows), &want, MatRef::new(ty, &w, rows, k).expect("a matrix"), &x);
                // A number halfway between two integers may go to either: less than a 127 * 254th
                // of one element.
                if e.is_nan() || e > 5e-6 {
                    failures.push(format!("{name}: {ty}, {n} columns: error {e:.2e}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn integers_with_weights_that_are_none_are_refused() {
    let Some((_, gpu)) = variants().into_iter().next() else { return };
    let buffer = gpu.alloc("all", 4096).expect("memory");
    let product = |ty| Op::MatMul {
        w: Weight { buffer: buffer.clone(), ty, rows: 1, k: 32 },
        bias: None,
        x: Operand::Int8(columns(&buffer, 0, int8_words(32))),
        y: columns(&buffer, 0, 1),
        n_cols: 1,
    };
    for ty in [TensorType::F16, TensorType::BF16, TensorType::F32] {
        let error = gpu.run(&[product(ty)]).expect_err("refused").to_string();
        assert!(error.contains("8-bit"), "{error}");
    }
}

#[test]
fn slices_of_rows_give_the_bits_of_the_whole_with_8_bit_integers() {
    let Some(choice) = crate::common::choice() else { return };
    let (rows, bindings) = (301, 32 << 10);
    let mut failures = Vec::new();
    for (name, lanes, subgroups) in [("a thread a row", 1, false), ("16 lanes", 16, false), ("subgroups", 1, true)] {
        let open = |max_binding_bytes| {
            let options = GpuOptions {
                choice: choice.clone(),
                max_binding_bytes,
                subgroups: Some(subgroups),
                lanes: Some(lanes),
                int8: Some(true),
                ..GpuOptions::default()
            };
            let gpu = Gpu::open(&options).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(gpu.limits().int8, "{name}: 8-bit integers failed the self-test");
            gpu
        };
        let (whole, sliced) = (open(None), open(Some(bindings)));
        for ty in TensorType::all().filter(|&t| supports_int8(t)) {
            let k = 768;
            let row_bytes = ty.row_bytes(k).expect("whole blocks");
            assert!(rows * row_bytes > 2 * bindings as usize, "{ty}: one slice holds it");
            let mut rng = Rng::for_name(11, &format!("{ty}"));
            let w = random_tensor(ty, rows, k, 0.05, &mut rng);
            let bias: Vec<f32> = (0..rows).map(|_| rng.normal()).collect();
            // By a kernel for one column, for few and for many.
            for n in [1, 3, 10] {
                let x: Vec<f32> = (0..n * k).map(|_| rng.normal()).collect();
                // Rows from a `cut` on are a matrix of their own, as where a buffer does not hold
                // all.
                let run = |gpu: &Gpu, cuts: &[usize]| {
                    let y = gpu.alloc("y", (n * rows * 4) as u64).expect("memory");
                    let int8 = gpu.alloc("integers", (n * int8_words(k) * 4) as u64).expect("memory");
                    let int8 = columns(&int8, 0, int8_words(k));
                    let x = columns(&upload(gpu, &bytes_of(&x)), 0, k);
                    let mut ops = vec![Op::Quantize { x, y: int8.clone(), len: k, n_cols: n }];
                    for (i, &first) in cuts.iter().enumerate() {
                        let end = cuts.get(i + 1).copied().unwrap_or(rows);
                        let buffer = upload(gpu, &w[first * row_bytes..end * row_bytes]);
                        ops.push(Op::MatMul {
                            w: Weight { buffer, ty, rows: end - first, k },
                            bias: Some(upload(gpu, &bytes_of(&bias[first..end]))),
                            x: Operand::Int8(int8.clone()),
                            y: columns(&y, first, rows),
                            n_cols: n,
                        });
                    }
                    gpu.run(&ops).expect("runs");
                    floats(gpu, &y, n * rows).iter().map(|v| v.to_bits()).collect::<Vec<_>>()
                };
                let want = run(&whole, &[0]);
                let varied = want.iter().collect::<std::collections::HashSet<_>>().len() > rows / 2;
                for (what, got) in [
                    ("in bindings of 32 KiB", run(&sliced, &[0])),
                    ("as three matrices", run(&whole, &[0, 77, 130])),
                    ("as three matrices in such bindings", run(&sliced, &[0, 77, 130])),
                ] {
                    let n_wrong = got.iter().zip(&want).filter(|(a, b)| a != b).count();
                    if n_wrong > 0 || !varied {
                        failures.push(format!("{name}: {ty}, {n} columns, {what}: {n_wrong} of {} differ", want.len()));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

/// Devices that multiply halves in tiles and, where there are such, by matrix units; with whether
/// sums are f32 throughout.
fn of_halves() -> Vec<(&'static str, Gpu, bool)> {
    let Some(choice) = crate::common::choice() else { return Vec::new() };
    let open = |name, matrix, max_binding_bytes| {
        let options = GpuOptions {
            choice: choice.clone(),
            f16: Some(true),
            matrix: Some(matrix),
            max_binding_bytes,
            ..GpuOptions::default()
        };
        (name, Gpu::open(&options).unwrap_or_else(|e| panic!("{name}: {e}")), matrix)
    };
    let all = [
        open("tiles", false, None),
        open("tiles, 64 KiB bindings", false, Some(64 << 10)),
        open("matrix units", true, None),
        open("matrix units, 64 KiB bindings", true, Some(64 << 10)),
    ];
    let required = std::env::var_os("MODELEMBED_REQUIRE_MATRIX").is_some();
    let can = |gpu: &Gpu, matrix: bool| if matrix { gpu.limits().matrix.is_some() } else { gpu.limits().f16 };
    let (there, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, gpu, matrix)| can(gpu, *matrix));
    for (name, _, matrix) in missing {
        assert!(!(matrix && required), "no {name}, and MODELEMBED_REQUIRE_MATRIX is set");
        eprintln!("skipped: {name}, which this device does not have or computes wrongly");
    }
    there
}

#[test]
fn products_of_halves_are_as_exact_as_halves() {
    let mut failures = Vec::new();
    for (name, gpu, sums_f32) in of_halves() {
        let mut worst = 0f64;
        for ty in TensorType::all().filter(|&t| supports_half(t)) {
            let k = 3 * ty.block_len().max(32);
            // In small bindings as many rows as fill several.
            let shapes = [(1, 9, false), (37, 35, true), (130, 75, false), (500, 9, true)];
            for (rows, n, bias) in if name.contains("KiB") { &shapes[3..] } else { &shapes[..3] }.iter().copied() {
                let mut rng = Rng::for_name(13, &format!("{ty} {rows} {n}"));
                let w = random_tensor(ty, rows, k, 0.05, &mut rng);
                let mut x: Vec<f32> = (0..n * k).map(|_| rng.normal()).collect();
                // Beyond the range of halves, far below it, nothing, and very unequal ones.
                x[..k].iter_mut().for_each(|v| *v *= 1e30);
                x[k..2 * k].iter_mut().for_each(|v| *v *= 1e-30);
                x[2 * k..3 * k].fill(0.0);
                x[3 * k..4 * k].iter_mut().step_by(2).for_each(|v| *v *= 1e-3);
                let b: Vec<f32> = (0..rows).map(|_| rng.normal()).collect();
                // Columns lie among others, whose NaN must not get in, and so do products.
                let (x_first, x_stride, h_first, h_stride) = (5, k + 3, 3, half_words(k) + 2);
                let (y_first, y_stride) = (2, rows + 1);
                let mut spread = vec![f32::NAN; x_first + n * x_stride];
                for (c, x) in x.chunks_exact(k).enumerate() {
                    spread[x_first + c * x_stride..][..k].copy_from_slice(x);
                }
                let y = upload(&gpu, &bytes_of(&vec![7.0; y_first + n * y_stride]));
                let halves = gpu.alloc("halves", ((h_first + n * h_stride) * 4) as u64).expect("memory");
                let halves = columns(&halves, h_first, h_stride);
                let from = columns(&upload(&gpu, &bytes_of(&spread)), x_first, x_stride);
                let product = Op::MatMul {
                    w: Weight { buffer: upload(&gpu, &w), ty, rows, k },
                    bias: bias.then(|| upload(&gpu, &bytes_of(&b))),
                    x: Operand::Half(halves.clone()),
                    y: columns(&y, y_first, y_stride),
                    n_cols: n,
                };
                gpu.run(&[Op::Halve { x: from, y: halves, len: k, n_cols: n }, product]).expect("runs");
                let all = floats(&gpu, &y, y_first + n * y_stride);
                let mut want = reference(ty, &w, rows, k, &x);
                if bias {
                    want.chunks_exact_mut(rows).for_each(|y| y.iter_mut().zip(&b).for_each(|(y, b)| *y += b));
                }
                let mat = MatRef::new(ty, &w, rows, k).expect("a matrix");
                let untouched = all[..y_first].iter().all(|v| *v == 7.0)
                    && (0..n).all(|c| all[y_first + c * y_stride + rows] == 7.0);
                let got: Vec<f32> = (0..n).flat_map(|c| all[y_first + c * y_stride..][..rows].to_vec()).collect();
                let e = error(&got, &want, mat, &x);
                worst = worst.max(e);
                // Both factors are rounded to 2^-12 at most; where four products are summed as
                // halves so are these.
                let bound = if sums_f32 { 3e-4 } else { 6e-4 };
                if e.is_nan() || e > bound || !untouched {
                    failures
                        .push(format!("{name}: {ty} {rows}x{k}, {n} columns: error {e:.2e}, untouched {untouched}"));
                }
            }
        }
        println!("{name}: error {worst:.2e} at most");
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn halves_where_they_have_no_kernel_are_refused() {
    for (name, gpu, _) in of_halves() {
        let buffer = gpu.alloc("all", 1 << 16).expect("memory");
        let product = |ty, n_cols| Op::MatMul {
            w: Weight { buffer: buffer.clone(), ty, rows: 1, k: 32 },
            bias: None,
            x: Operand::Half(columns(&buffer, 0, half_words(32))),
            y: columns(&buffer, 0, 1),
            n_cols,
        };
        for (ty, n_cols) in [(TensorType::F32, 9), (TensorType::BF16, 9), (TensorType::Q8_0, 8)] {
            let error = gpu.run(&[product(ty, n_cols)]).expect_err(name).to_string();
            assert!(error.contains("halves"), "{name}: {error}");
        }
    }
}

#[test]
fn halves_are_preferred_where_nothing_better_is_there() {
    let Some((_, gpu)) = variants().into_iter().next() else { return };
    let units = MatrixUnits { size: 16, threads: 128, subgroups: 4 };
    let limits = |int8, f16, has_units: bool| Limits { int8, f16, matrix: has_units.then_some(units), ..*gpu.limits() };
    let (q8_0, f16, f32) = (TensorType::Q8_0, TensorType::F16, TensorType::F32);
    let rows = [
        ("nothing", limits(false, false, false), q8_0, 64, false),
        ("integers", limits(true, true, false), q8_0, 64, false),
        ("integers, but no such weights", limits(true, true, false), f16, 64, true),
        ("integers that are wrong", limits(false, true, false), q8_0, 64, true),
        ("units", limits(true, false, true), q8_0, 64, true),
        ("units, but weights beyond the range of halves", limits(true, true, true), f32, 64, false),
        ("units, but no whole blocks", limits(true, true, true), f16, 77, false),
    ];
    let failed: Vec<_> = rows.iter().filter(|(_, l, ty, k, want)| l.prefers_half(*ty, *k) != *want).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
