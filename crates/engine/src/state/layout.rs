//! How keys and values lie in a page.

use std::ops::Range;

use modelembed_kernels::Kernels;
use modelembed_spec::{CacheShape, Visible};
use modelembed_storage::BLOCK_ALIGN;
use modelembed_terms::CacheType;

use crate::error::{Error, Result};

/// Positions of a page: those that attention goes over at a time, so that a span is one page and
/// its rows are neighbours.
pub(crate) const PAGE_TOKENS: usize = 256;

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

/// Bytes of keys and values of `ctx_tokens` in some layers, as far as they can be counted.
pub(crate) fn bytes(layers: &[CacheShape], ctx_tokens: usize, ty: CacheType) -> u64 {
    let of_layer = |layer: &CacheShape| {
        let (k, v) = row_bytes(ty, layer).unwrap_or((usize::MAX / 2, usize::MAX / 2));
        (layer.kv_heads as u64).saturating_mul(ctx_tokens as u64).saturating_mul((k + v) as u64)
    };
    layers.iter().map(of_layer).fold(0, u64::saturating_add)
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

/// Where keys and values of each layer are in the pages of its group. A page has
/// [`PAGE_TOKENS`] positions of all layers of a group, layer by layer, head by head: a head's keys,
/// (positions, elements of a row), their scales, its values, and theirs. Attention reads them in
/// that order.
pub(crate) struct Layout {
    ty: CacheType,
    places: Vec<Place>,
    groups: Vec<Group>,
}

/// Layers that look at the same positions: their pages are needed for as long.
pub(crate) struct Group {
    pub(crate) visible: Visible,
    pub(crate) page_bytes: usize,
    /// Bytes of one position.
    pub(crate) bytes_per_token: usize,
}

/// One layer's place.
struct Place {
    group: usize,
    heads: usize,
    /// The first byte of the first head.
    start: usize,
    /// Bytes from head to head.
    head_bytes: usize,
    k: Side,
    v: Side,
}

/// Where keys or values of a head are.
#[derive(Clone, Copy)]
struct Side {
    /// Elements of a head before it is stored.
    dim: usize,
    /// Bytes of a stored row.
    len: usize,
    /// The first byte of the rows, behind the head's.
    at: usize,
    /// The first byte of their scales, behind the head's.
    scales_at: usize,
}

impl Place {
    /// Bytes of some rows of a head.
    fn rows(&self, side: &Side, head: usize, rows: Range<usize>) -> Range<usize> {
        let first = self.start + head * self.head_bytes + side.at;
        first + rows.start * side.len..first + rows.end * side.len
    }

    /// Bytes of the scales of some rows of a head.
    fn scales(&self, side: &Side, head: usize, rows: Range<usize>) -> Range<usize> {
        let first = self.start + head * self.head_bytes + side.scales_at;
        first + rows.start * size_of::<f32>()..first + rows.end * size_of::<f32>()
    }
}

impl Layout {
    /// For layers of these shapes.
    ///
    /// # Errors
    /// Heads that do not fit the type, or sizes that overflow.
    pub(crate) fn new(shapes: &[CacheShape], ty: CacheType) -> Result<Layout> {
        let too_large = || Error::ContextTooLarge { tokens: PAGE_TOKENS };
        let mut layout = Layout { ty, places: Vec::with_capacity(shapes.len()), groups: Vec::new() };
        for shape in shapes {
            let found = layout.groups.iter().position(|group| group.visible == shape.visible);
            let group = found.unwrap_or(layout.groups.len());
            if found.is_none() {
                layout.groups.push(Group { visible: shape.visible, page_bytes: 0, bytes_per_token: 0 });
            }
            let scale = if ty == CacheType::I16 { size_of::<f32>() } else { 0 };
            let mut head_bytes = 0usize;
            let mut section = |row: usize| {
                let at = head_bytes;
                let bytes = row.checked_mul(PAGE_TOKENS).and_then(|n| n.checked_next_multiple_of(BLOCK_ALIGN));
                head_bytes = bytes.and_then(|n| n.checked_add(at)).ok_or_else(too_large)?;
                Ok::<usize, Error>(at)
            };
            let mut side = |dim| {
                let len = stored_bytes(ty, dim)?;
                Ok::<Side, Error>(Side { dim, len, at: section(len)?, scales_at: section(scale)? })
            };
            let (k, v) = (side(shape.key_dim)?, side(shape.value_dim)?);
            let all = &mut layout.groups[group];
            let start = all.page_bytes;
            let heads = head_bytes.checked_mul(shape.kv_heads).and_then(|n| n.checked_add(start));
            all.page_bytes = heads.ok_or_else(too_large)?;
            all.bytes_per_token += shape.kv_heads * (k.len + v.len + 2 * scale);
            layout.places.push(Place { group, heads: shape.kv_heads, start, head_bytes, k, v });
        }
        Ok(layout)
    }

    /// Groups of layers, by their number.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of a layer of the cache.
    pub(crate) fn group_of(&self, cache: usize) -> usize {
        self.places[cache].group
    }

    /// What keys and values are stored in.
    pub(crate) fn cache_type(&self) -> CacheType {
        self.ty
    }

    /// Keys and values of the first `n` positions of a page, of one head.
    pub(crate) fn head<'p>(&self, page: &'p [u8], cache: usize, head: usize, n: usize) -> KeysValues<'p> {
        let place = &self.places[cache];
        let rows = |side| &page[place.rows(side, head, 0..n)];
        let (k, v) = (rows(&place.k), rows(&place.v));
        match self.ty {
            CacheType::I16 => {
                let scales = |side| numbers(&page[place.scales(side, head, 0..n)]);
                KeysValues::I16([numbers(k), numbers(v)], [scales(&place.k), scales(&place.v)])
            }
            CacheType::F16 => KeysValues::F16(numbers(k), numbers(v)),
            CacheType::Q8 => KeysValues::Q8(k, v),
            CacheType::F32 => KeysValues::F32(numbers(k), numbers(v)),
        }
    }

    /// Writes the key and the value of a position, of one head.
    pub(crate) fn store(
        &self,
        kernels: &Kernels,
        page: &mut [u8],
        (cache, head, row): (usize, usize, usize),
        key: &[f32],
        value: &[f32],
    ) {
        let place = &self.places[cache];
        for (side, x) in [(&place.k, key), (&place.v, value)] {
            self.store_row(kernels, page, (place, side), (head, row), x);
        }
    }

    fn store_row(
        &self,
        kernels: &Kernels,
        page: &mut [u8],
        (place, side): (&Place, &Side),
        (head, row): (usize, usize),
        x: &[f32],
    ) {
        let at = place.rows(side, head, row..row + 1);
        match self.ty {
            CacheType::I16 => {
                let factor = kernels.to_i16(x, bytemuck::cast_slice_mut(&mut page[at]));
                page[place.scales(side, head, row..row + 1)].copy_from_slice(&factor.to_ne_bytes());
            }
            CacheType::F16 => kernels.to_f16(x, bytemuck::cast_slice_mut(&mut page[at])),
            CacheType::Q8 => kernels.to_q8_0(x, &mut page[at]),
            CacheType::F32 => page[at].copy_from_slice(bytemuck::cast_slice(x)),
        }
    }

    /// Whether rows have scales beside them.
    fn has_scales(&self) -> bool {
        self.ty == CacheType::I16
    }

    /// Copies some positions of a page of a group into another one.
    pub(crate) fn copy_rows(&self, group: usize, from: &[u8], to: &mut [u8], rows: Range<usize>) {
        for place in self.places.iter().filter(|place| place.group == group) {
            for head in 0..place.heads {
                for side in [&place.k, &place.v] {
                    let scales = self.has_scales().then(|| place.scales(side, head, rows.clone()));
                    for bytes in [place.rows(side, head, rows.clone())].into_iter().chain(scales) {
                        to[bytes.clone()].copy_from_slice(&from[bytes]);
                    }
                }
            }
        }
    }

    /// Takes a position of a group out of a page: for each layer and head what `rotate`, which is
    /// given the layer of the cache, makes of the key, and the value. They are put into `held`,
    /// which is cleared before.
    pub(crate) fn lift(
        &self,
        kernels: &Kernels,
        group: usize,
        (page, row): (&[u8], usize),
        rotate: &dyn Fn(usize, &mut [f32]),
        held: &mut Held,
    ) {
        held.keys.clear();
        held.values.clear();
        for (cache, place) in self.places.iter().enumerate().filter(|(_, place)| place.group == group) {
            for head in 0..place.heads {
                let at = held.keys.len();
                held.keys.resize(at + place.k.dim, 0.0);
                let key = &mut held.keys[at..];
                let bytes = &page[place.rows(&place.k, head, row..row + 1)];
                match self.ty {
                    CacheType::I16 => {
                        let scale = bytemuck::pod_read_unaligned(&page[place.scales(&place.k, head, row..row + 1)]);
                        kernels.from_i16(numbers(bytes), scale, key);
                    }
                    CacheType::F16 => kernels.from_f16(numbers(bytes), key),
                    CacheType::Q8 => kernels.from_q8_0(bytes, key),
                    CacheType::F32 => key.copy_from_slice(numbers(bytes)),
                }
                rotate(cache, key);
                held.values.extend_from_slice(&page[place.rows(&place.v, head, row..row + 1)]);
                if self.has_scales() {
                    held.values.extend_from_slice(&page[place.scales(&place.v, head, row..row + 1)]);
                }
            }
        }
    }

    /// Puts what [`lift`](Self::lift) took into a position of another page, or the same.
    pub(crate) fn lay(&self, kernels: &Kernels, group: usize, (page, row): (&mut [u8], usize), held: &Held) {
        let (mut keys, mut values) = (&held.keys[..], &held.values[..]);
        for place in self.places.iter().filter(|place| place.group == group) {
            for head in 0..place.heads {
                let (key, rest) = keys.split_at(place.k.dim);
                keys = rest;
                self.store_row(kernels, page, (place, &place.k), (head, row), key);
                let (value, rest) = values.split_at(place.v.len);
                values = rest;
                page[place.rows(&place.v, head, row..row + 1)].copy_from_slice(value);
                if self.has_scales() {
                    let (scale, rest) = values.split_at(size_of::<f32>());
                    values = rest;
                    page[place.scales(&place.v, head, row..row + 1)].copy_from_slice(scale);
                }
            }
        }
    }
}

/// A position on its way from one place to another.
#[derive(Default)]
pub(crate) struct Held {
    keys: Vec<f32>,
    /// As they are stored.
    values: Vec<u8>,
}

/// Bytes as the numbers that they are: pages and rows begin where such a number may stand.
fn numbers<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> &[T] {
    bytemuck::cast_slice(bytes)
}

/// Bytes of a stored row, without its scale.
fn stored_bytes(ty: CacheType, dim: usize) -> Result<usize> {
    let bytes = ty.row_bytes(dim).ok_or_else(|| {
        let needs = if ty == CacheType::I16 { "at most 512" } else { "a multiple of 32" };
        Error::CacheHead { cache_type: ty, head_dim: dim, wanted: needs }
    })?;
    Ok(if ty == CacheType::I16 { bytes - size_of::<f32>() } else { bytes })
}
