//! Metadata keys and tensors of each architecture, named as GGUF names them.

use modelembed_gguf::TensorType;

use super::vocab::{TINY_BOS, TINY_EOS, TINY_VOCAB, tiny_vocab};
use super::{TinyArch, TinyRope, TinySpec};
use crate::{GgufValue, Rng, random_tensor};

/// A tensor of a tiny model.
#[derive(Clone, Debug, PartialEq)]
pub struct TinyTensor {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// Its dimensions, the row length first.
    pub dims: Vec<u64>,
    /// Its values as stored.
    pub data: Vec<u8>,
}

impl TinyArch {
    /// The value of `general.architecture`, which is also the prefix of its keys.
    pub fn name(self) -> &'static str {
        match self {
            TinyArch::Llama => "llama",
            TinyArch::Qwen2 => "qwen2",
            TinyArch::Qwen3 => "qwen3",
            TinyArch::Gemma3 => "gemma3",
        }
    }
}

/// All metadata of the model, in file order.
pub fn metadata(spec: &TinySpec) -> Vec<(String, GgufValue)> {
    let arch = spec.arch.name();
    let mut out = vec![
        ("general.architecture".to_owned(), GgufValue::from(arch)),
        ("general.name".to_owned(), GgufValue::from(format!("tiny {}", spec.name))),
    ];
    let mut own = |key: &str, value: GgufValue| out.push((format!("{arch}.{key}"), value));
    let u32 = |v: usize| GgufValue::U32(v as u32);
    own("block_count", u32(spec.n_layer));
    own("context_length", u32(1024));
    own("embedding_length", u32(spec.n_embd));
    own("feed_forward_length", u32(spec.n_ff));
    own("attention.head_count", u32(spec.n_head));
    own("attention.head_count_kv", u32(spec.n_head_kv));
    own("attention.layer_norm_rms_epsilon", GgufValue::F32(1e-5));
    own("rope.freq_base", GgufValue::F32(spec.rope_freq_base));
    if spec.head_dim * spec.n_head != spec.n_embd {
        own("attention.key_length", u32(spec.head_dim));
        own("attention.value_length", u32(spec.head_dim));
    }
    // gemma3 files leave the key out: the whole head is rotated.
    if spec.rope_dims != spec.head_dim || spec.arch != TinyArch::Gemma3 {
        own("rope.dimension_count", u32(spec.rope_dims));
    }
    let mut scaling = |kind: &str, factor: f32| {
        own("rope.scaling.type", GgufValue::from(kind));
        own("rope.scaling.factor", GgufValue::F32(factor));
    };
    match spec.rope {
        TinyRope::Plain | TinyRope::Factors => {}
        TinyRope::Linear(factor) => scaling("linear", factor),
        TinyRope::Yarn(factor, original) => {
            scaling("yarn", factor);
            own("rope.scaling.original_context_length", GgufValue::U32(original));
        }
    }
    if let Some(window) = spec.sliding_window {
        own("attention.sliding_window", GgufValue::U32(window));
    }
    out.extend(vocab_metadata());
    out
}

fn vocab_metadata() -> Vec<(String, GgufValue)> {
    let vocab = tiny_vocab();
    let entries = [
        ("model", GgufValue::from("llama")),
        ("tokens", GgufValue::from(vocab.iter().map(|t| t.text.clone()).collect::<Vec<_>>())),
        ("scores", GgufValue::from(vocab.iter().map(|t| t.score).collect::<Vec<_>>())),
        ("token_type", GgufValue::from(vocab.iter().map(|t| t.kind).collect::<Vec<_>>())),
        ("bos_token_id", GgufValue::U32(TINY_BOS)),
        ("eos_token_id", GgufValue::U32(TINY_EOS)),
        ("unknown_token_id", GgufValue::U32(0)),
        ("add_bos_token", GgufValue::Bool(true)),
    ];
    entries.map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).into()
}

/// Draws each tensor from a generator of its own (seed and name), so adding one leaves the others as they are.
struct Draw<'a> {
    spec: &'a TinySpec,
    out: Vec<TinyTensor>,
}

impl Draw<'_> {
    /// A matrix of `rows` x `k`, of the spec's type. At `gain` 1 it keeps the size of a random input.
    fn matrix(&mut self, name: String, rows: usize, k: usize, gain: f32) {
        let mut rng = Rng::for_name(self.spec.seed, &name);
        let data = random_tensor(self.spec.ty, rows, k, gain / (k as f32).sqrt(), &mut rng);
        self.out.push(TinyTensor { name, ty: self.spec.ty, dims: vec![k as u64, rows as u64], data });
    }

    /// An F32 vector of values around `centre`.
    fn vector(&mut self, name: String, n: usize, centre: f32, deviation: f32) {
        let mut rng = Rng::for_name(self.spec.seed, &name);
        let data = (0..n).flat_map(|_| (centre + deviation * rng.normal()).to_le_bytes()).collect();
        self.out.push(TinyTensor { name, ty: TensorType::F32, dims: vec![n as u64], data });
    }

    fn norm(&mut self, name: String, n: usize) {
        self.vector(name, n, 1.0, 0.2);
    }

    fn layer(&mut self, i: usize) {
        let spec = self.spec;
        let (embd, head) = (spec.n_embd, spec.head_dim);
        let (q, kv) = (spec.n_head * head, spec.n_head_kv * head);
        let name = |part: &str| format!("blk.{i}.{part}");
        self.norm(name("attn_norm.weight"), embd);
        // Queries and keys of more than unit size: attention that is far from uniform shows a wrong position.
        for (part, rows, gain) in [("attn_q", q, 1.5), ("attn_k", kv, 1.5), ("attn_v", kv, 1.0)] {
            self.matrix(name(&format!("{part}.weight")), rows, embd, gain);
            if spec.arch == TinyArch::Qwen2 {
                self.vector(name(&format!("{part}.bias")), rows, 0.0, 0.5);
            }
        }
        self.matrix(name("attn_output.weight"), embd, q, 1.0);
        if matches!(spec.arch, TinyArch::Qwen3 | TinyArch::Gemma3) {
            self.norm(name("attn_q_norm.weight"), head);
            self.norm(name("attn_k_norm.weight"), head);
        }
        self.norm(name("ffn_norm.weight"), embd);
        self.matrix(name("ffn_gate.weight"), spec.n_ff, embd, 1.0);
        self.matrix(name("ffn_up.weight"), spec.n_ff, embd, 1.0);
        self.matrix(name("ffn_down.weight"), embd, spec.n_ff, 2.0);
        if spec.arch == TinyArch::Gemma3 {
            self.norm(name("post_attention_norm.weight"), embd);
            self.norm(name("post_ffw_norm.weight"), embd);
        }
    }

    /// Divisors of the frequencies: 1 for the fast half, then rising to 8, as Llama 3.1's are.
    fn rope_factors(&mut self) {
        let n = self.spec.rope_dims / 2;
        let factor = |i: usize| if i < n / 2 { 1.0 } else { 1.0 + 7.0 * (i - n / 2 + 1) as f32 / (n - n / 2) as f32 };
        let data = (0..n).flat_map(|i| factor(i).to_le_bytes()).collect();
        self.out.push(TinyTensor {
            name: "rope_freqs.weight".to_owned(),
            ty: TensorType::F32,
            dims: vec![n as u64],
            data,
        });
    }
}

/// All tensors of the model, in file order.
pub fn tensors(spec: &TinySpec) -> Vec<TinyTensor> {
    let mut draw = Draw { spec, out: Vec::new() };
    // Tied embeddings are the output matrix as well: a gain of 3 spreads the logits over a few units.
    draw.matrix("token_embd.weight".to_owned(), TINY_VOCAB, spec.n_embd, 3.0);
    if spec.rope == TinyRope::Factors {
        draw.rope_factors();
    }
    for i in 0..spec.n_layer {
        draw.layer(i);
    }
    draw.norm("output_norm.weight".to_owned(), spec.n_embd);
    if !spec.tied {
        draw.matrix("output.weight".to_owned(), TINY_VOCAB, spec.n_embd, 3.0);
    }
    draw.out
}
