//! One pass of some tokens through the model, in the order of the picture: embedding, then for each block
//! attention and feed-forward network, each joined to the residual stream, then norm and output head.
//!
//! Every step is one job of the pool over columns or over tiles of rows and columns; a job whose work is one chunk runs
//! on the caller. A column's numbers depend neither on how many columns a chunk has nor on the number of workers.

use std::ops::Range;

use modelembed_kernels::{ActKind, ActLayout, Acts, MatRef, Output, Strided};
use modelembed_pool::{Blocks, Groups, Rows, RowsPart, Tiles, Worker};
use modelembed_terms::Activation;
use modelembed_text::TokenId;

use crate::attention;
use crate::error::{Error, Result};
use crate::gpu::{Best, GpuSession};
use crate::kv::{KeysValuesMut, KvCache};
use crate::model::Model;
use crate::peaks::greatest;
use crate::residency::Unit;
use crate::rope::RopeTable;
use crate::scratch::{Kinds, Scratch, WIDE_COLS, projection_grid};
use crate::timing::{Clock, Job};
use crate::weights::{Layer, Tensor};

/// Columns of per-token steps that a worker takes at a time.
const GRAIN_COLS: usize = 4;
/// Columns whose keys and values a worker stores at a time.
const STORE_COLS: usize = 64;

/// The pass of one chunk of tokens: columns of the scratch buffers are positions `pos..pos + n`.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    pub(crate) kv: &'a mut KvCache,
    pub(crate) s: &'a mut Scratch,
    /// Where the last layers are computed, if not here.
    pub(crate) gpu: Option<&'a mut GpuSession>,
    pub(crate) clock: &'a mut Clock,
    /// Position of the first token.
    pub(crate) pos: usize,
    /// Tokens in the chunk.
    pub(crate) n: usize,
}

impl Pass<'_> {
    /// Runs the blocks over `tokens`; afterwards the last block's output is still to be joined by [`logits`](Self::logits).
    pub(crate) fn blocks(&mut self, tokens: &[TokenId], is_cancelled: &dyn Fn() -> bool) -> Result<()> {
        let model = self.model;
        self.embed(tokens);
        self.angles();
        self.lap(Job::Embed);
        for (il, layer) in model.weights().layers.iter().enumerate() {
            if is_cancelled() {
                return Err(Error::Cancelled);
            }
            if let Some(gpu) = self.gpu.as_deref_mut().filter(|gpu| gpu.first_layer() == il) {
                gpu.blocks(model, self.s, self.pos, self.n, is_cancelled)?;
                self.lap_on_gpu(Job::Gpu)?;
                break;
            }
            model.residency().enter(Unit::Attention(il), is_cancelled)?;
            let before = match il {
                0 => None,
                il => Some(Joined { norm: model.weights().layers[il - 1].post_ffn_norm }),
            };
            self.attention_block(il, layer, before);
            model.residency().enter(Unit::FeedForward(il), is_cancelled)?;
            self.feed_forward(layer);
        }
        if model.here().has_head { model.residency().enter(Unit::Head, is_cancelled) } else { Ok(()) }
    }

    /// The time since the last job was this one's.
    fn lap(&mut self, job: Job) {
        let pool = self.model.pool();
        self.clock.lap(job, || pool.waited());
    }

    /// The same for a job of the graphics processor, which is waited for only if somebody wants to know.
    fn lap_on_gpu(&mut self, job: Job) -> Result<()> {
        if let (true, Some(gpu)) = (self.clock.is_on(), self.gpu.as_deref()) {
            let (busy, pool) = (gpu.busy()?, self.model.pool());
            self.clock.lap_on_gpu(job, || pool.waited(), busy);
        }
        Ok(())
    }

    /// x = embedding of each token.
    fn embed(&mut self, tokens: &[TokenId]) {
        let (model, n_embd) = (self.model, self.model.config().n_embd);
        let table = model.embedding();
        let scale = (n_embd as f32).sqrt();
        let out = Blocks { data: &mut self.s.x[..self.n * n_embd], block: n_embd };
        model.pool().run(self.n, GRAIN_COLS, out, |cols, x, _| {
            for (&id, column) in tokens[cols].iter().zip(x.chunks_exact_mut(n_embd)) {
                model.kernels().dequantize_row(table, id.0 as usize, column);
                if model.config().arch.scales_embedding {
                    model.kernels().scale(column, scale);
                }
            }
        });
    }

    /// Cosines and sines of every position of the chunk.
    fn angles(&mut self) {
        let fill = |table: &RopeTable, angles: &mut [f32]| {
            let pairs = table.n_pairs();
            for (c, column) in angles.chunks_exact_mut(2 * pairs).take(self.n).enumerate() {
                let (cos, sin) = column.split_at_mut(pairs);
                table.fill(self.pos + c, cos, sin);
            }
        };
        fill(self.model.rope(), &mut self.s.angles);
        if let Some(table) = self.model.rope_windowed() {
            fill(table, &mut self.s.angles_windowed);
        }
    }

    /// delta = Wo * attention(rope(Wq y), rope(Wk y), Wv y), where y = norm(x).
    fn attention_block(&mut self, il: usize, l: &Layer, before: Option<Joined>) {
        self.join_and_norm(before, &l.attn_norm, Kinds::of([l.wq.ty, l.wk.ty, l.wv.ty], self.model.is_exact()));
        self.lap(Job::Norm);
        let stack = [(l.wq, l.bq), (l.wk, l.bk), (l.wv, l.bv)];
        self.project(&stack, Buffer::Qkv);
        self.lap(Job::Qkv);
        self.rope_heads(il, l);
        self.store_kv(il);
        self.lap(Job::RopeStore);
        attention::attend(self, il);
        self.lap(Job::Attention);
        self.quantize(&l.wo, Input::Attention);
        self.project(&[(l.wo, l.bo)], Buffer::Delta);
        self.lap(Job::AttentionOutput);
    }

    /// delta = Wdown * (act(Wgate y) * Wup y), where y = norm(x).
    fn feed_forward(&mut self, l: &Layer) {
        let kinds = Kinds::of([l.gate.ty, l.up.ty], self.model.is_exact());
        self.join_and_norm(Some(Joined { norm: l.post_attn_norm }), &l.ffn_norm, kinds);
        self.lap(Job::Norm);
        self.gate_and_up(l);
        self.lap(Job::GateUp);
        self.quantize(&l.down, Input::Hidden);
        self.project(&[(l.down, l.down_bias)], Buffer::Delta);
        self.lap(Job::Down);
    }

    /// x += delta (normalised where the architecture does), then the norm of x becomes an input of these kinds.
    fn join_and_norm(&mut self, before: Option<Joined>, norm: &Tensor, kinds: Kinds) {
        let (model, n_embd, eps) = (self.model, self.model.config().n_embd, self.model.config().rms_eps);
        let (norm, kernels) = (model.bytes(norm), model.kernels());
        let post_norm = before.and_then(|j| j.norm).map(|t| model.bytes(&t));
        let targets = Targets::new(&kinds, n_embd, self.n);
        let Scratch { x, delta, acts, workers, .. } = &mut *self.s;
        let (q8, f32) = targets.split(acts.both_mut());
        let (delta, workers) = (&delta[..], &*workers);
        let out = (Blocks { data: &mut x[..self.n * n_embd], block: n_embd }, q8, f32);
        model.pool().run(self.n, GRAIN_COLS, out, |cols, (x, q8, f32), worker| {
            let scratch = workers.get(worker);
            let vector = &mut scratch.vector[..n_embd];
            for (i, (c, x)) in cols.zip(x.chunks_exact_mut(n_embd)).enumerate() {
                if before.is_some() {
                    let delta = &delta[c * n_embd..][..n_embd];
                    match post_norm {
                        Some(weight) => {
                            kernels.rms_norm(delta, Some(weight), eps, vector);
                            kernels.add(x, vector);
                        }
                        None => kernels.add(x, delta),
                    }
                }
                kernels.rms_norm(x, Some(norm), eps, vector);
                targets.write(model, vector, i, q8, f32);
            }
        });
    }

    /// The rows of some matrices, one matrix after the other, times every column of the activations.
    fn project<const N: usize>(&mut self, stack: &[(Tensor, Option<Tensor>); N], to: Buffer) {
        let (model, n) = (self.model, self.n);
        let rows: usize = stack.iter().map(|(w, _)| w.rows).sum();
        let parts = stack.map(|(w, bias)| {
            let mat = model.matrix(&w);
            let kind = modelembed_kernels::Kernels::act_kind(w.ty, model.is_exact());
            let acts = Acts::new(ActLayout::new(kind, w.k), self.s.acts.bytes(kind), n);
            (mat, acts, bias.map(|b| model.bytes(&b)))
        });
        let out = match to {
            Buffer::Qkv => &mut self.s.qkv[..n * rows],
            Buffer::Delta => &mut self.s.delta[..n * rows],
        };
        let grid = projection_grid(rows, n, model.pool().threads());
        model.pool().run(grid.n_tiles(), 1, Tiles { data: out, grid }, |tile, mut part, _| {
            let (chunk, cols) = grid.tile(tile.start);
            let mut first = 0; // of this matrix, among all rows
            for &(w, acts, bias) in &parts {
                let range = intersect(&chunk, first..first + w.rows());
                if !range.is_empty() {
                    let mut out = SubRows { part: &mut part, rows: range.start - chunk.start..range.end - chunk.start };
                    let own = range.start - first..range.end - first;
                    model.kernels().mul_rows(w, own.clone(), acts.columns(cols.clone()), &mut out);
                    add_bias(bias, own, cols.len(), &mut out);
                }
                first += w.rows();
            }
        });
    }

    /// Norms queries and keys where the architecture does, and turns them by their positions.
    fn rope_heads(&mut self, il: usize, l: &Layer) {
        let (model, c) = (self.model, self.model.config());
        let (hd, eps, style) = (c.head_dim, c.rms_eps, c.arch.rope_style);
        let (n_q, n_qk) = (c.n_head, c.n_head + c.n_head_kv);
        let stride = c.q_rows() + 2 * c.kv_rows();
        let q_norm = l.q_norm.map(|t| model.bytes(&t));
        let k_norm = l.k_norm.map(|t| model.bytes(&t));
        let angles = if c.is_windowed(il) { &self.s.angles_windowed } else { &self.s.angles };
        let pairs = c.rope.n_rot / 2;
        let workers = &self.s.workers;
        let out = Blocks { data: &mut self.s.qkv[..self.n * stride], block: stride };
        model.pool().run(self.n, GRAIN_COLS, out, |cols, qkv, worker| {
            let normed = &mut workers.get(worker).vector[..hd];
            for (col, column) in cols.zip(qkv.chunks_exact_mut(stride)) {
                let (cos, sin) = angles[col * 2 * pairs..][..2 * pairs].split_at(pairs);
                for (h, head) in column.chunks_exact_mut(hd).take(n_qk).enumerate() {
                    if let Some(weight) = if h < n_q { q_norm } else { k_norm } {
                        model.kernels().rms_norm(head, Some(weight), eps, normed);
                        head.copy_from_slice(normed);
                    }
                    model.kernels().rope(head, cos, sin, style);
                }
            }
        });
    }

    /// Puts the chunk's keys and values into the cache.
    fn store_kv(&mut self, il: usize) {
        let (model, c) = (self.model, self.model.config());
        let hd = c.head_dim;
        let stride = c.q_rows() + 2 * c.kv_rows();
        let qkv = &self.s.qkv[..self.n * stride];
        for h in 0..c.n_head_kv {
            let k_at = c.q_rows() + h * hd;
            let v_at = k_at + c.kv_rows();
            let columns = |cols: Range<usize>| {
                let columns = qkv.chunks_exact(stride).skip(cols.start).take(cols.len());
                columns.map(|column| (&column[k_at..k_at + hd], &column[v_at..v_at + hd]))
            };
            let kernels = model.kernels();
            match self.kv.head_mut(il, h, self.pos..self.pos + self.n) {
                KeysValuesMut::I16([k, v], [k_scales, v_scales]) => {
                    let rows = (Blocks { data: k, block: hd }, Blocks { data: v, block: hd });
                    let out = (rows, (k_scales, v_scales));
                    model.pool().run(self.n, STORE_COLS, out, |cols, ((k, v), (k_scales, v_scales)), _| {
                        let rows = k.chunks_exact_mut(hd).zip(v.chunks_exact_mut(hd));
                        let targets = rows.zip(k_scales.iter_mut().zip(v_scales));
                        for ((key, value), ((k, v), (k_scale, v_scale))) in columns(cols).zip(targets) {
                            *k_scale = kernels.to_i16(key, k);
                            *v_scale = kernels.to_i16(value, v);
                        }
                    });
                }
                KeysValuesMut::F16(k, v) => store(model, k, v, self.n, columns, |x, row| kernels.to_f16(x, row)),
                KeysValuesMut::Q8(k, v) => store(model, k, v, self.n, columns, |x, row| kernels.to_q8_0(x, row)),
                KeysValuesMut::F32(k, v) => store(model, k, v, self.n, columns, |x, row| row.copy_from_slice(x)),
            }
        }
    }

    /// Some columns become the input of the projection that reads them.
    fn quantize(&mut self, reader: &Tensor, input: Input) {
        let (model, n, k) = (self.model, self.n, reader.k);
        let targets = Targets::new(&Kinds::of([reader.ty], model.is_exact()), k, n);
        let Scratch { attn, hidden, acts, .. } = &mut *self.s;
        let columns = match input {
            Input::Attention => &attn[..n * k],
            Input::Hidden => &hidden[..n * k],
        };
        model.pool().run(n, GRAIN_COLS, targets.split(acts.both_mut()), |cols, (q8, f32), _| {
            for (i, column) in columns.chunks_exact(k).skip(cols.start).take(cols.len()).enumerate() {
                targets.write(model, column, i, q8, f32);
            }
        });
    }

    /// hidden = act(Wgate y) * Wup y, both rows of a pair by the same worker.
    fn gate_and_up(&mut self, l: &Layer) {
        let (model, n, rows) = (self.model, self.n, l.gate.rows);
        let (gate, up) = (model.matrix(&l.gate), model.matrix(&l.up));
        let (gate_bias, up_bias) = (l.gate_bias.map(|t| model.bytes(&t)), l.up_bias.map(|t| model.bytes(&t)));
        let Scratch { hidden, acts, workers, .. } = &mut *self.s;
        let (workers, acts) = (&*workers, &*acts);
        let acts_of = |w: MatRef<'_>| {
            let kind = modelembed_kernels::Kernels::act_kind(w.ty(), model.is_exact());
            Acts::new(ActLayout::new(kind, w.k()), acts.bytes(kind), n)
        };
        let (gate_acts, up_acts) = (acts_of(gate), acts_of(up));
        let grid = projection_grid(rows, n, model.pool().threads());
        let out = Tiles { data: &mut hidden[..n * rows], grid };
        model.pool().run(grid.n_tiles(), 1, out, |tile, mut part, worker: &mut Worker| {
            let (chunk, cols) = grid.tile(tile.start);
            let n = cols.len();
            let room = &mut workers.get(worker).tile[..n * chunk.len()];
            let mut ups = Strided { data: room, stride: chunk.len(), rows: chunk.len() };
            let mut gates = SubRows { part: &mut part, rows: 0..chunk.len() };
            model.kernels().mul_rows(gate, chunk.clone(), gate_acts.columns(cols.clone()), &mut gates);
            model.kernels().mul_rows(up, chunk.clone(), up_acts.columns(cols), &mut ups);
            add_bias(gate_bias, chunk.clone(), n, &mut gates);
            add_bias(up_bias, chunk.clone(), n, &mut ups);
            for c in 0..n {
                match model.config().arch.activation {
                    Activation::Silu => model.kernels().silu_mul(gates.column(c), ups.column(c)),
                    Activation::Gelu => model.kernels().gelu_mul(gates.column(c), ups.column(c)),
                }
            }
        });
    }

    /// What a sampler needs of the logits of some columns: the best of them if they can be found where they are computed, all
    /// others as [`logits`](Self::logits).
    pub(crate) fn logits_for(&mut self, cols: Range<usize>, wanted: &Wanted) -> Result<Option<Vec<Best>>> {
        let gpu = self.gpu.as_deref_mut().filter(|gpu| gpu.has_head());
        if let (Some(gpu), Some(n_best)) = (gpu, wanted.n_best) {
            let best = gpu.best(self.model, cols.clone(), n_best, &wanted.also)?;
            if best.is_some() {
                self.lap_on_gpu(Job::Head)?;
                return Ok(best);
            }
        }
        self.logits(cols)?;
        Ok(None)
    }

    /// Joins the last block to the residual and computes the logits of some columns, at most
    /// [`LOGIT_COLS`](crate::scratch::LOGIT_COLS), into `logits`: (columns, n_vocab); computed here, they leave their peaks in
    /// `peaks`. Columns may be asked for once, in ascending order: they are moved over those asked for before.
    pub(crate) fn logits(&mut self, cols: Range<usize>) -> Result<()> {
        let (model, w) = (self.model, self.model.weights());
        if let Some(gpu) = self.gpu.as_deref_mut().filter(|gpu| gpu.has_head()) {
            gpu.logits(model, cols, &mut self.s.logits)?;
            return self.lap_on_gpu(Job::Head);
        }
        let (n_embd, n_vocab) = (model.config().n_embd, w.output.rows);
        // The columns asked for move to the front, where the steps look for theirs.
        self.s.x.copy_within(cols.start * n_embd..cols.end * n_embd, 0);
        self.s.delta.copy_within(cols.start * n_embd..cols.end * n_embd, 0);
        let n = cols.len();
        let last = w.layers.last().map(|l| Joined { norm: l.post_ffn_norm });
        let mut head = Pass { model, kv: self.kv, s: self.s, gpu: None, clock: self.clock, pos: self.pos, n };
        let kinds = Kinds::of([w.output.ty], model.is_exact());
        head.join_and_norm(last, &w.output_norm, Kinds { f32: true, ..kinds });
        let kind = modelembed_kernels::Kernels::act_kind(w.output.ty, model.is_exact());
        let layout = ActLayout::new(kind, n_embd);
        let n_inputs = if kinds.q8 { head.add_residuals(layout) } else { n };
        let (output, bias) = (model.matrix(&w.output), w.output_bias.map(|t| model.bytes(&t)));
        let Scratch { logits, peaks, workers, acts, head_grain: grain, .. } = &mut *self.s;
        let (acts, workers, grain) = (Acts::new(layout, acts.bytes(kind), n_inputs), &*workers, *grain);
        let n_stretches = n_vocab.div_ceil(grain);
        let peaks = Groups { size: grain, out: Rows::new(&mut peaks[..n * n_stretches], n_stretches, n) };
        let out = (Rows::new(&mut logits[..n * n_vocab], n_vocab, n), peaks);
        model.pool().run(n_vocab, grain, out, |chunk, (mut part, mut peaks), worker| {
            let rows = chunk.len();
            let tile = &mut workers.get(worker).tile[..n * rows];
            let first = SubRows { part: &mut part, rows: 0..rows };
            let mut out = Paired { first, n, second: Strided { data: tile, stride: rows, rows } };
            model.kernels().mul_rows(output, chunk.clone(), acts, &mut out);
            if n_inputs > n {
                for c in 0..n {
                    model.kernels().add(out.first.column(c), out.second.column(c));
                }
            }
            add_bias(bias, chunk, n, &mut out.first);
            // While the logits are in this core's cache.
            for c in 0..n {
                for (peak, stretch) in peaks.column(c).iter_mut().zip(out.first.column(c).chunks(grain)) {
                    *peak = greatest(stretch);
                }
            }
        });
        self.lap(Job::Head);
        Ok(())
    }

    /// Puts behind the `n` quantised columns `n` more, of what quantising them lost; returns their number.
    ///
    /// Logits are what a token is chosen by, and the error of the head's input goes straight into them: measured on
    /// SmolLM2 it is a quarter of the variance that 8-bit activations cause in all the model. The second column costs
    /// arithmetic only, which the head, read once a token, has to spare.
    fn add_residuals(&mut self, layout: ActLayout) -> usize {
        let (n, k, kernels) = (self.n, layout.k(), self.model.kernels());
        let Scratch { acts, delta, .. } = &mut *self.s;
        let (q8, f32) = acts.both_mut();
        let (columns, residuals) = q8.split_at_mut(n * layout.col_bytes());
        let x = &mut delta[..k]; // has been joined
        let exact = f32.chunks_exact(ActLayout::new(ActKind::F32, k).col_bytes());
        let columns = columns.chunks_exact(layout.col_bytes()).zip(residuals.chunks_exact_mut(layout.col_bytes()));
        for (exact, (column, residual)) in exact.zip(columns) {
            for (x, bytes) in x.iter_mut().zip(exact.as_chunks().0) {
                *x = f32::from_ne_bytes(*bytes);
            }
            layout.subtract(column, x);
            kernels.quantize(layout, x, residual);
        }
        2 * n
    }
}

/// Writes `n` columns' key and value of one head into the cache, each as `write` says.
fn store<'a, T: Send + 'static, C: Iterator<Item = (&'a [f32], &'a [f32])>>(
    model: &Model,
    k: &mut [T],
    v: &mut [T],
    n: usize,
    columns: impl Fn(Range<usize>) -> C + Sync,
    write: impl Fn(&[f32], &mut [T]) + Sync,
) {
    let row = k.len() / n;
    let out = (Blocks { data: k, block: row }, Blocks { data: v, block: row });
    model.pool().run(n, STORE_COLS, out, |cols, (k, v), _| {
        let targets = k.chunks_exact_mut(row).zip(v.chunks_exact_mut(row));
        for ((key, value), (k, v)) in columns(cols).zip(targets) {
            write(key, k);
            write(value, v);
        }
    });
}

/// What a sampler needs of logits.
pub(crate) struct Wanted {
    /// So many of the most likely tokens' are enough; `None`: all.
    pub(crate) n_best: Option<usize>,
    /// These tokens' too.
    pub(crate) also: Vec<TokenId>,
}

/// What a block added, on its way into the residual stream.
#[derive(Clone, Copy)]
struct Joined {
    /// RMS norm of the block's output, where the architecture has one.
    norm: Option<Tensor>,
}

/// Where a projection's input comes from.
#[derive(Clone, Copy)]
enum Input {
    Attention,
    Hidden,
}

/// Where a projection's rows go.
#[derive(Clone, Copy)]
enum Buffer {
    Qkv,
    Delta,
}

/// Which kinds of activations are to be written, and their layouts. A kind that nobody wants has no bytes.
struct Targets {
    q8: Option<ActLayout>,
    f32: Option<ActLayout>,
    n: usize,
}

impl Targets {
    fn new(kinds: &Kinds, k: usize, n: usize) -> Targets {
        Targets {
            q8: kinds.q8.then(|| ActLayout::new(ActKind::Q8, k)),
            f32: kinds.f32.then(|| ActLayout::new(ActKind::F32, k)),
            n,
        }
    }

    fn split<'a>(&self, (q8, f32): (&'a mut [u8], &'a mut [u8])) -> (Blocks<'a, u8>, Blocks<'a, u8>) {
        let blocks = |data: &'a mut [u8], layout: Option<ActLayout>| {
            let block = layout.map_or(0, |l| l.col_bytes());
            Blocks { data: &mut data[..self.n * block], block }
        };
        (blocks(q8, self.q8), blocks(f32, self.f32))
    }

    /// Writes `x` as the `i`-th column of a chunk's bytes.
    fn write(&self, model: &Model, x: &[f32], i: usize, q8: &mut [u8], f32: &mut [u8]) {
        for (layout, out) in [(self.q8, q8), (self.f32, f32)] {
            if let Some(layout) = layout {
                let bytes = layout.col_bytes();
                model.kernels().quantize(layout, x, &mut out[i * bytes..][..bytes]);
            }
        }
    }
}

/// The first `n` columns, then as many others.
struct Paired<A, B> {
    first: A,
    n: usize,
    second: B,
}

impl<A: Output, B: Output> Output for Paired<A, B> {
    fn column(&mut self, c: usize) -> &mut [f32] {
        if c < self.n { self.first.column(c) } else { self.second.column(c - self.n) }
    }
}

/// Some of the rows of a chunk.
struct SubRows<'a, 'b> {
    part: &'a mut RowsPart<'b>,
    rows: Range<usize>,
}

impl Output for SubRows<'_, '_> {
    fn column(&mut self, c: usize) -> &mut [f32] {
        &mut self.part.column(c)[self.rows.clone()]
    }
}

fn intersect(a: &Range<usize>, b: Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Adds elements `rows` of a bias, little-endian f32 at any address, to `n` columns.
fn add_bias(bias: Option<&[u8]>, rows: Range<usize>, n: usize, out: &mut dyn Output) {
    let Some(bias) = bias else { return };
    for c in 0..n {
        for (y, b) in out.column(c).iter_mut().zip(bias[rows.start * 4..rows.end * 4].chunks_exact(4)) {
            *y += f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
    }
}

const _: () = assert!(crate::scratch::LOGIT_COLS <= WIDE_COLS, "the output head is no wide chunk");
