//! Many users at once on one model.
//!
//! [`start`] gives an engine a thread of its own and returns a [`Handle`]. A [`Request`] that is
//! submitted there is refused at once or becomes an [`Answer`], a receiver of [`Event`]s. The
//! thread evaluates all answers together: a step has one row of each that is being written, and a
//! slice of a prompt that is short enough for the others not to notice. What was computed of
//! prompts and answers is kept in a tree of prefixes for whoever begins with the same tokens.
//!
//! ```no_run
//! use modelembed_serve::{Event, Options, Request, start};
//!
//! let model = modelembed::Model::open("model.gguf")?;
//! let prompt = model.tokenizer().encode(b"Once upon a time", Default::default())?;
//! let handle = start(model, Options::default())?;
//! let mut answer = handle.submit(Request::new(prompt))?;
//! while let Some(event) = answer.blocking_next() {
//!     if let Event::Token { text, .. } = event {
//!         print!("{text}");
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod answer;
mod handle;
mod inbox;
mod likely;
mod options;
mod pace;
mod refused;
mod request;
mod scheduler;
mod status;
mod task;
mod tree;
mod voice;

pub use answer::{Answer, End, EndReason, Event, Usage};
pub use handle::{Handle, start};
pub use options::Options;
pub use refused::{Refused, StartError};
pub use request::Request;
pub use status::{Limits, Status, Totals};
