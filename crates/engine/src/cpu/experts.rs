//! Mixtures of experts: choosing them, and computing those that were chosen.
//!
//! The columns of a chunk and their experts are pairs, sorted by expert and then by column: each
//! expert's matrices are read once for all its columns. What experts give is added in ascending
//! order of their numbers for each column, whatever the others chose, so its bits do not depend on
//! company.

use std::ops::Range;

use modelembed_kernels::{ActKind, ActLayout, Acts, Kernels, MatRef, Output, Strided};
use modelembed_pool::{Blocks, Cut, Grid, RowsPart, Strips, Tiles};
use modelembed_spec::{Clamp, ExpertLinear, Experts, Gating, HiddenActivation, Register, Route};
use modelembed_storage::{Held, Keep};

use super::foresight;
use super::grid::grain_rows;
use super::norm::Kinds;
use super::numbers::{logistic, number, numbers, softplus};
use super::project::add_bias;
use super::scratch::{InputBuffers, Scratch};
use super::{GRAIN_COLS, Pass};
use crate::error::Result;
use crate::load::model::Model;
use crate::load::tensors::Tensor;
use crate::residency::experts::{ExpertGroup, ExpertSlots};
use crate::residency::wait_failed;

/// An expert that a column uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Chosen {
    expert: u32,
    col: u32,
    /// What its output is multiplied with.
    weight: f32,
}

impl Chosen {
    /// The expert's number.
    pub(super) fn expert(&self) -> u32 {
        self.expert
    }
}

/// Columns up to which what they use counts as used: a prompt uses most experts once, and would
/// push out those that answers come back to.
const LASTING_COLS: usize = 32;
/// Experts of a prompt that are in memory for it at a time, and as many again that are being read.
const PASSING_AT_ONCE: usize = 8;

/// The experts of a chunk's columns.
#[derive(Default)]
pub(crate) struct Routes {
    /// (n_cols, n_used); then sorted by expert and column.
    pairs: Vec<Chosen>,
    /// For each expert that is used, in ascending order, its pairs.
    of_expert: Vec<Range<usize>>,
}

impl Routes {
    /// Sorts the pairs, and lists those of each expert.
    fn sort(&mut self) {
        self.pairs.sort_unstable_by_key(|pair| (pair.expert, pair.col));
        self.of_expert.clear();
        let mut start = 0;
        for same in self.pairs.chunk_by(|a, b| a.expert == b.expert) {
            self.of_expert.push(start..start + same.len());
            start += same.len();
        }
    }
}

impl Routes {
    /// The column of a pair.
    pub(super) fn col(&self, pair: usize) -> usize {
        self.pairs[pair].col as usize
    }

    /// What the output of a pair's expert is multiplied with.
    pub(super) fn weight(&self, pair: usize) -> f32 {
        self.pairs[pair].weight
    }
}

impl Pass<'_> {
    /// Chooses the experts of each column by the numbers of the router.
    pub(super) fn route(&mut self, step: &Route) {
        let (model, n, kernels) = (self.model, self.n, self.model.kernels());
        let Scratch { registers, routes, workers, .. } = &mut *self.s;
        let numbers_of = &registers[Register::Router as usize][..n * step.n_experts];
        let bias = step.choice_bias.map(|id| model.tensor_bytes(id));
        let expert_scale = step.expert_scale.map(|id| model.tensor_bytes(id));
        routes.pairs.clear();
        routes.pairs.resize(n * step.n_used, Chosen::default());
        let workers = &*workers;
        let out = Blocks { data: &mut routes.pairs[..], block: step.n_used };
        model.pool().run(n, GRAIN_COLS, out, |cols, out, worker| {
            // Probabilities, then what they are chosen by.
            let (probabilities, scores) = workers.get(worker).experts.split_at_mut(step.n_experts);
            let scores = &mut scores[..step.n_experts];
            for (col, chosen) in cols.zip(out.chunks_exact_mut(step.n_used)) {
                probabilities.copy_from_slice(&numbers_of[col * step.n_experts..][..step.n_experts]);
                score(kernels, step, bias, probabilities, scores);
                choose(scores, chosen);
                weigh(step, probabilities, chosen);
                if let Some(scales) = expert_scale {
                    chosen.iter_mut().for_each(|pair| pair.weight *= number(scales, pair.expert as usize));
                }
                chosen.iter_mut().for_each(|pair| pair.col = col as u32);
            }
        });
        routes.sort();
    }

    /// delta = what the chosen experts give; or delta += that.
    ///
    /// # Errors
    /// A failed read of an expert, or cancellation, where experts are kept one by one.
    pub(super) fn experts(&mut self, step: &Experts, adds: bool, is_cancelled: &dyn Fn() -> bool) -> Result<()> {
        let (up, model) = (step.up.w, self.model);
        let first = step.gate.as_ref().map_or_else(|| self.kinds(&[up]), |gate| self.kinds(&[gate.w, up]));
        self.gather(step, first);
        let of_expert = std::mem::take(&mut self.s.routes.of_expert);
        let slots = model.residency().experts();
        let result = match slots.and_then(|slots| Some((slots, slots.group(step)?))) {
            Some(slots) => self.experts_in_slots(step, adds, slots, &of_expert, is_cancelled),
            None => {
                for of in &of_expert {
                    let parts = step.gate.iter().chain([&step.up, &step.down]);
                    let tensors = parts.flat_map(|part| [Some(part.w), part.bias]).flatten();
                    model.ask_for_expert(tensors, self.s.routes.pairs[of.start].expert as usize);
                }
                self.hidden_of_experts(step, &of_expert, &Place::File);
                self.give_of_experts(step, adds, &of_expert, &Place::File);
                Ok(())
            }
        };
        self.s.routes.of_expert = of_expert;
        result
    }

    /// The same where experts are in slots: in waves of as many as there is room for, each of which
    /// is read while the one before it is computed. Of a wave those are computed first that are
    /// there; what they give is added in ascending order all the same. Few columns keep it apart
    /// until then, so that nothing is left to be computed when the last expert has come but its own
    /// part, and the next layer's choice can be guessed with it.
    fn experts_in_slots(
        &mut self,
        step: &Experts,
        adds: bool,
        (slots, group): (&ExpertSlots, &ExpertGroup),
        of_expert: &[Range<usize>],
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        let keep = if self.n > LASTING_COLS { Keep::Passing } else { Keep::Lasting };
        let most = if keep == Keep::Passing { PASSING_AT_ONCE } else { usize::MAX };
        let mut waves = of_expert.chunks(slots.at_once().min(most)).peekable();
        let hold = |pass: &Self, wave: &[Range<usize>]| {
            slots.hold(group, wave.iter().map(|of| pass.s.routes.pairs[of.start].expert), keep)
        };
        let mut next = waves.peek().map(|wave| hold(self, wave)).transpose()?;
        let is_apart = self.n <= foresight::MOST_COLS;
        let mut foresight = if is_apart { slots.foresight(group) } else { None };
        let mut adds = adds;
        while let (Some(wave), Some(mut held)) = (waves.next(), next.take()) {
            next = waves.peek().map(|wave| hold(self, wave)).transpose()?;
            let mut left: Vec<usize> = (0..wave.len()).collect();
            while let Some(&first) = left.first() {
                let mut ready = Vec::with_capacity(left.len());
                for &index in &left {
                    if held.is_ready(index)? {
                        ready.push(index);
                    }
                }
                left.retain(|index| !ready.contains(index));
                let of: Vec<Range<usize>> = ready.iter().map(|index| wave[*index].clone()).collect();
                // Where nothing else is read, or nothing is there, a guess is made at once.
                if (ready.is_empty() || left.is_empty())
                    && let Some(foresight) = foresight.take()
                {
                    self.foresee(slots, foresight, &[], adds);
                }
                if ready.is_empty() {
                    held.wait(first, is_cancelled).map_err(wait_failed)?;
                    continue;
                }
                let place = Place::Slots { held: &held, group, indices: &ready };
                self.hidden_of_experts(step, &of, &place);
                if is_apart {
                    self.give_apart(step, &of, &place);
                    if let Some(foresight) = foresight.take() {
                        self.foresee(slots, foresight, &of, adds);
                    }
                }
            }
            if is_apart {
                self.add_given(step, adds, wave);
            } else {
                let all: Vec<usize> = (0..wave.len()).collect();
                self.give_of_experts(step, adds, wave, &Place::Slots { held: &held, group, indices: &all });
            }
            adds = true;
        }
        Ok(())
    }

    /// From the hidden states of some experts to what each gives, apart from the others':
    /// (pairs, rows).
    fn give_apart(&mut self, step: &Experts, of_expert: &[Range<usize>], place: &Place<'_>) {
        let kinds = self.kinds(&[step.down.w]);
        for of in of_expert {
            self.quantize_hidden(step, kinds, of.clone());
        }
        let (model, kernels, n_rows) = (self.model, self.model.kernels(), step.down.rows);
        let Scratch { given, expert_inputs, routes, .. } = &mut *self.s;
        let pairs = &routes.pairs[..];
        given.resize(given.len().max(pairs.len() * n_rows), 0.0);
        let down = OfExperts::new(model, &step.down, place, &expert_inputs[1], pairs.len());
        let widest = of_expert.iter().map(Range::len).max().unwrap_or(1);
        let tile_rows = grain_rows(n_rows * of_expert.len(), widest, model.pool().threads()).min(n_rows);
        let cut = Cut { n_rows, tile_rows, cols: of_expert };
        let out = Strips { data: &mut given[..pairs.len() * n_rows], cut };
        model.pool().run(cut.n_tiles(), 1, out, |tile, mut part, _| {
            let (rows, index) = cut.tile(tile.start);
            let of = &of_expert[index];
            let expert = (index, pairs[of.start].expert as usize);
            down.multiply(kernels, expert, rows, of.clone(), &mut PartOutput(&mut part));
        });
    }

    /// delta = the sum of weight * given over each column's pairs of some experts; or delta += that.
    fn add_given(&mut self, step: &Experts, adds: bool, of_expert: &[Range<usize>]) {
        let (n, kernels, rows) = (self.n, self.model.kernels(), step.down.rows);
        let Scratch { registers, routes, given, .. } = &mut *self.s;
        let delta = &mut registers[Register::Delta as usize][..n * rows];
        if !adds {
            delta.fill(0.0);
        }
        for pair in of_expert.iter().flat_map(Range::clone) {
            let Chosen { col, weight, .. } = routes.pairs[pair];
            let weight = if step.weighs_input { 1.0 } else { weight };
            kernels.add_rows(&mut delta[col as usize * rows..][..rows], &[weight], &given[pair * rows..][..rows], rows);
        }
    }

    /// From the hidden states of some experts that lie side by side to what they give.
    fn give_of_experts(&mut self, step: &Experts, adds: bool, of_expert: &[Range<usize>], place: &Place<'_>) {
        let kinds = self.kinds(&[step.down.w]);
        let pairs = of_expert.first().map_or(0, |of| of.start)..of_expert.last().map_or(0, |of| of.end);
        self.quantize_hidden(step, kinds, pairs);
        self.down_of_experts(step, adds, of_expert, place);
    }

    /// Copies the input's columns to the pairs that read them.
    fn gather(&mut self, step: &Experts, kinds: Kinds) {
        let (model, k) = (self.model, step.up.k);
        let Scratch { inputs, expert_inputs, routes, .. } = &mut *self.s;
        let (from, to) = (&inputs[step.from as usize], &mut expert_inputs[0]);
        let pairs = &routes.pairs;
        let (q8, f32) = to.both_mut();
        for (kind, is_wanted, to) in [(ActKind::Q8, kinds.q8, q8), (ActKind::F32, kinds.f32, f32)] {
            if is_wanted {
                let (bytes, from) = (ActLayout::new(kind, k).col_bytes(), from.bytes(kind));
                let out = Blocks { data: &mut to[..pairs.len() * bytes], block: bytes };
                model.pool().run(pairs.len(), 4 * GRAIN_COLS, out, |of, out, _| {
                    for (pair, to) in pairs[of].iter().zip(out.chunks_exact_mut(bytes)) {
                        to.copy_from_slice(&from[pair.col as usize * bytes..][..bytes]);
                    }
                });
            }
        }
    }

    /// hidden = act(gate y) * up y of each pair of some experts, or act(up y): (pairs, width).
    fn hidden_of_experts(&mut self, step: &Experts, of_expert: &[Range<usize>], place: &Place<'_>) {
        let (model, kernels, width) = (self.model, self.model.kernels(), step.up.rows);
        let Scratch { registers, expert_inputs, routes, workers, .. } = &mut *self.s;
        let (input, workers, pairs) = (&expert_inputs[0], &*workers, &routes.pairs[..]);
        let end = of_expert.last().map_or(0, |of| of.end);
        let up = OfExperts::new(model, &step.up, place, input, pairs.len());
        let gate = step.gate.as_ref().map(|gate| OfExperts::new(model, gate, place, input, pairs.len()));
        let widest = of_expert.iter().map(Range::len).max().unwrap_or(1);
        // As few rows at a time as all experts together would have.
        let tile_rows = grain_rows(width * of_expert.len(), widest, model.pool().threads()).min(width);
        let cut = Cut { n_rows: width, tile_rows, cols: of_expert };
        let out = Strips { data: &mut registers[Register::Hidden as usize][..end * width], cut };
        model.pool().run(cut.n_tiles(), 1, out, |tile, mut part, worker| {
            let (rows, index) = cut.tile(tile.start);
            let (of, n_rows) = (&of_expert[index], rows.len());
            let expert = (index, pairs[of.start].expert as usize);
            let room = &mut workers.get(worker).tile[..of.len() * n_rows];
            let mut ups = Strided { data: room, stride: n_rows, rows: n_rows };
            let Some(gate) = &gate else {
                up.multiply(kernels, expert, rows, of.clone(), &mut PartOutput(&mut part));
                for c in 0..of.len() {
                    activate(kernels, step.activation, part.column(c));
                }
                return;
            };
            gate.multiply(kernels, expert, rows.clone(), of.clone(), &mut PartOutput(&mut part));
            up.multiply(kernels, expert, rows, of.clone(), &mut ups);
            for (c, pair) in pairs[of.clone()].iter().enumerate() {
                if step.weighs_input {
                    // Of an input that is multiplied the products are.
                    kernels.scale(part.column(c), pair.weight);
                    kernels.scale(ups.column(c), pair.weight);
                }
                gated(kernels, step.activation, step.clamp, part.column(c), ups.column(c));
            }
        });
    }

    /// Some pairs' hidden states become an input of these kinds.
    fn quantize_hidden(&mut self, step: &Experts, kinds: Kinds, pairs: Range<usize>) {
        let (model, width) = (self.model, step.up.rows);
        let Scratch { registers, expert_inputs, .. } = &mut *self.s;
        let n = pairs.len();
        let hidden = &registers[Register::Hidden as usize][pairs.start * width..pairs.end * width];
        let (q8, f32) = expert_inputs[1].both_mut();
        for (kind, is_wanted, to) in [(ActKind::Q8, kinds.q8, q8), (ActKind::F32, kinds.f32, f32)] {
            if is_wanted {
                let layout = ActLayout::new(kind, width);
                let block = layout.col_bytes();
                let out = Blocks { data: &mut to[pairs.start * block..pairs.end * block], block };
                model.pool().run(n, GRAIN_COLS, out, |of, out, _| {
                    let hidden = hidden.chunks_exact(width).skip(of.start);
                    for (x, out) in hidden.zip(out.chunks_exact_mut(block)) {
                        model.kernels().quantize(layout, x, out);
                    }
                });
            }
        }
    }

    /// delta = the sum of weight * down z over each column's pairs of some experts; or delta += that.
    fn down_of_experts(&mut self, step: &Experts, adds: bool, of_expert: &[Range<usize>], place: &Place<'_>) {
        let (model, n, kernels, rows) = (self.model, self.n, self.model.kernels(), step.down.rows);
        let Scratch { registers, expert_inputs, routes, workers, .. } = &mut *self.s;
        let (workers, pairs) = (&*workers, &routes.pairs[..]);
        let down = OfExperts::new(model, &step.down, place, &expert_inputs[1], pairs.len());
        let widest = of_expert.iter().map(Range::len).max().unwrap_or(1);
        let grid =
            Grid { n_rows: rows, n_cols: n, tile_rows: grain_rows(rows, widest, model.pool().threads()), tile_cols: n };
        let out = Tiles { data: &mut registers[Register::Delta as usize][..n * rows], grid };
        model.pool().run(grid.n_tiles(), 1, out, |tile, mut part, worker| {
            let (rows, _) = grid.tile(tile.start);
            let n_rows = rows.len();
            if !adds {
                (0..n).for_each(|c| part.column(c).fill(0.0));
            }
            let tile = &mut workers.get(worker).tile;
            for (index, of) in of_expert.iter().enumerate() {
                let room = &mut tile[..of.len() * n_rows];
                let mut sums = Strided { data: room, stride: n_rows, rows: n_rows };
                let expert = (index, pairs[of.start].expert as usize);
                down.multiply(kernels, expert, rows.clone(), of.clone(), &mut sums);
                for (c, pair) in pairs[of.clone()].iter().enumerate() {
                    let weight = if step.weighs_input { 1.0 } else { pair.weight };
                    kernels.add_rows(part.column(pair.col as usize), &[weight], sums.column(c), n_rows);
                }
            }
        });
    }

    /// A register is multiplied by the logistic function of another one's only element.
    pub(super) fn weigh(&mut self, by: Register, of: Register, len: usize) {
        let n = self.n;
        let [by, of] = self
            .s
            .registers
            .get_disjoint_mut([by as usize, of as usize])
            .unwrap_or_else(|_| unreachable!("two registers"));
        for (x, by) in of[..n * len].chunks_exact_mut(len).zip(&by[..n]) {
            self.model.kernels().scale(x, logistic(*by));
        }
    }
}

/// Where experts' matrices lie.
enum Place<'a> {
    /// In the file, all of a layer side by side.
    File,
    /// In slots: those at some indices of a list that is held.
    Slots { held: &'a Held<'a>, group: &'a ExpertGroup, indices: &'a [usize] },
}

/// The matrices of experts with the pairs' inputs.
struct OfExperts<'a> {
    of: Matrices<'a>,
    linear: &'a ExpertLinear,
    acts: Acts<'a>,
    bias: Option<&'a [u8]>,
}

#[derive(Clone, Copy)]
enum Matrices<'a> {
    Whole(MatRef<'a>),
    /// Of each a part of the items that are held.
    Each {
        tensor: &'a Tensor,
        held: &'a Held<'a>,
        part: usize,
        indices: &'a [usize],
    },
}

impl<'a> OfExperts<'a> {
    fn new(
        model: &'a Model,
        linear: &'a ExpertLinear,
        place: &Place<'a>,
        input: &'a InputBuffers,
        n: usize,
    ) -> OfExperts<'a> {
        let tensor = model.tensor(linear.w);
        let kind = Kernels::act_kind(tensor.ty, model.is_exact());
        let acts = Acts::new(ActLayout::new(kind, tensor.k), input.bytes(kind), n);
        let of = match *place {
            Place::File => Matrices::Whole(model.matrix(linear.w)),
            Place::Slots { held, group, indices } => {
                Matrices::Each { tensor, held, part: group.part(linear.w), indices }
            }
        };
        OfExperts { of, linear, acts, bias: linear.bias.map(|id| model.tensor_bytes(id)) }
    }

    /// Products of rows of an expert with the inputs of some pairs, and their bias. The expert: which
    /// one of those at this place, and its number.
    fn multiply(
        &self,
        kernels: &Kernels,
        (index, expert): (usize, usize),
        rows: Range<usize>,
        of: Range<usize>,
        out: &mut dyn Output,
    ) {
        let (n, ExpertLinear { stride, first, rows: n_rows, .. }) = (of.len(), *self.linear);
        let (w, before) = match self.of {
            Matrices::Whole(w) => (w, expert * stride + first),
            Matrices::Each { tensor, held, part, indices } => {
                let w = MatRef::new(tensor.ty, held.bytes(indices[index], part), stride, tensor.k);
                (w.unwrap_or_else(|| unreachable!("an item has an expert's part of the tensor")), first)
            }
        };
        kernels.mul_rows(w, before + rows.start..before + rows.end, self.acts.columns(of), out);
        add_bias(self.bias, expert * n_rows + rows.start..expert * n_rows + rows.end, n, out);
    }
}

/// Some rows of a matrix's columns.
struct PartOutput<'a, 'b>(&'a mut RowsPart<'b>);

impl Output for PartOutput<'_, '_> {
    fn column(&mut self, c: usize) -> &mut [f32] {
        self.0.column(c)
    }
}

/// From the router's numbers to probabilities, in their place, and to the scores by which experts
/// are chosen; `bias`: the bytes of [`Route::choice_bias`].
pub(super) fn score(
    kernels: &Kernels,
    step: &Route,
    bias: Option<&[u8]>,
    probabilities: &mut [f32],
    scores: &mut [f32],
) {
    if step.number_scale != 1.0 {
        kernels.scale(probabilities, step.number_scale);
    }
    gate(kernels, step.gating, probabilities);
    scores.copy_from_slice(probabilities);
    if let Some(bias) = bias {
        scores.iter_mut().zip(numbers(bias)).for_each(|(score, bias)| *score += bias);
    }
    if let Some((n_groups, n_used)) = step.groups {
        keep_groups(scores, n_groups, n_used);
    }
}

/// From the router's numbers to probabilities, or to what the chosen ones' come from.
fn gate(kernels: &Kernels, gating: Gating, x: &mut [f32]) {
    match gating {
        Gating::Softmax => kernels.softmax(x),
        Gating::Sigmoid => x.iter_mut().for_each(|x| *x = logistic(*x)),
        Gating::SoftmaxOfChosen => {}
        Gating::SqrtSoftplus => {
            x.iter_mut().for_each(|x| *x = softplus(*x).sqrt());
        }
    }
}

/// Leaves the scores of the best groups, those with the greatest sums of their two best scores.
fn keep_groups(scores: &mut [f32], n_groups: usize, n_used: usize) {
    let size = scores.len() / n_groups;
    let sum = |group: &[f32]| {
        let mut best = [f32::NEG_INFINITY; 2];
        for &x in group {
            if x > best[0] {
                best = [x, best[0]];
            } else if x > best[1] {
                best[1] = x;
            }
        }
        if size == 1 { best[0] } else { best[0] + best[1] }
    };
    for _ in n_used..n_groups {
        // The worst one that is left; of equal ones the last.
        let groups = scores.chunks_exact(size).enumerate().map(|(i, group)| (i, sum(group)));
        let worst =
            groups.filter(|(_, sum)| *sum > f32::NEG_INFINITY).min_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        if let Some((i, _)) = worst {
            scores[i * size..(i + 1) * size].fill(f32::NEG_INFINITY);
        }
    }
}

/// The experts with the greatest scores, of equal ones the first, in ascending order. A score that
/// is no number counts as the least.
pub(super) fn choose(scores: &[f32], chosen: &mut [Chosen]) {
    for at in 0..chosen.len() {
        let is_free = |i: usize| chosen[..at].iter().all(|pair| pair.expert as usize != i);
        let mut best: Option<usize> = None;
        for (i, &score) in scores.iter().enumerate() {
            let is_better = |best: usize| score > scores[best] || scores[best].is_nan() && !score.is_nan();
            if best.is_none_or(is_better) && is_free(i) {
                best = Some(i);
            }
        }
        chosen[at] = Chosen { expert: best.unwrap_or(0) as u32, ..Chosen::default() };
    }
    chosen.sort_unstable_by_key(|pair| pair.expert);
}

/// What each chosen expert weighs.
fn weigh(step: &Route, probabilities: &[f32], chosen: &mut [Chosen]) {
    for pair in &mut *chosen {
        pair.weight = probabilities[pair.expert as usize];
    }
    if step.gating == Gating::SoftmaxOfChosen {
        let greatest = chosen.iter().map(|pair| pair.weight).fold(f32::NEG_INFINITY, f32::max);
        chosen.iter_mut().for_each(|pair| pair.weight = libm::expf(pair.weight - greatest));
        let sum: f32 = chosen.iter().map(|pair| pair.weight).sum();
        chosen.iter_mut().for_each(|pair| pair.weight /= sum);
    }
    if step.normalised {
        // The least f16 that is normal, as models of this kind were trained with.
        let sum = chosen.iter().map(|pair| pair.weight).sum::<f32>().max(6.103_515_6e-5);
        chosen.iter_mut().for_each(|pair| pair.weight /= sum);
    }
    if step.scale != 1.0 {
        chosen.iter_mut().for_each(|pair| pair.weight *= step.scale);
    }
}

/// x = act(x).
pub(super) fn activate(kernels: &Kernels, activation: HiddenActivation, x: &mut [f32]) {
    match activation {
        HiddenActivation::Silu => kernels.silu(x),
        HiddenActivation::Gelu => kernels.gelu(x),
        HiddenActivation::Relu => kernels.relu(x),
        HiddenActivation::ReluSquared => kernels.relu_squared(x),
        HiddenActivation::Xielu { positive, negative, beta, eps } => xielu([positive, negative, beta, eps], x),
        HiddenActivation::ClampedSwiglu { .. } => unreachable!("programs have it with a gate only"),
    }
}

/// See [`HiddenActivation::Xielu`].
fn xielu([positive, negative, beta, eps]: [f32; 4], x: &mut [f32]) {
    for x in x {
        let curve = if *x > 0.0 { positive * *x * *x } else { negative * (libm::expm1f(x.min(eps)) - *x) };
        *x = curve + beta * *x;
    }
}

/// gate = act(gate) * up, within limits.
pub(super) fn gated(
    kernels: &Kernels,
    activation: HiddenActivation,
    clamp: Option<Clamp>,
    gate: &mut [f32],
    up: &mut [f32],
) {
    match clamp {
        Some(Clamp::BeforeActivation(limit)) => {
            gate.iter_mut().for_each(|x| *x = x.min(limit));
            up.iter_mut().for_each(|x| *x = x.clamp(-limit, limit));
        }
        Some(Clamp::AfterActivation(limit)) => {
            activate(kernels, activation, gate);
            up.iter_mut().for_each(|x| *x = x.clamp(-limit, limit));
            gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = gate.min(limit) * *up);
            return;
        }
        None => {}
    }
    match activation {
        HiddenActivation::Silu => kernels.silu_mul(gate, up),
        HiddenActivation::Gelu => kernels.gelu_mul(gate, up),
        HiddenActivation::Relu => kernels.relu_mul(gate, up),
        HiddenActivation::ReluSquared | HiddenActivation::Xielu { .. } => {
            activate(kernels, activation, gate);
            gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= *up);
        }
        HiddenActivation::ClampedSwiglu { limit, alpha } => {
            // g * sigmoid(alpha * g) is silu(alpha * g) / alpha.
            gate.iter_mut().for_each(|x| *x = x.min(limit) * alpha);
            up.iter_mut().for_each(|x| *x = (x.clamp(-limit, limit) + 1.0) / alpha);
            kernels.silu_mul(gate, up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(scores: &[f32], n: usize) -> Vec<u32> {
        let mut chosen = vec![Chosen::default(); n];
        choose(scores, &mut chosen);
        chosen.iter().map(|pair| pair.expert).collect()
    }

    #[test]
    fn the_greatest_scores_are_chosen_the_first_of_equal_ones_and_numbers_before_others() {
        let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
        let cases: [(&[f32], usize, &[u32]); 6] = [
            (&[0.1, 0.9, 0.5, 0.7], 2, &[1, 3]),
            (&[0.5, 0.5, 0.5], 2, &[0, 1]),
            (&[nan, 0.1, nan, 0.2], 2, &[1, 3]),
            (&[nan, 0.1, nan], 2, &[0, 1]),
            (&[low, low, 1.0], 2, &[0, 2]),
            (&[nan, nan], 2, &[0, 1]),
        ];
        for (scores, n, want) in cases {
            assert_eq!(chosen(scores, n), want, "{scores:?}");
        }
    }

    #[test]
    fn groups_are_kept_by_their_two_best() {
        let mut scores = vec![0.9, 0.0, 0.5, 0.5, 0.3, 0.3, 0.45, 0.5];
        keep_groups(&mut scores, 4, 2);
        let low = f32::NEG_INFINITY;
        assert_eq!(scores, [low, low, 0.5, 0.5, low, low, 0.45, 0.5]);
        // Of equal ones the first.
        let mut scores = vec![1.0, 2.0, 1.0, 2.0, 1.0, 2.0];
        keep_groups(&mut scores, 3, 1);
        assert_eq!(scores, [1.0, 2.0, low, low, low, low]);
    }
}
