//! Persistent worker threads for tiny parallel loops.
//!
//! Generating one token opens some 150 parallel loops of 10 to 100 µs each, so what matters here is
//! the cost of starting and ending a loop, and what happens when the operating system takes a CPU
//! away in the middle of one.
//!
//! * [`Pool::run`] deals the items `0..n` in chunks. Each worker owns a contiguous share, takes
//!   from its front, and when it is done steals single chunks from the backs of others. The calling
//!   thread is worker 0. A loop allocates nothing, and it ends when every *chunk* is done: a worker
//!   that never woke up is not waited for.
//! * [`Split`] is how the output is dealt: each chunk gets a mutable part of it ([`Rows`] or
//!   [`Tiles`] of a matrix, [`Blocks`] of a slice, elements of a slice, one of those for [`Groups`]
//!   of items, or a tuple of them), disjoint from every other part. Callers need no `unsafe`.
//! * [`PerWorker`] is scratch memory, one value a worker, reached through the [`Worker`] token of
//!   the running chunk.
//! * [`available_threads`] says how many workers this process should use: allowed physical cores.
//!
//! Idle workers spin for some tens of microseconds, which covers the gaps between the loops of one
//! token, and then park. A pool with more threads than the process has CPUs hardly spins at all.
//! Workers that other processes keep off their CPUs are left out of short loops for a while
//! (Linux).
//!
//! ```
//! use modelembed_pool::{PerWorker, Pool};
//!
//! let pool = Pool::new(2);
//! let scratch = PerWorker::new(&pool, |_| 0u64);
//! let mut squares = vec![0u64; 1000];
//! pool.run(1000, 64, &mut squares[..], |items, part, worker| {
//!     for (i, square) in items.zip(part) {
//!         *square = (i * i) as u64;
//!         *scratch.get(worker) += 1;
//!     }
//! });
//! assert_eq!(squares[31], 961);
//! assert_eq!(scratch.into_iter().sum::<u64>(), 1000);
//! ```

mod contention;
mod per_worker;
mod pool;
mod share;
mod split;
mod tiles;
mod topology;
mod worker;

pub use per_worker::PerWorker;
pub use pool::Pool;
pub use split::{Blocks, Groups, Rows, RowsPart, Runs, Split};
pub use tiles::{Cut, Grid, Strips, Tiles};
pub use topology::available_threads;
pub use worker::Worker;
