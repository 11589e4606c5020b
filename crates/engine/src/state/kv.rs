//! Keys and values of the tokens seen so far.

use std::ops::Range;

use modelembed_kernels::Kernels;
use modelembed_pool::{Rows, Runs};
use modelembed_spec::CacheShape;
use modelembed_storage::Reserved;
use modelembed_terms::CacheType;

use crate::error::{Error, Result};

/// What a session uses that does not say.
pub(crate) fn usual_type(layers: &[CacheShape], exact: bool) -> CacheType {
    match layers.iter().all(|layer| row_bytes(CacheType::I16, layer).is_some()) {
        _ if exact => CacheType::F32,
        true => CacheType::I16,
        false => CacheType::F16,
    }
}

/// Bytes of one head's key and of its value; `None` if such a head cannot be stored.
fn row_bytes(ty: CacheType, layer: &CacheShape) -> Option<(usize, usize)> {
    Some((ty.row_bytes(layer.key_dim)?, ty.row_bytes(layer.value_dim)?))
}

/// Keys and values of some positions of one head: each (positions, elements of a row).
pub(crate) enum KeysValues<'a> {
    /// As integers, and a scale for each position of both.
    I16([&'a [i16]; 2], [&'a [f32]; 2]),
    /// As bits of half-precision numbers.
    F16(&'a [u16], &'a [u16]),
    /// As bytes of Q8_0 blocks.
    Q8(&'a [u8], &'a [u8]),
    F32(&'a [f32], &'a [f32]),
}

/// Rows of every head of a layer from some position on, for writing.
pub(crate) enum NewRows<'a> {
    /// Keys and values, and the scales of both.
    I16([HeadRows<'a, i16>; 2], [HeadRows<'a, f32>; 2]),
    F16([HeadRows<'a, u16>; 2]),
    Q8([HeadRows<'a, u8>; 2]),
    F32([HeadRows<'a, f32>; 2]),
}

/// Rows of every head of a layer from some position on.
pub(crate) struct HeadRows<'a, T> {
    /// The first row of head 0, and what follows.
    data: &'a mut [T],
    /// Elements of a row.
    pub(crate) len: usize,
    /// Elements from head to head.
    stride: usize,
    n_heads: usize,
}

impl<'a, T> HeadRows<'a, T> {
    /// To be dealt by positions: a part has the rows of some positions, a column a head.
    pub(crate) fn by_position(self) -> Runs<Rows<'a, T>> {
        Runs { len: self.len, out: Rows::new(self.data, self.stride, self.n_heads) }
    }
}

/// Keys and values of each layer, (heads, capacity, elements of a row), reserved but not cleared:
/// memory is used as positions fill.
pub(crate) struct KvCache {
    data: Data,
    layers: Vec<Layer>,
    capacity: usize,
}

/// Where one layer's rows are. Elements are of the buffers' types.
struct Layer {
    n_heads: usize,
    k: Side,
    v: Side,
    /// Scales of keys and of values, one a row.
    scales: Side,
}

/// Where keys or values of a layer are.
#[derive(Clone, Copy)]
struct Side {
    /// Elements of a head before it is stored.
    dim: usize,
    /// Elements of a stored row.
    len: usize,
    /// The first element.
    start: usize,
}

enum Data {
    I16 { k: Reserved<i16>, v: Reserved<i16>, k_scales: Reserved<f32>, v_scales: Reserved<f32> },
    F16 { k: Reserved<u16>, v: Reserved<u16> },
    Q8 { k: Reserved<u8>, v: Reserved<u8> },
    F32 { k: Reserved<f32>, v: Reserved<f32> },
}

/// Bytes of keys and values of `ctx_tokens` in some layers, as far as they can be counted.
pub(crate) fn bytes(layers: &[CacheShape], ctx_tokens: usize, ty: CacheType) -> u64 {
    let of_layer = |layer: &CacheShape| {
        let (k, v) = row_bytes(ty, layer).unwrap_or((usize::MAX / 2, usize::MAX / 2));
        (layer.kv_heads as u64).saturating_mul(ctx_tokens as u64).saturating_mul((k + v) as u64)
    };
    layers.iter().map(of_layer).fold(0, u64::saturating_add)
}

impl KvCache {
    /// Reserves room for `capacity` tokens in each of some layers.
    ///
    /// # Errors
    /// Sizes that overflow, heads that do not fit the type, or the operating system's refusal.
    pub(crate) fn new(shapes: &[CacheShape], capacity: usize, ty: CacheType) -> Result<KvCache> {
        let too_large = || Error::InvalidOption(format!("a context of {capacity} tokens is too large"));
        let (mut layers, mut n_rows) = (Vec::with_capacity(shapes.len()), 0usize);
        let (mut k_len, mut v_len) = (0usize, 0usize);
        for shape in shapes {
            let row = |dim: usize| {
                let bytes = ty.row_bytes(dim).ok_or_else(|| {
                    let needs = if ty == CacheType::I16 { "at most 512" } else { "a multiple of 32" };
                    let name = ty.name();
                    let problem =
                        format!("{name} in the cache need heads of {needs} elements; this model's have {dim}");
                    Error::InvalidOption(problem)
                })?;
                Ok::<usize, Error>(if ty == CacheType::Q8 { bytes } else { dim })
            };
            let (k, v) = (row(shape.key_dim)?, row(shape.value_dim)?);
            layers.push(Layer {
                n_heads: shape.kv_heads,
                k: Side { dim: shape.key_dim, len: k, start: k_len },
                v: Side { dim: shape.value_dim, len: v, start: v_len },
                scales: Side { dim: 1, len: 1, start: n_rows },
            });
            let rows = shape.kv_heads.checked_mul(capacity).ok_or_else(too_large)?;
            let longer = |sum: usize, row: usize| rows.checked_mul(row).and_then(|n| sum.checked_add(n));
            (k_len, v_len) = (longer(k_len, k).ok_or_else(too_large)?, longer(v_len, v).ok_or_else(too_large)?);
            n_rows += rows; // no more than elements
        }
        // No buffer comes near the end of the address space, whatever its elements are.
        if k_len.max(v_len) > isize::MAX as usize / 8 {
            return Err(too_large());
        }
        let data = match ty {
            CacheType::I16 => Data::I16 {
                k: Reserved::zeroed(k_len)?,
                v: Reserved::zeroed(v_len)?,
                k_scales: Reserved::zeroed(n_rows)?,
                v_scales: Reserved::zeroed(n_rows)?,
            },
            CacheType::F16 => Data::F16 { k: Reserved::zeroed(k_len)?, v: Reserved::zeroed(v_len)? },
            CacheType::Q8 => Data::Q8 { k: Reserved::zeroed(k_len)?, v: Reserved::zeroed(v_len)? },
            CacheType::F32 => Data::F32 { k: Reserved::zeroed(k_len)?, v: Reserved::zeroed(v_len)? },
        };
        Ok(KvCache { data, layers, capacity })
    }

    /// Tokens that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that one token takes.
    pub(crate) fn bytes_per_token(&self) -> u64 {
        let (item, scale) = match &self.data {
            Data::I16 { .. } => (size_of::<i16>(), size_of::<f32>()),
            Data::F16 { .. } => (size_of::<u16>(), 0),
            Data::Q8 { .. } => (size_of::<u8>(), 0),
            Data::F32 { .. } => (size_of::<f32>(), 0),
        };
        let of_layer = |l: &Layer| l.n_heads * ((l.k.len + l.v.len) * item + 2 * scale);
        self.layers.iter().map(of_layer).sum::<usize>() as u64
    }

    /// Keys and values of some positions of one head.
    pub(crate) fn head(&self, layer: usize, head: usize, positions: Range<usize>) -> KeysValues<'_> {
        let l = &self.layers[layer];
        let (k, v) = (l.k.range(self.capacity, head, &positions), l.v.range(self.capacity, head, &positions));
        match &self.data {
            Data::I16 { k: keys, v: values, k_scales, v_scales } => {
                let scales = l.scales.range(self.capacity, head, &positions);
                KeysValues::I16([&keys[k], &values[v]], [&k_scales[scales.clone()], &v_scales[scales]])
            }
            Data::F16 { k: keys, v: values } => KeysValues::F16(&keys[k], &values[v]),
            Data::Q8 { k: keys, v: values } => KeysValues::Q8(&keys[k], &values[v]),
            Data::F32 { k: keys, v: values } => KeysValues::F32(&keys[k], &values[v]),
        }
    }

    /// Rows of every head of a layer from position `pos` on, for writing.
    pub(crate) fn new_rows(&mut self, layer: usize, pos: usize) -> NewRows<'_> {
        let (l, capacity) = (&self.layers[layer], self.capacity);
        let (n, k, v, scales) = (l.n_heads, l.k, l.v, l.scales);
        match &mut self.data {
            Data::I16 { k: keys, v: values, k_scales, v_scales } => NewRows::I16(
                [k.rows(keys, capacity, n, pos), v.rows(values, capacity, n, pos)],
                [scales.rows(k_scales, capacity, n, pos), scales.rows(v_scales, capacity, n, pos)],
            ),
            Data::F16 { k: keys, v: values } => {
                NewRows::F16([k.rows(keys, capacity, n, pos), v.rows(values, capacity, n, pos)])
            }
            Data::Q8 { k: keys, v: values } => {
                NewRows::Q8([k.rows(keys, capacity, n, pos), v.rows(values, capacity, n, pos)])
            }
            Data::F32 { k: keys, v: values } => {
                NewRows::F32([k.rows(keys, capacity, n, pos), v.rows(values, capacity, n, pos)])
            }
        }
    }

    /// Moves positions `from` of every layer and head down to `to`, and lets `rotate` turn each
    /// moved key of a layer.
    pub(crate) fn shift(
        &mut self,
        from: Range<usize>,
        to: usize,
        kernels: &Kernels,
        rotate: impl Fn(usize, &mut [f32]),
    ) {
        let capacity = self.capacity;
        let mut wide = vec![0.0; self.layers.iter().map(|l| l.k.dim).max().unwrap_or(0)];
        let heads = self.layers.iter().enumerate().flat_map(|(i, l)| (0..l.n_heads).map(move |h| (i, l, h)));
        for (layer, l, head) in heads {
            let move_to = to..to + from.len();
            let of = |side: Side| (side.range(capacity, head, &from), side.range(capacity, head, &move_to));
            let ((k_from, k_to), (v_from, v_to)) = (of(l.k), of(l.v));
            let wide = &mut wide[..l.k.dim];
            match &mut self.data {
                Data::I16 { k, v, k_scales, v_scales } => {
                    let (scales_from, scales_to) = of(l.scales);
                    k.copy_within(k_from, k_to.start);
                    v.copy_within(v_from, v_to.start);
                    k_scales.copy_within(scales_from.clone(), scales_to.start);
                    v_scales.copy_within(scales_from, scales_to.start);
                    for (key, scale) in k[k_to].chunks_exact_mut(l.k.len).zip(&mut k_scales[scales_to]) {
                        kernels.from_i16(key, *scale, wide);
                        rotate(layer, wide);
                        *scale = kernels.to_i16(wide, key);
                    }
                }
                Data::F16 { k, v } => {
                    k.copy_within(k_from, k_to.start);
                    v.copy_within(v_from, v_to.start);
                    for key in k[k_to].chunks_exact_mut(l.k.len) {
                        kernels.from_f16(key, wide);
                        rotate(layer, wide);
                        kernels.to_f16(wide, key);
                    }
                }
                Data::Q8 { k, v } => {
                    k.copy_within(k_from, k_to.start);
                    v.copy_within(v_from, v_to.start);
                    for key in k[k_to].chunks_exact_mut(l.k.len) {
                        kernels.from_q8_0(key, wide);
                        rotate(layer, wide);
                        kernels.to_q8_0(wide, key);
                    }
                }
                Data::F32 { k, v } => {
                    k.copy_within(k_from, k_to.start);
                    v.copy_within(v_from, v_to.start);
                    k[k_to].chunks_exact_mut(l.k.len).for_each(|key| rotate(layer, key));
                }
            }
        }
    }
}

impl Side {
    /// Elements that some positions of a head take.
    fn range(&self, capacity: usize, head: usize, positions: &Range<usize>) -> Range<usize> {
        let first = head * capacity;
        self.start + (first + positions.start) * self.len..self.start + (first + positions.end) * self.len
    }

    /// Rows of all heads from position `pos` on.
    fn rows<'a, T>(&self, data: &'a mut [T], capacity: usize, n_heads: usize, pos: usize) -> HeadRows<'a, T> {
        let end = self.start + n_heads * capacity * self.len;
        let data = &mut data[self.start + pos * self.len..end];
        HeadRows { data, len: self.len, stride: capacity * self.len, n_heads }
    }
}
