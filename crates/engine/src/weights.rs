//! The model's tensors, each asked for by name with the shape that the configuration implies.

use std::collections::HashSet;

use modelembed_gguf::{TensorInfo, TensorType};
use modelembed_kernels::Kernels;

use crate::config::Config;
use crate::error::{Error, Result};

/// Where a matrix lies and what it is. A vector is a matrix of one row.
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    /// Which file of a split model, from 0.
    pub shard: usize,
    /// First byte in that file.
    pub offset: u64,
    /// Length in bytes: `rows` rows of `k` elements.
    pub n_bytes: u64,
    /// How elements are stored.
    pub ty: TensorType,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub k: usize,
}

/// Tensors of one transformer block. Shapes are (rows, row length).
#[derive(Clone, Debug)]
pub struct Layer {
    /// RMS norm before attention: (1, n_embd).
    pub attn_norm: Tensor,
    /// Query projection: (n_head * head_dim, n_embd).
    pub wq: Tensor,
    /// Key projection: (n_head_kv * head_dim, n_embd).
    pub wk: Tensor,
    /// Value projection: (n_head_kv * head_dim, n_embd).
    pub wv: Tensor,
    /// Output projection: (n_embd, n_head * head_dim).
    pub wo: Tensor,
    /// Biases of the four projections.
    pub bq: Option<Tensor>,
    /// See `bq`.
    pub bk: Option<Tensor>,
    /// See `bq`.
    pub bv: Option<Tensor>,
    /// See `bq`.
    pub bo: Option<Tensor>,
    /// RMS norm of each query head: (1, head_dim).
    pub q_norm: Option<Tensor>,
    /// RMS norm of each key head: (1, head_dim).
    pub k_norm: Option<Tensor>,
    /// RMS norm of the attention's output: (1, n_embd).
    pub post_attn_norm: Option<Tensor>,
    /// RMS norm before the feed-forward network: (1, n_embd).
    pub ffn_norm: Tensor,
    /// Gate: (n_ff, n_embd).
    pub gate: Tensor,
    /// Up projection: (n_ff, n_embd).
    pub up: Tensor,
    /// Down projection: (n_embd, n_ff).
    pub down: Tensor,
    /// Biases of the feed-forward network.
    pub gate_bias: Option<Tensor>,
    /// See `gate_bias`.
    pub up_bias: Option<Tensor>,
    /// See `gate_bias`.
    pub down_bias: Option<Tensor>,
    /// RMS norm of the feed-forward network's output: (1, n_embd).
    pub post_ffn_norm: Option<Tensor>,
}

impl Layer {
    /// The block's tensors in the order in which a token needs them.
    pub fn in_use_order(&self) -> impl Iterator<Item = Tensor> + use<> {
        self.attention().chain(self.feed_forward())
    }

    /// The tensors of its first half, in that order.
    pub(crate) fn attention(&self) -> impl Iterator<Item = Tensor> + use<> {
        [
            Some(self.attn_norm),
            Some(self.wq),
            Some(self.wk),
            Some(self.wv),
            self.bq,
            self.bk,
            self.bv,
            self.q_norm,
            self.k_norm,
            Some(self.wo),
            self.bo,
        ]
        .into_iter()
        .flatten()
    }

    /// The tensors of its second half. It begins with joining what the first one made.
    pub(crate) fn feed_forward(&self) -> impl Iterator<Item = Tensor> + use<> {
        [
            self.post_attn_norm,
            Some(self.ffn_norm),
            Some(self.gate),
            Some(self.up),
            self.gate_bias,
            self.up_bias,
            Some(self.down),
            self.down_bias,
            self.post_ffn_norm,
        ]
        .into_iter()
        .flatten()
    }
}

/// All tensors of a model.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Embedding of every token: (n_vocab, n_embd).
    pub token_embd: Tensor,
    /// Last RMS norm: (1, n_embd).
    pub output_norm: Tensor,
    /// Output head: (n_vocab, n_embd); the embedding itself in models that tie the two.
    pub output: Tensor,
    /// Bias of the output head: (1, n_vocab).
    pub output_bias: Option<Tensor>,
    /// Divisors of the RoPE angles: (1, n_rot / 2).
    pub rope_freqs: Option<Tensor>,
    /// Transformer blocks, first to last.
    pub layers: Vec<Layer>,
}

impl Weights {
    /// Finds every tensor of the architecture among `tensors` and checks types and shapes.
    ///
    /// # Errors
    /// A missing tensor, a wrong shape, a type that cannot be computed with, or a tensor left over.
    pub fn find<'a>(tensors: impl Iterator<Item = &'a TensorInfo> + Clone, config: &'a Config) -> Result<Weights> {
        let mut finder = Finder::new(tensors.clone(), config);
        let weights = finder.weights()?;
        finder.check_leftovers(tensors)?;
        Ok(weights)
    }

    /// Every tensor in the order in which a token needs them.
    pub fn in_use_order(&self) -> impl Iterator<Item = Tensor> {
        let layers = self.layers.iter().flat_map(Layer::in_use_order);
        let tied = self.has_tied_head();
        let head = [Some(self.output_norm), Some(self.output), self.output_bias, self.rope_freqs];
        layers.chain(head.into_iter().flatten()).chain((!tied).then_some(self.token_embd))
    }

    /// Bytes that one token reads: every matrix once, and of the embedding one row.
    pub fn bytes_per_token(&self) -> u64 {
        let embedding_row = self.token_embd.n_bytes / self.token_embd.rows.max(1) as u64;
        let all: u64 = self.in_use_order().map(|t| t.n_bytes).sum();
        if self.has_tied_head() { all + embedding_row } else { all - self.token_embd.n_bytes + embedding_row }
    }

    /// Whether the output head is the token embedding.
    pub(crate) fn has_tied_head(&self) -> bool {
        self.output.offset == self.token_embd.offset && self.output.shard == self.token_embd.shard
    }
}

struct Finder<'a> {
    by_name: std::collections::HashMap<&'a str, &'a TensorInfo>,
    used: HashSet<&'a str>,
    config: &'a Config,
}

impl<'a> Finder<'a> {
    fn new(tensors: impl Iterator<Item = &'a TensorInfo>, config: &'a Config) -> Self {
        let by_name = tensors.map(|t| (t.name.as_str(), t)).collect();
        Finder { by_name, used: HashSet::new(), config }
    }

    fn weights(&mut self) -> Result<Weights> {
        let c = self.config;
        let n_vocab = self.by_name.get("token_embd.weight").and_then(|t| t.dims.get(1).copied()).unwrap_or(0) as usize;
        let token_embd = self.matrix("token_embd.weight", n_vocab, c.n_embd)?;
        if token_embd.rows == 0 {
            let wanted = vec![c.n_embd as u64, 1];
            return Err(Error::TensorShape {
                name: "token_embd.weight".into(),
                seen: vec![token_embd.k as u64, 0],
                wanted,
            });
        }
        let output = self.optional_matrix("output.weight", n_vocab, c.n_embd)?;
        let layers = (0..c.n_layer).map(|il| self.layer(il)).collect::<Result<Vec<_>>>()?;
        Ok(Weights {
            token_embd,
            output_norm: self.vector("output_norm.weight", c.n_embd)?,
            output: output.unwrap_or(token_embd),
            output_bias: self.optional_vector("output.bias", n_vocab)?,
            rope_freqs: self.optional_vector("rope_freqs.weight", c.rope.n_rot / 2)?,
            layers,
        })
    }

    fn layer(&mut self, il: usize) -> Result<Layer> {
        let c = self.config;
        let (q_rows, kv_rows) = (c.q_rows(), c.kv_rows());
        let name = |part: &str| format!("blk.{il}.{part}");
        let needs_bias = c.arch.needs_qkv_bias;
        Ok(Layer {
            attn_norm: self.vector(&name("attn_norm.weight"), c.n_embd)?,
            wq: self.matrix(&name("attn_q.weight"), q_rows, c.n_embd)?,
            wk: self.matrix(&name("attn_k.weight"), kv_rows, c.n_embd)?,
            wv: self.matrix(&name("attn_v.weight"), kv_rows, c.n_embd)?,
            wo: self.matrix(&name("attn_output.weight"), c.n_embd, q_rows)?,
            bq: self.vector_if(needs_bias, &name("attn_q.bias"), q_rows)?,
            bk: self.vector_if(needs_bias, &name("attn_k.bias"), kv_rows)?,
            bv: self.vector_if(needs_bias, &name("attn_v.bias"), kv_rows)?,
            bo: self.optional_vector(&name("attn_output.bias"), c.n_embd)?,
            q_norm: self.only_if(c.arch.has_qk_norm, &name("attn_q_norm.weight"), c.head_dim)?,
            k_norm: self.only_if(c.arch.has_qk_norm, &name("attn_k_norm.weight"), c.head_dim)?,
            post_attn_norm: self.only_if(c.arch.has_post_norm, &name("post_attention_norm.weight"), c.n_embd)?,
            ffn_norm: self.vector(&name("ffn_norm.weight"), c.n_embd)?,
            gate: self.matrix(&name("ffn_gate.weight"), c.n_ff, c.n_embd)?,
            up: self.matrix(&name("ffn_up.weight"), c.n_ff, c.n_embd)?,
            down: self.matrix(&name("ffn_down.weight"), c.n_embd, c.n_ff)?,
            gate_bias: self.optional_vector(&name("ffn_gate.bias"), c.n_ff)?,
            up_bias: self.optional_vector(&name("ffn_up.bias"), c.n_ff)?,
            down_bias: self.optional_vector(&name("ffn_down.bias"), c.n_embd)?,
            post_ffn_norm: self.only_if(c.arch.has_post_norm, &name("post_ffw_norm.weight"), c.n_embd)?,
        })
    }

    fn matrix(&mut self, name: &str, rows: usize, k: usize) -> Result<Tensor> {
        self.optional_matrix(name, rows, k)?.ok_or_else(|| self.missing(name))
    }

    fn optional_matrix(&mut self, name: &str, rows: usize, k: usize) -> Result<Option<Tensor>> {
        let Some(info) = self.take(name, &[k as u64, rows as u64])? else { return Ok(None) };
        if !Kernels::supports(info.ty) {
            let known = TensorType::all().filter(|&t| Kernels::supports(t)).map(|t| t.name());
            let wanted = format!("computable types are {}", known.collect::<Vec<_>>().join(" "));
            return Err(Error::TensorType { name: name.to_owned(), seen: info.ty, wanted });
        }
        Ok(Some(tensor(info, rows, k)))
    }

    fn vector(&mut self, name: &str, k: usize) -> Result<Tensor> {
        self.optional_vector(name, k)?.ok_or_else(|| self.missing(name))
    }

    fn optional_vector(&mut self, name: &str, k: usize) -> Result<Option<Tensor>> {
        let Some(info) = self.take(name, &[k as u64])? else { return Ok(None) };
        if info.ty != TensorType::F32 {
            let wanted = "vectors (norms, biases) must be F32".to_owned();
            return Err(Error::TensorType { name: name.to_owned(), seen: info.ty, wanted });
        }
        Ok(Some(tensor(info, 1, k)))
    }

    /// Needed if `needed`, else taken where it is there.
    fn vector_if(&mut self, needed: bool, name: &str, k: usize) -> Result<Option<Tensor>> {
        if needed { self.vector(name, k).map(Some) } else { self.optional_vector(name, k) }
    }

    /// Needed if `needed`, else not looked for: where it is there all the same, it is a leftover.
    fn only_if(&mut self, needed: bool, name: &str, k: usize) -> Result<Option<Tensor>> {
        if needed { self.vector(name, k).map(Some) } else { Ok(None) }
    }

    fn take(&mut self, name: &str, wanted: &[u64]) -> Result<Option<&'a TensorInfo>> {
        let Some((&key, &info)) = self.by_name.get_key_value(name) else { return Ok(None) };
        let seen: &[u64] = &info.dims;
        // Trailing dimensions of 1 change nothing: a vector may be written as (k, 1).
        let is_same = (0..seen.len().max(wanted.len()))
            .all(|i| seen.get(i).copied().unwrap_or(1) == wanted.get(i).copied().unwrap_or(1));
        if !is_same {
            return Err(Error::TensorShape { name: name.to_owned(), seen: seen.to_vec(), wanted: wanted.to_vec() });
        }
        self.used.insert(key);
        Ok(Some(info))
    }

    fn missing(&self, name: &str) -> Error {
        Error::MissingTensor { name: name.to_owned(), arch: self.config.arch.name }
    }

    fn check_leftovers(&self, tensors: impl Iterator<Item = &'a TensorInfo>) -> Result<()> {
        // Old converters stored the angles of RoPE, which follow from the metadata.
        let harmless = |name: &str| name.ends_with("attn_rot_embd") || name.ends_with("attn_rot_embd.weight");
        match tensors.map(|t| t.name.as_str()).find(|n| !self.used.contains(n) && !harmless(n)) {
            Some(name) => Err(Error::UnusedTensor { name: name.to_owned(), arch: self.config.arch.name }),
            None => Ok(()),
        }
    }
}

fn tensor(info: &TensorInfo, rows: usize, k: usize) -> Tensor {
    Tensor { shard: usize::from(info.shard), offset: info.offset, n_bytes: info.n_bytes, ty: info.ty, rows, k }
}
