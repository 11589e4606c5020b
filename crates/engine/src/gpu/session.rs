//! The last layers of a pass on a GPU: lists of steps over a session's buffers.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use modelembed_gpu::{Backend, Buffer, KvCache, Op, TOP_K, cache_row_bytes};
use modelembed_spec::{Program, Register};
use modelembed_terms::CacheType;
use modelembed_text::TokenId;

use super::Best;
use super::buffers::{Buffers, CacheSize, Logits, MAX_PICKED};
use super::lower::{Cols, Lowering, columns};
use super::model::GpuModel;
use crate::cpu::scratch::{LOGIT_COLS, Scratch};
use crate::error::{Error, Result};
use crate::load::tensors::Compiled;
use crate::state::rope::Turn;

/// Columns up to which a whole pass is one submission. Longer ones go layer by layer, so that no
/// submission is long enough for a driver's watchdog, and a cancel is seen in time.
const ONE_SUBMISSION_COLS: usize = 8;

/// A session's part on the device.
pub(crate) struct GpuSession {
    model: Arc<GpuModel>,
    buffers: Buffers,
    /// What went wrong where no error could be returned; the next pass returns it.
    failure: Option<Error>,
}

impl GpuSession {
    /// Takes memory for `capacity` tokens, keys and values in `cache_type`, and chunks of
    /// `max_cols`.
    pub(crate) fn new(
        gpu: &Arc<GpuModel>,
        compiled: &Compiled,
        capacity: usize,
        max_cols: usize,
        cache_type: CacheType,
    ) -> Result<GpuSession> {
        let caches = compiled.program.caches().iter().map(|shape| CacheSize::of(shape, capacity, cache_type));
        let caches = caches.collect::<Result<Vec<_>>>()?;
        Ok(GpuSession::with_caches(gpu, compiled, max_cols, &caches)?)
    }

    /// The same for keys and values of known sizes, one for each layer of the cache.
    pub(super) fn with_caches(
        gpu: &Arc<GpuModel>,
        compiled: &Compiled,
        max_cols: usize,
        caches: &[CacheSize],
    ) -> modelembed_gpu::Result<GpuSession> {
        let buffers = Buffers::new(gpu, compiled, max_cols, caches)?;
        Ok(GpuSession { buffers, failure: None, model: Arc::clone(gpu) })
    }

    pub(crate) fn has_head(&self) -> bool {
        self.buffers.logits.is_some()
    }

    pub(crate) fn kv_bytes_per_token(&self) -> u64 {
        let of = |cache: &KvCache<Buffer>| cache.heads as u64 * cache_row_bytes(cache.ty, cache.head_dim).unwrap_or(0);
        self.buffers.kv.iter().flatten().map(of).sum()
    }

    /// From now on [`busy`](Self::busy) tells something.
    pub(crate) fn measure(&self) {
        self.model.gpu.measure();
    }

    /// How long the device computed so far; 0 where it has no clock.
    pub(crate) fn busy(&self) -> Result<Duration> {
        Ok(self.model.gpu.busy()?.unwrap_or_default())
    }

    /// Runs the layers here over the `n` columns of the scratch's residual stream and pending
    /// output; those come back, unless the head, which takes them from here, is here too.
    pub(crate) fn layers(
        &mut self,
        program: &Program,
        s: &mut Scratch,
        pos: usize,
        n: usize,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let (gpu, b) = (&self.model.gpu, &self.buffers);
        let len = n * b.n_embd;
        gpu.write_f32(&b.x, 0, &s.register(Register::Residual)[..len])?;
        if self.model.cpu_share().n_layers > 0 {
            gpu.write_f32(&b.delta, 0, &s.register(Register::Delta)[..len])?;
        }
        for ((buffer, angles), (_, pairs)) in b.angles.iter().zip(&s.angles).zip(&b.ropes) {
            gpu.write_f32(buffer, 0, &angles[..n * 2 * pairs])?;
        }
        let mut lowering = Lowering::new(&self.model, b, Cols { pos, first: 0, n });
        for layer in self.model.share.layers(program) {
            layer.iter().flat_map(|segment| &segment.steps).for_each(|step| lowering.step(step));
            if n > ONE_SUBMISSION_COLS {
                gpu.run(&lowering.ops)?;
                lowering.ops.clear();
                // Waits: a queue of layers far ahead could not be cancelled.
                gpu.read(&b.x, 0, &mut [])?;
                if is_cancelled() {
                    return Err(Error::Cancelled);
                }
            }
        }
        gpu.run(&lowering.ops)?;
        if !self.has_head() {
            gpu.read_f32(&b.x, 0, &mut s.register(Register::Residual)[..len])?;
            gpu.read_f32(&b.delta, 0, &mut s.register(Register::Delta)[..len])?;
        }
        Ok(())
    }

    /// Computes a pass of one column of zeros, and makes the kernels of chunks of `max_cols`: what
    /// a device has too little memory for, does not take or is lost by shows here.
    pub(super) fn try_out(&self, program: &Program, max_cols: usize) -> modelembed_gpu::Result<()> {
        let gpu = &self.model.gpu;
        let pass = |n: usize| {
            let mut lowering = Lowering::new(&self.model, &self.buffers, Cols { pos: 0, first: 0, n });
            let layers = self.model.share.layers(program).flatten();
            layers.flat_map(|segment| &segment.steps).for_each(|step| lowering.step(step));
            let mut ops = lowering.ops;
            if self.has_head() {
                ops.extend(self.head(program, 0..n.min(LOGIT_COLS)).0);
            }
            ops
        };
        gpu.prepare(&pass(max_cols))?;
        gpu.write_f32(&self.buffers.x, 0, &vec![0.0; self.buffers.n_embd])?;
        gpu.run(&pass(1))?;
        gpu.read(&self.buffers.x, 0, &mut [])
    }

    /// Runs the head over some columns into `logits`: (columns, n_vocab).
    pub(crate) fn logits(&mut self, program: &Program, cols: Range<usize>, logits: &mut [f32]) -> Result<()> {
        let n = cols.len() * program.n_vocab();
        let (ops, out) = self.head(program, cols);
        self.model.gpu.run(&ops)?;
        Ok(self.model.gpu.read_f32(&out.all, 0, &mut logits[..n])?)
    }

    /// The same, of which only the `n_best` most likely tokens' and those of `also` come back;
    /// `None`, with nothing done, if those are more than can be picked here.
    pub(crate) fn best(
        &mut self,
        program: &Program,
        cols: Range<usize>,
        n_best: usize,
        also: &[TokenId],
    ) -> Result<Option<Vec<Best>>> {
        let (gpu, n, n_vocab) = (&self.model.gpu, cols.len(), program.n_vocab());
        let mut also: Vec<u32> = also.iter().map(|id| id.0).filter(|&id| (id as usize) < n_vocab).collect();
        also.sort_unstable();
        also.dedup();
        if n_best > TOP_K || n_best >= n_vocab || also.len() > MAX_PICKED {
            return Ok(None);
        }
        let (mut ops, out) = self.head(program, cols);
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

    /// The steps from the last layer's output to the logits of some columns.
    fn head(&self, program: &Program, cols: Range<usize>) -> (Vec<Op<Buffer>>, &Logits) {
        let Some(out) = &self.buffers.logits else { unreachable!("asked for only where the head is here") };
        let cols = Cols { pos: 0, first: cols.start, n: cols.len() };
        let mut lowering = Lowering::new(&self.model, &self.buffers, cols);
        program.head().steps.iter().for_each(|step| lowering.step(step));
        (lowering.ops, out)
    }

    /// Moves the keys and values of positions `from` down to `to`; keys are turned by their rotary
    /// embedding's turn.
    pub(crate) fn shift(&mut self, from: Range<usize>, to: usize, turns: &[Turn]) {
        if let Err(e) = self.try_shift(from, to, turns) {
            self.failure = Some(e);
        }
    }

    fn try_shift(&self, from: Range<usize>, to: usize, turns: &[Turn]) -> Result<()> {
        let (gpu, b) = (&self.model.gpu, &self.buffers);
        for (buffer, turn) in b.angles.iter().zip(turns) {
            gpu.write_f32(buffer, 0, &[&*turn.cos, &*turn.sin].concat())?;
        }
        let longest = b.kv.iter().map(|[k, _]| k.buffer.len_bytes()).max();
        let Some(temp) = longest.map(|len| gpu.alloc("moved keys", len)).transpose()? else { return Ok(()) };
        let mut ops = Vec::new();
        for ([k, v], rope) in b.kv.iter().zip(&b.rope_of) {
            let turn = rope.map(|id| (b.angles[id].clone(), b.ropes[id].1, b.ropes[id].0));
            for (cache, turn) in [(k, turn), (v, None)] {
                let (cache, temp) = (cache.clone(), temp.clone());
                ops.push(Op::Shift { cache, temp, turn, from: from.start, to, n: from.len() });
            }
        }
        Ok(gpu.run(&ops)?)
    }
}

/// The element that [`Op::TopK`] gives a key for; `None` for a NaN and for nothing.
fn number_of_key(key: u32) -> Option<f32> {
    let bits = if key & 0x8000_0000 != 0 { key & 0x7fff_ffff } else { !key };
    (key != 0).then(|| f32::from_bits(bits))
}
