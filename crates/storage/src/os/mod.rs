//! One file an operating system, all with the same functions:
//!
//! - `read_at(file, out, offset)`: one read at an offset, as long as the system likes;
//! - `irregular_kind(metadata)`: what a file is that is no regular file;
//! - `file_id(metadata)`: what tells a file from every other, if there is such a number;
//! - `tells_residency(file, metadata)`: whether `resident_bytes` of a mapping of the file can be
//!   believed;
//! - `resident_bytes(bytes)`: how much of mapped or reserved memory is in RAM;
//! - `mapped_resident_bytes(bytes)`: how much of a mapping stands in this process's page tables;
//! - `prefetch(bytes)`: bring mapped memory in; `prefetch_only(bytes)`: and nothing around it;
//! - `advise(bytes, advice)`: say how the pages of a mapped file will be used;
//! - `anonymous(len)`: an `Anonymous`, zeros at a page boundary that cost memory only once they are
//!   written;
//! - `evict(file, bytes, range)`: drop a range of a file, mapped as `bytes`, from the cache; false
//!   where there is no way;
//! - `lock(bytes)`: keep memory from being paged out; `lockable_bytes()`: how much of it may be;
//! - `open_direct(path)`: opens a file for reads past the page cache, if there are any that nothing
//!   in the cache answers;
//! - `advise_huge_pages(bytes)`: larger pages serve this memory better, if the system has them;
//! - `handle_lost_pages()`, `keep_terminal_modes()`: see [`crate::report_lost_pages`] and
//!   [`crate::restore_before_report`];
//! - `Ring`: many reads under way by one thread, where the system has such a thing;
//! - `snapshot()`, `machine_memory_bytes()`, `groups_memory_bytes()`, `stdin_is_pipe_or_file()`,
//!   `ignores_signal(signal)`: see [`crate::process`].

#[cfg(unix)]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code, reason = "`other` asks for little"))]
mod unix;

#[cfg(not(target_os = "linux"))]
mod no_ring;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(not(target_os = "linux"))]
pub(crate) use no_ring::Ring;
#[cfg(target_os = "linux")]
pub(crate) use ring::Ring;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::*;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::*;

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
mod other;
#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
pub(crate) use other::*;
