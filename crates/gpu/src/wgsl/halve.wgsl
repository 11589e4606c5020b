// Columns in half precision: pairs of elements, by a power of two that puts the greatest between 1
// and 2, and behind them that power. What an element loses is relative to its own magnitude, down
// to a 2^-14 of the greatest. A workgroup to a column.

struct Params { len: u32, x_first: u32, x_stride: u32, y_first: u32, y_stride: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

var<workgroup> greatest: array<u32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let from_at = p.x_first + group.x * p.x_stride;
    let to_at = p.y_first + group.x * p.y_stride;
    // The bits of magnitudes are ordered as the magnitudes are.
    var most = 0u;
    for (var i = t; i < p.len; i += 64u) { most = max(most, bitcast<u32>(x[from_at + i]) & 0x7fffffffu); }
    greatest[t] = most;
    for (var s = 32u; s > 0u; s /= 2u) {
        workgroupBarrier();
        if (t < s) { greatest[t] = max(greatest[t], greatest[t + s]); }
    }
    workgroupBarrier();
    let exponent = clamp(greatest[0] >> 23u, 1u, 253u);
    let inverse = bitcast<f32>((254u - exponent) << 23u);
    for (var i = t; i < p.len / 2u; i += 64u) {
        let at = from_at + 2u * i;
        y[to_at + i] = pack2x16float(vec2<f32>(x[at], x[at + 1u]) * inverse);
    }
    if (t == 0u) { y[to_at + p.len / 2u] = exponent << 23u; }
}
