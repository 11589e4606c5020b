//! The engine from outside, on tiny models whose numbers are known and on the real ones.
//!
//! What counts something of the whole process (allocations, descriptors, faults, resident pages) is
//! a binary of its own beside this one: `cargo test` runs the tests of one binary as threads of one
//! process.

mod batch;
mod cache;
mod chat;
mod common;
mod documents;
mod expert_slots;
mod generation;
#[cfg(feature = "gpu")]
mod gpu;
mod keys;
mod lookup;
mod no_numbers;
mod no_vocabulary;
mod pages;
mod peaks;
mod pooled;
mod records;
mod refusals;
mod sampler;
mod sampler_dry;
mod saved;
mod score;
mod session;
mod split;
#[cfg(target_os = "linux")]
mod stream;
mod surface;
mod tiny;
mod widths;
