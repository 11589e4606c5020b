//! The terminal's modes: whose they are now, and how they come back.

use super::{Keys, Use};
use crate::{progress, terminal};
use modelembed_storage::{process, restore_before_report};
use rustix::fs::OFlags;
use rustix::process::{Signal, getpgrp, getpid, getsid, kill_current_process_group, kill_process};
use rustix::stdio::stdin;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
    ttyname,
};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, Once};

/// Draws the line anew that is being typed.
type Redraw = Arc<dyn Fn() + Send + Sync>;

struct Held {
    /// The modes as they were found.
    theirs: Termios,
    now: Use,
    /// Whether the terminal was asked to mark what is pasted.
    marks_pastes: bool,
    /// For codes that are no part of any output.
    out: Option<File>,
    redraw: Option<Redraw>,
}

/// The terminal that is held, for whatever ends or stops the program.
static HELD: Mutex<Option<Held>> = Mutex::new(None);

fn held() -> MutexGuard<'static, Option<Held>> {
    HELD.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

const MARK_PASTES: &[u8] = b"\x1b[?2004h";
const DO_NOT_MARK_PASTES: &[u8] = b"\x1b[?2004l";

/// Holds the terminal at standard input until it is dropped.
pub struct Terminal {
    /// The modes as they were found.
    theirs: Termios,
}

impl Terminal {
    /// Takes the terminal, for [`Use::Waiting`]. With `marks_pastes` it is asked to put marks
    /// around what is pasted.
    ///
    /// # Errors
    /// Standard input is no terminal, or the system refuses.
    pub fn hold(marks_pastes: bool) -> io::Result<Terminal> {
        let theirs = tcgetattr(stdin())?;
        restore_before_report();
        watch_signals()?;
        let out = writer().filter(|_| marks_pastes);
        let new = Held { theirs: theirs.clone(), now: Use::Waiting, marks_pastes: out.is_some(), out, redraw: None };
        held().insert(new).take();
        Ok(Terminal { theirs })
    }

    /// Changes what the terminal is used for.
    pub fn set(&self, now: Use) {
        if let Some(held) = held().as_mut() {
            held.now = now;
            held.set_modes();
        }
    }

    /// Names what draws the line anew that is being typed, after the program was stopped and has
    /// come back.
    pub fn on_return(&self, redraw: impl Fn() + Send + Sync + 'static) {
        if let Some(held) = held().as_mut() {
            held.redraw = Some(Arc::new(redraw));
        }
    }

    /// Does something while the terminal is given back.
    pub fn given_back<T>(&self, work: impl FnOnce() -> T) -> T {
        if let Some(held) = held().as_mut() {
            held.let_go();
        }
        let result = work();
        if let Some(held) = held().as_mut() {
            held.take();
        }
        result
    }

    /// The terminal's own keys.
    pub fn keys(&self) -> Keys {
        let key = |mode: LocalModes, index| {
            let byte = self.theirs.special_codes[index];
            // 0 switches a key off on Linux, 255 on macOS.
            (self.theirs.local_modes.contains(mode) && byte != 0 && byte != 0xff).then_some(byte)
        };
        Keys {
            interrupt: key(LocalModes::ISIG, SpecialCodeIndex::VINTR),
            quit: key(LocalModes::ISIG, SpecialCodeIndex::VQUIT),
            suspend: key(LocalModes::ISIG, SpecialCodeIndex::VSUSP),
            end: key(LocalModes::ICANON, SpecialCodeIndex::VEOF),
            erase: key(LocalModes::ICANON, SpecialCodeIndex::VERASE),
            erase_word: key(LocalModes::ICANON | LocalModes::IEXTEN, SpecialCodeIndex::VWERASE),
            erase_line: key(LocalModes::ICANON, SpecialCodeIndex::VKILL),
            literal: key(LocalModes::ICANON | LocalModes::IEXTEN, SpecialCodeIndex::VLNEXT),
        }
    }

    /// Whether what is typed is to be shown.
    pub fn echoes(&self) -> bool {
        self.theirs.local_modes.contains(LocalModes::ECHO)
    }

    /// Whether the Enter key ends lines as a line feed does.
    pub fn returns_are_line_ends(&self) -> bool {
        self.theirs.input_modes.contains(InputModes::ICRNL)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// A way to write to the terminal, whatever standard output is.
pub fn writer() -> Option<File> {
    let name = ttyname(stdin(), Vec::new()).ok()?;
    let open = |path: &OsStr| {
        let mut options = OpenOptions::new();
        // A program without a controlling terminal is not to get one by this.
        options.write(true).custom_flags(OFlags::NOCTTY.bits() as i32).open(path)
    };
    open(OsStr::from_bytes(name.to_bytes())).or_else(|_| open(OsStr::new("/dev/tty"))).ok()
}

/// Gives the terminal back if it is held: the program ends, or reads no more from it.
pub fn restore() {
    if let Some(mut held) = held().take() {
        held.let_go();
    }
}

/// Whether a line is being typed. Ctrl-C is a key then: a signal comes from elsewhere.
pub fn is_editing() -> bool {
    held().as_ref().is_some_and(|held| held.now == Use::Editing)
}

/// Whether the terminal at standard input is the one that controls this process.
pub fn is_controlling() -> bool {
    tcgetpgrp(stdin()).is_ok()
}

/// Does what the key does that stops a job: every program of this job gets the signal, this one
/// gives the terminal back first.
pub fn suspend() {
    let _ = kill_current_process_group(Signal::TSTP);
}

impl Held {
    fn take(&mut self) {
        if is_foreground() {
            self.set_modes();
            self.write(MARK_PASTES);
            terminal::pastes_are_marked(self.marks_pastes);
        }
    }

    fn let_go(&mut self) {
        if is_foreground() {
            self.write(DO_NOT_MARK_PASTES);
            terminal::pastes_are_marked(false);
            let _ = tcsetattr(stdin(), OptionalActions::Now, &self.theirs);
        }
    }

    fn set_modes(&self) {
        if is_foreground() {
            // A terminal that refuses is one that has gone: the next read will tell.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &modes(&self.theirs, self.now));
        }
    }

    fn write(&mut self, code: &[u8]) {
        if let (Some(out), true) = (&mut self.out, self.marks_pastes) {
            let _ = out.write_all(code);
        }
    }
}

/// The editor's modes; while something is computed, keys that interrupt or stop do that.
fn modes(theirs: &Termios, now: Use) -> Termios {
    let mut modes = theirs.clone();
    let input = InputModes::BRKINT | InputModes::ICRNL | InputModes::INPCK | InputModes::ISTRIP;
    modes.input_modes.remove(input);
    modes.control_modes.insert(ControlModes::CS8);
    modes.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::IEXTEN);
    match now {
        Use::Editing => {
            modes.input_modes.remove(InputModes::IXON);
            modes.local_modes.remove(LocalModes::ISIG);
        }
        // An interrupt ends an answer; the questions that were typed meanwhile are not its to throw
        // away.
        Use::Waiting => modes.local_modes.insert(LocalModes::NOFLSH),
    }
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    modes
}

/// Whether the terminal is this job's: the system stops programs of other jobs that change its
/// modes.
fn is_foreground() -> bool {
    tcgetpgrp(stdin()).map_or(true, |group| group == getpgrp())
}

/// Starts the thread that takes a bar away and gives the terminal back before a signal ends or
/// stops the program, and takes it again afterwards.
pub fn watch_signals() -> io::Result<()> {
    static WATCHED: Once = Once::new();
    let mut result = Ok(());
    WATCHED.call_once(|| {
        let ending = [SIGTERM, SIGHUP, SIGQUIT, SIGTSTP];
        let wanted = ending.into_iter().filter(|signal| !process::ignores_signal(*signal)).chain([SIGCONT]);
        result = Signals::new(wanted).and_then(|mut signals| {
            let watch = move || signals.forever().for_each(obey);
            std::thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
        });
    });
    result
}

fn obey(signal: i32) {
    match signal {
        SIGCONT => {
            let redraw = held().as_mut().and_then(|held| {
                held.take();
                held.redraw.clone().filter(|_| held.now == Use::Editing)
            });
            // It may wait for the editor, which may wait for the lock.
            if let Some(redraw) = redraw {
                redraw();
            }
        }
        SIGTSTP => {
            // Nobody could bring back a job that no shell has made: the system does not stop it
            // either.
            if getsid(None).is_ok_and(|session| session != getpgrp()) {
                progress::hide();
                if let Some(held) = held().as_mut() {
                    held.let_go();
                }
                let _ = kill_process(getpid(), Signal::STOP);
            }
        }
        _ => {
            progress::wipe();
            restore();
            let _ = emulate_default_handler(signal);
        }
    }
}
