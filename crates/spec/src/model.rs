//! What a model is: plain data, read once from the metadata, from which everything that runs follows.
//!
//! Every width is a layer's own. Names follow the GGUF keys.

use modelembed_terms::{Activation, NormKind, RopeStyle};

use crate::arch::Architecture;

/// A model as its metadata describes it.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    /// The architecture's row in the list.
    pub arch: &'static Architecture,
    /// `general.name`, where given.
    pub name: Option<String>,
    /// Length of the residual stream.
    pub n_embd: usize,
    /// Context that the model was trained for, in tokens.
    pub ctx_train: usize,
    /// From a token to the residual stream.
    pub input: InputSpec,
    /// Rotary embeddings, which layers name by their index.
    pub ropes: Vec<RopeSpec>,
    /// Layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// Layers of an encoder whose result the others attend to, if the model has one.
    pub encoder: Vec<LayerSpec>,
    /// From the residual stream to logits or a vector.
    pub output: OutputSpec,
}

/// From a token to the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Factor on the embedding.
    pub scale: f32,
    /// Norm of the embedding.
    pub norm: Option<NormSpec>,
    /// Whether a learned row a position is added.
    pub has_positions: bool,
    /// Whether a learned row a segment type is added.
    pub has_token_types: bool,
    /// Embeddings that each layer gets of its own.
    pub per_layer: Option<PerLayerEmbedding>,
}

impl InputSpec {
    /// Embeddings times `scale`, and nothing else.
    pub fn scaled(scale: f32) -> InputSpec {
        InputSpec { scale, norm: None, has_positions: false, has_token_types: false, per_layer: None }
    }
}

/// A second embedding of each token, of which every layer adds a slice (Gemma 3n, Gemma 4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerLayerEmbedding {
    /// Elements of a layer's slice.
    pub width: usize,
}

/// A rotary position embedding (Su et al. 2021, arXiv 2104.09864).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Which elements form a pair.
    pub style: RopeStyle,
    /// Elements of a head that are rotated; even.
    pub n_rot: usize,
    /// Base of the angles.
    pub base: f32,
    /// Scaling for long contexts.
    pub scaling: RopeScaling,
    /// Which divisors of the angles the file may hold.
    pub factors: RopeFactors,
    /// Elements of the head before the rotated ones.
    pub first: usize,
    /// Pairs that turn with time, height, width and another position; equal ones for text.
    pub sections: Option<[usize; 4]>,
}

/// How angles shrink for contexts longer than the one trained first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Positions as they are.
    None,
    /// Positions divided by the factor.
    Linear {
        /// How many times the context grew.
        factor: f32,
    },
    /// Fast dimensions keep their angles, slow ones are interpolated, those between are mixed
    /// (YaRN: Peng et al. 2023, arXiv 2309.00071).
    Yarn {
        /// How many times the context grew.
        factor: f32,
        /// Context of the first training, in tokens.
        original_ctx_tokens: u32,
        /// Rotations in the original context above which a dimension is kept.
        beta_fast: f32,
        /// Rotations in the original context below which a dimension is interpolated.
        beta_slow: f32,
        /// Extra factor on the magnitude of queries and keys.
        attn_factor: f32,
    },
}

/// Divisors of the angles, one a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeFactors {
    /// None.
    None,
    /// Those of `rope_freqs.weight`, if it is there.
    Fixed,
    /// `rope_factors_long.weight` for contexts above the original length, else `rope_factors_short.weight` (LongRoPE: Ding et
    /// al. 2024, arXiv 2402.13753). Cosines and sines are multiplied by the magnitude.
    LongOrShort {
        /// Context of the first training, in tokens.
        original_ctx_tokens: usize,
        /// Factor on cosines and sines.
        magnitude: f32,
    },
}

/// Index of a [`RopeSpec`] in its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RopeId(pub u8);

/// A norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormSpec {
    /// Its formula.
    pub kind: NormKind,
    /// What is added to the variance.
    pub eps: f32,
    /// The tensor's name within its layer or model, without `.weight`; `None` for a norm without parameters.
    pub name: Option<&'static str>,
    /// Whether `.bias` must, may or must not be there.
    pub bias: Need,
}

impl NormSpec {
    /// An RMS norm with weights and no bias.
    pub fn rms(name: &'static str, eps: f32) -> NormSpec {
        NormSpec { kind: NormKind::Rms, eps, name: Some(name), bias: Need::Never }
    }

    /// A layer norm with weights.
    pub fn layer(name: &'static str, eps: f32, bias: Need) -> NormSpec {
        NormSpec { kind: NormKind::Layer, eps, name: Some(name), bias }
    }
}

/// Whether a tensor must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It must.
    Always,
    /// It is used where it is there.
    Maybe,
    /// Where it is there all the same, it is an error.
    Never,
}

/// One layer: a mixer of positions and a feed-forward network, both joined to the residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// What lets positions see each other.
    pub mixer: Mixer,
    /// What changes each position by itself.
    pub ffn: FeedForward,
    /// Norms around the two.
    pub norms: LayerNorms,
    /// How the two are joined.
    pub residual: Residual,
    /// Factor on each output before it is joined.
    pub residual_scale: f32,
    /// A branch behind the two that takes the layer's own embedding of the token.
    pub has_own_embedding: bool,
    /// Whether the residual stream is multiplied by a number of the layer's at its end.
    pub has_output_scale: bool,
}

impl LayerSpec {
    /// Mixer and feed-forward network one after the other, each behind its norm.
    pub fn sequential(mixer: Mixer, ffn: FeedForward, norms: LayerNorms) -> LayerSpec {
        LayerSpec {
            mixer,
            ffn,
            norms,
            residual: Residual::Sequential,
            residual_scale: 1.0,
            has_own_embedding: false,
            has_output_scale: false,
        }
    }
}

/// Norms around a layer's halves. A half without a norm before it reads the residual stream as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerNorms {
    /// Of the mixer's input.
    pub before_mixer: Option<NormSpec>,
    /// Of the mixer's output, before it is joined.
    pub after_mixer: Option<NormSpec>,
    /// Of the feed-forward network's input.
    pub before_ffn: Option<NormSpec>,
    /// Of its output, before it is joined.
    pub after_ffn: Option<NormSpec>,
}

/// How a layer's halves are joined to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Residual {
    /// x += mixer(x); x += ffn(x).
    Sequential,
    /// x += mixer(n(x)) + ffn(n(x)), with the mixer's norm for both.
    Parallel,
    /// x = n(x + mixer(x)); x = n(x + ffn(x)), with the norms behind.
    NormOfSum,
    /// Several residual streams that each half reads from and writes to.
    Streams {
        /// How many.
        count: usize,
        /// How they are mixed.
        kind: StreamKind,
    },
}

/// How several residual streams are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Predicted and corrected around each layer (AltUp: Baykal et al. 2023, arXiv 2301.13310).
    AltUp,
    /// Read and written by learned weights (manifold-constrained hyper-connections).
    HyperConnections,
}

/// What lets positions see each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Softmax attention over keys and values of its own.
    Attention(AttentionSpec),
    /// Attention over one compressed row a position (MLA: DeepSeek-V2 2024, arXiv 2405.04434).
    Latent(LatentSpec),
    /// A recurrence over the positions with a matrix for a state.
    Scan(ScanSpec),
    /// A gated convolution over the last positions.
    ShortConv {
        /// Positions that it covers.
        kernel: usize,
    },
    /// Two of them on the same input, added.
    Two(Box<Mixer>, Box<Mixer>),
    /// None: the layer is a feed-forward network.
    None,
}

/// Softmax attention.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a query and of a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Whether the file may hold queries, keys and values as one matrix.
    pub may_be_fused: bool,
    /// Biases of the query, key and value projections.
    pub qkv_bias: Need,
    /// Bias of the output projection.
    pub output_bias: Need,
    /// Norm of queries and keys.
    pub head_norm: Option<HeadNorm>,
    /// Whether values are divided by their root mean square.
    pub norms_values: bool,
    /// How positions enter.
    pub position: Position,
    /// Which positions are seen.
    pub visible: Visible,
    /// Factor on query-key products.
    pub scale: f32,
    /// Scores stay within +- this: c * tanh(s / c).
    pub soft_cap: Option<f32>,
    /// Whether each head has a learned score that takes weight and adds no value.
    pub has_sinks: bool,
    /// What the heads' outputs are multiplied with.
    pub output_gate: OutputGate,
    /// Where keys and values come from.
    pub kv: KvSource,
}

/// Norm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadNorm {
    /// Its formula.
    pub kind: NormKind,
    /// What is added to the variance.
    pub eps: f32,
    /// What one norm goes over.
    pub span: HeadNormSpan,
    /// Whether it comes behind the rotation.
    pub after_rope: bool,
}

/// What one norm of queries or keys goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNormSpan {
    /// Each head, all with the same weights.
    Head,
    /// Each head, with weights of its own.
    OwnHead,
    /// All heads together.
    Row,
    /// Each head, without weights.
    Plain,
}

/// How positions enter attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Position {
    /// Not at all.
    None,
    /// Queries and keys are rotated.
    Rope(RopeId),
    /// A learned bias for each bucket of distances.
    RelativeBias {
        /// How many buckets.
        buckets: usize,
    },
    /// A bias that falls with the distance (ALiBi: Press et al. 2021, arXiv 2108.12409).
    Alibi {
        /// The greatest bias.
        max_bias: f32,
    },
}

/// Which positions a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visible {
    /// Itself and all before it.
    Causal,
    /// Itself and so many minus one before it.
    Window(usize),
    /// Those from the last multiple of this on, up to itself.
    Chunk(usize),
    /// All.
    All,
    /// Those at most half of this away.
    Around(usize),
}

/// What the heads' outputs are multiplied with before the output projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputGate {
    /// Nothing.
    None,
    /// The logistic function of a second half of each query.
    OfQuery,
    /// The logistic function of a projection of the input, one number an element.
    Elements,
    /// The same, one number a head.
    Heads,
}

/// Where keys and values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvSource {
    /// Projections of the input.
    Own,
    /// The same, but values are the keys' projection.
    ValuesAreKeys,
    /// The cache of another layer.
    Layer(usize),
}

/// Attention over one compressed row a position.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentSpec {
    /// Query heads.
    pub heads: usize,
    /// Length of the compressed query; `None` where queries are projected at once.
    pub query_rank: Option<usize>,
    /// Length of the compressed row of keys and values.
    pub kv_rank: usize,
    /// Elements of a head that are not rotated.
    pub nope_dim: usize,
    /// Elements of a head that are rotated, shared by all heads' keys.
    pub rope_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// How positions enter.
    pub position: Position,
    /// Which positions are seen.
    pub visible: Visible,
    /// Factor on query-key products.
    pub scale: f32,
    /// Whether each head has a learned score that takes weight and adds no value.
    pub has_sinks: bool,
    /// One position of so many is kept compressed, as well as the last ones whole; 0 for all as they are.
    pub compress_ratio: usize,
}

/// A recurrence.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanSpec {
    /// Its formula.
    pub kind: ScanKind,
    /// Heads of keys and queries, or groups of B and C.
    pub key_heads: usize,
    /// Heads of values, each with a state of `key_dim` times `value_dim`.
    pub value_heads: usize,
    /// Elements of a key, or state elements a channel.
    pub key_dim: usize,
    /// Elements of a value, or channels of a head.
    pub value_dim: usize,
    /// Positions that the convolution before it covers.
    pub conv_kernel: usize,
}

/// Formulas of recurrences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanKind {
    /// Gated delta net (Yang et al. 2024, arXiv 2412.06464).
    GatedDelta,
    /// Kimi delta attention: a decay for each element of a key.
    KimiDelta,
    /// Mamba (Gu and Dao 2023, arXiv 2312.00752).
    Mamba1,
    /// Mamba 2 (Dao and Gu 2024, arXiv 2405.21060).
    Mamba2,
}

/// What changes each position by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// down(act(gate x) * up x).
    Gated(GatedSpec),
    /// down(act(up x)).
    Plain(PlainSpec),
    /// Some of many networks, chosen for each position.
    Moe(MoeSpec),
    /// A network and a mixture side by side, each with norms of its own, added.
    Both(GatedSpec, MoeSpec),
    /// None.
    None,
}

/// A gated feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatedSpec {
    /// Length of the hidden state.
    pub width: usize,
    /// Activation of the gate.
    pub activation: Activation,
    /// Whether one matrix holds the gate's rows and then those of the up projection.
    pub is_fused: bool,
    /// Biases of its projections.
    pub bias: Need,
}

/// A feed-forward network without a gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlainSpec {
    /// Length of the hidden state.
    pub width: usize,
    /// Activation.
    pub activation: Activation,
    /// Biases of its projections.
    pub bias: Need,
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeSpec {
    /// Experts.
    pub n_experts: usize,
    /// Experts that a position uses.
    pub n_used: usize,
    /// Groups of experts, and how many of them may be used.
    pub groups: Option<(usize, usize)>,
    /// From the router's products to probabilities.
    pub gating: Gating,
    /// Whether a bias is added for the choice only.
    pub selection_bias: Need,
    /// Whether the weights of the used ones are divided by their sum.
    pub normalised: bool,
    /// Factor on the weights.
    pub scale: f32,
    /// One expert.
    pub expert: ExpertSpec,
    /// Experts that every position uses.
    pub shared: Option<SharedSpec>,
    /// Biases of the router and of the experts.
    pub bias: Need,
    /// Length of the compressed input that the experts read, where it is not the residual stream's.
    pub latent: Option<usize>,
}

/// One expert of a mixture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertSpec {
    /// Length of the hidden state.
    pub width: usize,
    /// Activation.
    pub activation: Activation,
    /// Whether it has a gate.
    pub is_gated: bool,
}

/// Experts that every position uses, as one network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedSpec {
    /// Length of the hidden state.
    pub width: usize,
    /// Whether its output is multiplied by a logistic function of the input.
    pub is_weighted: bool,
}

/// From a router's products to the experts' probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all.
    Softmax,
    /// The logistic function of each.
    Sigmoid,
    /// Softmax over the chosen ones.
    SoftmaxOfChosen,
    /// The square root of softplus of each.
    SqrtSoftplus,
}

/// From the residual stream to logits or a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputSpec {
    /// Norm before the head.
    pub norm: Option<NormSpec>,
    /// Factor on the logits.
    pub scale: f32,
    /// Logits stay within +- this: c * tanh(x / c).
    pub soft_cap: Option<f32>,
    /// Whether the head has a bias.
    pub bias: Need,
    /// What of a text's positions is wanted where there is no head, or beside it.
    pub pooling: Pooling,
    /// Whether there are logits at all.
    pub has_head: bool,
}

impl OutputSpec {
    /// Logits behind a norm.
    pub fn head(norm: NormSpec) -> OutputSpec {
        OutputSpec {
            norm: Some(norm),
            scale: 1.0,
            soft_cap: None,
            bias: Need::Maybe,
            pooling: Pooling::None,
            has_head: true,
        }
    }
}

/// What of a text's positions becomes its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// All, one by one.
    None,
    /// Their mean.
    Mean,
    /// The first.
    First,
    /// The last.
    Last,
    /// A score for ranking.
    Rank,
}

impl AttentionSpec {
    /// Causal attention with rotated queries and keys of one length with the values, and nothing special.
    pub fn plain(heads: usize, kv_heads: usize, dim: usize, rope: RopeId) -> AttentionSpec {
        AttentionSpec {
            heads,
            kv_heads,
            key_dim: dim,
            value_dim: dim,
            may_be_fused: true,
            qkv_bias: Need::Maybe,
            output_bias: Need::Maybe,
            head_norm: None,
            norms_values: false,
            position: Position::Rope(rope),
            visible: Visible::Causal,
            scale: 1.0 / (dim as f32).sqrt(),
            soft_cap: None,
            has_sinks: false,
            output_gate: OutputGate::None,
            kv: KvSource::Own,
        }
    }

    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Rows of all query heads.
    pub fn q_rows(&self) -> usize {
        self.heads * self.key_dim
    }

    /// Rows of all key heads.
    pub fn k_rows(&self) -> usize {
        self.kv_heads * self.key_dim
    }

    /// Rows of all value heads.
    pub fn v_rows(&self) -> usize {
        self.kv_heads * self.value_dim
    }

    /// Elements of all heads' outputs.
    pub fn out_rows(&self) -> usize {
        self.heads * self.value_dim
    }
}

impl ModelSpec {
    /// Layers.
    pub fn n_layer(&self) -> usize {
        self.layers.len()
    }
}
