//! The way to the engine's thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use modelembed::{Engine, EngineOptions, Model, PageUse, Sampler, SealedPage};
use tokio::sync::mpsc;

use crate::answer::Line;
use crate::inbox::Shared;
use crate::scheduler::{STATES_OF_SEQUENCE, Scheduler};
use crate::task::Task;
use crate::voice::{Out, Voice};
use crate::{Answer, Limits, Options, Refused, Request, StartError, Status};

/// Most likely tokens that are told at most. Each costs a comparison for every token that is among
/// them for a while.
const MOST_LOGPROBS: usize = 256;

/// The way to the thread that computes: clones lead to the same one. It ends when it is
/// [stopped](Handle::stop), or with the last handle, once all answers have ended.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    life: Arc<Life>,
    events: usize,
}

/// What all handles together hold.
struct Life {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.shared.change(|inbox| inbox.is_alone = true);
    }
}

/// Starts the thread that computes.
///
/// # Errors
/// Options that the engine refuses, memory for keys and values that holds no page, or no thread.
pub fn start(model: Arc<Model>, options: Options) -> Result<Handle, StartError> {
    // Layers on a GPU have one sequence.
    let sequences = if model.gpu_placement().is_some() { options.sequences.min(1) } else { options.sequences };
    let options = options.sequences(sequences);
    let engine_options = EngineOptions::default()
        .sequences(options.sequences)
        .ctx_tokens(options.ctx_tokens)
        .kv_bytes(options.kv_bytes)
        .cache_type(options.cache_type);
    let engine = Engine::new(&model, &engine_options)?;
    let PageUse { total: pages_total, of_state, .. } = engine.page_use();
    // A page beside those of a context, and a state beside its own: what is shared is replaced
    // before it is given up.
    let spare = 1 + of_state * (STATES_OF_SEQUENCE + 1);
    let in_pages = pages_total.saturating_sub(spare).saturating_mul(SealedPage::TOKENS);
    if in_pages == 0 {
        let seen = options.kv_bytes.map_or("what the runtime has left".to_owned(), |bytes| bytes.to_string());
        let wanted = format!("memory for {} pages of {} positions", spare + 1, SealedPage::TOKENS);
        return Err(StartError::InvalidOption { option: "kv_bytes", seen, wanted });
    }
    for (option, value) in [("queue", options.queue), ("events", options.events)] {
        if value == 0 {
            let (seen, wanted) = ("0".to_owned(), "at least 1".to_owned());
            return Err(StartError::InvalidOption { option, seen, wanted });
        }
    }
    let limits = Limits {
        ctx_tokens: engine.ctx_tokens().min(in_pages),
        sequences: options.sequences,
        queue: options.queue,
        n_vocab: model.n_vocab(),
        page_tokens: SealedPage::TOKENS,
    };
    let shared = Arc::new(Shared::new(model, limits, pages_total));
    let (events, of_thread) = (options.events, Arc::clone(&shared));
    let mut scheduler = Scheduler::new(Arc::clone(&shared), engine, &options);
    let thread = std::thread::Builder::new().name("serve".to_owned()).spawn(move || {
        let ended = catch_unwind(AssertUnwindSafe(|| scheduler.run()));
        let why = match &ended {
            Ok(()) => "serving has ended".to_owned(),
            Err(panic) => format!("a mistake in the program ended what computes: {}", message(panic.as_ref())),
        };
        // Who waits in the inbox is told, too: tasks that are dropped tell their clients.
        let left = of_thread.change(|inbox| {
            inbox.over = Some(why);
            (inbox.gauges.queued, inbox.gauges.prompts, inbox.gauges.running) = (0, 0, 0);
            std::mem::take(&mut inbox.new)
        });
        drop(left);
        // What a panic left behind may not be whole.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(scheduler)));
        of_thread.change(|inbox| inbox.is_gone = true);
    });
    let thread = thread.map_err(StartError::Thread)?;
    let life = Arc::new(Life { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) });
    Ok(Handle { shared, life, events })
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it said nothing")
}

impl Handle {
    /// Hands a request in. Never waits for what is computed.
    ///
    /// # Errors
    /// What can be refused at once is.
    pub fn submit(&self, request: Request) -> Result<Answer, Refused> {
        let answer = self.try_submit(request);
        if answer.is_err() {
            self.shared.change(|inbox| inbox.refused += 1);
        }
        answer
    }

    fn try_submit(&self, request: Request) -> Result<Answer, Refused> {
        let limits = self.shared.limits;
        check(&request, &limits)?;
        let sampler = Sampler::new(request.sampling).map_err(|error| Refused::Invalid {
            field: error.option,
            seen: error.seen.to_string(),
            wanted: error.wanted.to_owned(),
        })?;
        // Before the work: who waits behind a full queue should cost nothing.
        self.room()?;
        let rows = request.prompt_logprobs.map_or(0, |_| request.prompt.len());
        let (sender, events) = mpsc::channel(self.events + rows);
        let line = Arc::new(Line::default());
        let out = Out::new(sender, Arc::clone(&line));
        let most_tokens = limits.ctx_tokens - request.prompt.len();
        let voice = Voice::new(&self.shared.model, &request, sampler, most_tokens, out);
        let task = Task::new(request, voice);
        self.shared.change(|inbox| {
            room(inbox, &limits)?;
            let id = inbox.next_id;
            inbox.next_id += 1;
            inbox.accepted += 1;
            inbox.new.push_back(Task { id, ..task });
            Ok(Answer { id, events, line })
        })
    }

    fn room(&self) -> Result<(), Refused> {
        room(&self.shared.inbox(), &self.shared.limits)
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.shared.model
    }

    /// What requests must keep to.
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// How it goes.
    pub fn status(&self) -> Status {
        self.shared.inbox().status()
    }

    /// Refuses new requests from now on, and ends those that are still there at `deadline`. Does
    /// not wait: [`status`](Self::status) tells how many are there, and [`stop`](Self::stop) waits.
    pub fn drain(&self, deadline: Instant) {
        self.shared.change(|inbox| inbox.drain = Some(deadline));
    }

    /// Ends all answers at the next step, and waits for the thread to end.
    pub fn stop(&self) {
        self.shared.change(|inbox| inbox.is_stopping = true);
        let thread = self.life.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Panics were caught within.
            let _ = thread.join();
        }
        // Who comes second waits as well.
        let mut inbox = self.shared.inbox();
        while !inbox.is_gone {
            inbox = self.shared.wait(inbox);
        }
    }

    /// Lets all prefixes go that no answer stands on, at the next step.
    pub fn forget_prefixes(&self) {
        self.shared.change(|inbox| inbox.forgets = true);
    }

    /// Lets the thread panic.
    #[cfg(feature = "faults")]
    #[doc(hidden)]
    pub fn panic(&self) {
        self.shared.change(|inbox| inbox.panics = true);
    }

    /// Lets the thread make so many steps and then wait; `None` lets it go on.
    #[cfg(feature = "faults")]
    #[doc(hidden)]
    pub fn allow_steps(&self, steps: Option<usize>) {
        self.shared.change(|inbox| inbox.steps_left = steps);
    }
}

/// Whether another request may wait.
fn room(inbox: &crate::inbox::Inbox, limits: &Limits) -> Result<(), Refused> {
    if let Some(why) = &inbox.over {
        return Err(Refused::Stopped { why: why.clone() });
    }
    if inbox.is_stopping || inbox.drain.is_some() {
        return Err(Refused::Draining);
    }
    let gauges = &inbox.gauges;
    let waiting = gauges.queued + inbox.new.len();
    // Those that begin with the next step do not wait.
    let beginning = limits.sequences.saturating_sub(gauges.prompts + gauges.running);
    let queued = waiting.saturating_sub(beginning);
    if queued < limits.queue {
        return Ok(());
    }
    // As many answers end in the time of one as are written together.
    let one = gauges.answer_time.unwrap_or(Duration::from_secs(1));
    let retry_after = one.mul_f64(queued as f64 / limits.sequences as f64 / 2.0);
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(60));
    Err(Refused::QueueFull { queued, retry_after: retry_after.clamp(least, most) })
}

/// Refuses what cannot be answered.
fn check(request: &Request, limits: &Limits) -> Result<(), Refused> {
    let invalid = |field, seen: String, wanted: String| Err(Refused::Invalid { field, seen, wanted });
    if request.prompt.is_empty() {
        return invalid("prompt", "empty".to_owned(), "at least one token".to_owned());
    }
    let biased = request.logit_bias.iter().map(|(id, _)| ("logit_bias", id));
    let ids = request.prompt.iter().map(|id| ("prompt", id));
    let ids = ids.chain(request.stop_tokens.iter().map(|id| ("stop_tokens", id))).chain(biased);
    for (field, id) in ids {
        if id.index() >= limits.n_vocab {
            return invalid(field, format!("token {}", id.0), format!("tokens below {}", limits.n_vocab));
        }
    }
    if let Some((id, bias)) = request.logit_bias.iter().find(|(_, bias)| bias.is_nan() || *bias == f32::INFINITY) {
        return invalid("logit_bias", format!("{bias} for token {}", id.0), "numbers or minus infinity".to_owned());
    }
    for (field, n) in [("logprobs", request.logprobs), ("prompt_logprobs", request.prompt_logprobs)] {
        if let Some(n) = n.filter(|&n| n > MOST_LOGPROBS) {
            return invalid(field, n.to_string(), format!("at most {MOST_LOGPROBS}"));
        }
    }
    if let Some(end) = request.turn_ends.iter().find(|&&end| end > request.prompt.len()) {
        return invalid("turn_ends", end.to_string(), format!("at most the prompt's {} tokens", request.prompt.len()));
    }
    let least = if request.max_tokens == Some(0) { 0 } else { 1 };
    let wanted = request.min_tokens.min(request.max_tokens.unwrap_or(usize::MAX)).max(least);
    let (prompt, limit) = (request.prompt.len(), limits.ctx_tokens);
    if prompt.checked_add(wanted).is_none_or(|all| all > limit) {
        return Err(Refused::TooLong { prompt, wanted, limit });
    }
    Ok(())
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}
