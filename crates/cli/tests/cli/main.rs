//! The real binary with real flags: on tiny models made here, and on real ones where they are at hand.

mod chat;
mod errors;
mod flags;
mod gpu;
mod real;
mod subcommands;
#[cfg(unix)]
mod terminal;
mod util;
