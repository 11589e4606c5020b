// Many columns of 8-bit integers: tiles of 32 rows by 32 columns in workgroup memory, a block of 32
// elements at a time; a thread owns 4 by 4 products. 16 elements are summed as integers, since no
// format changes its scale within so many, before scales meet them.

// All are (half of the block, row or column): neighbouring threads read neighbouring vectors.
var<workgroup> w_words: array<vec4<u32>, 64>;
var<workgroup> w_scales: array<vec2<f32>, 64>; // scale, offset
var<workgroup> x_high: array<vec4<u32>, 64>;
var<workgroup> x_low: array<vec4<u32>, 64>;
var<workgroup> x_scales: array<vec2<f32>, 64>; // scale, scale * sum of the elements

fn dot16(a: vec4<u32>, b: vec4<u32>) -> f32 {
    return f32(dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w));
}

fn four(at: u32) -> vec4<u32> {
    return vec4<u32>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let r0 = group.x * 32u;
    let c0 = group.y * 32u;
    let tr = t % 8u;
    let tc = t / 8u;
    // Beyond the edge the last row and column are read again, and their products are not stored.
    let row = p.first_byte + min(r0 + t / 2u, p.rows - 1u) * p.row_bytes;
    let column = p.x_first + min(c0 + t / 2u, p.n_cols - 1u) * p.x_stride;
    let half = t % 2u;
    let slot = half * 32u + t / 2u;
    var acc: array<vec4<f32>, 4>; // (row, column)
    for (var b = 0u; b < p.k / 32u; b++) {
        let first = oct(row, b * 4u + half * 2u);
        let second = oct(row, b * 4u + half * 2u + 1u);
        w_words[slot] = vec4<u32>(first.a, first.b, second.a, second.b);
        w_scales[slot] = vec2<f32>(first.scale, first.offset);
        let block = column + b * 17u;
        let high = four(block + half * 4u);
        let low = four(block + 8u + half * 4u);
        let scale = bitcast<f32>(x[block + 16u]);
        x_high[slot] = high;
        x_low[slot] = low;
        let ones = vec4<u32>(ONES);
        x_scales[slot] = vec2<f32>(scale, scale * (dot16(ones, high) + dot16(ones, low) * LOW));
        workgroupBarrier();
        for (var h = 0u; h < 64u; h += 32u) {
            for (var j = 0u; j < 4u; j++) {
                let c = h + tc + 8u * j;
                let xh = x_high[c];
                let xl = x_low[c];
                let xs = x_scales[c];
                for (var i = 0u; i < 4u; i++) {
                    let r = h + tr + 8u * i;
                    let words = w_words[r];
                    let q = dot16(words, xh) + dot16(words, xl) * LOW;
                    let ws = w_scales[r];
                    acc[i][j] += ws.x * xs.x * q + ws.y * xs.y;
                }
            }
        }
        workgroupBarrier();
    }
    store_products(r0 + tr, c0 + tc, &acc);
}
