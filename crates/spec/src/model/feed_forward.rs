//! What changes each position by itself.

use super::{Need, NormSpec};

/// What changes each position by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// down(act(gate x) * up x).
    Gated(GatedSpec),
    /// down(act(up x)).
    Plain(PlainSpec),
    /// The first if the file has a gate, else the second.
    GatedOrPlain(GatedSpec, PlainSpec),
    /// Some of many networks, chosen for each position.
    Moe(MoeSpec),
    /// The mixture where the file has a router, else the network.
    MoeOrGated(Box<MoeSpec>, GatedSpec),
    /// A network and a mixture side by side.
    Both(Box<BothSpec>),
    /// None.
    None,
}

/// Activations of feed-forward networks, and what stands in an activation's place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HiddenActivation {
    /// x * sigmoid(x).
    Silu,
    /// The tanh form of GELU.
    Gelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0) squared (So et al. 2021, arXiv 2109.08668).
    ReluSquared,
    /// For x above 0: positive * x^2 + beta * x, else negative * (exp(min(x, eps)) - 1 - x) + beta *
    /// x (xIELU: Huang and Schlag 2024, arXiv 2411.13010).
    Xielu {
        /// Factor above 0.
        positive: f32,
        /// Factor below.
        negative: f32,
        /// Slope at 0.
        beta: f32,
        /// Bound of x in the exponent.
        eps: f32,
    },
    /// Of gate g, at most `limit`, and up projection u, within +- `limit`: g * sigmoid(alpha * g) *
    /// (u + 1) (gpt-oss 2025, arXiv 2508.10925).
    ClampedSwiglu {
        /// Bound of both.
        limit: f32,
        /// Factor within the logistic function.
        alpha: f32,
    },
}

/// Limits of a gated network. Its up projection stays within +- the number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clamp {
    /// The gate stays at most this, and is activated then.
    BeforeActivation(f32),
    /// The activated gate stays at most this.
    AfterActivation(f32),
}

impl Clamp {
    /// Whether it limits anything: a number near 0 means that there is no limit.
    pub fn is_there(&self) -> bool {
        let (Clamp::BeforeActivation(limit) | Clamp::AfterActivation(limit)) = self;
        *limit > 1e-6
    }
}

/// A gated feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GatedSpec {
    /// Length of the hidden state.
    pub width: usize,
    /// Activation of the gate.
    pub activation: HiddenActivation,
    /// Whether one matrix holds the gate's rows and then those of the up projection.
    pub is_fused: bool,
    /// Biases of its projections.
    pub bias: Need,
    /// Limits of gate and up projection.
    pub clamp: Option<Clamp>,
    /// The gate becomes max(0, gate - (mean + this * standard deviation)) before its activation,
    /// over the hidden state and with one element less in the variance's divisor (Gemma 3n).
    pub sparsity: Option<f32>,
    /// Norm of the hidden state before the down projection.
    pub sub_norm: Option<NormSpec>,
}

impl GatedSpec {
    /// Two matrices and their product, with biases where the file has them.
    pub fn plain(width: usize, activation: HiddenActivation) -> GatedSpec {
        GatedSpec { width, activation, is_fused: false, bias: Need::Maybe, clamp: None, sparsity: None, sub_norm: None }
    }
}

/// A feed-forward network without a gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlainSpec {
    /// Length of the hidden state.
    pub width: usize,
    /// Activation.
    pub activation: HiddenActivation,
    /// Biases of its projections.
    pub bias: Need,
}

/// A network and a mixture side by side, each behind a norm of the residual stream and before
/// another norm, added. The norm before the network is the layer's.
#[derive(Clone, Debug, PartialEq)]
pub struct BothSpec {
    /// The network.
    pub network: GatedSpec,
    /// Norm of what it gives.
    pub after_network: NormSpec,
    /// Norm of the experts' input.
    pub before_experts: NormSpec,
    /// The mixture.
    pub experts: MoeSpec,
    /// Norm of what it gives.
    pub after_experts: NormSpec,
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeSpec {
    /// Experts.
    pub n_experts: usize,
    /// Experts that a position uses.
    pub n_used: usize,
    /// Groups of experts, and how many of them may be used: those with the greatest sums of two
    /// scores.
    pub groups: Option<(usize, usize)>,
    /// What the router reads.
    pub router_input: RouterInput,
    /// What chooses the experts.
    pub choice: Choice,
    /// From the router's products to probabilities.
    pub gating: Gating,
    /// Whether the weights of the used ones are divided by their sum.
    pub normalised: bool,
    /// Factor on the weights.
    pub scale: f32,
    /// One expert.
    pub expert: ExpertSpec,
    /// Experts that every position uses.
    pub shared: Option<SharedSpec>,
    /// Bias of the router.
    pub router_bias: Need,
    /// Whether it is an expert's input that is weighed, not its output (Llama 4).
    pub weighs_input: bool,
    /// Length of the compressed input that the experts read, where it is not the residual stream's;
    /// router and shared experts read the whole one.
    pub latent: Option<usize>,
}

/// What a router reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RouterInput {
    /// What the experts read.
    Normed,
    /// The layer's input, before any norm (SmallThinker).
    LayerInput,
    /// The residual stream, divided by its root mean square and by the root of its length, and
    /// multiplied by weights of the router's (Gemma 4).
    OwnNorm {
        /// What is added to the mean square.
        eps: f32,
    },
}

/// What chooses the experts of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The greatest probabilities.
    Probabilities,
    /// The greatest sums of a probability and a bias of the expert's, which weighs nothing itself;
    /// where the file has the biases, for `Need::Maybe` (Wang et al. 2024, arXiv 2408.15664).
    Biased(Need),
    /// A table, by the token (Roller et al. 2021, arXiv 2106.04426).
    Token,
}

/// One expert of a mixture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertSpec {
    /// Length of the hidden state.
    pub width: usize,
    /// Activation.
    pub activation: HiddenActivation,
    /// Whether it has a gate.
    pub is_gated: bool,
    /// Biases of its projections.
    pub bias: Need,
    /// Limits of gate and up projection.
    pub clamp: Option<Clamp>,
}

/// Experts that every position uses, as one network with the activation of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SharedSpec {
    /// Length of the hidden state.
    pub width: usize,
    /// Whether its output is multiplied by a logistic function of the input.
    pub is_weighted: bool,
    /// Limits of gate and up projection.
    pub clamp: Option<Clamp>,
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
