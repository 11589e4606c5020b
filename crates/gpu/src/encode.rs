//! From steps to dispatches: which kernel, with which parameters, over which parts of which
//! buffers.

use std::ops::Range;

use modelembed_gguf::TensorType;
use modelembed_terms::RopeStyle;

use crate::backend::{Columns, KvCache, Op, Operand, TOP_K, TOP_K_RUN, WIDE_COLS, Weight};
use crate::cache::{cache_row_bytes, unit_pairs};
use crate::error::{Error, Result};
use crate::kernels::{Input, Kernel, MATVEC_COLS, supports, supports_half, supports_int8};
use crate::limits::Limits;

/// A part of a buffer.
pub(crate) struct Binding<'a, B> {
    pub buffer: &'a B,
    pub offset: u64,
    pub len: u64,
}

/// One run of one kernel.
pub(crate) struct Dispatch<'a, B> {
    pub kernel: Kernel,
    pub params: [u32; 16],
    /// `None` where a kernel has a buffer that this step does not use.
    pub bindings: Vec<Option<Binding<'a, B>>>,
    pub groups: [u32; 3],
}

pub(crate) enum Step<'a, B> {
    Dispatch(Dispatch<'a, B>),
    Copy { from: &'a B, from_byte: u64, to: &'a B, to_byte: u64, len_bytes: u64 },
}

/// Some heads of a cache.
struct CachePart {
    heads: Range<usize>,
    head_bytes: u64,
}

impl CachePart {
    fn of<'a, B>(&self, buffer: &'a B) -> Option<Binding<'a, B>> {
        let offset = self.heads.start as u64 * self.head_bytes;
        Some(Binding { buffer, offset, len: self.heads.len() as u64 * self.head_bytes })
    }
}

/// Threads of a workgroup in all but the arg-max.
const GROUP: usize = 64;
/// Rows and columns of a tile.
const TILE: usize = 32;
/// Workgroups in the first dimension; every adapter allows 65535.
const MAX_GROUPS_X: usize = 32768;

/// Workgroups for `n` units of work; kernels put the two dimensions together again.
fn grid(n: usize) -> [u32; 3] {
    let x = n.clamp(1, MAX_GROUPS_X);
    [x as u32, n.div_ceil(x) as u32, 1]
}

struct Encoder<'a, B> {
    limits: &'a Limits,
    len_of: fn(&B) -> u64,
    steps: Vec<Step<'a, B>>,
}

pub(crate) fn encode<'a, B>(ops: &'a [Op<B>], limits: &'a Limits, len_of: fn(&B) -> u64) -> Result<Vec<Step<'a, B>>> {
    let mut encoder = Encoder { limits, len_of, steps: Vec::with_capacity(ops.len()) };
    ops.iter().try_for_each(|op| encoder.op(op))?;
    Ok(encoder.steps)
}

/// Numbers as a kernel's parameters. Sizes beyond 32 bits were refused when the buffers were bound.
fn params<const N: usize>(values: [usize; N]) -> [u32; 16] {
    let mut out = [0; 16];
    for (out, value) in out.iter_mut().zip(values) {
        *out = value.min(u32::MAX as usize) as u32;
    }
    out
}

impl<'a, B> Encoder<'a, B> {
    fn whole(&self, buffer: &'a B) -> Result<Option<Binding<'a, B>>> {
        let len = (self.len_of)(buffer);
        if len > self.limits.max_binding_bytes {
            return Err(Error::Limit {
                what: "a buffer of activations, keys or values".into(),
                wanted_bytes: len,
                limit: "largest binding",
                limit_bytes: self.limits.max_binding_bytes,
            });
        }
        Ok(Some(Binding { buffer, offset: 0, len }))
    }

    fn push<const N: usize>(
        &mut self,
        kernel: Kernel,
        params: [u32; 16],
        buffers: [&'a B; N],
        groups: [u32; 3],
    ) -> Result<()> {
        let bindings = buffers.into_iter().map(|b| self.whole(b)).collect::<Result<_>>()?;
        self.steps.push(Step::Dispatch(Dispatch { kernel, params, bindings, groups }));
        Ok(())
    }

    fn op(&mut self, op: &'a Op<B>) -> Result<()> {
        match op {
            Op::MatMul { w, bias, x, y, n_cols } => self.matmul(w, bias.as_ref(), x, y, *n_cols),
            Op::RmsNorm { x, y, weight, len, eps, n_cols } => {
                let n = n_cols * x.per_col;
                let from = &x.columns;
                let mut p = params([*len, 0, n, x.per_col, from.first, from.stride, y.first, y.stride]);
                p[1] = eps.to_bits();
                self.push(Kernel::RmsNorm, p, [weight, &from.buffer, &y.buffer], grid(n))
            }
            Op::Quantize { x, y, len, n_cols } => {
                let blocks = len / 32;
                let p = params([*n_cols, blocks, x.first, x.stride, y.first, y.stride]);
                self.push(Kernel::Quantize, p, [&x.buffer, &y.buffer], grid((n_cols * blocks).div_ceil(GROUP)))
            }
            Op::Halve { x, y, len, n_cols } => {
                let p = params([*len, x.first, x.stride, y.first, y.stride]);
                self.push(Kernel::Halve, p, [&x.buffer, &y.buffer], [*n_cols as u32, 1, 1])
            }
            Op::Add { acc, x, len } => self.elementwise(Kernel::Add, acc, x, *len),
            Op::ActMul { gate, up, len, act } => self.elementwise(Kernel::ActMul(*act), gate, up, *len),
            Op::Rope { x, angles, heads, head_dim, pairs, style, n_cols } => {
                let halves = usize::from(*style == RopeStyle::Halves);
                let p = params([*n_cols, *heads, *head_dim, *pairs, x.first, x.stride, halves]);
                let n = n_cols * heads * pairs;
                self.push(Kernel::Rope, p, [&x.buffer, angles], grid(n.div_ceil(GROUP)))
            }
            Op::Store { x, cache, pos, n_cols } => self.store(x, cache, *pos, *n_cols),
            Op::Attend { q, k, v, y, heads, pos, window, scale, n_cols } => {
                self.attend([q, y], [k, v], *heads, [*pos, *window, *n_cols], *scale)
            }
            Op::Shift { cache, temp, turn, from, to, n } => self.shift(cache, temp, turn.as_ref(), [*from, *to, *n]),
            Op::ArgMax { x, len, n_cols, out } => {
                let p = params([*len, x.first, x.stride]);
                self.push(Kernel::ArgMax, p, [&x.buffer, out], [*n_cols as u32, 1, 1])
            }
            Op::TopK { x, len, n_cols, temp, out } => self.top_k(x, *len, *n_cols, temp, out),
            Op::Gather { x, indices, n, n_cols, out } => {
                let p = params([*n, *n_cols, x.first, x.stride, out.first, out.stride]);
                self.push(Kernel::Gather, p, [&x.buffer, indices, &out.buffer], grid((n * n_cols).div_ceil(GROUP)))
            }
            Op::Copy { from, from_byte, to, to_byte, len_bytes } => {
                let (from_byte, to_byte, len_bytes) = (*from_byte, *to_byte, *len_bytes);
                self.steps.push(Step::Copy { from, from_byte, to, to_byte, len_bytes });
                Ok(())
            }
        }
    }

    fn elementwise(&mut self, kernel: Kernel, acc: &'a Columns<B>, x: &'a Columns<B>, len: usize) -> Result<()> {
        let p = params([len, acc.first, x.first]);
        self.push(kernel, p, [&acc.buffer, &x.buffer], grid(len.div_ceil(GROUP)))
    }

    /// Pass after pass, each over the pairs that the one before left in one of two places, until
    /// one run is left.
    fn top_k(&mut self, x: &'a Columns<B>, len: usize, n_cols: usize, temp: &'a B, out: &'a B) -> Result<()> {
        let words = |runs: usize| 2 * runs * TOP_K;
        let second_place = n_cols * words(len.div_ceil(TOP_K_RUN));
        let (mut from, mut first, mut stride, mut n) = (&x.buffer, x.first, x.stride, len);
        for pass in 0.. {
            let runs = n.div_ceil(TOP_K_RUN).max(1);
            let (to, to_first) = match (runs, pass % 2) {
                (1, _) => (out, 0),
                (_, 0) => (temp, 0),
                _ => (temp, second_place),
            };
            let p = params([n, first, stride, to_first, words(runs)]);
            self.push(Kernel::TopK { pairs: pass > 0 }, p, [from, to], [runs as u32, n_cols as u32, 1])?;
            if runs == 1 {
                break;
            }
            (from, first, stride, n) = (to, to_first, words(runs), runs * TOP_K);
        }
        Ok(())
    }

    fn shift(
        &mut self,
        cache: &'a KvCache<B>,
        temp: &'a B,
        turn: Option<&'a (B, usize, RopeStyle)>,
        [from, to, n]: [usize; 3],
    ) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let row_bytes = row_bytes(cache)?;
        let len_bytes = (self.len_of)(&cache.buffer);
        self.steps.push(Step::Copy { from: &cache.buffer, from_byte: 0, to: temp, to_byte: 0, len_bytes });
        let Some((angles, pairs, style)) = turn else {
            let byte = |head: usize, pos: usize| (head * cache.capacity + pos) as u64 * row_bytes;
            self.steps.extend((0..cache.heads).map(|head| Step::Copy {
                from: temp,
                from_byte: byte(head, from),
                to: &cache.buffer,
                to_byte: byte(head, to),
                len_bytes: n as u64 * row_bytes,
            }));
            return Ok(());
        };
        let (half_dim, halves) = (cache.head_dim / 2, usize::from(*style == RopeStyle::Halves));
        for part in self.parts(cache)? {
            let heads = part.heads.len();
            let p = params([heads, half_dim, cache.capacity, to, from, n, *pairs, halves]);
            let bindings = vec![part.of(&cache.buffer), part.of(temp), self.whole(angles)?];
            let groups = grid((heads * n * units(cache)).div_ceil(GROUP));
            self.steps.push(Step::Dispatch(Dispatch { kernel: Kernel::Shift(cache.ty), params: p, bindings, groups }));
        }
        Ok(())
    }

    fn store(&mut self, x: &'a Columns<B>, cache: &'a KvCache<B>, pos: usize, n_cols: usize) -> Result<()> {
        let half_dim = cache.head_dim / 2;
        for part in self.parts(cache)? {
            let (heads, first) = (part.heads.len(), x.first + part.heads.start * cache.head_dim);
            let p = params([n_cols, heads, half_dim, cache.capacity, pos, first, x.stride]);
            let bindings = vec![self.whole(&x.buffer)?, part.of(&cache.buffer)];
            let groups = grid((n_cols * heads * units(cache)).div_ceil(GROUP));
            self.steps.push(Step::Dispatch(Dispatch { kernel: Kernel::Store(cache.ty), params: p, bindings, groups }));
        }
        Ok(())
    }

    fn attend(
        &mut self,
        [q, y]: [&'a Columns<B>; 2],
        [k, v]: [&'a KvCache<B>; 2],
        heads: usize,
        [pos, window, n_cols]: [usize; 3],
        scale: f32,
    ) -> Result<()> {
        let half_dim = k.head_dim / 2;
        let group = heads / k.heads;
        let kernel = Kernel::Attend { ty: k.ty, pairs: half_dim.div_ceil(GROUP) as u32 };
        for part in self.parts(k)? {
            let first = part.heads.start * group * k.head_dim;
            let (q_first, y_first) = (q.first + first, y.first + first);
            let mut p =
                params([n_cols, group, half_dim, k.capacity, pos, window, q_first, q.stride, y_first, y.stride]);
            p[10] = scale.to_bits();
            let bindings = vec![self.whole(&q.buffer)?, part.of(&k.buffer), part.of(&v.buffer), self.whole(&y.buffer)?];
            let groups = [(part.heads.len() * group) as u32, n_cols as u32, 1];
            self.steps.push(Step::Dispatch(Dispatch { kernel, params: p, bindings, groups }));
        }
        Ok(())
    }

    /// A cache in parts of as many heads as a binding holds: all of them, or some that begin where
    /// a binding may.
    fn parts(&self, cache: &KvCache<B>) -> Result<Vec<CachePart>> {
        let head_bytes = cache.capacity as u64 * row_bytes(cache)?;
        let most = (self.limits.max_binding_bytes / head_bytes).min(cache.heads as u64);
        let fits = |n: &u64| *n == cache.heads as u64 || (n * head_bytes).is_multiple_of(self.limits.offset_alignment);
        let heads = (1..=most).rev().find(fits).ok_or_else(|| Error::Limit {
            what: format!("keys or values of {} tokens", cache.capacity),
            wanted_bytes: head_bytes,
            limit: "largest binding",
            limit_bytes: self.limits.max_binding_bytes,
        })? as usize;
        let part = |first: usize| CachePart { heads: first..cache.heads.min(first + heads), head_bytes };
        Ok((0..cache.heads).step_by(heads).map(part).collect())
    }

    /// A product, in slices of as many rows as a binding holds.
    fn matmul(
        &mut self,
        w: &'a Weight<B>,
        bias: Option<&'a B>,
        x: &'a Operand<B>,
        y: &'a Columns<B>,
        n_cols: usize,
    ) -> Result<()> {
        let (x, input) = match x {
            Operand::Floats(x) => (x, Input::Float),
            Operand::Int8(x) => (x, Input::Int8),
            Operand::Half(x) => (x, Input::Half),
        };
        let has_halves = self.limits.f16 || self.limits.matrix.is_some();
        if input == Input::Half && !(supports_half(w.ty) && has_halves && n_cols >= WIDE_COLS && w.k.is_multiple_of(32))
        {
            return Err(Error::unsupported(format!("{n_cols} columns of {} halves and {} weights", w.k, w.ty)));
        }
        if input == Input::Int8 && !supports_int8(w.ty) {
            return Err(Error::unsupported(format!("columns of 8-bit integers and {} weights", w.ty)));
        }
        let row_bytes = w.ty.row_bytes(w.k).filter(|_| supports(w.ty));
        let row_bytes = row_bytes.ok_or_else(|| Error::unsupported(format!("{} rows of {}", w.ty, w.k)))?;
        let kernel = self.product(w.ty, input, n_cols);
        // A slice begins up to an alignment before its first row and may read a word beyond its
        // last.
        let room = self.limits.max_binding_bytes.saturating_sub(self.limits.offset_alignment + 8);
        let slice_rows = room as usize / row_bytes;
        if slice_rows == 0 {
            return Err(Error::Limit {
                what: format!("a row of {} {}", w.k, w.ty),
                wanted_bytes: row_bytes as u64,
                limit: "largest binding",
                limit_bytes: self.limits.max_binding_bytes,
            });
        }
        let buffer_bytes = (self.len_of)(&w.buffer);
        for first in (0..w.rows).step_by(slice_rows) {
            let rows = slice_rows.min(w.rows - first);
            let start = (first * row_bytes) as u64;
            let end = (start + (rows * row_bytes) as u64).next_multiple_of(4) + 4;
            let offset = start / self.limits.offset_alignment * self.limits.offset_alignment;
            let len = end.min(buffer_bytes) - offset;
            let p = params([
                rows,
                w.k,
                row_bytes,
                (start - offset) as usize,
                n_cols,
                x.first,
                x.stride,
                y.first + first,
                y.stride,
                usize::from(bias.is_some()),
                first,
            ]);
            let bindings = vec![
                Some(Binding { buffer: &w.buffer, offset, len }),
                bias.map(|b| self.whole(b)).transpose()?.flatten(),
                self.whole(&x.buffer)?,
                self.whole(&y.buffer)?,
            ];
            let groups = match kernel {
                Kernel::Gemm { .. } => [rows.div_ceil(TILE) as u32, n_cols.div_ceil(TILE) as u32, 1],
                Kernel::GemmMatrix { units, .. } => {
                    let edge = units.edge() as usize;
                    [rows.div_ceil(edge) as u32, n_cols.div_ceil(edge) as u32, 1]
                }
                Kernel::MatVec { cols, lanes, .. } => {
                    let [gx, gy, _] = grid(rows.div_ceil(GROUP / lanes as usize));
                    [gx, gy, n_cols.div_ceil(cols as usize) as u32]
                }
                Kernel::MatVecSubgroup { cols, .. } => {
                    let [gx, gy, _] = grid(rows);
                    [gx, gy, n_cols.div_ceil(cols as usize) as u32]
                }
                _ => unreachable!("products have these kernels only"),
            };
            self.steps.push(Step::Dispatch(Dispatch { kernel, params: p, bindings, groups }));
        }
        Ok(())
    }

    fn product(&self, ty: TensorType, input: Input, n_cols: usize) -> Kernel {
        let cols = if n_cols == 1 { 1 } else { MATVEC_COLS };
        if let (Input::Half, Some(units)) = (input, self.limits.matrix) {
            return Kernel::GemmMatrix { ty, units };
        }
        match n_cols {
            WIDE_COLS.. => Kernel::Gemm { ty, input },
            _ if self.limits.subgroups => Kernel::MatVecSubgroup { ty, input, cols },
            _ => Kernel::MatVec { ty, input, cols, lanes: self.limits.lanes },
        }
    }
}

fn row_bytes<B>(cache: &KvCache<B>) -> Result<u64> {
    let unsupported = || Error::unsupported(format!("heads of {} elements in {:?}", cache.head_dim, cache.ty));
    cache_row_bytes(cache.ty, cache.head_dim).ok_or_else(unsupported)
}

/// Threads that write one head's key or value.
fn units<B>(cache: &KvCache<B>) -> usize {
    (cache.head_dim / 2).div_ceil(unit_pairs(cache.ty))
}
