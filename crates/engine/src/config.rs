//! What the metadata says about a model, checked: every number here can be used as a size or a divisor.

use modelembed_gguf::{Gguf, Value};

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
    /// Reads and checks the hyper-parameters.
    ///
    /// # Errors
    /// An unknown architecture, a missing key, a value of the wrong type or out of bounds; each names the key.
    pub fn from_gguf(gguf: &Gguf) -> Result<Config> {
        let name = string(gguf, "general.architecture")?
            .ok_or_else(|| bad("general.architecture", "is missing; it names the kind of model"))?;
        let arch =
            arch::find(&name).ok_or_else(|| Error::UnknownArchitecture { name: clean(&name), known: arch::names() })?;
        let keys = Keys { gguf, arch: arch.name };

        if let Some(n @ 1..) = keys.u32("expert_count")? {
            return Err(Error::Unsupported(format!("mixture of {n} experts ({}.expert_count)", arch.name)));
        }
        let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
        let n_head = keys.size("attention.head_count", MAX_HEADS)?;
        let n_head_kv = match keys.same_in_every_layer("attention.head_count_kv")? {
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
        let n_layer = keys.size("block_count", MAX_LAYERS)?;
        let rope = keys.rope(head_dim)?;
        Ok(Config {
            arch,
            name: string(gguf, "general.name")?,
            n_layer,
            n_embd,
            n_ff: keys.size("feed_forward_length", MAX_LENGTH)?,
            n_head,
            n_head_kv,
            head_dim,
            n_ctx_train: keys.size("context_length", u32::MAX)?,
            rms_eps: keys.epsilon()?,
            attn_scale: keys.attn_scale(n_layer, n_embd, n_head, head_dim)?,
            rope,
            window: keys.window(rope)?,
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
    arch: &'static str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    fn bad(&self, key: &str, problem: String) -> Error {
        Error::Metadata { key: self.full(key), problem }
    }

    fn u32(&self, key: &str) -> Result<Option<u32>> {
        let key = self.full(key);
        self.gguf.u32(&key).map_err(|e| unusable(&key, e))
    }

    fn f32(&self, key: &str) -> Result<Option<f32>> {
        let full = self.full(key);
        match self.gguf.f32(&full).map_err(|e| unusable(&full, e))? {
            Some(x) if !x.is_finite() => Err(bad(&full, &format!("is {x}, wanted a finite number"))),
            other => Ok(other),
        }
    }

    fn positive_f32(&self, key: &str) -> Result<Option<f32>> {
        match self.f32(key)? {
            Some(x) if x <= 0.0 => Err(self.bad(key, format!("is {x}, wanted a number above 0"))),
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

    fn size(&self, key: &str, max: u32) -> Result<usize> {
        let n = self.same_in_every_layer(key)?.ok_or_else(|| self.bad(key, "is missing".into()))?;
        self.bounded(key, n, max)
    }

    /// A number, or an array with one number a layer that are all the same.
    fn same_in_every_layer(&self, key: &str) -> Result<Option<u32>> {
        match self.gguf.get(&self.full(key)) {
            Some(Value::Array(_)) => Err(Error::Unsupported(format!("{} differs from layer to layer", self.full(key)))),
            _ => self.u32(key),
        }
    }

    fn epsilon(&self) -> Result<f32> {
        let key = "attention.layer_norm_rms_epsilon";
        match self.f32(key)? {
            Some(eps) if eps >= 0.0 => Ok(eps),
            Some(eps) => Err(self.bad(key, format!("is {eps}, wanted a number of at least 0"))),
            None => Err(self.bad(key, "is missing".into())),
        }
    }

    fn attn_scale(&self, n_layer: usize, n_embd: usize, n_head: usize, head_dim: usize) -> Result<f32> {
        if let Some(scale) = self.f32("attention.scale")?
            && scale != 0.0
        {
            return Ok(scale);
        }
        // Gemma 3 27B, known by its 62 layers, was trained with the embedding's share of a head instead.
        let denominator = if self.arch == "gemma3" && n_layer == 62 { n_embd / n_head } else { head_dim };
        Ok(1.0 / (denominator as f32).sqrt())
    }

    fn rope(&self, head_dim: usize) -> Result<RopeConfig> {
        let n_rot = match self.u32("rope.dimension_count")? {
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
                    None => self.u32("context_length")?.unwrap_or(0),
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

    fn window(&self, global: RopeConfig) -> Result<Option<WindowConfig>> {
        let Some(period) = self.gguf_period()? else { return Ok(None) };
        match self.u32("attention.sliding_window")? {
            None | Some(0) => Ok(None),
            Some(n) => {
                let base = self.positive_f32("rope.freq_base_swa")?.unwrap_or(10_000.0);
                let rope = RopeConfig { base, scaling: RopeScaling::None, ..global };
                Ok(Some(WindowConfig { n_tokens: n as usize, period, rope }))
            }
        }
    }

    fn gguf_period(&self) -> Result<Option<usize>> {
        let Some(default) = arch::find(self.arch).and_then(|a| a.window_period) else { return Ok(None) };
        match self.same_in_every_layer("attention.sliding_window_pattern")? {
            Some(n) => self.bounded("attention.sliding_window_pattern", n, MAX_LAYERS).map(Some),
            None => Ok(Some(default)),
        }
    }
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

fn string(gguf: &Gguf, key: &str) -> Result<Option<String>> {
    Ok(gguf.str(key).map_err(|e| unusable(key, e))?.map(str::to_owned))
}

/// Text out of a file, fit for a terminal: control characters become spaces, at most 80 characters.
fn clean(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
