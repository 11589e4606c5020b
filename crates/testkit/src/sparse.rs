//! A model file as large as one likes that takes next to no disk space: a true header, and tensors
//! that are a hole.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use modelembed_gguf::{HeaderWriter, TensorType};

use crate::models::wants;
use crate::{TinyArch, TinySpec, tiny_metadata};

const N_EMBD: usize = 1024;
const N_FF: usize = 4096;
const N_HEAD: usize = 16;
const HEAD_DIM: usize = N_EMBD / N_HEAD;

/// Writes a llama of `n_layer` layers, all F32 and all zeros, and returns its length: about 56.5
/// MiB a layer.
///
/// # Errors
/// A file system that refuses such a length, or any other failure to write.
pub fn sparse_model(path: &Path, n_layer: usize) -> io::Result<u64> {
    let spec = TinySpec {
        n_layer,
        n_embd: N_EMBD,
        n_ff: N_FF,
        n_head: N_HEAD,
        n_head_kv: 1,
        head_dim: HEAD_DIM,
        rope_dims: HEAD_DIM,
        ..TinySpec::new("sparse", TinyArch::Llama)
    };
    let mut header = HeaderWriter::default();
    for (key, value) in tiny_metadata(&spec) {
        header.pair(&key, value);
    }
    let mut data_bytes = 0;
    for want in wants(&spec) {
        let n_bytes = 4 * want.dims.iter().product::<u64>();
        header.tensor(&want.name, TensorType::F32, &want.dims, n_bytes);
        data_bytes += n_bytes.next_multiple_of(32);
    }
    let header = header.build();
    let mut file = File::create(path)?;
    file.write_all(&header)?;
    let len = header.len() as u64 + data_bytes;
    file.set_len(len)?;
    file.sync_all()?;
    Ok(len)
}
