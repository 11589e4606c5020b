//! The backend over the graphics library: memory, kernels compiled when first needed, and every
//! error as a value.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::adapter::{self, Choice};
use crate::adapter_info::{AdapterInfo, AdapterKind};
use crate::backend::{Backend, Op};
use crate::clock::Stamps;
use crate::encode::{Dispatch, Step, encode};
use crate::error::{Error, Result};
use crate::experimental;
use crate::kernels::{Access, Input, Kernel, MatrixUnits};
use crate::limits::Limits;
use crate::lock::lock;
use crate::poll::poll;
use crate::self_test;
use crate::upload::{self, Ring};

/// How a device is opened. Besides the choice these are for tests, which put weak devices' bounds
/// on strong ones.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Which adapter.
    pub choice: Choice,
    /// Bytes that all buffers may take together; `None` leaves it to the driver.
    pub budget_bytes: Option<u64>,
    /// Bytes that may be written into all buffers together, as on drivers that promise memory
    /// before they have it; `None` leaves it to the driver.
    pub filled_bytes: Option<u64>,
    /// Bytes of writes after which the device is lost; `None` leaves it to the device.
    pub lost_after_bytes: Option<u64>,
    /// Lists of steps, those of opening not counted, after which the device is lost; `None` leaves
    /// it to the device.
    pub lost_after_runs: Option<u64>,
    /// Bytes that the threads of a workgroup may share; `None` takes what the adapter allows.
    pub max_workgroup_bytes: Option<u32>,
    /// Bytes of a buffer that a kernel may see at a time; `None` takes what the adapter allows.
    pub max_binding_bytes: Option<u64>,
    /// Bytes of the largest buffer; `None` takes what the adapter allows.
    pub max_buffer_bytes: Option<u64>,
    /// Sum over subgroups, or do without; `None` does where the adapter has them and they pay.
    pub subgroups: Option<bool>,
    /// Multiply 8-bit integers, or do without; `None` does on all devices but software.
    pub int8: Option<bool>,
    /// Multiply halves, or do without; `None` does where the adapter can, on all devices but
    /// software.
    pub f16: Option<bool>,
    /// Use matrix units, or do without; `None` does where the adapter has them, on all devices but
    /// software and those of a maker whose drivers are known to crash.
    pub matrix: Option<bool>,
    /// Threads that share a row of a matrix-vector product, a power of two up to 64; `None`
    /// chooses.
    pub lanes: Option<u32>,
}

/// Memory of a device; dropped with its last handle.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Memory>);

#[derive(Debug)]
struct Memory {
    raw: wgpu::Buffer,
    len_bytes: u64,
    used: Arc<AtomicU64>,
    /// How far it was written.
    filled_bytes: AtomicU64,
    filled: Arc<AtomicU64>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.used.fetch_sub(self.len_bytes, Ordering::Relaxed);
        self.filled.fetch_sub(*self.filled_bytes.get_mut(), Ordering::Relaxed);
    }
}

impl Buffer {
    /// Length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.0.len_bytes
    }
}

/// What went wrong behind the scenes.
#[derive(Clone, Debug)]
enum Fault {
    OutOfMemory,
    Lost(String),
    Refused(String),
}

struct Pipeline {
    raw: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// What is left until a device is lost on purpose.
struct Fuses {
    bytes: AtomicU64,
    runs: AtomicU64,
}

/// An opened device.
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    adapter: AdapterInfo,
    limits: Limits,
    budget_bytes: Option<u64>,
    used: Arc<AtomicU64>,
    /// Bytes that may be written, and bytes that were.
    may_fill_bytes: Option<u64>,
    filled: Arc<AtomicU64>,
    fuses: Fuses,
    pipelines: Mutex<HashMap<Kernel, Arc<Pipeline>>>,
    /// Parameters of the steps of one list, one slot each.
    params: Mutex<Option<wgpu::Buffer>>,
    /// Where bytes are copied to before they are read.
    staging: Mutex<Option<wgpu::Buffer>>,
    /// What much is copied to the device through.
    ring: Mutex<Ring>,
    /// The device's clock; `None` while nobody asks, or where it has none.
    stamps: Mutex<Option<Stamps>>,
    has_clock: bool,
    /// Bound where a kernel has a buffer that a step does not use.
    unused: wgpu::Buffer,
    fault: Arc<Mutex<Option<Fault>>>,
}

/// The maker whose drivers are known to crash on matrix units, or to compute something else.
const INTEL: u32 = 0x8086;

/// Matrix units of halves with f32 sums, as they can be used on an adapter; `None` where it has
/// none, or too little of what they need besides.
fn matrix_units(adapter: &wgpu::Adapter, has: &wgpu::Limits) -> Option<MatrixUnits> {
    use wgpu::{CooperativeScalarType as Scalar, Features};
    let needs = Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16 | Features::SUBGROUP;
    if !adapter.features().contains(needs) {
        return None;
    }
    let info = adapter.get_info();
    let threads = 4 * info.subgroup_max_size;
    let properties = adapter.cooperative_matrix_properties();
    let is_square = |p: &&wgpu::CooperativeMatrixProperties| p.m_size == p.n_size && p.n_size == p.k_size;
    let fits = |units: &MatrixUnits| {
        units.workgroup_bytes() <= has.max_compute_workgroup_storage_size
            && (1..=has.max_compute_invocations_per_workgroup.min(has.max_compute_workgroup_size_x)).contains(&threads)
    };
    let of_halves = properties.iter().filter(|p| p.ab_type == Scalar::F16 && p.cr_type == Scalar::F32);
    let units = of_halves.filter(is_square).filter(|p| [8, 16].contains(&p.m_size)).map(|p| MatrixUnits {
        size: p.m_size,
        threads,
        subgroups: threads / info.subgroup_min_size.clamp(1, threads.max(1)),
    });
    units.filter(fits).max_by_key(|units| units.size)
}

/// Bytes from one step's parameters to the next: no adapter asks for more.
const PARAMS_STRIDE: u64 = 256;
/// Bytes of parameters that a step has.
const PARAMS_BYTES: u64 = 64;

impl Gpu {
    /// Opens an adapter.
    ///
    /// # Errors
    /// No adapter that may be used, or one that its driver does not open.
    pub fn open(options: &GpuOptions) -> Result<Gpu> {
        match Gpu::open_as(options) {
            // Units that cannot even be tried cost the device.
            Err(Error::Lost { .. }) if options.matrix.is_none() => {
                Gpu::open_as(&GpuOptions { matrix: Some(false), ..options.clone() })
            }
            opened => opened,
        }
    }

    fn open_as(options: &GpuOptions) -> Result<Gpu> {
        use wgpu::Features;
        let (info, adapter) = adapter::find(&options.choice)?;
        let mut has = adapter.limits();
        if let Some(bytes) = options.max_workgroup_bytes {
            has.max_compute_workgroup_storage_size = has.max_compute_workgroup_storage_size.min(bytes);
        }
        adapter::check_limits(&info, &has)?;
        // On a CPU a thread a row is as fast, and shares nothing.
        let is_software = info.kind == AdapterKind::Software;
        let features = adapter.features();
        let subgroups = options.subgroups.unwrap_or(!is_software) && features.contains(Features::SUBGROUP);
        let f16 = options.f16.unwrap_or(!is_software) && features.contains(Features::SHADER_F16);
        let matrix = options.matrix.unwrap_or(!is_software && adapter.get_info().vendor != INTEL);
        let matrix = if matrix { matrix_units(&adapter, &has) } else { None };
        let clock = features & Features::TIMESTAMP_QUERY;
        let mut required = clock;
        required.set(Features::SUBGROUP, subgroups || matrix.is_some());
        required.set(Features::SHADER_F16, f16 || matrix.is_some());
        required.set(Features::EXPERIMENTAL_COOPERATIVE_MATRIX, matrix.is_some());
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("modelembed"),
            required_features: required,
            required_limits: has.clone(),
            experimental_features: match matrix {
                Some(_) => experimental::leave(),
                None => wgpu::ExperimentalFeatures::disabled(),
            },
            ..Default::default()
        };
        let opened = pollster::block_on(adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|e| Error::Open { adapter: info.to_string(), problem: e.to_string() })?;
        let fault = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error| {
            let found = match error {
                wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory,
                other => Fault::Refused(other.to_string()),
            };
            lock(&slot).get_or_insert(found);
        }));
        let slot = Arc::clone(&fault);
        device.set_device_lost_callback(move |_, message| {
            let why = if message.is_empty() { "its driver does not say why".into() } else { message };
            *lock(&slot) = Some(Fault::Lost(why));
        });
        let unused = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("unused"),
            size: 256,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let max_binding = has.max_storage_buffer_binding_size;
        let lanes = if is_software { 1 } else { 32 };
        let mut gpu = Gpu {
            limits: Limits {
                max_binding_bytes: options.max_binding_bytes.unwrap_or(max_binding).min(max_binding),
                max_buffer_bytes: options.max_buffer_bytes.unwrap_or(u64::MAX).min(has.max_buffer_size),
                offset_alignment: u64::from(has.min_storage_buffer_offset_alignment.max(4)),
                subgroups,
                int8: options.int8.unwrap_or(!is_software),
                f16,
                matrix,
                lanes: options.lanes.unwrap_or(lanes).clamp(1, 64),
            },
            adapter: info,
            device,
            queue,
            budget_bytes: options.budget_bytes,
            used: Arc::default(),
            may_fill_bytes: options.filled_bytes,
            filled: Arc::default(),
            fuses: Fuses { bytes: u64::MAX.into(), runs: u64::MAX.into() },
            pipelines: Mutex::default(),
            params: Mutex::default(),
            staging: Mutex::default(),
            ring: Mutex::default(),
            stamps: Mutex::default(),
            has_clock: !clock.is_empty(),
            unused,
            fault,
        };
        gpu.check("opening")?;
        gpu.choose_tier()?;
        gpu.fuses.bytes = options.lost_after_bytes.unwrap_or(u64::MAX).into();
        gpu.fuses.runs = options.lost_after_runs.unwrap_or(u64::MAX).into();
        Ok(gpu)
    }

    /// Burns a fuse down by `n`, and loses the device with its end.
    fn burn(&self, fuse: &AtomicU64, n: u64) {
        let left = fuse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(n)));
        if left.is_ok_and(|left| left < n) {
            self.give_up();
        }
    }

    /// Does without whatever gives wrong results.
    fn choose_tier(&mut self) -> Result<()> {
        // A kernel that the driver does not take is as good as one that is wrong; a lost device is
        // not.
        let passes = |gpu: &Gpu, input: Input, rows: usize, n_cols: usize| match self_test::passes(
            gpu,
            input,
            gpu.limits.matrix.is_some(),
            rows,
            n_cols,
        ) {
            Err(Error::Refused { .. }) => Ok(false),
            other => other,
        };
        if self.limits.subgroups && !passes(self, Input::Float, 5, 2)? {
            self.limits.subgroups = false;
        }
        // Of a step and of a prompt.
        if self.limits.int8 && !(passes(self, Input::Int8, 5, 2)? && passes(self, Input::Int8, 5, 10)?) {
            self.limits.int8 = false;
        }
        // More than the units' square, so that each of its quarters has rows and columns.
        if self.limits.matrix.is_some() && !passes(self, Input::Half, 70, 75)? {
            self.limits.matrix = None;
        }
        let matrix = self.limits.matrix.take();
        if self.limits.f16 && !passes(self, Input::Half, 37, 35)? {
            self.limits.f16 = false;
        }
        self.limits.matrix = matrix;
        Ok(())
    }

    /// What was opened.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.adapter
    }

    /// What steps are fitted to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of all buffers.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Gives the device up: whatever is asked of it from now on is [`Error::Lost`], as when it is
    /// unplugged.
    pub fn give_up(&self) {
        self.device.destroy();
        lock(&self.fault).get_or_insert(Fault::Lost("it was given up".into()));
    }

    /// Takes what went wrong since the last look. A lost device stays lost.
    fn check(&self, what: &str) -> Result<()> {
        let mut fault = lock(&self.fault);
        let found = match &*fault {
            Some(Fault::Lost(why)) => return Err(Error::Lost { reason: why.clone() }),
            _ => fault.take(),
        };
        match found {
            None => Ok(()),
            Some(Fault::OutOfMemory) => Err(Error::OutOfMemory { what: what.to_owned(), wanted_bytes: 0 }),
            Some(Fault::Refused(why) | Fault::Lost(why)) => {
                Err(Error::Refused { step: Some(what.to_owned()), reason: why })
            }
        }
    }

    /// The same; a loss is kept for all that is asked for later.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(Error::Lost { reason: why }) = &result {
            lock(&self.fault).get_or_insert(Fault::Lost(why.clone()));
        }
        result
    }

    /// Counts what is written up to byte `end` of a buffer.
    fn fill(&self, buffer: &Buffer, end: u64) -> Result<()> {
        let more = end.saturating_sub(buffer.0.filled_bytes.fetch_max(end, Ordering::Relaxed));
        let filled = self.filled.fetch_add(more, Ordering::Relaxed) + more;
        if self.may_fill_bytes.is_some_and(|may| filled > may) {
            return Err(Error::OutOfMemory { what: "what is written".into(), wanted_bytes: more });
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        let waited = poll(&self.device, wgpu::PollType::wait_indefinitely());
        self.check("waiting")?;
        self.noted(waited)
    }

    fn pipeline(&self, kernel: Kernel) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = lock(&self.pipelines).get(&kernel) {
            return Ok(Arc::clone(pipeline));
        }
        let name = format!("{kernel:?}");
        let entry = |binding: u32, ty: wgpu::BufferBindingType, min: u64| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: min.try_into().ok() },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform, 0)];
        for (i, access) in kernel.bindings().iter().enumerate() {
            let ty = wgpu::BufferBindingType::Storage { read_only: *access == Access::Read };
            entries.push(entry(i as u32 + 1, ty, 0));
        }
        let layout = self
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&name), entries: &entries });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&name),
            source: wgpu::ShaderSource::Wgsl(kernel.source().into()),
        });
        let raw = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            // Workgroup memory is written before it is read.
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        self.check(&name)?;
        let pipeline = Arc::new(Pipeline { raw, layout });
        lock(&self.pipelines).insert(kernel, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// A buffer of at least `len` bytes out of a slot that keeps the largest asked for.
    fn grown(&self, slot: &mut Option<wgpu::Buffer>, len: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        match slot {
            Some(buffer) if buffer.size() >= len => buffer.clone(),
            _ => {
                let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("transfer"),
                    size: len.next_power_of_two().max(1 << 16),
                    usage,
                    mapped_at_creation: false,
                });
                slot.insert(buffer).clone()
            }
        }
    }

    fn dispatch(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        dispatch: &Dispatch<'_, Buffer>,
        params: &wgpu::Buffer,
        slot: u64,
    ) -> Result<()> {
        let pipeline = self.pipeline(dispatch.kernel)?;
        let bound = |buffer, offset, size: u64| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: size.try_into().ok() })
        };
        let mut entries =
            vec![wgpu::BindGroupEntry { binding: 0, resource: bound(params, slot * PARAMS_STRIDE, PARAMS_BYTES) }];
        for (i, binding) in dispatch.bindings.iter().enumerate() {
            let resource = match binding {
                None => bound(&self.unused, 0, 256),
                Some(b) => bound(&b.buffer.0.raw, b.offset, b.len),
            };
            entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
        }
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries: &entries,
        });
        pass.set_pipeline(&pipeline.raw);
        pass.set_bind_group(0, &group, &[]);
        let [x, y, z] = dispatch.groups;
        pass.dispatch_workgroups(x, y, z);
        Ok(())
    }
}

impl Backend for Gpu {
    type Buffer = Buffer;

    fn alloc(&self, what: &str, len_bytes: u64) -> Result<Buffer> {
        let len_bytes = len_bytes.next_multiple_of(4).max(4);
        if len_bytes > self.limits.max_buffer_bytes {
            return Err(Error::Limit {
                what: what.to_owned(),
                wanted_bytes: len_bytes,
                limit: "largest buffer",
                limit_bytes: self.limits.max_buffer_bytes,
            });
        }
        self.check(what)?;
        let out_of_memory = || Error::OutOfMemory { what: what.to_owned(), wanted_bytes: len_bytes };
        if self.budget_bytes.is_some_and(|budget| self.used_bytes() + len_bytes > budget) {
            return Err(out_of_memory());
        }
        let raw = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: len_bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.check(what).map_err(|e| if matches!(e, Error::OutOfMemory { .. }) { out_of_memory() } else { e })?;
        self.used.fetch_add(len_bytes, Ordering::Relaxed);
        Ok(Buffer(Arc::new(Memory {
            raw,
            len_bytes,
            used: Arc::clone(&self.used),
            filled_bytes: AtomicU64::new(0),
            filled: Arc::clone(&self.filled),
        })))
    }

    fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.burn(&self.fuses.bytes, bytes.len() as u64);
        self.check("writing")?;
        self.fill(buffer, offset + bytes.len() as u64)?;
        let whole = bytes.len() / 4 * 4;
        if whole > upload::PIECE_BYTES / 4 {
            let copied = lock(&self.ring).copy(&self.device, &self.queue, &bytes[..whole], &buffer.0.raw, offset);
            self.check("writing")?;
            self.noted(copied)?;
        } else if whole > 0 {
            self.queue.write_buffer(&buffer.0.raw, offset, &bytes[..whole]);
        }
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(&buffer.0.raw, offset + whole as u64, &last);
        }
        self.check("writing")
    }

    fn prepare(&self, ops: &[Op<Buffer>]) -> Result<()> {
        self.check("preparing")?;
        for step in encode(ops, &self.limits, Buffer::len_bytes)? {
            if let Step::Dispatch(dispatch) = step {
                self.pipeline(dispatch.kernel)?;
            }
        }
        Ok(())
    }

    fn run(&self, ops: &[Op<Buffer>]) -> Result<()> {
        self.burn(&self.fuses.runs, 1);
        self.check("running")?;
        let mut stamps = lock(&self.stamps);
        let steps = encode(ops, &self.limits, Buffer::len_bytes)?;
        let mut params = vec![0u8; steps.len() * PARAMS_STRIDE as usize];
        for (slot, step) in params.chunks_exact_mut(PARAMS_STRIDE as usize).zip(&steps) {
            if let Step::Dispatch(d) = step {
                slot[..PARAMS_BYTES as usize].copy_from_slice(bytemuck::bytes_of(&d.params));
            }
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        // Held until the list is handed over: another thread's list must not write its parameters
        // in between.
        let mut slot = lock(&self.params);
        let params_buffer = self.grown(&mut slot, params.len() as u64, usage);
        self.queue.write_buffer(&params_buffer, 0, &params);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut at = 0;
        while at < steps.len() {
            if let Step::Copy { from, from_byte, to, to_byte, len_bytes } = &steps[at] {
                encoder.copy_buffer_to_buffer(&from.0.raw, *from_byte, &to.0.raw, *to_byte, *len_bytes);
                at += 1;
                continue;
            }
            if let Some(full) = stamps.as_mut().filter(|s| s.is_full()) {
                full.read(&self.device, &self.queue, || self.wait())?;
            }
            let timestamp_writes = stamps.as_mut().and_then(Stamps::of_pass);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            while let Some(Step::Dispatch(dispatch)) = steps.get(at) {
                self.dispatch(&mut pass, dispatch, &params_buffer, at as u64)?;
                at += 1;
            }
        }
        self.queue.submit([encoder.finish()]);
        self.check("running")
    }

    fn finish_writing(&self) -> Result<()> {
        *lock(&self.ring) = Ring::default();
        self.wait()
    }

    fn measure(&self) {
        if self.has_clock {
            lock(&self.stamps).get_or_insert_with(|| Stamps::new(&self.device, &self.queue));
        }
    }

    fn busy(&self) -> Result<Option<Duration>> {
        self.check("reading the clock")?;
        let read = |stamps: &mut Stamps| stamps.read(&self.device, &self.queue, || self.wait());
        lock(&self.stamps).as_mut().map(read).transpose()
    }

    fn read(&self, buffer: &Buffer, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.check("reading")?;
        let len = bytes.len() as u64;
        if len == 0 {
            return self.wait();
        }
        let mut slot = lock(&self.staging);
        let staging = self.grown(&mut slot, len, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&buffer.0.raw, offset, &staging, 0, len);
        self.queue.submit([encoder.finish()]);
        let mapped = Arc::new(Mutex::new(None));
        let result = Arc::clone(&mapped);
        staging.map_async(wgpu::MapMode::Read, 0..len, move |r| *lock(&result) = Some(r));
        self.wait()?;
        match lock(&mapped).take() {
            Some(Ok(())) => {}
            other => return Err(Error::refused(format!("memory of the GPU cannot be read: {other:?}"))),
        }
        {
            let view = staging.get_mapped_range(0..len).map_err(Error::refused)?;
            bytes.copy_from_slice(&view);
        }
        staging.unmap();
        Ok(())
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("adapter", &self.adapter).field("limits", &self.limits).finish_non_exhaustive()
    }
}
