//! Finds the real models that tests run on.

use std::path::{Path, PathBuf};

/// File name of the chat model: byte-level BPE, Q4_1.
pub const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// File name of the base model with a large vocabulary: SentencePiece BPE, mixed K-quants.
pub const GEMMA3: &str = "gemma-3-270m-q4_k_m.gguf";

/// A real model by its file name, in `$MODELEMBED_MODELS` or else the workspace's `models` folder.
///
/// `None`, with the reason on standard error, where the file is not there.
///
/// # Panics
/// Where it is not there and `MODELEMBED_REQUIRE_MODELS` is set.
pub fn real_model(file_name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("MODELEMBED_MODELS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"), PathBuf::from);
    let path = dir.join(file_name);
    if path.is_file() {
        return Some(path);
    }
    assert!(std::env::var_os("MODELEMBED_REQUIRE_MODELS").is_none(), "{} is not there", path.display());
    eprintln!("skipped: {} is not there (scripts/fetch-model.sh fetches it)", path.display());
    None
}
