//! One step: computed, and what follows from it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use modelembed::{Error, Run, SequenceId, TokenId};

use super::Scheduler;
use super::plan::Slice;
use crate::answer::EndReason;
use crate::task::Task;
use crate::voice::Chosen;

impl Scheduler {
    /// Computes what was planned.
    pub(super) fn step(&mut self, plan: &[Slice]) {
        // Before anybody learns of it.
        #[cfg(feature = "faults")]
        self.shared.change(|inbox| inbox.steps_left = inbox.steps_left.map(|n| n.saturating_sub(1)));
        let start = Instant::now();
        let rows: Vec<TokenId> =
            plan.iter().flat_map(|slice| &self.tasks[slice.task].tokens[slice.first..][..slice.n]).copied().collect();
        let mut rest = &rows[..];
        let runs: Vec<Run<'_>> = plan
            .iter()
            .map(|slice| {
                let (tokens, others) = rest.split_at(slice.n);
                rest = others;
                Run::new(self.sequence_of(slice), tokens).wants(slice.wants)
            })
            .collect();
        // Tokens are chosen by all workers, each for another task.
        let mut tasks: Vec<(usize, Mutex<&mut Task>)> = Vec::with_capacity(plan.len());
        for (i, task) in self.tasks.iter_mut().enumerate() {
            let run = plan.iter().position(|slice| slice.task == i);
            tasks.extend(run.map(|run| (run, Mutex::new(task))));
        }
        tasks.sort_by_key(|(run, _)| *run);
        let result = self.engine.step_shared(&runs, &|mut row| {
            let (slice, (_, task)) = (&plan[row.run], &tasks[row.run]);
            let lock = || task.lock().unwrap_or_else(PoisonError::into_inner);
            let at = slice.first + row.token + 1;
            let mut task = lock();
            if let Some(&id) = task.tokens.get(at) {
                // Rows of a prompt are of one task, and many.
                let n = task.voice.prompt_logprobs.unwrap_or(0);
                drop(task);
                let judged = Chosen::judged(row.logits, (at, id), n);
                lock().judged.push(judged);
            } else if task.voice.max_tokens() > 0 && task.chosen.as_ref().is_none_or(|chosen| chosen.at != at) {
                task.chosen = Some(task.voice.choose(&mut row, at));
            }
        });
        match result {
            Ok(()) => self.succeed(plan, start),
            Err(error) => self.fail(plan, &error),
        }
    }

    fn sequence_of(&self, slice: &Slice) -> SequenceId {
        self.tasks[slice.task].sequence.unwrap_or_else(|| unreachable!("what is planned has a sequence"))
    }

    /// Every slice was computed.
    fn succeed(&mut self, plan: &[Slice], start: Instant) {
        let took = start.elapsed();
        let (answers, prompts): (Vec<Slice>, Vec<Slice>) = plan.iter().partition(|slice| slice.is_answer);
        let n_rows: usize = prompts.iter().map(|slice| slice.n).sum();
        let longest = prompts.iter().max_by_key(|slice| slice.n).map_or(0, |slice| slice.first + slice.n / 2);
        self.pace.learn(took, answers.len(), n_rows, longest);
        let totals = &mut self.gauges.totals;
        totals.steps += 1;
        totals.computed_tokens += n_rows as u64;
        (self.gauges.step, self.gauges.step_ended) = (took, Instant::now());

        let mut ended = Vec::new();
        for slice in plan {
            let task = &mut self.tasks[slice.task];
            task.n_computed += slice.n;
            task.shares_last = false;
            self.keep(slice.task);
            if let Err(reason) = self.tell(slice.task) {
                ended.push((slice.task, reason));
            }
        }
        self.leave_all(ended);
    }

    /// Tells a client what came of a slice. An error says why the answer ends.
    fn tell(&mut self, i: usize) -> Result<(), EndReason> {
        let task = &mut self.tasks[i];
        let mut judged = std::mem::take(&mut task.judged);
        judged.sort_by_key(|token| token.at);
        if task.voice.prompt_logprobs.is_some() && !task.told_prompt {
            // Nothing stands before the first one.
            let first = Chosen { at: 0, id: task.tokens[0], logprob: None, top: Vec::new() };
            let n_told = task.n_told;
            for token in std::iter::once(first).chain(judged).filter(|token| token.at >= n_told) {
                task.n_told = token.at + 1;
                task.voice.tell_prompt_token(token)?;
            }
        }
        if task.n_left() > 0 {
            return Ok(());
        }
        if !task.told_prompt {
            task.told_prompt = true;
            task.voice.tell_prompt()?;
        }
        let Some(chosen) = task.chosen.take() else { return Err(EndReason::Length) };
        task.tokens.push(chosen.id);
        self.gauges.totals.completion_tokens += 1;
        task.voice.say(chosen)
    }

    /// Nothing was computed.
    fn fail(&mut self, plan: &[Slice], error: &Error) {
        self.gauges.step_ended = Instant::now();
        let failed = self.engine.failed_run();
        plan.iter().for_each(|slice| self.tasks[slice.task].judged.clear());
        if let Error::OutOfPages { .. } | Error::NoFreePage { .. } = error
            && (self.evict() || self.somebody_gives_way())
        {
            return;
        }
        let reason = || EndReason::Failed(error.to_string());
        // What fails for none of them fails for all.
        let of_plan = plan.iter().enumerate().filter(|(run, _)| failed.is_none_or(|failed| failed == *run));
        self.leave_all(of_plan.map(|(_, slice)| (slice.task, reason())).collect());
    }

    /// Ends some answers.
    fn leave_all(&mut self, mut ended: Vec<(usize, EndReason)>) {
        // From the last one on: others keep their places.
        ended.sort_by_key(|&(i, _)| std::cmp::Reverse(i));
        for (i, reason) in ended {
            self.leave(i, reason);
        }
    }
}
