//! Buffers of a session on a GPU.

use modelembed_gpu::{Backend, Buffer, Gpu, KvCache, TOP_K, cache_row_bytes, half_words, int8_words, top_k_temp_bytes};
use modelembed_spec::{CacheShape, Input, Register};
use modelembed_terms::{CacheType, RopeStyle};

use super::GpuError;
use super::model::GpuModel;
use crate::cpu::scratch::LOGIT_COLS;
use crate::error::Result;
use crate::load::options::LoadOptions;
use crate::load::tensors::Compiled;
use crate::state::layout;

/// Keys or values of one layer on a device.
#[derive(Clone, Copy)]
pub(super) struct CacheSize {
    pub(super) ty: CacheType,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// Positions: a multiple of 64 rows is as many aligned bytes, so that heads can be bound in
    /// parts where a binding does not hold all.
    pub(super) capacity: usize,
    pub(super) len_bytes: u64,
}

impl CacheSize {
    /// For a layer of a context of `ctx_tokens`.
    ///
    /// # Errors
    /// Heads that cannot be stored so.
    pub(super) fn of(shape: &CacheShape, ctx_tokens: usize, ty: CacheType) -> Result<CacheSize> {
        let head_dim = shape.key_dim;
        let row_bytes = cache_row_bytes(ty, head_dim).ok_or(GpuError::Cache { cache_type: ty, head_dim })?;
        let capacity = ctx_tokens.saturating_add(63) / 64 * 64;
        let sizes = [shape.kv_heads as u64, capacity as u64, row_bytes];
        let len_bytes = sizes.into_iter().fold(1, u64::saturating_mul);
        Ok(CacheSize { ty, heads: shape.kv_heads, head_dim, capacity, len_bytes })
    }

    /// For each layer of the cache, of the context that a model is loaded for.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(super) fn wanted(compiled: &Compiled, options: &LoadOptions) -> Result<Vec<CacheSize>> {
        let caches = compiled.program.caches();
        let ctx_tokens = options.ctx_tokens.unwrap_or(compiled.spec.ctx_train);
        let ty = options.cache_type.unwrap_or_else(|| layout::usual_type(caches, options.exact));
        caches.iter().map(|shape| CacheSize::of(shape, ctx_tokens, ty)).collect()
    }
}

/// Buffers of a session on the device. Matrices are stored column by column.
pub(super) struct Buffers {
    /// Keys and values of each layer here.
    pub(super) kv: Vec<[KvCache<Buffer>; 2]>,
    pub(super) x: Buffer,      // (n_cols, n_embd)
    pub(super) delta: Buffer,  // (n_cols, n_embd)
    pub(super) normed: Buffer, // (n_cols, n_embd)
    pub(super) qkv: Buffer,    // (n_cols, queries, keys and values)
    pub(super) heads: Buffer,  // (n_cols, heads' outputs)
    pub(super) hidden: Buffer, // (n_cols, hidden state)
    /// Up projections, or what is added to `delta`: (n_cols, the longer of both).
    pub(super) up: Buffer,
    /// Of each rotary embedding: (n_cols, 2, n_pairs).
    pub(super) angles: Vec<Buffer>,
    /// Products' columns as pairs of 8-bit integers, where the device multiplies those: (n_cols,
    /// int8_words).
    pub(super) int8: Option<Buffer>,
    /// The same as halves: (n_cols, half_words).
    pub(super) half: Option<Buffer>,
    pub(super) logits: Option<Logits>,
    pub(super) n_embd: usize,
    /// Style of each rotary embedding, and pairs that it turns.
    pub(super) ropes: Vec<(RopeStyle, usize)>,
    /// The rotary embedding of each layer's keys.
    pub(super) rope_of: Vec<Option<usize>>,
}

/// Where the head's results go.
pub(super) struct Logits {
    pub(super) all: Buffer,   // (LOGIT_COLS, n_vocab)
    pub(super) temp: Buffer,  // of the search for the best
    pub(super) ids: Buffer,   // (MAX_PICKED)
    pub(super) found: Buffer, // (n_cols, TOP_K, 2), then (n_cols, ids)
}

/// Tokens whose logits can be picked besides the best.
pub(super) const MAX_PICKED: usize = 128;

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

impl Buffers {
    pub(super) fn new(
        gpu: &GpuModel,
        compiled: &Compiled,
        max_cols: usize,
        caches: &[CacheSize],
    ) -> modelembed_gpu::Result<Buffers> {
        let (program, n_embd) = (&compiled.program, compiled.spec.n_embd);
        let half_cache = |size: &CacheSize| -> modelembed_gpu::Result<KvCache<Buffer>> {
            let CacheSize { ty, heads, head_dim, capacity, len_bytes } = *size;
            let buffer = gpu.gpu.alloc("keys and values", len_bytes)?;
            Ok(KvCache { buffer, ty, heads, capacity, head_dim })
        };
        let own = &caches[gpu.first_cache..];
        let kv = own.iter().map(|size| Ok([half_cache(size)?, half_cache(size)?]));
        let kv = kv.collect::<modelembed_gpu::Result<Vec<_>>>()?;
        let floats = |n: usize| gpu.gpu.alloc("activations", (max_cols * n) as u64 * 4);
        let len = |register| program.register_len(register);
        let longest = program.input_len(Input::Normed).max(program.input_len(Input::Inner)).next_multiple_of(32);
        let rope_of = program.caches()[gpu.first_cache..].iter().map(|cache| cache.rope.map(|id| usize::from(id.0)));
        Ok(Buffers {
            int8: gpu.int8.then(|| floats(int8_words(longest))).transpose()?,
            half: gpu.half.then(|| floats(half_words(longest))).transpose()?,
            kv,
            x: floats(n_embd)?,
            delta: floats(n_embd)?,
            normed: floats(n_embd)?,
            qkv: floats(len(Register::Qkv))?,
            heads: floats(len(Register::Heads))?,
            hidden: floats(len(Register::Hidden))?,
            up: floats(len(Register::Hidden).max(n_embd))?,
            angles: compiled.spec.ropes.iter().map(|rope| floats(rope.n_rot)).collect::<modelembed_gpu::Result<_>>()?,
            logits: gpu.share.has_head.then(|| Logits::new(&gpu.gpu, program.n_vocab())).transpose()?,
            n_embd,
            ropes: compiled.spec.ropes.iter().map(|rope| (rope.style, rope.n_rot / 2)).collect(),
            rope_of: rope_of.collect(),
        })
    }
}
