//! The tensors that a model wants: name, shape, and what each is for. The one list of them.

use std::collections::HashMap;

use modelembed_gguf::TensorInfo;

/// Index of a tensor in [`Program::tensors`](crate::Program::tensors).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

impl TensorId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tensor of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    /// Name in the GGUF directory.
    pub name: String,
    /// Dimensions, row length first.
    pub dims: Vec<u64>,
    /// What it is for.
    pub role: Role,
    /// The layer that it belongs to, if to one.
    pub layer: Option<usize>,
}

impl Want {
    /// Elements of a row.
    pub fn k(&self) -> usize {
        self.dims[0] as usize
    }

    /// Rows; 1 for a vector.
    pub fn rows(&self) -> usize {
        self.dims[1..].iter().product::<u64>() as usize
    }

    /// The name without layer, which tensors for one purpose share: `attn_q.weight`.
    pub fn part(&self) -> &str {
        let part = self.layer.and_then(|il| self.name.strip_prefix(&format!("blk.{il}.")));
        part.unwrap_or(&self.name)
    }
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows of tokens.
    Embedding,
    /// Rows of tokens with a slice for each layer.
    LayerEmbedding,
    /// From the residual stream to the layers' slices of an embedding, to one layer's, or back.
    LayerProjection,
    /// Rows of positions.
    Positions,
    /// Query rows.
    Query,
    /// Key rows.
    Key,
    /// Value rows.
    Value,
    /// Query rows, then key rows, then value rows.
    QueryKeyValue,
    /// From the heads' outputs to the residual stream.
    AttentionOutput,
    /// Gate of a feed-forward network.
    Gate,
    /// Up projection.
    Up,
    /// Rows of the gate, then of the up projection.
    GateUp,
    /// Down projection.
    Down,
    /// From the residual stream to a number for each expert.
    Router,
    /// From the residual stream to everything that a recurrence reads.
    RecurrenceInput,
    /// From what a recurrence gives to the residual stream.
    RecurrenceOutput,
    /// Output head.
    Head,
    /// Weights of a norm.
    Norm,
    /// Factors on what other tensors give.
    Scale,
    /// Bias of a projection or of a norm.
    Bias,
    /// Divisors of RoPE's angles.
    RopeFactors,
    /// Weights of a convolution over positions, those of a channel side by side.
    Convolution,
    /// How fast each head of a recurrence forgets: negative.
    Decay,
}

impl Role {
    /// Whether it is multiplied with activations, and so may be quantised; a vector is always F32.
    pub fn is_matrix(self) -> bool {
        !matches!(self, Role::Norm | Role::Scale | Role::Bias | Role::RopeFactors | Role::Convolution | Role::Decay)
    }
}

/// Where a program learns which tensors there are.
#[derive(Clone, Copy)]
pub enum Directory<'a> {
    /// A file's.
    Of(&'a HashMap<&'a str, &'a TensorInfo>),
    /// Of a file that is to be made.
    Planned(Planned<'a>),
}

/// What is to be decided about a file that does not exist yet.
#[derive(Clone, Copy)]
pub struct Planned<'a> {
    /// Tokens of its vocabulary.
    pub n_vocab: usize,
    /// Whether it is to have a tensor that it may have.
    pub has: &'a dyn Fn(&str) -> bool,
}

impl Directory<'_> {
    /// Whether a tensor is there that may be.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Directory::Of(by_name) => by_name.contains_key(name),
            Directory::Planned(planned) => (planned.has)(name),
        }
    }

    /// Tokens of the vocabulary: rows of the embedding.
    pub(crate) fn n_vocab(&self) -> usize {
        match self {
            Directory::Of(by_name) => {
                by_name.get("token_embd.weight").and_then(|t| t.dims.get(1).copied()).unwrap_or(0) as usize
            }
            Directory::Planned(planned) => planned.n_vocab,
        }
    }
}
