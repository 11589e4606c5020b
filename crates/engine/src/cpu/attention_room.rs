//! Memory that attention works in.

use std::ops::Range;

use modelembed_kernels::{AttnPart, AttnState, Line};
use modelembed_spec::{Attend, Program, Step};

use crate::state::layout::PAGE_TOKENS;

/// Positions of a span: those of a page.
pub(super) const SPAN: usize = PAGE_TOKENS;
/// Query rows (queries times heads of a group) that go over a span together.
const QUERY_ROWS: usize = 64;

/// Queries that go over a span together.
pub(super) fn queries_at_once(step: &Attend) -> usize {
    (QUERY_ROWS / step.heads.group()).max(1)
}

/// Every attention of a program.
fn attends(program: &Program) -> impl Iterator<Item = &Attend> {
    program.layer_segments().iter().flat_map(|segment| &segment.steps).filter_map(|step| match step {
        Step::Attend(step) => Some(step),
        _ => None,
    })
}

/// Softmax states of some query rows: row maxima, row sums, weighted values (rows, value_dim).
pub(super) struct State<'a> {
    pub(super) max: &'a mut [f32],
    pub(super) sum: &'a mut [f32],
    pub(super) acc: &'a mut [f32],
}

impl<'a> State<'a> {
    pub(super) fn len(rows: usize, value_dim: usize) -> usize {
        rows * (value_dim + 2)
    }

    pub(super) fn of(data: &'a mut [f32], rows: usize) -> State<'a> {
        let (max, rest) = data.split_at_mut(rows);
        let (sum, acc) = rest.split_at_mut(rows);
        State { max, sum, acc }
    }

    pub(super) fn borrow(&mut self) -> AttnState<'_> {
        AttnState { max: self.max, sum: self.sum, acc: self.acc }
    }

    pub(super) fn part(&self) -> AttnPart<'_> {
        AttnPart { max: self.max, sum: self.sum, acc: self.acc }
    }
}

/// How the queries of a chunk are dealt to workers.
#[derive(Default)]
pub(crate) struct Deal {
    /// Sequences whose spans are dealt.
    pub(super) by_spans: Vec<SpanRun>,
    /// Units of those: one for each head and span.
    pub(super) n_units: usize,
    /// Query rows of such a sequence, at most.
    pub(super) rows: usize,
    /// Columns that go over their spans together, of the other sequences.
    pub(super) tiles: Vec<Range<usize>>,
    /// The sequence of each tile, by its index in the chunk.
    pub(super) tile_runs: Vec<usize>,
}

/// A sequence whose spans are dealt.
pub(super) struct SpanRun {
    /// Its index in the chunk.
    pub(super) index: usize,
    pub(super) first_unit: usize,
    pub(super) spans: Range<usize>,
}

impl Deal {
    pub(super) fn clear(&mut self) {
        self.by_spans.clear();
        self.tiles.clear();
        self.tile_runs.clear();
        (self.n_units, self.rows) = (0, 0);
    }

    /// The sequence of a unit.
    pub(super) fn of_unit(&self, unit: usize) -> &SpanRun {
        &self.by_spans[self.by_spans.partition_point(|run| run.first_unit <= unit) - 1]
    }
}

/// What each query row sees of a span, and what is added to its scores, if something is.
pub(crate) struct Seen {
    pub(super) visible: Vec<Range<usize>>,
    pub(super) lines: Vec<Line>,
}

/// What a worker needs for attention.
pub(crate) struct AttentionScratch {
    pub(super) q: Box<[f32]>,       // (query rows, head_dim)
    pub(super) running: Box<[f32]>, // one State
    pub(super) span: Box<[f32]>,    // one State
    pub(super) seen: Seen,
}

impl AttentionScratch {
    pub(crate) fn new(program: &Program) -> AttentionScratch {
        let (mut rows, mut q, mut state) = (0, 0, 0);
        for step in attends(program) {
            let n = queries_at_once(step) * step.heads.group();
            rows = rows.max(n);
            q = q.max(n * step.heads.key_dim);
            state = state.max(State::len(n, step.heads.value_dim));
        }
        let floats = |n| vec![0.0; n].into();
        AttentionScratch {
            q: floats(q),
            running: floats(state),
            span: floats(state),
            seen: Seen { visible: Vec::with_capacity(rows), lines: Vec::with_capacity(rows) },
        }
    }
}

/// Floats that the states of all spans of one small chunk take, as far as they can be counted.
pub(crate) fn partials_len(program: &Program, capacity: usize) -> usize {
    let of_step = |step: &Attend| {
        let rows = queries_at_once(step) * step.heads.group();
        step.heads.kv_heads * State::len(rows, step.heads.value_dim)
    };
    attends(program).map(of_step).max().unwrap_or(0).saturating_mul(capacity.div_ceil(SPAN) + 1)
}
