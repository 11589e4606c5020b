//! The parser from outside: what it reads, what it refuses, and its laws. Its memory is counted in
//! `tests/memory.rs`.

mod accessors;
mod goldens;
mod hostile;
mod laws;
mod raw;
mod splits;
