//! What lets positions see each other.

use modelembed_terms::NormKind;

use super::{Need, NormSpec, RopeId};

/// What lets positions see each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Softmax attention over keys and values of its own.
    Attention(AttentionSpec),
    /// Attention over one compressed row a position (MLA: DeepSeek-V2 2024, arXiv 2405.04434).
    Latent(LatentSpec),
    /// Attention over one row a position that is key and value at once.
    SharedRow(SharedRowSpec),
    /// A recurrence over the positions with a matrix for a state.
    Scan(ScanSpec),
    /// A recurrence of each channel by itself.
    Channels(ChannelSpec),
    /// A gated convolution over the last positions.
    ShortConv {
        /// Positions that it covers.
        kernel: usize,
    },
    /// A matrix, which lets no position see another (DeciLM: Bercovich et al. 2024, arXiv 2411.19146).
    Linear,
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
    /// Queries, keys and values stay within +- this.
    pub qkv_limit: Option<f32>,
    /// Norm of queries and keys.
    pub head_norm: Option<HeadNorm>,
    /// Where values are divided by the root of their mean square: what is added to that.
    pub value_norm_eps: Option<f32>,
    /// How positions enter.
    pub position: Position,
    /// Which positions are seen.
    pub visible: Visible,
    /// Factor on query-key products.
    pub scale: f32,
    /// Factor on queries that grows with the position.
    pub temperature: Option<Temperature>,
    /// Factor on the heads' outputs.
    pub value_scale: f32,
    /// Scores stay within +- this: c * tanh(s / c).
    pub soft_cap: Option<f32>,
    /// Whether each head has a learned score that takes weight and adds no value.
    pub sinks: Need,
    /// What the heads' outputs are multiplied with.
    pub output_gate: OutputGate,
    /// From that to the factor.
    pub gate_activation: GateActivation,
    /// Norm of the heads' outputs before their projection, all heads together.
    pub sub_norm: Option<NormSpec>,
    /// Where keys and values come from.
    pub kv: KvSource,
}

impl AttentionSpec {
    /// Causal attention with rotated queries and keys of one length with the values, and nothing
    /// special.
    pub fn plain(heads: usize, kv_heads: usize, dim: usize, rope: RopeId) -> AttentionSpec {
        AttentionSpec {
            heads,
            kv_heads,
            key_dim: dim,
            value_dim: dim,
            may_be_fused: true,
            qkv_bias: Need::Maybe,
            output_bias: Need::Maybe,
            qkv_limit: None,
            head_norm: None,
            value_norm_eps: None,
            position: Position::Rope(rope),
            visible: Visible::Causal,
            scale: 1.0 / (dim as f32).sqrt(),
            temperature: None,
            value_scale: 1.0,
            soft_cap: None,
            sinks: Need::Never,
            output_gate: OutputGate::None,
            gate_activation: GateActivation::Sigmoid,
            sub_norm: None,
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

/// Rotated queries are multiplied by 1 + scale * ln(floor((position + offset) / length) + 1), so
/// that attention stays as sharp over long contexts (Nakanishi 2025, arXiv 2501.19399).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// How fast it grows.
    pub scale: f32,
    /// Positions over which it stays the same.
    pub length_tokens: usize,
    /// What is added to the position.
    pub offset: usize,
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
    /// Whether the file must have it, or may. It has no biases.
    pub need: Need,
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
    /// A learned bias for each head and bucket of distances, the first layer's for all; half of the
    /// buckets are for later positions where those are seen. Buckets grow up to a distance of 128.
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

impl Visible {
    /// The first position that one at `pos` looks at, of those up to itself.
    pub fn first_seen(self, pos: usize) -> usize {
        match self {
            Visible::Window(n) => (pos + 1).saturating_sub(n),
            Visible::Chunk(n) => pos / n * n,
            Visible::Causal | Visible::All => 0,
            Visible::Around(n) => pos.saturating_sub(n / 2),
        }
    }
}

/// What the heads' outputs are multiplied with before the output projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputGate {
    /// Nothing.
    None,
    /// A second half of each query.
    OfQuery,
    /// A projection of the input, one number an element.
    Elements,
    /// The same, one number a head.
    Heads,
    /// One of the two, by the rows of the matrix in the file.
    HeadsOrElements,
}

/// From a gate to the factor on a head's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateActivation {
    /// The logistic function.
    Sigmoid,
    /// ln(1 + e^x).
    Softplus,
}

/// Where keys and values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvSource {
    /// Projections of the input.
    Own,
    /// The same, but without a projection of values in the file they are that of keys, neither
    /// normed nor rotated as keys are (Gemma 4).
    OwnOrKeys,
    /// The cache of another layer.
    Layer(usize),
}

/// Attention over one compressed row a position, which holds what all heads' keys and values are
/// made of, and one rotated part of a key for all heads.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentSpec {
    /// Query heads.
    pub heads: usize,
    /// Length of the compressed query; `None` where queries are projected at once.
    pub query_rank: Option<usize>,
    /// Length of the compressed row of keys and values.
    pub kv_rank: usize,
    /// What the norms of the compressed rows add to the mean square.
    pub eps: f32,
    /// Elements of a head that are not rotated; they come first.
    pub nope_dim: usize,
    /// Elements of a head that are rotated, shared by all heads' keys.
    pub rope_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// How the file holds the matrices from the row to keys and values.
    pub expansion: LatentExpansion,
    /// How positions enter.
    pub position: Position,
    /// Which positions are seen.
    pub visible: Visible,
    /// Factor on query-key products.
    pub scale: f32,
    /// Factor on queries that grows with the position.
    pub temperature: Option<Temperature>,
}

/// How a file holds the matrices from the compressed row to keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatentExpansion {
    /// `attn_k_b`, transposed for each head so that it can be applied to queries, and `attn_v_b`.
    Split,
    /// `attn_kv_b`: for each head the rows of keys, then those of values.
    Joined,
}

/// Attention of all heads over one row a position that is key and value at once (DeepSeek-V4).
///
/// The last elements of queries and rows are rotated, and those of the heads' outputs are rotated
/// back. Heads have sinks.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedRowSpec {
    /// Query heads.
    pub heads: usize,
    /// Elements of a row, of a query and of a head's output.
    pub dim: usize,
    /// Length of the compressed query.
    pub query_rank: usize,
    /// What the norms of queries and rows add to the mean square.
    pub eps: f32,
    /// Rotation of the last elements.
    pub rope: RopeId,
    /// Positions that are seen as they are.
    pub window: usize,
    /// What is seen of those before.
    pub compressed: Option<CompressedRows>,
    /// Factor on query-key products.
    pub scale: f32,
    /// Groups of heads whose outputs are compressed apart, and the length of each one's result.
    pub output_groups: (usize, usize),
}

/// Rows that stand for several positions each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressedRows {
    /// Positions that a row stands for.
    pub ratio: usize,
    /// Whether a row is also made of the positions of the one before.
    pub overlaps: bool,
    /// What chooses the rows that are seen; `None` where all are.
    pub indexer: Option<IndexerSpec>,
}

/// A small attention that chooses what the large one sees (DeepSeek-V3.2 2025, arXiv 2512.02556).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexerSpec {
    /// Query heads.
    pub heads: usize,
    /// Elements of a query and of a key.
    pub key_dim: usize,
    /// Keys that are chosen.
    pub top_k: usize,
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
    /// Which key head a value head uses.
    pub sharing: KeySharing,
    /// How the file holds what it reads.
    pub packing: ScanPacking,
    /// Positions that the convolution before it covers.
    pub conv_kernel: usize,
    /// Bias of the convolution.
    pub conv_bias: Need,
    /// Norm of the output, a key head's group at a time for Mamba 2, a value head at a time for the
    /// others.
    pub output_norm: Need,
    /// What that norm, and those of queries and keys, add to the mean square or sum of squares.
    pub eps: f32,
}

/// Which key head a value head uses where there are more of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySharing {
    /// Value heads that follow each other share one.
    Grouped,
    /// Value head h uses h modulo their number.
    Tiled,
}

/// How a file holds the projections that a recurrence reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanPacking {
    /// As its formula has them.
    Apart,
    /// Strengths and step sizes in one matrix, key head by key head, and in the first files so the
    /// others in one, too.
    ByKeyHead,
}

/// Formulas of recurrences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanKind {
    /// Gated delta net (Yang et al. 2024, arXiv 2412.06464).
    GatedDelta,
    /// Kimi delta attention: a decay for each element of a key.
    KimiDelta,
    /// Mamba 2 (Dao and Gu 2024, arXiv 2405.21060).
    Mamba2,
}

/// A recurrence whose every channel has a state of its own, which fades element by element (Mamba: Gu
/// and Dao 2023, arXiv 2312.00752).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChannelSpec {
    /// Channels.
    pub channels: usize,
    /// Elements of a channel's state.
    pub state: usize,
    /// Length of what the step sizes are made of.
    pub rank: usize,
    /// Positions that the convolution before it covers.
    pub conv_kernel: usize,
    /// Norms of what step sizes are made of, of keys and of queries.
    pub norm: ChannelNorm,
    /// What they add to the mean square.
    pub eps: f32,
}

/// Norms of what is chosen for each position of a recurrence of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelNorm {
    /// None.
    None,
    /// RMS norms without weights (Falcon Mamba: arXiv 2410.05355).
    Plain,
    /// RMS norms with weights (Jamba: arXiv 2403.19887).
    Weighted,
}
