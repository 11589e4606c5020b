// out = x / sqrt(mean(x^2) + eps) * weight, a workgroup to a vector.

struct Params {
    len: u32,
    eps: f32,
    n_vectors: u32,
    per_col: u32, // vectors of a column, one after the other
    x_first: u32,
    x_stride: u32,
    y_first: u32,
    y_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let v = group.y * groups.x + group.x;
    let inside = v < p.n_vectors;
    let within = v % p.per_col * p.len;
    let x_at = p.x_first + v / p.per_col * p.x_stride + within;
    let y_at = p.y_first + v / p.per_col * p.y_stride + within;
    var sum = 0.0;
    if (inside) {
        for (var i = t; i < p.len; i += 64u) { sum += x[x_at + i] * x[x_at + i]; }
    }
    sums[t] = sum;
    for (var s = 32u; s > 0u; s /= 2u) {
        workgroupBarrier();
        if (t < s) { sums[t] += sums[t + s]; }
    }
    workgroupBarrier();
    if (inside) {
        let scale = 1.0 / sqrt(sums[0] / f32(p.len) + p.eps);
        for (var i = t; i < p.len; i += 64u) { y[y_at + i] = x[x_at + i] * scale * weight[i]; }
    }
}
