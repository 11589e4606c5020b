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

// Element i of the head whose first is x[origin].
fn element(origin: u32, i: u32) -> f32 { return x[origin + i]; }

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * 64u + id.x;
    let units = (p.half_dim + UNIT - 1u) / UNIT;
    let head = i / units % p.heads;
    let c = i / units / p.heads;
    if (c >= p.n_cols) { return; }
    put(head * p.capacity + p.pos + c, i % units, p.x_first + c * p.x_stride + head * p.half_dim * 2u);
}
