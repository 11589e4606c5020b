//! One pass of some tokens of any number of sequences through a program on the CPU.
//!
//! Each step is one job of the pool over columns or over tiles of rows and columns, or a few; a job
//! whose work is one chunk runs on the caller. A column's numbers depend neither on the chunk's
//! other columns nor on the number of workers.

mod attend;
mod attention_room;
mod channels;
mod conv;
mod embed;
mod experts;
mod foresight;
mod grid;
mod head;
mod heads;
mod norm;
mod numbers;
mod own_embedding;
mod parts;
pub(crate) mod peaks;
mod project;
mod scan;
pub(crate) mod scratch;
mod streams;

use modelembed_spec::{Register, Segment, Step};
use modelembed_text::TokenId;

use self::scratch::Scratch;
use crate::error::{Error, Result};
use crate::gpu::GpuSession;
use crate::load::model::Model;
use crate::run::timing::{Clock, Stage};
use crate::state::active::Active;
use crate::state::pages::PageStore;

pub(crate) use head::Wanted;

/// Columns of per-token steps that a worker takes at a time.
const GRAIN_COLS: usize = 4;

/// The pass of one chunk: columns of the scratch buffers are the rows of its sequences, one
/// sequence after the other.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    /// Where keys and values lie.
    pub(crate) store: &'a PageStore,
    /// Whose rows they are.
    pub(crate) active: &'a mut Active,
    pub(crate) s: &'a mut Scratch,
    /// Where the last layers are computed, if not here.
    pub(crate) gpu: Option<&'a mut GpuSession>,
    pub(crate) clock: &'a mut Clock,
    /// Tokens that a sequence holds at most.
    pub(crate) ctx_tokens: usize,
    /// Columns.
    pub(crate) n: usize,
}

impl Pass<'_> {
    /// Runs the layers over `tokens`; afterwards the last one's output is still to be joined by
    /// [`logits`](Self::logits).
    pub(crate) fn layers(&mut self, tokens: &[TokenId], is_cancelled: &dyn Fn() -> bool) -> Result<()> {
        let model = self.model;
        let share = model.cpu_share();
        for step in model.program().embed() {
            self.embed(step, tokens);
        }
        self.angles();
        self.lap(Stage::Embed);
        for (unit, segment) in share.layer_segments(model.program()).iter().enumerate() {
            if is_cancelled() {
                return Err(Error::Cancelled);
            }
            model.residency().enter(unit, is_cancelled)?;
            self.segment(segment, is_cancelled)?;
        }
        if let Some(gpu) = self.gpu.as_deref_mut() {
            if is_cancelled() {
                return Err(Error::Cancelled);
            }
            // There is one sequence where a GPU computes.
            let pos = self.active.runs.first().map_or(0, |run| run.pos);
            gpu.layers(model.program(), self.s, pos, self.n, is_cancelled)?;
            self.lap_on_gpu(Stage::Gpu)?;
        }
        match share.head_unit(model.program()) {
            Some(unit) => model.residency().enter(unit, is_cancelled),
            None => Ok(()),
        }
    }

    fn segment(&mut self, segment: &Segment, is_cancelled: &dyn Fn() -> bool) -> Result<()> {
        for step in &segment.steps {
            match step {
                Step::Experts { experts, adds } => self.experts(experts, *adds, is_cancelled)?,
                step => self.step(step),
            }
            if let Some(stage) = Stage::of(segment.part, step) {
                self.lap(stage);
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::JoinNorm { join, norm, to, readers } => {
                self.join_norm(join.as_ref(), norm.as_ref(), *to, self.kinds(readers));
            }
            Step::Norm { norm, to, readers } => self.join_norm(None, Some(norm), *to, self.kinds(readers)),
            Step::MixOwn(step) => self.mix_own(step),
            Step::TimesOwn { of, slice, len } => self.times_own(*of, slice, *len),
            Step::SetAside { norm, len } => self.set_aside(norm, *len),
            Step::AddAside { norm, len } => self.add_aside(norm, *len),
            Step::Project { from, parts, to, adds } => self.project(*from, parts, *to, *adds),
            Step::LimitHeads { heads, limit } => self.limit_heads(heads, *limit),
            Step::HeadRope(step) => self.head_rope(step),
            Step::StoreKv { heads, cache } => self.store_kv(heads, *cache),
            Step::Attend(step) => self.attend(step),
            Step::Quantize { from, len, to, readers } => self.quantize(*from, *len, *to, self.kinds(readers)),
            Step::GateUp { from, gate, up, activation, clamp, to } => {
                self.gate_up(*from, gate, up, (*activation, *clamp), *to);
            }
            Step::Streams(step) => self.streams(step),
            Step::StreamInput { stream, len, n, to, readers } => {
                let kinds = self.kinds(readers);
                self.quantize_part(Register::Streams, (stream * len, *len, n * len), *to, kinds);
            }
            Step::JoinBranch(step) => self.join_branch(step),
            Step::SparseGate { len, deviations } => self.sparse_gate(*len, *deviations),
            Step::SplitGates(heads) => self.split_gates(heads),
            Step::GateHeads { len, per_gate, activation } => self.gate_heads(*len, *per_gate, *activation),
            Step::JoinHeads(step) => self.join_heads(step),
            Step::Regroup(step) => self.regroup(step),
            Step::NormParts { of, parts } => self.norm_parts(*of, parts),
            Step::Conv(step) => self.conv(step),
            Step::ShortConv(step) => self.short_conv(step),
            Step::Scan(step) => self.scan(step),
            Step::ChannelScan(step) => self.channel_scan(step),
            Step::GateNorm(step) => self.gate_norm(step),
            Step::Route(step) => self.route(step),
            Step::Weigh { by, of, len } => self.weigh(*by, *of, *len),
            Step::Up { from, up, activation, to } => self.up(*from, up, *activation, *to),
            Step::Experts { .. } => unreachable!("a step that can fail is taken by the segment"),
            Step::Embed { .. } | Step::Logits { .. } => unreachable!("neither is a layer's step"),
        }
    }

    /// Charges the time since the last lap to `stage`.
    fn lap(&mut self, stage: Stage) {
        let pool = self.model.pool();
        self.clock.lap(stage, || pool.waited());
    }

    /// The same for a stage on the GPU, which is waited for only if somebody wants to know.
    fn lap_on_gpu(&mut self, stage: Stage) -> Result<()> {
        if let (true, Some(gpu)) = (self.clock.is_on(), self.gpu.as_deref()) {
            let (busy, pool) = (gpu.busy()?, self.model.pool());
            self.clock.lap_on_gpu(stage, || pool.waited(), busy);
        }
        Ok(())
    }
}
