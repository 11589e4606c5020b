//! The steps that a program is made of. Each is one fork-join of the workers, or a few.
//!
//! Matrices of activations are stored column by column, a column being one position's vector.

use std::collections::HashSet;
use std::ops::Range;

use modelembed_terms::NormKind;

use crate::model::{Clamp, GateActivation, Gating, HeadNormSpan, HiddenActivation, RopeId, Temperature, Visible};
use crate::want::TensorId;

/// A buffer of f32 columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Register {
    /// The residual stream.
    Residual,
    /// What a half of a layer adds to it.
    Delta,
    /// Queries, keys and values, one behind the other.
    Qkv,
    /// The heads' outputs.
    Heads,
    /// What a recurrence reads (see [`ScanShape`]), or queries with their gates, keys and values.
    Scan,
    /// Values, keys and queries of a recurrence, behind its convolution.
    Conv,
    /// Of each head of a recurrence its step size or strength, and the sum of the logarithms of its decay as two
    /// numbers, the second what the first lost: (3, heads). Of a recurrence of channels the step size of each,
    /// and the position's key.
    Steps,
    /// What the states of a recurrence's heads take in.
    Taken,
    /// What heads' outputs are multiplied with.
    Gates,
    /// A number for each expert.
    Router,
    /// The hidden state of a feed-forward network; of experts those of all that a position uses.
    Hidden,
    /// Each layer's own embedding of the token, one behind the other.
    Own,
    /// One half of a feed-forward network while the other one is computed, or a branch beside a mixer.
    Aside,
    /// Residual streams behind the first, one behind the other.
    Streams,
    /// What the first stream was predicted to be.
    Predicted,
    /// Logits.
    Logits,
}

impl Register {
    /// All of them.
    pub const ALL: [Register; 16] = [
        Register::Residual,
        Register::Delta,
        Register::Qkv,
        Register::Heads,
        Register::Scan,
        Register::Conv,
        Register::Steps,
        Register::Taken,
        Register::Gates,
        Register::Router,
        Register::Hidden,
        Register::Own,
        Register::Aside,
        Register::Streams,
        Register::Predicted,
        Register::Logits,
    ];

    /// Its name in a printed program.
    pub fn name(self) -> &'static str {
        match self {
            Register::Residual => "x",
            Register::Delta => "delta",
            Register::Qkv => "qkv",
            Register::Heads => "heads",
            Register::Scan => "scan",
            Register::Conv => "conv",
            Register::Steps => "steps",
            Register::Taken => "taken",
            Register::Gates => "gates",
            Register::Router => "router",
            Register::Hidden => "hidden",
            Register::Own => "own",
            Register::Aside => "aside",
            Register::Streams => "streams",
            Register::Predicted => "predicted",
            Register::Logits => "logits",
        }
    }
}

/// A buffer of columns as the matrices that read them want them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The input of a layer's half, or of the head.
    Normed,
    /// What a half of a layer made on its way to its last projection.
    Inner,
}

impl Input {
    /// Its name in a printed program.
    pub fn name(self) -> &'static str {
        match self {
            Input::Normed => "y",
            Input::Inner => "z",
        }
    }
}

/// Rows of a matrix, and what is added to their products.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// The matrix.
    pub w: TensorId,
    /// Which of its rows.
    pub rows: Range<usize>,
    /// Elements of a row.
    pub k: usize,
    /// One number for each of these rows.
    pub bias: Option<TensorId>,
}

impl Linear {
    /// How many rows.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }
}

/// A norm and its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Its formula.
    pub kind: NormKind,
    /// What is added to the variance.
    pub eps: f32,
    /// One number an element.
    pub weight: Option<TensorId>,
    /// What is added, one number an element.
    pub bias: Option<TensorId>,
}

/// What a half of a layer made, on its way into the residual stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pending {
    /// Where it is.
    pub from: Register,
    /// Its norm, if it has one.
    pub norm: Option<Norm>,
    /// Factor on it.
    pub scale: f32,
    /// One number, that the sum is multiplied by.
    pub output_scale: Option<TensorId>,
}

impl Pending {
    /// A register with its norm, if it has one.
    pub fn normed(from: Register, norm: Option<Norm>) -> Pending {
        Pending { from, norm, scale: 1.0, output_scale: None }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// `to = norm(scale * table[token] + positions[position])`.
    Embed {
        /// Rows of tokens.
        table: TensorId,
        /// Factor.
        scale: f32,
        /// Rows of positions, if they are learned.
        positions: Option<TensorId>,
        /// Norm of the sum, if it has one.
        norm: Option<Norm>,
        /// Where to.
        to: Register,
    },
    /// The residual stream takes what is pending; then its norm becomes an input.
    JoinNorm {
        /// What is joined first, if something is.
        join: Option<Pending>,
        /// Norm of the sum; `None` to take the sum itself.
        norm: Option<Norm>,
        /// Where to.
        to: Input,
        /// The matrices that read it.
        readers: Vec<TensorId>,
    },
    /// A norm of the residual stream becomes an input.
    Norm {
        /// The norm.
        norm: Norm,
        /// Where to.
        to: Input,
        /// The matrices that read it.
        readers: Vec<TensorId>,
    },
    /// Each layer's own embedding of the token is mixed with a projection of the common one.
    MixOwn(MixOwn),
    /// A register is multiplied by a layer's own embedding.
    TimesOwn {
        /// The register, of as many elements a column.
        of: Register,
        /// Where the embedding lies in a column of all layers'.
        slice: Range<usize>,
        /// Elements of such a column.
        len: usize,
    },
    /// What is done to several residual streams.
    Streams(Streams),
    /// A stream behind the first becomes an input.
    StreamInput {
        /// Which of them.
        stream: usize,
        /// Elements of a stream.
        len: usize,
        /// Streams behind the first.
        n: usize,
        /// Where to.
        to: Input,
        /// The matrices that read it.
        readers: Vec<TensorId>,
    },
    /// The residual stream takes the mixer's output and a branch beside it.
    JoinBranch(JoinBranch),
    /// hidden = gelu(max(0, gate - (mean + deviations * standard deviation of the gates))) * up, with
    /// the gates and then the up projection in the scan register.
    SparseGate {
        /// Elements of each.
        len: usize,
        /// How far above the mean a gate must be.
        deviations: f32,
    },
    /// aside = norm(delta).
    SetAside {
        /// The norm.
        norm: Norm,
        /// Elements a column.
        len: usize,
    },
    /// delta = norm(delta) + aside.
    AddAside {
        /// The norm.
        norm: Norm,
        /// Elements a column.
        len: usize,
    },
    /// to = rows of one matrix after the other times an input; or to += that.
    Project {
        /// The input.
        from: Input,
        /// The matrices.
        parts: Vec<Linear>,
        /// Where to.
        to: Register,
        /// Whether it is added to what is there.
        adds: bool,
    },
    /// Each query of the scan register is parted from the gate behind it: gates = these, qkv = the
    /// rest.
    SplitGates(HeadShape),
    /// qkv = queries, and keys and values whose parts are apart.
    JoinHeads(JoinHeads),
    /// heads = act(gates) * heads.
    GateHeads {
        /// Elements a column.
        len: usize,
        /// Elements that share a gate and follow each other.
        per_gate: usize,
        /// From a number to the factor.
        activation: GateActivation,
    },
    /// Queries, keys and values stay within limits.
    LimitHeads {
        /// Where they are, and their shape.
        heads: HeadShape,
        /// The greatest size of an element.
        limit: f32,
    },
    /// Queries and keys are normed and rotated in their place.
    HeadRope(HeadRope),
    /// Keys and values of the new positions go to the cache.
    StoreKv {
        /// Where they are, and their shape.
        heads: HeadShape,
        /// The layer of the cache.
        cache: usize,
    },
    /// to = softmax(scale * q k) v for each query head.
    Attend(Attend),
    /// What stands group by group in the scan register gets the order of its shape.
    Regroup(Regroup),
    /// Stretches of a register are normed in their place, one behind the other.
    NormParts {
        /// The register.
        of: Register,
        /// Elements of each stretch, and its norm.
        parts: Vec<(usize, Norm)>,
    },
    /// conv = silu(a convolution of each channel over the last positions).
    Conv(Conv),
    /// heads = gated convolutions over the last positions.
    ShortConv(ShortConv),
    /// heads = what a recurrence gives.
    Scan(Scan),
    /// heads = what a recurrence of each channel gives.
    ChannelScan(ChannelScan),
    /// heads = norm(silu(gate) * heads).
    GateNorm(GateNorm),
    /// A register becomes an input.
    Quantize {
        /// The register.
        from: Register,
        /// Its elements a column.
        len: usize,
        /// Where to.
        to: Input,
        /// The matrices that read it.
        readers: Vec<TensorId>,
    },
    /// to = act(gate y) * up y.
    GateUp {
        /// The input.
        from: Input,
        /// The gate's rows.
        gate: Linear,
        /// The up projection's rows.
        up: Linear,
        /// Activation of the gate.
        activation: HiddenActivation,
        /// Limits of both.
        clamp: Option<Clamp>,
        /// Where to.
        to: Register,
    },
    /// to = act(up y).
    Up {
        /// The input.
        from: Input,
        /// The up projection's rows.
        up: Linear,
        /// Activation.
        activation: HiddenActivation,
        /// Where to.
        to: Register,
    },
    /// Chooses the experts of each position, by the numbers of the router.
    Route(Route),
    /// delta = what the chosen experts give, weighed, in the order of their numbers; or delta +=
    /// that.
    Experts {
        /// The experts.
        experts: Experts,
        /// Whether it is added to what is there.
        adds: bool,
    },
    /// A register is multiplied by the logistic function of another one's first element.
    Weigh {
        /// The one with a number for each position.
        by: Register,
        /// The other one.
        of: Register,
        /// Its elements a column.
        len: usize,
    },
    /// logits = soft_cap(scale * output y).
    Logits {
        /// The input.
        from: Input,
        /// The head.
        output: Linear,
        /// Factor.
        scale: f32,
        /// They stay within +- this.
        soft_cap: Option<f32>,
    },
}

/// own = (own + norm(scale * hidden)) / sqrt(2), slice by slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixOwn {
    /// Elements of a layer's slice.
    pub width: usize,
    /// Slices.
    pub n_layer: usize,
    /// Factor on the projection before the norm.
    pub scale: f32,
    /// Norm of each slice of the projection.
    pub norm: Norm,
}

/// Residual streams, of which the first is [`Register::Residual`] and the others are in
/// [`Register::Streams`] (AltUp: Baykal et al. 2023, arXiv 2301.13310).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Streams {
    /// How many.
    pub count: usize,
    /// Elements of one.
    pub len: usize,
    /// What is done.
    pub step: StreamStep,
}

/// What is done to streams. With the numbers m = tanh(router / len), weights that a matrix gives for m.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StreamStep {
    /// Those behind the first get its length.
    Spread,
    /// Each takes all of them with a weight for each: x_j += sum of w_ij x_i; and predicted = x_0.
    Predict {
        /// (count, count, count): of stream j, of stream i in it, of m.
        weights: TensorId,
    },
    /// By how much the first is not what was predicted, all change with a weight each: x_j += (1 + w_j)
    /// (x_0 - predicted), from what was predicted; and delta = scale . x_0.
    Correct {
        /// (count, count): of stream j, of m.
        weights: TensorId,
        /// (len).
        scale: TensorId,
    },
    /// Those behind the first take norm(delta).
    Add {
        /// The norm.
        norm: Norm,
    },
    /// One of those behind the first becomes delta.
    Set {
        /// Which.
        stream: usize,
    },
    /// The first becomes the mean of all, of which the others get its length first.
    Merge,
}

/// x = (x + of_mixer(delta) + of_input(x) + of_branch(aside)) / sqrt(2) (LAuReL: Menghani et al. 2024,
/// arXiv 2411.07501).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JoinBranch {
    /// Norm of the mixer's output.
    pub of_mixer: Norm,
    /// The one whose result mixer and branch have read.
    pub of_input: Norm,
    /// Norm of the branch's output.
    pub of_branch: Norm,
}

/// How a column of [`Register::Qkv`] is laid out: queries, then keys, then values, head by head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a query and of a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Whether keys and values are there; else a column has queries only, and attention goes over
    /// what another layer stored.
    pub has_kv: bool,
}

impl HeadShape {
    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Elements of all queries: where keys begin.
    pub fn q_len(&self) -> usize {
        self.heads * self.key_dim
    }

    /// Elements of all keys.
    pub fn k_len(&self) -> usize {
        if self.has_kv { self.kv_heads * self.key_dim } else { 0 }
    }

    /// Elements of all values.
    pub fn v_len(&self) -> usize {
        if self.has_kv { self.kv_heads * self.value_dim } else { 0 }
    }

    /// Elements of a column.
    pub fn qkv_len(&self) -> usize {
        self.q_len() + self.k_len() + self.v_len()
    }

    /// Elements of all heads' outputs.
    pub fn out_len(&self) -> usize {
        self.heads * self.value_dim
    }
}

/// Queries are in [`Register::Heads`]; of each head the first part of its key and its value in
/// [`Register::Scan`]; the last part of a key, of `shared` elements, for all heads in [`Register::Gates`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JoinHeads {
    /// How they are laid out then.
    pub heads: HeadShape,
    /// Elements of a key that all heads share.
    pub shared: usize,
}

/// Norm and rotation of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadRope {
    /// Where they are, and their shape.
    pub heads: HeadShape,
    /// Norm of queries.
    pub q_norm: Option<Norm>,
    /// Norm of keys.
    pub k_norm: Option<Norm>,
    /// What one norm goes over.
    pub span: HeadNormSpan,
    /// Rotation.
    pub rope: Option<RopeId>,
    /// Where each value is divided by its root mean square: what is added to the mean square.
    pub value_eps: Option<f32>,
    /// Whether the norm comes behind the rotation.
    pub norm_is_last: bool,
}

/// Attention over the cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attend {
    /// Where queries are, and the shape.
    pub heads: HeadShape,
    /// The layer of the cache.
    pub cache: usize,
    /// Factor on query-key products.
    pub scale: f32,
    /// Factor on them that grows with the query's position.
    pub temperature: Option<Temperature>,
    /// Scores stay within +- this.
    pub soft_cap: Option<f32>,
    /// What scores lose grows with the distance, by this at most (ALiBi).
    pub max_bias: Option<f32>,
    /// Which positions are seen.
    pub visible: Visible,
    /// A score of each query head that takes weight and adds no value.
    pub sinks: Option<TensorId>,
}

/// What a state takes in with each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanRule {
    /// Its value (Mamba 2: Dao and Gu 2024, arXiv 2405.21060). With the step size d =
    /// softplus(step + bias), the state (key_dim, value_dim) becomes exp(decay * d) * state + d *
    /// key value^T, and the output query state + skip * value.
    Value,
    /// What its value is beyond what the state holds for its key (gated delta net: Yang et al. 2024,
    /// arXiv 2412.06464). The state first fades by exp(decay * softplus(step + bias)), and then takes
    /// key (b * (value - key state))^T, with b = sigmoid(strength); the output is query state. Keys
    /// and queries have length 1, queries are divided by the root of key_dim.
    Delta,
    /// Each head is one channel, and its state (key_dim) fades element by element, with the step size
    /// d = softplus(step): it becomes exp(d * decay) . state + d * value * key, and the output query
    /// state + skip * value. There is one group. Keys and queries are not convolved: they, and the
    /// steps, are made of what the convolution gives (Mamba: Gu and Dao 2023, arXiv 2312.00752).
    Channel,
}

/// The sizes of a recurrence, and how a column of [`Register::Scan`] is laid out: gates of all
/// elements of the heads, then what the convolution goes over, then a step size for each head, and
/// for the delta rule a strength for each. The convolution goes over values (head by head), keys and
/// queries (group by group), for the delta rule over queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanShape {
    /// What a state takes in.
    pub rule: ScanRule,
    /// Heads, each with a state of `key_dim` times `value_dim`.
    pub heads: usize,
    /// Groups of heads that share keys and queries; divides `heads`.
    pub groups: usize,
    /// Elements of a key and of a query.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Whether head h uses group h modulo their number; else heads that follow each other share one.
    pub is_tiled: bool,
}

impl ScanShape {
    /// Elements of all heads' values, and of their outputs.
    pub fn inner_len(&self) -> usize {
        self.heads * self.value_dim
    }

    /// Elements of all groups' keys, or queries.
    pub fn keys_len(&self) -> usize {
        self.groups * self.key_dim
    }

    /// Channels of the convolution.
    pub fn conv_len(&self) -> usize {
        match self.rule {
            ScanRule::Value | ScanRule::Delta => self.inner_len() + 2 * self.keys_len(),
            ScanRule::Channel => self.inner_len(),
        }
    }

    /// Where values begin among what the convolution goes over.
    pub fn values_at(&self) -> usize {
        match self.rule {
            ScanRule::Value | ScanRule::Channel => 0,
            ScanRule::Delta => 2 * self.keys_len(),
        }
    }

    /// Where keys begin among it.
    pub fn keys_at(&self) -> usize {
        match self.rule {
            ScanRule::Value | ScanRule::Channel => self.inner_len(),
            ScanRule::Delta => self.keys_len(),
        }
    }

    /// Where queries begin among it.
    pub fn queries_at(&self) -> usize {
        match self.rule {
            ScanRule::Value | ScanRule::Channel => self.inner_len() + self.keys_len(),
            ScanRule::Delta => 0,
        }
    }

    /// Where step sizes begin in a column.
    pub fn steps_at(&self) -> usize {
        self.inner_len() + self.conv_len()
    }

    /// Elements of a column.
    pub fn column_len(&self) -> usize {
        let of_head = match self.rule {
            ScanRule::Value => 1,
            ScanRule::Delta => 2,
            ScanRule::Channel => 0,
        };
        self.steps_at() + self.heads * of_head
    }

    /// Elements of a column of [`Register::Steps`].
    pub fn steps_len(&self) -> usize {
        match self.rule {
            ScanRule::Value | ScanRule::Delta => 3 * self.heads,
            ScanRule::Channel => self.heads + self.keys_len(),
        }
    }

    /// The group whose keys and queries a head uses.
    pub fn group_of(&self, head: usize) -> usize {
        if self.is_tiled { head % self.groups } else { head * self.groups / self.heads }
    }
}

/// A causal convolution of each channel, and SiLU; for the delta rule queries and keys then get
/// length 1, and queries are divided by the root of their number of elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv {
    /// The record that holds the positions before.
    pub record: usize,
    /// Which elements of a column it goes over.
    pub shape: ScanShape,
    /// Positions that it covers, the own one included.
    pub kernel: usize,
    /// (channels, kernel), the earliest position first.
    pub weight: TensorId,
    /// One number a channel.
    pub bias: Option<TensorId>,
    /// What is added to the sum of squares.
    pub eps: f32,
}

/// A causal convolution of each channel between two gates: a column of [`Register::Scan`] has gates
/// b, gates c and inputs u, and the output is c . conv(b . u).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShortConv {
    /// The record that holds the positions before.
    pub record: usize,
    /// Channels.
    pub len: usize,
    /// Positions that it covers, the own one included.
    pub kernel: usize,
    /// (channels, kernel), the earliest position first.
    pub weight: TensorId,
}

/// A recurrence whose state fades by one factor a head and position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scan {
    /// The record that holds the state.
    pub record: usize,
    /// Where values, keys, queries and steps are.
    pub shape: ScanShape,
    /// One number a head.
    pub step_bias: TensorId,
    /// One number a head, negative.
    pub decay: TensorId,
    /// One number a head, where values are added to outputs.
    pub skip: Option<TensorId>,
}

/// A column of the scan register as files pack it, key group by key group: of each group its heads'
/// strengths and then their steps, behind what is in its place; or first of each group its query, key,
/// heads' values and heads' gates, and then those.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regroup {
    /// The order that it gets.
    pub shape: ScanShape,
    /// Whether it is all in groups, not strengths and steps alone.
    pub is_all: bool,
}

/// A recurrence of single channels ([`ScanRule::Channel`]): values are in [`Register::Conv`], raw steps
/// in [`Register::Gates`], a key and a query in [`Register::Qkv`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChannelScan {
    /// The record that holds the state.
    pub record: usize,
    /// Its sizes.
    pub shape: ScanShape,
    /// (channels, elements of a state), negative.
    pub decay: TensorId,
    /// One number a channel.
    pub skip: TensorId,
}

/// Gates of a recurrence's outputs, and their norm: gated first, in groups of heads; for the delta
/// rule head by head, and gated then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateNorm {
    /// Where the gates are.
    pub shape: ScanShape,
    /// (groups, elements of a group's outputs), for the delta rule (elements of a head's); `None`
    /// where there is no norm.
    pub weight: Option<TensorId>,
    /// What is added to the mean square.
    pub eps: f32,
}

/// How experts are chosen, and what each weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Route {
    /// Experts.
    pub n_experts: usize,
    /// Experts that a position uses.
    pub n_used: usize,
    /// Groups of experts, and how many of them may be used: those with the greatest sums of two
    /// scores.
    pub groups: Option<(usize, usize)>,
    /// What is added to a probability where experts are chosen: one number an expert.
    pub choice_bias: Option<TensorId>,
    /// From the router's numbers to probabilities.
    pub gating: Gating,
    /// Whether the weights of the used ones are divided by their sum.
    pub normalised: bool,
    /// Factor on the weights.
    pub scale: f32,
    /// Factor on the router's numbers.
    pub number_scale: f32,
    /// Factors on what experts give: one number an expert.
    pub expert_scale: Option<TensorId>,
}

/// The matrices of all experts for one purpose, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertLinear {
    /// (experts, rows of both, k), where it holds the rows of another purpose too.
    pub w: TensorId,
    /// Rows of an expert in the tensor.
    pub stride: usize,
    /// The first of them that is for this.
    pub first: usize,
    /// Rows of one expert.
    pub rows: usize,
    /// Elements of a row.
    pub k: usize,
    /// (experts, rows).
    pub bias: Option<TensorId>,
}

/// Networks of which each position uses some.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// The input.
    pub from: Input,
    /// Experts that a position uses.
    pub n_used: usize,
    /// The gates, if there are any.
    pub gate: Option<ExpertLinear>,
    /// The up projections.
    pub up: ExpertLinear,
    /// The down projections.
    pub down: ExpertLinear,
    /// Activation of the gate, or of the up projection.
    pub activation: HiddenActivation,
    /// Limits of gate and up projection.
    pub clamp: Option<Clamp>,
    /// Whether it is the inputs that are weighed, not what the experts give.
    pub weighs_input: bool,
}

impl Step {
    /// The tensors that it reads, each once, in the order of use.
    pub fn tensors(&self) -> impl Iterator<Item = TensorId> + '_ {
        let of_norm = |norm: &Option<Norm>| norm.iter().flat_map(|n| [n.weight, n.bias]).flatten().collect::<Vec<_>>();
        let of_linear = |linear: &Linear| [Some(linear.w), linear.bias].into_iter().flatten().collect::<Vec<_>>();
        let mut tensors: Vec<TensorId> = match self {
            Step::Embed { table, positions, norm, .. } => {
                [Some(*table), *positions].into_iter().flatten().chain(of_norm(norm)).collect()
            }
            Step::JoinNorm { join, norm, .. } => {
                let of_join = |join: Pending| [of_norm(&join.norm), join.output_scale.into_iter().collect()].concat();
                [join.map_or(Vec::new(), of_join), of_norm(norm)].concat()
            }
            Step::MixOwn(MixOwn { norm, .. })
            | Step::Norm { norm, .. }
            | Step::SetAside { norm, .. }
            | Step::AddAside { norm, .. } => of_norm(&Some(*norm)),
            // Matrices first: biases are read last.
            Step::Project { parts, .. } => {
                let biases = parts.iter().filter_map(|part| part.bias);
                parts.iter().map(|part| part.w).chain(biases).collect()
            }
            Step::HeadRope(step) => [of_norm(&step.q_norm), of_norm(&step.k_norm)].concat(),
            Step::GateUp { gate, up, .. } => [of_linear(gate), of_linear(up)].concat(),
            Step::Up { up, .. } => of_linear(up),
            Step::Route(step) => step.choice_bias.into_iter().chain(step.expert_scale).collect(),
            Step::Experts { experts, .. } => {
                let Experts { gate, up, down, .. } = experts;
                let parts = || gate.iter().chain([up, down]);
                parts().map(|part| part.w).chain(parts().filter_map(|part| part.bias)).collect()
            }
            Step::Conv(step) => [Some(step.weight), step.bias].into_iter().flatten().collect(),
            Step::ShortConv(step) => vec![step.weight],
            Step::JoinBranch(step) => {
                [step.of_mixer, step.of_input, step.of_branch].iter().flat_map(|norm| of_norm(&Some(*norm))).collect()
            }
            Step::Streams(Streams { step, .. }) => match step {
                StreamStep::Predict { weights } => vec![*weights],
                StreamStep::Correct { weights, scale } => vec![*weights, *scale],
                StreamStep::Add { norm } => of_norm(&Some(*norm)),
                StreamStep::Spread | StreamStep::Set { .. } | StreamStep::Merge => Vec::new(),
            },
            Step::ChannelScan(step) => vec![step.decay, step.skip],
            Step::NormParts { parts, .. } => parts.iter().flat_map(|(_, norm)| of_norm(&Some(*norm))).collect(),
            Step::Scan(step) => [step.step_bias, step.decay].into_iter().chain(step.skip).collect(),
            Step::GateNorm(step) => step.weight.into_iter().collect(),
            Step::Logits { output, .. } => of_linear(output),
            Step::Attend(step) => step.sinks.into_iter().collect(),
            Step::SplitGates(_)
            | Step::Regroup(_)
            | Step::JoinHeads(_)
            | Step::StreamInput { .. }
            | Step::SparseGate { .. }
            | Step::GateHeads { .. }
            | Step::LimitHeads { .. }
            | Step::StoreKv { .. }
            | Step::Quantize { .. }
            | Step::TimesOwn { .. }
            | Step::Weigh { .. } => Vec::new(),
        };
        // Parts of one matrix, or one for two purposes.
        let mut seen = HashSet::with_capacity(tensors.len());
        tensors.retain(|id| seen.insert(*id));
        tensors.into_iter()
    }
}
