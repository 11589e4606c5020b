//! What can go wrong with a chat template.

use crate::printable::printable;
use minijinja::{Error, ErrorKind};

/// Why a chat template could not be compiled or rendered. Texts that come from the file are
/// stripped of control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source is no template.
    #[error("chat template, line {line}: {message}")]
    Syntax {
        /// Line in the template, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The template called `raise_exception`: it does not take these messages.
    #[error("chat template, line {line}: the template refuses these messages: {message}")]
    Raised {
        /// Line in the template, from 1.
        line: usize,
        /// The template's own words.
        message: String,
    },
    /// An operation failed: an unknown function, an undefined value, ...
    #[error("chat template, line {line}: {message}")]
    Render {
        /// Line in the template, from 1.
        line: usize,
        /// What failed.
        message: String,
    },
    /// The template used up its budget of steps and memory.
    #[error("chat template, line {line}: too much work (more than {steps} steps for these messages)")]
    Budget {
        /// Line at which it ran out, from 1 (0 if unknown).
        line: usize,
        /// The budget.
        steps: u64,
    },
    /// The rendered text would be longer than the limit.
    #[error("chat template: the output is longer than {limit_bytes} bytes")]
    Output {
        /// The limit.
        limit_bytes: usize,
    },
    /// The source is longer than any honest template.
    #[error("chat template: {len_bytes} bytes long, at most {limit_bytes} are accepted")]
    TooLong {
        /// Length of the source.
        len_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The source could not be compiled with a stack of ordinary size.
    #[error("chat template, {0}")]
    Shape(String),
    /// No built-in template has this name.
    #[error("no built-in chat template is called {name:?} (known: {known})")]
    Unknown {
        /// The name asked for, or how it begins.
        name: String,
        /// All names.
        known: String,
    },
}

/// Marks an error as raised by the template itself (see `raise_exception` in `environment.rs`).
#[derive(Debug)]
pub(super) struct RaisedByTemplate;

impl std::fmt::Display for RaisedByTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for RaisedByTemplate {}

impl TemplateError {
    pub(super) fn compiling(error: &Error) -> TemplateError {
        TemplateError::Syntax { line: error.line().unwrap_or(0), message: message_of(error) }
    }

    pub(super) fn rendering(error: &Error, steps: u64) -> TemplateError {
        let line = error.line().unwrap_or(0);
        if error.kind() == ErrorKind::OutOfFuel {
            return TemplateError::Budget { line, steps };
        }
        let message = message_of(error);
        if std::error::Error::source(error).is_some_and(|source| source.is::<RaisedByTemplate>()) {
            return TemplateError::Raised { line, message };
        }
        TemplateError::Render { line, message }
    }

    /// The line of the template that the error is about, from 1, where one is known.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Syntax { line, .. }
            | Self::Raised { line, .. }
            | Self::Render { line, .. }
            | Self::Budget { line, .. } => (*line > 0).then_some(*line),
            _ => None,
        }
    }
}

/// Longest error text that is shown: a template may raise a message of any length.
const MAX_MESSAGE_CHARS: usize = 300;

fn message_of(error: &Error) -> String {
    let full = match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_string(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    let mut text: String = printable(&full).replace('\n', " ");
    if let Some((cut, _)) = text.char_indices().nth(MAX_MESSAGE_CHARS) {
        text.truncate(cut);
        text.push_str("...");
    }
    text
}
