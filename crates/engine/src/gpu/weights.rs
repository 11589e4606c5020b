//! The weights of the last layers in the memory of a graphics processor: planned, then copied straight from where the file's
//! bytes live.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use modelembed_gguf::TensorType;
use modelembed_gpu::{Backend, Buffer, Choice, Gpu, GpuOptions, Weight};
use modelembed_storage::{Advice, Progress};

use super::{GpuAdapter, GpuLayers, GpuLimits, GpuPlacement, Here};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::Shard;
use crate::kv::{self, CacheType};
use crate::model::LoadOptions;
use crate::weights::{Layer, Tensor, Weights};

/// Bytes of the largest buffer for weights, where the device does not allow less: not all devices that allow more like it.
const PART_BYTES: u64 = 1 << 30;
/// Bytes that are copied between two reports of progress.
const STEP_BYTES: u64 = 4 << 20;
/// What `auto` leaves free besides the KV cache: activations, and what the driver and the screen want.
const MARGIN_BYTES: u64 = 256 << 20;
/// Why a cache in Q8_0 is refused.
pub(super) const NO_Q8_CACHE: &str = "layers on a GPU keep keys and values in f16 or f32, not in q8_0";

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
    /// Products of few columns are with 8-bit integers.
    pub(super) int8: bool,
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
        let is_auto = options.gpu_layers == GpuLayers::Auto;
        let cache_type = options.cache_type.unwrap_or(CacheType::usual(options.exact));
        if cache_type == CacheType::Q8 {
            if is_auto {
                warnings.push(format!("all layers are computed on the CPU: {NO_Q8_CACHE}"));
                return Ok(None);
            }
            return Err(Error::InvalidOption(NO_Q8_CACHE.into()));
        }
        let choice = options.gpu_device.clone().map_or(Choice::Best, Choice::Named);
        let GpuLimits { memory_bytes, binding_bytes, buffer_bytes, subgroups, int8 } = options.gpu_limits;
        let opened = Gpu::open(&GpuOptions {
            choice,
            budget_bytes: memory_bytes,
            max_binding_bytes: binding_bytes,
            max_buffer_bytes: buffer_bytes,
            subgroups,
            int8,
            lanes: None,
        });
        let gpu = match opened {
            Err(e @ modelembed_gpu::Error::NoAdapter(_)) if is_auto && options.gpu_device.is_none() => {
                warnings.push(format!("all layers are computed on the CPU: {e}"));
                return Ok(None);
            }
            opened => opened?,
        };
        // Under `auto`, memory that turns out to be missing while it is filled means fewer layers.
        let mut most = usize::MAX;
        let (layers, head, entry_norm, uploads) = loop {
            let mut plan = Plan { gpu: &gpu, uploads: Vec::new() };
            let (layers, head) = if is_auto {
                plan.as_many_as_fit(config, weights, most, kv_bytes(config, ctx_tokens, cache_type))?
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
                warnings.push(format!(
                    "all layers are computed on the CPU: {} has no memory or no kernel for one",
                    gpu.adapter()
                ));
                return Ok(None);
            }
            let before = config.n_layer.checked_sub(layers.len() + 1).and_then(|il| weights.layers[il].post_ffn_norm);
            let entry_norm = before.map(|t| plan.vector(&t)).transpose()?;
            match copy(&gpu, &plan.uploads, shards, progress) {
                Ok(ControlFlow::Continue(())) => break (layers, head, entry_norm, plan.uploads),
                Ok(ControlFlow::Break(())) => return Err(Error::Cancelled),
                Err(modelembed_gpu::Error::OutOfMemory { .. }) if is_auto => {
                    most = layers.len() + usize::from(head.is_some()) - 1;
                }
                Err(e) => return Err(e.into()),
            }
        };
        let first_layer = config.n_layer - layers.len();
        let placement = GpuPlacement {
            adapter: gpu.adapter().name.clone(),
            backend: gpu.adapter().backend.clone(),
            n_layers: layers.len(),
            has_head: head.is_some(),
            weight_bytes: uploads.iter().map(|u| u.bytes.end - u.bytes.start).sum(),
        };
        let here = weights.layers[first_layer..].iter().flat_map(Layer::in_use_order);
        let head_here = [weights.output_norm, weights.output].into_iter().chain(weights.output_bias);
        let held = here.chain(head_here.filter(|_| head.is_some())).map(|t| (t.shard, t.offset)).collect();
        // Exact runs round nothing.
        let int8 = gpu.limits().int8 && !options.exact;
        Ok(Some(Arc::new(GpuModel { gpu, layers, head, entry_norm, int8, first_layer, placement, held })))
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
    uploads: Vec<Upload>,
}

/// Bytes of a file that go to a buffer.
struct Upload {
    shard: usize,
    bytes: Range<u64>,
    buffer: Buffer,
}

type Placed<T> = modelembed_gpu::Result<T>;

impl Plan<'_> {
    fn vector(&mut self, t: &Tensor) -> Placed<Buffer> {
        self.piece(t, 0..t.n_bytes)
    }

    fn maybe(&mut self, t: Option<&Tensor>) -> Placed<Option<Buffer>> {
        t.map(|t| self.vector(t)).transpose()
    }

    /// A buffer for some bytes of a tensor.
    fn piece(&mut self, t: &Tensor, bytes: Range<u64>) -> Placed<Buffer> {
        let buffer = self.gpu.alloc("weights", Weight::<Buffer>::buffer_bytes(bytes.end - bytes.start))?;
        let bytes = t.offset + bytes.start..t.offset + bytes.end;
        self.uploads.push(Upload { shard: t.shard, bytes, buffer: buffer.clone() });
        Ok(buffer)
    }

    fn linear(&mut self, w: &Tensor, bias: Option<&Tensor>) -> Placed<Linear> {
        if !modelembed_gpu::supports(w.ty) {
            return Err(modelembed_gpu::Error::Unsupported(format!("{} weights", w.ty)));
        }
        let row_bytes = w.n_bytes / w.rows.max(1) as u64;
        let room = PART_BYTES.min(self.gpu.limits().max_buffer_bytes.saturating_sub(8));
        let part_rows = (room / row_bytes.max(1)).max(1) as usize;
        let parts = (0..w.rows).step_by(part_rows).map(|first_row| {
            let rows = part_rows.min(w.rows - first_row);
            let (first, end) = (first_row as u64, (first_row + rows) as u64);
            let buffer = self.piece(w, first * row_bytes..end * row_bytes)?;
            let bias = bias.map(|b| self.piece(b, first * 4..end * 4)).transpose()?;
            Ok(Part { first_row, w: Weight { buffer, ty: w.ty, rows, k: w.k }, bias })
        });
        Ok(Linear { ty: w.ty, parts: parts.collect::<Placed<_>>()? })
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

    /// Layers from the last one down while memory lasts, and at most so many of them and the head; the head only where all fit.
    /// A layer that no kernel is for, or that is too large for the device, ends it too.
    fn as_many_as_fit(
        &mut self,
        config: &Config,
        weights: &Weights,
        most: usize,
        kv_bytes: u64,
    ) -> Placed<(Vec<GpuLayer>, Option<Head>)> {
        use modelembed_gpu::Error::{Limit, OutOfMemory, Unsupported};
        let gpu = self.gpu;
        let if_it_fits = |placed| match placed {
            Ok(placed) => Ok(Some(placed)),
            Err(OutOfMemory { .. } | Limit { .. } | Unsupported(_)) => Ok(None),
            Err(e) => Err(e),
        };
        // Held while weights are placed, a piece for each layer, then given back for the sessions.
        let mut reserved = Vec::new();
        let mut layers = Vec::new();
        match gpu.alloc("a margin", MARGIN_BYTES.min(gpu.limits().max_buffer_bytes)) {
            Ok(buffer) => reserved.push(buffer),
            Err(OutOfMemory { .. }) => return Ok((layers, None)),
            Err(e) => return Err(e),
        }
        for l in weights.layers.iter().rev().take(most) {
            let before = self.uploads.len();
            let cache = || Ok([gpu.alloc("keys", kv_bytes / 2)?, gpu.alloc("values", kv_bytes / 2)?]);
            match if_it_fits(cache().and_then(|cache| Ok((cache, self.layer(l)?))))? {
                Some((cache, layer)) => {
                    reserved.extend(cache);
                    layers.push(layer);
                }
                None => {
                    self.uploads.truncate(before);
                    break;
                }
            }
        }
        layers.reverse();
        let mut head = None;
        if layers.len() == config.n_layer && most > config.n_layer {
            let before = self.uploads.len();
            match self.head(weights) {
                Ok(placed) => head = Some(placed),
                Err(OutOfMemory { .. } | Limit { .. } | Unsupported(_)) => self.uploads.truncate(before),
                Err(e) => return Err(e),
            }
        }
        Ok((layers, head))
    }
}

/// Bytes of a layer's keys and values, of a full context.
fn kv_bytes(config: &Config, ctx_tokens: usize, cache_type: CacheType) -> u64 {
    kv::bytes(config, 1, ctx_tokens.next_multiple_of(64), cache_type)
}

/// Copies bytes in the order in which they lie in the files, and gives the host's pages back behind the copy. Ends early if
/// `progress` asks for it.
fn copy(
    gpu: &Gpu,
    uploads: &[Upload],
    shards: &[Shard],
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Placed<ControlFlow<()>> {
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
