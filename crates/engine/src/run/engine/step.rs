//! One evaluation of a batch.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use modelembed_spec::Pooling;
use modelembed_text::TokenId;

use super::{Batch, Engine, SequenceId, must_hold_a_number};
use crate::cpu::Pass;
use crate::cpu::peaks::Peaks;
use crate::error::{Error, Result};
use crate::run::sampler::Sampler;
use crate::run::timing::Phase;

/// What one evaluation does for one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The sequence; in a batch each can be once.
    pub sequence: SequenceId,
    /// What is appended to it, at least one token.
    pub tokens: &'a [TokenId],
    /// Which logits are wanted.
    pub wants: Wants,
    /// How many of the last tokens are drafts: they may still be taken back, and are not shared
    /// with other sequences until something is appended behind them.
    pub draft_tokens: usize,
    /// When this is set, the sequence stays as it was.
    pub cancel: Option<&'a AtomicBool>,
}

impl<'a> Run<'a> {
    /// Appends tokens and wants the logits of what follows the last one.
    pub fn new(sequence: SequenceId, tokens: &'a [TokenId]) -> Run<'a> {
        Run { sequence, tokens, wants: Wants::Last, draft_tokens: 0, cancel: None }
    }

    /// The same with other wishes.
    #[must_use]
    pub fn wants(mut self, wants: Wants) -> Run<'a> {
        self.wants = wants;
        self
    }
}

/// Which logits are wanted of some tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// None.
    Nothing,
    /// Those of what follows the last token.
    Last,
    /// Those of what follows each token.
    All,
    /// No logits, but one vector of the tokens of this run: [`Engine::pooled`] has it afterwards.
    Pooled(Pooling),
}

/// Logits of what follows one token.
pub struct Row<'a> {
    /// Which of the batch's runs the token is of.
    pub run: usize,
    /// Which of its tokens.
    pub token: usize,
    /// (n_vocab), free to be changed.
    pub logits: &'a mut [f32],
    /// The peaks of the logits, where they are known.
    peaks: Option<Peaks<'a>>,
}

impl Row<'_> {
    /// Chooses what follows, as [`Sampler::sample`] does. Where the logits were computed on the CPU
    /// it looks only into the stretches of the vocabulary that hold a candidate; they must be as
    /// they were then.
    pub fn sample(&mut self, sampler: &mut Sampler) -> TokenId {
        match &mut self.peaks {
            Some(Peaks { stretch, values }) => {
                sampler.sample_with_peaks(self.logits, Peaks { stretch: *stretch, values })
            }
            None => sampler.sample(self.logits),
        }
    }
}

/// Who is told of rows.
enum Told<'a> {
    /// Of one after the other, in their order.
    InTurn(&'a mut dyn FnMut(Row<'_>)),
    /// Of several at the same time.
    AtOnce(&'a (dyn Fn(Row<'_>) + Sync)),
}

/// A row whose logits are wanted.
#[derive(Clone, Copy)]
pub(super) struct WantedRow {
    col: usize,
    run: usize,
    token: usize,
    /// Tokens of the context up to this one.
    n_tokens: usize,
}

impl WantedRow {
    fn with<'a>(&self, logits: &'a mut [f32], peaks: Option<Peaks<'a>>) -> Row<'a> {
        Row { run: self.run, token: self.token, logits, peaks }
    }
}

impl Engine {
    /// Evaluates a batch: appends each run's tokens to its sequence and calls `each` with the
    /// logits that are wanted, in the order of runs and tokens. They are no longer there
    /// afterwards.
    ///
    /// A run that was cancelled is computed with the others and thrown away: its sequence is as it
    /// was, and [`was_cancelled`](Self::was_cancelled) tells. When all runs are cancelled, the step
    /// ends early.
    ///
    /// # Errors
    /// Before anything is computed: no such sequence, or one that comes twice, no tokens, an id
    /// outside the vocabulary, a full context, no memory left for keys and values. While it is
    /// computed: cancellation of all, a failed read, logits of which none is a number. Every
    /// sequence then has the tokens that it had; what `each` was told is void.
    /// [`failed_run`](Self::failed_run) tells for which run it was, where it was for one.
    ///
    /// # Panics
    /// When `each` evaluates something with the same runtime: the step holds it.
    pub fn step(&mut self, runs: &[Run<'_>], each: &mut dyn FnMut(Row<'_>)) -> Result<()> {
        self.step_telling(runs, Told::InTurn(each))
    }

    /// The same with a function that workers call at the same time for several rows, in any order:
    /// where choosing a token goes over a whole vocabulary, it takes as long for one sequence as
    /// computing it does.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    ///
    /// # Panics
    /// As there.
    pub fn step_shared(&mut self, runs: &[Run<'_>], each: &(dyn Fn(Row<'_>) + Sync)) -> Result<()> {
        self.step_telling(runs, Told::AtOnce(each))
    }

    fn step_telling(&mut self, runs: &[Run<'_>], mut told: Told<'_>) -> Result<()> {
        let n_vocab = self.model.n_vocab();
        let phase = if runs.iter().any(|run| run.tokens.len() > run.draft_tokens.saturating_add(1)) {
            Phase::Prompt
        } else {
            Phase::Decode
        };
        let mut wanted = std::mem::take(&mut self.batch.wanted);
        let mut failed = None;
        let n_embd = self.model.spec().n_embd;
        let of_run = |run: &Run<'_>| if let Wants::Pooled(_) = run.wants { vec![0.0; n_embd] } else { Vec::new() };
        let has_pooled = runs.iter().any(|run| matches!(run.wants, Wants::Pooled(_)));
        let mut pooled: Vec<Vec<f64>> = if has_pooled { runs.iter().map(of_run).collect() } else { Vec::new() };
        let result = self.run_batch(runs, phase, &mut |pass, _| {
            wanted.clear();
            for active in &pass.active.runs {
                let run = &runs[active.index];
                let rows = active.cols.clone().map(|col| {
                    let (run, token) = (active.index, active.offset + col - active.cols.start);
                    WantedRow { col, run, token, n_tokens: active.position(col) + 1 }
                });
                match run.wants {
                    _ if is_set(run.cancel) => {}
                    Wants::Nothing => {}
                    Wants::All | Wants::Pooled(Pooling::Mean) => wanted.extend(rows),
                    Wants::Pooled(Pooling::First) => wanted.extend(rows.filter(|row| row.token == 0)),
                    Wants::Last | Wants::Pooled(_) => {
                        wanted.extend(rows.filter(|row| row.token + 1 == run.tokens.len()))
                    }
                }
            }
            let has_peaks = pass.gpu.as_deref().is_none_or(|gpu| !gpu.has_head());
            let is_pooled = |row: &WantedRow| matches!(runs[row.run].wants, Wants::Pooled(_));
            for rows in wanted.chunks(pass.head_cols()) {
                let cols = rows.iter().map(|row| row.col);
                if rows.iter().all(is_pooled) {
                    pass.hidden(cols);
                } else {
                    pass.logits(cols)?;
                }
                for (i, row) in rows.iter().enumerate().filter(|(_, row)| is_pooled(row)) {
                    let n = if runs[row.run].wants == Wants::Pooled(Pooling::Mean) {
                        runs[row.run].tokens.len()
                    } else {
                        1
                    };
                    for (sum, x) in pooled[row.run].iter_mut().zip(pass.normed(i)) {
                        *sum += f64::from(x) / n as f64;
                    }
                }
                for (i, row) in rows.iter().enumerate().filter(|(_, row)| !is_pooled(row)) {
                    let (logits, _) = pass.s.logits_of(i);
                    must_hold_a_number(logits, n_vocab, row.n_tokens).inspect_err(|_| failed = Some(row.run))?;
                }
                match &mut told {
                    Told::InTurn(each) => {
                        for (i, row) in rows.iter().enumerate().filter(|(_, row)| !is_pooled(row)) {
                            let (logits, peaks) = pass.s.logits_of(i);
                            each(row.with(logits, Some(peaks).filter(|_| has_peaks)));
                        }
                    }
                    Told::AtOnce(each) => {
                        let (logits, peaks, stretch) = pass.s.logits_of_first(rows.len());
                        pass.model.pool().run(rows.len(), 1, (logits, peaks), |i, (logits, values), _| {
                            let row = &rows[i.start];
                            if !is_pooled(row) {
                                let peaks = Some(Peaks { stretch, values }).filter(|_| has_peaks);
                                each(row.with(logits, peaks));
                            }
                        });
                    }
                }
            }
            Ok(())
        });
        self.batch.wanted = wanted;
        self.batch.failed = self.batch.failed.or(failed);
        result?;
        let vectors = pooled.iter().map(|sums| sums.iter().map(|&sum| sum as f32).collect());
        self.batch.pooled.extend(vectors);
        Ok(())
    }

    /// The vector of a run of the last step, by its index, which wanted one: (n_embd), the residual
    /// stream behind the last norm, pooled over the run's tokens, not normalised.
    pub fn pooled(&self, run: usize) -> Option<&[f32]> {
        self.batch.pooled.get(run).map(Vec::as_slice).filter(|vector| !vector.is_empty())
    }

    /// The run, by its index, that the last step was refused or failed for; `None` where it did
    /// not, or for none of them.
    pub fn failed_run(&self) -> Option<usize> {
        self.batch.failed
    }

    /// Whether a run of the last step, by its index, was cancelled.
    pub fn was_cancelled(&self, run: usize) -> bool {
        self.batch.cancelled.get(run).copied().unwrap_or(false)
    }

    /// Runs the layers over a batch, chunk by chunk, and calls `after_chunk` while a chunk's
    /// residual stream is there, with whether it is the last.
    pub(crate) fn run_batch(
        &mut self,
        runs: &[Run<'_>],
        phase: Phase,
        after_chunk: &mut dyn FnMut(&mut Pass<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        self.batch.cancelled.clear();
        self.batch.pooled.clear();
        self.batch.failed = None;
        self.check(runs)?;
        let result =
            self.with_pages(|engine| engine.take_pages(runs)).and_then(|()| self.compute(runs, phase, after_chunk));
        for run in runs {
            let is_cancelled = is_set(run.cancel);
            let (store, sequence) = self.sequence_mut(run.sequence)?;
            if result.is_ok() && !is_cancelled {
                sequence.tables.records.commit(sequence.tokens.len() + run.tokens.len());
                sequence.tokens.extend_from_slice(run.tokens);
                sequence.n_drafts = run.draft_tokens.min(run.tokens.len());
                store.release_unseen(&mut sequence.tables, sequence.tokens.len() - sequence.n_drafts, false);
            } else {
                store.release(&mut sequence.tables, sequence.tokens.len());
            }
            self.batch.cancelled.push(is_cancelled);
        }
        self.model.prefetch_experts();
        match result {
            Ok(()) if self.batch.cancelled.iter().all(|&c| c) => Err(Error::Cancelled),
            result => result,
        }
    }

    /// Refuses what cannot be evaluated.
    fn check(&mut self, runs: &[Run<'_>]) -> Result<()> {
        let n_vocab = self.model.n_vocab();
        if runs.is_empty() {
            return Err(Error::NoTokens);
        }
        for (i, run) in runs.iter().enumerate() {
            self.batch.failed = Some(i);
            let sequence = self.sequence(run.sequence)?;
            if runs[..i].iter().any(|other| other.sequence == run.sequence) {
                return Err(Error::SequenceTwice { run: i });
            }
            if let Wants::Pooled(pooling) = run.wants {
                self.refuse_gpu("a pooled vector")?;
                if matches!(pooling, Pooling::None | Pooling::Rank) {
                    return Err(Error::InvalidOption {
                        option: "pooling",
                        seen: format!("{pooling:?}"),
                        wanted: "Mean, First or Last".into(),
                    });
                }
            }
            if run.tokens.is_empty() {
                return Err(Error::NoTokens);
            }
            if let Some(id) = run.tokens.iter().find(|id| id.0 as usize >= n_vocab) {
                return Err(Error::TokenOutOfRange { id: id.0, n_vocab });
            }
            let (used, capacity) = (sequence.tokens.len(), self.ctx_tokens);
            if run.tokens.len() > capacity - used {
                return Err(Error::ContextFull { used, wanted: run.tokens.len(), capacity });
            }
        }
        self.batch.failed = None;
        Ok(())
    }

    fn take_pages(&mut self, runs: &[Run<'_>]) -> Result<()> {
        for (i, run) in runs.iter().enumerate() {
            self.batch.failed = Some(i);
            let (store, sequence) = self.sequence_mut(run.sequence)?;
            store.prepare(&mut sequence.tables, sequence.tokens.len(), run.tokens.len())?;
        }
        self.batch.failed = None;
        Ok(())
    }

    fn compute(
        &mut self,
        runs: &[Run<'_>],
        phase: Phase,
        after_chunk: &mut dyn FnMut(&mut Pass<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        let Engine { model, store, slots, scratch, gpu, clock, progress, ctx_tokens, batch, .. } = self;
        let Batch { active, tokens, .. } = batch;
        let _turn = model.runtime().turn();
        model.residency().follow_memory();
        let n_all: usize = runs.iter().map(|run| run.tokens.len()).sum();
        clock.start(phase, n_all, || model.pool().waited());
        let progress = progress.as_deref();
        let n_parts = model.cpu_share().layer_segments(model.program()).len().max(1);
        if let Some(progress) = progress {
            progress.start(n_all);
        }
        let (mut rest, mut offset, mut n_done) = (0..runs.len(), 0, 0);
        while !rest.is_empty() {
            tokens.clear();
            while !rest.is_empty() && tokens.len() < scratch.max_cols {
                let run = &runs[rest.start];
                let n = (run.tokens.len() - offset).min(scratch.max_cols - tokens.len());
                if let Some(sequence) = &mut slots[run.sequence.slot] {
                    let pos = sequence.tokens.len() + offset;
                    active.add(rest.start, std::mem::take(&mut sequence.tables), pos, offset, n);
                }
                tokens.extend_from_slice(&run.tokens[offset..offset + n]);
                offset += n;
                if offset == run.tokens.len() {
                    (rest.start, offset) = (rest.start + 1, 0);
                }
            }
            let n = tokens.len();
            // Every part asks when it begins, and again where it waits for its weights.
            let n_asked = Cell::new(0);
            let is_cancelled = || {
                if let Some(progress) = progress {
                    progress.reach(n_done + n * n_asked.get() / n_parts);
                    n_asked.set(n_parts.min(n_asked.get() + 1));
                }
                runs.iter().all(|run| is_set(run.cancel))
            };
            let ctx_tokens = *ctx_tokens;
            let mut pass = Pass { model, store, active, s: scratch, gpu: gpu.as_mut(), clock, ctx_tokens, n };
            let result = pass.layers(tokens, &is_cancelled).and_then(|()| after_chunk(&mut pass, rest.is_empty()));
            active.end(|index, tables| {
                if let Some(sequence) = &mut slots[runs[index].sequence.slot] {
                    sequence.tables = tables;
                }
            });
            result?;
            n_done += n;
        }
        if let Some(progress) = progress {
            progress.reach(n_all);
        }
        Ok(())
    }
}

fn is_set(flag: Option<&AtomicBool>) -> bool {
    flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
}
