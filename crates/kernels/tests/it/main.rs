//! The kernels from outside: every table against the definition, goldens, and unreadable pages.

mod goldens;
#[cfg(unix)]
mod guard;
mod law;
