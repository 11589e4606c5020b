//! The law: every table that this CPU has agrees with the scalar one and with naive arithmetic, for
//! every type.

use modelembed_gguf::TensorType;
use modelembed_kernels::{ACT_BLOCK, ActKind, ActLayout, Acts, Isa, Kernels, MatRef, Strided};

/// Relative to the sum of the terms' magnitudes. A row-dot rounds once for each 32 elements in each
/// of at least four lanes, so the expected error is near 1e-7.
const BOUND: f64 = 1e-6;

/// More columns than any table gives to row-dots: they go through panels.
const MANY_COLS: usize = 24;

/// A small generator (xorshift64*), so that cases are the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 40) as u8
    }

    /// Between -1 and 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A number that scales a block: how it is written, and its byte.
#[derive(Clone, Copy)]
enum Field {
    F16(usize),
    /// The upper four bits of each of four u16, the lowest first.
    F16InFourths(usize),
    /// A power of two.
    Exponent(usize),
    /// An 8-bit float with three bits of fraction.
    F8(usize),
}
use Field::{Exponent, F8, F16, F16InFourths};

/// The fields of a block, and the largest magnitude of `scale * q / d` of formats whose integers
/// kernels see with an offset (0: they have none). A type that is not named here fails.
fn fields(ty: TensorType) -> (&'static [Field], f64) {
    match ty {
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => (&[], 0.0),
        TensorType::Q4_0 => (&[F16(0)], 15.0),
        TensorType::Q4_1 => (&[F16(0), F16(2)], 15.0),
        TensorType::Q5_0 => (&[F16(0)], 31.0),
        TensorType::Q5_1 => (&[F16(0), F16(2)], 31.0),
        TensorType::Q8_0 => (&[F16(0)], 128.0),
        TensorType::Q2_K => (&[F16(80), F16(82)], 45.0),
        TensorType::Q3_K => (&[F16(108)], 7.0 * 32.0),
        TensorType::Q4_K => (&[F16(0), F16(2)], 15.0 * 63.0),
        TensorType::Q5_K => (&[F16(0), F16(2)], 31.0 * 63.0),
        TensorType::Q6_K => (&[F16(208)], 63.0 * 128.0),
        TensorType::MXFP4 => (&[Exponent(0)], 0.0),
        TensorType::NVFP4 => (&[F8(0), F8(1), F8(2), F8(3)], 0.0),
        TensorType::IQ4_NL | TensorType::IQ4_XS => (&[F16(0)], 0.0),
        TensorType::IQ3_S => (&[F16(0)], 30.0 * 31.0),
        TensorType::IQ3_XXS => (&[F16(0)], 124.0 * 7.75),
        TensorType::IQ2_S | TensorType::IQ2_XS | TensorType::IQ2_XXS => (&[F16(0)], 86.0 * 3.875),
        TensorType::IQ1_M => (&[F16InFourths(48)], 0.0),
        TensorType::IQ1_S => (&[F16(0)], 0.0),
        TensorType::TQ1_0 => (&[F16(52)], 0.0),
        TensorType::TQ2_0 => (&[F16(64)], 0.0),
        TensorType::Q1_0 | TensorType::Q2_0 => (&[F16(0)], 0.0),
        _ => panic!("where are the scales of {ty}?"),
    }
}

impl Field {
    /// Writes a random scale.
    fn choose(self, block: &mut [u8], scales: Scales, random: &mut Random) {
        match self {
            F16(_) | F16InFourths(_) => self.set_f16(block, random_f16(scales, random)),
            Exponent(at) => {
                block[at] = match scales {
                    Scales::Usual => 112 + random.below(16) as u8,
                    Scales::Zero => 0, // the least power, which stands for 2^-128
                    Scales::Tiny => random.below(3) as u8,
                    Scales::Huge => 200,
                }
            }
            F8(at) => {
                block[at] = match scales {
                    Scales::Usual => 0x10 + random.below(0x40) as u8,
                    Scales::Zero => 0x7f * random.below(2) as u8,
                    Scales::Tiny => 1 + random.below(7) as u8,
                    Scales::Huge => 0x7e,
                }
            }
        }
    }

    /// Writes 1, or 1/2.
    fn set_one(self, block: &mut [u8]) {
        match self {
            F16(_) | F16InFourths(_) => self.set_f16(block, 0x3c00),
            Exponent(at) => block[at] = 128,
            F8(at) => block[at] = 0x38,
        }
    }

    fn set_f16(self, block: &mut [u8], bits: u16) {
        match self {
            F16(at) => block[at..at + 2].copy_from_slice(&bits.to_le_bytes()),
            F16InFourths(at) => {
                for i in 0..4 {
                    let byte = &mut block[at + i * 2 + 1];
                    *byte = *byte & 15 | ((bits >> (i * 4) & 15) as u8) << 4;
                }
            }
            Exponent(_) | F8(_) => {}
        }
    }
}

/// Every type of the format but those that no file has weights in.
fn types() -> Vec<TensorType> {
    use TensorType::{F64, I8, I16, I32, I64, Q8_1, Q8_K};
    let (with, without): (Vec<_>, Vec<_>) = TensorType::all().partition(|&ty| Kernels::supports(ty));
    assert_eq!(without, [Q8_1, Q8_K, I8, I16, I32, I64, F64]);
    with
}

/// `n` runs of 32, or a little more: whole blocks of a type.
fn whole_blocks(ty: TensorType, n_runs: usize) -> usize {
    (n_runs * 32).next_multiple_of(ty.block_len())
}

/// How the scales of random blocks are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scales {
    Usual,
    Zero,
    /// Subnormal f16.
    Tiny,
    /// The largest f16, either sign.
    Huge,
}

const SCALES: [Scales; 4] = [Scales::Usual, Scales::Zero, Scales::Tiny, Scales::Huge];

fn random_f16(scales: Scales, random: &mut Random) -> u16 {
    let sign = (random.byte() as u16 & 1) << 15;
    sign | match scales {
        Scales::Usual => 0x1c00 + random.below(0x1400) as u16, // about 0.004 to 0.25
        Scales::Zero => 0,
        Scales::Tiny => 1 + random.below(0x3ff) as u16,
        Scales::Huge => 0x7bff,
    }
}

/// Random valid rows: every bit pattern except scales that are infinite or NaN.
fn random_rows(ty: TensorType, rows: usize, k: usize, scales: Scales, random: &mut Random) -> Vec<u8> {
    let mut data = vec![0u8; rows * ty.row_bytes(k).unwrap()];
    match ty {
        TensorType::F32 => data.chunks_exact_mut(4).for_each(|b| b.copy_from_slice(&random.unit().to_le_bytes())),
        TensorType::F16 => {
            data.chunks_exact_mut(2).for_each(|b| b.copy_from_slice(&random_f16(scales, random).to_le_bytes()));
        }
        TensorType::BF16 => {
            for b in data.chunks_exact_mut(2) {
                b.copy_from_slice(&((random.unit().to_bits() >> 16) as u16).to_le_bytes());
            }
        }
        _ => {
            for block in data.chunks_exact_mut(ty.block_bytes()) {
                block.iter_mut().for_each(|b| *b = random.byte());
                fields(ty).0.iter().for_each(|field| field.choose(block, scales, random));
            }
        }
    }
    data
}

fn random_columns(k: usize, n: usize, random: &mut Random) -> Vec<f32> {
    (0..k * n).map(|i| random.unit() * if i % 50 == 7 { 20.0 } else { 1.0 }).collect()
}

/// Bytes at an address that is odd: nothing may rely on alignment.
struct Unaligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Unaligned {
    fn new(data: &[u8]) -> Unaligned {
        let mut bytes = vec![0xff; data.len() + 2];
        let start = 1 - bytes.as_ptr() as usize % 2;
        bytes[start..start + data.len()].copy_from_slice(data);
        bytes.truncate(start + data.len());
        Unaligned { bytes, start }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

fn quantize(kernels: &Kernels, layout: ActLayout, x: &[f32]) -> Vec<u8> {
    let mut data = vec![0u8; x.len() / layout.k() * layout.col_bytes()];
    for (x, out) in x.chunks_exact(layout.k()).zip(data.chunks_exact_mut(layout.col_bytes())) {
        kernels.quantize(layout, x, out);
    }
    data
}

/// What a column of activations stands for, read as the layout is documented.
fn activations(layout: ActLayout, column: &[u8]) -> Vec<f64> {
    let float = |at: usize| f64::from(f32::from_ne_bytes(column[at..at + 4].try_into().unwrap()));
    let k = layout.k();
    match layout.kind() {
        ActKind::F32 => (0..k).map(|i| float(i * 4)).collect(),
        ActKind::Q8 => (0..k).map(|i| f64::from(column[i] as i8) * float(k + i / ACT_BLOCK * 4)).collect(),
    }
}

/// `(n_cols, n_rows)`.
fn products(kernels: &Kernels, w: MatRef<'_>, rows: std::ops::Range<usize>, acts: Acts<'_>) -> Vec<f32> {
    let n = rows.len();
    let mut out = vec![f32::NAN; n * acts.n_cols()];
    kernels.mul_rows(w, rows, acts, &mut Strided { data: &mut out, stride: n, rows: n });
    out
}

/// All rows of a matrix as every table dequantises them; the tables must agree to the bit (or be
/// both zero).
fn dequantized(w: MatRef<'_>, failures: &mut Vec<String>) -> Vec<f32> {
    let mut all = Vec::new();
    for kernels in Kernels::all() {
        let mut out = vec![0.0f32; w.rows() * w.k()];
        out.chunks_exact_mut(w.k()).enumerate().for_each(|(r, out)| kernels.dequantize_row(w, r, out));
        all.push(out);
    }
    for (kernels, out) in Kernels::all().zip(&all) {
        if let Some(i) = (0..out.len()).find(|&i| out[i] != all[0][i]) {
            failures.push(format!("{} {}: element {i} is {} not {}", kernels.isa(), w.ty(), out[i], all[0][i]));
        }
    }
    all.swap_remove(0)
}

fn kinds(ty: TensorType) -> Vec<ActKind> {
    let mut kinds = vec![Kernels::act_kind(ty, true), Kernels::act_kind(ty, false)];
    kinds.dedup();
    kinds
}

/// Every product against f64 arithmetic on the dequantised weights.
fn check(w: MatRef<'_>, x: &[f32], kind: ActKind, what: &str, failures: &mut Vec<String>) {
    let layout = ActLayout::new(kind, w.k());
    let weights = dequantized(w, failures);
    let n_cols = x.len() / w.k();
    for kernels in Kernels::all() {
        let data = quantize(kernels, layout, x);
        let data = Unaligned::new(&data);
        let out = products(kernels, w, 0..w.rows(), Acts::new(layout, data.get(), n_cols));
        for c in 0..n_cols {
            let column = activations(layout, &data.get()[c * layout.col_bytes()..]);
            for r in 0..w.rows() {
                let row = &weights[r * w.k()..][..w.k()];
                let exact: f64 = row.iter().zip(&column).map(|(&w, x)| f64::from(w) * x).sum();
                let bound = BOUND * magnitude(w, r, row, &column) + 1e-37;
                let got = f64::from(out[c * w.rows() + r]);
                let over_f32 = exact.abs() > f64::from(f32::MAX) * 0.99;
                if !over_f32 && ((got - exact).abs() > bound || got.is_nan()) {
                    let isa = kernels.isa();
                    let ty = w.ty();
                    failures
                        .push(format!("{isa} {ty} {kind:?} {what}: row {r} column {c}: {got} not {exact} +- {bound}"));
                    return;
                }
            }
        }
    }
}

/// The sum of the terms' magnitudes, with integers unsigned as kernels see them (their offset is
/// subtracted later).
fn magnitude(w: MatRef<'_>, r: usize, row: &[f32], column: &[f64]) -> f64 {
    let ty = w.ty();
    let (fields, largest) = fields(ty);
    let bytes = w.rows_data(r..r + 1);
    (0..w.k())
        .map(|i| {
            let block = &bytes[i / ty.block_len() * ty.block_bytes()..];
            let f16 = |field: Option<&Field>| match field {
                Some(&F16(at)) => f64::from(half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()).abs(),
                _ => 0.0,
            };
            let scale = f16(fields.first()) * largest;
            let offset = f16(fields.get(1)) * if largest > 64.0 { 63.0 } else { 15.0 };
            (f64::from(row[i]).abs() + scale + offset) * column[i].abs()
        })
        .sum()
}

fn report(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn products_equal_f64_arithmetic() {
    let mut random = Random(1);
    let mut failures = Vec::new();
    for ty in types() {
        for kind in kinds(ty) {
            let step = ty.block_len();
            for blocks in [1, 2, 3, 5, 7, 8, 9, 12, 17, 18] {
                let k = blocks * step;
                if kind == ActKind::Q8 && k > 4096 {
                    continue;
                }
                for (scales, rows) in SCALES.into_iter().zip([1, 3, 4, 9]) {
                    let data = random_rows(ty, rows, k, scales, &mut random);
                    let data = Unaligned::new(&data);
                    let w = MatRef::new(ty, data.get(), rows, k).unwrap();
                    let n_cols = 1 + random.below(20);
                    let x = random_columns(k, n_cols, &mut random);
                    check(w, &x, kind, &format!("k {k} {scales:?}"), &mut failures);
                }
            }
        }
    }
    report(failures);
}

#[test]
fn float_rows_may_have_any_length() {
    let mut random = Random(2);
    let mut failures = Vec::new();
    for ty in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        for k in [1, 7, 8, 31, 33, 255, 256, 257, 300, 576, 1031] {
            let data = random_rows(ty, 5, k, Scales::Usual, &mut random);
            let data = Unaligned::new(&data);
            let w = MatRef::new(ty, data.get(), 5, k).unwrap();
            check(w, &random_columns(k, 3, &mut random), ActKind::F32, &format!("k {k}"), &mut failures);
        }
    }
    report(failures);
}

/// One activation of 127 (so that its scale is exactly 1) among zeros picks out one weight: each
/// integer must arrive exactly.
#[test]
fn every_weight_meets_its_own_activation() {
    let mut random = Random(3);
    let mut failures = Vec::new();
    for ty in types() {
        let k = ty.block_len().max(32) * if ty.block_len() < 256 { 11 } else { 2 };
        let data = random_rows(ty, 1, k, Scales::Usual, &mut random);
        let w = MatRef::new(ty, &data, 1, k).unwrap();
        let weights = dequantized(w, &mut failures);
        for kind in kinds(ty) {
            let layout = ActLayout::new(kind, k);
            for kernels in Kernels::all() {
                for i in 0..k {
                    let mut x = vec![0.0f32; k];
                    x[i] = 127.0;
                    let acts = quantize(kernels, layout, &x);
                    let got = products(kernels, w, 0..1, Acts::new(layout, &acts, 1))[0];
                    let column = activations(layout, &acts);
                    let bound = 2e-7 * magnitude(w, 0, &weights, &column);
                    if f64::from(got - weights[i] * 127.0).abs() > bound {
                        failures.push(format!(
                            "{} {ty} {kind:?}: weight {i}: {got} not {}",
                            kernels.isa(),
                            weights[i] * 127.0
                        ));
                    }
                }
            }
        }
    }
    report(failures);
}

/// All-ones and all-zeros bits against activations of the largest integers: sums of narrow integers
/// must not saturate.
#[test]
fn largest_integers_do_not_saturate() {
    let mut failures = Vec::new();
    for ty in types().into_iter().filter(|ty| ty.block_len() > 1) {
        let k = ty.block_len() * if ty.block_len() < 256 { 10 } else { 2 };
        for (name, pattern) in [("ones", 0xffu8), ("zeros", 0), ("0x80", 0x80), ("0x7f", 0x7f)] {
            let mut data = vec![pattern; ty.row_bytes(k).unwrap()];
            for block in data.chunks_exact_mut(ty.block_bytes()) {
                fields(ty).0.iter().for_each(|field| field.set_one(block));
            }
            let w = MatRef::new(ty, &data, 1, k).unwrap();
            let columns = [|_| 1.0f32, |_| -1.0, |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 }];
            let x: Vec<f32> = columns.iter().flat_map(|f| (0..k).map(f)).collect();
            check(w, &x, ActKind::Q8, name, &mut failures);
            check(w, &x.repeat(MANY_COLS / columns.len()), ActKind::Q8, name, &mut failures);
        }
    }
    report(failures);
}

/// A product's bits depend on its row and column alone.
#[test]
fn results_do_not_depend_on_the_split() {
    let mut random = Random(4);
    let mut failures = Vec::new();
    for ty in types() {
        // The second row is longer than a panel, which is cut there, and ends within a step of
        // kernels.
        for (runs, n_rows) in [(19usize, 71), (131, 35)] {
            let k = whole_blocks(ty, runs);
            let n_cols = 21;
            let data = random_rows(ty, n_rows, k, Scales::Usual, &mut random);
            let w = MatRef::new(ty, &data, n_rows, k).unwrap();
            for kind in kinds(ty) {
                let layout = ActLayout::new(kind, k);
                let x = random_columns(k, n_cols, &mut random);
                for kernels in Kernels::all() {
                    let acts = quantize(kernels, layout, &x);
                    let whole = products(kernels, w, 0..n_rows, Acts::new(layout, &acts, n_cols));
                    for _ in 0..12 {
                        let first = random.below(n_rows);
                        let rows = first..first + 1 + random.below(n_rows - first);
                        let col = random.below(n_cols);
                        let cols = col..col + 1 + random.below(n_cols - col);
                        let part = &acts[col * layout.col_bytes()..];
                        let got = products(kernels, w, rows.clone(), Acts::new(layout, part, cols.len()));
                        let same = cols.clone().enumerate().all(|(i, c)| {
                            let want = &whole[c * n_rows..][rows.clone()];
                            got[i * rows.len()..][..rows.len()]
                                .iter()
                                .zip(want)
                                .all(|(a, b)| a.to_bits() == b.to_bits())
                        });
                        if !same {
                            failures.push(format!("{} {ty} {kind:?}: rows {rows:?} columns {cols:?}", kernels.isa()));
                        }
                    }
                }
            }
        }
    }
    report(failures);
}

#[test]
fn quantised_activations_are_the_same_bytes_in_every_table() {
    let mut random = Random(5);
    // Two groups of the sixteen runs that AVX-512 takes together, and a rest. The odd runs stand in
    // each of them.
    let k = 32 * (2 * 16 + 13);
    let layout = ActLayout::new(ActKind::Q8, k);
    let mut x = random_columns(k, 1, &mut random);
    let mut not_finite = Vec::new();
    for first in [0, 16 + 3, 32] {
        let x = &mut x[first * 32..][..12 * 32];
        x[..32].fill(0.0);
        x[32..64].iter_mut().for_each(|x| *x *= 1e-38);
        x[64..96].iter_mut().for_each(|x| *x *= 1e37);
        x[100] = f32::NAN;
        x[130] = f32::NEG_INFINITY;
        x[160..192].iter_mut().enumerate().for_each(|(i, x)| *x = i as f32 - 15.5); // ties
        x[191] = 127.0;
        // Around the least magnitude that counts.
        for (run, amax) in [(6, 0.999e-36), (7, 1e-36), (8, 1.001e-36), (9, -1e-36)] {
            x[run * 32..][..32].fill(amax / 3.0);
            x[run * 32 + 17] = amax;
        }
        x[10 * 32 + 31] = f32::INFINITY;
        x[11 * 32] = -f32::NAN;
        not_finite.extend([3, 4, 10, 11].map(|run| first + run));
    }
    let mut outputs = Kernels::all().map(|kernels| {
        let mut out = vec![0u8; layout.col_bytes()];
        kernels.quantize(layout, &x, &mut out);
        (kernels.isa(), out)
    });
    let (_, want) = outputs.next().unwrap();
    // The documented layout, read naively.
    let float = |at: usize| f32::from_ne_bytes(want[at..at + 4].try_into().unwrap());
    for b in 0..k / 32 {
        let run = &x[b * 32..][..32];
        let scale = float(k + b * 4);
        if not_finite.contains(&b) {
            assert!(scale.is_nan(), "run {b} holds {run:?}");
            continue;
        }
        let q: Vec<f64> = want[b * 32..][..32].iter().map(|&q| f64::from(q as i8)).collect();
        for (x, q) in run.iter().zip(&q) {
            let error = (f64::from(*x) - q * f64::from(scale)).abs();
            assert!(error <= f64::from(scale) * 0.5001 + 1e-36, "run {b}: {x} became {q} * {scale}");
        }
        for (at, sum) in [
            (k + k / 32 * 4 + b * 4, q.iter().sum::<f64>()),
            (k + k / 32 * 8 + b * 8, q[..16].iter().sum()),
            (k + k / 32 * 8 + b * 8 + 4, q[16..].iter().sum()),
        ] {
            assert_eq!(float(at), scale * sum as f32, "run {b}, sum at {at}");
        }
    }
    for (isa, out) in outputs {
        assert!(out == want, "{isa}");
    }
}

/// The tables of one architecture differ in how integers are multiplied, which is exact: everything
/// else is the same arithmetic. Only AVX-512 adds quantised weights up in an order of its own, and
/// takes centres off in integers.
#[test]
fn tables_of_one_architecture_give_the_same_bits() {
    let tables: Vec<_> = Kernels::all().filter(|k| k.isa() != Isa::Scalar).collect();
    let mut random = Random(7);
    let mut failures = Vec::new();
    for ty in types() {
        // The last is longer than a panel, which is cut there.
        for (n_cols, runs) in [(1, 11usize), (2, 11), (3, 11), (7, 11), (23, 11), (14, 131)] {
            let k = whole_blocks(ty, runs);
            let data = random_rows(ty, 41, k, Scales::Usual, &mut random);
            let w = MatRef::new(ty, &data, 41, k).unwrap();
            for kind in kinds(ty) {
                let layout = ActLayout::new(kind, k);
                let acts = quantize(tables[0], layout, &random_columns(k, n_cols, &mut random));
                let bits = |kernels| {
                    let products = products(kernels, w, 0..41, Acts::new(layout, &acts, n_cols));
                    products.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                };
                let want = bits(tables[0]);
                for kernels in &tables[1..] {
                    // `results_do_not_depend_on_the_split` compares its panels with its row-dots.
                    let own_order = kernels.isa() == Isa::Avx512 && kind == ActKind::Q8;
                    if !own_order && bits(kernels) != want {
                        failures.push(format!("{} {ty} {kind:?}, {n_cols} columns", kernels.isa()));
                    }
                }
            }
        }
    }
    report(failures);
}

#[test]
fn bad_activations_show_in_every_product() {
    for ty in types() {
        let k = ty.block_len().max(32) * 2;
        let data = random_rows(ty, 4, k, Scales::Usual, &mut Random(6));
        let w = MatRef::new(ty, &data, 4, k).unwrap();
        for kind in kinds(ty) {
            let layout = ActLayout::new(kind, k);
            for kernels in Kernels::all() {
                let mut x = vec![0.5f32; k];
                x[k - 1] = f32::NAN;
                let out = products(kernels, w, 0..4, Acts::new(layout, &quantize(kernels, layout, &x), 1));
                assert!(out.iter().all(|x| x.is_nan()), "{} {ty} {kind:?}: {out:?}", kernels.isa());
                // In one of many columns, which go through a panel: in its own products alone.
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut x = vec![0.5f32; MANY_COLS * k];
                    x[7 * k + k / 2] = bad;
                    let out = products(kernels, w, 0..4, Acts::new(layout, &quantize(kernels, layout, &x), MANY_COLS));
                    for (c, column) in out.chunks_exact(4).enumerate() {
                        assert!(
                            column.iter().all(|x| x.is_finite() == (c != 7)),
                            "{} {ty} {kind:?}, {bad}, column {c}",
                            kernels.isa()
                        );
                    }
                }
            }
        }
    }
}
