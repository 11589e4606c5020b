//! Ctrl-C: the first one asks the running answer to stop, the second one ends the program.

use crate::{progress, tty};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that was ended by Ctrl-C, as shells count it: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

/// Whether Ctrl-C was pressed since the last [`Interrupt::clear`].
#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over Ctrl-C, unless the parent chose to ignore it: then it stays without effect. Where
    /// the system refuses, Ctrl-C goes on to end the program at once.
    pub fn install() -> Interrupt {
        let flag = Arc::new(AtomicBool::new(false));
        let seen = flag.clone();
        let _ = ctrlc::try_set_handler(move || {
            // Where somebody types, Ctrl-C is a key: this signal was sent by another program, which
            // means what it says.
            if seen.swap(true, Ordering::Relaxed) || tty::is_editing() {
                progress::wipe();
                tty::restore();
                std::process::exit(i32::from(EXIT_CODE));
            }
        });
        Interrupt(flag)
    }

    /// The flag itself, for the engine to watch.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    /// Whether to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Forgets the last Ctrl-C: it was obeyed.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
