//! Panels of quantised weights: rows in lanes, activations broadcast four at a time.
//!
//! A panel's record of one run of 32 elements, for two vectors of sixteen rows:
//! ```text
//! (8, 2, 16, 4)    bytes: four elements of sixteen rows fill a register
//! (2, LEN, 16)     what belongs to the run: `rows::Head` and, for signed weights, i32 -128 * (sum of the weights), of the run or of each
//!                  16 elements
//! ```
//! `vpdpbusd` multiplies a register with four activations and adds up. No shuffle is left for the
//! columns. Weights that have a centre are signed here: an offset would cost each column an eighth
//! of what the products cost.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::rows::{Blocks16, GROUPS, Head, TILE_ROWS, accumulate, at, block_heads, heads, lane_sums, transpose_lanes};
use super::step::{Format, ROWS, RUN, RUNS};
use crate::ahead::{self, Ahead};
use crate::panel::{Panel, PanelRows, TileCols};

/// Vectors of sixteen rows in a panel.
const VECTORS: usize = 2;
/// Bytes of a run's integers.
const INT_BYTES: usize = RUN * TILE_ROWS * VECTORS;

/// The panels of a format.
pub(super) struct Quantised<F>(F);

impl<F: Format> Quantised<F> {
    /// Weights are signed bytes.
    const SIGNED: bool = F::SIGNED || F::CENTRE != 0;
    /// Vectors of what the products of signed weights have too much.
    const EXCESSES: usize = if !Self::SIGNED {
        0
    } else if F::SUB16 {
        2
    } else {
        1
    };
    /// Vectors beside the integers of a run.
    const LEN: usize = Head::<F>::LEN + Self::EXCESSES;
    const RECORD_BYTES: usize = INT_BYTES + VECTORS * Self::LEN * 64;
}

// SAFETY: the functions need what the trait's callers vouch for, the features included.
unsafe impl<F: Format> Panel for Quantised<F> {
    const ROWS: usize = TILE_ROWS * VECTORS;
    /// With two vectors of rows, twelve of 32 registers hold f32 sums and twelve integer ones;
    /// where both halves of a run have a scale of their own it is eight, and eight products of the
    /// first half.
    const COLS: usize = if F::SUB16 { 4 } else { 6 };
    const STEP: usize = RUN * if F::BLOCK_RUNS == 1 { RUNS } else { F::BLOCK_RUNS };
    const STEP_BYTES: usize = Self::STEP / RUN * Self::RECORD_BYTES;
    const BEGINS_AT_ZERO: bool = true;
    const PACK_REQUESTS: bool = true;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        // A second vector of copies of the last row would not be read.
        let n_vectors = VECTORS.min(rows.n_rows().div_ceil(TILE_ROWS));
        for vector in 0..n_vectors {
            // SAFETY: the caller vouches for the rows and for room.
            unsafe {
                let blocks =
                    std::array::from_fn(|r| rows.row(vector * TILE_ROWS + r).add(k / (RUN * F::BLOCK_RUNS) * F::BYTES));
                pack_rows::<F>(blocks, n / RUN, panel, vector, rows.ahead.part(vector, n_vectors));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
    unsafe fn tile(panel: *const u8, n: usize, n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        // Numbers of columns between these are their sums, because each costs compile time and
        // code.
        let mut done = 0;
        while done < cols.n_cols {
            // SAFETY: the caller's duties are handed on, for columns from `done` on.
            unsafe {
                let first = cols.first.add(done * cols.layout.col_bytes());
                let part = TileCols { first, ..*cols };
                let acc = acc.add(done * stride);
                done += match cols.n_cols - done {
                    1 => vectors::<F, 1>(panel, n, n_rows, &part, acc, stride),
                    2 => vectors::<F, 2>(panel, n, n_rows, &part, acc, stride),
                    3 => vectors::<F, 3>(panel, n, n_rows, &part, acc, stride),
                    6.. if Self::COLS == 6 => vectors::<F, 6>(panel, n, n_rows, &part, acc, stride),
                    _ => vectors::<F, 4>(panel, n, n_rows, &part, acc, stride),
                };
            }
        }
    }
}

/// Writes the parts of records that belong to one vector of rows.
///
/// # Safety
/// The CPU has the features; the rows have `n_runs` runs at the blocks, and there are as many
/// records' worth of room.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
unsafe fn pack_rows<F: Format>(rows: Blocks16, n_runs: usize, panel: *mut u8, vector: usize, ahead: Ahead) {
    // SAFETY: steps before the last have 4 runs; in the last one masks keep loads within `n` runs.
    unsafe {
        let mut run = 0;
        let record = |run: usize| panel.add(run * Quantised::<F>::RECORD_BYTES);
        let mut next = ahead.first;
        let n_parts = n_runs.div_ceil(if F::BLOCK_RUNS == 1 { RUNS } else { F::BLOCK_RUNS });
        let piece = ahead.len.div_ceil(n_parts).next_multiple_of(64);
        if F::BLOCK_RUNS == 1 {
            while run + RUNS <= n_runs {
                next = ahead::request(next, piece);
                let blocks = at(rows, run * F::BYTES);
                let head = block_heads::<F, false>(blocks, 0);
                pack_step::<F, false>(blocks, &head, 0, RUNS, record(run), vector);
                run += RUNS;
            }
            if run < n_runs {
                let n = n_runs - run;
                let blocks = at(rows, run * F::BYTES);
                let head = block_heads::<F, true>(blocks, n * F::BYTES);
                pack_step::<F, true>(blocks, &head, 0, n, record(run), vector);
            }
        } else {
            while run < n_runs {
                next = ahead::request(next, piece);
                let blocks = at(rows, run / F::BLOCK_RUNS * F::BYTES);
                let head = block_heads::<F, false>(blocks, 0);
                pack_step::<F, false>(blocks, &head, 0, RUNS, record(run), vector);
                pack_step::<F, false>(blocks, &head, 1, RUNS, record(run + RUNS), vector);
                run += 2 * RUNS;
            }
        }
    }
}

/// Writes the parts of the first `n` of four records; the runs are step `step` of their block.
/// Without `TAIL`, `n` is 4.
///
/// # Safety
/// As [`pack_rows`], for these runs.
#[inline(always)]
unsafe fn pack_step<F: Format, const TAIL: bool>(
    blocks: Blocks16,
    head: &[F::Head; GROUPS],
    step: usize,
    n: usize,
    records: *mut u8,
    vector: usize,
) {
    // SAFETY: the caller vouches for the CPU, the runs and room; all 64-byte parts are aligned, as
    // panels and records are.
    unsafe {
        let heads = heads::<F>(head, step);
        let to_head = |j: usize, i: usize| {
            let at = j * Quantised::<F>::RECORD_BYTES + INT_BYTES + (vector * Quantised::<F>::LEN + i) * 64;
            records.add(at)
        };
        for j in 0..n {
            for i in 0..Head::<F>::LEN {
                _mm512_store_ps(to_head(j, i).cast(), heads[j][i]);
            }
        }
        let mut weight_sums = [[_mm512_setzero_si512(); GROUPS]; 2];
        for half in 0..2 {
            // Dwords of a lane, of each group.
            let mut fours = [[_mm512_setzero_si512(); GROUPS]; 4];
            for g in 0..GROUPS {
                let mut q = [_mm512_setzero_si512(); ROWS];
                let mut sums = [_mm512_setzero_si512(); ROWS];
                for r in 0..ROWS {
                    q[r] = F::quants::<TAIL>(blocks[g * ROWS + r], step, n * F::BYTES)[half];
                    if F::CENTRE != 0 {
                        q[r] = _mm512_sub_epi8(q[r], _mm512_set1_epi8(F::CENTRE));
                    }
                    if Quantised::<F>::SIGNED {
                        sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_set1_epi8(1), q[r]);
                    }
                }
                if Quantised::<F>::SIGNED {
                    let part = if F::SUB16 { half } else { 0 };
                    weight_sums[part][g] = _mm512_add_epi32(weight_sums[part][g], lane_sums(sums));
                }
                for (four, column) in transpose(q).into_iter().enumerate() {
                    fours[four][g] = column;
                }
            }
            for four in 0..4 {
                let by_run = transpose_lanes(fours[four]);
                for j in 0..RUNS {
                    if !TAIL || j < n {
                        let at = j * Quantised::<F>::RECORD_BYTES + ((half * 4 + four) * VECTORS + vector) * 64;
                        _mm512_store_si512(records.add(at).cast(), by_run[j]);
                    }
                }
            }
        }
        for i in 0..Quantised::<F>::EXCESSES {
            let by_run = transpose_lanes(weight_sums[i]);
            for j in 0..RUNS {
                if !TAIL || j < n {
                    let excess = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<7>(by_run[j]));
                    _mm512_store_si512(to_head(j, Head::<F>::LEN + i).cast(), excess);
                }
            }
        }
    }
}

/// In each lane: dword `j` of register `i` becomes dword `i` of register `j`.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn transpose(v: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: the caller vouches for it.
    unsafe {
        let (a, b) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        let (c, d) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ]
    }
}

/// See [`Panel::tile`]. Returns `NC`.
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
unsafe fn vectors<F: Format, const NC: usize>(
    panel: *const u8,
    n: usize,
    n_rows: usize,
    cols: &TileCols,
    acc: *mut f32,
    stride: usize,
) -> usize {
    // SAFETY: the caller's duties are handed on.
    unsafe {
        match n_rows {
            ..=TILE_ROWS => tile::<F, 1, NC>(panel, n, cols, acc, stride),
            _ => tile::<F, VECTORS, NC>(panel, n, cols, acc, stride),
        }
    }
    NC
}

/// See [`Panel::tile`]: the first `V` vectors of rows.
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
unsafe fn tile<F: Format, const V: usize, const NC: usize>(
    panel: *const u8,
    n: usize,
    cols: &TileCols,
    acc: *mut f32,
    stride: usize,
) {
    let layout = cols.layout;
    // SAFETY: the caller vouches for panel, columns and accumulators.
    unsafe {
        let x: [*const u8; NC] = std::array::from_fn(|c| cols.first.add(c * layout.col_bytes()));
        let runs = cols.k / RUN..(cols.k + n) / RUN;
        // Every fourth run, as row-dots have them in a lane.
        for lane in 0..RUNS {
            let mut sums = [[_mm512_setzero_ps(); NC]; V];
            for run in (runs.start + lane..runs.end).step_by(RUNS) {
                let run = opaque(run);
                let record = panel.add((run - runs.start) * Quantised::<F>::RECORD_BYTES);
                let head = |v: usize, i: usize| {
                    _mm512_load_si512(record.add(INT_BYTES + (v * Quantised::<F>::LEN + i) * 64).cast())
                };
                let mut integers = x;
                for x in &mut integers {
                    *x = x.add(run * RUN);
                }
                // `vpdpbusd` wants one factor unsigned: the activation plus 128, the excess of
                // which is in the panel.
                let mut unsigned = [MaybeUninit::<__m256i>::uninit(); NC];
                let mut start = [[[_mm512_setzero_si512(); NC]; V]; 2];
                if Quantised::<F>::SIGNED {
                    for c in 0..NC {
                        let x = _mm256_loadu_si256(integers[c].cast());
                        unsigned[c].write(_mm256_xor_si256(x, _mm256_set1_epi8(-128)));
                        integers[c] = unsigned[c].as_ptr().cast();
                        for i in 0..Quantised::<F>::EXCESSES {
                            for v in 0..V {
                                start[i][v][c] = head(v, Head::<F>::LEN + i);
                            }
                        }
                    }
                }
                let mut dots = [[_mm512_setzero_ps(); NC]; V];
                if F::SUB16 {
                    let first = integer_sums::<F, V, NC, 4>(start[0], record, integers);
                    let mut scaled = [[_mm512_setzero_ps(); NC]; V];
                    for v in 0..V {
                        for c in 0..NC {
                            // Exact: 24 bits. The sum with zero makes zero positive, as integers
                            // have it.
                            let (first, scale) = (_mm512_cvtepi32_ps(first[v][c]), _mm512_castsi512_ps(head(v, 1)));
                            scaled[v][c] = _mm512_fmadd_ps(first, scale, _mm512_setzero_ps());
                        }
                    }
                    let (ints, second_half) = (record.add(INT_BYTES / 2), integers.map(|x| x.add(RUN / 2)));
                    let second = integer_sums::<F, V, NC, 4>(start[1], ints, second_half);
                    for v in 0..V {
                        for c in 0..NC {
                            // Rounded once, as the conversion of the exact sum would be.
                            let second = _mm512_cvtepi32_ps(second[v][c]);
                            dots[v][c] = _mm512_fmadd_ps(second, _mm512_castsi512_ps(head(v, 2)), scaled[v][c]);
                        }
                    }
                } else {
                    let all = integer_sums::<F, V, NC, 8>(start[0], record, integers);
                    for v in 0..V {
                        for c in 0..NC {
                            dots[v][c] = _mm512_cvtepi32_ps(all[v][c]);
                        }
                    }
                }
                for v in 0..V {
                    for c in 0..NC {
                        let head = |i: usize| _mm512_castsi512_ps(head(v, i));
                        sums[v][c] = accumulate::<F>(sums[v][c], dots[v][c], head, x[c], run, layout);
                    }
                }
            }
            let is_first = cols.k == 0 && lane == 0;
            for v in 0..V {
                for c in 0..NC {
                    let acc = acc.add(c * stride + v * TILE_ROWS);
                    // Zero is added too, as row-dots do: it makes a zero positive.
                    let before = if is_first { _mm512_setzero_ps() } else { _mm512_loadu_ps(acc) };
                    _mm512_storeu_ps(acc, _mm512_add_ps(before, sums[v][c]));
                }
            }
        }
    }
}

/// Adds `FOURS` times four products: of unsigned weights or, where weights are signed, of unsigned
/// activations.
///
/// # Safety
/// AVX-512 with VNNI; `ints` is within a record, `x` points at as many activations of each column.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
#[inline]
unsafe fn integer_sums<F: Format, const V: usize, const NC: usize, const FOURS: usize>(
    mut sums: [[__m512i; NC]; V],
    ints: *const u8,
    x: [*const u8; NC],
) -> [[__m512i; NC]; V] {
    for four in 0..FOURS {
        // SAFETY: the caller vouches for all of it.
        unsafe {
            let mut w = [_mm512_setzero_si512(); V];
            for v in 0..V {
                w[v] = _mm512_load_si512(ints.add((four * VECTORS + v) * 64).cast());
            }
            for c in 0..NC {
                let x = _mm512_set1_epi32(x[c].add(four * 4).cast::<i32>().read_unaligned());
                for v in 0..V {
                    let (unsigned, signed) = if Quantised::<F>::SIGNED { (x, w[v]) } else { (w[v], x) };
                    sums[v][c] = _mm512_dpbusd_epi32(sums[v][c], unsigned, signed);
                }
            }
            hold(&mut sums);
        }
    }
    sums
}

/// The same number, of which the compiler knows nothing: it would keep a pointer to each part of
/// each column, most of them on the stack, where an offset from six does.
#[inline(always)]
fn opaque(n: usize) -> usize {
    let mut n = n;
    // SAFETY: an empty instruction sequence.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) n, options(nomem, nostack, preserves_flags)) };
    n
}

/// Keeps sums in registers and the steps of a run apart, as in the AVX2 panel.
#[target_feature(enable = "avx512f")]
#[inline]
fn hold<const V: usize, const NC: usize>(sums: &mut [[__m512i; NC]; V]) {
    for sums in sums {
        for sum in sums {
            // SAFETY: an empty instruction sequence.
            unsafe { std::arch::asm!("/* {0} */", inout(zmm_reg) * sum, options(nostack, preserves_flags)) };
        }
    }
}
