// out[c][i] = x[c][indices[i]].

struct Params { n: u32, n_cols: u32, x_first: u32, x_stride: u32, out_first: u32, out_stride: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * 64u + id.x;
    let c = i / p.n;
    if (c >= p.n_cols) { return; }
    out[p.out_first + c * p.out_stride + i % p.n] = x[p.x_first + c * p.x_stride + indices[i % p.n]];
}
