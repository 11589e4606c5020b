//! A program's steps as steps of a device. Activations are f32 there; what a half of a layer made
//! joins the residual stream at the next norm, as on the CPU, which lets the split lie anywhere.

use modelembed_gpu::{Buffer, Columns, Limits, Op, Operand, Vectors, WIDE_COLS, half_words, int8_words};
use modelembed_spec::{
    Attend, HeadNormSpan, HeadRope, HiddenActivation, Input, Linear, Norm, Pending, Register, RopeId, Step, Visible,
};
use modelembed_terms::{Activation, NormKind, RopeStyle};

use super::buffers::Buffers;
use super::model::GpuModel;
use super::weights::DeviceLinear;

/// Whether a device can compute a step.
pub(super) fn can_lower(step: &Step) -> bool {
    let norm = |norm: &Norm| norm.kind == NormKind::Rms && norm.weight.is_some() && norm.bias.is_none();
    let norms = |norms: &Option<Norm>| norms.as_ref().is_none_or(norm);
    match step {
        Step::JoinNorm { join, norm, .. } => {
            let as_it_is = |join: &Pending| join.scale == 1.0 && join.output_scale.is_none() && norms(&join.norm);
            norms(norm) && join.as_ref().is_none_or(as_it_is)
        }
        Step::HeadRope(step) => {
            let is_known = matches!(step.span, HeadNormSpan::Head | HeadNormSpan::Row) && !step.norm_is_last;
            is_known && norms(&step.q_norm) && norms(&step.k_norm) && step.value_eps.is_none()
        }
        Step::Attend(step) => {
            let sees_last = matches!(step.visible, Visible::Causal | Visible::Window(_));
            let is_plain = step.soft_cap.is_none()
                && step.sinks.is_none()
                && step.temperature.is_none()
                && step.max_bias.is_none();
            sees_last && is_plain && step.heads.has_kv && step.heads.key_dim == step.heads.value_dim
        }
        Step::StoreKv { heads, .. } => heads.key_dim == heads.value_dim,
        Step::Logits { scale, soft_cap, .. } => *scale == 1.0 && soft_cap.is_none(),
        Step::Project { .. } | Step::Quantize { .. } => true,
        Step::GateUp { activation, clamp, .. } => act_of(*activation).is_some() && clamp.is_none(),
        // Rows are looked up where the file is; the others have no kernels yet.
        Step::Embed { .. }
        | Step::Conv(_)
        | Step::ShortConv(_)
        | Step::Scan(_)
        | Step::ChannelScan(_)
        | Step::Regroup(_)
        | Step::JoinHeads(_)
        | Step::NormParts { .. }
        | Step::GateNorm(_)
        | Step::Up { .. } => false,
        Step::SplitGates(_) | Step::GateHeads { .. } | Step::LimitHeads { .. } => false,
        Step::Norm { .. } | Step::MixOwn(_) | Step::TimesOwn { .. } => false,
        Step::SetAside { .. } | Step::AddAside { .. } => false,
        Step::Streams(_) | Step::StreamInput { .. } | Step::JoinBranch(_) | Step::SparseGate { .. } => false,
        Step::Route(_) | Step::Experts { .. } | Step::Weigh { .. } => false,
    }
}

/// A gate's activation where a device has it.
fn act_of(activation: HiddenActivation) -> Option<Activation> {
    match activation {
        HiddenActivation::Silu => Some(Activation::Silu),
        HiddenActivation::Gelu => Some(Activation::Gelu),
        _ => None,
    }
}

/// Turns steps over some columns into a device's.
pub(super) struct Lowering<'a> {
    model: &'a GpuModel,
    buffers: &'a Buffers,
    limits: &'a Limits,
    /// Style of each rotary embedding, and pairs that it turns.
    ropes: &'a [(RopeStyle, usize)],
    /// The first layer of the cache that is here.
    first_cache: usize,
    n_embd: usize,
    /// Position of the first column.
    pos: usize,
    /// The first column that is computed: those of the residual stream lie where they are, all
    /// others at the front.
    first: usize,
    n: usize,
    /// Where the inputs are.
    normed: Columns<Buffer>,
    inner: Columns<Buffer>,
    pub(super) ops: Vec<Op<Buffer>>,
}

/// What a list of steps is over.
#[derive(Clone, Copy)]
pub(super) struct Cols {
    /// Position of the first column of the chunk.
    pub(super) pos: usize,
    /// The first column that is computed.
    pub(super) first: usize,
    pub(super) n: usize,
}

impl<'a> Lowering<'a> {
    pub(super) fn new(model: &'a GpuModel, buffers: &'a Buffers, cols: Cols) -> Lowering<'a> {
        let n_embd = buffers.n_embd;
        Lowering {
            model,
            buffers,
            limits: model.gpu.limits(),
            ropes: &buffers.ropes,
            first_cache: model.first_cache,
            n_embd,
            pos: cols.pos,
            first: cols.first,
            n: cols.n,
            normed: columns(&buffers.normed, 0, n_embd),
            inner: columns(&buffers.normed, 0, n_embd),
            ops: Vec::new(),
        }
    }

    /// Appends a step for which [`can_lower`] is true.
    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::JoinNorm { join, norm, .. } => self.join_norm(join.as_ref(), norm.as_ref()),
            Step::Project { from, parts, to, adds } => self.project_parts(*from, parts, *to, *adds),
            Step::HeadRope(step) => self.head_rope(step),
            Step::StoreKv { heads, cache } => {
                let [k, v] = &self.buffers.kv[cache - self.first_cache];
                for (cache, first) in [(k, heads.q_len()), (v, heads.q_len() + heads.k_len())] {
                    let x = columns(&self.buffers.qkv, first, heads.qkv_len());
                    self.ops.push(Op::Store { x, cache: cache.clone(), pos: self.pos, n_cols: self.n });
                }
            }
            Step::Attend(step) => self.attend(step),
            Step::Quantize { from, len, .. } => self.inner = columns(self.register(*from), 0, *len),
            Step::GateUp { from, gate, up, activation, .. } => {
                let len = gate.n_rows();
                let (gates, ups) = (&self.buffers.hidden, &self.buffers.up);
                self.project(*from, &[(gate, gates, 0, len), (up, ups, 0, len)]);
                let (gate, up) = (columns(gates, 0, len), columns(ups, 0, len));
                let Some(act) = act_of(*activation) else { unreachable!("layers with it stay on the CPU") };
                self.ops.push(Op::ActMul { gate, up, len: self.n * len, act });
            }
            Step::Logits { output, .. } => {
                // Of the head's input nothing is rounded: logits are what a token is chosen by.
                let Some(logits) = &self.buffers.logits else { unreachable!("placed with the head") };
                let linear = self.model.weights.linear(output);
                multiply(
                    &mut self.ops,
                    &Operand::Floats(self.normed.clone()),
                    linear,
                    (&logits.all, 0, output.n_rows()),
                    self.n,
                );
            }
            Step::Embed { .. } => unreachable!("no step of a layer"),
            Step::Conv(_)
            | Step::ShortConv(_)
            | Step::Scan(_)
            | Step::ChannelScan(_)
            | Step::Regroup(_)
            | Step::JoinHeads(_)
            | Step::NormParts { .. }
            | Step::GateNorm(_)
            | Step::Up { .. }
            | Step::SplitGates(_)
            | Step::GateHeads { .. }
            | Step::LimitHeads { .. }
            | Step::Route(_)
            | Step::Experts { .. }
            | Step::Norm { .. }
            | Step::MixOwn(_)
            | Step::TimesOwn { .. }
            | Step::SetAside { .. }
            | Step::AddAside { .. }
            | Step::Streams(_)
            | Step::StreamInput { .. }
            | Step::JoinBranch(_)
            | Step::SparseGate { .. }
            | Step::Weigh { .. } => {
                unreachable!("layers with it stay on the CPU")
            }
        }
    }

    fn register(&self, register: Register) -> &'a Buffer {
        match register {
            Register::Residual => &self.buffers.x,
            Register::Delta => &self.buffers.delta,
            Register::Qkv => &self.buffers.qkv,
            Register::Heads => &self.buffers.heads,
            Register::Hidden => &self.buffers.hidden,
            Register::Logits => unreachable!("written by one step and read by none"),
            Register::Scan
            | Register::Conv
            | Register::Steps
            | Register::Taken
            | Register::Gates
            | Register::Own
            | Register::Aside
            | Register::Streams
            | Register::Predicted
            | Register::Router => {
                unreachable!("layers with it stay on the CPU")
            }
        }
    }

    /// x += what is pending (normalised where the architecture does), then the next input is
    /// norm(x).
    fn join_norm(&mut self, join: Option<&Pending>, norm: Option<&Norm>) {
        let (n_embd, first) = (self.n_embd, self.first * self.n_embd);
        let of = |buffer: &Buffer| columns(buffer, first, n_embd);
        let x = of(&self.buffers.x);
        let normed = columns(&self.buffers.normed, 0, n_embd);
        if let Some(join) = join {
            let pending = of(self.register(join.from));
            let pending = match &join.norm {
                Some(norm) => {
                    self.rms_norm(norm, Vectors { columns: pending, per_col: 1 }, normed.clone(), n_embd);
                    normed.clone()
                }
                None => pending,
            };
            self.ops.push(Op::Add { acc: x.clone(), x: pending, len: self.n * n_embd });
        }
        self.normed = match norm {
            Some(norm) => {
                self.rms_norm(norm, Vectors { columns: x, per_col: 1 }, normed.clone(), n_embd);
                normed
            }
            None => x,
        };
    }

    fn rms_norm(&mut self, norm: &Norm, x: Vectors<Buffer>, y: Columns<Buffer>, len: usize) {
        let Some(weight) = norm.weight else { unreachable!("only norms with weights are lowered") };
        let weight = self.model.weights.vector(weight).clone();
        self.ops.push(Op::RmsNorm { x, y, weight, len, eps: norm.eps, n_cols: self.n });
    }

    fn head_rope(&mut self, step: &HeadRope) {
        let heads = &step.heads;
        let stride = heads.qkv_len();
        for (norm, first, n_heads) in [(&step.q_norm, 0, heads.heads), (&step.k_norm, heads.q_len(), heads.kv_heads)] {
            if let Some(norm) = norm {
                let columns = columns(&self.buffers.qkv, first, stride);
                let (per_col, len) = match step.span {
                    HeadNormSpan::Row => (1, n_heads * heads.key_dim),
                    _ => (n_heads, heads.key_dim),
                };
                self.rms_norm(norm, Vectors { columns: columns.clone(), per_col }, columns, len);
            }
        }
        if let Some(RopeId(id)) = step.rope {
            let (style, pairs) = self.ropes[usize::from(id)];
            self.ops.push(Op::Rope {
                x: columns(&self.buffers.qkv, 0, stride), // keys lie behind the queries
                angles: self.buffers.angles[usize::from(id)].clone(),
                heads: heads.heads + heads.kv_heads,
                head_dim: heads.key_dim,
                pairs,
                style,
                n_cols: self.n,
            });
        }
    }

    fn attend(&mut self, step: &Attend) {
        let [k, v] = &self.buffers.kv[step.cache - self.first_cache];
        self.ops.push(Op::Attend {
            q: columns(&self.buffers.qkv, 0, step.heads.qkv_len()),
            k: k.clone(),
            v: v.clone(),
            y: columns(&self.buffers.heads, 0, step.heads.out_len()),
            heads: step.heads.heads,
            pos: self.pos,
            window: if let Visible::Window(n) = step.visible { n } else { usize::MAX },
            scale: step.scale,
            n_cols: self.n,
        });
    }

    fn project_parts(&mut self, from: Input, parts: &[Linear], to: Register, adds: bool) {
        let rows: usize = parts.iter().map(Linear::n_rows).sum();
        // Sums go through a buffer that nothing else is in at that time: what is added is no gate.
        let (target, to) = (if adds { &self.buffers.up } else { self.register(to) }, self.register(to));
        let mut first = 0;
        let targets: Vec<_> = parts
            .iter()
            .map(|part| {
                first += part.n_rows();
                (part, target, first - part.n_rows(), rows)
            })
            .collect();
        self.project(from, &targets);
        if adds {
            let (acc, x) = (columns(to, 0, rows), columns(target, 0, rows));
            self.ops.push(Op::Add { acc, x, len: self.n * rows });
        }
    }

    /// Each matrix times the columns of an input; its rows go to a buffer, from the row given on,
    /// in columns of a stride.
    fn project(&mut self, from: Input, targets: &[(&Linear, &Buffer, usize, usize)]) {
        let from = match from {
            Input::Normed => self.normed.clone(),
            Input::Inner => self.inner.clone(),
        };
        let (n, k) = (self.n, targets.first().map_or(0, |(w, ..)| w.k));
        let linears: Vec<_> =
            targets.iter().map(|(w, to, first, stride)| (self.model.weights.linear(w), *to, *first, *stride)).collect();
        let (int8, half, limits) = (self.buffers.int8.as_ref(), self.buffers.half.as_ref(), self.limits);
        let has_half = half.is_some();
        let takes_half = |w: &DeviceLinear| has_half && n >= WIDE_COLS && limits.prefers_half(w.ty, k);
        let takes_int8 = |w: &DeviceLinear| !takes_half(w) && modelembed_gpu::supports_int8(w.ty);
        // One rounding serves all of them.
        let half = half.filter(|_| linears.iter().any(|(w, ..)| takes_half(w))).map(|buffer| {
            let y = columns(buffer, 0, half_words(k));
            self.ops.push(Op::Halve { x: from.clone(), y: y.clone(), len: k, n_cols: n });
            Operand::Half(y)
        });
        let int8 = int8.filter(|_| linears.iter().any(|(w, ..)| takes_int8(w))).map(|buffer| {
            let y = columns(buffer, 0, int8_words(k));
            self.ops.push(Op::Quantize { x: from.clone(), y: y.clone(), len: k, n_cols: n });
            Operand::Int8(y)
        });
        let floats = Operand::Floats(from);
        for (w, to, first, stride) in linears {
            let rounded = if takes_half(w) { half.as_ref() } else { int8.as_ref().filter(|_| takes_int8(w)) };
            multiply(&mut self.ops, rounded.unwrap_or(&floats), w, (to, first, stride), n);
        }
    }
}

/// The rows of a matrix, part by part, times some columns.
fn multiply(
    ops: &mut Vec<Op<Buffer>>,
    x: &Operand<Buffer>,
    linear: &DeviceLinear,
    (to, first, stride): (&Buffer, usize, usize),
    n: usize,
) {
    for part in &linear.parts {
        ops.push(Op::MatMul {
            w: part.w.clone(),
            bias: part.bias.clone(),
            x: x.clone(),
            y: columns(to, first + part.first_row, stride),
            n_cols: n,
        });
    }
}

pub(super) fn columns(buffer: &Buffer, first: usize, stride: usize) -> Columns<Buffer> {
    Columns { buffer: buffer.clone(), first, stride }
}
