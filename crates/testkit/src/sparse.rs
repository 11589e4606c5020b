//! A model file as large as one likes that takes next to no disk space: a true header, and tensors that are a hole.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use modelembed_gguf::{HeaderWriter, TensorType};

use crate::{TINY_VOCAB, TinyArch, TinySpec, tiny_metadata};

const N_EMBD: u64 = 1024;
const N_FF: u64 = 4096;
const N_HEAD: u64 = 16;
const HEAD_DIM: u64 = N_EMBD / N_HEAD;

/// Writes a llama of `n_layer` layers, all F32 and all zeros, and returns its length: about 56.5 MiB a layer.
///
/// # Errors
/// A file system that refuses such a length, or any other failure to write.
pub fn sparse_model(path: &Path, n_layer: usize) -> io::Result<u64> {
    let spec = TinySpec {
        n_layer,
        n_embd: N_EMBD as usize,
        n_ff: N_FF as usize,
        n_head: N_HEAD as usize,
        n_head_kv: 1,
        head_dim: HEAD_DIM as usize,
        rope_dims: HEAD_DIM as usize,
        ..TinySpec::new("sparse", TinyArch::Llama)
    };
    let mut header = HeaderWriter::default();
    for (key, value) in tiny_metadata(&spec) {
        header.pair(&key, value);
    }
    let mut data_bytes = 0;
    let mut tensor = |name: &str, dims: &[u64]| {
        let n_bytes = 4 * dims.iter().product::<u64>();
        header.tensor(name, TensorType::F32, dims, n_bytes);
        data_bytes += n_bytes.next_multiple_of(32);
    };
    let vocab = TINY_VOCAB as u64;
    tensor("token_embd.weight", &[N_EMBD, vocab]);
    for layer in 0..n_layer {
        for (name, dims) in [
            ("attn_norm", &[N_EMBD][..]),
            ("attn_q", &[N_EMBD, N_EMBD]),
            ("attn_k", &[N_EMBD, HEAD_DIM]),
            ("attn_v", &[N_EMBD, HEAD_DIM]),
            ("attn_output", &[N_EMBD, N_EMBD]),
            ("ffn_norm", &[N_EMBD]),
            ("ffn_gate", &[N_EMBD, N_FF]),
            ("ffn_up", &[N_EMBD, N_FF]),
            ("ffn_down", &[N_FF, N_EMBD]),
        ] {
            tensor(&format!("blk.{layer}.{name}.weight"), dims);
        }
    }
    tensor("output_norm.weight", &[N_EMBD]);
    tensor("output.weight", &[N_EMBD, vocab]);
    let header = header.build();
    let mut file = File::create(path)?;
    file.write_all(&header)?;
    let len = header.len() as u64 + data_bytes;
    file.set_len(len)?;
    file.sync_all()?;
    Ok(len)
}
