//! From the tree into sequences, and back.

use modelembed::{Result, SealedPage, SequenceId, TokenId, Wants};

use super::Scheduler;
use super::plan::Slice;

const PAGE_TOKENS: usize = SealedPage::TOKENS;
/// Tokens that are worth waiting a step for, when somebody is just computing them.
const WORTH_WAITING: usize = 16;
/// States that a sequence with recurrences has at most: the one that it is in, and the next one while
/// that is written.
pub(crate) const STATES_OF_SEQUENCE: usize = 2;
/// Pages that an answer which went back to the queue waits for beside its own, at most, for each
/// that is running.
const MOST_RESERVED: usize = 8;

/// How many tokens two begin with in common.
fn n_common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Scheduler {
    /// Tokens of a task that may be taken from others: the last one is computed in any case, and
    /// all are whose log-probabilities are wanted.
    pub(super) fn n_takeable(&self, i: usize) -> usize {
        let task = &self.tasks[i];
        let wants_rows = task.voice.prompt_logprobs.is_some() && !task.told_prompt;
        if !self.keeps_prefixes || wants_rows { 0 } else { task.tokens.len() - 1 }
    }

    /// Whether the step that is being planned computes what this task begins with.
    pub(super) fn will_be_there(&self, i: usize, plan: &[Slice]) -> bool {
        let (task, n_takeable) = (&self.tasks[i], self.n_takeable(i));
        let own = &task.tokens[..n_takeable];
        // Who wants all rows computes what may be there already.
        plan.iter().filter(|slice| !slice.is_answer && slice.wants != Wants::All).any(|slice| {
            let other = &self.tasks[slice.task];
            let n = n_common(own, &other.tokens[..slice.first + slice.n]);
            other.salt == task.salt && n >= slice.first + WORTH_WAITING
        })
    }

    /// Gives a task a sequence, with as much as is there of its tokens; false if it has to wait:
    /// for a place, or for pages. `n_pages` are spoken for already.
    pub(super) fn admit(&mut self, i: usize, n_pages: usize) -> bool {
        let n_seated = self.tasks.iter().filter(|task| task.sequence.is_some()).count();
        if n_seated == self.sequences {
            return false;
        }
        let n_takeable = self.n_takeable(i);
        let task = &self.tasks[i];
        let found = self.tree.find(&task.salt, &task.tokens[..n_takeable]);
        let (mut n_tokens, mut pages) = (found.n_tokens, found.pages);
        // Answers that are being written may have more.
        for (j, other) in self.tasks.iter().enumerate().filter(|(_, other)| other.salt == task.salt) {
            let Some(id) = other.sequence else { continue };
            let n = n_common(&task.tokens[..n_takeable], &other.tokens[..other.n_computed]);
            if n > n_tokens
                && let Ok(shared) = self.engine.prefix(id, n)
            {
                debug_assert_ne!(i, j);
                (n_tokens, pages) = (n, shared);
            }
        }
        if n_seated > 0 {
            let wanted = (self.tasks[i].tokens.len() + 1).div_ceil(PAGE_TOKENS) - n_tokens / PAGE_TOKENS;
            let reserved = n_seated * (1 + self.tasks[i].n_preempted).min(MOST_RESERVED);
            let free = self.engine.page_use().free;
            let wanted = wanted + reserved + n_pages + STATES_OF_SEQUENCE * self.state_pages.unwrap_or(0);
            if free < wanted && free + self.tree.n_evictable() < wanted {
                return false;
            }
        }
        let Ok((sequence, n_tokens)) = self.begin(i, n_tokens, pages) else { return false };
        // From here on others may have the last page as well.
        self.mark_shared(n_tokens, i);
        let totals = &mut self.gauges.totals;
        let task = &mut self.tasks[i];
        if task.began.is_none() {
            task.began = Some(std::time::Instant::now());
            task.voice.set_cached(n_tokens);
            totals.prompt_tokens += task.n_prompt as u64;
            totals.cached_tokens += n_tokens as u64;
        }
        task.sequence = Some(sequence);
        task.n_computed = n_tokens;
        task.shares_last = n_tokens > 0 && (self.state_pages.is_some() || !n_tokens.is_multiple_of(PAGE_TOKENS));
        task.n_sealed = 0;
        task.guard = found.guard;
        true
    }

    /// A sequence of the first tokens of a task, of which some are in pages; as many of them as can
    /// be gone on behind.
    fn begin(&mut self, i: usize, mut n_tokens: usize, mut pages: Vec<SealedPage>) -> Result<(SequenceId, usize)> {
        while n_tokens > 0 {
            match self.engine.attach(&self.tasks[i].tokens[..n_tokens], &pages) {
                Ok(sequence) => return Ok((sequence, n_tokens)),
                // A window has passed what would be looked at, or a state was not kept.
                Err(_) => {
                    pages.pop();
                    n_tokens = n_tokens.min(pages.len() * PAGE_TOKENS);
                }
            }
        }
        Ok((self.engine.add()?, 0))
    }

    /// Notes that sequences share their last page with task `i`, which began with `n_tokens`.
    fn mark_shared(&mut self, n_tokens: usize, i: usize) {
        let page = n_tokens / PAGE_TOKENS;
        for (j, other) in self.tasks.iter_mut().enumerate() {
            other.shares_last |= j != i && other.sequence.is_some() && other.n_computed / PAGE_TOKENS == page;
        }
    }

    /// Takes whole pages that a task has filled into the tree, and where a state is to be kept
    /// what goes up to it.
    pub(super) fn keep(&mut self, i: usize) {
        let task = &self.tasks[i];
        let Some(sequence) = task.sequence.filter(|_| self.keeps_prefixes) else { return };
        let n_computed = task.n_computed;
        let is_end = n_computed == task.n_prompt || task.turn_ends.contains(&n_computed);
        let n_whole = n_computed / PAGE_TOKENS;
        let keeps_state = self.state_stride().is_some_and(|stride| is_end || n_computed.is_multiple_of(stride));
        if keeps_state {
            self.take_in(i, sequence, n_computed, true);
            self.tasks[i].shares_last = true;
        } else if n_whole > task.n_sealed {
            self.take_in(i, sequence, n_whole * PAGE_TOKENS, false);
        }
        self.tasks[i].n_sealed = n_whole;
    }

    /// Takes the pages of a task's first `n_tokens` into the tree, with the state behind them or
    /// without.
    fn take_in(&mut self, i: usize, sequence: SequenceId, n_tokens: usize, with_state: bool) {
        let pages = match n_tokens.is_multiple_of(PAGE_TOKENS) {
            true => self.engine.sealed(sequence),
            false => self.engine.prefix(sequence, n_tokens),
        };
        // What cannot be shared is not kept.
        let Ok(pages) = pages else { return };
        let stride = self.state_stride();
        let keeps_state =
            |end: usize| stride.is_some_and(|stride| end == n_tokens && with_state || end.is_multiple_of(stride));
        let pages: Vec<(SealedPage, bool)> = pages
            .into_iter()
            .map(|page| match keeps_state(page.number() * PAGE_TOKENS + page.n_tokens()) {
                true => (page.clone(), page.has_state()),
                false => (page.without_state(), false),
            })
            .collect();
        let task = &mut self.tasks[i];
        let guard = self.tree.insert(&task.salt, &task.tokens[..n_tokens], &pages);
        task.guard = guard.or(task.guard.take());
    }

    /// Takes a task's sequence away; what was computed stays in the tree.
    pub(super) fn put_down(&mut self, i: usize) {
        let Some(sequence) = self.tasks[i].sequence.take() else { return };
        if self.keeps_prefixes {
            self.take_in(i, sequence, self.tasks[i].n_computed, true);
        }
        let task = &mut self.tasks[i];
        task.guard = None;
        (task.n_computed, task.n_sealed, task.shares_last) = (0, 0, false);
        if self.engine.end(sequence).is_err() {
            unreachable!("the sequence of a task is the engine's");
        }
    }
}
