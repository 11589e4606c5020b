//! Which layers a GPU takes: memory is taken for all of them before anything is copied.

use std::ops::Range;

use modelembed_gguf::TensorType;
use modelembed_gpu::{Backend, Buffer, Choice, Gpu, GpuOptions, Weight};
use modelembed_spec::{Linear, Norm, Segment, Step, TensorId};

use super::buffers::CacheSize;
use super::lower::can_lower;
use super::weights::{DeviceLinear, DeviceWeights, GpuShare, Part};
use super::{GpuLayers, GpuPlacement};
use crate::error::Result;
use crate::load::options::LoadOptions;
use crate::load::tensors::{Compiled, Tensor, Tensors};

/// Bytes of the largest buffer for weights, where the device does not allow less: not all devices
/// that allow more like it.
const PART_BYTES: u64 = 1 << 30;
/// What `auto` leaves free besides the KV cache: activations, and what the driver and the screen
/// want.
const MARGIN_BYTES: u64 = 256 << 20;

/// Layers, their tensors in buffers that hold nothing yet.
pub(super) struct Placed {
    pub(super) weights: DeviceWeights,
    pub(super) share: GpuShare,
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
            n_layers: self.share.n_layers,
            has_head: self.share.has_head,
            weight_bytes: self.uploads.iter().map(|u| u.bytes.end - u.bytes.start).sum(),
            kv_bytes: self.kv_bytes,
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
        #[cfg(feature = "faults")]
        filled_bytes: limits.faults.filled_bytes,
        #[cfg(feature = "faults")]
        lost_after_bytes: limits.faults.lost_after_bytes,
        #[cfg(feature = "faults")]
        lost_after_runs: limits.faults.lost_after_runs,
        max_workgroup_bytes: limits.workgroup_bytes,
        max_binding_bytes: limits.binding_bytes,
        max_buffer_bytes: limits.buffer_bytes,
        subgroups: limits.subgroups,
        int8: limits.int8,
        f16: limits.f16,
        matrix: limits.matrix,
        ..GpuOptions::default()
    })
}

/// Takes memory for the layers that the options ask for, and for no more than `most` layers and
/// head under `auto`; `None` where that takes none. Layers with a step that devices lack, or
/// with weights of a type that they do, stay on the CPU, and so do those before them.
///
/// # Errors
/// Too little memory, or whatever the device refuses.
pub(super) fn place(gpu: &Gpu, compiled: &Compiled, options: &LoadOptions, most: usize) -> Result<Option<Placed>> {
    let caches = CacheSize::wanted(compiled, options)?;
    let mut plan = Plan { gpu, compiled, uploads: Vec::new(), weights: DeviceWeights::default() };
    let reserved = |caches: &[CacheSize]| if options.ctx_tokens.is_some() { caches.to_vec() } else { Vec::new() };
    let share = match options.gpu_layers {
        GpuLayers::Auto => plan.as_many_as_fit(most, &caches)?,
        GpuLayers::Count(n) => plan.these(n, &reserved(&caches))?,
        GpuLayers::All => plan.these(usize::MAX, &reserved(&caches))?,
    };
    if share.n_layers == 0 {
        return Ok(None);
    }
    let first_layer = compiled.program.n_layer() - share.n_layers;
    let own = compiled.program.caches().iter().zip(&caches).filter(|(shape, _)| shape.layer >= first_layer);
    let kv_bytes = own.map(|(_, size)| size.len_bytes.saturating_mul(2)).fold(0, u64::saturating_add);
    Ok(Some(Placed { weights: plan.weights, share, uploads: plan.uploads, kv_bytes }))
}

/// Why a segment stays on the CPU.
#[derive(Debug, PartialEq)]
pub(super) enum Obstacle {
    /// Devices lack one of its steps.
    Step,
    /// Devices have no kernels for weights of this type.
    Type(TensorType),
}

fn obstacle(segment: &Segment, tensors: &Tensors) -> Option<Obstacle> {
    let of_step = |step: &Step| {
        let mut types = step.tensors().map(|id| tensors.get(id).ty);
        match can_lower(step) {
            true => types.find(|&ty| !modelembed_gpu::supports(ty)).map(Obstacle::Type),
            false => Some(Obstacle::Step),
        }
    };
    segment.steps.iter().find_map(of_step)
}

/// The most of a model that devices can compute, and what more fails on.
pub(super) fn lowerable(compiled: &Compiled) -> (GpuShare, Option<Obstacle>) {
    let program = &compiled.program;
    let of = |segment: &Segment| obstacle(segment, &compiled.tensors);
    let mut share = GpuShare { n_layers: 0, has_head: false };
    for layer in (GpuShare { n_layers: program.n_layer(), has_head: true }).layers(program).rev() {
        let obstacle = layer.iter().find_map(of);
        if obstacle.is_some() {
            return (share, obstacle);
        }
        share.n_layers += 1;
    }
    let obstacle = of(program.head());
    share.has_head = obstacle.is_none();
    (share, obstacle)
}

/// Buffers, as they are taken.
struct Plan<'a> {
    gpu: &'a Gpu,
    compiled: &'a Compiled,
    uploads: Vec<Upload>,
    weights: DeviceWeights,
}

type Taken<T> = modelembed_gpu::Result<T>;

impl Plan<'_> {
    /// A buffer for some bytes of a tensor.
    fn piece(&mut self, t: &Tensor, bytes: Range<u64>) -> Taken<Buffer> {
        let buffer = self.gpu.alloc("weights", Weight::<Buffer>::buffer_bytes(bytes.end - bytes.start))?;
        let bytes = t.offset + bytes.start..t.offset + bytes.end;
        self.uploads.push(Upload { shard: t.shard, bytes, buffer: buffer.clone() });
        Ok(buffer)
    }

    fn vector(&mut self, id: TensorId) -> Taken<()> {
        if !self.weights.vectors.contains_key(&id) {
            let t = *self.compiled.tensors.get(id);
            let buffer = self.piece(&t, 0..t.n_bytes)?;
            self.weights.vectors.insert(id, buffer);
        }
        Ok(())
    }

    fn norm(&mut self, norm: Option<&Norm>) -> Taken<()> {
        norm.and_then(|norm| norm.weight).map_or(Ok(()), |id| self.vector(id))
    }

    fn linear(&mut self, linear: &Linear) -> Taken<()> {
        let w = *self.compiled.tensors.get(linear.w);
        let bias = linear.bias.map(|id| *self.compiled.tensors.get(id));
        if !modelembed_gpu::supports(w.ty) {
            return Err(modelembed_gpu::Error::Unsupported { what: format!("{} weights", w.ty) });
        }
        let row_bytes = w.n_bytes / w.rows.max(1) as u64;
        let room = PART_BYTES.min(self.gpu.limits().max_buffer_bytes.saturating_sub(8));
        let part_rows = (room / row_bytes.max(1)).max(1) as usize;
        let n_rows = linear.n_rows();
        let parts = (0..n_rows).step_by(part_rows).map(|first_row| {
            let rows = part_rows.min(n_rows - first_row);
            let of_matrix = (linear.rows.start + first_row) as u64;
            let buffer = self.piece(&w, of_matrix * row_bytes..(of_matrix + rows as u64) * row_bytes)?;
            let bytes = first_row as u64 * 4..(first_row + rows) as u64 * 4;
            let bias = bias.map(|b| self.piece(&b, bytes)).transpose()?;
            Ok(Part { first_row, w: Weight { buffer, ty: w.ty, rows, k: w.k }, bias })
        });
        let parts = parts.collect::<Taken<_>>()?;
        self.weights.linears.insert(DeviceWeights::key(linear), DeviceLinear { ty: w.ty, parts });
        Ok(())
    }

    /// The tensors of a segment.
    fn segment(&mut self, segment: &Segment) -> Taken<()> {
        for step in &segment.steps {
            match step {
                Step::JoinNorm { join, norm, .. } => {
                    self.norm(join.as_ref().and_then(|join| join.norm.as_ref()))?;
                    self.norm(norm.as_ref())?;
                }
                Step::Project { parts, .. } => parts.iter().try_for_each(|part| self.linear(part))?,
                Step::HeadRope(step) => {
                    self.norm(step.q_norm.as_ref())?;
                    self.norm(step.k_norm.as_ref())?;
                }
                Step::GateUp { gate, up, .. } => {
                    self.linear(gate)?;
                    self.linear(up)?;
                }
                Step::Logits { output, .. } => self.linear(output)?,
                // The others that devices have read no tensors, and segments with those that they lack
                // are not placed.
                _ => debug_assert!(step.tensors().next().is_none(), "the tensors of {step:?} are not placed"),
            }
        }
        Ok(())
    }

    /// Keys and values of a layer.
    fn cache(&self, size: CacheSize) -> Taken<[Buffer; 2]> {
        let half = || self.gpu.alloc("keys and values", size.len_bytes);
        Ok([half()?, half()?])
    }

    /// The last `n` layers and, where that is more than there are, the head. Room for keys and
    /// values is taken too, where `caches` says how much for each layer, and given back for the
    /// sessions.
    fn these(&mut self, n: usize, caches: &[CacheSize]) -> Taken<GpuShare> {
        let program = &self.compiled.program;
        let (can, _) = lowerable(self.compiled);
        let n_layers = n.min(can.n_layers);
        let share = GpuShare { n_layers, has_head: can.has_head && n > program.n_layer() };
        for layer in share.layers(program) {
            layer.iter().try_for_each(|segment| self.segment(segment))?;
        }
        if share.has_head {
            self.segment(program.head())?;
        }
        let first = program.caches().partition_point(|shape| shape.layer < program.n_layer() - n_layers);
        let reserved = caches.get(first..).unwrap_or_default().iter().map(|size| self.cache(*size));
        reserved.collect::<Taken<Vec<_>>>()?;
        Ok(share)
    }

    /// Layers from the last one down while memory lasts, and at most so many of them and the head;
    /// the head only where all fit. A layer that no kernel is for, or that is too large for the
    /// device, ends it too.
    fn as_many_as_fit(&mut self, most: usize, caches: &[CacheSize]) -> Taken<GpuShare> {
        use modelembed_gpu::Error::{Limit, OutOfMemory, Unsupported};
        fn if_it_fits<T>(placed: Taken<T>) -> Taken<Option<T>> {
            match placed {
                Ok(placed) => Ok(Some(placed)),
                Err(OutOfMemory { .. } | Limit { .. } | Unsupported { .. }) => Ok(None),
                Err(e) => Err(e),
            }
        }
        let program = &self.compiled.program;
        let (can, _) = lowerable(self.compiled);
        let mut share = GpuShare { n_layers: 0, has_head: false };
        // Held while weights are placed, a piece for each layer, then given back for the sessions.
        let mut reserved = Vec::new();
        match self.gpu.alloc("a margin", MARGIN_BYTES.min(self.gpu.limits().max_buffer_bytes)) {
            Ok(buffer) => reserved.push(buffer),
            Err(OutOfMemory { .. }) => return Ok(share),
            Err(e) => return Err(e),
        }
        for layer in can.layers(program).rev().take(most) {
            let own =
                program.caches().iter().zip(caches).filter(|(shape, _)| Some(shape.layer) == layer[0].part.layer());
            let own: Vec<CacheSize> = own.map(|(_, size)| *size).collect();
            let placed = self.whole(|plan| {
                let room = own.iter().map(|size| plan.cache(*size)).collect::<Taken<Vec<_>>>()?;
                layer.iter().try_for_each(|segment| plan.segment(segment))?;
                Ok(room)
            });
            let Some(room) = if_it_fits(placed)? else { break };
            reserved.extend(room.into_iter().flatten());
            share.n_layers += 1;
        }
        if can.has_head && share.n_layers == program.n_layer() && most > program.n_layer() {
            share.has_head = if_it_fits(self.whole(|plan| plan.segment(program.head())))?.is_some();
        }
        Ok(share)
    }

    /// Places something, or gives back all that it took so far.
    fn whole<T>(&mut self, place: impl FnOnce(&mut Self) -> Taken<T>) -> Taken<T> {
        let (n_uploads, before) = (self.uploads.len(), std::mem::take(&mut self.weights));
        let placed = place(self);
        let own = std::mem::replace(&mut self.weights, before);
        match placed {
            Ok(_) => self.weights.extend(own),
            Err(_) => self.uploads.truncate(n_uploads),
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use modelembed_gguf::Gguf;
    use modelembed_testkit::{GgufWriter, TinySpec, tiny_metadata, tiny_spec, tiny_tensors};

    use super::*;

    /// A tiny model of Q4_K, of which some tensors are of another type: their bytes do not matter.
    fn compiled(other: &[(&str, TensorType)]) -> Compiled {
        let spec = TinySpec { n_layer: 3, ..tiny_spec("iq3_s") };
        let mut writer = GgufWriter::new();
        for (key, value) in tiny_metadata(&spec) {
            writer = writer.pair(&key, value);
        }
        for t in tiny_tensors(&spec) {
            let is_vector = t.ty == TensorType::F32;
            let found = other.iter().find(|(name, _)| *name == t.name).map(|(_, ty)| *ty);
            let ty = found.unwrap_or(if is_vector { TensorType::F32 } else { TensorType::Q4_K });
            let n: u64 = t.dims.iter().product();
            writer = writer.tensor(&t.name, ty, &t.dims, &vec![0; ty.row_bytes(n as usize).unwrap()]);
        }
        let file = writer.build();
        let gguf = Gguf::parse(&file, file.len() as u64).unwrap();
        Compiled::new(&gguf, &file, gguf.tensors().iter()).unwrap()
    }

    #[test]
    fn layers_of_types_without_kernels_stay_on_the_cpu() {
        let share = |n_layers, has_head| GpuShare { n_layers, has_head };
        let of = |name, ty| [(name, ty)];
        let cases = [
            (&[][..], share(3, true), None),
            (&of("output.weight", TensorType::IQ1_S), share(3, false), Some(TensorType::IQ1_S)),
            (&of("token_embd.weight", TensorType::TQ2_0), share(3, true), None),
            (&of("blk.0.attn_v.weight", TensorType::MXFP4), share(2, false), Some(TensorType::MXFP4)),
            (&of("blk.1.ffn_down.weight", TensorType::IQ4_XS), share(1, false), Some(TensorType::IQ4_XS)),
            (&of("blk.2.ffn_gate.weight", TensorType::Q1_0), share(0, false), Some(TensorType::Q1_0)),
        ];
        for (other, can, why) in cases {
            assert_eq!(lowerable(&compiled(other)), (can, why.map(Obstacle::Type)), "{other:?}");
        }
    }
}
