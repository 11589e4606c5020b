//! Standard output for the answer, standard error for everything else.

use modelembed::text::printable;
use std::io::{self, BufWriter, IsTerminal, Write};

/// Standard output. On a terminal, control characters of the model's text are left out.
pub struct Answer {
    out: BufWriter<io::Stdout>,
    is_terminal: bool,
    is_begun: bool,
    ends_line: bool,
}

impl Answer {
    pub fn new() -> Answer {
        let is_terminal = io::stdout().is_terminal();
        Answer { out: BufWriter::new(io::stdout()), is_terminal, is_begun: false, ends_line: true }
    }

    /// Whether something was shown on a terminal.
    pub fn is_on_terminal(&self) -> bool {
        self.is_terminal && self.is_begun
    }

    /// Writes a piece of text and shows it at once.
    pub fn piece(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.is_begun = true;
        self.ends_line = text.ends_with('\n');
        if self.is_terminal {
            self.bytes(printable(text).as_bytes())?;
        } else {
            self.bytes(text.as_bytes())?;
        }
        self.flush()
    }

    /// Ends the last line if it is not ended yet.
    pub fn end_line(&mut self) -> io::Result<()> {
        if self.ends_line { Ok(()) } else { self.piece("\n") }
    }

    /// Writes without flushing: for long listings.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).map_err(of_stdout)
    }

    /// Shows what was written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(of_stdout)
    }
}

/// The error with the name of what could not be written; its kind stays.
fn of_stdout(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to standard output: {error}"))
}

/// Standard error, unless `-quiet`. Nobody can be told that it does not work, so failures are ignored.
#[derive(Clone, Copy)]
pub struct Notes {
    pub quiet: bool,
    pub verbose: bool,
}

impl Notes {
    /// A line, stripped of control characters: it may quote the model file.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            eprint_line(text);
        }
    }

    /// Text without a line end.
    pub fn text(&self, text: &str) {
        if !self.quiet {
            let mut err = io::stderr().lock();
            let _ = err.write_all(printable(text).as_bytes()).and_then(|()| err.flush());
        }
    }

    /// Shows `text` in place of the line that the cursor is on: for progress, on a terminal.
    pub fn redraw(&self, text: &str) {
        if !self.quiet {
            let mut err = io::stderr().lock();
            let _ = write!(err, "\r{text:<40}\r{text}").and_then(|()| err.flush());
        }
    }

    /// A line that only `-verbose` shows.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.line(text);
        }
    }

    /// A warning.
    pub fn warning(&self, text: &str) {
        self.line(&format!("warning: {text}"));
    }
}

/// A line on standard error, whatever `-quiet` says: errors.
pub fn eprint_line(text: &str) {
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "{}", printable(text));
}

/// Whether an error says that the reader of our output has gone.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
