//! The part of a model that a GPU computes.

use modelembed_gpu::Gpu;
use modelembed_spec::TensorId;

use super::GpuPlacement;
use super::weights::{DeviceWeights, GpuShare};
use crate::load::share::CpuShare;

/// The part of a model that a GPU computes.
pub(crate) struct GpuModel {
    pub(super) gpu: Gpu,
    pub(super) weights: DeviceWeights,
    pub(super) share: GpuShare,
    /// The first layer of the cache of keys and values that is here.
    pub(super) first_cache: usize,
    /// Products are with 8-bit integers, where weights are such.
    pub(super) int8: bool,
    /// Products of many columns are with halves, where those are best.
    pub(super) half: bool,
    pub(super) first_layer: usize,
    pub(super) placement: GpuPlacement,
}

impl GpuModel {
    pub(crate) fn placement(&self) -> &GpuPlacement {
        &self.placement
    }

    #[cfg(feature = "faults")]
    pub(crate) fn give_up(&self) {
        self.gpu.give_up();
    }

    /// What is left to the CPU.
    pub(crate) fn cpu_share(&self) -> CpuShare {
        CpuShare { n_layers: self.first_layer, has_head: !self.share.has_head }
    }

    /// Whether a tensor is in the device's memory, so that no layer of the CPU reads it.
    pub(crate) fn holds(&self, id: TensorId) -> bool {
        self.weights.holds(id)
    }
}
