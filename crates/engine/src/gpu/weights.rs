//! The weights of the last layers in the memory of a graphics processor: planned, then copied straight from where the file's
//! bytes live.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use modelembed_gpu::{Backend, Buffer, Choice, Gpu, GpuOptions, Weight};
use modelembed_storage::{Advice, Progress};

use super::{GpuLayers, GpuPlacement, Here};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::Shard;
use crate::model::LoadOptions;
use crate::weights::{Layer, Tensor, Weights};

/// Bytes that are copied between two reports of progress.
const STEP_BYTES: u64 = 4 << 20;
/// What `auto` leaves free besides the KV cache: activations, and what the driver and the screen want.
const MARGIN_BYTES: u64 = 256 << 20;

/// Descriptions of the adapters that this machine has, each after its index. Empty in a build without the feature `gpu`.
pub fn gpu_adapters() -> Vec<String> {
    modelembed_gpu::adapters().iter().map(ToString::to_string).collect()
}

/// A projection and its bias.
pub(super) struct Linear {
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
    first_layer: usize,
    placement: GpuPlacement,
    held: HashSet<(usize, u64)>,
}

impl GpuModel {
    /// Places and copies as many layers as the options ask for; `None` for none. `auto` tells in `warnings` why it takes none.
    ///
    /// # Errors
    /// No usable adapter, too little memory, or whatever the device refuses.
    pub(crate) fn load(
        config: &Config,
        weights: &Weights,
        shards: &[Shard],
        options: &LoadOptions,
        ctx_tokens: usize,
        warnings: &mut Vec<String>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<Arc<GpuModel>>> {
        if options.gpu_layers == GpuLayers::Count(0) {
            return Ok(None);
        }
        let choice = options.gpu_device.clone().map_or(Choice::Best, Choice::Named);
        let opened = Gpu::open(&GpuOptions { choice, budget_bytes: options.gpu_memory_bytes, ..GpuOptions::default() });
        let is_auto = options.gpu_layers == GpuLayers::Auto;
        let gpu = match opened {
            Err(e @ modelembed_gpu::Error::NoAdapter(_)) if is_auto && options.gpu_device.is_none() => {
                warnings.push(format!("all layers are computed on the CPU: {e}"));
                return Ok(None);
            }
            opened => opened?,
        };
        let mut plan = Plan { gpu: &gpu, uploads: Vec::new() };
        let (layers, head) = if is_auto {
            plan.as_many_as_fit(config, weights, ctx_tokens, options.exact)?
        } else {
            let n = match options.gpu_layers {
                GpuLayers::Count(n) => n,
                _ => usize::MAX,
            };
            let first = config.n_layer - n.min(config.n_layer);
            let layers = weights.layers[first..].iter().map(|l| plan.layer(l)).collect::<Result<Vec<_>, _>>()?;
            (layers, (n > config.n_layer).then(|| plan.head(weights)).transpose()?)
        };
        if layers.is_empty() {
            warnings.push(format!("all layers are computed on the CPU: {} has no memory for one", gpu.adapter()));
            return Ok(None);
        }
        let first_layer = config.n_layer - layers.len();
        let before = first_layer.checked_sub(1).and_then(|il| weights.layers[il].post_ffn_norm);
        let entry_norm = before.map(|t| plan.vector(&t)).transpose()?;
        let Plan { uploads, .. } = plan;
        let weight_bytes = uploads.iter().map(|(t, _)| t.n_bytes).sum();
        copy(&gpu, &uploads, shards, weight_bytes, progress)?;
        let placement = GpuPlacement {
            adapter: gpu.adapter().name.clone(),
            backend: gpu.adapter().backend.clone(),
            n_layers: layers.len(),
            has_head: head.is_some(),
            weight_bytes,
        };
        // The norm at the entry belongs to a layer of the CPU.
        let held = uploads.iter().filter(|(t, _)| Some(t.offset) != before.map(|b| b.offset));
        let held = held.map(|(t, _)| (t.shard, t.offset)).collect();
        Ok(Some(Arc::new(GpuModel { gpu, layers, head, entry_norm, first_layer, placement, held })))
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

/// Memory is taken for everything before anything is copied: what does not fit shows at once.
struct Plan<'a> {
    gpu: &'a Gpu,
    uploads: Vec<(Tensor, Buffer)>,
}

type Placed<T> = modelembed_gpu::Result<T>;

impl Plan<'_> {
    fn vector(&mut self, t: &Tensor) -> Placed<Buffer> {
        let buffer = self.gpu.alloc("weights", Weight::<Buffer>::buffer_bytes(t.n_bytes))?;
        self.uploads.push((*t, buffer.clone()));
        Ok(buffer)
    }

    fn maybe(&mut self, t: Option<&Tensor>) -> Placed<Option<Buffer>> {
        t.map(|t| self.vector(t)).transpose()
    }

    fn linear(&mut self, w: &Tensor, bias: Option<&Tensor>) -> Placed<Linear> {
        if !modelembed_gpu::supports(w.ty) {
            return Err(modelembed_gpu::Error::Unsupported(format!("{} weights", w.ty)));
        }
        let buffer = self.vector(w)?;
        Ok(Linear { w: Weight { buffer, ty: w.ty, rows: w.rows, k: w.k }, bias: self.maybe(bias)? })
    }

    fn layer(&mut self, l: &Layer) -> Placed<GpuLayer> {
        Ok(GpuLayer {
            attn_norm: self.vector(&l.attn_norm)?,
            q: self.linear(&l.wq, l.bq.as_ref())?,
            k: self.linear(&l.wk, l.bk.as_ref())?,
            v: self.linear(&l.wv, l.bv.as_ref())?,
            q_norm: self.maybe(l.q_norm.as_ref())?,
            k_norm: self.maybe(l.k_norm.as_ref())?,
            o: self.linear(&l.wo, l.bo.as_ref())?,
            post_attn_norm: self.maybe(l.post_attn_norm.as_ref())?,
            ffn_norm: self.vector(&l.ffn_norm)?,
            gate: self.linear(&l.gate, l.gate_bias.as_ref())?,
            up: self.linear(&l.up, l.up_bias.as_ref())?,
            down: self.linear(&l.down, l.down_bias.as_ref())?,
            post_ffn_norm: self.maybe(l.post_ffn_norm.as_ref())?,
        })
    }

    fn head(&mut self, w: &Weights) -> Placed<Head> {
        Ok(Head { norm: self.vector(&w.output_norm)?, output: self.linear(&w.output, w.output_bias.as_ref())? })
    }

    /// Layers from the last one down while memory lasts; the head only where all of them fit.
    fn as_many_as_fit(
        &mut self,
        config: &Config,
        weights: &Weights,
        ctx_tokens: usize,
        exact: bool,
    ) -> Placed<(Vec<GpuLayer>, Option<Head>)> {
        use modelembed_gpu::Error::OutOfMemory;
        let kv_bytes = (2 * config.kv_rows() * ctx_tokens * if exact { 4 } else { 2 }) as u64;
        // Held while weights are placed, a piece for each layer, then given back for the sessions.
        let mut reserved = Vec::new();
        match self.gpu.alloc("a margin", MARGIN_BYTES.min(self.gpu.limits().max_buffer_bytes)) {
            Ok(buffer) => reserved.push(buffer),
            Err(OutOfMemory { .. }) => return Ok((Vec::new(), None)),
            Err(e) => return Err(e),
        }
        let mut layers = Vec::new();
        for l in weights.layers.iter().rev() {
            let before = self.uploads.len();
            let placed = self.gpu.alloc("keys and values", kv_bytes).and_then(|kv| Ok((kv, self.layer(l)?)));
            match placed {
                Ok((kv, layer)) => {
                    reserved.push(kv);
                    layers.push(layer);
                }
                Err(OutOfMemory { .. }) => {
                    self.uploads.truncate(before);
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        layers.reverse();
        let mut head = None;
        if layers.len() == config.n_layer {
            let before = self.uploads.len();
            match self.head(weights) {
                Ok(placed) => head = Some(placed),
                Err(OutOfMemory { .. }) => self.uploads.truncate(before),
                Err(e) => return Err(e),
            }
        }
        Ok((layers, head))
    }
}

/// Copies tensors in the order in which they lie in the files, and gives the host's pages back behind the copy.
fn copy(
    gpu: &Gpu,
    uploads: &[(Tensor, Buffer)],
    shards: &[Shard],
    total_bytes: u64,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<()> {
    let mut in_order: Vec<_> = uploads.iter().collect();
    in_order.sort_by_key(|(t, _)| (t.shard, t.offset));
    let mut done_bytes = 0;
    for (t, buffer) in in_order {
        let storage = &shards[t.shard].storage;
        for first in (0..t.n_bytes).step_by(STEP_BYTES as usize) {
            let range = t.offset + first..t.offset + t.n_bytes.min(first + STEP_BYTES);
            let bytes = storage.bytes(range.clone());
            let bytes = bytes.unwrap_or_else(|| unreachable!("loading checked that every tensor lies in its file"));
            gpu.write(buffer, first, bytes)?;
            storage.advise(range.clone(), Advice::Release);
            done_bytes += range.end - range.start;
            if progress(Progress { done_bytes, total_bytes }).is_break() {
                return Err(Error::Cancelled);
            }
        }
    }
    Ok(gpu.finish_writing()?)
}
