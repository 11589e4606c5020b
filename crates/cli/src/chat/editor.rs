//! A line editor on a terminal. Nothing that arrives is lost: what is read beyond a line is kept
//! for the next one.

use super::keys::Input;
use crate::terminal::{cursor_is_at_start, eprint_line};
use crate::tty::{self, Keys, Terminal, Use};
use anyhow::{Context, Result};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{
    Behavior, Cmd, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler, ExternalPrinter,
    KeyCode, KeyEvent, Modifiers, RepeatCount,
};
use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Messages kept between runs.
const HISTORY_LEN: usize = 1000;

/// The editor and the terminal that it has.
pub struct LineEditor {
    editor: Editor<(), FileHistory>,
    typing: Arc<Mutex<Typing>>,
    /// Absent where the system has no place for it.
    history: Option<PathBuf>,
    terminal: Terminal,
}

/// What keys meant that mean more than a change of the line.
#[derive(Debug, Default)]
struct Typing {
    keys: Keys,
    /// The text so far of a paste whose end has not come yet.
    paste: Option<Paste>,
    /// What ended the line, if Enter did not.
    outcome: Option<Input>,
}

/// A text between the marks that a terminal puts around what is pasted.
#[derive(Debug, Default)]
struct Paste {
    text: String,
    /// The last character was a carriage return, which with a line feed behind it is one line end.
    after_return: bool,
}

impl LineEditor {
    /// Holds the terminal. Where standard output is none, lines are edited on the controlling
    /// terminal.
    pub fn open(history: Option<PathBuf>) -> Result<LineEditor> {
        let behavior = match std::io::stdout().is_terminal() {
            true => Behavior::Stdio,
            false => Behavior::PreferTerm,
        };
        // Marks around pastes are asked for as long as the terminal is held: a paste during an
        // answer has them, too.
        let config = Config::builder()
            .max_history_size(HISTORY_LEN)?
            .history_ignore_space(true)
            .auto_add_history(false)
            .bracketed_paste(false)
            .behavior(behavior)
            .build();
        let kept = FileHistory::with_config(&config);
        let mut editor = Editor::with_history(config, kept).context("cannot open the terminal")?;
        if let Some(path) = &history {
            // Absent at the first start.
            let _ = editor.load_history(path);
        }
        let terminal = Terminal::hold(true).context("cannot change the terminal's modes")?;
        if let Ok(printer) = editor.create_external_printer() {
            let printer = Mutex::new(printer);
            // Up and down again: a line end is what the editor needs to draw its line behind it.
            terminal.on_return(move || drop(locked(&printer).print("\u{1b}[A\n".into())));
        }
        let typing = Arc::new(Mutex::new(Typing { keys: terminal.keys(), ..Typing::default() }));
        let handler = Handler(Arc::clone(&typing));
        editor.bind_sequence(Event::Any, EventHandler::Conditional(Box::new(handler)));
        Ok(LineEditor { editor, typing, history, terminal })
    }

    /// A line; or what the user did instead. A paste may have put line ends into it.
    pub fn next(&mut self, prompt: &str) -> Result<Input> {
        loop {
            self.terminal.set(Use::Editing);
            let line = self.editor.readline(prompt);
            self.terminal.set(Use::Waiting);
            cursor_is_at_start();
            let outcome = locked(&self.typing).outcome.take();
            return match (line, outcome) {
                (Ok(_), Some(outcome)) => Ok(outcome),
                (Ok(line), None) => Ok(Input::Message(line)),
                (Err(ReadlineError::Interrupted), _) => Ok(Input::Interrupted),
                (Err(ReadlineError::Eof), _) => Ok(Input::End),
                // The editor has taken the byte, so asking again gets on.
                (Err(ReadlineError::Io(error)), _) if error.kind() == ErrorKind::InvalidData => {
                    locked(&self.typing).paste = None;
                    eprint_line(
                        "(that was no UTF-8: the line and what came together with it are dropped, type it again)",
                    );
                    continue;
                }
                (Err(error), _) => Err(error).context("cannot read from the terminal"),
            };
        }
    }

    /// Keeps a message for later runs, at once: the program may be ended at any moment.
    pub fn remember(&mut self, message: &str) {
        if message.trim().is_empty() || !self.editor.add_history_entry(message).unwrap_or(false) {
            return;
        }
        if let Some(path) = &self.history
            && let Some(folder) = path.parent().filter(|folder| *folder != Path::new(""))
            && std::fs::create_dir_all(folder).is_ok()
        {
            // A history that cannot be kept is no reason to stop a chat.
            let _ = self.editor.append_history(path);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Looks at every key before the editor does.
///
/// The editor reads a paste to its end mark, whatever comes, and throws away what it has read
/// beyond a line that ends by Ctrl-C or Ctrl-D. So pastes are gathered here, where Ctrl-C ends one
/// whose mark never comes, and these keys accept the line, which is then not used.
struct Handler(Arc<Mutex<Typing>>);

impl ConditionalEventHandler for Handler {
    fn handle(&self, event: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let key = *event.get(0)?;
        locked(&self.0).command(key, context.line().is_empty())
    }
}

impl Typing {
    /// What the editor is to do; `None` leaves it to the editor.
    fn command(&mut self, key: KeyEvent, line_is_empty: bool) -> Option<Cmd> {
        let is = |byte: Option<u8>| byte.is_some_and(|byte| KeyEvent::new(char::from(byte), Modifiers::NONE) == key);
        let is_interrupt = is(self.keys.interrupt) || is(self.keys.quit);
        match &mut self.paste {
            _ if is_interrupt => {
                self.paste = None;
                self.outcome = Some(Input::Interrupted);
                Some(Cmd::AcceptLine)
            }
            Some(paste) if key.0 == KeyCode::BracketedPasteEnd => {
                let text = std::mem::take(&mut paste.text);
                self.paste = None;
                Some(if text.is_empty() { Cmd::Noop } else { Cmd::Insert(1, text) })
            }
            Some(paste) => {
                paste.push(key);
                Some(Cmd::Noop)
            }
            None if key.0 == KeyCode::BracketedPasteStart => {
                self.paste = Some(Paste::default());
                Some(Cmd::Noop)
            }
            None if is(self.keys.end) && line_is_empty => {
                self.outcome = Some(Input::End);
                Some(Cmd::AcceptLine)
            }
            None if is(self.keys.suspend) => {
                tty::suspend();
                Some(Cmd::Noop)
            }
            None => None,
        }
    }
}

impl Paste {
    /// Takes a key for the character that it was before the editor understood it.
    fn push(&mut self, key: KeyEvent) {
        let after_return = std::mem::replace(&mut self.after_return, key.0 == KeyCode::Enter);
        match key {
            KeyEvent(KeyCode::Char('J'), Modifiers::CTRL) if after_return => {}
            KeyEvent(KeyCode::Enter, _) | KeyEvent(KeyCode::Char('J'), Modifiers::CTRL) => self.text.push('\n'),
            KeyEvent(KeyCode::Tab, _) => self.text.push('\t'),
            // Other control characters are no text.
            KeyEvent(KeyCode::Char(_), modifiers) if modifiers.contains(Modifiers::CTRL) => {}
            KeyEvent(KeyCode::Char(c), _) => self.text.push(c),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typing() -> Typing {
        Typing { keys: Keys { interrupt: Some(3), end: Some(4), ..Keys::default() }, ..Typing::default() }
    }

    fn key(c: char) -> KeyEvent {
        KeyEvent::new(c, Modifiers::NONE)
    }

    fn mark(code: KeyCode) -> KeyEvent {
        KeyEvent(code, Modifiers::NONE)
    }

    #[test]
    fn a_paste_is_one_text_with_its_own_line_ends() {
        let mut typing = typing();
        assert_eq!(typing.command(mark(KeyCode::BracketedPasteStart), true), Some(Cmd::Noop));
        for c in "a\tb\r\nc\rd\n\ne\u{1}é日\u{4}".chars() {
            assert_eq!(typing.command(key(c), true), Some(Cmd::Noop), "{c:?}");
        }
        let wanted = Cmd::Insert(1, "a\tb\nc\nd\n\neé日".into());
        assert_eq!(typing.command(mark(KeyCode::BracketedPasteEnd), true), Some(wanted));
        assert_eq!(typing.command(key('x'), true), None);
    }

    #[test]
    fn ctrl_c_ends_a_paste_that_has_no_end() {
        let mut typing = typing();
        typing.command(mark(KeyCode::BracketedPasteStart), true);
        typing.command(key('x'), true);
        assert_eq!(typing.command(key('\u{3}'), true), Some(Cmd::AcceptLine));
        assert_eq!(typing.outcome.take(), Some(Input::Interrupted));
        assert_eq!(typing.command(key('y'), true), None);
    }

    #[test]
    fn ctrl_d_leaves_on_an_empty_line_only() {
        let mut typing = typing();
        assert_eq!(typing.command(key('\u{4}'), false), None);
        assert_eq!(typing.command(key('\u{4}'), true), Some(Cmd::AcceptLine));
        assert_eq!(typing.outcome, Some(Input::End));
    }
}
