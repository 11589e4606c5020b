//! What a model is: plain data, read once from the metadata, from which everything that runs
//! follows.
//!
//! Every width is a layer's own. Names follow the GGUF keys.

mod feed_forward;
mod mixer;
mod rope;

pub use feed_forward::*;
pub use mixer::*;
pub use rope::*;

use modelembed_terms::NormKind;

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
    /// Blocks of the file behind the layers, which predict further tokens (Gloeckle et al. 2024,
    /// arXiv 2404.19737) and are no layers.
    pub n_nextn: usize,
    /// What reads the text whose result the layers attend to, if the model has that.
    pub encoder: Option<EncoderSpec>,
    /// From the residual stream to logits or a vector.
    pub output: OutputSpec,
}

/// What reads a text of its own, whose result the layers attend to (T5: Raffel et al. 2019, arXiv
/// 1910.10683).
///
/// Its tensors are named `enc.blk.N`, those of the model's other layers then `dec.blk.N`; both
/// share the embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderSpec {
    /// Its layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// Norm of its result.
    pub norm: NormSpec,
    /// The token that the other layers begin with, where given.
    pub start_token: Option<u32>,
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
    /// Whether the first learned row of segment types is added, the row of a text that is one
    /// segment.
    pub token_types: Need,
    /// Embeddings that each layer gets of its own.
    pub per_layer: Option<PerLayerEmbedding>,
}

impl InputSpec {
    /// Embeddings times `scale`, and nothing else.
    pub fn scaled(scale: f32) -> InputSpec {
        InputSpec { scale, norm: None, has_positions: false, token_types: Need::Never, per_layer: None }
    }
}

/// A second embedding of each token, of which every layer adds a slice (Gemma 3n, Gemma 4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerLayerEmbedding {
    /// Elements of a layer's slice.
    pub width: usize,
    /// What the norms of the slices and of the branches add to the mean square.
    pub eps: f32,
}

/// A norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormSpec {
    /// Its formula.
    pub kind: NormKind,
    /// What is added to the variance.
    pub eps: f32,
    /// The tensor's name within its layer or model, without `.weight`; `None` for a norm without
    /// parameters.
    pub name: Option<&'static str>,
    /// Whether `.bias` must, may or must not be there.
    pub bias: Need,
    /// Whether the tensor's name is `name` alone, without `.weight`.
    pub is_bare: bool,
    /// The name that counts where the file has no tensor of the first one.
    pub instead: Option<&'static str>,
}

impl NormSpec {
    /// An RMS norm with weights and no bias.
    pub fn rms(name: &'static str, eps: f32) -> NormSpec {
        NormSpec { kind: NormKind::Rms, eps, name: Some(name), bias: Need::Never, is_bare: false, instead: None }
    }

    /// A layer norm with weights.
    pub fn layer(name: &'static str, eps: f32, bias: Need) -> NormSpec {
        NormSpec { kind: NormKind::Layer, eps, name: Some(name), bias, is_bare: false, instead: None }
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
    /// Between the mixer and the feed-forward network: attention to an encoder's result.
    pub cross: Option<CrossSpec>,
    /// What changes each position by itself.
    pub ffn: FeedForward,
    /// Norms around the two.
    pub norms: LayerNorms,
    /// How the two are joined.
    pub residual: Residual,
    /// Factor on each output before it is joined.
    pub residual_scale: f32,
    /// A branch beside the mixer, on the same input.
    pub low_rank: Option<LowRankSpec>,
    /// A branch behind the two that takes the layer's own embedding of the token.
    pub has_own_embedding: bool,
    /// Number of the layer's that the residual stream is multiplied by at its end.
    pub output_scale: Need,
}

impl LayerSpec {
    /// Mixer and feed-forward network one after the other, each behind its norm.
    pub fn sequential(mixer: Mixer, ffn: FeedForward, norms: LayerNorms) -> LayerSpec {
        LayerSpec {
            mixer,
            cross: None,
            ffn,
            norms,
            residual: Residual::Sequential,
            residual_scale: 1.0,
            low_rank: None,
            has_own_embedding: false,
            output_scale: Need::Never,
        }
    }
}

/// Attention of a layer to an encoder's result.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossSpec {
    /// Norm of the residual stream before it.
    pub norm: NormSpec,
    /// The attention; its keys and values are projections of the encoder's result.
    pub attention: AttentionSpec,
}

/// b + norm(r l b) for the mixer's input b (LAuReL: Menghani et al. 2024, arXiv 2411.07501). The
/// sum of it and of what the mixer made of the residual stream is divided by the square root of 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowRankSpec {
    /// Elements between the two matrices.
    pub rank: usize,
    /// Norm of their product.
    pub norm: NormSpec,
}

/// Norms around a layer's halves. A half without a norm before it reads the residual stream as it
/// is.
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
    /// x += mixer(n(x)) + ffn(m(x)), with the mixer's norm for both where the network has none of
    /// its own.
    Parallel,
    /// The same where the file holds no norm before the network, else one after the other.
    ParallelUnlessNormed,
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StreamKind {
    /// Predicted and corrected around each layer (AltUp: Baykal et al. 2023, arXiv 2301.13310).
    AltUp {
        /// The stream that a layer reads.
        active: usize,
    },
    /// Read and written by learned weights, of which those from stream to stream are made doubly
    /// stochastic (manifold-constrained hyper-connections: Xie et al. 2025, arXiv 2512.24880).
    HyperConnections {
        /// How often rows and columns of the weights are normalised.
        sinkhorn_iterations: usize,
        /// What is added to weights and to the sums that divide them.
        eps: f32,
    },
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

impl ModelSpec {
    /// Layers.
    pub fn n_layer(&self) -> usize {
        self.layers.len()
    }
}
