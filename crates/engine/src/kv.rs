//! Keys and values of the tokens seen so far.

use std::ops::Range;

use modelembed_kernels::Kernels;
use modelembed_storage::Reserved;

use crate::config::Config;
use crate::error::{Error, Result};

/// What keys and values are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheType {
    /// Half precision.
    F16,
    /// As computed: for exact runs.
    F32,
}

impl CacheType {
    fn size_bytes(self) -> usize {
        match self {
            CacheType::F16 => 2,
            CacheType::F32 => 4,
        }
    }
}

/// Keys and values of some positions of one head: each (positions, head_dim).
pub(crate) enum KeysValues<'a> {
    /// As bits of half-precision numbers.
    F16(&'a [u16], &'a [u16]),
    F32(&'a [f32], &'a [f32]),
}

/// The same, for writing.
pub(crate) enum KeysValuesMut<'a> {
    F16(&'a mut [u16], &'a mut [u16]),
    F32(&'a mut [f32], &'a mut [f32]),
}

/// Keys and values, each (n_layer, n_head_kv, capacity, head_dim), reserved but not cleared: memory is used as positions fill.
pub(crate) struct KvCache {
    data: Data,
    n_layer: usize,
    n_head_kv: usize,
    head_dim: usize,
    capacity: usize,
}

enum Data {
    F16 { k: Reserved<u16>, v: Reserved<u16> },
    F32 { k: Reserved<f32>, v: Reserved<f32> },
}

/// Bytes of keys and values of `ctx_tokens`, as far as they can be counted.
pub(crate) fn bytes(config: &Config, ctx_tokens: usize, exact: bool) -> u64 {
    let ty = if exact { CacheType::F32 } else { CacheType::F16 };
    let sizes = [config.n_layer, config.n_head_kv, ctx_tokens, config.head_dim, 2 * ty.size_bytes()];
    sizes.into_iter().fold(1u64, |product, n| product.saturating_mul(n as u64))
}

impl KvCache {
    /// Reserves room for `capacity` tokens.
    ///
    /// # Errors
    /// Sizes that overflow, or the operating system's refusal.
    pub(crate) fn new(config: &Config, capacity: usize, ty: CacheType) -> Result<KvCache> {
        let n = [config.n_layer, config.n_head_kv, capacity, config.head_dim]
            .into_iter()
            .try_fold(1usize, usize::checked_mul)
            .filter(|n| *n <= isize::MAX as usize / 8)
            .ok_or_else(|| Error::InvalidOption(format!("a context of {capacity} tokens is too large")))?;
        let data = match ty {
            CacheType::F16 => Data::F16 { k: Reserved::zeroed(n)?, v: Reserved::zeroed(n)? },
            CacheType::F32 => Data::F32 { k: Reserved::zeroed(n)?, v: Reserved::zeroed(n)? },
        };
        let (n_layer, n_head_kv, head_dim) = (config.n_layer, config.n_head_kv, config.head_dim);
        Ok(KvCache { data, n_layer, n_head_kv, head_dim, capacity })
    }

    /// Tokens that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that one token takes.
    pub(crate) fn bytes_per_token(&self) -> u64 {
        let ty = match self.data {
            Data::F16 { .. } => CacheType::F16,
            Data::F32 { .. } => CacheType::F32,
        };
        (2 * self.n_layer * self.n_head_kv * self.head_dim * ty.size_bytes()) as u64
    }

    fn range(&self, layer: usize, head: usize, positions: Range<usize>) -> Range<usize> {
        let start = (layer * self.n_head_kv + head) * self.capacity;
        (start + positions.start) * self.head_dim..(start + positions.end) * self.head_dim
    }

    /// Keys and values of some positions of one head.
    pub(crate) fn head(&self, layer: usize, head: usize, positions: Range<usize>) -> KeysValues<'_> {
        let range = self.range(layer, head, positions);
        match &self.data {
            Data::F16 { k, v } => KeysValues::F16(&k[range.clone()], &v[range]),
            Data::F32 { k, v } => KeysValues::F32(&k[range.clone()], &v[range]),
        }
    }

    /// Keys and values of some positions of one head, for writing.
    pub(crate) fn head_mut(&mut self, layer: usize, head: usize, positions: Range<usize>) -> KeysValuesMut<'_> {
        let range = self.range(layer, head, positions);
        match &mut self.data {
            Data::F16 { k, v } => KeysValuesMut::F16(&mut k[range.clone()], &mut v[range]),
            Data::F32 { k, v } => KeysValuesMut::F32(&mut k[range.clone()], &mut v[range]),
        }
    }

    /// Moves positions `from` of every layer and head down to `to`, and lets `rotate` turn each moved key of a layer.
    pub(crate) fn shift(
        &mut self,
        from: Range<usize>,
        to: usize,
        kernels: &Kernels,
        rotate: impl Fn(usize, &mut [f32]),
    ) {
        let d = self.head_dim;
        let mut wide = vec![0.0; d];
        for (layer, head) in (0..self.n_layer).flat_map(|l| (0..self.n_head_kv).map(move |h| (l, h))) {
            let source = self.range(layer, head, from.clone());
            let moved = self.range(layer, head, to..to + from.len());
            match &mut self.data {
                Data::F16 { k, v } => {
                    v.copy_within(source.clone(), moved.start);
                    k.copy_within(source, moved.start);
                    for key in k[moved].chunks_exact_mut(d) {
                        kernels.from_f16(key, &mut wide);
                        rotate(layer, &mut wide);
                        kernels.to_f16(&wide, key);
                    }
                }
                Data::F32 { k, v } => {
                    v.copy_within(source.clone(), moved.start);
                    k.copy_within(source, moved.start);
                    k[moved].chunks_exact_mut(d).for_each(|key| rotate(layer, key));
                }
            }
        }
    }
}
