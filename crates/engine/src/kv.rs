//! Keys and values of the tokens seen so far.

use std::ops::Range;

use modelembed_kernels::Kernels;
use modelembed_storage::Reserved;
use modelembed_terms::CacheType;

use crate::config::Config;
use crate::error::{Error, Result};

/// What a session uses that does not say.
pub(crate) fn usual_type(config: &Config, exact: bool) -> CacheType {
    match CacheType::I16.row_bytes(config.head_dim) {
        _ if exact => CacheType::F32,
        Some(_) => CacheType::I16,
        None => CacheType::F16,
    }
}

/// Keys and values of some positions of one head: each (positions, head_dim).
pub(crate) enum KeysValues<'a> {
    /// As integers, each (positions, head_dim), and a scale for each position of both.
    I16([&'a [i16]; 2], [&'a [f32]; 2]),
    /// As bits of half-precision numbers.
    F16(&'a [u16], &'a [u16]),
    /// As bytes of Q8_0 blocks.
    Q8(&'a [u8], &'a [u8]),
    F32(&'a [f32], &'a [f32]),
}

/// The same, for writing.
pub(crate) enum KeysValuesMut<'a> {
    I16([&'a mut [i16]; 2], [&'a mut [f32]; 2]),
    F16(&'a mut [u16], &'a mut [u16]),
    Q8(&'a mut [u8], &'a mut [u8]),
    F32(&'a mut [f32], &'a mut [f32]),
}

/// Keys and values, each (n_layer, n_head_kv, capacity, head_dim), reserved but not cleared: memory is used as positions fill.
pub(crate) struct KvCache {
    data: Data,
    n_layer: usize,
    n_head_kv: usize,
    head_dim: usize,
    capacity: usize,
    /// Bytes of one head's key or value.
    row_bytes: usize,
}

enum Data {
    I16 { k: Reserved<i16>, v: Reserved<i16>, k_scales: Reserved<f32>, v_scales: Reserved<f32> },
    F16 { k: Reserved<u16>, v: Reserved<u16> },
    Q8 { k: Reserved<u8>, v: Reserved<u8> },
    F32 { k: Reserved<f32>, v: Reserved<f32> },
}

/// Bytes of keys and values of `ctx_tokens` in `n_layer` layers, as far as they can be counted.
pub(crate) fn bytes(config: &Config, n_layer: usize, ctx_tokens: usize, ty: CacheType) -> u64 {
    let sizes = [n_layer, config.n_head_kv, ctx_tokens, 2, ty.row_bytes(config.head_dim).unwrap_or(usize::MAX)];
    sizes.into_iter().fold(1u64, |product, n| product.saturating_mul(n as u64))
}

impl KvCache {
    /// Reserves room for `capacity` tokens in each of the first `n_layer` layers.
    ///
    /// # Errors
    /// Sizes that overflow, heads that do not fit the type, or the operating system's refusal.
    pub(crate) fn new(config: &Config, n_layer: usize, capacity: usize, ty: CacheType) -> Result<KvCache> {
        let head_dim = config.head_dim;
        let row_bytes = ty.row_bytes(head_dim).ok_or_else(|| {
            let needs = if ty == CacheType::I16 { "at most 512" } else { "a multiple of 32" };
            Error::InvalidOption(format!(
                "{} in the cache need heads of {needs} elements; this model's have {head_dim}",
                ty.name()
            ))
        })?;
        let n_bytes = [n_layer, config.n_head_kv, capacity, row_bytes]
            .into_iter()
            .try_fold(1usize, usize::checked_mul)
            .filter(|n| *n <= isize::MAX as usize / 2)
            .ok_or_else(|| Error::InvalidOption(format!("a context of {capacity} tokens is too large")))?;
        let data = match ty {
            CacheType::I16 => {
                let n_rows = n_bytes / row_bytes;
                let (rows, scales) = (|| Reserved::zeroed(n_rows * head_dim), || Reserved::zeroed(n_rows));
                Data::I16 { k: rows()?, v: rows()?, k_scales: scales()?, v_scales: scales()? }
            }
            CacheType::F16 => Data::F16 { k: Reserved::zeroed(n_bytes / 2)?, v: Reserved::zeroed(n_bytes / 2)? },
            CacheType::Q8 => Data::Q8 { k: Reserved::zeroed(n_bytes)?, v: Reserved::zeroed(n_bytes)? },
            CacheType::F32 => Data::F32 { k: Reserved::zeroed(n_bytes / 4)?, v: Reserved::zeroed(n_bytes / 4)? },
        };
        let n_head_kv = config.n_head_kv;
        Ok(KvCache { data, n_layer, n_head_kv, head_dim, capacity, row_bytes })
    }

    /// Tokens that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that one token takes.
    pub(crate) fn bytes_per_token(&self) -> u64 {
        (2 * self.n_layer * self.n_head_kv * self.row_bytes) as u64
    }

    /// Elements of the buffers, of which a row has `len`, that some positions of one head take.
    fn range(&self, layer: usize, head: usize, positions: Range<usize>, len: usize) -> Range<usize> {
        let start = (layer * self.n_head_kv + head) * self.capacity;
        (start + positions.start) * len..(start + positions.end) * len
    }

    /// Keys and values of some positions of one head.
    pub(crate) fn head(&self, layer: usize, head: usize, positions: Range<usize>) -> KeysValues<'_> {
        let (rows, bytes) = self.ranges(layer, head, positions.clone());
        let scales = self.range(layer, head, positions, 1);
        match &self.data {
            Data::I16 { k, v, k_scales, v_scales } => {
                KeysValues::I16([&k[rows.clone()], &v[rows]], [&k_scales[scales.clone()], &v_scales[scales]])
            }
            Data::F16 { k, v } => KeysValues::F16(&k[rows.clone()], &v[rows]),
            Data::Q8 { k, v } => KeysValues::Q8(&k[bytes.clone()], &v[bytes]),
            Data::F32 { k, v } => KeysValues::F32(&k[rows.clone()], &v[rows]),
        }
    }

    /// Keys and values of some positions of one head, for writing.
    pub(crate) fn head_mut(&mut self, layer: usize, head: usize, positions: Range<usize>) -> KeysValuesMut<'_> {
        let (rows, bytes) = self.ranges(layer, head, positions.clone());
        let scales = self.range(layer, head, positions, 1);
        match &mut self.data {
            Data::I16 { k, v, k_scales, v_scales } => KeysValuesMut::I16(
                [&mut k[rows.clone()], &mut v[rows]],
                [&mut k_scales[scales.clone()], &mut v_scales[scales]],
            ),
            Data::F16 { k, v } => KeysValuesMut::F16(&mut k[rows.clone()], &mut v[rows]),
            Data::Q8 { k, v } => KeysValuesMut::Q8(&mut k[bytes.clone()], &mut v[bytes]),
            Data::F32 { k, v } => KeysValuesMut::F32(&mut k[rows.clone()], &mut v[rows]),
        }
    }

    /// Elements, and bytes of blocks, that some positions of one head take.
    fn ranges(&self, layer: usize, head: usize, positions: Range<usize>) -> (Range<usize>, Range<usize>) {
        (self.range(layer, head, positions.clone(), self.head_dim), self.range(layer, head, positions, self.row_bytes))
    }

    /// Moves positions `from` of every layer and head down to `to`, and lets `rotate` turn each moved key of a layer.
    pub(crate) fn shift(
        &mut self,
        from: Range<usize>,
        to: usize,
        kernels: &Kernels,
        rotate: impl Fn(usize, &mut [f32]),
    ) {
        let (d, row_bytes) = (self.head_dim, self.row_bytes);
        let mut wide = vec![0.0; d];
        for (layer, head) in (0..self.n_layer).flat_map(|l| (0..self.n_head_kv).map(move |h| (l, h))) {
            let ranges = |len| {
                let source = self.range(layer, head, from.clone(), len);
                (source, self.range(layer, head, to..to + from.len(), len))
            };
            let [scales, rows, bytes] = [1, d, row_bytes].map(ranges);
            match &mut self.data {
                Data::I16 { k, v, k_scales, v_scales } => {
                    let ((source, moved), (scales, moved_scales)) = (rows, scales);
                    slide(k, v, source, moved.start);
                    slide(k_scales, v_scales, scales, moved_scales.start);
                    for (key, scale) in k[moved].chunks_exact_mut(d).zip(&mut k_scales[moved_scales]) {
                        kernels.from_i16(key, *scale, &mut wide);
                        rotate(layer, &mut wide);
                        *scale = kernels.to_i16(&wide, key);
                    }
                }
                Data::F16 { k, v } => {
                    let (source, moved) = rows;
                    slide(k, v, source, moved.start);
                    for key in k[moved].chunks_exact_mut(d) {
                        kernels.from_f16(key, &mut wide);
                        rotate(layer, &mut wide);
                        kernels.to_f16(&wide, key);
                    }
                }
                Data::Q8 { k, v } => {
                    let (source, moved) = bytes;
                    slide(k, v, source, moved.start);
                    for key in k[moved].chunks_exact_mut(row_bytes) {
                        kernels.from_q8_0(key, &mut wide);
                        rotate(layer, &mut wide);
                        kernels.to_q8_0(&wide, key);
                    }
                }
                Data::F32 { k, v } => {
                    let (source, moved) = rows;
                    slide(k, v, source, moved.start);
                    k[moved].chunks_exact_mut(d).for_each(|key| rotate(layer, key));
                }
            }
        }
    }
}

/// Moves a range of both to `to`.
fn slide<T: Copy>(k: &mut [T], v: &mut [T], from: Range<usize>, to: usize) {
    v.copy_within(from.clone(), to);
    k.copy_within(from, to);
}
