//! What of a model is in the memory of a GPU: which part of the program, and its tensors.

use std::collections::HashMap;

use modelembed_gguf::TensorType;
use modelembed_gpu::{Buffer, Weight};
use modelembed_spec::{Linear, Program, Segment, TensorId};

/// What of a program a device computes: the last layers, and the head if all steps behind them are
/// there too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GpuShare {
    pub(super) n_layers: usize,
    pub(super) has_head: bool,
}

impl GpuShare {
    /// Layers, the head counted as one.
    pub(super) fn count(self) -> usize {
        self.n_layers + usize::from(self.has_head)
    }

    /// Its segments of layers, a slice a layer.
    pub(super) fn layers(self, program: &Program) -> impl DoubleEndedIterator<Item = &[Segment]> {
        let (segments, first) = (program.layer_segments(), program.n_layer() - self.n_layers);
        let before = segments.partition_point(|segment| segment.part.layer().is_some_and(|il| il < first));
        segments[before..].chunk_by(|a, b| a.part.layer() == b.part.layer())
    }
}

/// The tensors of a share, in buffers.
#[derive(Default)]
pub(super) struct DeviceWeights {
    pub(super) vectors: HashMap<TensorId, Buffer>,
    /// By matrix and first row.
    pub(super) linears: HashMap<(TensorId, usize), DeviceLinear>,
}

impl DeviceWeights {
    /// Takes another's tensors too.
    pub(super) fn extend(&mut self, other: DeviceWeights) {
        self.vectors.extend(other.vectors);
        self.linears.extend(other.linears);
    }

    pub(super) fn vector(&self, id: TensorId) -> &Buffer {
        self.vectors.get(&id).unwrap_or_else(|| unreachable!("placed with its layer"))
    }

    pub(super) fn linear(&self, linear: &Linear) -> &DeviceLinear {
        self.linears.get(&DeviceWeights::key(linear)).unwrap_or_else(|| unreachable!("placed with its layer"))
    }

    /// Whether a tensor is among them, or rows of it.
    pub(super) fn holds(&self, id: TensorId) -> bool {
        self.vectors.contains_key(&id) || self.linears.keys().any(|(w, _)| *w == id)
    }

    pub(super) fn key(linear: &Linear) -> (TensorId, usize) {
        (linear.w, linear.rows.start)
    }
}

/// Rows of a matrix and their bias.
pub(super) struct DeviceLinear {
    pub(super) ty: TensorType,
    /// All rows in order; more than one part where a buffer does not hold them.
    pub(super) parts: Vec<Part>,
}

/// Some rows of a projection.
pub(super) struct Part {
    pub(super) first_row: usize,
    pub(super) w: Weight<Buffer>,
    pub(super) bias: Option<Buffer>,
}
