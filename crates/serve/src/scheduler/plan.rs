//! What a step has: a row of every answer, then prompts for as long as there is time.

use modelembed::{SealedPage, Wants};

use super::Scheduler;
use crate::pace::FEWEST_ROWS;
use crate::tree::STATE_TOKENS;

const PAGE_TOKENS: usize = SealedPage::TOKENS;

/// Tokens of a task that a step computes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub(super) task: usize,
    /// Position of the first one.
    pub(super) first: usize,
    pub(super) n: usize,
    pub(super) wants: Wants,
    pub(super) is_answer: bool,
}

impl Scheduler {
    /// What is computed next; nothing if nothing can be.
    pub(super) fn plan(&mut self) -> Vec<Slice> {
        self.rank();
        self.barred.clear();
        loop {
            if let Some(plan) = self.try_plan() {
                return plan;
            }
        }
    }

    /// Gives those that are new their place: when they came, and as much later as what is not
    /// there of their prompt takes. So a long prompt lets those pass that are short, but none that
    /// come when it could have been computed.
    fn rank(&mut self) {
        for i in (0..self.tasks.len()).filter(|&i| self.tasks[i].rank.is_none()).collect::<Vec<_>>() {
            let n_takeable = self.n_takeable(i);
            let task = &mut self.tasks[i];
            let n_missing = task.n_prompt - self.tree.find(&task.salt, &task.tokens[..n_takeable]).n_tokens;
            let came_ms = task.arrived.saturating_duration_since(self.start).as_secs_f64() * 1e3;
            let cost_ms = self.pace.row_ms(task.n_prompt).unwrap_or(0.0) * n_missing as f64;
            task.rank = Some(came_ms + cost_ms);
        }
    }

    /// The same, if the pages are there; `None` where somebody went back to the queue for them.
    fn try_plan(&mut self) -> Option<Vec<Slice>> {
        let mut plan: Vec<Slice> = Vec::new();
        let mut n_pages = 0;
        for (i, task) in self.tasks.iter().enumerate().filter(|(_, task)| task.is_answering()) {
            n_pages += self.pages_for(i, 1);
            let (first, wants) = (task.n_computed, Wants::Last);
            plan.push(Slice { task: i, first, n: 1, wants, is_answer: true });
        }
        if !self.make_room(n_pages) && self.somebody_gives_way() {
            return None;
        }
        let n_answers = plan.len();
        let mut n_rows = 0;
        let mut prompts: Vec<usize> = (0..self.tasks.len()).filter(|&i| !self.tasks[i].is_answering()).collect();
        let rank = |i: usize| self.tasks[i].rank.unwrap_or(f64::MAX);
        prompts.sort_by(|&a, &b| rank(a).total_cmp(&rank(b)).then(a.cmp(&b)));
        // Who cannot begin keeps its place before those that have not begun either, but not before
        // those that hold the pages it waits for.
        let mut may_begin = true;
        for i in prompts {
            let is_first = plan.len() == n_answers;
            if !is_first && self.pace.rows(n_answers, 0) < n_rows + FEWEST_ROWS {
                break;
            }
            if self.tasks[i].sequence.is_none() {
                if !may_begin || self.will_be_there(i, &plan) {
                    continue;
                }
                // Who has just gone back does not come again within this step.
                may_begin = !self.barred.contains(&self.tasks[i].id) && self.admit(i, n_pages);
                if !may_begin {
                    continue;
                }
            }
            let first = self.tasks[i].n_computed;
            let rows = self.pace.rows(n_answers, first).saturating_sub(n_rows);
            if !is_first && rows < FEWEST_ROWS {
                break;
            }
            let n = self.cut(i, rows.max(FEWEST_ROWS));
            let of_slice = self.pages_for(i, n);
            // The only one is told by the engine what it lacks.
            if !self.make_room(n_pages + of_slice) && self.somebody_gives_way() {
                return None;
            }
            n_pages += of_slice;
            n_rows += n;
            plan.push(Slice { task: i, first, n, wants: self.wants(i, first + n), is_answer: false });
        }
        Some(plan)
    }

    /// How many of at most `rows` tokens of a task are computed at once: up to where a state is to
    /// be kept.
    fn cut(&self, i: usize, rows: usize) -> usize {
        let task = &self.tasks[i];
        let (first, n) = (task.n_computed, rows.min(task.n_left()));
        let Some(stride) = self.state_stride() else { return n };
        let next = (first / stride + 1) * stride;
        let turn_end = task.turn_ends.iter().copied().find(|&at| at > first).unwrap_or(usize::MAX);
        n.min(next.min(turn_end) - first)
    }

    /// Tokens from one state that is kept to the next, besides those at the ends of turns: so many
    /// that states take no more memory than pages. `None` without recurrences.
    pub(super) fn state_stride(&self) -> Option<usize> {
        self.state_pages.map(|pages| pages.max(1) * PAGE_TOKENS)
    }

    /// What is wanted of a slice that ends at `end`.
    fn wants(&self, i: usize, end: usize) -> Wants {
        let task = &self.tasks[i];
        if task.voice.prompt_logprobs.is_some() && !task.told_prompt {
            Wants::All
        } else if end == task.tokens.len() && task.voice.max_tokens() > 0 {
            Wants::Last
        } else {
            Wants::Nothing
        }
    }

    /// Pages that a task's next `n` tokens take.
    fn pages_for(&self, i: usize, n: usize) -> usize {
        let task = &self.tasks[i];
        let (first, end) = (task.n_computed, task.n_computed + n);
        let copied = usize::from(task.shares_last && !first.is_multiple_of(PAGE_TOKENS));
        // The state that is written, where there is none of its own, and the next one.
        let begins = task.n_computed == 0 || task.shares_last;
        let n_states = usize::from(begins) + usize::from(end / STATE_TOKENS > first / STATE_TOKENS);
        let of_states = self.state_pages.unwrap_or(0) * n_states;
        end.div_ceil(PAGE_TOKENS) - first.div_ceil(PAGE_TOKENS) + copied + of_states
    }

    /// Lets prefixes go until so many pages are free; false if there are not as many.
    pub(super) fn make_room(&mut self, n_pages: usize) -> bool {
        while self.engine.page_use().free < n_pages {
            if !self.evict() {
                return false;
            }
        }
        true
    }

    pub(super) fn evict(&mut self) -> bool {
        let is_gone = self.tree.evict();
        self.gauges.totals.evicted_pages += u64::from(is_gone);
        is_gone
    }

    /// Makes pages free where the tree has none to give: sends the youngest back, or where there is
    /// only one, lets what it stands on leave the tree, whose states take memory beside its pages.
    /// False if nothing is left to be done.
    pub(super) fn somebody_gives_way(&mut self) -> bool {
        if self.put_youngest_down() {
            return true;
        }
        let n_guards = self.tasks.iter_mut().filter_map(|task| task.guard.take()).count();
        n_guards > 0
    }

    /// Sends the youngest of those that hold pages back to the queue: who came earlier never gives
    /// way to who came later, so that somebody always comes to an end. False if there is only one.
    fn put_youngest_down(&mut self) -> bool {
        let seated = || self.tasks.iter().enumerate().filter(|(_, task)| task.sequence.is_some());
        if seated().count() < 2 {
            return false;
        }
        let Some((youngest, _)) = seated().max_by_key(|(_, task)| task.id) else { return false };
        self.put_down(youngest);
        self.barred.push(self.tasks[youngest].id);
        self.tasks[youngest].n_preempted += 1;
        self.gauges.totals.preempted += 1;
        true
    }
}
