//! One file of a model.

use modelembed_gguf::{Gguf, TensorInfo};
use modelembed_storage::Storage;

/// One file of a model with its directory.
pub(crate) struct Shard {
    pub storage: Storage,
    pub gguf: Gguf,
}

/// Directory of all files.
pub(crate) fn directory(shards: &[Shard]) -> impl Iterator<Item = &TensorInfo> + Clone {
    shards.iter().flat_map(|s| s.gguf.tensors())
}
