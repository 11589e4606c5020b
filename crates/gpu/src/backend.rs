//! What an engine wants of a device: the interface, and the steps that can be asked for.

use std::time::Duration;

use modelembed_gguf::TensorType;
use modelembed_terms::{Activation, CacheType, RopeStyle};

use crate::error::Result;

/// A weight matrix: `rows` rows of `k` elements as the file holds them. The buffer is at least
/// [`Weight::buffer_bytes`] long.
#[derive(Clone, Debug)]
pub struct Weight<B> {
    /// Where the rows lie, from byte 0 on.
    pub buffer: B,
    /// How elements are stored.
    pub ty: TensorType,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub k: usize,
}

impl<B> Weight<B> {
    /// Bytes that a buffer for `n_bytes` of weights must have: kernels read whole words, one beyond
    /// an unaligned end.
    pub fn buffer_bytes(n_bytes: u64) -> u64 {
        n_bytes.next_multiple_of(4) + 4
    }
}

/// f32 columns in a buffer: element `i` of column `c` is number `first + c * stride + i`.
#[derive(Clone, Debug)]
pub struct Columns<B> {
    /// Where they lie.
    pub buffer: B,
    /// First element of column 0.
    pub first: usize,
    /// Elements from one column to the next.
    pub stride: usize,
}

/// Vectors of equal length, some of them one after the other in each column.
#[derive(Clone, Debug)]
pub struct Vectors<B> {
    /// Where the first vector of each column begins.
    pub columns: Columns<B>,
    /// Vectors in a column.
    pub per_col: usize,
}

/// Keys or values of a layer: (heads, capacity, head_dim).
#[derive(Clone, Debug)]
pub struct KvCache<B> {
    /// Where they lie, from byte 0 on.
    pub buffer: B,
    /// What they are stored in.
    pub ty: CacheType,
    /// Key heads.
    pub heads: usize,
    /// Positions that fit.
    pub capacity: usize,
    /// Elements of a head; see [`cache_row_bytes`](crate::cache_row_bytes).
    pub head_dim: usize,
}

/// What a matrix is multiplied with.
#[derive(Clone, Debug)]
pub enum Operand<B> {
    /// Columns of f32.
    Floats(Columns<B>),
    /// Columns as [`Op::Quantize`] makes them, for weights that
    /// [`supports_int8`](crate::supports_int8).
    Int8(Columns<B>),
    /// Columns as [`Op::Halve`] makes them, for weights that
    /// [`supports_half`](crate::supports_half): [`WIDE_COLS`] or more on a device that multiplies
    /// halves.
    Half(Columns<B>),
}

/// Columns from which on a product goes in tiles.
pub const WIDE_COLS: usize = 9;

/// Words of a column of `len` elements, a multiple of 32, as [`Op::Halve`] makes them.
pub const fn half_words(len: usize) -> usize {
    len / 2 + 1
}

/// Words of a column of `len` elements, a multiple of 32, as [`Op::Quantize`] makes them.
pub const fn int8_words(len: usize) -> usize {
    len / 32 * 17
}

/// One step. Steps of a list run in order, each after those before it have ended.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "fields are explained where the step is")]
pub enum Op<B> {
    /// `y[c] = w x[c] (+ bias)` for each column. The bias is f32, one for each row.
    MatMul { w: Weight<B>, bias: Option<B>, x: Operand<B>, y: Columns<B>, n_cols: usize },
    /// Columns of `len` elements, a multiple of 32, as blocks of 32 pairs of 8-bit integers, which
    /// are as exact as 15 bits, and a scale: [`int8_words`] each.
    Quantize { x: Columns<B>, y: Columns<B>, len: usize, n_cols: usize },
    /// Columns of `len` elements, a multiple of 32, in half precision, by a power of two for each
    /// column: [`half_words`] each.
    Halve { x: Columns<B>, y: Columns<B>, len: usize, n_cols: usize },
    /// `y = x / sqrt(mean(x^2) + eps) * weight` for each vector of `len` elements; `y` may be `x`.
    RmsNorm { x: Vectors<B>, y: Columns<B>, weight: B, len: usize, eps: f32, n_cols: usize },
    /// `acc += x`, `len` elements from the columns' first on.
    Add { acc: Columns<B>, x: Columns<B>, len: usize },
    /// `gate = act(gate) * up`, likewise.
    ActMul { gate: Columns<B>, up: Columns<B>, len: usize, act: Activation },
    /// Turns the first `2 * pairs` elements of each of `heads` heads. Angles: (n_cols, 2, pairs),
    /// cosines and then sines.
    Rope { x: Columns<B>, angles: B, heads: usize, head_dim: usize, pairs: usize, style: RopeStyle, n_cols: usize },
    /// Puts the columns' keys (or values) at `pos..pos + n_cols`.
    Store { x: Columns<B>, cache: KvCache<B>, pos: usize, n_cols: usize },
    /// `y = softmax(scale * q k) v` for `heads` query heads; column `c` sees the last `window` of
    /// `0..=pos + c`.
    Attend {
        q: Columns<B>,
        k: KvCache<B>,
        v: KvCache<B>,
        y: Columns<B>,
        heads: usize,
        pos: usize,
        window: usize,
        scale: f32,
        n_cols: usize,
    },
    /// Moves positions `from..from + n` down to `to`; `temp` is as large as the cache's buffer.
    /// Keys come with angles (2, pairs) and the number of pairs, by which each is turned; values
    /// are moved as they are.
    Shift { cache: KvCache<B>, temp: B, turn: Option<(B, usize, RopeStyle)>, from: usize, to: usize, n: usize },
    /// The index (u32) of each column's greatest element of `len`, the first of equals; a NaN never
    /// wins.
    ArgMax { x: Columns<B>, len: usize, n_cols: usize, out: B },
    /// The [`TOP_K`] greatest elements of each column of `len`, in order: pairs of words in `out`,
    /// column `c` from word `c * 2 * TOP_K` on. The second word is the index; the first orders as
    /// the element does and is 0 for a NaN. Of equals the lower index comes first; beyond the
    /// column's end stands (0, u32::MAX). `temp` has [`top_k_temp_bytes`].
    TopK { x: Columns<B>, len: usize, n_cols: usize, temp: B, out: B },
    /// `out[c][i] = x[c][indices[i]]`, words, for `n` indices (u32).
    Gather { x: Columns<B>, indices: B, n: usize, n_cols: usize, out: Columns<B> },
    /// Copies whole words.
    Copy { from: B, from_byte: u64, to: B, to_byte: u64, len_bytes: u64 },
}

/// Elements that [`Op::TopK`] finds.
pub const TOP_K: usize = 128;
/// Elements of which one workgroup finds them.
pub(crate) const TOP_K_RUN: usize = 1024;

/// Bytes that [`Op::TopK`] wants for what it finds in between.
pub fn top_k_temp_bytes(len: usize, n_cols: usize) -> u64 {
    let first = len.div_ceil(TOP_K_RUN) * TOP_K;
    let second = first.div_ceil(TOP_K_RUN) * TOP_K;
    ((first + second) * n_cols * 8) as u64
}

/// A device that holds buffers and runs steps.
pub trait Backend {
    /// A piece of the device's memory; freed when the last handle is dropped.
    type Buffer: Clone;

    /// Takes memory; `what` names it in errors.
    ///
    /// # Errors
    /// More than the device has or allows.
    fn alloc(&self, what: &str, len_bytes: u64) -> Result<Self::Buffer>;

    /// Copies bytes into a buffer, `offset` being a multiple of 4. What lies in the rest of the
    /// last word is lost.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn write(&self, buffer: &Self::Buffer, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Gives back what writing took of the host's memory, and waits until all is written.
    ///
    /// # Errors
    /// Whatever the device refused.
    fn finish_writing(&self) -> Result<()>;

    /// From now on [`busy`](Self::busy) tells how long steps take, where the device has a clock.
    fn measure(&self);

    /// How long the device computed since [`measure`](Self::measure), by its own clock; waits for
    /// all steps. `None` where it has no clock, or nobody wanted to know.
    ///
    /// # Errors
    /// Whatever the device refused.
    fn busy(&self) -> Result<Option<Duration>>;

    /// Makes the kernels that steps need and runs none: what a first run would have to do before.
    ///
    /// # Errors
    /// Whatever the device refuses.
    fn prepare(&self, ops: &[Op<Self::Buffer>]) -> Result<()>;

    /// Runs steps. Returns when they are handed over, not when they have ended.
    ///
    /// # Errors
    /// Whatever the device refuses, now or of the steps before.
    fn run(&self, ops: &[Op<Self::Buffer>]) -> Result<()>;

    /// Waits for all steps, then copies bytes out of a buffer; offset and length are multiples
    /// of 4.
    ///
    /// # Errors
    /// Whatever the device refused.
    fn read(&self, buffer: &Self::Buffer, offset: u64, bytes: &mut [u8]) -> Result<()>;

    /// Copies whole numbers into a buffer, from element `first` on.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn write_u32(&self, buffer: &Self::Buffer, first: usize, x: &[u32]) -> Result<()> {
        self.write(buffer, first as u64 * 4, bytemuck::cast_slice(x))
    }

    /// Waits for all steps, then copies whole numbers out of a buffer, from element `first` on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_u32(&self, buffer: &Self::Buffer, first: usize, x: &mut [u32]) -> Result<()> {
        self.read(buffer, first as u64 * 4, bytemuck::cast_slice_mut(x))
    }

    /// Copies numbers into a buffer, from element `first` on.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn write_f32(&self, buffer: &Self::Buffer, first: usize, x: &[f32]) -> Result<()> {
        self.write(buffer, first as u64 * 4, bytemuck::cast_slice(x))
    }

    /// Waits for all steps, then copies numbers out of a buffer, from element `first` on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_f32(&self, buffer: &Self::Buffer, first: usize, x: &mut [f32]) -> Result<()> {
        self.read(buffer, first as u64 * 4, bytemuck::cast_slice_mut(x))
    }
}
