//! Bodies of requests, read into what they ask for.

pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod fields;
pub(crate) mod sampling;
