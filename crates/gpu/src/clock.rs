//! How long the device computed, by its own clock: a time stamp before and one after each run of
//! steps.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::Result;
use crate::lock::lock;

/// Stamps that are kept before they must be read.
const N_STAMPS: u32 = 512;

/// Stamps that were set and not yet read, and the sum of what was.
pub(crate) struct Stamps {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
    n_used: u32,
    /// Of one tick.
    nanoseconds: f64,
    busy: Duration,
}

impl Stamps {
    /// For a device that has time stamps.
    pub(crate) fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Stamps {
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("time stamps"),
                size: u64::from(N_STAMPS) * 8,
                usage,
                mapped_at_creation: false,
            })
        };
        Stamps {
            set: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("time stamps"),
                ty: wgpu::QueryType::Timestamp,
                count: N_STAMPS,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            n_used: 0,
            nanoseconds: f64::from(queue.get_timestamp_period()),
            busy: Duration::ZERO,
        }
    }

    /// Whether those there are must be [read](Self::read) before another pass is timed.
    pub(crate) fn is_full(&self) -> bool {
        self.n_used + 2 > N_STAMPS
    }

    /// The stamps of another pass; `None` where there is no room for them.
    pub(crate) fn of_pass(&mut self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        if self.is_full() {
            return None;
        }
        self.n_used += 2;
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(self.n_used - 2),
            end_of_pass_write_index: Some(self.n_used - 1),
        })
    }

    /// How long the device computed so far. Waits until it has ended all that it was given; `wait`
    /// does that.
    pub(crate) fn read(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        wait: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        let n = std::mem::take(&mut self.n_used);
        if n == 0 {
            return Ok(self.busy);
        }
        let len_bytes = u64::from(n) * 8;
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.resolve_query_set(&self.set, 0..n, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readable, 0, len_bytes);
        queue.submit([encoder.finish()]);
        let mapped = Arc::new(Mutex::new(None));
        let result = Arc::clone(&mapped);
        self.readable.map_async(wgpu::MapMode::Read, 0..len_bytes, move |r| *lock(&result) = Some(r));
        wait()?;
        // Without its clock a device computes all the same.
        if let (Some(Ok(())), Ok(view)) = (lock(&mapped).take(), self.readable.get_mapped_range(0..len_bytes)) {
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view);
            let passes = ticks.chunks_exact(2).map(|pair| pair[1].saturating_sub(pair[0]));
            self.busy += Duration::from_nanos((passes.sum::<u64>() as f64 * self.nanoseconds) as u64);
        }
        self.readable.unmap();
        Ok(self.busy)
    }
}
