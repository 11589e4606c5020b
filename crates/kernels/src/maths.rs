//! Vector maths: the checked calls of a table's second section.

use modelembed_terms::{CacheType, MAX_I16_HEAD, RopeStyle};

use crate::table::Kernels;
use crate::vector::{AttnInput, AttnPart, AttnState, KvElement};

/// Vector maths. Slices may have any length and any alignment; bad numbers give bad numbers.
///
/// # Panics
/// Every method panics if slices that belong together differ in length.
// SAFETY (all unsafe blocks below): holding a table proves that the CPU has its instructions; each
// method checks the lengths.
impl Kernels {
    /// `out = x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich, 2019). `weight` is f32,
    /// little endian, at any address; without one nothing is multiplied.
    pub fn rms_norm(&self, x: &[f32], weight: Option<&[u8]>, eps: f32, out: &mut [f32]) {
        check_norm(x.len(), weight, "bytes of norm weights");
        assert_eq!(out.len(), x.len(), "elements of the norm's output");
        // SAFETY: see above.
        unsafe { (self.vector.rms_norm)(x, weight, eps, out) }
    }

    /// `out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias` (Ba, Kiros and Hinton,
    /// 2016), where the variance is the mean square of the deviations from the mean. `weight` and
    /// `bias` are f32, little endian, at any address; without them nothing is multiplied, or added.
    /// Deviations keep their precision however large the mean is.
    pub fn layer_norm(&self, x: &[f32], weight: Option<&[u8]>, bias: Option<&[u8]>, eps: f32, out: &mut [f32]) {
        check_norm(x.len(), weight, "bytes of norm weights");
        check_norm(x.len(), bias, "bytes of a norm's bias");
        assert_eq!(out.len(), x.len(), "elements of the norm's output");
        // SAFETY: see above.
        unsafe { (self.vector.layer_norm)(x, [weight, bias], eps, out) }
    }

    /// `acc += x`.
    pub fn add(&self, acc: &mut [f32], x: &[f32]) {
        assert_eq!(acc.len(), x.len(), "elements of a sum");
        // SAFETY: see above.
        unsafe { (self.vector.add)(acc, x) }
    }

    /// acc += sum over `j` of `w[j]` times row `j`; rows of `acc.len()` elements begin every
    /// `stride`. Each element adds one row after the other, so that the sum may be cut anywhere.
    pub fn add_rows(&self, acc: &mut [f32], w: &[f32], rows: &[f32], stride: usize) {
        check_rows(acc.len(), w.len(), rows.len(), stride);
        // SAFETY: see above.
        unsafe { (self.vector.add_rows)(acc, w, rows, stride) }
    }

    /// `out[j]` = the product of `x` and row `j`; rows of `x.len()` elements begin every `stride`.
    /// A product's bits depend on nothing but these two.
    pub fn dot_rows(&self, x: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
        check_rows(x.len(), out.len(), rows.len(), stride);
        // SAFETY: see above.
        unsafe { (self.vector.dot_rows)(x, rows, stride, out) }
    }

    /// `acc += x * w`, element by element.
    pub fn mul_add(&self, acc: &mut [f32], x: &[f32], w: &[f32]) {
        assert!(acc.len() == x.len() && x.len() == w.len(), "elements of a product");
        // SAFETY: see above.
        unsafe { (self.vector.mul_add)(acc, x, w) }
    }

    /// `x = e^x`.
    pub fn exp(&self, x: &mut [f32]) {
        // SAFETY: see above.
        unsafe { (self.vector.exp)(x) }
    }

    /// `x *= by`.
    pub fn scale(&self, x: &mut [f32], by: f32) {
        // SAFETY: see above.
        unsafe { (self.vector.scale)(x, by) }
    }

    /// `x = cap * tanh(x / cap)`: keeps logits within +-`cap`.
    pub fn soft_cap(&self, x: &mut [f32], cap: f32) {
        // SAFETY: see above.
        unsafe { (self.vector.soft_cap)(x, cap) }
    }

    /// `x = x / (1 + exp(-x))` (Elfwing, Uchibe and Doya, 2017).
    pub fn silu(&self, x: &mut [f32]) {
        // SAFETY: see above.
        unsafe { (self.vector.silu)(x) }
    }

    /// `x = gelu(x)` in the tanh form, `0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`
    /// (Hendrycks and Gimpel, 2016).
    pub fn gelu(&self, x: &mut [f32]) {
        // SAFETY: see above.
        unsafe { (self.vector.gelu)(x) }
    }

    /// `x = max(x, 0)`; NaN stays NaN.
    pub fn relu(&self, x: &mut [f32]) {
        // SAFETY: see above.
        unsafe { (self.vector.relu)(x) }
    }

    /// `x = max(x, 0)^2` (So et al., Primer, 2021); NaN stays NaN.
    pub fn relu_squared(&self, x: &mut [f32]) {
        // SAFETY: see above.
        unsafe { (self.vector.relu_squared)(x) }
    }

    /// `gate = gate / (1 + exp(-gate)) * up`: SwiGLU's product.
    pub fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "elements of gate and up");
        // SAFETY: see above.
        unsafe { (self.vector.silu_mul)(gate, up) }
    }

    /// `gate = gelu(gate) * up` with [`gelu`](Self::gelu)'s tanh form.
    pub fn gelu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "elements of gate and up");
        // SAFETY: see above.
        unsafe { (self.vector.gelu_mul)(gate, up) }
    }

    /// `gate = max(gate, 0) * up`: ReGLU's product.
    pub fn relu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "elements of gate and up");
        // SAFETY: see above.
        unsafe { (self.vector.relu_mul)(gate, up) }
    }

    /// Rotates the pairs of one head, as `style` pairs them, by the angles whose cosines and sines
    /// are given. The first `2 * cos.len()` elements of `x` change.
    pub fn rope(&self, x: &mut [f32], cos: &[f32], sin: &[f32], style: RopeStyle) {
        assert_eq!(cos.len(), sin.len(), "cosines and sines");
        assert!(2 * cos.len() <= x.len(), "{} pairs in a head of {}", cos.len(), x.len());
        let rotate = match style {
            RopeStyle::Adjacent => self.vector.rope_adjacent,
            RopeStyle::Halves => self.vector.rope_halves,
        };
        // SAFETY: see above.
        unsafe { rotate(x, cos, sin) }
    }

    /// Rounds to half precision, to nearest even; too large becomes infinity.
    pub fn to_f16(&self, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len(), "elements to convert");
        // SAFETY: see above.
        unsafe { (self.vector.to_f16)(x, out) }
    }

    /// Widens half precision to f32.
    pub fn from_f16(&self, x: &[u16], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "elements to convert");
        // SAFETY: see above.
        unsafe { (self.vector.from_f16)(x, out) }
    }

    /// Rounds a head of at most [`MAX_I16_HEAD`] elements to 16-bit integers and returns their
    /// scale; every table gives the same. They have 13 bits and a sign in heads of up to 64
    /// elements, 12 in those of up to 256, 11 in longer ones, so an element is off by at most a
    /// 2^-14, 2^-13 or 2^-12 of the greatest. A head that holds an infinity or a NaN gets a NaN for
    /// a scale.
    pub fn to_i16(&self, x: &[f32], row: &mut [i16]) -> f32 {
        assert_eq!(x.len(), row.len(), "elements to convert");
        assert!(x.len() <= MAX_I16_HEAD, "a head of {} elements", x.len());
        // SAFETY: see above.
        unsafe { (self.vector.to_i16)(x, row) }
    }

    /// Widens such integers to f32.
    pub fn from_i16(&self, row: &[i16], scale: f32, out: &mut [f32]) {
        assert_eq!(row.len(), out.len(), "elements to convert");
        // SAFETY: see above.
        unsafe { (self.vector.from_i16)(row, scale, out) }
    }

    /// Turns runs of 32 into Q8_0 blocks; every table gives the same bytes. A run that holds an
    /// infinity or a NaN becomes NaN or infinite in all its elements.
    pub fn to_q8_0(&self, x: &[f32], out: &mut [u8]) {
        assert_eq!(CacheType::Q8.row_bytes(x.len()), Some(out.len()), "bytes of the blocks");
        // SAFETY: see above.
        unsafe { (self.vector.to_q8_0)(x, out) }
    }

    /// Widens Q8_0 blocks to f32.
    pub fn from_q8_0(&self, x: &[u8], out: &mut [f32]) {
        assert_eq!(CacheType::Q8.row_bytes(out.len()), Some(x.len()), "bytes of the blocks");
        // SAFETY: see above.
        unsafe { (self.vector.from_q8_0)(x, out) }
    }

    /// The index of the greatest element, the first of equals. A NaN never wins; 0 if there is
    /// nothing else, or nothing.
    pub fn argmax(&self, x: &[f32]) -> usize {
        // SAFETY: see above.
        unsafe { (self.vector.argmax)(x) }
    }

    /// `ln(sum(exp(x)))`, without overflow; minus infinity for no elements.
    pub fn log_sum_exp(&self, x: &[f32]) -> f32 {
        // SAFETY: see above.
        unsafe { (self.vector.log_sum_exp)(x) }
    }

    /// `x = exp(x) / sum(exp(x))`, without overflow. Minus infinities become 0, even if there is
    /// nothing else.
    pub fn softmax(&self, x: &mut [f32]) {
        // SAFETY: see above.
        unsafe { (self.vector.softmax)(x) }
    }

    /// Takes a run of cached positions into the running softmax of some queries of one KV head.
    ///
    /// What becomes of a query depends, bit for bit, on its own row of `q`, its visible positions,
    /// where they lie in the run, and its state; not on the other queries, nor on rows of K and V
    /// that it does not see. A query that sees nothing keeps its state. Errors are of the order of
    /// f32 rounding: the exponentials are accurate to 1.5 units in the last place; below 1.2e-38
    /// they are 0.
    pub fn attend<T: KvElement>(&self, input: AttnInput<'_, T>, mut state: AttnState<'_>) {
        let row_lens = [input.head_dim, input.value_dim]
            .map(|n| T::row_len(n).unwrap_or_else(|| panic!("a row of {n} elements is no whole number of blocks")));
        check_input(&input, row_lens, &state);
        // SAFETY: see above.
        unsafe { T::attend(self.vector)(&input, &mut state) }
    }

    /// [`attend`](Self::attend) over rows as [`to_i16`](Self::to_i16) makes them, with the scales
    /// of K's and of V's, one a position.
    ///
    /// Queries are rounded likewise, to 12 bits in heads of up to 128 elements and 11 in longer
    /// ones, and weights to 13 bits of the greatest in 64 positions. A query that sees a row whose
    /// scale is no finite number becomes NaN.
    pub fn attend_i16(&self, input: AttnInput<'_, i16>, scales: [&[f32]; 2], mut state: AttnState<'_>) {
        let row_lens = [input.head_dim, input.value_dim];
        assert!(row_lens.iter().all(|&n| n <= MAX_I16_HEAD), "keys and values of {row_lens:?} elements");
        let n_pos = check_input(&input, row_lens, &state);
        assert_eq!(scales.map(<[f32]>::len), [n_pos; 2], "scales of K and V");
        // SAFETY: see above.
        unsafe { (self.vector.attend_i16)(&input, scales, &mut state) }
    }

    /// Merges the partial result `part` into `into`, as if `into` had seen `part`'s positions too.
    /// Results depend on the order of merges only by rounding; callers that want the same bits
    /// merge in the same order.
    pub fn merge_attn(&self, value_dim: usize, mut into: AttnState<'_>, part: AttnPart<'_>) {
        check_state(part.max.len(), value_dim, into.max, into.sum, into.acc);
        check_state(part.max.len(), value_dim, part.max, part.sum, part.acc);
        // SAFETY: see above.
        unsafe { (self.vector.merge)(value_dim, &mut into, &part) }
    }

    /// `acc /= sum` for each query: the attention's output, `(n_q, value_dim)`. A query that saw
    /// nothing gets zeros.
    pub fn finish_attn(&self, value_dim: usize, sum: &[f32], acc: &mut [f32]) {
        check_state(sum.len(), value_dim, sum, sum, acc);
        // SAFETY: see above.
        unsafe { (self.vector.finish)(value_dim, sum, acc) }
    }
}

/// What a norm multiplies or adds must be an f32 an element.
/// Rows that the last one ends within.
fn check_rows(len: usize, n_rows: usize, have: usize, stride: usize) {
    let end = n_rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(len));
    assert!(end.is_some_and(|end| end <= have), "{n_rows} rows of {len} elements, every {stride}, in {have}");
}

fn check_norm(n: usize, bytes: Option<&[u8]>, what: &str) {
    if let Some(bytes) = bytes {
        assert_eq!(bytes.len(), n * 4, "{what}");
    }
}

/// Checks all lengths, where a key and a value are so many elements of the cache; returns the
/// number of positions.
fn check_input<T>(input: &AttnInput<'_, T>, [key_len, value_len]: [usize; 2], state: &AttnState<'_>) -> usize {
    let n_q = input.visible.len();
    assert!(input.head_dim > 0, "a head of no elements");
    check_state(n_q, input.value_dim, state.max, state.sum, state.acc);
    assert_eq!(input.q.len(), n_q * input.head_dim, "elements of the queries");
    let n_pos = input.k.len() / key_len;
    assert_eq!(input.k.len(), n_pos * key_len, "elements of K");
    assert_eq!(input.v.len(), n_pos * value_len, "elements of V");
    for range in input.visible {
        assert!(range.end <= n_pos, "visible positions {range:?} of {n_pos}");
    }
    n_pos
}

fn check_state(n_q: usize, value_dim: usize, max: &[f32], sum: &[f32], acc: &[f32]) {
    assert!(value_dim > 0, "a value of no elements");
    assert_eq!(max.len(), n_q, "maxima");
    assert_eq!(sum.len(), n_q, "sums");
    assert_eq!(acc.len(), n_q * value_dim, "elements of the accumulators");
}
