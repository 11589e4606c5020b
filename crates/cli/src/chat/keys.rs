//! What the person at the keys did.

/// What the user did.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Finished a message or command.
    Message(String),
    /// Pressed Ctrl-C; what was typed is gone.
    Interrupted,
    /// Pressed Ctrl-D, or the pipe ended.
    End,
}
