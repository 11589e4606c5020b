//! From files to a model that is ready to run.

pub(crate) mod files;
pub(crate) mod locking;
pub(crate) mod model;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod prefetch;
pub(crate) mod shard;
pub(crate) mod share;
pub(crate) mod tensors;
