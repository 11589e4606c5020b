//! Placing and copying the last layers of a model into the memory of a GPU, straight from where the
//! file's bytes live.

use std::ops::ControlFlow;
use std::sync::Arc;

use modelembed_gpu::{Backend, Gpu};
use modelembed_storage::{Advice, Progress};

use super::buffers::CacheSize;
use super::model::GpuModel;
use super::place::{Obstacle, Placed, Upload, lowerable, open, place};
use super::session::GpuSession;
use super::{GpuAdapter, GpuError, GpuLayers, GpuPlacement};
use crate::cpu::scratch;
use crate::error::{Error, Result};
use crate::load::options::LoadOptions;
use crate::load::shard::Shard;
use crate::load::tensors::Compiled;

/// Bytes that are copied between two reports of progress.
const STEP_BYTES: u64 = 4 << 20;

/// The adapters that this machine has, in the order of their indices. Empty in a build without the
/// feature `gpu`.
pub fn gpu_adapters() -> Vec<GpuAdapter> {
    let adapter = |a: modelembed_gpu::AdapterInfo| GpuAdapter {
        index: a.index,
        name: a.name,
        backend: a.backend,
        kind: a.kind.name(),
    };
    modelembed_gpu::adapters().into_iter().map(adapter).collect()
}

/// Places and copies as many layers as the options ask for; `None` for none. Under `auto` less is
/// tried where memory turns out to be missing or the device is lost, until a pass was computed;
/// `warnings` tells what became of it.
///
/// # Errors
/// No usable adapter, too little memory, or whatever the device refuses, unless `auto` can do
/// without.
pub(crate) fn load(
    compiled: &Compiled,
    shards: &[Shard],
    options: &LoadOptions,
    warnings: &mut Vec<String>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Arc<GpuModel>>> {
    let is_auto = match options.gpu_layers {
        GpuLayers::Count(0) => return Ok(None),
        n => n == GpuLayers::Auto,
    };
    let mut auto = Auto::default();
    loop {
        let mut n_placed = 0;
        match attempt(compiled, shards, options, auto.most, &mut n_placed, progress) {
            Ok(found) => {
                let missing = missing_steps(compiled, options, found.as_deref().map_or(0, |model| model.share.count()));
                warnings.extend(missing.or_else(|| auto.outcome(found.as_deref()).filter(|_| is_auto)));
                return Ok(found);
            }
            Err(failure) if !is_auto => return Err(failure),
            Err(failure) => auto.learn(failure, n_placed, options)?,
        }
        if auto.most == 0 {
            warnings.extend(auto.outcome(None));
            return Ok(None);
        }
    }
}

/// Loads at most `most` layers and head; `n_placed` tells how many of them found room.
fn attempt(
    compiled: &Compiled,
    shards: &[Shard],
    options: &LoadOptions,
    most: usize,
    n_placed: &mut usize,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Arc<GpuModel>>> {
    let gpu = open(options)?;
    let Some(placed) = place(&gpu, compiled, options, most)? else { return Ok(None) };
    *n_placed = placed.share.count();
    if copy(&gpu, &placed.uploads, shards, progress)?.is_break() {
        return Err(Error::Cancelled);
    }
    let placement = placed.placement(&gpu);
    let Placed { weights, share, .. } = placed;
    let program = &compiled.program;
    let first_layer = program.n_layer() - share.n_layers;
    let first_cache = program.caches().partition_point(|cache| cache.layer < first_layer);
    // Exact runs round nothing.
    let limits = gpu.limits();
    let int8 = limits.int8 && !options.exact;
    let half = (limits.f16 || limits.matrix.is_some()) && !options.exact;
    let model = Arc::new(GpuModel { gpu, weights, share, first_cache, int8, half, first_layer, placement });
    if options.gpu_layers == GpuLayers::Auto {
        let caches = CacheSize::wanted(compiled, options)?;
        let capacity = caches.iter().map(|cache| cache.capacity).max().unwrap_or(0);
        let max_cols = scratch::chunk_cols(program).min(capacity);
        GpuSession::with_caches(&model, compiled, max_cols, &caches)?.try_out(program, max_cols)?;
    }
    Ok(Some(model))
}

/// What [`load`] would place where, as long as memory that is promised is there: it is taken and
/// given back, and nothing is copied.
///
/// # Errors
/// As [`load`].
pub(crate) fn plan(
    compiled: &Compiled,
    options: &LoadOptions,
    warnings: &mut Vec<String>,
) -> Result<Option<GpuPlacement>> {
    let is_auto = match options.gpu_layers {
        GpuLayers::Count(0) => return Ok(None),
        n => n == GpuLayers::Auto,
    };
    let plan = || -> Result<_> {
        let gpu = open(options)?;
        Ok(place(&gpu, compiled, options, usize::MAX)?.map(|placed| placed.placement(&gpu)))
    };
    let mut auto = Auto { most: 0, ..Auto::default() };
    let found = match plan() {
        Err(failure) if is_auto => {
            auto.learn(failure, 0, options)?;
            None
        }
        found => found?,
    };
    if found.is_none() {
        warnings.extend(auto.outcome(None));
    }
    Ok(found)
}

/// What a user is told where layers stay on the CPU for want of steps or kernels.
fn missing_steps(compiled: &Compiled, options: &LoadOptions, n_placed: usize) -> Option<String> {
    let n_all = compiled.program.n_layer() + 1;
    let n_wanted = match options.gpu_layers {
        GpuLayers::Count(n) => n.min(n_all),
        GpuLayers::All | GpuLayers::Auto => n_all,
    };
    let (can, obstacle) = lowerable(compiled);
    let why = match obstacle? {
        Obstacle::Step => format!("architecture {} has steps there that GPUs lack", compiled.spec.arch.name),
        Obstacle::Type(ty) => format!("weights of type {ty} follow, which GPUs have no kernels for"),
    };
    (can.count() < n_wanted && n_placed <= can.count())
        .then(|| format!("{n_placed} of {n_wanted} layers, the head counted as one, are on the GPU: {why}"))
}

/// What `auto` has learned from what went wrong.
struct Auto {
    /// Layers and head that are tried at most.
    most: usize,
    n_lost: usize,
    /// What went wrong last, and how many layers and head had found room then.
    why: Option<(String, usize)>,
}

impl Default for Auto {
    fn default() -> Auto {
        Auto { most: usize::MAX, n_lost: 0, why: None }
    }
}

impl Auto {
    /// Makes of a failure how many layers are tried next.
    ///
    /// # Errors
    /// A failure that is none of the device's, and a device that was named and is not there.
    fn learn(&mut self, failure: Error, n_placed: usize, options: &LoadOptions) -> Result<()> {
        use modelembed_gpu::Error::{Lost, NoAdapter, NotNamed, OutOfMemory};
        let Error::Gpu(failure) = failure else { return Err(failure) };
        self.most = match &failure {
            GpuError::Device(NoAdapter | NotNamed { .. }) if options.gpu_device.is_some() => {
                return Err(failure.into());
            }
            // Each try copies weights again: where there are many layers it takes large steps.
            GpuError::Device(OutOfMemory { .. }) => n_placed.saturating_sub((n_placed / 8).max(1)),
            GpuError::Device(Lost { .. }) => {
                // Too much memory or too long a step can be what a driver gives a device up for.
                // Twice is more than that.
                self.n_lost += 1;
                if self.n_lost == 1 { n_placed / 2 } else { 0 }
            }
            GpuError::Device(_) | GpuError::Cache { .. } | GpuError::NotBuilt => 0,
        };
        self.why = Some((failure.to_string(), n_placed));
        Ok(())
    }

    /// What a user is told of it, in a sentence; `None` where all went as planned.
    fn outcome(&self, found: Option<&GpuModel>) -> Option<String> {
        match (found, &self.why) {
            (Some(_), None) => None,
            (Some(model), Some((why, n_before))) => {
                let n = model.share.count();
                Some(format!(
                    "{n} of {n_before} layers, the head counted as one, are on the GPU that were meant for it: {why}"
                ))
            }
            (None, Some((why, _))) => Some(format!("all layers are computed on the CPU: {why}")),
            (None, None) => {
                Some("all layers are computed on the CPU: the GPU has no memory or no kernel for one".into())
            }
        }
    }
}

/// Copies bytes in the order in which they lie in the files, and gives the host's pages back behind
/// the copy. Ends early if `progress` asks for it.
fn copy(
    gpu: &Gpu,
    uploads: &[Upload],
    shards: &[Shard],
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> modelembed_gpu::Result<ControlFlow<()>> {
    let total_bytes = uploads.iter().map(|u| u.bytes.end - u.bytes.start).sum();
    let mut in_order: Vec<_> = uploads.iter().collect();
    in_order.sort_by_key(|u| (u.shard, u.bytes.start));
    let mut done_bytes = 0;
    for Upload { shard, bytes, buffer } in in_order {
        let storage = &shards[*shard].storage;
        for start in (bytes.start..bytes.end).step_by(STEP_BYTES as usize) {
            let range = start..bytes.end.min(start + STEP_BYTES);
            let piece = storage.bytes(range.clone());
            let piece = piece.unwrap_or_else(|| unreachable!("loading checked that every tensor lies in its file"));
            gpu.write(buffer, start - bytes.start, piece)?;
            storage.advise(range.clone(), Advice::Release);
            done_bytes += range.end - range.start;
            if progress(Progress { done_bytes, total_bytes }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    gpu.finish_writing()?;
    Ok(ControlFlow::Continue(()))
}
