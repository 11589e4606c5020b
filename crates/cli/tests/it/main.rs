//! The real binary with real flags: on tiny models made here, and on real ones where they are at hand.

#[cfg(target_os = "linux")]
mod cgroup;
mod chat;
mod errors;
mod flags;
mod gpu;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod lost_pages;
mod packed;
mod plan;
mod real;
mod residency;
#[cfg(unix)]
mod robust;
#[cfg(target_os = "linux")]
mod shared;
mod subcommands;
#[cfg(unix)]
mod terminal;
mod util;
