//! Experts of a mixture that do not all stay in memory: an item is one expert of one layer, all its
//! matrices, and is read when it is chosen. What every token needs stays.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use modelembed_spec::{Experts, Input, Linear, Norm, Pending, Register, Route, Segment, Step, TensorId};
use modelembed_storage::process::memory_left;
use modelembed_storage::{Held, Keep, SlotOptions, SlotStats, Slots, Storage, StreamReader, StreamedRange};

use crate::error::Result;
use crate::load::share::CpuShare;
use crate::load::tensors::Compiled;
use crate::residency::plan::{self, ExpertSizes};

/// Guesses after which it is asked whether they pay.
const BETS: u64 = 32;
/// Shares of them that come true: below the first one fewer are made in a layer, above the second
/// one more. One that is right is only read earlier; one that is wrong takes the disk's time.
const PAYING: [f64; 2] = [0.75, 0.9];
/// Guesses that are not made after those before did not pay.
const PAUSE: u64 = 512;

/// The experts of a program's layers that the CPU computes, layer by layer.
pub(crate) struct ExpertGroups(Vec<ExpertGroup>);

/// The experts of one layer. Items are numbered from layer to layer.
pub(crate) struct ExpertGroup {
    /// The item of expert 0.
    first: u32,
    n_experts: usize,
    n_used: usize,
    /// The tensors whose parts an item has, in their order there.
    tensors: Vec<TensorId>,
    /// Of each of them expert 0's part.
    parts: Vec<StreamedRange>,
    /// How the experts of the layer behind this one can be guessed.
    ahead: Option<Foresight>,
}

/// What chooses a layer's experts: the norm before it, the router, the rule.
pub(crate) struct Foresight {
    /// The number of the layer's group.
    pub(crate) group: usize,
    pub(crate) norm: Norm,
    pub(crate) router: Linear,
    pub(crate) route: Route,
    /// What experts give goes into the residual stream as it is.
    pub(crate) joins_plainly: bool,
}

impl ExpertGroups {
    /// Of the segments that the CPU computes. `None` for a model without experts.
    pub(crate) fn new(compiled: &Compiled, share: CpuShare) -> Option<ExpertGroups> {
        let shares = compiled.program.expert_shares();
        let mut groups: Vec<ExpertGroup> = Vec::new();
        for segment in share.layer_segments(&compiled.program) {
            for step in of_segment(segment) {
                let mut tensors = Vec::new();
                for id in step.gate.iter().chain([&step.up, &step.down]).map(|part| part.w) {
                    if !tensors.contains(&id) {
                        tensors.push(id);
                    }
                }
                let n_experts = shares[&step.down.w].1;
                let part = |id: &TensorId| {
                    let tensor = compiled.tensors.get(*id);
                    let bytes = tensor.offset..tensor.offset + tensor.n_bytes / n_experts as u64;
                    StreamedRange { file: tensor.shard, bytes }
                };
                let first = groups.last().map_or(0, |last| last.first + last.n_experts as u32);
                let parts = tensors.iter().map(part).collect();
                let (n_used, index) = (step.n_used, groups.len());
                if let (Some(before), Some(ahead)) = (groups.last_mut(), Foresight::of(segment, index)) {
                    before.ahead = Some(ahead);
                }
                groups.push(ExpertGroup { first, n_experts, n_used, tensors, parts, ahead: None });
            }
        }
        (!groups.is_empty()).then_some(ExpertGroups(groups))
    }

    /// What a plan has to know of them.
    pub(crate) fn sizes(&self) -> ExpertSizes {
        let groups = || self.0.iter();
        let slot_bytes = |group: &ExpertGroup| Slots::slot_bytes(group.parts.iter().map(|part| len(&part.bytes)));
        let greatest = groups().map(slot_bytes).max().unwrap_or(0);
        let most_used = groups().map(|group| group.n_used.min(group.n_experts)).max().unwrap_or(0) as u64;
        ExpertSizes {
            n_items: groups().map(|group| group.n_experts as u64).sum(),
            n_used: groups().map(|group| group.n_used as u64).sum(),
            all_bytes: groups().map(|group| group.item_bytes() * group.n_experts as u64).sum(),
            used_bytes: groups().map(|group| group.item_bytes() * group.n_used as u64).sum(),
            slot_bytes: greatest,
            // A token's in one layer, as many for the next, and as many that are guessed.
            least_bytes: greatest * 3 * most_used,
        }
    }

    /// Everything that is not kept.
    pub(crate) fn ranges(&self) -> Vec<StreamedRange> {
        let whole = |group: &ExpertGroup, part: &StreamedRange| {
            let end = part.bytes.start + len(&part.bytes) * group.n_experts as u64;
            StreamedRange { file: part.file, bytes: part.bytes.start..end }
        };
        self.0.iter().flat_map(|group| group.parts.iter().map(move |part| whole(group, part))).collect()
    }

    /// By the number of an item: of each of its matrices' tensors the expert's part.
    fn items(&self) -> Vec<Vec<StreamedRange>> {
        let item = |group: &ExpertGroup, expert: u64| {
            let part = |part: &StreamedRange| {
                let at = len(&part.bytes) * expert;
                StreamedRange { file: part.file, bytes: part.bytes.start + at..part.bytes.end + at }
            };
            group.parts.iter().map(part).collect()
        };
        self.0.iter().flat_map(|group| (0..group.n_experts as u64).map(move |expert| item(group, expert))).collect()
    }
}

fn len(bytes: &Range<u64>) -> u64 {
    bytes.end - bytes.start
}

fn of_segment(segment: &Segment) -> impl Iterator<Item = &Experts> {
    segment.steps.iter().filter_map(|step| match step {
        Step::Experts { experts, .. } => Some(experts),
        _ => None,
    })
}

impl Foresight {
    /// Where a layer's router reads the norm of the residual stream, as it does in most.
    fn of(segment: &Segment, group: usize) -> Option<Foresight> {
        let (mut last, mut router, mut route, mut join) = (None, None, None, None);
        for step in &segment.steps {
            match step {
                Step::JoinNorm { join: pending, norm, to: Input::Normed, .. } => {
                    last = *norm;
                    join = join.or(*pending);
                }
                Step::Project { from: Input::Normed, parts, to: Register::Router, adds: false } => {
                    router = match &parts[..] {
                        [linear] => Some((last?, linear.clone())),
                        _ => None,
                    };
                }
                Step::Route(step) => route = Some(*step),
                Step::Experts { .. } => break,
                _ => {}
            }
        }
        let (norm, router) = router?;
        let joins_plainly = join == Some(Pending::normed(Register::Delta, None));
        Some(Foresight { group, norm, router, route: route?, joins_plainly })
    }
}

/// The experts that are in memory, and those who read the others.
pub(crate) struct ExpertSlots {
    slots: Slots,
    groups: Vec<ExpertGroup>,
    /// The group of a step, by the tensor of its down projections.
    of_step: HashMap<TensorId, usize>,
    sizes: ExpertSizes,
    /// What the plan gave them, and what has to stay in memory beside them.
    planned_bytes: u64,
    dense_bytes: u64,
    /// Experts that are guessed in a layer; 0 until the first one is.
    guesses: AtomicUsize,
    /// Guesses and those that came true, up to the last time that they were looked at.
    looked_at: [AtomicU64; 2],
    /// Guesses that are not to be made.
    paused: AtomicU64,
}

impl ExpertSlots {
    /// Begins with no expert in memory.
    ///
    /// # Errors
    /// As [`Slots::start`].
    pub(crate) fn start(
        storages: &[&Storage],
        groups: ExpertGroups,
        (planned_bytes, dense_bytes): (u64, u64),
        reader: StreamReader,
    ) -> std::io::Result<ExpertSlots> {
        let sizes = groups.sizes();
        let options = SlotOptions { budget_bytes: planned_bytes, reader, direct: true };
        let slots = Slots::start(storages, &groups.items(), options)?;
        let of_step = |(i, group): (usize, &ExpertGroup)| Some((*group.tensors.last()?, i));
        let of_step = groups.0.iter().enumerate().filter_map(of_step).collect();
        Ok(ExpertSlots {
            slots,
            of_step,
            groups: groups.0,
            sizes,
            planned_bytes,
            dense_bytes,
            guesses: AtomicUsize::new(0),
            looked_at: Default::default(),
            paused: AtomicU64::new(0),
        })
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The experts of a step.
    pub(crate) fn group(&self, step: &Experts) -> Option<&ExpertGroup> {
        self.of_step.get(&step.down.w).map(|i| &self.groups[*i])
    }

    /// How many experts can be held at once, with as many again.
    pub(crate) fn at_once(&self) -> usize {
        let budget = self.slots.stats().budget_bytes.max(self.sizes.least_bytes);
        ((budget / self.sizes.slot_bytes.max(1) / 2) as usize).max(1)
    }

    /// Keeps some experts in memory, and has those read that are not there.
    ///
    /// # Errors
    /// More than [`at_once`](Self::at_once), twice.
    pub(crate) fn hold(&self, group: &ExpertGroup, experts: impl Iterator<Item = u32>, keep: Keep) -> Result<Held<'_>> {
        let items: Vec<u32> = experts.map(|expert| group.first + expert).collect();
        Ok(self.slots.hold(&items, keep)?)
    }

    /// How the next layer's experts can be guessed, if it is time to guess, and how many of them.
    pub(crate) fn foresight<'a>(&self, group: &'a ExpertGroup) -> Option<(&'a Foresight, usize)> {
        let ahead = group.ahead.as_ref()?;
        let paused = self.paused.load(Ordering::Relaxed);
        if paused > 0 {
            self.paused.store(paused - 1, Ordering::Relaxed);
            return None;
        }
        let n_used = ahead.route.n_used;
        let mut guesses = match self.guesses.load(Ordering::Relaxed) {
            0 => n_used.div_ceil(2),
            guesses => guesses.min(n_used),
        };
        let SlotStats { expected, came_true, .. } = self.slots.stats();
        let [bets, won] = &self.looked_at;
        // Another session may have looked at later ones.
        let new = expected.saturating_sub(bets.load(Ordering::Relaxed));
        let new_won = came_true.saturating_sub(won.load(Ordering::Relaxed));
        if new >= BETS {
            bets.store(expected, Ordering::Relaxed);
            won.store(came_true, Ordering::Relaxed);
            let share = new_won as f64 / new as f64;
            if share < PAYING[0] && guesses == 1 {
                self.paused.store(PAUSE, Ordering::Relaxed);
                return None;
            }
            guesses = if share < PAYING[0] {
                guesses - 1
            } else if share > PAYING[1] {
                n_used.min(guesses + 1)
            } else {
                guesses
            };
        }
        self.guesses.store(guesses, Ordering::Relaxed);
        Some((ahead, guesses))
    }

    /// Has experts of a later layer read ahead.
    pub(crate) fn expect(&self, foresight: &Foresight, experts: impl Iterator<Item = u32>) {
        let first = self.groups[foresight.group].first;
        let items: Vec<u32> = experts.map(|expert| first + expert).collect();
        self.slots.expect(&items);
    }

    /// Whether an expert is in memory or on its way.
    pub(crate) fn has(&self, foresight: &Foresight, expert: u32) -> bool {
        self.slots.has(self.groups[foresight.group].first + expert)
    }

    /// Gives memory back that the machine or a control group wants for others, and takes it again
    /// when it is free, up to what was planned.
    pub(crate) fn follow_memory(&self) {
        if let Some(headroom) = plan::headroom(memory_left()) {
            self.slots.set_budget(self.budget(headroom));
        }
    }

    fn budget(&self, headroom: i64) -> u64 {
        // Dense weights are pages of a file, which count as free: they shall stay.
        let used = self.slots.stats().used_bytes;
        let free = headroom.saturating_sub_unsigned(self.dense_bytes);
        used.saturating_add_signed(free).clamp(self.sizes.least_bytes.min(self.planned_bytes), self.planned_bytes)
    }

    /// See [`Slots::measure`].
    pub(crate) fn measure(&self, duration: Duration) -> Option<f64> {
        self.slots.measure(duration)
    }
}

impl ExpertGroup {
    /// Bytes of an item.
    fn item_bytes(&self) -> u64 {
        self.parts.iter().map(|part| len(&part.bytes)).sum()
    }

    /// Where in an item a tensor's part is.
    pub(crate) fn part(&self, id: TensorId) -> usize {
        self.tensors.iter().position(|tensor| *tensor == id).unwrap_or_else(|| unreachable!("a tensor of the step"))
    }
}
