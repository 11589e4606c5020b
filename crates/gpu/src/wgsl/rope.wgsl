// Turns the pairs of each head by the angles of its column.

struct Params {
    n_cols: u32,
    heads: u32,
    head_dim: u32,
    pairs: u32,
    first: u32,
    stride: u32,
    halves: u32, // pairs are (i, i + pairs), not (2i, 2i + 1)
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> angles: array<f32>; // (n_cols, 2, pairs): cosines, sines

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * 64u + id.x;
    let pair = i % p.pairs;
    let head = i / p.pairs % p.heads;
    let c = i / p.pairs / p.heads;
    if (c >= p.n_cols) { return; }
    let base = p.first + c * p.stride + head * p.head_dim;
    var a = base + 2u * pair;
    var b = a + 1u;
    if (p.halves != 0u) {
        a = base + pair;
        b = a + p.pairs;
    }
    let cosine = angles[c * 2u * p.pairs + pair];
    let sine = angles[(c * 2u + 1u) * p.pairs + pair];
    let u = x[a];
    let v = x[b];
    x[a] = u * cosine - v * sine;
    x[b] = u * sine + v * cosine;
}
