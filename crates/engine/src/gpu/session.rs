//! The last layers of a forward pass on a graphics processor. The steps are those of `forward.rs`, with f32 activations; so is
//! the convention that a block's output joins the residual stream at the next norm, which lets the split lie anywhere.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use modelembed_gpu::{
    Backend, Buffer, Columns, Gpu, KvCache, Op, Operand, TOP_K, Vectors, WIDE_COLS, cache_row_bytes, half_words,
    int8_words, top_k_temp_bytes,
};
use modelembed_terms::CacheType;
use modelembed_text::TokenId;

use super::place::CacheSize;
use super::weights::{GpuLayer, GpuModel, Linear};
use super::{AnglesOf, Best};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::rope::RopeTable;
use crate::scratch::{LOGIT_COLS, Scratch};

/// Columns up to which a whole pass is one submission. Longer ones go layer by layer, so that no submission is long enough for
/// a driver's watchdog, and a cancel is seen in time.
const ONE_SUBMISSION_COLS: usize = 8;

/// Buffers of a session on the device. Matrices are stored column by column.
pub(crate) struct GpuSession {
    model: Arc<GpuModel>,
    /// Keys and values of each layer here.
    kv: Vec<[KvCache<Buffer>; 2]>,
    x: Buffer,      // (n_cols, n_embd)
    delta: Buffer,  // (n_cols, n_embd)
    normed: Buffer, // (n_cols, n_embd)
    qkv: Buffer,    // (n_cols, q_rows + 2 * kv_rows)
    attn: Buffer,   // (n_cols, q_rows)
    gate: Buffer,   // (n_cols, n_ff)
    up: Buffer,     // (n_cols, n_ff)
    angles: Buffer, // (n_cols, 2, n_pairs)
    angles_windowed: Buffer,
    /// Products' columns as pairs of 8-bit integers, where the device multiplies those: (n_cols, int8_words).
    int8: Option<Buffer>,
    /// The same as halves: (n_cols, half_words).
    half: Option<Buffer>,
    logits: Option<Logits>,
    /// What went wrong where no error could be returned; the next pass returns it.
    failure: Option<Error>,
}

/// Where the head's results go.
struct Logits {
    all: Buffer,   // (LOGIT_COLS, n_vocab)
    temp: Buffer,  // of the search for the best
    ids: Buffer,   // (MAX_PICKED)
    found: Buffer, // (n_cols, TOP_K, 2), then (n_cols, ids)
}

/// Tokens whose logits can be picked besides the best.
const MAX_PICKED: usize = 128;

impl Logits {
    fn new(gpu: &Gpu, n_vocab: usize) -> modelembed_gpu::Result<Logits> {
        let words = |n: usize| gpu.alloc("logits", n as u64 * 4);
        Ok(Logits {
            all: words(LOGIT_COLS * n_vocab)?,
            temp: gpu.alloc("logits", top_k_temp_bytes(n_vocab, LOGIT_COLS))?,
            ids: words(MAX_PICKED)?,
            found: words(LOGIT_COLS * (TOP_K * 2 + MAX_PICKED))?,
        })
    }
}

impl GpuSession {
    /// Takes memory for `capacity` tokens, keys and values in `cache_type`, and chunks of `max_cols`.
    pub(crate) fn new(
        gpu: &Arc<GpuModel>,
        model: &Model,
        capacity: usize,
        max_cols: usize,
        cache_type: CacheType,
    ) -> Result<GpuSession> {
        let cache = CacheSize::of(model.config(), capacity, cache_type)?;
        Ok(GpuSession::with_cache(gpu, model.config(), model.n_vocab(), max_cols, cache)?)
    }

    /// The same for keys and values of a known size.
    pub(super) fn with_cache(
        gpu: &Arc<GpuModel>,
        c: &Config,
        n_vocab: usize,
        max_cols: usize,
        cache: CacheSize,
    ) -> modelembed_gpu::Result<GpuSession> {
        let CacheSize { ty, capacity, len_bytes } = cache;
        let cache = || -> modelembed_gpu::Result<KvCache<Buffer>> {
            let buffer = gpu.gpu.alloc("keys and values", len_bytes)?;
            Ok(KvCache { buffer, ty, heads: c.n_head_kv, capacity, head_dim: c.head_dim })
        };
        let kv = gpu.layers.iter().map(|_| Ok([cache()?, cache()?])).collect::<modelembed_gpu::Result<Vec<_>>>()?;
        let floats = |n: usize| gpu.gpu.alloc("activations", n as u64 * 4);
        let logits = gpu.head.as_ref().map(|_| Logits::new(&gpu.gpu, n_vocab)).transpose()?;
        let longest = c.n_embd.max(c.n_ff).max(c.q_rows());
        let int8 = gpu.int8.then(|| floats(max_cols * int8_words(longest.next_multiple_of(32)))).transpose()?;
        let half = gpu.half.then(|| floats(max_cols * half_words(longest.next_multiple_of(32)))).transpose()?;
        Ok(GpuSession {
            int8,
            half,
            kv,
            x: floats(max_cols * c.n_embd)?,
            delta: floats(max_cols * c.n_embd)?,
            normed: floats(max_cols * c.n_embd)?,
            qkv: floats(max_cols * qkv_rows(c))?,
            attn: floats(max_cols * c.q_rows())?,
            gate: floats(max_cols * c.n_ff)?,
            up: floats(max_cols * c.n_ff)?,
            angles: floats(max_cols * c.rope.n_rot)?,
            angles_windowed: floats(max_cols * c.rope.n_rot)?,
            logits,
            failure: None,
            model: Arc::clone(gpu),
        })
    }

    pub(crate) fn first_layer(&self) -> usize {
        self.model.first_layer()
    }

    pub(crate) fn has_head(&self) -> bool {
        self.logits.is_some()
    }

    pub(crate) fn kv_bytes_per_token(&self) -> u64 {
        let of = |cache: &KvCache<Buffer>| cache.heads as u64 * cache_row_bytes(cache.ty, cache.head_dim).unwrap_or(0);
        self.kv.iter().flatten().map(of).sum()
    }

    /// From now on [`busy`](Self::busy) tells something.
    pub(crate) fn measure(&self) {
        self.model.gpu.measure();
    }

    /// How long the device computed so far; 0 where it has no clock.
    pub(crate) fn busy(&self) -> Result<Duration> {
        Ok(self.model.gpu.busy()?.unwrap_or_default())
    }

    /// Runs the layers here over the `n` columns of the scratch's residual stream and pending output; those come back, unless
    /// the head, which takes them from here, is here too.
    pub(crate) fn blocks(
        &mut self,
        model: &Model,
        s: &mut Scratch,
        pos: usize,
        n: usize,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let (gpu, c) = (&self.model.gpu, model.config());
        gpu.write_f32(&self.x, 0, &s.x[..n * c.n_embd])?;
        if self.first_layer() > 0 {
            gpu.write_f32(&self.delta, 0, &s.delta[..n * c.n_embd])?;
        }
        gpu.write_f32(&self.angles, 0, &s.angles[..n * c.rope.n_rot])?;
        if c.window.is_some() {
            gpu.write_f32(&self.angles_windowed, 0, &s.angles_windowed[..n * c.rope.n_rot])?;
        }
        let mut ops = Vec::new();
        for i in 0..self.model.layers.len() {
            self.layer(&mut ops, c, i, pos, n);
            if n > ONE_SUBMISSION_COLS {
                gpu.run(&ops)?;
                ops.clear();
                // Waits: a queue of layers far ahead could not be cancelled.
                gpu.read(&self.x, 0, &mut [])?;
                if is_cancelled() {
                    return Err(Error::Cancelled);
                }
            }
        }
        gpu.run(&ops)?;
        if !self.has_head() {
            gpu.read_f32(&self.x, 0, &mut s.x[..n * c.n_embd])?;
            gpu.read_f32(&self.delta, 0, &mut s.delta[..n * c.n_embd])?;
        }
        Ok(())
    }

    /// Computes a pass of one column of zeros, and makes the kernels of chunks of `max_cols`: what a device has too little memory for,
    /// does not take or is lost by shows here.
    pub(super) fn try_out(&self, c: &Config, n_vocab: usize, max_cols: usize) -> modelembed_gpu::Result<()> {
        let gpu = &self.model.gpu;
        let pass = |n: usize| {
            let mut ops = Vec::new();
            (0..self.model.layers.len()).for_each(|i| self.layer(&mut ops, c, i, 0, n));
            if self.has_head() {
                ops.extend(self.head(c, n_vocab, 0..n.min(LOGIT_COLS)).0);
            }
            ops
        };
        gpu.prepare(&pass(max_cols))?;
        gpu.write_f32(&self.x, 0, &vec![0.0; c.n_embd])?;
        gpu.run(&pass(1))?;
        gpu.read(&self.x, 0, &mut [])
    }

    /// The steps of layer `i` of those here.
    fn layer(&self, ops: &mut Vec<Op<Buffer>>, c: &Config, i: usize, pos: usize, n: usize) {
        let (layer, il) = (&self.model.layers[i], self.first_layer() + i);
        let before = match (i, il) {
            (_, 0) => None,
            (0, _) => Some(self.model.entry_norm.as_ref()),
            _ => Some(self.model.layers[i - 1].post_ffn_norm.as_ref()),
        };
        self.attention_block(ops, c, il, layer, before, pos, n);
        self.feed_forward(ops, c, layer, n);
    }

    /// Joins the last block to the residual and computes the logits of some columns into `logits`: (columns, n_vocab).
    pub(crate) fn logits(&mut self, model: &Model, cols: Range<usize>, logits: &mut [f32]) -> Result<()> {
        let n = cols.len() * model.n_vocab();
        let (ops, out) = self.head(model.config(), model.n_vocab(), cols);
        self.model.gpu.run(&ops)?;
        Ok(self.model.gpu.read_f32(&out.all, 0, &mut logits[..n])?)
    }

    /// The same, of which only the `n_best` most likely tokens' and those of `also` come back; `None`, with nothing done, if
    /// those are more than can be picked here.
    pub(crate) fn best(
        &mut self,
        model: &Model,
        cols: Range<usize>,
        n_best: usize,
        also: &[TokenId],
    ) -> Result<Option<Vec<Best>>> {
        let (gpu, n, n_vocab) = (&self.model.gpu, cols.len(), model.n_vocab());
        let mut also: Vec<u32> = also.iter().map(|id| id.0).filter(|&id| (id as usize) < n_vocab).collect();
        also.sort_unstable();
        also.dedup();
        if n_best > TOP_K || n_best >= n_vocab || also.len() > MAX_PICKED {
            return Ok(None);
        }
        let (mut ops, out) = self.head(model.config(), n_vocab, cols);
        let x = columns(&out.all, 0, n_vocab);
        let n_pair_words = n * TOP_K * 2;
        ops.push(Op::TopK { x: x.clone(), len: n_vocab, n_cols: n, temp: out.temp.clone(), out: out.found.clone() });
        if !also.is_empty() {
            gpu.write_u32(&out.ids, 0, &also)?;
            let picked = columns(&out.found, n_pair_words, also.len());
            ops.push(Op::Gather { x: x.clone(), indices: out.ids.clone(), n: also.len(), n_cols: n, out: picked });
        }
        gpu.run(&ops)?;
        let mut words = vec![0u32; n_pair_words + n * also.len()];
        gpu.read_u32(&out.found, 0, &mut words)?;
        let (pairs, picked) = words.split_at(n_pair_words);
        let of_column = |c: usize| {
            let found = pairs[c * TOP_K * 2..][..n_best * 2].chunks_exact(2);
            let found = found.filter_map(|pair| Some((pair[1], number_of_key(pair[0])?)));
            let mut all: Vec<(u32, f32)> = found.collect();
            all.extend(also.iter().copied().zip(picked[c * also.len()..].iter().map(|bits| f32::from_bits(*bits))));
            all.sort_unstable_by_key(|(id, _)| *id);
            all.dedup_by_key(|(id, _)| *id);
            Best {
                ids: all.iter().map(|(id, _)| TokenId(*id)).collect(),
                logits: all.iter().map(|(_, x)| *x).collect(),
            }
        };
        Ok(Some((0..n).map(of_column).collect()))
    }

    /// The steps from the last block's output to the logits of some columns.
    fn head(&self, c: &Config, n_vocab: usize, cols: Range<usize>) -> (Vec<Op<Buffer>>, &Logits) {
        let (Some(head), Some(out)) = (&self.model.head, &self.logits) else {
            unreachable!("asked for only where the head is here")
        };
        let n = cols.len();
        let last = self.model.layers.last().map(|l| l.post_ffn_norm.as_ref());
        let mut ops = Vec::new();
        self.join_and_norm(&mut ops, c, last, &head.norm, cols);
        // Of the head's input nothing is rounded: logits are what a token is chosen by.
        multiply(
            &mut ops,
            &Operand::Floats(columns(&self.normed, 0, c.n_embd)),
            &head.output,
            (&out.all, 0, n_vocab),
            n,
        );
        (ops, out)
    }

    /// Moves the keys and values of positions `from` down to `to`; `angles` are those of the keys' turn.
    pub(crate) fn shift(&mut self, model: &Model, from: Range<usize>, to: usize, angles: &AnglesOf<'_>) {
        if let Err(e) = self.try_shift(model, from, to, angles) {
            self.failure = Some(e);
        }
    }

    fn try_shift(&self, model: &Model, from: Range<usize>, to: usize, angles: &AnglesOf<'_>) -> Result<()> {
        let (gpu, c) = (&self.model.gpu, model.config());
        let pairs = c.rope.n_rot / 2;
        let upload = |buffer: &Buffer, table: &RopeTable| {
            let (mut both, sin) = angles(table);
            both.extend(sin);
            gpu.write_f32(buffer, 0, &both)
        };
        upload(&self.angles, model.rope())?;
        if let Some(table) = model.rope_windowed() {
            upload(&self.angles_windowed, table)?;
        }
        let temp = self.kv.first().map(|[k, _]| gpu.alloc("moved keys", k.buffer.len_bytes())).transpose()?;
        let Some(temp) = temp else { return Ok(()) };
        let mut ops = Vec::new();
        for (i, [k, v]) in self.kv.iter().enumerate() {
            let turn = (self.angles_of(c, self.first_layer() + i).clone(), pairs, c.arch.rope_style);
            for (cache, turn) in [(k, Some(turn)), (v, None)] {
                let (cache, temp) = (cache.clone(), temp.clone());
                ops.push(Op::Shift { cache, temp, turn, from: from.start, to, n: from.len() });
            }
        }
        Ok(gpu.run(&ops)?)
    }

    fn angles_of(&self, c: &Config, il: usize) -> &Buffer {
        if c.is_windowed(il) { &self.angles_windowed } else { &self.angles }
    }

    /// delta = Wo * attention(rope(Wq y), rope(Wk y), Wv y), where y = norm(x).
    #[allow(clippy::too_many_arguments, reason = "what a block depends on")]
    fn attention_block(
        &self,
        ops: &mut Vec<Op<Buffer>>,
        c: &Config,
        il: usize,
        l: &GpuLayer,
        before: Option<Option<&Buffer>>,
        pos: usize,
        n: usize,
    ) {
        self.join_and_norm(ops, c, before, &l.attn_norm, 0..n);
        let stride = qkv_rows(c);
        let (k_at, v_at) = (c.q_rows(), c.q_rows() + c.kv_rows());
        let targets = [(&l.q, 0), (&l.k, k_at), (&l.v, v_at)];
        self.project(ops, (&self.normed, c.n_embd), &targets.map(|(w, first)| (w, &self.qkv, first, stride)), n);
        for (norm, first, per_col) in [(&l.q_norm, 0, c.n_head), (&l.k_norm, k_at, c.n_head_kv)] {
            if let Some(weight) = norm {
                let columns = columns(&self.qkv, first, stride);
                let (y, weight) = (columns.clone(), weight.clone());
                let x = Vectors { columns, per_col };
                ops.push(Op::RmsNorm { x, y, weight, len: c.head_dim, eps: c.rms_eps, n_cols: n });
            }
        }
        ops.push(Op::Rope {
            x: columns(&self.qkv, 0, stride), // keys lie behind the queries
            angles: self.angles_of(c, il).clone(),
            heads: c.n_head + c.n_head_kv,
            head_dim: c.head_dim,
            pairs: c.rope.n_rot / 2,
            style: c.arch.rope_style,
            n_cols: n,
        });
        let [k, v] = &self.kv[il - self.first_layer()];
        for (cache, first) in [(k, k_at), (v, v_at)] {
            ops.push(Op::Store { x: columns(&self.qkv, first, stride), cache: cache.clone(), pos, n_cols: n });
        }
        ops.push(Op::Attend {
            q: columns(&self.qkv, 0, stride),
            k: k.clone(),
            v: v.clone(),
            y: columns(&self.attn, 0, c.q_rows()),
            heads: c.n_head,
            pos,
            window: c.window.filter(|_| c.is_windowed(il)).map_or(usize::MAX, |w| w.n_tokens),
            scale: c.attn_scale,
            n_cols: n,
        });
        self.project(ops, (&self.attn, c.q_rows()), &[(&l.o, &self.delta, 0, c.n_embd)], n);
    }

    /// delta = Wdown * (act(Wgate y) * Wup y), where y = norm(x).
    fn feed_forward(&self, ops: &mut Vec<Op<Buffer>>, c: &Config, l: &GpuLayer, n: usize) {
        self.join_and_norm(ops, c, Some(l.post_attn_norm.as_ref()), &l.ffn_norm, 0..n);
        let targets = [(&l.gate, &self.gate, 0, c.n_ff), (&l.up, &self.up, 0, c.n_ff)];
        self.project(ops, (&self.normed, c.n_embd), &targets, n);
        ops.push(Op::ActMul {
            gate: columns(&self.gate, 0, c.n_ff),
            up: columns(&self.up, 0, c.n_ff),
            len: n * c.n_ff,
            act: c.arch.activation,
        });
        self.project(ops, (&self.gate, c.n_ff), &[(&l.down, &self.delta, 0, c.n_embd)], n);
    }

    /// x += delta (normalised where the architecture does), then normed = norm(x): of columns `cols`, to the front.
    fn join_and_norm(
        &self,
        ops: &mut Vec<Op<Buffer>>,
        c: &Config,
        before: Option<Option<&Buffer>>,
        norm: &Buffer,
        cols: Range<usize>,
    ) {
        let (n, first) = (cols.len(), cols.start * c.n_embd);
        let of = |buffer: &Buffer| columns(buffer, first, c.n_embd);
        let rms_norm = |from: &Buffer, weight: &Buffer| Op::RmsNorm {
            x: Vectors { columns: of(from), per_col: 1 },
            y: columns(&self.normed, 0, c.n_embd),
            weight: weight.clone(),
            len: c.n_embd,
            eps: c.rms_eps,
            n_cols: n,
        };
        if let Some(post_norm) = before {
            let x = match post_norm {
                Some(weight) => {
                    ops.push(rms_norm(&self.delta, weight));
                    columns(&self.normed, 0, c.n_embd)
                }
                None => of(&self.delta),
            };
            ops.push(Op::Add { acc: of(&self.x), x, len: n * c.n_embd });
        }
        ops.push(rms_norm(&self.x, norm));
    }

    /// Each matrix times the columns of `from`; its rows go to a buffer, from the row given on, in columns of a stride.
    fn project(
        &self,
        ops: &mut Vec<Op<Buffer>>,
        (from, k): (&Buffer, usize),
        targets: &[(&Linear, &Buffer, usize, usize)],
        n: usize,
    ) {
        let floats = Operand::Floats(columns(from, 0, k));
        let limits = self.model.gpu.limits();
        let takes_half = |w: &Linear| self.half.is_some() && n >= WIDE_COLS && limits.prefers_half(w.ty, k);
        let takes_int8 = |w: &Linear| !takes_half(w) && modelembed_gpu::supports_int8(w.ty);
        // One rounding serves all of them.
        let half = self.half.as_ref().filter(|_| targets.iter().any(|(w, ..)| takes_half(w))).map(|buffer| {
            let y = columns(buffer, 0, half_words(k));
            ops.push(Op::Halve { x: columns(from, 0, k), y: y.clone(), len: k, n_cols: n });
            Operand::Half(y)
        });
        let int8 = self.int8.as_ref().filter(|_| targets.iter().any(|(w, ..)| takes_int8(w))).map(|buffer| {
            let y = columns(buffer, 0, int8_words(k));
            ops.push(Op::Quantize { x: columns(from, 0, k), y: y.clone(), len: k, n_cols: n });
            Operand::Int8(y)
        });
        for &(w, to, first, stride) in targets {
            let rounded = if takes_half(w) { half.as_ref() } else { int8.as_ref().filter(|_| takes_int8(w)) };
            multiply(ops, rounded.unwrap_or(&floats), w, (to, first, stride), n);
        }
    }
}

/// The rows of a matrix, part by part, times some columns.
fn multiply(
    ops: &mut Vec<Op<Buffer>>,
    x: &Operand<Buffer>,
    linear: &Linear,
    (to, first, stride): (&Buffer, usize, usize),
    n: usize,
) {
    for part in &linear.parts {
        ops.push(Op::MatMul {
            w: part.w.clone(),
            bias: part.bias.clone(),
            x: x.clone(),
            y: columns(to, first + part.first_row, stride),
            n_cols: n,
        });
    }
}

/// The element that [`Op::TopK`] gives a key for; `None` for a NaN and for nothing.
fn number_of_key(key: u32) -> Option<f32> {
    let bits = if key & 0x8000_0000 != 0 { key & 0x7fff_ffff } else { !key };
    (key != 0).then(|| f32::from_bits(bits))
}

fn columns(buffer: &Buffer, first: usize, stride: usize) -> Columns<Buffer> {
    Columns { buffer: buffer.clone(), first, stride }
}

fn qkv_rows(c: &Config) -> usize {
    c.q_rows() + 2 * c.kv_rows()
}
