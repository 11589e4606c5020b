//! Copying much into the device's memory through little of the host's: a ring of buffers that both
//! see. While the device takes the bytes of one, the next is filled.

use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};
use crate::lock::lock;
use crate::poll::poll;

/// Bytes of a buffer of the ring.
pub(crate) const PIECE_BYTES: usize = 4 << 20;
/// Buffers: one is filled, one is copied from, one waits.
const N_PIECES: usize = 3;

type Mapped = Arc<Mutex<Option<Result<(), wgpu::BufferAsyncError>>>>;

struct Piece {
    raw: wgpu::Buffer,
    /// The copy out of it, and whether it can be written again after that; `None` before the first.
    busy: Option<(wgpu::SubmissionIndex, Mapped)>,
}

/// The ring: made as it is used.
#[derive(Default)]
pub(crate) struct Ring {
    pieces: Vec<Piece>,
    next: usize,
}

impl Ring {
    /// Copies bytes, whole words, to `to`. Returns when they are read, not when they have arrived.
    pub(crate) fn copy(
        &mut self,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        bytes: &[u8],
        to: &wgpu::Buffer,
        offset: u64,
    ) -> Result<()> {
        for (i, bytes) in bytes.chunks(PIECE_BYTES).enumerate() {
            if self.pieces.len() < N_PIECES {
                let raw = device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("upload"),
                    size: PIECE_BYTES as u64,
                    usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: true,
                });
                self.next = self.pieces.len();
                self.pieces.push(Piece { raw, busy: None });
            }
            let piece = &mut self.pieces[self.next];
            self.next = (self.next + 1) % N_PIECES;
            let len = bytes.len() as u64;
            piece.wait(device)?;
            let mut view = piece.raw.get_mapped_range_mut(0..len).map_err(Error::refused)?;
            view.copy_from_slice(bytes);
            drop(view);
            piece.raw.unmap();
            let mut encoder = device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(&piece.raw, 0, to, offset + (i * PIECE_BYTES) as u64, len);
            let index = queue.submit([encoder.finish()]);
            let mapped = Mapped::default();
            let result = Arc::clone(&mapped);
            piece.raw.map_async(wgpu::MapMode::Write, .., move |r| *lock(&result) = Some(r));
            piece.busy = Some((index, mapped));
        }
        Ok(())
    }
}

impl Piece {
    /// Until it can be written again.
    fn wait(&mut self, device: &wgpu::Device) -> Result<()> {
        let Some((index, mapped)) = self.busy.take() else { return Ok(()) };
        let until = wgpu::PollType::Wait { submission_index: Some(index), timeout: None };
        poll(device, until)?;
        match lock(&mapped).take() {
            Some(Ok(())) => Ok(()),
            other => Err(Error::refused(format!("memory for copying cannot be written: {other:?}"))),
        }
    }
}
