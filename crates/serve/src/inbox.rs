//! What handles and the thread have in common.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modelembed::Model;

use crate::status::{Limits, Status, Totals};
use crate::task::Task;

/// What handles and the thread have in common.
pub(crate) struct Shared {
    pub(crate) model: Arc<Model>,
    pub(crate) limits: Limits,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

/// What is waiting for the thread, and what it last told.
pub(crate) struct Inbox {
    /// Requests that it has not seen.
    pub(crate) new: VecDeque<Task>,
    pub(crate) next_id: u64,
    /// No new ones are taken; what is there at the deadline ends.
    pub(crate) drain: Option<Instant>,
    /// Everything ends.
    pub(crate) is_stopping: bool,
    /// The last handle is gone.
    pub(crate) is_alone: bool,
    /// Kept prefixes are to go.
    pub(crate) forgets: bool,
    /// Why nothing is computed any more.
    pub(crate) over: Option<String>,
    /// Whether the thread has given everything back.
    pub(crate) is_gone: bool,
    pub(crate) gauges: Gauges,
    /// Counted by handles.
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    #[cfg(feature = "faults")]
    pub(crate) panics: bool,
    /// Steps that are made before the thread waits to be told of more.
    #[cfg(feature = "faults")]
    pub(crate) steps_left: Option<usize>,
}

/// What the thread tells after each step.
#[derive(Clone, Debug)]
pub(crate) struct Gauges {
    pub(crate) queued: usize,
    pub(crate) prompts: usize,
    pub(crate) running: usize,
    pub(crate) pages_used: usize,
    pub(crate) pages_cached: usize,
    pub(crate) pages_total: usize,
    pub(crate) step: Duration,
    pub(crate) step_ended: Instant,
    /// How long an answer takes from its first slice of prompt to its end, about.
    pub(crate) answer_time: Option<Duration>,
    pub(crate) totals: Totals,
}

impl Gauges {
    pub(crate) fn new(pages_total: usize) -> Gauges {
        Gauges {
            queued: 0,
            prompts: 0,
            running: 0,
            pages_used: 0,
            pages_cached: 0,
            pages_total,
            step: Duration::ZERO,
            step_ended: Instant::now(),
            answer_time: None,
            totals: Totals::default(),
        }
    }
}

impl Shared {
    pub(crate) fn new(model: Arc<Model>, limits: Limits, pages_total: usize) -> Shared {
        let inbox = Inbox {
            new: VecDeque::new(),
            next_id: 0,
            drain: None,
            is_stopping: false,
            is_alone: false,
            forgets: false,
            over: None,
            is_gone: false,
            gauges: Gauges::new(pages_total),
            accepted: 0,
            refused: 0,
            #[cfg(feature = "faults")]
            panics: false,
            #[cfg(feature = "faults")]
            steps_left: None,
        };
        Shared { model, limits, inbox: Mutex::new(inbox), changed: Condvar::new() }
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Nothing that holds it leaves it half changed.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is in the inbox, and lets whoever waits look.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Inbox) -> T) -> T {
        let result = change(&mut self.inbox());
        self.changed.notify_all();
        result
    }

    /// Waits for a change.
    pub(crate) fn wait<'a>(&self, inbox: MutexGuard<'a, Inbox>) -> MutexGuard<'a, Inbox> {
        self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, but not for long.
    pub(crate) fn wait_a_while<'a>(&self, inbox: MutexGuard<'a, Inbox>, time: Duration) -> MutexGuard<'a, Inbox> {
        self.changed.wait_timeout(inbox, time).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Inbox {
    pub(crate) fn status(&self) -> Status {
        let Gauges { queued, prompts, running, pages_used, pages_cached, pages_total, .. } = self.gauges;
        Status {
            queued: queued + self.new.len(),
            prompts,
            running,
            pages_used,
            pages_cached,
            pages_total,
            step: self.gauges.step,
            since_step: self.gauges.step_ended.elapsed(),
            is_draining: self.drain.is_some(),
            stopped: self.over.clone(),
            totals: Totals { accepted: self.accepted, refused: self.refused, ..self.gauges.totals },
        }
    }
}
