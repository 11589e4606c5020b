//! The real binary with real flags: on tiny models made here, and on real ones where they are at
//! hand.

#[cfg(target_os = "linux")]
mod cgroup;
mod chat;
mod errors;
mod flags;
mod gpu;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod lost_pages;
#[cfg(unix)]
mod names;
mod packed;
mod plan;
#[cfg(target_os = "linux")]
mod progress;
mod real;
mod residency;
#[cfg(unix)]
mod robust;
mod sampling;
mod score;
#[cfg(unix)]
mod screen;
mod serve;
#[cfg(target_os = "linux")]
mod session;
mod shared;
#[cfg(target_os = "linux")]
mod signals;
mod subcommands;
#[cfg(unix)]
mod terminal;
#[cfg(unix)]
mod typing;
mod util;
