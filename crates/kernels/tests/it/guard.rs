//! Kernels read nothing beyond the slices they are given: weights and activations end where an unreadable page begins.

use modelembed_gguf::TensorType;
use modelembed_kernels::{ActLayout, Acts, Kernels, MatRef, Strided};

/// Bytes whose end is the end of the last readable page (and, for the other side, whose start follows an unreadable one).
struct Guarded {
    map: *mut u8,
    map_len: usize,
    data: *mut u8,
    len: usize,
}

impl Guarded {
    fn new(data: &[u8], at_end: bool) -> Guarded {
        // SAFETY: plain calls; the mapping has a page before and a page after room for the data.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
            let room = data.len().next_multiple_of(page);
            let map_len = room + 2 * page;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
            let map = libc::mmap(std::ptr::null_mut(), map_len, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED, "mmap");
            let inner = map.cast::<u8>().add(page);
            assert_eq!(libc::mprotect(inner.cast(), room, libc::PROT_READ | libc::PROT_WRITE), 0, "mprotect");
            let start = if at_end { inner.add(room - data.len()) } else { inner };
            start.copy_from_nonoverlapping(data.as_ptr(), data.len());
            Guarded { map: map.cast(), map_len, data: start, len: data.len() }
        }
    }

    fn get(&mut self) -> &mut [u8] {
        // SAFETY: `len` readable and writable bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made.
        unsafe { libc::munmap(self.map.cast(), self.map_len) };
    }
}

#[test]
fn nothing_beyond_the_slices_is_touched() {
    for ty in TensorType::all().filter(|&ty| Kernels::supports(ty)) {
        let ks: &[usize] = match ty.block_len() {
            1 => &[32, 33, 100, 257],
            32 => &[32, 64, 96, 160, 224, 256, 288, 576],
            _ => &[256, 768],
        };
        for (&k, at_end) in ks.iter().flat_map(|k| [(k, true), (k, false)]) {
            for exact in [false, true] {
                let layout = ActLayout::new(Kernels::act_kind(ty, exact), k);
                for (rows, cols) in [(1, 1), (4, 1), (5, 2), (3, 4), (2, 8), (1, 9), (17, 10), (33, 13)] {
                    let mut w = Guarded::new(&vec![0x11; rows * ty.row_bytes(k).expect("whole blocks")], at_end);
                    let mut acts = Guarded::new(&vec![0; cols * layout.col_bytes()], at_end);
                    let w = MatRef::new(ty, w.get(), rows, k).expect("a matrix");
                    for kernels in Kernels::all() {
                        let x = vec![0.5; k];
                        for column in acts.get().chunks_exact_mut(layout.col_bytes()) {
                            kernels.quantize(layout, &x, column);
                        }
                        let mut out = vec![0.0; rows * cols];
                        let mut out = Strided { data: &mut out, stride: rows, rows };
                        kernels.mul_rows(w, 0..rows, Acts::new(layout, acts.get(), cols), &mut out);
                        kernels.dequantize_row(w, rows - 1, &mut vec![0.0; k]);
                    }
                }
            }
        }
    }
}
