//! The real binary with real flags: on tiny models made here, and on real ones where they are at hand.

mod chat;
mod errors;
mod flags;
mod real;
mod residency;
mod subcommands;
#[cfg(unix)]
mod terminal;
mod util;
