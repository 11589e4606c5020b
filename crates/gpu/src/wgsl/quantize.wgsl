// Blocks of 32 elements of each column: 8 words of signed 8-bit integers, 8 of what rounding to
// those lost in units of 1/254, and their scale. Together that is as exact as 15 bits. A thread to
// a block.

struct Params { n_cols: u32, blocks: u32, x_first: u32, x_stride: u32, y_first: u32, y_stride: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * 64u + id.x;
    let c = i / p.blocks;
    if (c >= p.n_cols) { return; }
    let from_at = p.x_first + c * p.x_stride + i % p.blocks * 32u;
    let to_at = p.y_first + c * p.y_stride + i % p.blocks * 17u;
    var greatest = 0.0;
    for (var j = 0u; j < 32u; j++) { greatest = max(greatest, abs(x[from_at + j])); }
    // Below the least normal number nothing can be divided by.
    let inverse = select(0.0, 127.0 / greatest, greatest > 1.2e-38);
    for (var j = 0u; j < 8u; j++) {
        let at = from_at + 4u * j;
        let four = vec4<f32>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]) * inverse;
        y[to_at + j] = pack4xI8Clamp(vec4<i32>(round(four)));
        y[to_at + 8u + j] = pack4xI8Clamp(vec4<i32>(round((four - round(four)) * 254.0)));
    }
    y[to_at + 16u] = bitcast<u32>(greatest / 127.0);
}
