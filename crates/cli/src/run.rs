//! One prompt, one answer.

use crate::interrupt::{self, Interrupt};
use crate::measure::{self, Speed};
use crate::progress::Waiting;
use crate::report::{self, RULE, Statistics, without_controls};
use crate::resolve::{Format, Setting, Talk};
use crate::session_file;
use crate::setup;
use crate::terminal::{Answer, Notes};
use anyhow::{Result, anyhow};
use modelembed::{Chat, Error, GenerateOptions, GenerateStats, StopReason, generate};
use modelembed_text::chat::ChatTemplate;
use serde_json::json;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

/// Answers the prompt: text as it comes, or one JSON object at the end.
pub fn run(setting: &Setting, talk: Talk) -> Result<ExitCode> {
    let notes = setting.notes();
    let interrupt = Interrupt::install();
    talk.session.as_deref().map_or(Ok(()), session_file::check_place)?;
    let (model, need) = setup::load_with_banner(setting, &talk, &interrupt)?;
    let template = setup::template(&model, &talk, notes)?;
    let progress = Arc::default();
    let mut session = setup::session(&model, setting, need, &interrupt, Some(&progress))?;
    let mut sampler = talk.sampling.sampler(&model, notes)?;
    let options = generate_options(&talk, template.as_ref());
    let prompt = talk.prompt.unwrap_or_default();
    if let Some(template) = template.as_ref().filter(|_| talk.system.is_some()) {
        setup::warn_of_system(template.takes_system(), notes);
    }

    notes.line(&format!("Prompt: {prompt}\n{RULE}"));
    let file = talk.session.as_deref();
    let raw_tokens = match template {
        Some(_) => Vec::new(),
        None => {
            let restored = file.map(|file| session_file::restore_text(&mut session, &mut sampler, file, notes));
            let pending = restored.transpose()?;
            session_file::tokens_behind(&session, pending.flatten(), &prompt)?
        }
    };
    if session.is_empty() {
        setup::warn_of_doubled_tokens(model.tokenizer(), &raw_tokens, notes);
    }
    let mut stream = Stream::new(setting.format, &interrupt);
    stream.label = Some((notes, "Response: "));
    stream.waiting = Some(Waiting::start(&model, &progress, notes));
    let timing;
    // Told once the answer is out.
    let mut saved = Ok(());
    let result = match template {
        Some(template) => {
            let mut chat = Chat::new(session, sampler, template, options);
            let has_system = talk.system.is_some();
            chat.set_system(talk.system);
            if let Some(file) = file {
                session_file::restore_chat(&mut chat, file, has_system, notes)?;
            }
            let turn = chat.send(&prompt, |piece| stream.piece(piece));
            timing = chat.session().timing().copied();
            if let (Some(file), Ok(_)) = (file, &turn) {
                saved = session_file::save_chat(&chat, file, notes);
            }
            turn.map(|turn| turn.stats)
        }
        None => {
            let result = generate(&mut session, &mut sampler, &raw_tokens, &options, |piece| stream.piece(piece));
            timing = session.timing().copied();
            if let (Some(file), Ok(_)) = (file, &result) {
                saved = session_file::save_text(&session, file, notes);
            }
            result
        }
    };
    if result.is_ok() {
        stream.begin();
    }
    let response = stream.end()?;
    let (changed, unchanged) = setup::check_files(&model, notes);
    let (stats, code) = match result {
        Ok(stats) => (Some(stats), if interrupt.is_set() { interrupt::EXIT_CODE } else { 0 }),
        Err(Error::Cancelled) => (None, interrupt::EXIT_CODE),
        // What failed may have failed for it.
        Err(error) => {
            return Err(unchanged.err().map_or_else(|| anyhow!(report::explained(&error, &model)), Into::into));
        }
    };
    if setting.quiet && setting.format == Format::Text {
        // Nobody sees the statistics, and to ask the system for them takes as long as a token.
        saved?;
        return Ok(unchanged.map(|()| ExitCode::from(code))?);
    }
    let mut speed = Speed::default();
    stats.iter().for_each(|stats| speed.add(stats));
    let statistics = Statistics { timing, ..measure::statistics(&model, &speed) };
    let stop = stop_words(stats.as_ref(), &interrupt);
    if stop == "context" {
        notes.line(&format!(
            "\nThe context of {} tokens is full: the answer ends here (-ctx N makes it larger).",
            setting.ctx_of(&model)
        ));
    }
    notes.line(&format!("\n{}", statistics.text().trim_end()));
    if setting.format == Format::Json {
        let object = json!({
            "model": setting.model.to_string_lossy(),
            "prompt": prompt,
            "response": response,
            "stop": stop,
            "changed": changed,
            "statistics": statistics.json(),
        });
        Answer::new().piece(&without_controls(&format!("{object}\n")))?;
    }
    saved?;
    Ok(unchanged.map(|()| ExitCode::from(code))?)
}

/// When an answer ends. A built-in template knows texts that end one in a vocabulary that lacks the
/// template's end token.
pub fn generate_options(talk: &Talk, template: Option<&ChatTemplate>) -> GenerateOptions {
    GenerateOptions::default()
        .max_tokens(talk.max_tokens.unwrap_or(usize::MAX))
        .stop(template.iter().flat_map(|template| template.stop()).chain(&talk.stop).cloned())
        .lookup_tokens(talk.lookup_tokens)
}

/// Why an answer ended, in a word: `end`, `length`, `context` or `interrupted`.
pub fn stop_words(stats: Option<&GenerateStats>, interrupt: &Interrupt) -> &'static str {
    match stats.and_then(|stats| stats.stop) {
        _ if interrupt.is_set() => "interrupted",
        Some(StopReason::MaxTokens) => "length",
        Some(StopReason::ContextFull) => "context",
        Some(StopReason::Caller) | None => "interrupted",
        Some(_) => "end",
    }
}

/// Takes the pieces of an answer: shows them as they come (text) or keeps them (JSON).
pub struct Stream<'a> {
    answer: Option<Answer>,
    text: String,
    failure: Option<std::io::Error>,
    interrupt: &'a Interrupt,
    /// Shown until there is something else to show.
    pub waiting: Option<Waiting>,
    /// What stands before the answer's first piece, among the notes.
    pub label: Option<(Notes, &'static str)>,
}

impl<'a> Stream<'a> {
    pub fn new(format: Format, interrupt: &'a Interrupt) -> Stream<'a> {
        let answer = (format == Format::Text).then(Answer::new);
        Stream { answer, text: String::new(), failure: None, interrupt, waiting: None, label: None }
    }

    /// Takes a piece; asks to stop after Ctrl-C or when nobody reads any more.
    pub fn piece(&mut self, piece: &str) -> ControlFlow<()> {
        self.begin();
        match &mut self.answer {
            None => self.text.push_str(piece),
            Some(answer) => {
                if let Err(error) = answer.piece(piece) {
                    self.failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
        }
        if self.interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The answer begins, if only to be an empty one.
    pub fn begin(&mut self) {
        self.waiting = None;
        if let Some((notes, label)) = self.label.take() {
            notes.text(label);
        }
    }

    /// Ends the line; returns the text that was kept.
    pub fn end(mut self) -> Result<String> {
        self.waiting = None;
        if let Some(error) = self.failure.take() {
            return Err(error.into());
        }
        if let Some(answer) = &mut self.answer {
            answer.end_line()?;
        }
        Ok(self.text)
    }
}
