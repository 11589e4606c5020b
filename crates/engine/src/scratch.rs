//! Working memory of a session: reserved for the widest chunk, used as far as a chunk is wide.

use modelembed_gguf::TensorType;
use modelembed_kernels::{ActKind, ActLayout};
use modelembed_pool::{Grid, PerWorker, Pool};
use modelembed_storage::Reserved;

use crate::attention::{self, AttentionScratch};
use crate::config::Config;
use crate::error::Result;
use crate::peaks::Peaks;

/// Rows that a worker computes at a time at most: bounds its private output tile.
pub(crate) const MAX_GRAIN_ROWS: usize = 256;
/// The same for chunks of many columns.
pub(crate) const MAX_GRAIN_ROWS_WIDE: usize = 32;
/// Columns above which a chunk is wide.
pub(crate) const WIDE_COLS: usize = 8;
/// Columns whose logits are computed at a time.
pub(crate) const LOGIT_COLS: usize = 8;

/// Activations of one input, in the kinds that the weights which read it want.
pub(crate) struct ActBuffers {
    q8: Reserved<u8>,  // (n_cols, col_bytes)
    f32: Reserved<u8>, // (n_cols, col_bytes)
}

impl ActBuffers {
    fn new(cols: usize, longest: usize) -> Result<ActBuffers> {
        let bytes = |kind, k| ActLayout::new(kind, k).col_bytes() * cols;
        Ok(ActBuffers {
            q8: Reserved::zeroed(bytes(ActKind::Q8, longest.next_multiple_of(32)))?,
            f32: Reserved::zeroed(bytes(ActKind::F32, longest))?,
        })
    }

    /// The bytes of one kind.
    pub(crate) fn bytes(&self, kind: ActKind) -> &[u8] {
        match kind {
            ActKind::Q8 => &self.q8,
            ActKind::F32 => &self.f32,
        }
    }

    /// Both kinds, for writing: (q8, f32).
    pub(crate) fn both_mut(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.q8, &mut self.f32)
    }
}

/// What one worker needs for itself.
pub(crate) struct WorkerScratch {
    /// One vector of any length that occurs in the model.
    pub(crate) vector: Box<[f32]>,
    /// Products that meet others before they are stored: (n_cols, grain rows).
    pub(crate) tile: Reserved<f32>,
    pub(crate) attention: AttentionScratch,
}

/// Buffers of the forward pass. Matrices are stored column by column, a column being one token's vector.
pub(crate) struct Scratch {
    /// Columns of the widest chunk.
    pub(crate) max_cols: usize,
    /// The residual stream: (n_cols, n_embd).
    pub(crate) x: Reserved<f32>,
    /// What a block adds to it: (n_cols, n_embd).
    pub(crate) delta: Reserved<f32>,
    /// Queries, keys and values: (n_cols, q_rows + 2 * kv_rows).
    pub(crate) qkv: Reserved<f32>,
    /// Attention's output: (n_cols, q_rows).
    pub(crate) attn: Reserved<f32>,
    /// Hidden state of the feed-forward network: (n_cols, n_ff).
    pub(crate) hidden: Reserved<f32>,
    /// Input of the next projections.
    pub(crate) acts: ActBuffers,
    /// Cosines, then sines, of the layers that see everything: (n_cols, 2 * n_pairs).
    pub(crate) angles: Vec<f32>,
    /// The same for windowed layers.
    pub(crate) angles_windowed: Vec<f32>,
    /// Attention over parts of the context, before they are merged.
    pub(crate) partials: Reserved<f32>,
    /// (columns, n_vocab).
    pub(crate) logits: Reserved<f32>,
    /// The greatest of each `head_grain` logits, where the output head is computed here: (columns, stretches).
    pub(crate) peaks: Box<[f32]>,
    /// Rows of the output head that a worker takes at a time.
    pub(crate) head_grain: usize,
    pub(crate) workers: PerWorker<WorkerScratch>,
}

impl Scratch {
    pub(crate) fn new(config: &Config, n_vocab: usize, capacity: usize, pool: &Pool) -> Result<Scratch> {
        let cols = chunk_cols(config).min(capacity);
        let longest = config.n_embd.max(config.n_ff).max(config.q_rows());
        let n_rot = config.rope.n_rot;
        let tile = tile_len(cols);
        let head_grain = grain_rows(n_vocab, LOGIT_COLS, pool.threads());
        let mut failed = None;
        let workers = PerWorker::new(pool, |_| WorkerScratch {
            vector: vec![0.0; longest].into(),
            tile: Reserved::zeroed(tile).unwrap_or_else(|e| {
                failed = Some(e);
                Reserved::empty()
            }),
            attention: AttentionScratch::new(config),
        });
        if let Some(e) = failed {
            return Err(e.into());
        }
        Ok(Scratch {
            max_cols: cols,
            x: Reserved::zeroed(cols * config.n_embd)?,
            delta: Reserved::zeroed(cols * config.n_embd)?,
            qkv: Reserved::zeroed(cols * (config.q_rows() + 2 * config.kv_rows()))?,
            attn: Reserved::zeroed(cols * config.q_rows())?,
            hidden: Reserved::zeroed(cols * config.n_ff)?,
            // The output head takes two columns for each of its own.
            acts: ActBuffers::new(cols.max(2 * LOGIT_COLS), longest)?,
            angles: vec![0.0; cols * n_rot],
            angles_windowed: vec![0.0; if config.window.is_some() { cols * n_rot } else { 0 }],
            partials: Reserved::zeroed(attention::partials_len(config, capacity))?,
            logits: Reserved::zeroed(LOGIT_COLS * n_vocab)?,
            peaks: vec![0.0; LOGIT_COLS * n_vocab.div_ceil(head_grain)].into(),
            head_grain,
            workers,
        })
    }

    /// The logits of a column and their peaks.
    pub(crate) fn logits_of(&mut self, column: usize) -> (&mut [f32], Peaks<'_>) {
        let (n_vocab, n_stretches) = (self.logits.len() / LOGIT_COLS, self.peaks.len() / LOGIT_COLS);
        let values = &mut self.peaks[column * n_stretches..][..n_stretches];
        (&mut self.logits[column * n_vocab..][..n_vocab], Peaks { stretch: self.head_grain, values })
    }
}

/// Bytes of a session's working memory once its widest chunk was processed.
pub(crate) fn bytes(config: &Config, n_vocab: usize, capacity: usize, exact: bool) -> u64 {
    let cols = chunk_cols(config).min(capacity);
    let longest = config.n_embd.max(config.n_ff).max(config.q_rows());
    let vectors = 2 * config.n_embd + 2 * config.q_rows() + 2 * config.kv_rows() + config.n_ff;
    let kind = if exact { ActKind::F32 } else { ActKind::Q8 };
    let acts = ActLayout::new(kind, longest.next_multiple_of(32)).col_bytes();
    (cols * (4 * vectors + acts) + 4 * LOGIT_COLS * n_vocab) as u64
}

/// Columns of a prompt that are processed together: as many as keep the hidden state within 32 MB.
pub(crate) fn chunk_cols(config: &Config) -> usize {
    const MAX_COLS: usize = 512;
    const MIN_COLS: usize = 32;
    const HIDDEN_BYTES: usize = 32 << 20;
    (HIDDEN_BYTES / (4 * config.n_ff)).clamp(MIN_COLS, MAX_COLS)
}

/// Products of a worker's tile, for chunks of up to `cols` columns.
fn tile_len(cols: usize) -> usize {
    (cols * MAX_GRAIN_ROWS_WIDE).max(cols.min(WIDE_COLS) * MAX_GRAIN_ROWS)
}

/// Rows that a worker takes at a time.
///
/// Small enough for the last worker to finish soon after the others, large enough for the kernels' blocks of rows.
pub(crate) fn grain_rows(rows: usize, cols: usize, threads: usize) -> usize {
    const CHUNKS_PER_WORKER: usize = 8;
    /// Rows that the widest kernels compute together: what is missing costs as much as what is there.
    const ROW_BLOCK: usize = 16;
    let max = if cols > WIDE_COLS { MAX_GRAIN_ROWS_WIDE } else { MAX_GRAIN_ROWS };
    (rows / (threads * CHUNKS_PER_WORKER)).next_multiple_of(ROW_BLOCK).clamp(ROW_BLOCK, max)
}

/// How the products of a weight matrix are dealt to workers.
///
/// Workers share the columns as long as each share is wide enough for unpacking the weights not to count, and the rows beyond
/// that. A worker then reads what it wrote itself in the steps before, which are dealt by columns too: nothing but weights,
/// keys and values crosses from core to core.
pub(crate) fn projection_grid(n_rows: usize, n_cols: usize, threads: usize) -> Grid {
    /// The least columns of a share: unpacking takes as long as the products of eight columns. (Zen 4, one core, Q4_1: 136 GMAC/s with
    /// 64 columns, 145 with 128, 150 with 256.)
    const MIN_COLS: usize = 128;
    /// Shares are multiples of as many: the columns of a tile of the kernels, and what the steps by columns take at a time.
    const COLS_BLOCK: usize = 12;
    let shares = (n_cols / MIN_COLS).clamp(1, threads);
    let tile_cols = n_cols.div_ceil(shares).next_multiple_of(COLS_BLOCK);
    Grid { n_rows, n_cols, tile_rows: grain_rows(n_rows, n_cols, threads.div_ceil(shares)), tile_cols }
}

/// Kinds of activations that some weights want.
#[derive(Clone, Copy, Default)]
pub(crate) struct Kinds {
    pub(crate) q8: bool,
    pub(crate) f32: bool,
}

impl Kinds {
    pub(crate) fn of(types: impl IntoIterator<Item = TensorType>, exact: bool) -> Kinds {
        let mut kinds = Kinds::default();
        for ty in types {
            match modelembed_kernels::Kernels::act_kind(ty, exact) {
                ActKind::Q8 => kinds.q8 = true,
                ActKind::F32 => kinds.f32 = true,
            }
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_holds_what_a_worker_takes_at_a_time() {
        for (cols, threads) in (1..600).flat_map(|cols| [1, 2, 3, 7, 64].map(|threads| (cols, threads))) {
            let most = (1..=cols)
                .map(|n| {
                    let grid = projection_grid(1 << 20, n, threads);
                    grid.tile_rows * grid.tile_cols.min(n)
                })
                .max();
            assert!(most <= Some(tile_len(cols)), "{cols} columns, {threads} threads: {most:?} of {}", tile_len(cols));
        }
    }

    #[test]
    fn each_worker_has_columns_where_there_are_enough() {
        let rows = [
            // columns, threads, tiles' columns, shares of columns
            (1, 2, 12, 1),
            (255, 2, 264, 1),
            (256, 2, 132, 2),
            (512, 2, 264, 2),
            (512, 1, 516, 1),
            (512, 16, 132, 4),
        ];
        for (n_cols, threads, tile_cols, shares) in rows {
            let grid = projection_grid(576, n_cols, threads);
            let got = (grid.tile_cols, n_cols.div_ceil(grid.tile_cols));
            assert_eq!(got, (tile_cols, shares), "{n_cols} columns, {threads} threads");
        }
    }
}
