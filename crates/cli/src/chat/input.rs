//! The lines of a chat: typed with an editor on a terminal, or read from a pipe or file.

use super::editor::LineEditor;
use super::keys::Input;
use crate::terminal::{Notes, cursor_is_at_start, is_dumb};
use crate::tty::{self, Lines, Typed};
use anyhow::{Context, Result};
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

/// Where messages come from.
pub enum Source {
    /// A terminal, with an editor.
    Editor(Box<LineEditor>),
    /// A terminal that cannot move its cursor.
    Typed { lines: Lines, notes: Notes },
    /// Anything else.
    Piped,
}

impl Source {
    /// Takes the terminal where somebody types: what is typed from now on waits to be read.
    pub fn open(notes: Notes) -> Result<Source> {
        if !std::io::stdin().is_terminal() {
            return Ok(Source::Piped);
        }
        // The editor shows lines on standard output or on the controlling terminal.
        if is_dumb() || !(std::io::stdout().is_terminal() || tty::is_controlling()) {
            let lines = Lines::open().context("cannot change the terminal's modes")?;
            return Ok(Source::Typed { lines, notes });
        }
        Ok(Source::Editor(Box::new(LineEditor::open(history_path())?)))
    }

    /// Whether somebody types with the editor.
    pub fn is_editor(&self) -> bool {
        matches!(self, Source::Editor(_))
    }

    /// The next message, which may span lines (see [`Assembler`]).
    pub fn next(&mut self) -> Result<Input> {
        let mut assembler = Assembler::default();
        loop {
            let prompt = if assembler.is_empty() { "> " } else { "... " };
            let line = match self.line(prompt)? {
                Input::Message(line) => line,
                Input::Interrupted => return Ok(Input::Interrupted),
                // What was begun is a message even if nobody ended it.
                Input::End => match assembler.finish() {
                    Some(message) => return Ok(Input::Message(message)),
                    None => return Ok(Input::End),
                },
            };
            if let Some(message) = assembler.push(&line) {
                if let Source::Editor(editor) = self {
                    editor.remember(&message);
                }
                return Ok(Input::Message(message));
            }
        }
    }

    fn line(&mut self, prompt: &str) -> Result<Input> {
        match self {
            Source::Editor(editor) => editor.next(prompt),
            Source::Typed { lines, notes } => {
                let typed = lines.next(&|| notes.text(prompt)).context("cannot read from the terminal")?;
                cursor_is_at_start();
                Ok(match typed {
                    Typed::Line(line) => Input::Message(String::from_utf8_lossy(&line).into_owned()),
                    Typed::Interrupted => Input::Interrupted,
                    Typed::End => Input::End,
                })
            }
            Source::Piped => {
                let mut bytes = Vec::new();
                let n = std::io::stdin().lock().read_until(b'\n', &mut bytes).context("cannot read standard input")?;
                let line = String::from_utf8_lossy(&bytes);
                let line = line.strip_suffix('\n').map_or(&*line, |line| line.strip_suffix('\r').unwrap_or(line));
                Ok(if n == 0 { Input::End } else { Input::Message(line.to_string()) })
            }
        }
    }
}

fn history_path() -> Option<PathBuf> {
    use etcetera::BaseStrategy;
    let base = etcetera::choose_base_strategy().ok()?;
    Some(base.data_dir().join("modelembed").join("history.txt"))
}

/// Joins lines to a message: a line that ends with a backslash goes on in the next one, and a block
/// between lines of three double quotes may hold any lines.
#[derive(Debug, Default)]
struct Assembler {
    text: String,
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    /// After a backslash.
    Continued,
    /// Between quotes.
    Block,
}

const QUOTES: &str = "\"\"\"";

impl Assembler {
    fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    /// Adds a line; returns the message if it is complete.
    fn push(&mut self, line: &str) -> Option<String> {
        let mut line = line;
        if self.state == State::Empty
            && let Some(rest) = line.trim_start().strip_prefix(QUOTES)
        {
            self.state = State::Block;
            line = rest;
            if line.is_empty() {
                return None;
            }
        }
        if self.state == State::Block {
            let end = line.trim_end().strip_suffix(QUOTES);
            self.text.push_str(end.unwrap_or(line));
            if end.is_none() {
                self.text.push('\n');
                return None;
            }
            if end == Some("") && self.text.ends_with('\n') {
                self.text.pop();
            }
        } else if let Some(begun) = line.strip_suffix('\\') {
            self.text.push_str(begun);
            self.text.push('\n');
            self.state = State::Continued;
            return None;
        } else {
            self.text.push_str(line);
        }
        self.finish_with(State::Empty)
    }

    /// The message so far, if one was begun.
    fn finish(&mut self) -> Option<String> {
        if self.is_empty() { None } else { self.finish_with(State::Empty) }
    }

    fn finish_with(&mut self, state: State) -> Option<String> {
        self.state = state;
        Some(std::mem::take(&mut self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_messages() {
        let rows: [(&[&str], &[&str]); 9] = [
            (&["one", "two"], &["one", "two"]),
            (&["a\\", "b"], &["a\nb"]),
            (&["a\\", "b\\", "", "c"], &["a\nb\n", "c"]),
            (&["\"\"\"", "x", "  y\\", "\"\"\"", "z"], &["x\n  y\\", "z"]),
            (&["\"\"\"first", "last\"\"\""], &["first\nlast"]),
            (&["\"\"\"one line\"\"\""], &["one line"]),
            (&["say \"\"\" now"], &["say \"\"\" now"]),
            (&["", " "], &["", " "]),
            (&["\"\"\"", "", "\"\"\""], &[""]),
        ];
        for (lines, wanted) in rows {
            let mut assembler = Assembler::default();
            let messages: Vec<_> = lines.iter().filter_map(|line| assembler.push(line)).collect();
            assert_eq!(messages, wanted, "{lines:?}");
            assert!(assembler.is_empty(), "{lines:?}");
        }
    }

    #[test]
    fn what_was_begun_is_kept_when_the_input_ends() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.finish(), None);
        assert_eq!(assembler.push("\"\"\""), None);
        assert_eq!(assembler.push("half"), None);
        assert_eq!(assembler.finish().as_deref(), Some("half\n"));
    }
}
