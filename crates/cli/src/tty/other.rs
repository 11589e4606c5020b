//! Systems whose consoles have no modes of this kind, and no limit that matters: lines come as the
//! system hands them over.

use super::{Keys, Typed, Use};
use std::io::{self, BufRead, Read};

/// Nothing is held.
pub struct Terminal(());

impl Terminal {
    pub fn hold(_marks_pastes: bool) -> io::Result<Terminal> {
        Ok(Terminal(()))
    }

    pub fn set(&self, _now: Use) {}

    pub fn on_return(&self, _redraw: impl Fn() + Send + Sync + 'static) {}

    pub fn keys(&self) -> Keys {
        Keys { interrupt: Some(3), end: Some(4), ..Keys::default() }
    }
}

pub fn restore() {}

pub fn is_editing() -> bool {
    false
}

pub fn suspend() {}

pub fn watch_signals() -> io::Result<()> {
    Ok(())
}

pub fn is_controlling() -> bool {
    false
}

/// Lines of standard input.
pub struct Lines(());

impl Lines {
    pub fn open() -> io::Result<Lines> {
        Ok(Lines(()))
    }

    pub fn next(&mut self, prompt: &dyn Fn()) -> io::Result<Typed> {
        prompt();
        let mut line = Vec::new();
        if io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
            return Ok(Typed::End);
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        if line.ends_with(b"\r") {
            line.pop();
        }
        Ok(Typed::Line(line))
    }
}

/// Reads a text to its end.
pub fn read_to_end() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    io::stdin().lock().read_to_end(&mut text)?;
    Ok(text)
}
