// Index of each column's greatest element, the first of equals; a NaN never wins.

struct Params { len: u32, first: u32, stride: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

const NOTHING = 0xffffffffu;

// By its bits: compilers may take numbers to be no NaN.
fn is_nan(v: f32) -> bool { return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u; }

var<workgroup> best_value: array<f32, 256>;
var<workgroup> best_index: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let base = p.first + group.x * p.stride;
    var value = 0.0;
    var index = NOTHING;
    for (var i = t; i < p.len; i += 256u) {
        let v = x[base + i];
        if (!is_nan(v) && (index == NOTHING || v > value)) {
            value = v;
            index = i;
        }
    }
    best_value[t] = value;
    best_index[t] = index;
    for (var s = 128u; s > 0u; s /= 2u) {
        workgroupBarrier();
        if (t < s && best_index[t + s] != NOTHING) {
            let v = best_value[t + s];
            let i = best_index[t + s];
            if (best_index[t] == NOTHING || v > best_value[t] || (v == best_value[t] && i < best_index[t])) {
                best_value[t] = v;
                best_index[t] = i;
            }
        }
    }
    if (t == 0u) { out[group.x] = select(best_index[0], 0u, best_index[0] == NOTHING); }
}
