//! What of a program the CPU computes.

use modelembed_spec::{Program, Segment};

/// The first layers, and the output head unless that is on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuShare {
    pub(crate) n_layers: usize,
    pub(crate) has_head: bool,
}

impl CpuShare {
    /// Everything.
    pub(crate) fn all(program: &Program) -> CpuShare {
        CpuShare { n_layers: program.n_layer(), has_head: true }
    }

    /// Segments of its layers, in the order of use: units 0 and up.
    pub(crate) fn layer_segments(self, program: &Program) -> &[Segment] {
        let layers = program.layer_segments();
        let n = layers.partition_point(|segment| segment.part.layer().is_some_and(|il| il < self.n_layers));
        &layers[..n]
    }

    /// The unit of the head, if it has that: the one behind those of the layers.
    pub(crate) fn head_unit(self, program: &Program) -> Option<usize> {
        self.has_head.then(|| self.layer_segments(program).len())
    }

    /// All its segments; the number of each is that of its unit.
    pub(crate) fn segments(self, program: &Program) -> impl Iterator<Item = &Segment> {
        self.layer_segments(program).iter().chain(self.has_head.then(|| program.head()))
    }

    /// How many layers of the cache of keys and values are its layers'.
    pub(crate) fn n_caches(self, program: &Program) -> usize {
        program.caches().partition_point(|cache| cache.layer < self.n_layers)
    }

    /// How many recurrent states are its layers'.
    pub(crate) fn n_records(self, program: &Program) -> usize {
        program.records().partition_point(|record| record.layer < self.n_layers)
    }
}
