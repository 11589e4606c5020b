//! One prompt, one answer.

use crate::args::Reasoning;
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
use modelembed_text::chat::{AnswerPart, ChatTemplate, ReasoningSplit};
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
    stream.split = template.as_ref().map(|template| Split::new(template, talk.reasoning));
    stream.label = Some((notes, "Response: "));
    stream.waiting = Some(Waiting::start(&model, &progress, notes));
    let timing;
    // Told once the answer is out.
    let mut saved = Ok(());
    let result = match template {
        Some(template) => {
            let mut chat =
                Chat::new(session, sampler, template, options).reads_control_tokens(talk.reads_control_tokens);
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
    let Said { response, reasoning } = stream.end()?;
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
        let mut object = json!({
            "model": setting.model.to_string_lossy(),
            "prompt": prompt,
            "response": response,
            "stop": stop,
            "changed": changed,
            "statistics": statistics.json(),
        });
        if !reasoning.is_empty() {
            object["reasoning"] = reasoning.into();
        }
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
        .shown_tokens(
            template.and_then(ChatTemplate::reasoning_marks).into_iter().flat_map(|marks| marks.tokens()).copied(),
        )
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

/// Tells reasoning from answers.
#[derive(Clone)]
pub struct Split {
    split: ReasoningSplit,
    is_shown: bool,
}

impl Split {
    pub fn new(template: &ChatTemplate, reasoning: Reasoning) -> Split {
        Split { split: template.reasoning_split(), is_shown: reasoning != Reasoning::Hide }
    }
}

/// What was said, where it was kept.
#[derive(Default)]
pub struct Said {
    pub response: String,
    pub reasoning: String,
}

/// Takes the pieces of an answer: shows them as they come (text) or keeps them (JSON).
pub struct Stream<'a> {
    answer: Option<Answer>,
    said: Said,
    /// Without it everything is the answer.
    pub split: Option<Split>,
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
        let said = Said::default();
        Stream { answer, said, split: None, failure: None, interrupt, waiting: None, label: None }
    }

    /// Takes a piece; asks to stop after Ctrl-C or when nobody reads any more.
    pub fn piece(&mut self, piece: &str) -> ControlFlow<()> {
        self.begin();
        let Stream { answer, said, split, failure, .. } = self;
        let mut take = Self::taking(answer, said, split.as_ref().is_none_or(|split| split.is_shown), failure);
        match split {
            Some(split) => split.split.push(piece, &mut take),
            None => take(AnswerPart::Answer, piece),
        }
        drop(take);
        if self.failure.is_some() {
            return ControlFlow::Break(());
        }
        if self.interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// What is done with each part: marks are shown with the reasoning, and kept nowhere.
    fn taking<'s>(
        answer: &'s mut Option<Answer>,
        said: &'s mut Said,
        is_shown: bool,
        failure: &'s mut Option<std::io::Error>,
    ) -> impl FnMut(AnswerPart, &str) + 's {
        move |part, text| {
            let Some(answer) = answer else {
                match part {
                    AnswerPart::Mark => {}
                    AnswerPart::Reasoning => said.reasoning.push_str(text),
                    AnswerPart::Answer => said.response.push_str(text),
                }
                return;
            };
            if failure.is_some() || part != AnswerPart::Answer && !is_shown {
                return;
            }
            let shown = answer.dim(part != AnswerPart::Answer).and_then(|()| answer.piece(text));
            *failure = shown.err();
        }
    }

    /// The answer begins, if only to be an empty one.
    pub fn begin(&mut self) {
        self.waiting = None;
        if let Some((notes, label)) = self.label.take() {
            notes.text(label);
        }
    }

    /// Ends the line; returns the text that was kept.
    pub fn end(mut self) -> Result<Said> {
        self.waiting = None;
        let Stream { answer, said, split, failure, .. } = &mut self;
        if let Some(Split { split, is_shown }) = split {
            split.finish(&mut Self::taking(answer, said, *is_shown, failure));
        }
        if let Some(error) = self.failure.take() {
            return Err(error.into());
        }
        if let Some(answer) = &mut self.answer {
            answer.dim(false)?;
            answer.end_line()?;
        }
        Ok(self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelembed_text::chat::SpecialTokens;

    /// What is kept of an answer in pieces, behind a template's prompt.
    fn said(template: &str, pieces: &[&str]) -> (String, String) {
        let template = ChatTemplate::new(template, SpecialTokens::default()).expect("a template");
        let interrupt = Interrupt::install();
        let mut stream = Stream::new(Format::Json, &interrupt);
        stream.split = Some(Split::new(&template, Reasoning::Hide));
        pieces.iter().for_each(|piece| assert!(stream.piece(piece).is_continue()));
        let Said { response, reasoning } = stream.end().expect("nothing is written");
        (response, reasoning)
    }

    #[test]
    fn reasoning_is_kept_apart_from_the_answer() {
        let closed = "{{ messages[0].content }}<answer>";
        let open = "{{ messages[0].content }}<answer>{% if add_generation_prompt %}<think>\n{% endif %}";
        let apart = ("Three.".to_owned(), "One and two.".to_owned());
        assert_eq!(said(closed, &["<th", "ink>\nOne and", " two.\n</", "think>", "\n\nThree."]), apart);
        assert_eq!(said(open, &["One and two.", "\n</think>\n\n", "Three."]), apart);
        assert_eq!(said(closed, &["Three."]), ("Three.".to_owned(), String::new()));
    }
}
