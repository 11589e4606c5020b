//! Kernels touch nothing beyond the slices they are given, which end where an unreadable page
//! begins, or begin where one ends.

use modelembed_gguf::TensorType;
use modelembed_kernels::{ActLayout, Acts, AttnInput, AttnPart, AttnState, Kernels, KvElement, MatRef, Strided};
use modelembed_terms::CacheType;

/// Bytes whose end is the end of the last readable page (and, for the other side, whose start
/// follows an unreadable one).
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

    /// Room for `n` numbers, all bytes alike.
    fn numbers<T: Number>(n: usize, at_end: bool) -> Guarded {
        Guarded::new(&vec![0x11; n * size_of::<T>()], at_end)
    }

    fn as_numbers<T: Number>(&mut self) -> &mut [T] {
        // SAFETY: as for `get`; any bytes are a number.
        let (before, numbers, after) = unsafe { self.get().align_to_mut::<T>() };
        assert!(before.is_empty() && after.is_empty(), "numbers that are not aligned");
        numbers
    }
}

/// What any bytes are one of.
trait Number: Copy {}

impl Number for u8 {}
impl Number for u16 {}
impl Number for i16 {}
impl Number for f32 {}

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

#[test]
fn norms_and_activations_touch_nothing_beyond_their_vectors() {
    for (n, at_end) in (1..70).flat_map(|n| [(n, true), (n, false)]) {
        let mut vectors = [(); 3].map(|()| Guarded::numbers::<f32>(n, at_end));
        let mut parameters = [(); 2].map(|()| Guarded::new(&vec![0x11; 4 * n], at_end));
        let [x, y, out] = vectors.each_mut().map(Guarded::as_numbers::<f32>);
        let [weight, bias] = parameters.each_mut().map(|bytes| &*bytes.get());
        for kernels in Kernels::all() {
            for weight in [None, Some(weight)] {
                kernels.rms_norm(x, weight, 1e-5, out);
                for bias in [None, Some(bias)] {
                    kernels.layer_norm(x, weight, bias, 1e-5, out);
                }
            }
            for activate in [Kernels::silu, Kernels::gelu, Kernels::relu, Kernels::relu_squared] {
                activate(kernels, out);
            }
            for gate in [Kernels::silu_mul, Kernels::gelu_mul, Kernels::relu_mul] {
                gate(kernels, out, y);
            }
        }
    }
}

/// Buffers of one call of attention, each between unreadable pages.
struct Attention {
    dims: [usize; 2],
    visible: Vec<std::ops::Range<usize>>,
    q: Guarded,
    max: Guarded,
    sum: Guarded,
    acc: Guarded,
}

impl Attention {
    fn new(dims: [usize; 2], n_pos: usize, n_q: usize, at_end: bool) -> Attention {
        let floats = |n: usize| Guarded::numbers::<f32>(n, at_end);
        Attention {
            dims,
            // All positions, the last ones, one in the middle, none.
            visible: [0..n_pos, n_pos / 2..n_pos, n_pos / 3..n_pos / 3 + 1, 0..0]
                .into_iter()
                .cycle()
                .take(n_q)
                .collect(),
            q: floats(n_q * dims[0]),
            max: floats(n_q),
            sum: floats(n_q),
            acc: floats(n_q * dims[1]),
        }
    }

    /// Calls `attend` with what is there, and the keys and values.
    fn run<T>(&mut self, k: &[T], v: &[T], attend: impl Fn(AttnInput<'_, T>, AttnState<'_>)) {
        let [head_dim, value_dim] = self.dims;
        let (q, visible) = (&*self.q.as_numbers(), &self.visible);
        let mut state =
            AttnState { max: self.max.as_numbers(), sum: self.sum.as_numbers(), acc: self.acc.as_numbers() };
        state.clear();
        attend(AttnInput { q, head_dim, value_dim, k, v, next: &[], visible, soft_cap: Some(30.0), lines: &[] }, state);
    }

    /// Over keys and values of so many elements a position.
    fn over<T: Number + KvElement>(&mut self, lens: [usize; 2], n_pos: usize, at_end: bool) {
        let [mut k, mut v] = lens.map(|len| Guarded::numbers::<T>(n_pos * len, at_end));
        for kernels in Kernels::all() {
            self.run(k.as_numbers::<T>(), v.as_numbers::<T>(), |input, state| kernels.attend(input, state));
        }
        self.finish();
    }

    fn over_integers(&mut self, n_pos: usize, at_end: bool) {
        let [mut k, mut v] = self.dims.map(|len| Guarded::numbers::<i16>(n_pos * len, at_end));
        let mut scales = [(); 2].map(|()| Guarded::numbers::<f32>(n_pos, at_end));
        let scales = scales.each_mut().map(|scales| &*scales.as_numbers::<f32>());
        for kernels in Kernels::all() {
            let attend = |input: AttnInput<'_, i16>, state: AttnState<'_>| kernels.attend_i16(input, scales, state);
            self.run(k.as_numbers(), v.as_numbers(), attend);
        }
        self.finish();
    }

    /// Merges a copy of the state into it and divides.
    fn finish(&mut self) {
        let [max, sum, acc] = [&mut self.max, &mut self.sum, &mut self.acc].map(Guarded::as_numbers::<f32>);
        for kernels in Kernels::all() {
            let copies = [&*max, &*sum, &*acc].map(<[f32]>::to_vec);
            let part = AttnPart { max: &copies[0], sum: &copies[1], acc: &copies[2] };
            kernels.merge_attn(self.dims[1], AttnState { max, sum, acc }, part);
            kernels.finish_attn(self.dims[1], sum, acc);
        }
    }
}

#[test]
fn attention_touches_nothing_beyond_queries_keys_values_and_states() {
    for dims in [[64, 64], [192, 128], [64, 96], [128, 32], [20, 33], [33, 20], [1, 3]] {
        for (n_pos, n_q) in [(1, 1), (5, 2), (63, 3), (66, 4), (70, 33), (129, 40)] {
            for at_end in [true, false] {
                let mut attention = Attention::new(dims, n_pos, n_q, at_end);
                attention.over::<f32>(dims, n_pos, at_end);
                attention.over::<u16>(dims, n_pos, at_end);
                attention.over_integers(n_pos, at_end);
                if let [Some(k), Some(v)] = dims.map(|dim| CacheType::Q8.row_bytes(dim)) {
                    attention.over::<u8>([k, v], n_pos, at_end);
                }
            }
        }
    }
}
