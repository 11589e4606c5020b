//! From settings to a loaded model, a sampler and a template, with the banner and warnings that belong to it.

use crate::interrupt::Interrupt;
use crate::report;
use crate::resolve::{Mode, Sampling, Setting, Talk, Template, UsageError};
use crate::terminal::Notes;
use anyhow::Result;
use modelembed::storage::Change;
use modelembed::text::chat::{self, ChatTemplate, Source, TemplateError, Wanted};
use modelembed::{
    GpuLimits, Isa, LoadMode, LoadOptions, Model, Sampler, SamplerOptions, Session, SessionOptions, Verdict,
};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

impl Setting {
    /// Where notes go.
    pub fn notes(&self) -> Notes {
        Notes { quiet: self.quiet, verbose: self.verbose }
    }

    /// How the model is loaded, but for the instruction set, which may not exist.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            mode: self.mode.load_mode(),
            threads: self.threads,
            isa: None,
            exact: self.exact,
            ram_budget: self.ram_budget,
            ctx_tokens: Some(self.ctx_tokens),
            cache_type: self.cache_type,
            lock: self.lock,
            stream_reader: self.stream_reader,
            gpu_layers: self.gpu_layers.unwrap_or_default(),
            gpu_device: self.gpu_device.clone(),
            gpu_limits: GpuLimits::default(),
        }
    }
}

impl Mode {
    /// The engine's word for it.
    pub fn load_mode(self) -> LoadMode {
        match self {
            Mode::Map => LoadMode::Map,
            Mode::Buffer => LoadMode::Buffer,
            Mode::File => LoadMode::File,
        }
    }
}

fn isa_of(name: &str) -> Result<Isa, UsageError> {
    Isa::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = modelembed::Kernels::all().map(|kernels| kernels.isa().name()).collect();
        UsageError(format!("-isa {name}: no such instruction set; this CPU has {}", known.join(", ")))
    })
}

/// Says that a device which was named has nothing to do.
pub fn warn_of_unused_device(setting: &Setting) {
    if setting.gpu_device.is_some() && setting.gpu_layers.is_none() {
        setting.notes().warning(
            "-device has no effect without -ngl, which says how many layers go to the GPU: all, auto or a number",
        );
    }
}

/// Loads the model without a word but progress and warnings. Ctrl-C ends it.
pub fn load(setting: &Setting, interrupt: &Interrupt) -> Result<Arc<Model>> {
    let notes = setting.notes();
    if let Some(note) = &setting.model_note {
        notes.line(note);
    }
    warn_of_unused_device(setting);
    let isa = setting.isa.as_deref().map(isa_of).transpose()?;
    let options = LoadOptions { isa, ..setting.load_options() };
    let mut bar = ProgressBar::new(notes);
    let loaded = Model::load(&setting.model, &options, &mut |progress| {
        bar.show(progress.done_bytes, progress.total_bytes);
        if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.end();
    let model = loaded?;
    for warning in &model.load_stats().warnings {
        notes.warning(warning);
    }
    let plan = format!("Plan: {}", model.plan());
    match model.plan().verdict {
        Verdict::Streams => notes.line(&plan),
        Verdict::Impossible => notes.warning(&plan),
        Verdict::Fits | Verdict::Unplanned => notes.detail(&plan),
    }
    if let Some(note) = model.plan_note() {
        notes.detail(note);
    }
    notes.detail(&format!("kernels: {}, threads: {}", model.kernels().isa().name(), model.threads()));
    Ok(model)
}

/// Loads the model between the banner and the line that says that it is there.
pub fn load_with_banner(setting: &Setting, interrupt: &Interrupt) -> Result<Arc<Model>> {
    let notes = setting.notes();
    notes.line(&report::banner(
        &setting.model,
        setting.ctx_tokens,
        setting.gpu_layers.unwrap_or_default(),
        setting.mode,
    ));
    let model = load(setting, interrupt)?;
    let address = model.storages().next().and_then(|storage| storage.base_address());
    if let Some(placement) = model.gpu_placement() {
        notes.line(&report::placed(placement, &model));
    }
    notes.line(&report::loaded(setting.mode, address, model.n_bytes()));
    Ok(model)
}

/// Tells what became of the model's files since they were mapped, each change once.
#[derive(Default)]
pub struct Watch {
    told: Vec<(PathBuf, Change)>,
}

impl Watch {
    pub fn tell(&mut self, model: &Model, notes: Notes) {
        for storage in model.storages() {
            let Some(change) = storage.changed() else { continue };
            let seen = (storage.path().to_owned(), change);
            if !self.told.contains(&seen) {
                notes.warning(&report::changed(storage.path(), change));
                self.told.push(seen);
            }
        }
    }
}

/// A context of `ctx_tokens`; Ctrl-C ends an evaluation in it.
pub fn session(model: &Arc<Model>, setting: &Setting, ctx_tokens: usize, interrupt: &Interrupt) -> Result<Session> {
    let trained = model.spec().ctx_train;
    if ctx_tokens > trained {
        let text = format!("the model was trained on {trained} tokens at most: answers get worse beyond them");
        if setting.ctx_is_explicit { setting.notes().warning(&text) } else { setting.notes().detail(&text) }
    }
    let options = SessionOptions {
        ctx_tokens: Some(ctx_tokens),
        cancel: Some(interrupt.flag()),
        cache_type: setting.cache_type,
        timing: setting.timing,
    };
    Ok(Session::new(model, options)?)
}

/// The sampler that the flags describe.
pub fn sampler(sampling: &Sampling) -> Result<Sampler> {
    Ok(Sampler::new(SamplerOptions {
        seed: sampling.seed,
        temp: sampling.temp,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repeat_penalty: sampling.repeat_penalty,
        ..Default::default()
    })?)
}

/// The chat template to use, or none for plain completion: with `-raw`, and for a model that carries none, unless a chat
/// (which cannot do without) or `-template` wants one.
pub fn template(model: &Model, talk: &Talk, notes: Notes) -> Result<Option<ChatTemplate>> {
    if talk.raw {
        return Ok(None);
    }
    let wanted = talk.template.as_ref().map(|template| match template {
        Template::Typed(text) => Wanted::from(text.as_str()),
        Template::File(path, text) => {
            if !chat::has_tag(text) {
                notes.warning(&format!(
                    "the chat template {path:?} holds no Jinja tag: it is the same text whatever is said"
                ));
            }
            Wanted::Source(text)
        }
    });
    let selection = chat::for_model(model.gguf(), model.tokenizer(), wanted).map_err(|error| match error {
        TemplateError::Unknown { .. } => anyhow::Error::new(UsageError(format!("-template: {error}"))),
        error => error.into(),
    })?;
    if let (Source::Missing(_), false) = (&selection.source, talk.interactive || talk.system.is_some()) {
        notes.warning("the model has no chat template (it may be a base model): the prompt's text is completed; -template NAME uses one");
        return Ok(None);
    }
    if let Some(warning) = &selection.warning {
        notes.warning(warning);
    }
    notes.detail(&format!("chat template: {:?}", selection.source));
    Ok(Some(selection.template))
}

/// Says where the system message goes that the template has no place for.
pub fn warn_of_system(takes_system: bool, notes: Notes) {
    if !takes_system {
        notes.warning("the chat template has no place for a system message: its text goes before the first question");
    }
}

/// Shows how far the model's pages are, on a terminal, until the first piece of the answer or until they are there. Reading from
/// a cache is over before anything is shown.
pub struct Waiting {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Waiting {
    pub fn start(model: &Arc<Model>, notes: Notes) -> Waiting {
        let stop = Arc::new(AtomicBool::new(false));
        let is_there = model.prefetch_progress().is_none_or(|p| p.done_bytes == p.total_bytes);
        if notes.quiet || is_there || !std::io::stderr().is_terminal() {
            return Waiting { stop, thread: None };
        }
        let (model, stopped) = (Arc::clone(model), Arc::clone(&stop));
        let show = move || {
            const STEP: Duration = Duration::from_millis(100);
            let mut is_shown = false;
            std::thread::park_timeout(2 * STEP);
            while let Some(p) = model.prefetch_progress().filter(|p| p.done_bytes < p.total_bytes) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (done, total) = (report::megabytes(p.done_bytes), report::megabytes(p.total_bytes));
                notes.redraw(&format!("  reading the model: {done} of {total}"));
                is_shown = true;
                std::thread::park_timeout(STEP);
            }
            if is_shown {
                notes.redraw("");
            }
        };
        Waiting { stop, thread: std::thread::Builder::new().name("progress".into()).spawn(show).ok() }
    }

    /// Takes the line away, before something else is written.
    pub fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            // It has nothing to say that would matter.
            let _ = thread.join();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

/// How far loading is, on a terminal only.
pub struct ProgressBar {
    shown_percent: Option<u64>,
    notes: Notes,
}

impl ProgressBar {
    pub fn new(notes: Notes) -> ProgressBar {
        let quiet = notes.quiet || !std::io::stderr().is_terminal();
        ProgressBar { shown_percent: None, notes: Notes { quiet, ..notes } }
    }

    pub fn show(&mut self, done_bytes: u64, total_bytes: u64) {
        let percent = (u128::from(done_bytes) * 100 / u128::from(total_bytes.max(1))) as u64;
        if self.shown_percent != Some(percent) {
            self.shown_percent = Some(percent);
            self.notes.redraw(&format!("  {percent}% of {}", report::megabytes(total_bytes)));
        }
    }

    pub fn end(&self) {
        if self.shown_percent.is_some() {
            self.notes.redraw("");
        }
    }
}
