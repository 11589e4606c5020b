//! The loop of the thread that computes.

mod keep;
mod plan;
mod step;

use std::sync::Arc;
use std::time::{Duration, Instant};

use modelembed::{Engine, SealedPage};

use crate::answer::EndReason;
use crate::inbox::{Gauges, Shared};
use crate::options::Options;
use crate::pace::Pace;
use crate::task::Task;
use crate::tree::Tree;

pub(crate) use keep::STATES_OF_SEQUENCE;

/// How long the thread waits where nothing can be computed: memory is with another engine.
const PATIENCE: Duration = Duration::from_millis(20);

/// What the thread has.
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    engine: Engine,
    tree: Tree<SealedPage>,
    pace: Pace,
    /// In the order in which they came.
    tasks: Vec<Task>,
    /// Tasks that went back to the queue while the step was planned, by their ids.
    barred: Vec<u64>,
    sequences: usize,
    keeps_prefixes: bool,
    /// How many pages the state of the model's recurrences is as large as, if it has some.
    state_pages: Option<usize>,
    start: Instant,
    gauges: Gauges,
}

impl Scheduler {
    pub(crate) fn new(shared: Arc<Shared>, engine: Engine, options: &Options) -> Scheduler {
        let has_states = !engine.model().program().records().is_empty();
        let state_pages = has_states.then(|| engine.page_use().of_state);
        // Layers on a GPU keep their keys and values there.
        let keeps_prefixes = options.keeps_prefixes && engine.model().gpu_placement().is_none();
        let gauges = Gauges::new(engine.page_use().total);
        Scheduler {
            shared,
            engine,
            tree: Tree::new(state_pages),
            pace: Pace::new(options.step, options.sequences),
            tasks: Vec::new(),
            barred: Vec::new(),
            sequences: options.sequences,
            keeps_prefixes,
            state_pages,
            start: Instant::now(),
            gauges,
        }
    }

    /// Computes until it is stopped, or nobody is left who could ask for something.
    pub(crate) fn run(&mut self) {
        while self.receive() {
            self.leave_cancelled();
            let plan = self.plan();
            let holds_pages = || self.tasks.iter().any(|task| task.sequence.is_some());
            debug_assert!(!plan.is_empty() || !holds_pages(), "who holds pages goes on");
            if !plan.is_empty() {
                self.step(&plan);
            }
            self.publish();
            if plan.is_empty() && !self.tasks.is_empty() {
                drop(self.shared.wait_a_while(self.shared.inbox(), PATIENCE));
            }
        }
    }

    /// Takes in what came; waits if there is nothing to do. False at the end.
    fn receive(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut inbox = shared.inbox();
        let (is_stopping, is_late) = loop {
            #[cfg(feature = "faults")]
            if inbox.panics {
                drop(inbox);
                panic!("a fault that was asked for");
            }
            let n_new = inbox.new.len();
            if self.tasks.is_empty() && n_new > 0 {
                // Nothing was to be done before: the time of the next step counts from here.
                self.gauges.step_ended = Instant::now();
                inbox.gauges.step_ended = self.gauges.step_ended;
            }
            self.tasks.extend(inbox.new.drain(..));
            inbox.gauges.queued += n_new;
            if std::mem::take(&mut inbox.forgets) {
                self.gauges.totals.evicted_pages += self.tree.clear() as u64;
                self.count();
                inbox.gauges = self.gauges.clone();
            }
            let is_late = inbox.drain.is_some_and(|deadline| Instant::now() >= deadline);
            if inbox.is_stopping || inbox.is_alone && self.tasks.is_empty() {
                break (true, false);
            }
            #[cfg(feature = "faults")]
            if inbox.steps_left == Some(0) {
                inbox = shared.wait(inbox);
                continue;
            }
            if !self.tasks.is_empty() {
                break (false, is_late);
            }
            inbox = shared.wait(inbox);
        };
        drop(inbox);
        if is_stopping || is_late {
            let why = if is_stopping { "serving was stopped" } else { "the time to finish was over" };
            for i in (0..self.tasks.len()).rev() {
                self.leave(i, EndReason::Failed(why.to_owned()));
            }
        }
        !is_stopping
    }

    /// Lets those go whose clients have gone.
    fn leave_cancelled(&mut self) {
        for i in (0..self.tasks.len()).rev() {
            if self.tasks[i].voice.is_cancelled() {
                self.leave(i, EndReason::Cancelled);
            }
        }
    }

    /// Ends an answer; what was computed for it stays.
    fn leave(&mut self, i: usize, reason: EndReason) {
        self.put_down(i);
        let mut task = self.tasks.remove(i);
        let totals = &mut self.gauges.totals;
        let count = match reason {
            EndReason::Cancelled => &mut totals.cancelled,
            EndReason::Slow => &mut totals.slow,
            EndReason::Failed(_) => &mut totals.failed,
            _ => &mut totals.finished,
        };
        *count += 1;
        if let Some(began) = task.began {
            let (took, before) = (began.elapsed(), self.gauges.answer_time);
            self.gauges.answer_time = Some(before.map_or(took, |before| before.mul_f64(0.8) + took.mul_f64(0.2)));
        }
        // Who reads the end finds it counted.
        self.publish();
        task.voice.end(reason);
    }

    /// Counts what there is.
    fn count(&mut self) {
        let pages = self.engine.page_use();
        let answering = self.tasks.iter().filter(|task| task.is_answering()).count();
        let seated = self.tasks.iter().filter(|task| task.sequence.is_some()).count();
        self.gauges.running = answering;
        self.gauges.prompts = seated - answering;
        self.gauges.queued = self.tasks.len() - seated;
        self.gauges.pages_used = pages.used;
        self.gauges.pages_cached = self.tree.n_pages();
    }

    /// Tells what there is.
    fn publish(&mut self) {
        self.count();
        self.shared.change(|inbox| inbox.gauges = self.gauges.clone());
    }
}

#[cfg(test)]
mod tests;
