// y[c][r] = w[r] . x[c] (+ bias[r]): what both products share.

struct Params {
    rows: u32,       // in this slice
    k: u32,
    row_bytes: u32,
    first_byte: u32, // of the slice's first row in the binding
    n_cols: u32,
    x_first: u32,
    x_stride: u32,
    y_first: u32,    // of the slice's first row in column 0
    y_stride: u32,
    has_bias: u32,
    bias_first: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

//# float
@group(0) @binding(3) var<storage, read_write> x: array<f32>;

// Elements 8g..8g+8 of column c; zeros beyond the column's end, whatever lies there.
fn x_oct(c: u32, g: u32) -> Oct {
    let at = p.x_first + c * p.x_stride + g * 8u;
    let left = p.k - g * 8u;
    if (left >= 8u) {
        return Oct(vec4<f32>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]),
                   vec4<f32>(x[at + 4u], x[at + 5u], x[at + 6u], x[at + 7u]));
    }
    var v: array<f32, 8>;
    for (var i = 0u; i < left; i++) { v[i] = x[at + i]; }
    return Oct(vec4<f32>(v[0], v[1], v[2], v[3]), vec4<f32>(v[4], v[5], v[6], v[7]));
}

fn product(weights: Oct, c: u32, g: u32) -> f32 {
    let v = x_oct(c, g);
    return dot(weights.a, v.a) + dot(weights.b, v.b);
}
//# int8
@group(0) @binding(3) var<storage, read_write> x: array<u32>; // blocks as quantize.wgsl makes them

const ONES = 0x01010101u;
const LOW = 1.0 / 254.0; // of the second integers, in units of the first

// With elements 8g..8g+8 of column c: sums of integers, then one multiplication for each scale.
fn product(weights: Oct, c: u32, g: u32) -> f32 {
    let block = p.x_first + c * p.x_stride + g / 4u * 17u;
    let high = block + (g & 3u) * 2u;
    let low = high + 8u;
    let q = f32(dot4I8Packed(weights.a, x[high]) + dot4I8Packed(weights.b, x[high + 1u]))
        + f32(dot4I8Packed(weights.a, x[low]) + dot4I8Packed(weights.b, x[low + 1u])) * LOW;
    let sum = f32(dot4I8Packed(ONES, x[high]) + dot4I8Packed(ONES, x[high + 1u]))
        + f32(dot4I8Packed(ONES, x[low]) + dot4I8Packed(ONES, x[low + 1u])) * LOW;
    return bitcast<f32>(x[block + 16u]) * (weights.scale * q + weights.offset * sum);
}
//# half
@group(0) @binding(3) var<storage, read_write> x: array<u32>; // columns as halve.wgsl makes them
//#
fn store(c: u32, r: u32, value: f32) {
    var v = value;
    if (p.has_bias != 0u) { v += bias[p.bias_first + r]; }
    y[p.y_first + c * p.y_stride + r] = v;
}
