//! Serving: scheduling, shared prefixes, admission, and what clients see of them.

mod answers;
mod bits;
mod common;
mod control;
mod memory;
mod order;
mod prefixes;
mod refusals;
mod soak;
