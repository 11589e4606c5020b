//! Which layers a graphics processor takes: memory is taken for all of them before anything is copied.

use std::ops::Range;

use modelembed_gpu::{Backend, Buffer, Choice, Gpu, GpuOptions, Weight, cache_row_bytes};
use modelembed_terms::CacheType;

use super::weights::{GpuLayer, Head, Linear, Part};
use super::{GpuLayers, GpuPlacement};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kv;
use crate::model::LoadOptions;
use crate::weights::{Layer, Tensor, Weights};

/// Bytes of the largest buffer for weights, where the device does not allow less: not all devices that allow more like it.
const PART_BYTES: u64 = 1 << 30;
/// What `auto` leaves free besides the KV cache: activations, and what the driver and the screen want.
const MARGIN_BYTES: u64 = 256 << 20;

/// Layers, their tensors in buffers that hold nothing yet.
pub(super) struct Placed {
    pub(super) layers: Vec<GpuLayer>,
    pub(super) head: Option<Head>,
    /// See `GpuModel`.
    pub(super) entry_norm: Option<Buffer>,
    pub(super) uploads: Vec<Upload>,
    /// Bytes of keys and values of the planned context.
    kv_bytes: u64,
}

/// Bytes of a file that go to a buffer.
pub(super) struct Upload {
    pub(super) shard: usize,
    pub(super) bytes: Range<u64>,
    pub(super) buffer: Buffer,
}

impl Placed {
    /// What a user is told.
    pub(super) fn placement(&self, gpu: &Gpu) -> GpuPlacement {
        GpuPlacement {
            adapter: gpu.adapter().name.clone(),
            backend: gpu.adapter().backend.clone(),
            n_layers: self.layers.len(),
            has_head: self.head.is_some(),
            weight_bytes: self.uploads.iter().map(|u| u.bytes.end - u.bytes.start).sum(),
            kv_bytes: self.kv_bytes,
        }
    }
}

/// Keys or values of one layer on a device.
#[derive(Clone, Copy)]
pub(super) struct CacheSize {
    pub(super) ty: CacheType,
    /// Positions: a multiple of 64 rows is as many aligned bytes, so that heads can be bound in parts where a binding does not
    /// hold all.
    pub(super) capacity: usize,
    pub(super) len_bytes: u64,
}

impl CacheSize {
    /// For the context that a model is loaded for.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(super) fn wanted(config: &Config, options: &LoadOptions) -> Result<CacheSize> {
        let ctx_tokens = options.ctx_tokens.unwrap_or(config.n_ctx_train);
        CacheSize::of(config, ctx_tokens, options.cache_type.unwrap_or(kv::usual_type(config, options.exact)))
    }

    /// For a context of `ctx_tokens`.
    ///
    /// # Errors
    /// Heads that cannot be stored so.
    pub(super) fn of(config: &Config, ctx_tokens: usize, ty: CacheType) -> Result<CacheSize> {
        let row_bytes = cache_row_bytes(ty, config.head_dim).ok_or_else(|| {
            let (name, head_dim) = (ty.name(), config.head_dim);
            Error::InvalidOption(format!("a GPU cannot keep {name} keys and values of heads of {head_dim} elements"))
        })?;
        let capacity = ctx_tokens.saturating_add(63) / 64 * 64;
        let sizes = [config.n_head_kv as u64, capacity as u64, row_bytes];
        Ok(CacheSize { ty, capacity, len_bytes: sizes.into_iter().fold(1, u64::saturating_mul) })
    }
}

/// Why layers are not on a device.
pub(super) enum Failure {
    /// The device.
    Gpu(modelembed_gpu::Error),
    /// Anything else.
    Other(Error),
}

impl From<modelembed_gpu::Error> for Failure {
    fn from(e: modelembed_gpu::Error) -> Failure {
        Failure::Gpu(e)
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Other(e)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Gpu(e) => e.into(),
            Failure::Other(e) => e,
        }
    }
}

/// The device that the options ask for.
///
/// # Errors
/// No usable adapter, or whatever the driver refuses.
pub(super) fn open(options: &LoadOptions) -> modelembed_gpu::Result<Gpu> {
    let limits = options.gpu_limits;
    Gpu::open(&GpuOptions {
        choice: options.gpu_device.clone().map_or(Choice::Best, Choice::Named),
        budget_bytes: limits.memory_bytes,
        filled_bytes: limits.filled_bytes,
        lost_after_bytes: limits.lost_after_bytes,
        lost_after_runs: limits.lost_after_runs,
        max_workgroup_bytes: limits.workgroup_bytes,
        max_binding_bytes: limits.binding_bytes,
        max_buffer_bytes: limits.buffer_bytes,
        subgroups: limits.subgroups,
        int8: limits.int8,
        f16: limits.f16,
        matrix: limits.matrix,
        lanes: None,
    })
}

/// Takes memory for the layers that the options ask for, and for no more than `most` layers and head under `auto`; `None` where
/// that takes none.
///
/// # Errors
/// Too little memory, or whatever the device refuses.
pub(super) fn place(
    gpu: &Gpu,
    config: &Config,
    weights: &Weights,
    options: &LoadOptions,
    most: usize,
) -> Result<Option<Placed>, Failure> {
    let mut plan = Plan { gpu, uploads: Vec::new() };
    let cache = CacheSize::wanted(config, options)?;
    let (layers, head) = match options.gpu_layers {
        GpuLayers::Auto => plan.as_many_as_fit(config, weights, most, cache)?,
        GpuLayers::Count(n) => plan.these(config, weights, n, options.ctx_tokens.map(|_| cache))?,
        GpuLayers::All => plan.these(config, weights, usize::MAX, options.ctx_tokens.map(|_| cache))?,
    };
    if layers.is_empty() {
        return Ok(None);
    }
    let before = config.n_layer.checked_sub(layers.len() + 1).and_then(|il| weights.layers[il].post_ffn_norm);
    let entry_norm = before.map(|t| plan.vector(&t)).transpose()?;
    let kv_bytes = (2 * layers.len() as u64).saturating_mul(cache.len_bytes);
    Ok(Some(Placed { layers, head, entry_norm, uploads: plan.uploads, kv_bytes }))
}

/// Buffers, as they are taken.
struct Plan<'a> {
    gpu: &'a Gpu,
    uploads: Vec<Upload>,
}

type Taken<T> = modelembed_gpu::Result<T>;

impl Plan<'_> {
    fn vector(&mut self, t: &Tensor) -> Taken<Buffer> {
        self.piece(t, 0..t.n_bytes)
    }

    fn maybe(&mut self, t: Option<&Tensor>) -> Taken<Option<Buffer>> {
        t.map(|t| self.vector(t)).transpose()
    }

    /// A buffer for some bytes of a tensor.
    fn piece(&mut self, t: &Tensor, bytes: Range<u64>) -> Taken<Buffer> {
        let buffer = self.gpu.alloc("weights", Weight::<Buffer>::buffer_bytes(bytes.end - bytes.start))?;
        let bytes = t.offset + bytes.start..t.offset + bytes.end;
        self.uploads.push(Upload { shard: t.shard, bytes, buffer: buffer.clone() });
        Ok(buffer)
    }

    fn linear(&mut self, w: &Tensor, bias: Option<&Tensor>) -> Taken<Linear> {
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
        Ok(Linear { ty: w.ty, parts: parts.collect::<Taken<_>>()? })
    }

    fn layer(&mut self, l: &Layer) -> Taken<GpuLayer> {
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

    fn head(&mut self, w: &Weights) -> Taken<Head> {
        Ok(Head { norm: self.vector(&w.output_norm)?, output: self.linear(&w.output, w.output_bias.as_ref())? })
    }

    /// Keys and values of a layer.
    fn cache(&self, size: CacheSize) -> Taken<[Buffer; 2]> {
        let half = || self.gpu.alloc("keys and values", size.len_bytes);
        Ok([half()?, half()?])
    }

    /// The last `n` layers and, where that is more than there are, the head. Room for their keys and values is taken too, where
    /// somebody says how much, and given back for the sessions.
    fn these(
        &mut self,
        config: &Config,
        weights: &Weights,
        n: usize,
        cache: Option<CacheSize>,
    ) -> Taken<(Vec<GpuLayer>, Option<Head>)> {
        let first = config.n_layer - n.min(config.n_layer);
        let layers = weights.layers[first..].iter().map(|l| self.layer(l)).collect::<Taken<Vec<_>>>()?;
        let head = (n > config.n_layer).then(|| self.head(weights)).transpose()?;
        let caches = layers.iter().filter_map(|_| cache).map(|size| self.cache(size));
        caches.collect::<Taken<Vec<_>>>()?;
        Ok((layers, head))
    }

    /// Layers from the last one down while memory lasts, and at most so many of them and the head; the head only where all fit.
    /// A layer that no kernel is for, or that is too large for the device, ends it too.
    fn as_many_as_fit(
        &mut self,
        config: &Config,
        weights: &Weights,
        most: usize,
        cache: CacheSize,
    ) -> Taken<(Vec<GpuLayer>, Option<Head>)> {
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
            match if_it_fits(self.cache(cache).and_then(|room| Ok((room, self.layer(l)?))))? {
                Some((room, layer)) => {
                    reserved.extend(room);
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
