// acc[i] = f(acc[i], x[i]).

struct Params { len: u32, acc_first: u32, x_first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> acc: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

//# add
fn f(a: f32, b: f32) -> f32 { return a + b; }
//# silu_mul
fn f(gate: f32, up: f32) -> f32 { return gate / (1.0 + exp(min(-gate, 88.0))) * up; }
//# gelu_mul
fn f(gate: f32, up: f32) -> f32 {
    // Beyond 15 the hyperbolic tangent is 1, and some drivers' overflows.
    let inner = 0.79788456 * (gate + 0.044715 * gate * gate * gate);
    return 0.5 * gate * (1.0 + tanh(clamp(inner, -15.0, 15.0))) * up;
}
//#
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * 64u + id.x;
    if (i < p.len) { acc[p.acc_first + i] = f(acc[p.acc_first + i], x[p.x_first + i]); }
}
