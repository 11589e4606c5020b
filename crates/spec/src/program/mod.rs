//! A model as a short list of steps, made once when it is loaded.
//!
//! Order of use, what must be in memory together, bytes a token, locking, placement on a GPU,
//! timing and points of cancellation are walks over it.

mod build;
mod print;
mod step;

pub(crate) use build::Builder;
pub use step::{
    Attend, ChannelScan, Conv, ExpertLinear, Experts, GateNorm, HeadRope, HeadShape, Input, JoinBranch, JoinHeads,
    Linear, MixOwn, Norm, Pending, Register, Regroup, Route, Scan, ScanRule, ScanShape, ShortConv, Step, StreamStep,
    Streams,
};

use std::collections::{HashMap, HashSet};

use modelembed_gguf::TensorInfo;

use crate::error::{Error, Result};
use crate::model::{ModelSpec, RopeFactors, RopeId, RopeSpec, Visible};
use crate::want::{Directory, Role, TensorId, Want};

/// A model's steps, and the tensors that they read.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Parts that must be in memory together, in the order of use. The last one is the head, the
    /// others belong to layers.
    segments: Vec<Segment>,
    /// From tokens to the residual stream; rows of a table are looked up, so no segment waits for
    /// it.
    embed: Vec<Step>,
    tensors: Vec<Want>,
    /// Names of tensors that a file may hold and that nothing reads.
    unread: Vec<String>,
    /// Layers of the cache of keys and values: which shape each has.
    caches: Vec<CacheShape>,
    /// Recurrent states: which shape each has.
    records: Vec<RecordShape>,
    /// Divisors of each RoPE's angles.
    rope_factors: Vec<RopeTensors>,
    n_vocab: usize,
    n_layer: usize,
    /// Blocks behind the layers that predict further tokens: nothing reads them.
    n_nextn: usize,
    arch: &'static str,
}

/// Divisors of one rotary embedding's angles, where the file has them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RopeTensors {
    /// For contexts of any length.
    pub fixed: Option<TensorId>,
    /// For contexts above the length that was trained first.
    pub long: Option<TensorId>,
    /// For others.
    pub short: Option<TensorId>,
}

fn rope_tensors(b: &mut Builder<'_>, rope: &RopeSpec) -> Result<RopeTensors> {
    let mut divisors = |name| b.optional(name, &[rope.n_rot as u64 / 2], Role::RopeFactors, None);
    Ok(match rope.factors {
        RopeFactors::None => RopeTensors::default(),
        RopeFactors::FirstOf(n) => {
            let fixed = b.optional("rope_freqs.weight", &[n as u64], Role::RopeFactors, None)?;
            RopeTensors { fixed, ..RopeTensors::default() }
        }
        RopeFactors::Fixed => RopeTensors { fixed: divisors("rope_freqs.weight")?, ..RopeTensors::default() },
        RopeFactors::LongOrShort { .. } => RopeTensors {
            fixed: None,
            long: divisors("rope_factors_long.weight")?,
            short: divisors("rope_factors_short.weight")?,
        },
    })
}

/// A part of a program whose tensors must be in memory together: half a layer, or the head.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Which part of the model it is.
    pub part: Part,
    /// What is computed.
    pub steps: Vec<Step>,
}

/// A part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// What lets positions see each other, of this layer.
    Mixer(usize),
    /// The feed-forward network of this layer.
    FeedForward(usize),
    /// The last norm and the output head.
    Head,
}

impl Part {
    /// The layer; `None` for the head.
    pub fn layer(self) -> Option<usize> {
        match self {
            Part::Mixer(il) | Part::FeedForward(il) => Some(il),
            Part::Head => None,
        }
    }
}

/// Keys and values of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// The layer whose keys and values they are.
    pub layer: usize,
    /// Heads.
    pub kv_heads: usize,
    /// Elements of a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Rotation of its keys.
    pub rope: Option<RopeId>,
    /// Which positions are looked at.
    pub visible: Visible,
}

/// The recurrent state of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordShape {
    /// The layer whose state it is.
    pub layer: usize,
    /// Positions before the own one that the convolution looks at.
    pub conv_rows: usize,
    /// Elements of a position that it goes over.
    pub conv_len: usize,
    /// The recurrence behind it, if there is one.
    pub scan: Option<ScanShape>,
}

impl Segment {
    /// The tensors that it reads, in the order of use.
    pub fn tensors(&self) -> impl Iterator<Item = TensorId> + '_ {
        self.steps.iter().flat_map(Step::tensors)
    }
}

impl Program {
    /// Compiles a model, whose tensors are in a directory.
    ///
    /// # Errors
    /// A tensor that is missing or misshapen, or a part of the architecture that has no steps yet.
    pub fn new(spec: &ModelSpec, directory: Directory<'_>) -> Result<Program> {
        let mut b = Builder::new(spec, directory);
        if spec.encoder.is_some() {
            return Err(b.not_run("an encoder"));
        }
        let table = b.token_embedding()?;
        let rope_factors = spec.ropes.iter().map(|rope| rope_tensors(&mut b, rope)).collect::<Result<Vec<_>>>()?;
        crate::blocks::embed(&mut b, table)?;
        for (il, layer) in spec.layers.iter().enumerate() {
            crate::blocks::layer(&mut b, il, layer)?;
        }
        crate::blocks::head(&mut b, table)?;
        Ok(b.finish(rope_factors))
    }

    /// Segments of the layers, in the order of use.
    pub fn layer_segments(&self) -> &[Segment] {
        &self.segments[..self.segments.len() - 1]
    }

    /// The last segment.
    pub fn head(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    /// All segments, the head last.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Steps from tokens to the residual stream.
    pub fn embed(&self) -> &[Step] {
        &self.embed
    }

    /// The table of learned positions, if there is one: no token can stand behind its last row.
    pub fn positions(&self) -> Option<TensorId> {
        self.embed.iter().find_map(|step| match step {
            Step::Embed { positions, .. } => *positions,
            _ => None,
        })
    }

    /// Whether keys and values can stand for another position once keys are turned to it. They cannot
    /// where a learned row of the position is in all that was computed at it, nor where a norm of
    /// keys came behind their rotation: its weights are of the turned elements.
    pub fn can_move_keys(&self) -> bool {
        let mut steps = self.segments.iter().flat_map(|segment| &segment.steps);
        let is_bound = |step: &Step| matches!(step, Step::HeadRope(step) if step.norm_is_last && step.k_norm.is_some());
        self.positions().is_none() && !steps.any(is_bound)
    }

    /// The table that tokens are looked up in.
    pub fn embedding(&self) -> TensorId {
        // Blocks declare it first.
        TensorId(0)
    }

    /// Every table that tokens are looked up in; of one that is not the output head too, a token
    /// reads one row.
    pub fn tables(&self) -> impl Iterator<Item = TensorId> + '_ {
        self.embed.iter().flat_map(Step::tensors)
    }

    /// Whether a tensor is a table of which a token reads one row.
    pub fn is_looked_up(&self, id: TensorId) -> bool {
        self.tables().any(|table| table == id) && self.output().is_none_or(|output| output.w != id)
    }

    /// Every tensor, by its id.
    pub fn tensors(&self) -> &[Want] {
        &self.tensors
    }

    /// A tensor.
    pub fn tensor(&self, id: TensorId) -> &Want {
        &self.tensors[id.index()]
    }

    /// Keys and values that a session holds, by the number that steps name.
    pub fn caches(&self) -> &[CacheShape] {
        &self.caches
    }

    /// Recurrent states that a session holds, by the number that steps name.
    pub fn records(&self) -> &[RecordShape] {
        &self.records
    }

    /// Divisors of the angles of each rotary embedding.
    pub fn rope_factors(&self) -> &[RopeTensors] {
        &self.rope_factors
    }

    /// Tokens of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Layers.
    pub fn n_layer(&self) -> usize {
        self.n_layer
    }

    /// The matrix of the output head.
    pub fn output(&self) -> Option<&Linear> {
        self.head().steps.iter().find_map(|step| match step {
            Step::Logits { output, .. } => Some(output),
            _ => None,
        })
    }

    /// Whether the output head is the table that tokens are looked up in.
    pub fn has_tied_head(&self) -> bool {
        self.output().is_some_and(|output| output.w == self.embedding())
    }

    /// Every tensor in the order in which a token needs them, each once: tables come last, unless
    /// they are the head.
    pub fn in_use_order(&self) -> Vec<TensorId> {
        let of_segments = self.segments.iter().flat_map(Segment::tensors);
        let factors = self.rope_factors.iter().flat_map(|t| [t.fixed, t.long, t.short]).flatten();
        let mut seen = HashSet::new();
        of_segments.chain(factors).chain(self.tables()).filter(|id| seen.insert(*id)).collect()
    }

    /// Elements of a column of each register, at most.
    pub fn register_len(&self, register: Register) -> usize {
        let steps = self.segments.iter().flat_map(|segment| &segment.steps).chain(&self.embed);
        let len = |step: &Step| match step {
            Step::Project { parts, to, .. } if *to == register => parts.iter().map(Linear::n_rows).sum(),
            Step::Attend(step) if register == Register::Heads => step.heads.out_len(),
            Step::Scan(step) if matches!(register, Register::Heads | Register::Taken) => step.shape.inner_len(),
            Step::Scan(step) if register == Register::Steps => step.shape.steps_len(),
            Step::ChannelScan(step) if matches!(register, Register::Heads | Register::Taken) => step.shape.inner_len(),
            Step::ChannelScan(step) if register == Register::Steps => step.shape.steps_len(),
            Step::Conv(step) if register == Register::Conv => step.shape.conv_len(),
            Step::ShortConv(step) if matches!(register, Register::Conv | Register::Heads) => step.len,
            Step::GateUp { gate: rows, to, .. } | Step::Up { up: rows, to, .. } if *to == register => rows.n_rows(),
            Step::JoinHeads(step) if register == Register::Qkv => step.heads.qkv_len(),
            Step::SplitGates(heads) if register == Register::Gates => heads.out_len(),
            Step::SplitGates(heads) if register == Register::Qkv => heads.qkv_len(),
            Step::Experts { experts, .. } if register == Register::Hidden => experts.n_used * experts.up.rows,
            Step::Experts { experts, .. } if register == Register::Delta => experts.down.rows,
            Step::SetAside { len, .. } if register == Register::Aside => *len,
            Step::Streams(step) if register == Register::Predicted => step.len,
            Step::SparseGate { len, .. } if register == Register::Hidden => *len,
            Step::Embed { table, to, .. } if *to == register => self.tensor(*table).k(),
            Step::Logits { output, .. } if register == Register::Logits => output.n_rows(),
            _ => 0,
        };
        steps.map(len).max().unwrap_or(0)
    }

    /// Elements of a column of an input, at most.
    pub fn input_len(&self, input: Input) -> usize {
        let steps = self.segments.iter().flat_map(|segment| &segment.steps);
        let len = |step: &Step| match step {
            Step::JoinNorm { to, readers, .. } | Step::Norm { to, readers, .. } if *to == input => {
                readers.iter().map(|id| self.tensor(*id).k()).max().unwrap_or(0)
            }
            Step::Quantize { to, len, .. } | Step::StreamInput { to, len, .. } if *to == input => *len,
            _ => 0,
        };
        steps.map(len).max().unwrap_or(0)
    }

    /// The tensors that have a part for each expert: experts that a token uses, and all.
    pub fn expert_shares(&self) -> HashMap<TensorId, (usize, usize)> {
        let steps = self.segments.iter().flat_map(|segment| &segment.steps);
        let experts = steps.filter_map(|step| match step {
            Step::Experts { experts, .. } => Some(experts),
            _ => None,
        });
        let of_part = |part: &ExpertLinear, n_used: usize| {
            let share = (n_used, self.tensor(part.w).rows() / part.stride);
            [Some(part.w), part.bias].into_iter().flatten().map(move |id| (id, share))
        };
        experts
            .flat_map(|e| e.gate.iter().chain([&e.up, &e.down]).flat_map(move |part| of_part(part, e.n_used)))
            .collect()
    }

    /// Checks that a directory holds nothing that no step reads.
    ///
    /// # Errors
    /// The first tensor that is left over.
    pub fn check_leftovers<'a>(&self, tensors: impl Iterator<Item = &'a TensorInfo>) -> Result<()> {
        let names = self.tensors.iter().map(|t| &t.name).chain(&self.unread);
        let used: HashSet<&str> = names.map(String::as_str).collect();
        // Old converters stored the angles of RoPE, which follow from the metadata.
        let is_nextn = |name: &str| {
            let block = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            block.is_some_and(|il| (self.n_layer..self.n_layer + self.n_nextn).contains(&il))
        };
        let harmless =
            |name: &str| name.ends_with("attn_rot_embd") || name.ends_with("attn_rot_embd.weight") || is_nextn(name);
        match tensors.map(|t| t.name.as_str()).find(|name| !used.contains(name) && !harmless(name)) {
            Some(name) => {
                Err(Error::UnusedTensor { name: modelembed_gguf::escaped(name).into_owned(), arch: self.arch })
            }
            None => Ok(()),
        }
    }
}
