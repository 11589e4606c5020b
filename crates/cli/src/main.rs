//! The modelembed command.
#![forbid(unsafe_code)]

fn main() {}
