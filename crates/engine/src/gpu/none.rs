//! What stands in for a GPU in a build without one: types that have no values.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use modelembed_spec::{Program, TensorId};
use modelembed_storage::Progress;
use modelembed_terms::CacheType;
use modelembed_text::TokenId;

use super::{Best, GpuAdapter, GpuError, GpuLayers, GpuPlacement};
use crate::cpu::scratch::Scratch;
use crate::error::Result;
use crate::load::options::LoadOptions;
use crate::load::shard::Shard;
use crate::load::share::CpuShare;
use crate::load::tensors::Compiled;
use crate::state::rope::Turn;

/// The adapters that this machine has: none in a build without GPU support.
pub fn gpu_adapters() -> Vec<GpuAdapter> {
    Vec::new()
}

pub(crate) fn load(
    _: &Compiled,
    _: &[Shard],
    options: &LoadOptions,
    _: &mut Vec<String>,
    _: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Arc<GpuModel>>> {
    refuse(options).map(|()| None)
}

pub(crate) fn plan(_: &Compiled, options: &LoadOptions, _: &mut Vec<String>) -> Result<Option<GpuPlacement>> {
    refuse(options).map(|()| None)
}

pub(crate) enum GpuModel {}

impl GpuModel {
    pub(crate) fn placement(&self) -> &GpuPlacement {
        match *self {}
    }

    #[cfg(feature = "faults")]
    pub(crate) fn give_up(&self) {
        match *self {}
    }

    pub(crate) fn cpu_share(&self) -> CpuShare {
        match *self {}
    }

    pub(crate) fn holds(&self, _: TensorId) -> bool {
        match *self {}
    }
}

fn refuse(options: &LoadOptions) -> Result<()> {
    match options.gpu_layers {
        GpuLayers::Count(0) | GpuLayers::Auto => Ok(()),
        _ => Err(GpuError::NotBuilt.into()),
    }
}

pub(crate) enum GpuSession {}

impl GpuSession {
    pub(crate) fn new(gpu: &Arc<GpuModel>, _: &Compiled, _: usize, _: usize, _: CacheType) -> Result<GpuSession> {
        match **gpu {}
    }

    pub(crate) fn has_head(&self) -> bool {
        match *self {}
    }

    pub(crate) fn kv_bytes_per_token(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn measure(&self) {
        match *self {}
    }

    pub(crate) fn busy(&self) -> Result<Duration> {
        match *self {}
    }

    pub(crate) fn layers(
        &mut self,
        _: &Program,
        _: &mut Scratch,
        _: usize,
        _: usize,
        _: &dyn Fn() -> bool,
    ) -> Result<()> {
        match *self {}
    }

    pub(crate) fn logits(&mut self, _: &Program, _: Range<usize>, _: &mut [f32]) -> Result<()> {
        match *self {}
    }

    pub(crate) fn best(&mut self, _: &Program, _: Range<usize>, _: usize, _: &[TokenId]) -> Result<Option<Vec<Best>>> {
        match *self {}
    }

    pub(crate) fn shift(&mut self, _: Range<usize>, _: usize, _: &[Turn]) {
        match *self {}
    }
}
