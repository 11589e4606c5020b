//! Layers on a GPU: how many, what was placed where, and (with the feature `gpu`) their weights and
//! forward pass.

#[cfg(feature = "gpu")]
mod buffers;
pub(crate) mod error;
#[cfg(feature = "gpu")]
mod load;
#[cfg(feature = "gpu")]
mod lower;
#[cfg(feature = "gpu")]
mod model;
#[cfg(not(feature = "gpu"))]
mod none;
#[cfg(feature = "gpu")]
mod place;
#[cfg(feature = "gpu")]
mod session;
#[cfg(feature = "gpu")]
mod weights;

pub use error::GpuError;
#[cfg(feature = "gpu")]
pub use load::gpu_adapters;
#[cfg(feature = "gpu")]
pub(crate) use load::{load, plan};
#[cfg(feature = "gpu")]
pub(crate) use model::GpuModel;
#[cfg(not(feature = "gpu"))]
pub use none::gpu_adapters;
#[cfg(not(feature = "gpu"))]
pub(crate) use none::{GpuModel, GpuSession, load, plan};
#[cfg(feature = "gpu")]
pub(crate) use session::GpuSession;

use std::fmt;

use modelembed_text::TokenId;

use crate::load::share::CpuShare;

/// How many of a model's layers a GPU computes: the last ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuLayers {
    /// This many; more than the model has takes the output head too.
    Count(usize),
    /// Every layer and the output head.
    All,
    /// As many as the memory of the GPU takes, none where there is no usable one.
    Auto,
}

impl Default for GpuLayers {
    fn default() -> GpuLayers {
        GpuLayers::Count(0)
    }
}

/// Limits below those that the GPU reports: room for others, and for tests what weak GPUs impose.
/// `None` leaves it to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GpuLimits {
    /// Bytes of its memory that may be used.
    pub memory_bytes: Option<u64>,
    /// Bytes that the threads of a workgroup may share.
    pub workgroup_bytes: Option<u32>,
    /// Bytes of a buffer that a kernel may see at a time.
    pub binding_bytes: Option<u64>,
    /// Bytes of the largest buffer.
    pub buffer_bytes: Option<u64>,
    /// Whether sums go over subgroups, where it has them.
    pub subgroups: Option<bool>,
    /// Whether products of few columns are with 8-bit integers; in exact runs none is.
    pub int8: Option<bool>,
    /// Whether halves are multiplied, where it can; in exact runs none are.
    pub f16: Option<bool>,
    /// Whether its matrix units are used, where it has them; in exact runs they are not.
    pub matrix: Option<bool>,
    /// What goes wrong with it.
    #[cfg(feature = "faults")]
    #[doc(hidden)]
    pub faults: GpuFaults,
}

/// What goes wrong with a GPU, for tests of what is done about it.
#[cfg(feature = "faults")]
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuFaults {
    /// Bytes that may be written to it, as where a driver promises memory that it does not have.
    pub filled_bytes: Option<u64>,
    /// Bytes of writes to it after which it is lost, each time that it is opened.
    pub lost_after_bytes: Option<u64>,
    /// Lists of steps after which it is lost, likewise.
    pub lost_after_runs: Option<u64>,
}

impl GpuLimits {
    /// These limits with so many bytes of its memory.
    #[must_use]
    pub fn memory_bytes(mut self, memory_bytes: impl Into<Option<u64>>) -> GpuLimits {
        self.memory_bytes = memory_bytes.into();
        self
    }

    /// These limits with so many bytes that the threads of a workgroup share.
    #[must_use]
    pub fn workgroup_bytes(mut self, workgroup_bytes: impl Into<Option<u32>>) -> GpuLimits {
        self.workgroup_bytes = workgroup_bytes.into();
        self
    }

    /// These limits with so many bytes of a buffer seen at a time.
    #[must_use]
    pub fn binding_bytes(mut self, binding_bytes: impl Into<Option<u64>>) -> GpuLimits {
        self.binding_bytes = binding_bytes.into();
        self
    }

    /// These limits with buffers of at most so many bytes.
    #[must_use]
    pub fn buffer_bytes(mut self, buffer_bytes: impl Into<Option<u64>>) -> GpuLimits {
        self.buffer_bytes = buffer_bytes.into();
        self
    }

    /// These limits with sums over subgroups, or without.
    #[must_use]
    pub fn subgroups(mut self, subgroups: impl Into<Option<bool>>) -> GpuLimits {
        self.subgroups = subgroups.into();
        self
    }

    /// These limits with products of 8-bit integers, or without.
    #[must_use]
    pub fn int8(mut self, int8: impl Into<Option<bool>>) -> GpuLimits {
        self.int8 = int8.into();
        self
    }

    /// These limits with products of halves, or without.
    #[must_use]
    pub fn f16(mut self, f16: impl Into<Option<bool>>) -> GpuLimits {
        self.f16 = f16.into();
        self
    }

    /// These limits with matrix units, or without.
    #[must_use]
    pub fn matrix(mut self, matrix: impl Into<Option<bool>>) -> GpuLimits {
        self.matrix = matrix.into();
        self
    }

    /// These limits with these faults.
    #[cfg(feature = "faults")]
    #[doc(hidden)]
    #[must_use]
    pub fn faults(mut self, faults: GpuFaults) -> GpuLimits {
        self.faults = faults;
        self
    }
}

/// The logits of some tokens: the most likely ones, and those that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Best {
    /// In ascending order.
    pub(crate) ids: Vec<TokenId>,
    pub(crate) logits: Vec<f32>,
}

/// A GPU of this machine, or software that acts like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuAdapter {
    /// Place in the list of [`gpu_adapters`], by which it can be chosen.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// The interface that it is reached by: Vulkan, Metal, Dx12.
    pub backend: String,
    /// discrete, integrated, virtual, software or unknown kind.
    pub kind: &'static str,
}

impl fmt::Display for GpuAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}, {})", self.index, self.name, self.backend, self.kind)
    }
}

/// Which GPU computes what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuPlacement {
    /// The driver's name for the device.
    pub adapter: String,
    /// The interface that it is reached by: Vulkan, Metal, Dx12.
    pub backend: String,
    /// Layers that it computes: the model's last ones.
    pub n_layers: usize,
    /// Whether it computes the output head.
    pub has_head: bool,
    /// Bytes of weights in its memory.
    pub weight_bytes: u64,
    /// Bytes that the keys and values of these layers take there, of a context of the planned
    /// length.
    pub kv_bytes: u64,
}

impl GpuPlacement {
    /// What is left to the CPU of a model of `n_layer` layers.
    pub(crate) fn cpu_share(&self, n_layer: usize) -> CpuShare {
        CpuShare { n_layers: n_layer - self.n_layers, has_head: !self.has_head }
    }
}

#[cfg(feature = "gpu")]
impl From<modelembed_gpu::Error> for crate::error::Error {
    fn from(e: modelembed_gpu::Error) -> Self {
        GpuError::from(e).into()
    }
}
