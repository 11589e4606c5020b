//! The terminal at standard input, while somebody types at it.
//!
//! As programs find it, a terminal hands over whole lines. That cuts what it holds of a line after
//! 4,095 bytes, and shows what is typed in the middle of an answer. So the terminal is held for as
//! long as something is read from it: keys come as they are typed, and what nobody has read yet
//! waits in the system without a limit, since the sender waits, too. It is given back whatever ends
//! or stops the program.

#[cfg(unix)]
mod held;
#[cfg(unix)]
mod lines;
#[cfg(unix)]
pub use held::{Terminal, is_controlling, is_editing, restore, suspend, watch_signals};
#[cfg(unix)]
pub use lines::{Lines, read_to_end};

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub use other::{Lines, Terminal, is_controlling, is_editing, read_to_end, restore, suspend, watch_signals};

/// What the terminal is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Somebody edits a line: every key is input.
    Editing,
    /// Something is computed: keys wait, but for those that interrupt or stop a program.
    Waiting,
}

/// Keys that mean something to a terminal, as its user has set them; those that are switched off
/// are absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    pub interrupt: Option<u8>,
    pub quit: Option<u8>,
    pub suspend: Option<u8>,
    pub end: Option<u8>,
    pub erase: Option<u8>,
    pub erase_word: Option<u8>,
    pub erase_line: Option<u8>,
    pub literal: Option<u8>,
}

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// A line, without its end.
    Line(Vec<u8>),
    /// Ctrl-C; what was typed of the line is gone.
    Interrupted,
    /// Ctrl-D, or the terminal is gone.
    End,
}
