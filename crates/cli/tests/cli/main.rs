//! The real binary with real flags: on tiny models made here, and on real ones where they are at hand.

mod chat;
mod errors;
mod flags;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod lost_pages;
mod packed;
mod real;
mod residency;
#[cfg(unix)]
mod robust;
mod subcommands;
#[cfg(unix)]
mod terminal;
mod util;
