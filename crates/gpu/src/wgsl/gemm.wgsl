// Many columns: tiles of 32 rows by 32 columns in workgroup memory, 32 elements of the sum at a
// time; a thread owns 4 by 4 products.

const PITCH = 33u; // one more than the tile: neighbouring rows lie in different banks
var<workgroup> w_tile: array<f32, 32u * PITCH>; // (row, k)
var<workgroup> x_tile: array<f32, 32u * PITCH>; // (column, k)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let r0 = group.x * 32u;
    let c0 = group.y * 32u;
    let tr = t % 8u;
    let tc = t / 8u;
    let octs = (p.k + 7u) / 8u;
    var acc: array<vec4<f32>, 4>; // (row, column)
    for (var g0 = 0u; g0 < octs; g0 += 4u) {
        for (var o = t; o < 128u; o += 64u) {
            let line = o / 4u;
            let g = g0 + o % 4u;
            var a = Oct(vec4<f32>(), vec4<f32>());
            var b = a;
            if (g < octs) {
                if (r0 + line < p.rows) { a = oct(p.first_byte + (r0 + line) * p.row_bytes, g); }
                if (c0 + line < p.n_cols) { b = x_oct(c0 + line, g); }
            }
            let at = line * PITCH + o % 4u * 8u;
            for (var i = 0u; i < 4u; i++) {
                w_tile[at + i] = a.a[i];
                w_tile[at + 4u + i] = a.b[i];
                x_tile[at + i] = b.a[i];
                x_tile[at + 4u + i] = b.b[i];
            }
        }
        workgroupBarrier();
        for (var i = 0u; i < 32u; i++) {
            let xs = vec4<f32>(x_tile[tc * PITCH + i], x_tile[(tc + 8u) * PITCH + i],
                               x_tile[(tc + 16u) * PITCH + i], x_tile[(tc + 24u) * PITCH + i]);
            acc[0] += w_tile[tr * PITCH + i] * xs;
            acc[1] += w_tile[(tr + 8u) * PITCH + i] * xs;
            acc[2] += w_tile[(tr + 16u) * PITCH + i] * xs;
            acc[3] += w_tile[(tr + 24u) * PITCH + i] * xs;
        }
        workgroupBarrier();
    }
    store_products(r0 + tr, c0 + tc, &acc);
}
