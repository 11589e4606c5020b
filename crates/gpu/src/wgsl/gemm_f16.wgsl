// Many columns in half precision: tiles of 32 rows by 32 columns in workgroup memory, 32 elements
// of the sum at a time; a thread owns 4 by 4 products. Four elements are summed as halves, all else
// as f32.

const PITCH = 9u; // vectors: one more than the tile, so that neighbouring rows lie in different banks
var<workgroup> w_tile: array<vec4<f16>, 32u * PITCH>; // (row, k / 4)
var<workgroup> x_tile: array<vec4<f16>, 32u * PITCH>; // (column, k / 4)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let r0 = group.x * 32u;
    let c0 = group.y * 32u;
    let tr = t % 8u;
    let tc = t / 8u;
    var acc: array<vec4<f32>, 4>; // (row, column)
    for (var g0 = 0u; g0 < p.k / 8u; g0 += 4u) {
        for (var o = t; o < 128u; o += 64u) {
            let g = g0 + o % 4u;
            let at = o / 4u * PITCH + o % 4u * 2u;
            let weights = w_halves(r0 + o / 4u, g);
            w_tile[at] = weights.a;
            w_tile[at + 1u] = weights.b;
            let column = x_halves(c0 + o / 4u, g);
            x_tile[at] = column.a;
            x_tile[at + 1u] = column.b;
        }
        workgroupBarrier();
        for (var i = 0u; i < 8u; i++) {
            let x0 = x_tile[tc * PITCH + i];
            let x1 = x_tile[(tc + 8u) * PITCH + i];
            let x2 = x_tile[(tc + 16u) * PITCH + i];
            let x3 = x_tile[(tc + 24u) * PITCH + i];
            for (var r = 0u; r < 4u; r++) {
                let ws = w_tile[(tr + 8u * r) * PITCH + i];
                acc[r] += vec4<f32>(vec4<f16>(dot(ws, x0), dot(ws, x1), dot(ws, x2), dot(ws, x3)));
            }
        }
        workgroupBarrier();
    }
    let scales = vec4<f32>(x_scale(c0 + tc), x_scale(c0 + tc + 8u), x_scale(c0 + tc + 16u), x_scale(c0 + tc + 24u));
    for (var r = 0u; r < 4u; r++) { acc[r] *= scales; }
    store_products(r0 + tr, c0 + tc, &acc);
}
