//! Standard output for the answer, standard error for everything else.

use modelembed_storage::write_before_report;
use modelembed_text::printable;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the last text on standard error, or on a terminal that is standard output, has not ended
/// its line. What is said next begins on a line of its own.
static ERROR_IS_MID_LINE: AtomicBool = AtomicBool::new(false);
static OUTPUT_IS_MID_LINE: AtomicBool = AtomicBool::new(false);
static BAR_IS_SHOWN: AtomicBool = AtomicBool::new(false);
static PASTES_ARE_MARKED: AtomicBool = AtomicBool::new(false);

/// Standard output. On a terminal, control characters of the model's text are left out.
pub struct Answer {
    out: BufWriter<io::Stdout>,
    is_terminal: bool,
    ends_line: bool,
    /// Whether text is dimmed on a terminal that can.
    is_dim: bool,
    can_dim: bool,
}

impl Answer {
    pub fn new() -> Answer {
        let is_terminal = io::stdout().is_terminal();
        let can_dim = is_terminal
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Answer { out: BufWriter::new(io::stdout()), is_terminal, ends_line: true, is_dim: false, can_dim }
    }

    /// Writes a piece of text and shows it at once.
    pub fn piece(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.ends_line = text.ends_with('\n');
        if self.is_terminal {
            note_output(self.ends_line);
            self.bytes(printable(text).as_bytes())?;
        } else {
            self.bytes(text.as_bytes())?;
        }
        self.flush()
    }

    /// Dims what follows, or does so no longer, on a terminal that can.
    pub fn dim(&mut self, is_dim: bool) -> io::Result<()> {
        if self.can_dim && self.is_dim != is_dim {
            self.is_dim = is_dim;
            self.bytes(if is_dim { b"\x1b[2m" } else { b"\x1b[22m" })?;
        }
        Ok(())
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

/// Standard error, unless `-quiet`. Nobody can be told that it does not work, so failures are
/// ignored.
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

    /// Text without a line end, on a line of its own.
    pub fn text(&self, text: &str) {
        if !self.quiet {
            eprint(text, false);
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
    eprint(text, true);
}

/// Writes at the beginning of a line: a line that something else has begun is ended first.
fn eprint(text: &str, ends_line: bool) {
    let text = printable(text);
    let mut whole = String::with_capacity(text.len() + 2);
    if is_mid_line() && !text.starts_with('\n') {
        whole.push('\n');
    }
    whole.push_str(&text);
    if ends_line {
        whole.push('\n');
    }
    let mut err = io::stderr().lock();
    let _ = err.write_all(whole.as_bytes()).and_then(|()| err.flush());
    ERROR_IS_MID_LINE.store(!whole.ends_with('\n'), Ordering::Relaxed);
    if is_one_screen() {
        OUTPUT_IS_MID_LINE.store(false, Ordering::Relaxed);
    }
    note_cursor();
}

/// Ends the line that the cursor is in.
pub fn begin_line() {
    if is_mid_line() {
        eprint("", true);
    }
}

/// Says that a bar stands on the line of standard error, or that it is gone.
pub fn bar_is_shown(is_shown: bool) {
    BAR_IS_SHOWN.store(is_shown, Ordering::Relaxed);
    cursor_is_at_start();
}

/// Says whether the terminal marks what is pasted, which is to end with the program.
#[cfg_attr(not(unix), allow(dead_code, reason = "consoles are not asked to"))]
pub fn pastes_are_marked(are_marked: bool) {
    PASTES_ARE_MARKED.store(are_marked, Ordering::Relaxed);
    note_cursor();
}

/// Says that the editor or a bar has put the cursor at the beginning of a line.
pub fn cursor_is_at_start() {
    ERROR_IS_MID_LINE.store(false, Ordering::Relaxed);
    OUTPUT_IS_MID_LINE.store(false, Ordering::Relaxed);
    note_cursor();
}

fn note_output(ends_line: bool) {
    OUTPUT_IS_MID_LINE.store(!ends_line, Ordering::Relaxed);
    if is_one_screen() {
        ERROR_IS_MID_LINE.store(false, Ordering::Relaxed);
    }
    note_cursor();
}

/// Whether both streams show on a terminal. Asked once: an answer has many pieces.
fn is_one_screen() -> bool {
    static IS_ONE: OnceLock<bool> = OnceLock::new();
    *IS_ONE.get_or_init(|| io::stdout().is_terminal() && io::stderr().is_terminal())
}

fn is_mid_line() -> bool {
    ERROR_IS_MID_LINE.load(Ordering::Relaxed) || is_one_screen() && OUTPUT_IS_MID_LINE.load(Ordering::Relaxed)
}

/// Tells the handler of lost pages, which can ask nobody, how to get to the beginning of a line.
fn note_cursor() {
    let (marks_pastes, bar) = (PASTES_ARE_MARKED.load(Ordering::Relaxed), BAR_IS_SHOWN.load(Ordering::Relaxed));
    write_before_report(match (marks_pastes, bar, is_mid_line()) {
        (false, false, false) => &(b"" as &[u8]),
        (false, false, true) => &(b"\n" as &[u8]),
        (false, true, _) => &(b"\r\x1b[2K" as &[u8]),
        (true, false, false) => &(b"\x1b[?2004l" as &[u8]),
        (true, false, true) => &(b"\x1b[?2004l\n" as &[u8]),
        (true, true, _) => &(b"\x1b[?2004l\r\x1b[2K" as &[u8]),
    });
}

/// Whether the terminal cannot move its cursor, as `TERM` tells.
pub fn is_dumb() -> bool {
    // The editor's list.
    let is_named = |term: String| ["dumb", "cons25", "emacs"].iter().any(|name| term.eq_ignore_ascii_case(name));
    std::env::var("TERM").is_ok_and(is_named)
}

/// Whether the reader's locale can show block characters.
pub fn speaks_utf8() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default().to_lowercase();
    cfg!(any(windows, target_os = "macos")) || locale.contains("utf-8") || locale.contains("utf8")
}

/// Whether an error says that the reader of our output has gone.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe))
}
