//! Lines of any length from a terminal that has no editor: one that cannot move its cursor, or a
//! text that is read to its end.

use super::held::{Terminal, suspend, writer};
use super::{Keys, Typed, Use};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use rustix::process::{Signal, getpid, kill_process};
use rustix::stdio::stdin;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use unicode_width::UnicodeWidthChar;

/// How often a program that came back looks whether its line is to be drawn anew.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What the system does with a line that is typed, without its limit: keys that erase, interrupt,
/// stop and end.
pub struct Lines {
    terminal: Terminal,
    keys: Keys,
    /// What is typed is shown here.
    echo: Option<File>,
    /// Read, but not looked at yet.
    bytes: VecDeque<u8>,
    has_ended: bool,
    is_stale: Arc<AtomicBool>,
}

impl Lines {
    /// Holds the terminal.
    ///
    /// # Errors
    /// As [`Terminal::hold`].
    pub fn open() -> io::Result<Lines> {
        let terminal = Terminal::hold(false)?;
        let is_stale = Arc::new(AtomicBool::new(false));
        let stale = Arc::clone(&is_stale);
        terminal.on_return(move || stale.store(true, Ordering::Relaxed));
        let echo = if terminal.echoes() { writer() } else { None };
        Ok(Lines { keys: terminal.keys(), terminal, echo, bytes: VecDeque::new(), has_ended: false, is_stale })
    }

    /// The next line. `prompt` shows what stands before it, at once and after the program was
    /// stopped.
    pub fn next(&mut self, prompt: &dyn Fn()) -> io::Result<Typed> {
        self.terminal.set(Use::Editing);
        prompt();
        let typed = self.edit(prompt);
        self.terminal.set(Use::Waiting);
        typed
    }

    fn edit(&mut self, prompt: &dyn Fn()) -> io::Result<Typed> {
        let mut line = Vec::new();
        // Where Ctrl-D was typed in a line: once more, and the input ends there.
        let mut pushed = 0;
        loop {
            let byte = match self.bytes.pop_front() {
                Some(byte) => byte,
                None if self.has_ended => {
                    return Ok(if line.is_empty() { Typed::End } else { Typed::Line(line) });
                }
                None => {
                    self.fill(|lines| {
                        lines.show(b"\n");
                        prompt();
                        lines.show(&line);
                    })?;
                    continue;
                }
            };
            let is = |key: Option<u8>| key == Some(byte);
            match byte {
                b'\n' => break,
                b'\r' if self.terminal.returns_are_line_ends() => break,
                _ if is(self.keys.interrupt) => {
                    self.show(b"^C\n");
                    return Ok(Typed::Interrupted);
                }
                _ if is(self.keys.quit) => drop(kill_process(getpid(), Signal::QUIT)),
                _ if is(self.keys.suspend) => suspend(),
                _ if is(self.keys.end) && line.len() == pushed => self.has_ended = true,
                _ if is(self.keys.end) => pushed = line.len(),
                _ if is(self.keys.erase) => self.erase(&mut line, 1),
                _ if is(self.keys.erase_word) => {
                    let n = length_of_last_word(&line);
                    self.erase(&mut line, n);
                }
                _ if is(self.keys.erase_line) => self.erase(&mut line, usize::MAX),
                _ if is(self.keys.literal) => {
                    while self.bytes.is_empty() && !self.has_ended {
                        self.fill(|_| {})?;
                    }
                    line.extend(self.bytes.pop_front());
                }
                byte => {
                    line.push(byte);
                    match byte {
                        b'\t' | b' '.. if byte != 0x7f => self.show(&[byte]),
                        _ => self.show(&[b'^', byte ^ 0x40]),
                    }
                }
            }
        }
        self.show(b"\n");
        Ok(Typed::Line(line))
    }

    /// Waits for bytes; calls `redraw` when the program was away meanwhile.
    fn fill(&mut self, redraw: impl Fn(&mut Lines)) -> io::Result<()> {
        loop {
            let stdin = stdin();
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&LOOK)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
            if self.is_stale.swap(false, Ordering::Relaxed) {
                redraw(self);
            }
        }
        let mut buffer = [0; 4096];
        match read(stdin(), &mut buffer) {
            // Its other end was closed.
            Ok(0) | Err(Errno::IO) => self.has_ended = true,
            Ok(n) => self.bytes.extend(&buffer[..n]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn show(&mut self, bytes: &[u8]) {
        if let Some(echo) = &mut self.echo {
            // A line that cannot be shown can still be read.
            let _ = echo.write_all(bytes);
        }
    }

    /// Takes characters from the end of a line and of the screen.
    fn erase(&mut self, line: &mut Vec<u8>, n_chars: usize) {
        for _ in 0..n_chars {
            let Some(last) = pop_char(line) else { break };
            let cols = match last {
                '\t' => 0,
                c if c.is_control() => 2,
                c => c.width().unwrap_or(0),
            };
            for _ in 0..cols {
                self.show(b"\x08 \x08");
            }
        }
    }
}

/// Takes the last character from a line; a byte of none counts as U+FFFD.
fn pop_char(line: &mut Vec<u8>) -> Option<char> {
    let last = line.utf8_chunks().last().map(|chunk| match chunk.invalid() {
        [] => chunk.valid().chars().next_back().map_or((1, '\u{fffd}'), |c| (c.len_utf8(), c)),
        _ => (1, '\u{fffd}'),
    });
    let (len, last) = last?;
    line.truncate(line.len() - len);
    Some(last)
}

/// Characters of the last word of a line, and of the blanks behind it.
fn length_of_last_word(line: &[u8]) -> usize {
    let text = String::from_utf8_lossy(line);
    let before = text.trim_end().trim_end_matches(|c: char| !c.is_whitespace());
    text.chars().count() - before.chars().count()
}

/// Reads a text from the terminal until Ctrl-D.
pub fn read_to_end() -> io::Result<Vec<u8>> {
    let mut lines = Lines::open()?;
    let mut text = Vec::new();
    loop {
        match lines.next(&|| {})? {
            Typed::Line(line) => {
                text.extend(line);
                if lines.has_ended {
                    return Ok(text);
                }
                text.push(b'\n');
            }
            Typed::End => return Ok(text),
            // Whoever is still there has a parent that chose to ignore it.
            Typed::Interrupted => lines.terminal.given_back(|| kill_process(getpid(), Signal::INT))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_and_words_are_taken_off_as_a_whole() {
        let rows: [(&[u8], Option<char>, &[u8]); 5] = [
            (b"", None, b""),
            (b"ab", Some('b'), b"a"),
            ("a日".as_bytes(), Some('日'), b"a"),
            (b"a\xe6\x97", Some('\u{fffd}'), b"a\xe6"),
            (b"\xff\xfe", Some('\u{fffd}'), b"\xff"),
        ];
        for (line, wanted, rest) in rows {
            let mut line = line.to_vec();
            assert_eq!(pop_char(&mut line), wanted, "{rest:?}");
            assert_eq!(line, rest);
        }
        let rows: [(&[u8], usize); 4] = [(b"", 0), (b"one two", 3), (b"one two  ", 5), ("日本".as_bytes(), 2)];
        let failed: Vec<_> = rows.iter().filter(|(line, wanted)| length_of_last_word(line) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
