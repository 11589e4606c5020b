//! The weights of the last layers in the memory of a graphics processor: placed, then copied straight from where the file's
//! bytes live.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use modelembed_gguf::TensorType;
use modelembed_gpu::{Backend, Buffer, Gpu, Weight};
use modelembed_storage::{Advice, Progress};

use super::forward::GpuSession;
use super::place::{CacheSize, Failure, Placed, Upload, open, place};
use super::{GpuAdapter, GpuLayers, GpuPlacement, Here};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::Shard;
use crate::model::LoadOptions;
use crate::scratch;
use crate::weights::{Layer, Tensor, Weights};

/// Bytes that are copied between two reports of progress.
const STEP_BYTES: u64 = 4 << 20;

/// The adapters that this machine has, in the order of their indices. Empty in a build without the feature `gpu`.
pub fn gpu_adapters() -> Vec<GpuAdapter> {
    let adapter = |a: modelembed_gpu::AdapterInfo| GpuAdapter {
        index: a.index,
        name: a.name,
        backend: a.backend,
        kind: a.kind.name(),
    };
    modelembed_gpu::adapters().into_iter().map(adapter).collect()
}

/// A projection and its bias.
pub(super) struct Linear {
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

/// Tensors of one block; see [`Layer`].
pub(super) struct GpuLayer {
    pub(super) attn_norm: Buffer,
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    pub(super) q_norm: Option<Buffer>,
    pub(super) k_norm: Option<Buffer>,
    pub(super) post_attn_norm: Option<Buffer>,
    pub(super) ffn_norm: Buffer,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) post_ffn_norm: Option<Buffer>,
}

/// Tensors after the last block.
pub(super) struct Head {
    pub(super) norm: Buffer,
    pub(super) output: Linear,
}

/// The part of a model that a graphics processor computes.
pub(crate) struct GpuModel {
    pub(super) gpu: Gpu,
    /// Layers from `first_layer` on.
    pub(super) layers: Vec<GpuLayer>,
    pub(super) head: Option<Head>,
    /// Norm of the output of the last layer on the CPU, where the architecture has one: it is joined on this side.
    pub(super) entry_norm: Option<Buffer>,
    /// Products are with 8-bit integers, where weights are such.
    pub(super) int8: bool,
    /// Products of many columns are with halves, where those are best.
    pub(super) half: bool,
    first_layer: usize,
    placement: GpuPlacement,
    held: HashSet<(usize, u64)>,
}

impl GpuModel {
    /// Places and copies as many layers as the options ask for; `None` for none. Under `auto` less is tried where memory turns out
    /// to be missing or the device is lost, until a pass was computed; `warnings` tells what became of it.
    ///
    /// # Errors
    /// No usable adapter, too little memory, or whatever the device refuses, unless `auto` can do without.
    pub(crate) fn load(
        config: &Config,
        weights: &Weights,
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
            match GpuModel::attempt(config, weights, shards, options, auto.most, &mut n_placed, progress) {
                Ok(found) => {
                    warnings.extend(auto.outcome(found.as_deref()));
                    return Ok(found);
                }
                Err(failure) if !is_auto => return Err(failure.into()),
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
        config: &Config,
        weights: &Weights,
        shards: &[Shard],
        options: &LoadOptions,
        most: usize,
        n_placed: &mut usize,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<Arc<GpuModel>>, Failure> {
        let gpu = open(options)?;
        let Some(placed) = place(&gpu, config, weights, options, most)? else { return Ok(None) };
        *n_placed = placed.layers.len() + usize::from(placed.head.is_some());
        if copy(&gpu, &placed.uploads, shards, progress)?.is_break() {
            return Err(Error::Cancelled.into());
        }
        let placement = placed.placement(&gpu);
        let Placed { layers, head, entry_norm, .. } = placed;
        let first_layer = config.n_layer - layers.len();
        let here = weights.layers[first_layer..].iter().flat_map(Layer::in_use_order);
        let head_here = [weights.output_norm, weights.output].into_iter().chain(weights.output_bias);
        let held = here.chain(head_here.filter(|_| head.is_some())).map(|t| (t.shard, t.offset)).collect();
        // Exact runs round nothing.
        let limits = gpu.limits();
        let int8 = limits.int8 && !options.exact;
        let half = (limits.f16 || limits.matrix.is_some()) && !options.exact;
        let model = Arc::new(GpuModel { gpu, layers, head, entry_norm, int8, half, first_layer, placement, held });
        if options.gpu_layers == GpuLayers::Auto {
            let cache = CacheSize::wanted(config, options)?;
            let (n_vocab, max_cols) = (weights.token_embd.rows, scratch::chunk_cols(config).min(cache.capacity));
            GpuSession::with_cache(&model, config, n_vocab, max_cols, cache)?.try_out(config, n_vocab, max_cols)?;
        }
        Ok(Some(model))
    }

    /// What [`load`](Self::load) would place where, as long as memory that is promised is there: it is taken and given back, and
    /// nothing is copied.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn plan(
        config: &Config,
        weights: &Weights,
        options: &LoadOptions,
        warnings: &mut Vec<String>,
    ) -> Result<Option<GpuPlacement>> {
        let is_auto = match options.gpu_layers {
            GpuLayers::Count(0) => return Ok(None),
            n => n == GpuLayers::Auto,
        };
        let plan = || {
            let gpu = open(options)?;
            Ok(place(&gpu, config, weights, options, usize::MAX)?.map(|placed| placed.placement(&gpu)))
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

    pub(crate) fn placement(&self) -> &GpuPlacement {
        &self.placement
    }

    pub(crate) fn give_up(&self) {
        self.gpu.give_up();
    }

    /// What is left to the CPU.
    pub(crate) fn left(&self) -> Here {
        Here { n_layers: self.first_layer, has_head: self.head.is_none() }
    }

    /// The first layer that is computed here.
    pub(crate) fn first_layer(&self) -> usize {
        self.first_layer
    }

    /// Whether a tensor is in the device's memory, so that no layer of the CPU reads it.
    pub(crate) fn holds(&self, t: &Tensor) -> bool {
        self.held.contains(&(t.shard, t.offset))
    }
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
    fn learn(&mut self, failure: Failure, n_placed: usize, options: &LoadOptions) -> Result<()> {
        use modelembed_gpu::Error::{Lost, NoAdapter, OutOfMemory};
        let why = match failure {
            Failure::Gpu(e @ NoAdapter(_)) if options.gpu_device.is_some() => return Err(e.into()),
            Failure::Gpu(OutOfMemory { what, wanted_bytes }) => {
                // Each try copies weights again: where there are many layers it takes large steps.
                self.most = n_placed.saturating_sub((n_placed / 8).max(1));
                OutOfMemory { what, wanted_bytes }.to_string()
            }
            Failure::Gpu(Lost(why)) => {
                // Too much memory or too long a step can be what a driver gives a device up for. Twice is more than that.
                self.n_lost += 1;
                self.most = if self.n_lost == 1 { n_placed / 2 } else { 0 };
                Lost(why).to_string()
            }
            Failure::Gpu(e) => {
                self.most = 0;
                e.to_string()
            }
            // Of a head that no cache on a device can hold.
            Failure::Other(e @ Error::InvalidOption(_)) => {
                self.most = 0;
                e.to_string()
            }
            Failure::Other(e) => return Err(e),
        };
        self.why = Some((why, n_placed));
        Ok(())
    }

    /// What a user is told of it, in a sentence; `None` where all went as planned.
    fn outcome(&self, found: Option<&GpuModel>) -> Option<String> {
        match (found, &self.why) {
            (Some(_), None) => None,
            (Some(model), Some((why, n_before))) => {
                let n = model.layers.len() + usize::from(model.head.is_some());
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

/// Copies bytes in the order in which they lie in the files, and gives the host's pages back behind the copy. Ends early if
/// `progress` asks for it.
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
