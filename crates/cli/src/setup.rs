//! From settings to a loaded model, a sampler and a template, with the banner and warnings that
//! belong to it.

use crate::args::Reasoning;
use crate::interrupt::Interrupt;
use crate::progress::{Bar, Unit};
use crate::report;
use crate::resolve::{Mode, Setting, Talk, Template};
use crate::terminal::Notes;
use crate::usage::UsageError;
use anyhow::Result;
use modelembed::{
    Chat, ContextNeed, Engine, EngineOptions, EvalProgress, Isa, LoadMode, LoadOptions, Model, Session, SessionOptions,
    Verdict,
};
use modelembed_gguf::Gguf;
use modelembed_storage::Change;
use modelembed_text::chat::{self, ChatTemplate, Source, TemplateError, Wanted};
use modelembed_text::{EncodeOptions, TokenId, Tokenizer};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

impl Setting {
    /// Tokens that a context of this model may hold.
    pub fn ctx_of(&self, model: &Model) -> usize {
        self.ctx_tokens.unwrap_or(model.spec().ctx_train)
    }

    /// Where notes go.
    pub fn notes(&self) -> Notes {
        Notes { quiet: self.quiet, verbose: self.verbose }
    }

    /// How the model is loaded, but for the instruction set, which may not exist.
    pub fn load_options(&self) -> LoadOptions {
        let mut options = LoadOptions::default()
            .mode(self.mode.load_mode())
            .threads(self.threads)
            .exact(self.exact)
            .ram_budget(self.ram_budget)
            .ctx_tokens(self.ctx_tokens)
            .cache_type(self.cache_type)
            .lock(self.lock)
            .stream_reader(self.stream_reader)
            .gpu_layers(self.gpu_layers.unwrap_or_default());
        options.gpu_device = self.gpu_device.clone();
        options
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
    load_for(setting, &mut |_, _| None, interrupt)
}

/// What a session will need, from the header and the tokenizer.
type AskNeed<'a> = &'a mut dyn FnMut(&Gguf, &Tokenizer) -> Option<ContextNeed>;

/// The same, with memory planned for what a session will need.
pub fn load_for(setting: &Setting, need: AskNeed<'_>, interrupt: &Interrupt) -> Result<Arc<Model>> {
    let notes = setting.notes();
    if let Some(note) = &setting.model_note {
        notes.line(note);
    }
    warn_of_unused_device(setting);
    let isa = setting.isa.as_deref().map(isa_of).transpose()?;
    let options = setting.load_options().isa(isa);
    let mut bar = Bar::new("loading the model", Unit::Bytes, notes);
    let loaded = Model::load_for(&setting.model, &options, need, &mut |progress| {
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

/// What one answer needs: its prompt's tokens and those that may follow. Not known in a chat, nor
/// before a prompt that fails.
pub fn need(talk: &Talk, gguf: &Gguf, tokenizer: &Tokenizer) -> Option<ContextNeed> {
    // A session that goes on needs what it holds besides, and what comes after this run.
    let prompt = talk.prompt.as_deref().filter(|_| !talk.interactive && talk.session.is_none())?;
    let silent = Notes { quiet: true, verbose: false };
    let tokens = match template_for(gguf, tokenizer, talk, silent).ok()? {
        Some(template) => Chat::first_prompt(&template, tokenizer, talk.system.as_deref(), prompt).ok()?,
        None => tokenizer.encode(prompt.as_bytes(), WHOLE_TEXT).ok()?,
    };
    let n_answer = talk.max_tokens.unwrap_or(usize::MAX).max(1);
    Some(ContextNeed { ctx_tokens: tokens.len().saturating_add(n_answer), chunk_tokens: tokens.len() })
}

/// How a text is read that no template was made for.
pub const WHOLE_TEXT: EncodeOptions = EncodeOptions::PLAIN.add_special(true).parse_special(true);

/// Says that a text begins or ends with a token that the tokenizer adds, so that there are two of
/// them.
pub fn warn_of_doubled_tokens(tokenizer: &Tokenizer, tokens: &[TokenId], notes: Notes) {
    let name = |id: TokenId| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned();
    if let ([first, second, ..], true) = (tokens, tokenizer.adds_bos())
        && tokenizer.bos() == Some(*first)
        && first == second
    {
        notes.warning(&format!(
            "the text begins with {}, which this model's tokenizer adds as well: there are two of them now, leave yours out",
            name(*first)
        ));
    }
    if let ([.., second, last], true) = (tokens, tokenizer.adds_eos())
        && tokenizer.eos() == Some(*last)
        && last == second
    {
        notes.warning(&format!(
            "the text ends with {}, which this model's tokenizer adds as well: there are two of them now, leave yours out",
            name(*last)
        ));
    }
}

/// Loads the model, for what is to be said, between the banner and the line that says that it is
/// there; and what a session needs.
pub fn load_with_banner(
    setting: &Setting,
    talk: &Talk,
    interrupt: &Interrupt,
) -> Result<(Arc<Model>, Option<ContextNeed>)> {
    let notes = setting.notes();
    notes.line(&report::banner(
        &setting.model,
        setting.ctx_tokens,
        setting.gpu_layers.unwrap_or_default(),
        setting.mode,
    ));
    let mut needed = None;
    let mut ask = |gguf: &Gguf, tokenizer: &Tokenizer| {
        needed = need(talk, gguf, tokenizer);
        needed
    };
    let model = load_for(setting, &mut ask, interrupt)?;
    let address = model.storages().next().and_then(|storage| storage.base_address());
    if let Some(placement) = model.gpu_placement() {
        notes.line(&report::placed(placement, &model));
    }
    notes.line(&report::loaded(setting.mode, address, model.n_bytes()));
    if talk.session.is_some() && model.gpu_placement().is_some() {
        return Err(UsageError("-session needs all layers on the CPU: leave -ngl out".into()).into());
    }
    Ok((model, needed))
}

/// Tells what became of the model's files since they were mapped, each change once.
#[derive(Default)]
pub struct Watch {
    told: Vec<(PathBuf, Change)>,
}

impl Watch {
    /// What may have spoilt an answer is told whatever `-quiet` says.
    pub fn tell(&mut self, model: &Model, notes: Notes) {
        for storage in model.storages() {
            let Some(change) = storage.changed() else { continue };
            let seen = (storage.path().to_owned(), change);
            if !self.told.contains(&seen) {
                let notes = Notes { quiet: notes.quiet && !report::spoils(change), ..notes };
                notes.warning(&report::changed(storage.path(), change));
                self.told.push(seen);
            }
        }
    }

    /// The worst of what was told, in a word; null if nothing.
    pub fn worst(&self) -> Option<&'static str> {
        let worst = self.told.iter().max_by_key(|(_, change)| report::spoils(*change));
        worst.map(|(_, change)| report::change_name(*change))
    }
}

/// A file that was written to while its bytes were computed with: exit code 74.
#[derive(Debug)]
pub struct FileChanged(String);

impl std::fmt::Display for FileChanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FileChanged {}

/// At the end of a run: tells what became of the files, and what of it may have spoilt the answer
/// as an error.
pub fn check_files(model: &Model, notes: Notes) -> (Option<&'static str>, Result<(), FileChanged>) {
    let changes: Vec<_> =
        model.storages().filter_map(|storage| Some((storage.path().to_owned(), storage.changed()?))).collect();
    let (spoilt, harmless): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, change)| report::spoils(*change));
    for (path, change) in &harmless {
        notes.warning(&report::changed(path, *change));
    }
    let worst = spoilt.first().or(harmless.first()).map(|(_, change)| report::change_name(*change));
    let outcome = match spoilt.first() {
        Some((path, change)) => Err(FileChanged(report::changed(path, *change))),
        None => Ok(()),
    };
    (worst, outcome)
}

/// A context as it was asked for, or as small as what is needed; Ctrl-C ends an evaluation in it,
/// and `progress` is told how far each is.
pub fn session(
    model: &Arc<Model>,
    setting: &Setting,
    need: Option<ContextNeed>,
    interrupt: &Interrupt,
    progress: Option<&Arc<EvalProgress>>,
) -> Result<Session> {
    let trained = model.spec().ctx_train;
    let most = setting.ctx_of(model);
    if most > trained {
        let text = format!("the model was trained on {trained} tokens at most: answers get worse beyond them");
        if setting.ctx_is_explicit { setting.notes().warning(&text) } else { setting.notes().detail(&text) }
    }
    let options = SessionOptions::default()
        .ctx_tokens(need.map_or(most, |need| need.ctx_tokens.min(most)))
        .chunk_tokens(need.map(|need| need.chunk_tokens))
        .cancel(interrupt.flag())
        .progress(progress.cloned())
        .cache_type(setting.cache_type)
        .timing(setting.timing);
    Ok(model.session(options)?)
}

/// An engine of some sequences of `ctx_tokens` each.
pub fn engine(model: &Arc<Model>, setting: &Setting, sequences: usize, ctx_tokens: usize) -> Result<Engine> {
    let options = EngineOptions::default().sequences(sequences).ctx_tokens(ctx_tokens);
    Ok(model.engine(options.cache_type(setting.cache_type))?)
}

/// The chat template to use, or none for plain completion: with `-raw`, and for a model that
/// carries none, unless a chat (which cannot do without) or `-template` wants one.
pub fn template(model: &Model, talk: &Talk, notes: Notes) -> Result<Option<ChatTemplate>> {
    template_for(model.gguf(), model.tokenizer(), talk, notes)
}

fn template_for(gguf: &Gguf, tokenizer: &Tokenizer, talk: &Talk, notes: Notes) -> Result<Option<ChatTemplate>> {
    // Before anything is said about templates.
    tokenizer.require_vocabulary()?;
    if talk.raw {
        return Ok(None);
    }
    let selection = select(gguf, tokenizer, talk.template.as_ref(), notes)?;
    if let (Source::Missing(_), false) = (&selection.source, talk.interactive || talk.system.is_some()) {
        notes.warning("the model has no chat template (it may be a base model): the prompt's text is completed; -template NAME uses one");
        return Ok(None);
    }
    if let Some(warning) = &selection.warning {
        notes.warning(warning);
    }
    notes.detail(&format!("chat template: {:?}", selection.source));
    Ok(Some(match talk.reasoning {
        Reasoning::Off => without_reasoning(selection.template),
        Reasoning::Show | Reasoning::Hide => selection.template,
    }))
}

/// Asks a template for no reasoning, by the names that families have for it.
fn without_reasoning(template: ChatTemplate) -> ChatTemplate {
    // gpt-oss reasons in any case, and can be asked for little.
    let has_channels = template.reasoning_marks().is_some_and(|marks| marks.start.starts_with("<|channel|>"));
    let template = template.variable("enable_thinking", &false.into()).variable("thinking", &false.into());
    if has_channels { template.variable("reasoning_effort", &"low".into()) } else { template }
}

/// The chat template of a server, which cannot do without.
pub fn server_template(model: &Model, template: Option<&Template>, notes: Notes) -> Result<ChatTemplate> {
    model.tokenizer().require_vocabulary()?;
    let selection = select(model.gguf(), model.tokenizer(), template, notes)?;
    if let Some(warning) = &selection.warning {
        notes.warning(warning);
    }
    Ok(selection.template)
}

fn select(gguf: &Gguf, tokenizer: &Tokenizer, template: Option<&Template>, notes: Notes) -> Result<chat::Selection> {
    let wanted = template.map(|template| match template {
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
    chat::for_model(gguf, tokenizer, wanted).map_err(|error| match error {
        TemplateError::Unknown { .. } => anyhow::Error::new(UsageError(format!("-template: {error}"))),
        error => error.into(),
    })
}

/// Says where the system message goes that the template has no place for.
pub fn warn_of_system(takes_system: bool, notes: Notes) {
    if !takes_system {
        notes.warning("the chat template has no place for a system message: its text goes before the first question");
    }
}
