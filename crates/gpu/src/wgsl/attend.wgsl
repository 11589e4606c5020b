// Flash attention: a workgroup to a query head of a column. 64 positions at a time: a thread to
// each score, then a thread to each pair of the output. (Online softmax: Milakov & Gimelshein
// 2018.) Constant: PAIRS, pairs of the output that a thread owns.

struct Params {
    n_cols: u32,
    group: u32, // query heads of a key head
    half_dim: u32,
    capacity: u32,
    pos: u32,   // of column 0
    window: u32,
    q_first: u32,
    q_stride: u32,
    y_first: u32,
    y_stride: u32,
    scale: f32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> q: array<f32>;
@group(0) @binding(2) var<storage, read_write> keys: array<u32>;
@group(0) @binding(3) var<storage, read_write> values: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const LOWEST = -3.0e38;
var<workgroup> query: array<vec2<f32>, 64u * PAIRS>;
var<workgroup> shared_scores: array<f32, 64>;
var<workgroup> reduced: array<f32, 64>;

fn key_pair(row: u32, i: u32) -> vec2<f32> {
    let at = words_at(row, i);
    return pair_of(vec2<u32>(keys[at.x], keys[at.y]), i);
}

fn value_pair(row: u32, i: u32) -> vec2<f32> {
    let at = words_at(row, i);
    return pair_of(vec2<u32>(values[at.x], values[at.y]), i);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = group.x;
    let c = group.y;
    let end = p.pos + c + 1u;
    let first = end - min(end, p.window);
    let row0 = head / p.group * p.capacity;
    let q_at = p.q_first + c * p.q_stride + head * p.half_dim * 2u;
    for (var i = t; i < p.half_dim; i += 64u) { query[i] = vec2<f32>(q[q_at + 2u * i], q[q_at + 2u * i + 1u]) * p.scale; }
    workgroupBarrier();

    var acc: array<vec2<f32>, PAIRS>;
    var greatest = LOWEST;
    var total = 0.0;
    for (var at = first; at < end; at += 64u) {
        let n = min(64u, end - at);
        var score = LOWEST;
        if (t < n) {
            score = 0.0;
            for (var i = 0u; i < p.half_dim; i++) { score += dot(query[i], key_pair(row0 + at + t, i)); }
        }
        reduced[t] = score;
        for (var s = 32u; s > 0u; s /= 2u) {
            workgroupBarrier();
            if (t < s) { reduced[t] = max(reduced[t], reduced[t + s]); }
        }
        workgroupBarrier();
        let greatest_now = max(greatest, reduced[0]);
        let shrink = exp(greatest - greatest_now);
        greatest = greatest_now;
        var share = 0.0;
        if (t < n) { share = exp(score - greatest_now); }
        shared_scores[t] = share;
        workgroupBarrier();
        var sum = 0.0;
        for (var j = 0u; j < n; j++) { sum += shared_scores[j]; }
        total = total * shrink + sum;
        for (var d = 0u; d < PAIRS; d++) {
            let i = t + 64u * d;
            if (i < p.half_dim) {
                var v = acc[d] * shrink;
                for (var j = 0u; j < n; j++) { v += shared_scores[j] * value_pair(row0 + at + j, i); }
                acc[d] = v;
            }
        }
        workgroupBarrier();
    }
    let y_at = p.y_first + c * p.y_stride + head * p.half_dim * 2u;
    for (var d = 0u; d < PAIRS; d++) {
        let i = t + 64u * d;
        if (i < p.half_dim) {
            let v = acc[d] / total;
            y[y_at + 2u * i] = v.x;
            y[y_at + 2u * i + 1u] = v.y;
        }
    }
}
