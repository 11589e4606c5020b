//! Working memory of a session: reserved for the widest chunk, used as far as a chunk is wide.

use modelembed_kernels::{ActKind, ActLayout};
use modelembed_pool::{Blocks, PerWorker, Pool};
use modelembed_spec::{Input, Program, Register, ScanShape, Step};
use modelembed_storage::Reserved;

use super::attention_room::{self, AttentionScratch, Deal};
use super::channels;
use super::experts::Routes;
use super::grid::{grain_rows, tile_len};
use super::peaks::Peaks;
use super::scan::{ScanRoom, group_products};
use crate::error::Result;
use crate::state::records::CHUNK;

/// Columns whose logits one sequence has computed at a time while it decodes, and a GPU at all.
pub(crate) const LOGIT_COLS: usize = 8;
/// Columns whose logits are computed at a time at most.
pub(crate) const HEAD_COLS: usize = 32;

/// Rows of the output head that a worker takes at a time for so many columns.
pub(super) fn head_grain(n_vocab: usize, cols: usize, threads: usize) -> usize {
    // As many for one column as for a few: draft tokens come and go.
    grain_rows(n_vocab, cols.max(LOGIT_COLS), threads)
}

/// Activations of one input, in the kinds that the weights which read it want.
pub(crate) struct InputBuffers {
    q8: Reserved<u8>,  // (n_cols, col_bytes)
    f32: Reserved<u8>, // (n_cols, col_bytes)
}

impl InputBuffers {
    fn new(cols: usize, len: usize) -> Result<InputBuffers> {
        let bytes = |kind, k| ActLayout::new(kind, k).col_bytes() * cols;
        Ok(InputBuffers {
            q8: Reserved::zeroed(bytes(ActKind::Q8, len.next_multiple_of(32)))?,
            f32: Reserved::zeroed(bytes(ActKind::F32, len))?,
        })
    }

    /// The bytes of one kind.
    pub(super) fn bytes(&self, kind: ActKind) -> &[u8] {
        match kind {
            ActKind::Q8 => &self.q8,
            ActKind::F32 => &self.f32,
        }
    }

    /// Both kinds, for writing: (q8, f32).
    pub(super) fn both_mut(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.q8, &mut self.f32)
    }
}

/// What one worker needs for itself.
pub(crate) struct WorkerScratch {
    /// One vector of any length that occurs in the model.
    pub(super) vector: Box<[f32]>,
    /// Products that meet others before they are stored: (n_cols, grain rows).
    pub(super) tile: Reserved<f32>,
    pub(super) attention: AttentionScratch,
    /// Two numbers for each expert.
    pub(super) experts: Box<[f32]>,
    /// What the state of one head takes in with the positions of a chunk, or the states of some channels.
    pub(super) taken: Box<[f32]>,
}

/// Buffers of a program. Matrices are stored column by column, a column being one token's vector.
pub(crate) struct Scratch {
    /// Columns of the widest chunk.
    pub(crate) max_cols: usize,
    /// By the number of the register: (n_cols, elements of a column); logits are (columns,
    /// n_vocab).
    pub(super) registers: [Reserved<f32>; Register::ALL.len()],
    /// By the number of the input.
    pub(super) inputs: [InputBuffers; 2],
    /// Of each rotary embedding cosines, then sines: (n_cols, 2 * n_pairs).
    pub(crate) angles: Vec<Box<[f32]>>,
    /// Attention over parts of the context, before they are merged.
    pub(super) partials: Reserved<f32>,
    /// The greatest of each `stretch` logits, where the output head is computed here: (columns,
    /// stretches).
    pub(super) peaks: Reserved<f32>,
    /// Logits that have a peak together, in the last pass of the head.
    pub(super) stretch: usize,
    pub(super) deal: Deal,
    /// Products of queries and keys of a recurrence: (n_cols, groups, 1 or 2, CHUNK).
    pub(super) products: Reserved<f32>,
    pub(super) scan_room: ScanRoom,
    /// Weights of a convolution: (kernel, channels).
    pub(super) taps: Vec<f32>,
    /// Which experts the columns use.
    pub(super) routes: Routes,
    /// Inputs of experts, a column for each column and expert: of gate and up, of down.
    pub(super) expert_inputs: [InputBuffers; 2],
    /// What experts give, a column for each column and expert, where it is not added at once.
    pub(super) given: Vec<f32>,
    pub(super) workers: PerWorker<WorkerScratch>,
}

impl Scratch {
    /// For a context of `capacity` tokens, of which `cols` are computed together at most.
    pub(crate) fn new(
        program: &Program,
        rotated: &[usize],
        capacity: usize,
        cols: usize,
        pool: &Pool,
    ) -> Result<Scratch> {
        let tile = tile_len(cols);
        let n_vocab = program.n_vocab();
        let peaks = |cols: usize| cols * n_vocab.div_ceil(head_grain(n_vocab, cols, pool.threads()));
        let most_peaks = peaks(LOGIT_COLS).max(peaks(HEAD_COLS));
        let longest = longest_vector(program);
        let most = |len: fn(&ScanShape) -> usize| scans(program).map(len).max().unwrap_or(0);
        let mut failed = None;
        let workers = PerWorker::new(pool, |_| WorkerScratch {
            vector: vec![0.0; longest].into(),
            tile: Reserved::zeroed(tile).unwrap_or_else(|e| {
                failed = Some(e);
                Reserved::empty()
            }),
            attention: AttentionScratch::new(program),
            experts: vec![0.0; 2 * WidestExperts::of(program).n_experts].into(),
            taken: vec![0.0; (CHUNK * most(|shape| shape.value_dim)).max(most(channels::room_len))].into(),
        });
        if let Some(e) = failed {
            return Err(e.into());
        }
        let mut registers = [const { None }; Register::ALL.len()];
        for register in Register::ALL {
            let cols = if register == Register::Logits { HEAD_COLS } else { cols };
            registers[register as usize] = Some(Reserved::zeroed(cols * program.register_len(register))?);
        }
        Ok(Scratch {
            max_cols: cols,
            registers: registers.map(|r| r.unwrap_or_else(|| unreachable!("each was made above"))),
            inputs: [
                // The output head takes two columns for each of its own.
                InputBuffers::new(cols.max(2 * HEAD_COLS), program.input_len(Input::Normed))?,
                InputBuffers::new(cols, program.input_len(Input::Inner))?,
            ],
            angles: rotated.iter().map(|n_rot| vec![0.0; cols * n_rot].into()).collect(),
            partials: Reserved::zeroed(attention_room::partials_len(program, capacity))?,
            peaks: Reserved::zeroed(most_peaks)?,
            stretch: n_vocab,
            deal: Deal::default(),
            products: Reserved::zeroed(cols * products_len(program))?,
            scan_room: ScanRoom::default(),
            taps: Vec::new(),
            routes: Routes::default(),
            expert_inputs: {
                let WidestExperts { n_used, k, width, .. } = WidestExperts::of(program);
                [InputBuffers::new(cols * n_used, k)?, InputBuffers::new(cols * n_used, width)?]
            },
            given: Vec::new(),
            workers,
        })
    }

    /// A register.
    pub(crate) fn register(&mut self, register: Register) -> &mut [f32] {
        &mut self.registers[register as usize]
    }

    /// The logits of a column and their peaks.
    pub(crate) fn logits_of(&mut self, column: usize) -> (&mut [f32], Peaks<'_>) {
        let (logits, peaks, stretch) = self.logits_of_first(column + 1);
        let values = &mut peaks.data[column * peaks.block..];
        (&mut logits.data[column * logits.block..], Peaks { stretch, values })
    }

    /// The logits of the first columns, and the peaks of each: with how many logits have one
    /// together.
    pub(crate) fn logits_of_first(&mut self, n: usize) -> (Blocks<'_, f32>, Blocks<'_, f32>, usize) {
        let logits = &mut self.registers[Register::Logits as usize];
        let n_vocab = logits.len() / HEAD_COLS;
        let n_stretches = n_vocab.div_ceil(self.stretch);
        let logits = Blocks { data: &mut logits[..n * n_vocab], block: n_vocab };
        (logits, Blocks { data: &mut self.peaks[..n * n_stretches], block: n_stretches }, self.stretch)
    }
}

/// The largest sizes of a program's mixtures.
#[derive(Default)]
struct WidestExperts {
    n_experts: usize,
    n_used: usize,
    /// Elements of an expert's input.
    k: usize,
    /// Elements of its hidden state.
    width: usize,
}

impl WidestExperts {
    fn of(program: &Program) -> WidestExperts {
        let mut sizes = WidestExperts::default();
        for step in program.layer_segments().iter().flat_map(|segment| &segment.steps) {
            match step {
                Step::Route(step) => sizes.n_experts = sizes.n_experts.max(step.n_experts),
                Step::Experts { experts, .. } => {
                    sizes.n_used = sizes.n_used.max(experts.n_used);
                    sizes.k = sizes.k.max(experts.up.k);
                    sizes.width = sizes.width.max(experts.down.k);
                }
                _ => {}
            }
        }
        sizes
    }

    /// Bytes of the inputs of a column's experts.
    fn input_bytes(&self, kind: ActKind) -> usize {
        let bytes = |k: usize| ActLayout::new(kind, k.next_multiple_of(32)).col_bytes();
        self.n_used * (bytes(self.k) + bytes(self.width))
    }
}

/// Every recurrence of a program.
fn scans(program: &Program) -> impl Iterator<Item = &ScanShape> {
    program.records().iter().filter_map(|record| record.scan.as_ref())
}

/// Elements of a column of a recurrence's products.
fn products_len(program: &Program) -> usize {
    scans(program).map(|scan| scan.groups * group_products(scan)).max().unwrap_or(0)
}

/// Elements of the longest vector of a program, but for logits.
fn longest_vector(program: &Program) -> usize {
    let registers = Register::ALL.into_iter().filter(|r| *r != Register::Logits).map(|r| program.register_len(r));
    registers.chain([Input::Normed, Input::Inner].map(|input| program.input_len(input))).max().unwrap_or(0)
}

/// Bytes of a session's working memory once a chunk of `cols` columns was processed.
pub(crate) fn bytes(program: &Program, cols: usize, exact: bool) -> u64 {
    let registers = Register::ALL.into_iter().filter(|r| *r != Register::Logits);
    let vectors = registers.map(|r| program.register_len(r)).sum::<usize>() + products_len(program);
    let kind = if exact { ActKind::F32 } else { ActKind::Q8 };
    let acts = |input| ActLayout::new(kind, program.input_len(input).next_multiple_of(32)).col_bytes();
    let acts = acts(Input::Normed) + acts(Input::Inner) + WidestExperts::of(program).input_bytes(kind);
    (cols * (4 * vectors + acts) + 4 * LOGIT_COLS * program.n_vocab()) as u64
}

/// Columns of a prompt that are processed together: as many as keep the hidden state within 32 MB.
pub(crate) fn chunk_cols(program: &Program) -> usize {
    const MAX_COLS: usize = 512;
    const MIN_COLS: usize = 32;
    const HIDDEN_BYTES: usize = 32 << 20;
    (HIDDEN_BYTES / (4 * program.register_len(Register::Hidden).max(1))).clamp(MIN_COLS, MAX_COLS)
}

/// The same in a session that holds `capacity` tokens and is given `chunk_tokens` at once at most;
/// `widest` is what a [`Plan`](crate::residency::plan::Plan) says. Guesses are checked in one chunk.
pub(crate) fn session_cols(
    program: &Program,
    capacity: usize,
    chunk_tokens: Option<usize>,
    widest: Option<usize>,
) -> usize {
    widest
        .unwrap_or_else(|| chunk_cols(program))
        .min(chunk_tokens.map_or(usize::MAX, |n| n.max(LOGIT_COLS)))
        .min(capacity)
}
