// What products of halves are of. Beyond the edge the last row and column are read again, and their
// products are not stored.

struct Halves { a: vec4<f16>, b: vec4<f16> }

// No weight that a model has is beyond the range of halves, but one that a file has may be.
fn half4(v: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}

fn w_halves(r: u32, g: u32) -> Halves {
    let weights = oct(p.first_byte + min(r, p.rows - 1u) * p.row_bytes, g);
    return Halves(half4(weights.a), half4(weights.b));
}

fn x_halves(c: u32, g: u32) -> Halves {
    let at = p.x_first + min(c, p.n_cols - 1u) * p.x_stride + g * 4u;
    return Halves(
        vec4<f16>(vec4<f32>(unpack2x16float(x[at]), unpack2x16float(x[at + 1u]))),
        vec4<f16>(vec4<f32>(unpack2x16float(x[at + 2u]), unpack2x16float(x[at + 3u]))));
}

fn x_scale(c: u32) -> f32 {
    return bitcast<f32>(x[p.x_first + min(c, p.n_cols - 1u) * p.x_stride + p.k / 2u]);
}
