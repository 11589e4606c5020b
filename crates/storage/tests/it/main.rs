//! Files and memory, from outside. Figures of the whole process are counted in `tests/counting.rs`.

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod lost_pages;
mod modes;
#[cfg(target_os = "linux")]
mod other_user;
#[cfg(target_os = "linux")]
mod readers;
mod slots;
