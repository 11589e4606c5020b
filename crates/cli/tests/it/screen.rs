//! The binary in a pseudo-terminal, and what a terminal would show of it.

use rexpect::process::{PtyProcess, Signal, WaitStatus};
use rustix::termios::{LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcgetsid, tcsetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Slow machines with a whole test suite running beside this need long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A program and the screen that it writes to.
pub struct Screen {
    process: PtyProcess,
    keys: File,
    shown: Arc<Mutex<Shown>>,
    reader: Option<JoinHandle<()>>,
}

struct Shown {
    parser: vt100::Parser,
    /// Every byte that came.
    bytes: Vec<u8>,
}

impl Screen {
    /// Starts a program. Nothing scrolls away before `rows` lines were written.
    pub fn start(mut command: Command, rows: u16, cols: u16) -> Screen {
        command.stdin(std::process::Stdio::inherit());
        let process = PtyProcess::new(command).unwrap();
        let keys = process.get_file_handle().unwrap();
        tcsetwinsize(&keys, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let [n_rows, n_cols] = [rows, cols].map(|n| NonZero::new(n).unwrap());
        let parser = vt100::Parser::new(n_rows, n_cols, 0);
        let shown = Arc::new(Mutex::new(Shown { parser, bytes: Vec::new() }));
        let (to, mut from) = (Arc::clone(&shown), process.get_file_handle().unwrap());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error says that the program's end is closed.
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                let mut shown = to.lock().unwrap();
                shown.parser.process(&buffer[..n]);
                shown.bytes.extend(&buffer[..n]);
            }
        });
        Screen { process, keys, shown, reader: Some(reader) }
    }

    /// Types, in one write.
    pub fn send(&mut self, keys: impl AsRef<[u8]>) {
        self.keys.write_all(keys.as_ref()).unwrap();
    }

    /// The lines that are shown, without blanks at their ends and without empty lines at the end.
    pub fn text(&self) -> String {
        self.shown.lock().unwrap().parser.screen().contents().trim_end().to_string()
    }

    /// Everything that was written, with its escape codes.
    pub fn bytes(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap().bytes).into_owned()
    }

    /// The line that the cursor is in, and its column.
    pub fn cursor(&self) -> (String, u16) {
        let shown = self.shown.lock().unwrap();
        let screen = shown.parser.screen();
        let (row, col) = screen.cursor_position();
        (screen.contents_between(row, 0, row + 1, 0).trim_end().to_string(), col)
    }

    /// Waits until something holds of the screen.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut(&Screen) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "{what} did not come; on the screen is\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a text is shown.
    pub fn wait_for(&self, text: &str) {
        self.wait_until(text, |screen| screen.text().contains(text));
    }

    /// The terminal's modes now.
    pub fn local_modes(&self) -> LocalModes {
        tcgetattr(&self.keys).unwrap().local_modes
    }

    /// Sets the modes in which shells let programs run.
    pub fn set_cooked(&self) {
        let mut modes = modes_at_start();
        modes.local_modes.insert(LocalModes::ECHO);
        tcsetattr(&self.keys, OptionalActions::Now, &modes).unwrap();
    }

    /// The state letter of the process, as Linux tells: `T` is stopped.
    pub fn state(&self) -> Option<char> {
        let pid = tcgetsid(&self.keys).ok()?.as_raw_nonzero();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Lines that a prompt begins: those that were typed, and the one that waits.
    fn prompts(&self) -> usize {
        self.text().lines().filter(|line| line.starts_with('>') || line.starts_with("...")).count()
    }

    /// Waits until the program asks for the `n`-th line.
    pub fn wait_for_prompt(&self, n: usize) {
        self.wait_until(&format!("prompt {n}"), |screen| {
            let (line, col) = screen.cursor();
            screen.prompts() == n && (line == ">" && col == 2 || line == "..." && col == 4)
        });
    }

    /// Types something that asks for another line afterwards, once.
    pub fn say(&mut self, keys: impl AsRef<[u8]>) {
        let n = self.prompts();
        self.send(keys);
        self.wait_for_prompt(n + 1);
    }

    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    /// Waits for the program's end and everything that it wrote.
    pub fn end(mut self) -> (WaitStatus, String) {
        let status = self.process.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        (status, self.text())
    }

    /// As `end`, for one that ends well.
    pub fn end_well(self) -> String {
        let (status, text) = self.end();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}\n{text}");
        text
    }
}

/// The modes in which a program starts in a [`Screen`]: a new terminal's, without echo.
pub fn modes_at_start() -> Termios {
    let process = PtyProcess::new(Command::new("cat")).unwrap();
    let mut modes = tcgetattr(process.get_file_handle().unwrap()).unwrap();
    modes.local_modes.remove(LocalModes::ECHO);
    modes
}
