//! The interactive chat.

mod commands;
mod editor;
mod input;
mod keys;

use crate::interrupt::Interrupt;
use crate::measure::{self, Speed};
use crate::progress::Waiting;
use crate::report::{self, Statistics, without_controls};
use crate::resolve::{Format, Setting, Talk};
use crate::run::{self, Said, Split, Stream};
use crate::session_file;
use crate::setup::{self, Watch};
use crate::terminal::{Answer, Notes, eprint_line};
use anyhow::{Context, Result};
use commands::Line;
use input::Source;
use keys::Input;
use modelembed::{Chat, Error, EvalProgress, Model};
use modelembed_gguf::escaped;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// Talks until Ctrl-D, `/exit` or the end of the input.
pub fn chat(setting: &Setting, talk: Talk) -> Result<ExitCode> {
    let notes = setting.notes();
    let interrupt = Interrupt::install();
    // Before the model: what is typed while it loads is not lost either.
    let mut source = Source::open(notes)?;
    talk.session.as_deref().map_or(Ok(()), session_file::check_place)?;
    let (model, need) = setup::load_with_banner(setting, &talk, &interrupt)?;
    let template = setup::template(&model, &talk, notes)?.context("a chat needs a chat template")?;
    let progress = Arc::default();
    let session = setup::session(&model, setting, need, &interrupt, Some(&progress))?;
    let options = run::generate_options(&talk, Some(&template));
    let split = Split::new(&template, talk.reasoning);
    let sampler = talk.sampling.sampler(&model, notes)?;
    let mut chat = Chat::new(session, sampler, template, options).reads_control_tokens(talk.reads_control_tokens);
    if talk.system.is_some() {
        setup::warn_of_system(chat.takes_system(), notes);
    }
    let has_system = talk.system.is_some();
    chat.set_system(talk.system);
    if let Some(file) = &talk.session {
        session_file::restore_chat(&mut chat, file, has_system, notes)?;
    }
    let mut talker = Talker {
        model,
        chat,
        failed: 0,
        speed: Speed::default(),
        watch: Watch::default(),
        interrupt,
        progress,
        notes,
        format: setting.format,
        split,
    };
    if source.is_editor() {
        notes.line("Ctrl-C stops an answer, Ctrl-D leaves, /help lists commands.\n");
    }
    let first = talk.prompt.map_or(Ok(false), |first| {
        notes.line(&format!("> {first}"));
        talker.say(&first)
    });
    let ended = first.and_then(|_| talker.converse(&mut source));
    // However it ended: what was said is kept.
    let saved = talk.session.map_or(Ok(()), |file| session_file::save_chat(&talker.chat, &file, notes));
    ended.and(saved)?;
    let is_typed = source.is_editor();
    // What follows is for the terminal as it was.
    drop(source);
    talker.watch.tell(&talker.model, notes);
    let timing = talker.chat.session().timing().copied();
    let statistics = Statistics { timing, ..measure::statistics(&talker.model, &talker.speed) };
    notes.line(&format!("\n{}", statistics.text().trim_end()));
    // Who types has seen what failed; a script learns it from the exit code.
    let fails = talker.failed > 0 && !is_typed;
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A chat with what surrounds it.
struct Talker {
    model: Arc<Model>,
    chat: Chat,
    /// Questions that could not be answered.
    failed: usize,
    speed: Speed,
    watch: Watch,
    interrupt: Interrupt,
    progress: Arc<EvalProgress>,
    notes: Notes,
    format: Format,
    split: Split,
}

impl Talker {
    fn converse(&mut self, source: &mut Source) -> Result<()> {
        // Whether the next Ctrl-C leaves: one has just stopped an answer or been answered with a
        // hint.
        let mut leaves = false;
        loop {
            let input = source.next()?;
            self.interrupt.clear();
            let message = match input {
                Input::Message(message) => message,
                Input::End => return Ok(()),
                Input::Interrupted if leaves => return Ok(()),
                Input::Interrupted => {
                    self.notes.line("(Ctrl-C again, or Ctrl-D, leaves)");
                    leaves = true;
                    continue;
                }
            };
            leaves = false;
            match commands::parse(&message) {
                Line::Nothing => {}
                Line::Say(text) => leaves = self.say(text)?,
                Line::Exit => return Ok(()),
                command => self.obey(command),
            }
        }
    }

    /// Sends a message and shows the answer. Returns whether Ctrl-C stopped it. What goes wrong
    /// with one message does not end the chat, except that nobody reads the answers any more.
    fn say(&mut self, text: &str) -> Result<bool> {
        self.watch.tell(&self.model, self.notes);
        let mut stream = Stream::new(self.format, &self.interrupt);
        stream.split = Some(self.split.clone());
        stream.waiting = Some(Waiting::start(&self.model, &self.progress, self.notes));
        let turn = self.chat.send(text, |piece| stream.piece(piece));
        let Said { response, reasoning } = stream.end()?;
        let stopped = self.interrupt.is_set();
        self.watch.tell(&self.model, self.notes);
        match turn {
            Ok(turn) => {
                self.speed.add(&turn.stats);
                let stop = run::stop_words(Some(&turn.stats), &self.interrupt);
                if self.format == Format::Json {
                    let (dropped_turns, changed) = (turn.dropped_turns, self.watch.worst());
                    let mut object =
                        json!({"response": response, "stop": stop, "dropped_turns": dropped_turns, "changed": changed});
                    if !reasoning.is_empty() {
                        object["reasoning"] = reasoning.into();
                    }
                    Answer::new().piece(&without_controls(&format!("{object}\n")))?;
                }
                if turn.started_over {
                    self.notes.line("(the context could not be taken back, and was evaluated again)");
                }
                if turn.dropped_turns > 0 {
                    let turns = if turn.dropped_turns == 1 { "turn was" } else { "turns were" };
                    self.notes
                        .line(&format!("(the context is full: the {} oldest {turns} forgotten)", turn.dropped_turns));
                }
                match stop {
                    "interrupted" => self.notes.line("(stopped)"),
                    "length" => self.notes.line("(cut: -n allows no more tokens)"),
                    "context" => self.notes.line("(cut: the context is full)"),
                    _ => {}
                }
            }
            Err(Error::Cancelled) => self.notes.line("(stopped)"),
            Err(error) => {
                self.failed += 1;
                let told = report::explained(&error, &self.model);
                eprint_line(&format!("error: {told}"));
                if self.format == Format::Json {
                    // A line a turn, so that answers can be told apart.
                    let object = json!({"error": told});
                    Answer::new().piece(&format!("{object}\n"))?;
                }
            }
        }
        self.interrupt.clear();
        Ok(stopped)
    }

    /// Does what a command says. Its answer was asked for, so `-quiet` does not keep it back.
    fn obey(&mut self, command: Line) {
        match command {
            Line::Help => eprint_line(&commands::help()),
            Line::Reset => {
                self.chat.reset();
                eprint_line("(the conversation is forgotten)");
            }
            Line::Stats => {
                let session = self.chat.session();
                eprint_line(&format!("Context: {} of {} tokens", session.len(), session.capacity()));
                eprint_line(measure::statistics(&self.model, &self.speed).text().trim_end());
            }
            Line::System(None) => match self.chat.system() {
                Some(system) => eprint_line(&format!("System message: {system}")),
                None => eprint_line("(no system message)"),
            },
            Line::System(Some(text)) => {
                if self.chat.system().is_none() {
                    setup::warn_of_system(self.chat.takes_system(), self.notes);
                }
                self.chat.set_system(Some(text.to_string()));
                eprint_line("(a new conversation with this system message)");
            }
            Line::Save(path) => match self.save(path) {
                Ok(count) => eprint_line(&format!("({count} messages written to {})", escaped(path))),
                Err(error) => eprint_line(&format!("error: {error:#}")),
            },
            Line::Unknown(line) => eprint_line(&format!("unknown command {line:?}: /help lists all")),
            Line::Say(_) | Line::Nothing | Line::Exit => {}
        }
    }

    /// Writes the whole conversation as JSON, the form in which programs for chats exchange it. If
    /// old turns were dropped from the context, the first question that the model still sees is
    /// marked. Never replaces a file.
    fn save(&self, path: &str) -> Result<usize> {
        let messages = self.chat.messages();
        let first_seen = self.chat.first_seen();
        let has_dropped = messages[..first_seen.min(messages.len())].iter().any(|message| message.role == "user");
        let objects: Vec<_> = messages
            .iter()
            .enumerate()
            .map(|(i, message)| {
                let mut object = json!({"role": message.role, "content": message.content});
                if has_dropped && i == first_seen {
                    object["context_begins_here"] = true.into();
                }
                object
            })
            .collect();
        let text = format!("{:#}\n", json!(objects));
        let mut file = std::fs::File::create_new(path).with_context(|| format!("cannot create {}", escaped(path)))?;
        file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", escaped(path)))?;
        Ok(messages.len())
    }
}
