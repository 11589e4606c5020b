//! Where a model's bytes live, and what the operating system says about them.
//!
//! - [`Storage`] is one file in one of three [`LoadMode`]s: mapped (shared pages of the page cache,
//!   no private memory), in one buffer, or one allocation a tensor. All three hand out the same
//!   bytes.
//! - [`Reserved`] is memory that is asked for but not touched: pages come zeroed from the operating
//!   system when they are first written. A [`Slab`] hands such memory out in equal [`Block`]s.
//! - [`Stream`] reads a part of mapped files through a few windows of memory again and again:
//!   models larger than RAM. [`Slots`] keep those items of mapped files that were used last, as
//!   experts of a mixture.
//! - [`process`] measures the process: page faults, resident, private and shared bytes.
//! - [`mappers`] finds the processes that map a file; [`Storage::residency`] and [`Storage::evict`]
//!   are about its cached pages.
//! - [`CountingAllocator`] counts what the heap holds.
//!
//! [`Storage::changed`] tells what became of a mapped file. One that another program truncates
//! raises SIGBUS (an access violation on Windows) where its lost pages are read;
//! [`LoadMode::Buffer`] avoids that at the price of a copy, and [`report_lost_pages`] turns it into
//! a message.

mod advice;
mod alloc;
mod change;
mod direct;
mod error;
mod evict;
mod lock;
mod lost_pages;
mod mappers;
mod memory;
mod os;
mod probe;
pub mod process;
mod read;
mod readers;
mod region;
mod report;
mod slab;
mod slots;
mod snapshot;
mod storage;
mod stream;

pub use advice::Advice;
pub use alloc::CountingAllocator;
pub use change::Change;
pub use error::StorageError;
pub use lock::lockable_bytes;
pub use mappers::{Mapper, Mappers, mappers};
pub use probe::DiskSpeed;
pub use read::Progress;
pub use region::{Plain, Reserved};
pub use report::{hint_in_report, report_lost_pages, restore_before_report, write_before_report};
pub use slab::{BLOCK_ALIGN, Block, Slab};
pub use slots::{Held, Keep, SlotOptions, SlotStats, Slots};
pub use storage::{LoadMode, Residency, SharedBytes, Storage};
pub use stream::{Stream, StreamOptions, StreamReader, StreamStats, StreamedRange};
