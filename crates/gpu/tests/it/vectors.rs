//! Norms, rotary embedding, activations, attention and the cache against plain loops in f64.

use half::f16;
use modelembed_gpu::{Backend, Gpu, GpuOptions, KvCache, Op, TOP_K, Vectors, cache_row_bytes, top_k_temp_bytes};
use modelembed_kernels::{Isa, Kernels};
use modelembed_terms::{Activation, CacheType, RopeStyle};
use modelembed_testkit::{Rng, diff};

use crate::common::{bytes_of, choice, columns, floats, gpu, upload};

const CACHE_TYPES: [CacheType; 4] = [CacheType::I16, CacheType::F16, CacheType::Q8, CacheType::F32];

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.normal()).collect()
}

fn close(what: &str, got: &[f32], want: &[f32], bound: f64, failures: &mut Vec<String>) {
    let d = diff(got, want);
    if d.max_abs > bound || d.max_abs.is_nan() {
        failures.push(format!("{what}: {d}"));
    }
}

fn report(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn norms_equal_f64_arithmetic_also_in_place() {
    let Some(gpu) = gpu() else { return };
    let mut failures = Vec::new();
    for (len, per_col, n) in [(1, 1, 1), (18, 3, 5), (64, 4, 7), (77, 1, 3), (640, 1, 2), (4096, 1, 1)] {
        let stride = len * per_col + 3;
        let (x, weight) = (random(n * stride, 1), random(len, 2));
        let mut want = x.clone();
        for c in 0..n {
            for v in want[c * stride..][..len * per_col].chunks_exact_mut(len) {
                let mean = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / len as f64;
                let scale = 1.0 / (mean + f64::from(1e-5f32)).sqrt();
                v.iter_mut().zip(&weight).for_each(|(x, w)| *x = (f64::from(*x) * scale * f64::from(*w)) as f32);
            }
        }
        let (buffer, weight) = (upload(&gpu, &bytes_of(&x)), upload(&gpu, &bytes_of(&weight)));
        for in_place in [false, true] {
            let out = if in_place { buffer.clone() } else { upload(&gpu, &bytes_of(&x)) };
            let x = Vectors { columns: columns(&buffer, 0, stride), per_col };
            gpu.run(&[Op::RmsNorm {
                x,
                y: columns(&out, 0, stride),
                weight: weight.clone(),
                len,
                eps: 1e-5,
                n_cols: n,
            }])
            .expect("runs");
            close(&format!("{len} x {per_col} x {n}"), &floats(&gpu, &out, want.len()), &want, 4e-6, &mut failures);
        }
    }
    report(failures);
}

#[test]
fn sums_and_activations_equal_f64_arithmetic() {
    let Some(gpu) = gpu() else { return };
    let mut failures = Vec::new();
    for len in [1, 63, 64, 1000, 70_001] {
        let mut gate: Vec<f32> = random(len, 3).iter().map(|x| 3.0 * x).collect();
        for (gate, nasty) in gate.iter_mut().zip([-200.0, 200.0, 1e5, -1e5, 0.0]) {
            *gate = nasty;
        }
        let up = random(len, 4);
        let silu = |g: f64| g / (1.0 + (-g).exp());
        let gelu = |g: f64| 0.5 * g * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3))).tanh());
        let want = |f: &dyn Fn(f64) -> f64| -> Vec<f32> {
            gate.iter().zip(&up).map(|(g, u)| (f(f64::from(*g)) * f64::from(*u)) as f32).collect()
        };
        let sum: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| g + u).collect();
        for (what, want) in [("silu", want(&silu)), ("gelu", want(&gelu)), ("sum", sum)] {
            let (a, b) = (upload(&gpu, &bytes_of(&gate)), upload(&gpu, &bytes_of(&up)));
            let (a_cols, b_cols) = (columns(&a, 0, 0), columns(&b, 0, 0));
            let op = match what {
                "silu" => Op::ActMul { gate: a_cols, up: b_cols, len, act: Activation::Silu },
                "gelu" => Op::ActMul { gate: a_cols, up: b_cols, len, act: Activation::Gelu },
                _ => Op::Add { acc: a_cols, x: b_cols, len },
            };
            gpu.run(&[op]).expect("runs");
            // The first five are large: judged apart.
            let got = floats(&gpu, &a, len);
            let rest = 5.min(len);
            close(&format!("{what} {len}"), &got[rest..], &want[rest..], 1e-4, &mut failures);
            close(&format!("{what} {len}, extremes"), &got[..rest], &want[..rest], 0.1, &mut failures);
        }
    }
    report(failures);
}

fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], style: RopeStyle) {
    let pairs = cos.len();
    for i in 0..pairs {
        let (a, b) = match style {
            RopeStyle::Adjacent => (2 * i, 2 * i + 1),
            RopeStyle::Halves => (i, i + pairs),
        };
        let (u, v) = (head[a], head[b]);
        head[a] = u * cos[i] - v * sin[i];
        head[b] = u * sin[i] + v * cos[i];
    }
}

fn angles(pairs: usize, n: usize) -> Vec<f32> {
    let angle = |c: usize, i: usize| (c * 7 + 1) as f64 * 10_000f64.powf(-(i as f64) / pairs as f64);
    (0..n)
        .flat_map(|c| {
            let cos = (0..pairs).map(move |i| angle(c, i).cos() as f32);
            cos.chain((0..pairs).map(move |i| angle(c, i).sin() as f32))
        })
        .collect()
}

const STYLES: [RopeStyle; 2] = [RopeStyle::Adjacent, RopeStyle::Halves];

#[test]
fn rotary_embedding_turns_both_kinds_of_pairs() {
    let Some(gpu) = gpu() else { return };
    let mut failures = Vec::new();
    for style in STYLES {
        for (heads, hd, pairs, n) in [(1, 2, 1, 1), (3, 18, 9, 4), (4, 64, 32, 5), (2, 32, 10, 3)] {
            let stride = heads * hd + 5;
            let (x, angles) = (random(n * stride, 5), angles(pairs, n));
            let mut want = x.clone();
            for c in 0..n {
                let (cos, sin) = angles[c * 2 * pairs..][..2 * pairs].split_at(pairs);
                let column = &mut want[c * stride + 2..][..heads * hd];
                column.chunks_exact_mut(hd).for_each(|head| rotate(head, cos, sin, style));
            }
            let (buffer, angles) = (upload(&gpu, &bytes_of(&x)), upload(&gpu, &bytes_of(&angles)));
            let x = columns(&buffer, 2, stride);
            gpu.run(&[Op::Rope { x, angles, heads, head_dim: hd, pairs, style, n_cols: n }]).expect("runs");
            close(
                &format!("{style:?} {heads} {hd} {pairs} {n}"),
                &floats(&gpu, &buffer, want.len()),
                &want,
                1e-6,
                &mut failures,
            );
        }
    }
    report(failures);
}

/// A cache filled with columns (n, heads, head_dim) from position 0 on, and what a reader finds in
/// it.
fn filled(
    gpu: &Gpu,
    ty: CacheType,
    heads: usize,
    hd: usize,
    capacity: usize,
    x: &[f32],
) -> (KvCache<modelembed_gpu::Buffer>, Vec<f32>) {
    let n = x.len() / (heads * hd);
    let cache = empty(gpu, ty, heads, hd, capacity);
    let from = upload(gpu, &bytes_of(x));
    // In two steps, the second at a position of its own.
    let first = n / 2;
    let rows = heads * hd;
    gpu.run(&[
        Op::Store { x: columns(&from, 0, rows), cache: cache.clone(), pos: 0, n_cols: first },
        Op::Store { x: columns(&from, first * rows, rows), cache: cache.clone(), pos: first, n_cols: n - first },
    ])
    .expect("runs");
    let seen = match ty {
        CacheType::I16 | CacheType::F16 => x.iter().map(|v| f16::from_f32(*v).to_f32()).collect(),
        CacheType::F32 => x.to_vec(),
        CacheType::Q8 => {
            let all = elements(gpu, &cache);
            let head = |p: usize, h: usize| all[(h * capacity + p) * hd..][..hd].to_vec();
            (0..n).flat_map(|p| (0..heads).flat_map(move |h| head(p, h))).collect()
        }
    };
    (cache, seen)
}

fn empty(gpu: &Gpu, ty: CacheType, heads: usize, head_dim: usize, capacity: usize) -> KvCache<modelembed_gpu::Buffer> {
    let len = (heads * capacity) as u64 * cache_row_bytes(ty, head_dim).expect("a row");
    KvCache { buffer: gpu.alloc("cache", len).expect("memory"), ty, heads, capacity, head_dim }
}

/// The Q8_0 blocks of a cache: scales as bits, integers.
fn blocks(gpu: &Gpu, cache: &KvCache<modelembed_gpu::Buffer>) -> Vec<(u16, Vec<i8>)> {
    let mut bytes = vec![0u8; cache.buffer.len_bytes() as usize];
    gpu.read(&cache.buffer, 0, &mut bytes).expect("a read");
    let row_bytes = cache_row_bytes(cache.ty, cache.head_dim).expect("a row") as usize;
    let of_row = |row: &[u8]| -> Vec<_> {
        let (integers, scales) = row.split_at(cache.head_dim);
        let integers = integers.chunks_exact(32).map(|b| b.iter().map(|q| *q as i8).collect());
        scales.chunks_exact(2).map(|s| u16::from_le_bytes([s[0], s[1]])).zip(integers).collect()
    };
    bytes.chunks_exact(row_bytes).flat_map(of_row).collect()
}

/// The elements of a cache: (heads, capacity, head_dim).
fn elements(gpu: &Gpu, cache: &KvCache<modelembed_gpu::Buffer>) -> Vec<f32> {
    let n = cache.heads * cache.capacity * cache.head_dim;
    match cache.ty {
        CacheType::F32 => floats(gpu, &cache.buffer, n),
        CacheType::I16 | CacheType::F16 => {
            let words = floats(gpu, &cache.buffer, n / 2);
            let halves = words.iter().flat_map(|w| [w.to_bits() as u16, (w.to_bits() >> 16) as u16]);
            halves.map(|h| f16::from_bits(h).to_f32()).collect()
        }
        CacheType::Q8 => {
            let all = blocks(gpu, cache).into_iter();
            let widened = |(scale, q): (u16, Vec<i8>)| {
                let scale = f16::from_bits(scale).to_f32();
                q.into_iter().map(move |q| scale * f32::from(q))
            };
            all.flat_map(widened).collect()
        }
    }
}

#[test]
fn a_cache_in_q8_0_holds_the_blocks_that_the_cpu_makes() {
    let Some(gpu) = gpu() else { return };
    let kernels = Kernels::by_isa(Isa::Scalar).expect("the scalar table");
    let mut failures = Vec::new();
    for (heads, hd, n) in [(1, 32, 1), (2, 64, 7), (3, 96, 20), (2, 256, 9)] {
        let mut x = random(n * heads * hd, 60);
        // Blocks of every size, from zeros to what half precision hardly has a scale for.
        for (i, block) in x.chunks_exact_mut(32).enumerate() {
            let size = [0.0, 1e-9, 1e-3, 1.0, 5e5][i % 5];
            block.iter_mut().for_each(|v| *v *= size);
        }
        let cache = empty(&gpu, CacheType::Q8, heads, hd, n);
        let from = upload(&gpu, &bytes_of(&x));
        let rows = heads * hd;
        gpu.run(&[Op::Store { x: columns(&from, 0, rows), cache: cache.clone(), pos: 0, n_cols: n }]).expect("runs");
        let got = blocks(&gpu, &cache);
        let mut n_off = 0;
        for (row, got) in got.chunks_exact(hd / 32).enumerate() {
            let (h, p) = (row / n, row % n);
            let mut want = vec![0; CacheType::Q8.row_bytes(hd).expect("whole blocks")];
            kernels.to_q8_0(&x[(p * heads + h) * hd..][..hd], &mut want);
            for (b, ((scale, q), want)) in got.iter().zip(want.chunks_exact(34)).enumerate() {
                let off = q.iter().zip(&want[2..]).map(|(q, want)| (i16::from(*q) - i16::from(*want as i8)).abs());
                let (far, near) = (off.clone().filter(|d| *d > 1).count(), off.filter(|d| *d == 1).count());
                n_off += near;
                if scale.to_le_bytes() != want[..2] || far > 0 {
                    failures.push(format!("{heads} heads of {hd}, position {p}, head {h}, block {b}: {far} differ"));
                }
            }
        }
        // A quotient halfway between two integers may go to either: devices divide a little less
        // exactly.
        if n_off * 1000 > x.len() {
            failures.push(format!("{heads} heads of {hd}: {n_off} of {} integers are off by one", x.len()));
        }
    }
    report(failures);
}

#[test]
fn heads_that_a_cache_cannot_hold_are_refused() {
    let Some(gpu) = gpu() else { return };
    for (ty, head_dim) in [(CacheType::Q8, 48), (CacheType::Q8, 0), (CacheType::F16, 7), (CacheType::F32, 0)] {
        assert_eq!(cache_row_bytes(ty, head_dim), None);
        let buffer = gpu.alloc("cache", 4096).expect("memory");
        let cache = KvCache { buffer: buffer.clone(), ty, heads: 1, capacity: 4, head_dim };
        let error = gpu.run(&[Op::Store { x: columns(&buffer, 0, 1), cache, pos: 0, n_cols: 1 }]).expect_err("refused");
        assert!(error.to_string().contains(&format!("heads of {head_dim}")), "{error}");
    }
}

#[test]
fn attention_equals_f64_arithmetic() {
    let Some(gpu) = gpu() else { return };
    let mut failures = Vec::new();
    for ty in CACHE_TYPES {
        for (heads, kv, hd, total, n, window) in [
            (1, 1, 2, 1, 1, usize::MAX),
            (4, 2, 16, 40, 40, usize::MAX),
            (4, 2, 16, 40, 3, 7),
            (3, 3, 18, 65, 2, usize::MAX),
            (6, 2, 64, 130, 1, 64),
            (4, 1, 256, 200, 5, 100),
            (2, 1, 128, 300, 1, usize::MAX),
            (2, 2, 96, 70, 2, usize::MAX),
            (2, 1, 32, 70, 10, 65),
        ] {
            if ty.row_bytes(hd).is_none() {
                continue;
            }
            let (pos, capacity) = (total - n, total + 3);
            let scale = 1.0 / (hd as f32).sqrt();
            let (k, k_seen) = filled(&gpu, ty, kv, hd, capacity, &random(total * kv * hd, 6));
            let (v, v_seen) = filled(&gpu, ty, kv, hd, capacity, &random(total * kv * hd, 7));
            let q: Vec<f32> = random(n * heads * hd, 8).iter().map(|x| 2.0 * x).collect();
            let mut want = Vec::new();
            for c in 0..n {
                for h in 0..heads {
                    let query = &q[(c * heads + h) * hd..][..hd];
                    let row = |all: &'_ [f32], p: usize| -> Vec<f64> {
                        all[(p * kv + h / (heads / kv)) * hd..][..hd].iter().map(|x| f64::from(*x)).collect()
                    };
                    let seen = (pos + c + 1).saturating_sub(window)..pos + c + 1;
                    let scores: Vec<f64> = seen
                        .clone()
                        .map(|p| {
                            row(&k_seen, p).iter().zip(query).map(|(k, q)| k * f64::from(*q)).sum::<f64>()
                                * f64::from(scale)
                        })
                        .collect();
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                    let mut out = vec![0.0; hd];
                    for (p, s) in seen.zip(&scores) {
                        out.iter_mut().zip(row(&v_seen, p)).for_each(|(o, v)| *o += (s - max).exp() / total * v);
                    }
                    want.extend(out.iter().map(|x| *x as f32));
                }
            }
            let rows = heads * hd;
            let (q, y) = (upload(&gpu, &bytes_of(&q)), upload(&gpu, &vec![0; n * rows * 4]));
            let (q, y_cols) = (columns(&q, 0, rows), columns(&y, 0, rows));
            gpu.run(&[Op::Attend { q, k, v, y: y_cols, heads, pos, window, scale, n_cols: n }]).expect("runs");
            close(
                &format!("{ty:?} {heads}/{kv} heads of {hd}, {n} at {pos}, window {window}"),
                &floats(&gpu, &y, want.len()),
                &want,
                2e-5,
                &mut failures,
            );
        }
    }
    report(failures);
}

#[test]
fn moved_positions_are_turned_and_the_others_stay() {
    let Some(gpu) = gpu() else { return };
    let mut failures = Vec::new();
    for ty in CACHE_TYPES {
        let (hd, all_pairs) = if ty == CacheType::Q8 { (96, [48, 20, 0]) } else { (18, [9, 4, 0]) };
        for (style, pairs) in STYLES.into_iter().flat_map(|s| all_pairs.map(|pairs| (s, pairs))) {
            let (heads, capacity, total) = (2, 20, 15);
            let (cache, seen) = filled(&gpu, ty, heads, hd, capacity, &random(total * heads * hd, 9));
            let (from, to, n) = (6, 3, total - 6);
            let angles = angles(pairs.max(1), 1);
            let mut want = elements(&gpu, &cache);
            for h in 0..heads {
                for i in 0..n {
                    let mut key = seen[((from + i) * heads + h) * hd..][..hd].to_vec();
                    rotate(&mut key, &angles[..pairs], &angles[angles.len() / 2..][..pairs], style);
                    want[(h * capacity + to + i) * hd..][..hd].copy_from_slice(&key);
                }
            }
            let temp = gpu.alloc("temp", cache.buffer.len_bytes()).expect("memory");
            let turn = (pairs > 0).then(|| (upload(&gpu, &bytes_of(&angles)), pairs, style));
            gpu.run(&[Op::Shift { cache: cache.clone(), temp, turn, from, to, n }]).expect("runs");
            // What is not turned keeps its bits.
            let bound = match (pairs, ty) {
                (0, _) => 0.0,
                (_, CacheType::I16 | CacheType::F16) => 2e-3,
                (_, CacheType::Q8) => 0.02, // half of a scale
                (_, CacheType::F32) => 1e-6,
            };
            close(&format!("{ty:?} {style:?} {pairs} pairs"), &elements(&gpu, &cache), &want, bound, &mut failures);
        }
    }
    report(failures);
}

#[test]
fn the_greatest_element_is_found_the_first_of_equals_and_never_a_nan() {
    let Some(gpu) = gpu() else { return };
    for len in [1, 255, 256, 257, 10_000] {
        let mut x = random(3 * len, 10);
        x[len..2 * len].fill(f32::NAN);
        x[2 * len..].fill(f32::NEG_INFINITY);
        if len > 2 {
            x[0] = f32::NAN;
            x[len / 2] = 9.0;
            x[len - 1] = 9.0;
            x[2 * len + 1] = 1.0;
        }
        let want = if len > 2 { [len / 2, 0, 1] } else { [0, 0, 0] };
        let (buffer, out) = (upload(&gpu, &bytes_of(&x)), upload(&gpu, &[0; 12]));
        gpu.run(&[Op::ArgMax { x: columns(&buffer, 0, len), len, n_cols: 3, out: out.clone() }]).expect("runs");
        let got: Vec<usize> = floats(&gpu, &out, 3).iter().map(|v| v.to_bits() as usize).collect();
        assert_eq!(got, want, "{len} elements");
    }
}

#[test]
fn the_greatest_come_in_order_and_picked_elements_as_they_are() {
    let Some(gpu) = gpu() else { return };
    let mut failures = Vec::new();
    for (len, n_cols) in [(1, 1), (5, 2), (128, 1), (1024, 3), (1025, 2), (9000, 2), (262_144, 1)] {
        let stride = len + 3;
        let mut x = random(n_cols * stride, 40);
        // Equals, both zeros, and what is no number or the least of all.
        for (i, v) in x.iter_mut().enumerate() {
            match i % 97 {
                0..20 => *v = (*v * 4.0).round(),
                20 => *v = f32::NAN,
                21 => *v = f32::NEG_INFINITY,
                22 if i % 1000 == 22 => *v = f32::INFINITY,
                23 => *v = -0.0,
                _ => {}
            }
        }
        let rank = |v: f32| if v.is_nan() { None } else { Some(if v == 0.0 { 0.0 } else { v }) };
        let buffer = upload(&gpu, &bytes_of(&x));
        let temp = gpu.alloc("temp", top_k_temp_bytes(len, n_cols)).expect("memory");
        let out = gpu.alloc("out", (n_cols * 2 * TOP_K * 4) as u64).expect("memory");
        let picked: Vec<u32> = (0..len.min(70) as u32).map(|i| i * 7919 % len as u32).collect();
        let indices = upload(&gpu, bytemuck::cast_slice(&picked));
        let elements = gpu.alloc("elements", (n_cols * picked.len() * 4) as u64).expect("memory");
        gpu.run(&[
            Op::TopK { x: columns(&buffer, 0, stride), len, n_cols, temp, out: out.clone() },
            Op::Gather {
                x: columns(&buffer, 0, stride),
                indices,
                n: picked.len(),
                n_cols,
                out: columns(&elements, 0, picked.len()),
            },
        ])
        .expect("runs");
        let mut words = vec![0u32; n_cols * 2 * TOP_K];
        gpu.read(&out, 0, bytemuck::cast_slice_mut(&mut words)).expect("a read");
        let elements = floats(&gpu, &elements, n_cols * picked.len());
        for c in 0..n_cols {
            let column = &x[c * stride..][..len];
            let mut want: Vec<u32> = (0..len as u32).collect();
            // A stable sort: of equals the lower index stays first. Those that are no number come
            // last.
            want.sort_by(|&a, &b| rank(column[b as usize]).partial_cmp(&rank(column[a as usize])).expect("comparable"));
            want.resize(len.max(TOP_K), u32::MAX);
            let got: Vec<u32> = words[c * 2 * TOP_K..][..2 * TOP_K].chunks_exact(2).map(|pair| pair[1]).collect();
            if got != want[..TOP_K] {
                failures.push(format!("{len} x {n_cols}, column {c}: {:?} instead of {:?}", &got[..9], &want[..9]));
            }
            let same = picked
                .iter()
                .zip(&elements[c * picked.len()..])
                .all(|(&i, e)| column[i as usize].to_bits() == e.to_bits());
            if !same {
                failures.push(format!("{len} x {n_cols}, column {c}: picked elements differ"));
            }
        }
    }
    report(failures);
}

#[test]
fn a_cache_beyond_a_binding_is_used_in_parts_of_some_heads() {
    let Some(choice) = choice() else { return };
    // 8 KiB a head in half precision: two of six heads fit, and one in f32.
    let small = GpuOptions { choice, max_binding_bytes: Some(20 << 10), ..GpuOptions::default() };
    let (whole, small) = (gpu().expect("a device"), Gpu::open(&small).expect("a device"));
    let (kv, heads, hd, capacity, n) = (6, 12, 64, 64, 3);
    let run = |gpu: &Gpu, ty: CacheType| {
        let (x, q) = (random(40 * kv * hd, 50), random(n * heads * hd, 51));
        let cache = || empty(gpu, ty, kv, hd, capacity);
        let (k, v) = (cache(), cache());
        let (q, y) = (upload(gpu, &bytes_of(&q)), upload(gpu, &vec![0; n * heads * hd * 4]));
        for pos in (0..40).step_by(10) {
            // Ten positions at a time: the columns too are seen through a binding.
            let part = upload(gpu, &bytes_of(&x[pos * kv * hd..][..10 * kv * hd]));
            let store =
                |cache: &KvCache<_>| Op::Store { x: columns(&part, 0, kv * hd), cache: cache.clone(), pos, n_cols: 10 };
            gpu.run(&[store(&k), store(&v)]).expect("runs");
        }
        let temp = gpu.alloc("temp", k.buffer.len_bytes()).expect("memory");
        let turn = Some((upload(gpu, &bytes_of(&angles(32, 1))), 32, RopeStyle::Halves));
        gpu.run(&[
            Op::Shift { cache: k.clone(), temp, turn, from: 9, to: 4, n: 31 },
            Op::Attend {
                q: columns(&q, 0, heads * hd),
                k,
                v,
                y: columns(&y, 0, heads * hd),
                heads,
                pos: 30,
                window: usize::MAX,
                scale: 0.1,
                n_cols: n,
            },
        ])
        .expect("runs");
        floats(gpu, &y, n * heads * hd)
    };
    for ty in CACHE_TYPES {
        let (want, got) = (run(&whole, ty), run(&small, ty));
        assert!(want == got && want.iter().all(|v| v.is_finite() && *v != 0.0), "{ty:?}: {}", diff(&got, &want));
    }
    let buffer = small.alloc("cache", 1 << 20).expect("memory");
    let cache = KvCache { buffer: buffer.clone(), ty: CacheType::F16, heads: 2, capacity: 400, head_dim: hd };
    let error = small.run(&[Op::Store { x: columns(&buffer, 0, 1), cache, pos: 0, n_cols: 1 }]).expect_err("a limit");
    assert!(error.to_string().contains("400 tokens"), "{error}");
}
