//! Where the time of a pass goes: one clock on the calling thread, read at the end of each stage.
//!
//! A clock that is off is never read: what it costs is a branch a stage.

use std::time::{Duration, Instant};

use modelembed_spec::{Part, Register, Step};

/// A part of a token's time, on its way from its id to its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking up embeddings, and the angles of the positions.
    Embed,
    /// Joining the residual stream, norm, and turning the result into 8-bit blocks.
    Norm,
    /// Query, key and value projections.
    Qkv,
    /// Turning queries and keys by their positions, and storing keys and values.
    RopeStore,
    /// Attention over the cache.
    Attention,
    /// Convolution and state of a recurrence.
    Recurrence,
    /// Turning attention's output into 8-bit blocks, and the output projection.
    AttentionOutput,
    /// Gate and up projections with the activation function.
    GateUp,
    /// Choosing experts, and computing them.
    Experts,
    /// Turning the hidden state into 8-bit blocks, and the down projection.
    Down,
    /// Layers on a GPU, the way there and back included.
    Gpu,
    /// The last norm and the output head.
    Head,
    /// Choosing the next token.
    Sampling,
    /// Turning tokens into text, handing it out, and whatever else the caller does between two
    /// evaluations.
    Text,
}

impl Stage {
    /// All stages in the order of a token.
    pub const ALL: [Stage; 14] = [
        Stage::Embed,
        Stage::Norm,
        Stage::Qkv,
        Stage::RopeStore,
        Stage::Attention,
        Stage::Recurrence,
        Stage::AttentionOutput,
        Stage::GateUp,
        Stage::Experts,
        Stage::Down,
        Stage::Gpu,
        Stage::Head,
        Stage::Sampling,
        Stage::Text,
    ];

    /// What the time of a model's step counts as; `None` for a step whose time counts as the next
    /// one's. A half of a layer ends with the projection to what it adds.
    pub(crate) fn of(part: Part, step: &Step) -> Option<Stage> {
        Some(match (step, part) {
            (Step::Embed { .. }, _) => Stage::Embed,
            (Step::JoinNorm { .. } | Step::Norm { .. }, _) => Stage::Norm,
            (Step::MixOwn(_), _) | (Step::Project { to: Register::Hidden, .. }, Part::Mixer(_)) => Stage::Embed,
            (Step::TimesOwn { .. }, _) => return None,
            (Step::SetAside { .. }, _) => Stage::Down,
            (Step::Streams(_) | Step::JoinBranch(_) | Step::StreamInput { .. }, _) => Stage::Norm,
            (Step::AddAside { .. }, _) => Stage::Experts,
            (Step::HeadRope(_) | Step::GateNorm(_) | Step::Weigh { .. } | Step::Quantize { .. }, _) => return None,
            (Step::SplitGates(_) | Step::GateHeads { .. } | Step::LimitHeads { .. }, _) => return None,
            (Step::Regroup(_) | Step::JoinHeads(_) | Step::NormParts { .. }, _) => return None,
            (Step::Route(_) | Step::Experts { .. } | Step::Project { to: Register::Router, .. }, _) => Stage::Experts,
            (Step::StoreKv { .. }, _) => Stage::RopeStore,
            (Step::Attend(_), _) => Stage::Attention,
            (Step::Conv(_) | Step::ShortConv(_) | Step::Scan(_) | Step::ChannelScan(_), _) => Stage::Recurrence,
            (Step::Project { to: Register::Delta, .. }, Part::Mixer(_)) => Stage::AttentionOutput,
            (Step::Project { .. }, Part::Mixer(_)) => Stage::Qkv,
            (Step::Project { to: Register::Delta, .. }, Part::FeedForward(_)) => Stage::Down,
            (Step::Project { .. }, Part::FeedForward(_)) | (Step::GateUp { .. } | Step::Up { .. }, _) => Stage::GateUp,
            (Step::SparseGate { .. }, _) => Stage::GateUp,
            (Step::Project { .. }, Part::Head) | (Step::Logits { .. }, _) => Stage::Head,
        })
    }

    /// The stage's name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Embed => "embed",
            Stage::Norm => "norm, quantise",
            Stage::Qkv => "qkv",
            Stage::RopeStore => "rope, store",
            Stage::Attention => "attention",
            Stage::Recurrence => "recurrence",
            Stage::AttentionOutput => "output projection",
            Stage::GateUp => "gate, up",
            Stage::Experts => "experts",
            Stage::Down => "down",
            Stage::Gpu => "gpu layers",
            Stage::Head => "head",
            Stage::Sampling => "sampling",
            Stage::Text => "text",
        }
    }
}

/// What a time was spent for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Several tokens at once.
    #[default]
    Prompt,
    /// One token after the other, or a few that are drafts.
    Decode,
}

/// Time of one stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTime {
    /// On the clock of the calling thread.
    pub elapsed: Duration,
    /// How much of that the calling thread waited for other workers to end theirs.
    pub waited: Duration,
    /// How long a GPU computed for it, by its own clock; 0 where it has none.
    pub on_gpu: Duration,
}

/// Times of all stages in one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTiming {
    /// Tokens that went through the layers.
    pub tokens: usize,
    /// In the order of [`Stage::ALL`].
    pub stages: [StageTime; Stage::ALL.len()],
}

impl PhaseTiming {
    /// The time of one stage.
    pub fn of(&self, stage: Stage) -> StageTime {
        self.stages[stage as usize]
    }

    /// The time of all stages together.
    pub fn total(&self) -> StageTime {
        self.stages.iter().fold(StageTime::default(), |sum, stage| StageTime {
            elapsed: sum.elapsed + stage.elapsed,
            waited: sum.waited + stage.waited,
            on_gpu: sum.on_gpu + stage.on_gpu,
        })
    }
}

/// Where the time of a session went; see [`SessionOptions::timing`](crate::SessionOptions::timing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Evaluations of several tokens.
    pub prompt: PhaseTiming,
    /// Evaluations of one token, or of one and some that are drafts.
    pub decode: PhaseTiming,
}

/// The clock of a session.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    timing: Option<Box<Timing>>,
    phase: Phase,
    /// When the last stage ended, and what the pool had waited until then; `None` while nothing is
    /// timed.
    last: Option<(Instant, Duration)>,
    /// What the GPU had computed until then.
    busy: Duration,
}

impl Clock {
    /// A clock that runs, or one that is off.
    pub(crate) fn new(is_on: bool) -> Clock {
        Clock { timing: is_on.then(Box::default), ..Clock::default() }
    }

    /// The time until the next start belongs to no stage.
    pub(crate) fn pause(&mut self) {
        self.last = None;
    }

    /// The sums so far; `None` if the clock is off.
    pub(crate) fn timing(&self) -> Option<&Timing> {
        self.timing.as_deref()
    }

    /// An evaluation of `tokens` tokens begins. What was not timed since the last stage, in
    /// decoding, was the caller's.
    pub(crate) fn start(&mut self, phase: Phase, tokens: usize, waited: impl FnOnce() -> Duration) {
        if self.timing.is_none() {
            return;
        }
        if self.last.is_some() && (self.phase, phase) == (Phase::Decode, Phase::Decode) {
            self.lap(Stage::Text, waited);
        } else {
            self.last = Some((Instant::now(), waited()));
        }
        self.phase = phase;
        if let Some(timing) = &mut self.timing {
            timing.phase_mut(phase).tokens += tokens;
        }
    }

    /// A stage has ended: the time since the last one was its.
    pub(crate) fn lap(&mut self, stage: Stage, waited: impl FnOnce() -> Duration) {
        let (Some(timing), Some((then, waited_then))) = (&mut self.timing, self.last) else { return };
        let (now, waited) = (Instant::now(), waited());
        let sum = &mut timing.phase_mut(self.phase).stages[stage as usize];
        sum.elapsed += now - then;
        sum.waited += waited - waited_then;
        self.last = Some((now, waited));
    }

    /// The same for a stage on the GPU, which has computed for `busy` in all.
    pub(crate) fn lap_on_gpu(&mut self, stage: Stage, waited: impl FnOnce() -> Duration, busy: Duration) {
        let since = busy.saturating_sub(self.busy);
        self.busy = busy;
        self.lap(stage, waited);
        if let Some(timing) = &mut self.timing {
            timing.phase_mut(self.phase).stages[stage as usize].on_gpu += since;
        }
    }

    /// Whether it runs.
    pub(crate) fn is_on(&self) -> bool {
        self.timing.is_some()
    }
}

impl Timing {
    fn phase_mut(&mut self, phase: Phase) -> &mut PhaseTiming {
        match phase {
            Phase::Prompt => &mut self.prompt,
            Phase::Decode => &mut self.decode,
        }
    }
}

#[cfg(test)]
mod tests {
    use modelembed_spec::Input;

    use super::*;

    #[test]
    fn a_projection_counts_as_what_it_is_for() {
        let project = |to| Step::Project { from: Input::Inner, parts: Vec::new(), to, adds: false };
        let (mixer, ffn) = (Part::Mixer(3), Part::FeedForward(3));
        let rows = [
            (mixer, Register::Qkv, Stage::Qkv),
            (mixer, Register::Delta, Stage::AttentionOutput),
            (mixer, Register::Hidden, Stage::Embed),
            (ffn, Register::Hidden, Stage::GateUp),
            (ffn, Register::Delta, Stage::Down),
        ];
        let failed: Vec<_> =
            rows.into_iter().filter(|(part, to, stage)| Stage::of(*part, &project(*to)) != Some(*stage)).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn stages_are_numbered_in_their_order() {
        assert!(Stage::ALL.into_iter().enumerate().all(|(i, stage)| stage as usize == i));
    }
}
