//! Products of many columns: weight rows are unpacked once into a panel, over which all columns are
//! swept.
//!
//! ```text
//! for each strip of rows:                         PANELS panels of ROWS rows
//!     for each stretch of k that fits a panel:
//!         unpack the strip's weights              once, whatever the number of columns
//!         for each tile of COLS columns:
//!             acc = the tile's products so far    (zero in the first stretch)
//!             acc += panel * tile                 one microkernel call a panel
//!             store acc
//! ```
//! This file is the same for every instruction set, which adds a [`Panel`] for each format: what a
//! panel looks like is known to its two functions alone. Weights keep their integers and the scales
//! of their sub-blocks, so a panel is exact. It lives in the caller's frame: a worker's stack is
//! its private scratch, and nothing is allocated.

use std::mem::MaybeUninit;

use modelembed_gguf::TensorType;

use crate::ahead::{self, Ahead};
use crate::format::{self, Decoded, Decoder};
use crate::functions::DotArgs;
use crate::matrix::{ActLayout, Output};

/// Room for the panels of one strip: in a second-level cache of 256 KiB it leaves half for the
/// columns.
const STRIP_BYTES: usize = 128 << 10;
/// Rows of a strip at most: what a worker takes at a time from a wide chunk.
const MAX_STRIP_ROWS: usize = 32;
/// Columns of a tile at most.
const MAX_TILE_COLS: usize = 16;
/// Columns up to which all of the next strip is requested while one is unpacked.
const PACK_COLS: usize = 32;

/// Some neighbouring rows of a matrix, as a packer reads them: there are as many as a panel wants,
/// the last one again and again where a matrix ends within a panel.
#[derive(Clone, Copy)]
pub(crate) struct PanelRows {
    ty: TensorType,
    first: *const u8,
    row_bytes: usize,
    n_rows: usize,
    /// What is to be requested meanwhile, by packers that [do so](Panel::PACK_REQUESTS).
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no packer does there"))]
    pub ahead: Ahead,
}

impl PanelRows {
    /// How they are taken apart.
    ///
    /// # Panics
    /// If they are floats.
    pub fn decoder(&self) -> Decoder {
        format::decoder(self.ty).expect("rows of a quantised type")
    }

    /// Takes elements `k..k + n` of row `r` apart: whole blocks, [`format::MAX_BLOCK`] elements at
    /// most.
    ///
    /// # Safety
    /// The matrix is still borrowed, and `decoder` is its own; the row has these elements.
    pub unsafe fn decode(&self, decoder: &Decoder, r: usize, k: usize, n: usize, out: &mut Decoded) {
        // SAFETY: the caller vouches for the elements.
        let blocks = unsafe { std::slice::from_raw_parts(self.row(r).add(decoder.row_bytes(k)), decoder.row_bytes(n)) };
        decoder.read(blocks, out);
    }

    /// Different rows: those of the panel, and perhaps more behind.
    #[inline]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The first byte of row `r`.
    ///
    /// # Safety
    /// The matrix is still borrowed.
    #[inline]
    pub unsafe fn row(&self, r: usize) -> *const u8 {
        // SAFETY: `n_rows` rows stand at `first`, as the driver constructed it.
        unsafe { self.first.add(r.min(self.n_rows - 1) * self.row_bytes) }
    }
}

/// Some neighbouring columns from one element on.
#[derive(Clone, Copy)]
pub(crate) struct TileCols {
    /// The first byte of the first column.
    pub first: *const u8,
    pub layout: ActLayout,
    /// The element where the panel begins.
    pub k: usize,
    pub n_cols: usize,
}

/// How an instruction set unpacks and multiplies one weight format with one kind of activations.
///
/// # Safety
/// Both functions may be called if the CPU has the instruction set and the arguments are as they
/// say. `pack` reads nothing but the elements it is asked for and writes at most
/// `n.div_ceil(STEP) * STEP_BYTES` bytes.
pub(crate) unsafe trait Panel {
    /// Rows in a panel.
    const ROWS: usize;
    /// Columns that the microkernel takes at most.
    const COLS: usize;
    /// The whole blocks and runs that stretches of `k` are cut into, in elements.
    const STEP: usize;
    /// Bytes of a panel for `STEP` elements of `ROWS` rows: a multiple of 64.
    const STEP_BYTES: usize;
    /// [`tile`](Self::tile) takes accumulators of a first stretch, where `cols.k` is 0, for zeros
    /// without reading them.
    const BEGINS_AT_ZERO: bool = false;

    /// [`pack`](Self::pack) requests what its rows say on its way. Where it takes long, and memory
    /// is slow, what would be requested beside the columns alone comes too late for few of them.
    const PACK_REQUESTS: bool = false;

    /// Unpacks elements `k..k + n` of [`Self::ROWS`] rows. `k` is a multiple of `STEP`, and so is
    /// `n` unless the row ends there.
    ///
    /// # Safety
    /// The rows have these elements; `panel` is aligned to 64 bytes and has room for them.
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8);

    /// Adds to `acc[c * stride + r]` the products of the panel's row `r` and column `c`, for the
    /// first `n_rows` rows at least. With [`BEGINS_AT_ZERO`](Self::BEGINS_AT_ZERO), where `cols.k`
    /// is 0, it writes them there.
    ///
    /// The sequence of operations on one accumulator must not depend on `cols.n_cols`. It may
    /// depend on where `k` is cut, every [`stretch`] elements; the table's row-dots must then add
    /// up at the same places.
    ///
    /// # Safety
    /// `panel` is what [`Self::pack`] wrote for `cols.k` and the same `n`; there are `1..=ROWS`
    /// rows that were there to be packed and `1..=COLS` columns; `acc` holds
    /// `(n_cols - 1) * stride + ROWS` elements.
    unsafe fn tile(panel: *const u8, n: usize, n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize);
}

/// Elements after which a row is cut: what fits a panel of `P`.
pub(crate) const fn stretch<P: Panel>() -> usize {
    panel_bytes::<P>() / P::STEP_BYTES * P::STEP
}

/// Bytes that a panel takes at most.
const fn panel_bytes<P: Panel>() -> usize {
    STRIP_BYTES / (MAX_STRIP_ROWS / P::ROWS) / P::STEP_BYTES * P::STEP_BYTES
}

#[repr(align(64))]
struct Strip(#[allow(dead_code, reason = "written and read through pointers")] [u8; STRIP_BYTES]);

/// Writes the product of row `r` and column `c` to `out.column(c)[r]`, for any number of columns
/// but none.
///
/// # Safety
/// The CPU must have the instruction set of `P`; `args` must be as documented there, for `P`'s
/// weights and activations.
pub(crate) unsafe fn mul<P: Panel>(args: &DotArgs<'_>, out: &mut dyn Output) {
    let panels = const {
        assert!(P::ROWS <= MAX_STRIP_ROWS && P::COLS <= MAX_TILE_COLS && P::STEP_BYTES.is_multiple_of(64));
        MAX_STRIP_ROWS / P::ROWS
    };
    let (panel_bytes, stretch) = const { (panel_bytes::<P>(), stretch::<P>()) };
    let (n_rows, n_cols, k) = (args.n_rows, args.n_cols, args.layout.k());
    assert!(args.w.len() >= n_rows * args.row_bytes && args.acts.len() >= n_cols * args.layout.col_bytes());

    let mut strip = MaybeUninit::<Strip>::uninit();
    let strip = strip.as_mut_ptr().cast::<u8>();
    let mut acc = [[0.0f32; MAX_STRIP_ROWS]; MAX_TILE_COLS];
    // While a strip is unpacked and swept, the next one is requested, in as many pieces as there are
    // tiles: unpacking would wait for most of it. It may be another call's, or nobody's.
    let strip_bytes = n_rows.min(panels * P::ROWS) * args.row_bytes;
    let mut next = args.w.as_ptr().wrapping_add(strip_bytes);
    let of_stretch = strip_bytes.div_ceil(k.div_ceil(stretch));
    let of_packs = if P::PACK_REQUESTS { of_stretch * PACK_COLS / PACK_COLS.max(n_cols) } else { 0 };
    let of_pack = of_packs / n_rows.div_ceil(P::ROWS).min(panels) / 64 * 64;
    let piece = (of_stretch - of_packs).div_ceil(n_cols.div_ceil(P::COLS)).next_multiple_of(64);
    for first in (0..n_rows).step_by(panels * P::ROWS) {
        let n = (n_rows - first).min(panels * P::ROWS);
        for at in (0..k).step_by(stretch) {
            let len = stretch.min(k - at);
            for (p, r) in (first..first + n).step_by(P::ROWS).enumerate() {
                let w = args.w[r * args.row_bytes..].as_ptr();
                let ahead = Ahead { first: next, len: of_pack };
                next = next.wrapping_add(of_pack);
                let rows = PanelRows { ty: args.ty, first: w, row_bytes: args.row_bytes, n_rows: n_rows - r, ahead };
                // SAFETY: rows r.. exist and have elements at..at + len; panel p has room for a
                // stretch.
                unsafe { P::pack(&rows, at, len, strip.add(p * panel_bytes)) };
            }
            for col in (0..n_cols).step_by(P::COLS) {
                let cols = col..n_cols.min(col + P::COLS);
                let tile = TileCols {
                    first: args.acts[col * args.layout.col_bytes()..].as_ptr(),
                    layout: args.layout,
                    k: at,
                    n_cols: cols.len(),
                };
                next = ahead::request(next, piece);
                for (acc, c) in acc.iter_mut().zip(cols.clone()) {
                    match at {
                        0 if P::BEGINS_AT_ZERO => {}
                        0 => *acc = [0.0; MAX_STRIP_ROWS],
                        _ => copy(&mut acc[..n], &out.column(c)[first..first + n]),
                    }
                }
                for (p, r) in (0..n).step_by(P::ROWS).enumerate() {
                    let (acc, n_rows) = (acc.as_flattened_mut()[r..].as_mut_ptr(), P::ROWS.min(n - r));
                    // SAFETY: panel p was packed above; `acc` has MAX_TILE_COLS columns of
                    // MAX_STRIP_ROWS rows.
                    unsafe { P::tile(strip.add(p * panel_bytes), len, n_rows, &tile, acc, MAX_STRIP_ROWS) };
                }
                for (acc, c) in acc.iter().zip(cols) {
                    let column = out.column(c);
                    assert_eq!(column.len(), n_rows, "rows of an output column");
                    copy(&mut column[first..first + n], &acc[..n]);
                }
            }
        }
    }
}

/// Copies some rows; without a call where they are a whole strip.
#[inline]
fn copy(to: &mut [f32], from: &[f32]) {
    match (<&mut [f32; MAX_STRIP_ROWS]>::try_from(&mut *to), <&[f32; MAX_STRIP_ROWS]>::try_from(from)) {
        (Ok(to), Ok(from)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}
