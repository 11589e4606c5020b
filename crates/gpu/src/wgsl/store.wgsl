// Puts the keys or values of some columns into the cache.

struct Params {
    n_cols: u32,
    heads: u32,
    half_dim: u32,
    capacity: u32,
    pos: u32,
    x_first: u32,
    x_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> cache: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * 64u + id.x;
    let pair = i % p.half_dim;
    let head = i / p.half_dim % p.heads;
    let c = i / p.half_dim / p.heads;
    if (c >= p.n_cols) { return; }
    let from_at = p.x_first + c * p.x_stride + (head * p.half_dim + pair) * 2u;
    let words = words_of(vec2<f32>(x[from_at], x[from_at + 1u]));
    let to_at = ((head * p.capacity + p.pos + c) * p.half_dim + pair) * PAIR_WORDS;
    cache[to_at] = words.x;
    if (PAIR_WORDS == 2u) { cache[to_at + 1u] = words.y; }
}
