//! What the metadata says about a model, checked: every number here can be used as a size or a divisor.

use modelembed_gguf::{Array, Gguf, Number, Value};

use crate::arch::{self, Architecture};
use crate::error::{Error, Result};
use crate::rope::RopeScaling;

/// Hyper-parameters of a model. Names follow the GGUF keys.
#[derive(Clone, Debug)]
pub struct Config {
    /// The architecture's row in the table.
    pub arch: &'static Architecture,
    /// `general.name`, where given.
    pub name: Option<String>,
    /// Transformer blocks.
    pub n_layer: usize,
    /// Length of the residual stream.
    pub n_embd: usize,
    /// Length of the feed-forward network's hidden state.
    pub n_ff: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads; divides `n_head`.
    pub n_head_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Context that the model was trained for, in tokens.
    pub n_ctx_train: usize,
    /// Epsilon of the RMS norms.
    pub rms_eps: f32,
    /// Factor on query-key products.
    pub attn_scale: f32,
    /// RoPE of the layers that see the whole context.
    pub rope: RopeConfig,
    /// Window in tokens and RoPE of the layers that see only the last tokens.
    pub window: Option<WindowConfig>,
}

/// RoPE of one kind of layer.
#[derive(Clone, Copy, Debug)]
pub struct RopeConfig {
    /// Leading elements of a head that are rotated; even.
    pub n_rot: usize,
    /// Base of the angles.
    pub base: f32,
    /// Scaling for long contexts.
    pub scaling: RopeScaling,
}

/// Sliding-window attention (every layer but each `period`-th).
#[derive(Clone, Copy, Debug)]
pub struct WindowConfig {
    /// A token sees itself and the `n_tokens - 1` tokens before it.
    pub n_tokens: usize,
    /// Every `period`-th layer sees the whole context.
    pub period: usize,
    /// RoPE of the windowed layers.
    pub rope: RopeConfig,
}

/// Bounds that no real model reaches; they keep products of sizes far from overflow.
const MAX_LAYERS: u32 = 4096;
const MAX_LENGTH: u32 = 1 << 24;
const MAX_HEADS: u32 = 1 << 16;

impl Config {
    /// Reads and checks the hyper-parameters. `header` is what `gguf` was parsed from: arrays are read there.
    ///
    /// 0, an empty text and 4294967295 (-1) stand for a key that is absent, as llama.cpp writes every key that it has,
    /// unless 0 means something of its own.
    ///
    /// # Errors
    /// An unknown architecture, a missing key, a value of the wrong type or out of bounds, or one that asks for other
    /// mathematics than this library's; each names the key.
    pub fn from_gguf(gguf: &Gguf, header: &[u8]) -> Result<Config> {
        let name = string(gguf, "general.architecture")?
            .ok_or_else(|| bad("general.architecture", "is missing; it names the kind of model"))?;
        let arch =
            arch::find(&name).ok_or_else(|| Error::UnknownArchitecture { name: clean(&name), known: arch::names() })?;
        let mut keys = Keys { gguf, header, arch: arch.name, n_layer: 0 };
        keys.n_layer = keys.size("block_count", MAX_LAYERS)?;
        let n_layer = keys.n_layer;

        if let Some(n @ 1..) = keys.u32("expert_count")? {
            return Err(Error::Unsupported(format!("mixture of {n} experts ({}.expert_count)", arch.name)));
        }
        let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
        let n_head = keys.size_of_layers("attention.head_count", MAX_HEADS)?;
        let n_head_kv = match keys.same_in_every_layer("attention.head_count_kv")? {
            // 0 is not "absent" here: it marks layers without attention.
            Some(n) => keys.bounded("attention.head_count_kv", n, MAX_HEADS)?,
            None => n_head,
        };
        if n_head % n_head_kv != 0 {
            return Err(keys.bad("attention.head_count_kv", format!("{n_head_kv} does not divide the {n_head} heads")));
        }
        let head_dim = match keys.u32("attention.key_length")? {
            Some(n) => keys.bounded("attention.key_length", n, MAX_LENGTH)?,
            None if n_embd % n_head == 0 => n_embd / n_head,
            None => {
                return Err(
                    keys.bad("attention.head_count", format!("{n_head} does not divide the embedding length {n_embd}"))
                );
            }
        };
        if let Some(n) = keys.u32("attention.value_length")?
            && n as usize != head_dim
        {
            return Err(keys.bad("attention.value_length", format!("is {n}, wanted the key length {head_dim}")));
        }
        if head_dim % 2 != 0 {
            return Err(keys.bad("attention.key_length", format!("is {head_dim}, wanted an even number")));
        }
        let n_ctx_train = keys.size("context_length", u32::MAX)?;
        let rope = keys.rope(head_dim)?;
        keys.no_other_mathematics(n_embd, head_dim, rope.n_rot)?;
        Ok(Config {
            arch,
            name: string(gguf, "general.name")?,
            n_layer,
            n_embd,
            n_ff: keys.size_of_layers("feed_forward_length", MAX_LENGTH)?,
            n_head,
            n_head_kv,
            head_dim,
            n_ctx_train,
            rms_eps: keys.epsilon()?,
            attn_scale: keys.attn_scale(n_layer, n_embd, n_head, head_dim)?,
            rope,
            window: keys.window(rope, n_ctx_train)?,
        })
    }

    /// Whether layer `il` sees only the last tokens.
    pub fn is_windowed(&self, il: usize) -> bool {
        self.window.is_some_and(|w| !(il + 1).is_multiple_of(w.period))
    }

    /// Rows of all query heads: `n_head * head_dim`.
    pub fn q_rows(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Rows of all key (or value) heads: `n_head_kv * head_dim`.
    pub fn kv_rows(&self) -> usize {
        self.n_head_kv * self.head_dim
    }

    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.n_head / self.n_head_kv
    }
}

/// The metadata of one architecture.
struct Keys<'a> {
    gguf: &'a Gguf,
    header: &'a [u8],
    arch: &'static str,
    n_layer: usize,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn bad(&self, key: &str, problem: String) -> Error {
        Error::Metadata { key: self.full(key), problem }
    }

    /// The number as it stands in the file.
    fn stored_u32(&self, key: &str) -> Result<Option<u32>> {
        let key = self.full(key);
        self.gguf.u32(&key).map_err(|e| unusable(&key, e))
    }

    /// A number for which 0 and -1 mean that it is not given.
    fn u32(&self, key: &str) -> Result<Option<u32>> {
        Ok(self.stored_u32(key)?.filter(|n| !matches!(*n, 0 | u32::MAX)))
    }

    /// A number for which 0 means that it is not given.
    fn f32(&self, key: &str) -> Result<Option<f32>> {
        Ok(self.stored_f32(key)?.filter(|x| *x != 0.0))
    }

    fn stored_f32(&self, key: &str) -> Result<Option<f32>> {
        let full = self.full(key);
        match self.gguf.f32(&full).map_err(|e| unusable(&full, e))? {
            Some(x) if !x.is_finite() => Err(bad(&full, &format!("is {x}, wanted a finite number"))),
            other => Ok(other),
        }
    }

    fn positive_f32(&self, key: &str) -> Result<Option<f32>> {
        match self.f32(key)? {
            Some(x) if x < 0.0 => Err(self.bad(key, format!("is {x}, wanted a number above 0"))),
            other => Ok(other),
        }
    }

    fn bounded(&self, key: &str, n: u32, max: u32) -> Result<usize> {
        match n {
            0 => Err(self.bad(key, "is 0".into())),
            n if n > max => Err(self.bad(key, format!("is {n}, wanted at most {max}"))),
            n => Ok(n as usize),
        }
    }

    /// A number that must be there.
    fn size(&self, key: &str, max: u32) -> Result<usize> {
        let n = self.stored_u32(key)?.ok_or_else(|| self.bad(key, "is missing".into()))?;
        self.bounded(key, n, max)
    }

    /// A number that must be there, for all layers or each.
    fn size_of_layers(&self, key: &str, max: u32) -> Result<usize> {
        let n = self.same_in_every_layer(key)?.ok_or_else(|| self.bad(key, "is missing".into()))?;
        self.bounded(key, n, max)
    }

    /// A number, or an array with one number a layer that are all the same.
    fn same_in_every_layer(&self, key: &str) -> Result<Option<u32>> {
        let Some(Value::Array(array)) = self.gguf.get(&self.full(key)) else { return self.stored_u32(key) };
        self.one_a_layer(key, array)?;
        // Another type of elements is named by the accessor that wants a number.
        let Some(values) = array.numbers::<u32>() else { return self.stored_u32(key) };
        let values = values.to_vec(self.header);
        match values.iter().all(|n| n == &values[0]) {
            true => Ok(values.first().copied()),
            false => Err(self.differs(key)),
        }
    }

    fn one_a_layer(&self, key: &str, array: &Array) -> Result<()> {
        match (array.len(), self.n_layer) {
            (0, n) => {
                Err(self.bad(key, format!("is an empty array, wanted one number or an array of {n}, one a layer")))
            }
            (seen, n) if seen != n => {
                Err(self.bad(key, format!("is an array of {seen}, wanted one number or an array of {n}, one a layer")))
            }
            _ => Ok(()),
        }
    }

    fn differs(&self, key: &str) -> Error {
        Error::Unsupported(format!("{} differs from layer to layer", self.full(key)))
    }

    fn epsilon(&self) -> Result<f32> {
        let key = "attention.layer_norm_rms_epsilon";
        match self.stored_f32(key)? {
            Some(eps) if eps >= 0.0 => Ok(eps),
            Some(eps) => Err(self.bad(key, format!("is {eps}, wanted a number of at least 0"))),
            None => Err(self.bad(key, "is missing".into())),
        }
    }

    fn attn_scale(&self, n_layer: usize, n_embd: usize, n_head: usize, head_dim: usize) -> Result<f32> {
        if let Some(scale) = self.f32("attention.scale")? {
            return Ok(scale);
        }
        // Gemma 3 27B, known by its 62 layers, was trained with the embedding's share of a head instead.
        let denominator = if self.arch == "gemma3" && n_layer == 62 { n_embd / n_head } else { head_dim };
        Ok(1.0 / (denominator as f32).sqrt())
    }

    fn rope(&self, head_dim: usize) -> Result<RopeConfig> {
        // 0 is not "absent" here: it means that nothing is rotated.
        let n_rot = match self.stored_u32("rope.dimension_count")? {
            Some(n) => self.bounded("rope.dimension_count", n, MAX_LENGTH)?,
            None => head_dim,
        };
        if n_rot > head_dim || n_rot % 2 != 0 {
            let problem = format!("is {n_rot}, wanted an even number up to the head's {head_dim} elements");
            return Err(self.bad("rope.dimension_count", problem));
        }
        let base = self.positive_f32("rope.freq_base")?.unwrap_or(10_000.0);
        Ok(RopeConfig { n_rot, base, scaling: self.rope_scaling()? })
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        let kind = string(self.gguf, &self.full("rope.scaling.type"))?;
        let factor = match self.positive_f32("rope.scaling.factor")? {
            Some(f) => Some(f),
            None => self.positive_f32("rope.scale_linear")?,
        };
        // A factor without a type means linear; a type without a factor means no change.
        match (kind.as_deref(), factor) {
            (Some("none"), _) | (_, None) | (_, Some(1.0)) => Ok(RopeScaling::None),
            (None | Some("linear"), Some(factor)) => Ok(RopeScaling::Linear { factor }),
            (Some("yarn"), Some(factor)) => {
                let original = match self.u32("rope.scaling.original_context_length")? {
                    Some(n) => n,
                    None => self.stored_u32("context_length")?.unwrap_or(0),
                };
                Ok(RopeScaling::Yarn {
                    factor,
                    original_ctx_tokens: self.bounded("rope.scaling.original_context_length", original, u32::MAX)?
                        as u32,
                    beta_fast: self.positive_f32("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.positive_f32("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    attn_factor: self.positive_f32("rope.scaling.attn_factor")?.unwrap_or(1.0),
                })
            }
            (Some(other), Some(_)) => Err(Error::Unsupported(format!(
                "RoPE scaling \"{}\" ({}); known are none, linear, yarn",
                clean(other),
                self.full("rope.scaling.type")
            ))),
        }
    }

    fn window(&self, global: RopeConfig, n_ctx_train: usize) -> Result<Option<WindowConfig>> {
        let key = "attention.sliding_window";
        let n_tokens = self.u32(key)?.map(|n| n as usize);
        match (n_tokens, arch::find(self.arch).and_then(|a| a.window_period)) {
            (None, _) => Ok(None),
            (Some(n_tokens), Some(usual)) => {
                let base = self.positive_f32("rope.freq_base_swa")?.unwrap_or(10_000.0);
                let rope = RopeConfig { base, scaling: RopeScaling::None, ..global };
                Ok(Some(WindowConfig { n_tokens, period: self.window_period(usual)?, rope }))
            }
            // A window that holds everything hides nothing.
            (Some(n_tokens), None) if n_tokens >= n_ctx_train => Ok(None),
            (Some(n_tokens), None) => Err(self.bad(
                key,
                format!(
                    "is {n_tokens}, wanted 0 or at least the context of {n_ctx_train} tokens: \
                     architecture {} runs without windows here",
                    self.arch
                ),
            )),
        }
    }

    /// The period of the layers that see everything: itself (0: no layer does), or an array with a 1 for each layer that has a window.
    fn window_period(&self, usual: usize) -> Result<usize> {
        let key = "attention.sliding_window_pattern";
        let never = self.n_layer + 1;
        let Some(Value::Array(array)) = self.gguf.get(&self.full(key)) else {
            return match self.stored_u32(key)? {
                None => Ok(usual),
                Some(0) => Ok(never),
                Some(n) => self.bounded(key, n, MAX_LAYERS),
            };
        };
        self.one_a_layer(key, array)?;
        let Some(flags) = array_numbers(array, self.header) else {
            return self.bounded(key, self.stored_u32(key)?.unwrap_or(0), MAX_LAYERS);
        };
        // The first layer that sees everything tells the only period that there can be.
        let period = flags.iter().position(|flag| *flag == 0.0).map_or(never, |il| il + 1);
        let fits = |(il, flag): (usize, &f64)| (*flag == 0.0) == (il + 1).is_multiple_of(period);
        if flags.iter().enumerate().all(fits) {
            return Ok(period);
        }
        Err(Error::Unsupported(format!("{} differs from layer to layer without a period", self.full(key))))
    }

    /// Refuses values of keys that would change what is computed and are not read: a model that runs with other mathematics
    /// than its own answers wrongly without a word.
    fn no_other_mathematics(&self, n_embd: usize, head_dim: usize, n_rot: usize) -> Result<()> {
        let is_gemma = self.arch == "gemma3";
        let embedding_scale = [if is_gemma { (n_embd as f32).sqrt().into() } else { 1.0 }];
        // llama.cpp writes its default into files of architectures that it caps nothing in; in gemma3 a given one is applied.
        let final_cap: &[f64] = if is_gemma { &[] } else { &[30.0] };
        let (embedding, head, rotated) = ([n_embd as f64], [head_dim as f64], [n_rot as f64]);
        let of_this_model: [Unread; 6] = [
            ("embedding_length_out", &embedding, "an output of another length"),
            ("embedding_scale", &embedding_scale, "a scale of the embedding"),
            ("final_logit_softcapping", final_cap, "a soft cap of the logits"),
            ("attention.key_length_swa", &head, "heads of another length in layers with a window"),
            ("attention.value_length_swa", &head, "heads of another length in layers with a window"),
            ("rope.dimension_count_swa", &rotated, "a rotation of another length in layers with a window"),
        ];
        for (key, usual, what) in UNREAD.iter().chain(&of_this_model) {
            let Some(value) = self.gguf.get(&self.full(key)) else { continue };
            if !is_usual(value, usual, self.header) {
                let wanted = usual.iter().fold("0".to_owned(), |text, x| format!("{text} or {x}"));
                return Err(self.unlike(key, value, &wanted, what));
            }
        }
        for (key, usual, what) in UNREAD_BOOLS {
            let Some(value) = self.gguf.get(&self.full(key)) else { continue };
            if !matches!(value, Value::Bool(seen) if seen == usual) {
                return Err(self.unlike(key, value, if *usual { "true" } else { "false" }, what));
            }
        }
        Ok(())
    }

    fn unlike(&self, key: &str, value: &Value, wanted: &str, what: &str) -> Error {
        let seen = match (value, numbers_of(value, self.header)) {
            (Value::Bool(b), _) => b.to_string(),
            (Value::Array(_), Some(numbers)) => format!("{:?}", &numbers[..numbers.len().min(8)]),
            // With an exponent where digits would fill lines.
            (_, Some(numbers)) if numbers.iter().any(|x| x.abs() >= 1e16) => format!("{numbers:?}"),
            (_, Some(numbers)) => numbers.iter().map(f64::to_string).collect(),
            (Value::String(text), None) => format!("\"{}\"", clean(text)),
            (other, None) => format!("of type {}", other.ty().name()),
        };
        self.bad(key, format!("is {seen}, wanted {wanted}: architecture {} runs here without {what}", self.arch))
    }
}

/// A key that is not read, the numbers beside 0 (absent) with which it changes nothing, and what others would ask for.
type Unread<'a> = (&'a str, &'a [f64], &'a str);

const UNREAD: &[Unread<'static>] = &[
    ("expert_used_count", &[], "experts"),
    ("expert_shared_count", &[], "experts"),
    ("leading_dense_block_count", &[], "experts"),
    ("nextn_predict_layers", &[], "layers that predict further tokens"),
    ("full_attention_interval", &[1.0], "layers of other kinds than attention"),
    ("swiglu_clamp_exp", &[], "limits in the feed-forward network"),
    ("swiglu_clamp_shexp", &[], "limits in the feed-forward network"),
    ("embedding_length_per_layer_input", &[], "embeddings for each layer"),
    ("residual_scale", &[1.0], "a scale of the residual"),
    ("logit_scale", &[1.0], "a scale of the logits"),
    // llama.cpp writes its default of 50 into files of architectures that it caps nothing in.
    ("attn_logit_softcapping", &[50.0], "a soft cap of attention"),
    ("pooling_type", &[], "pooling, which models of embeddings have"),
    ("attention.clamp_kqv", &[], "limits of queries, keys and values"),
    ("attention.max_alibi_bias", &[], "ALiBi"),
    ("attention.output_scale", &[1.0], "a scale of attention's output"),
    ("attention.value_scale", &[1.0], "a scale of the values"),
    ("attention.temperature_scale", &[], "a temperature of attention"),
    ("attention.relative_buckets_count", &[], "a bias by distance"),
    ("attention.q_lora_rank", &[], "latent attention"),
    ("attention.kv_lora_rank", &[], "latent attention"),
    ("attention.key_length_mla", &[], "latent attention"),
    ("attention.value_length_mla", &[], "latent attention"),
    ("attention.shared_kv_layers", &[], "keys and values that layers share"),
    ("attention.indexer.top_k", &[], "sparse attention"),
    ("rope.dimension_sections", &[], "RoPE in sections"),
    ("rope.scaling.alpha", &[1.0], "a RoPE base scaled by alpha"),
    ("rope.scaling.yarn_log_multiplier", &[], "another magnitude in YaRN"),
    ("rope.scaling.yarn_ext_factor", &[-1.0, 1.0], "another mix in YaRN"),
    ("rope.scaling.yarn_attn_factor", &[1.0], "another magnitude in YaRN"),
];

/// As [`UNREAD`], with the only value that changes nothing.
const UNREAD_BOOLS: &[(&str, bool, &str)] = &[
    ("attention.causal", true, "attention to later tokens, which encoders have"),
    ("use_parallel_residual", false, "attention beside the feed-forward network"),
    ("swin_norm", false, "the norms of Swin transformers"),
];

/// Whether a value changes nothing: it means "absent", or is one of `usual`; of an array each element.
fn is_usual(value: &Value, usual: &[f64], header: &[u8]) -> bool {
    let is_float = matches!(value, Value::F32(_) | Value::F64(_));
    let is_absent = |x: f64| x == 0.0 || (!is_float && (x == -1.0 || x == f64::from(u32::MAX)));
    match (value, numbers_of(value, header)) {
        (Value::String(text), _) => text.is_empty(),
        (_, Some(numbers)) => numbers.iter().all(|x| is_absent(*x) || usual.contains(x)),
        (_, None) => false,
    }
}

/// The number, or those of an array.
fn numbers_of(value: &Value, header: &[u8]) -> Option<Vec<f64>> {
    match value {
        Value::Array(array) => array_numbers(array, header),
        Value::Bool(b) => Some(vec![f64::from(u8::from(*b))]),
        Value::F32(x) => Some(vec![f64::from(*x)]),
        Value::F64(x) => Some(vec![*x]),
        other => Some(vec![other.as_int()? as f64]),
    }
}

/// The numbers of an array of the types that files have: floats, 32-bit integers (read as signed), bytes, bools.
fn array_numbers(array: &Array, header: &[u8]) -> Option<Vec<f64>> {
    fn read<T: Number + Into<f64>>(array: &Array, header: &[u8]) -> Option<Vec<f64>> {
        Some(array.numbers::<T>()?.to_vec(header).into_iter().map(T::into).collect())
    }
    if array.is_empty() {
        return Some(Vec::new());
    }
    let bools = || Some(array.numbers::<bool>()?.to_vec(header).into_iter().map(|b| f64::from(u8::from(b))).collect());
    read::<f32>(array, header)
        .or_else(|| read::<i32>(array, header))
        .or_else(|| read::<u8>(array, header))
        .or_else(bools)
}

fn bad(key: &str, problem: &str) -> Error {
    Error::Metadata { key: key.to_owned(), problem: problem.to_owned() }
}

/// What reading a value says, as an error of this crate that names the key once.
fn unusable(key: &str, error: modelembed_gguf::Error) -> Error {
    match error {
        modelembed_gguf::Error::WrongType { seen, wanted, .. } => bad(key, &format!("is {seen}, wanted {wanted}")),
        other => bad(key, &other.to_string()),
    }
}

/// A text; an empty one means that it is not given.
fn string(gguf: &Gguf, key: &str) -> Result<Option<String>> {
    Ok(gguf.str(key).map_err(|e| unusable(key, e))?.filter(|text| !text.is_empty()).map(str::to_owned))
}

/// Text out of a file, fit for a terminal: control characters become spaces, at most 80 characters.
fn clean(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
