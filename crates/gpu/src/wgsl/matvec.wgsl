// A few columns: LANES threads share a row, and each takes every LANES-th run of 8 elements.
// Constants: COLS, LANES (a power of two up to 64).

var<workgroup> partial: array<f32, 64u * COLS>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
) {
    let lane = t % LANES;
    let r = (group.y * groups.x + group.x) * (64u / LANES) + t / LANES;
    let c0 = group.z * COLS;
    var acc: array<f32, COLS>;
    if (r < p.rows) {
        let row = p.first_byte + r * p.row_bytes;
        let n = (p.k + 7u) / 8u;
        for (var g = lane; g < n; g += LANES) {
            let weights = oct(row, g);
            for (var c = 0u; c < COLS; c++) {
                acc[c] += product(weights, min(c0 + c, p.n_cols - 1u), g);
            }
        }
    }
    for (var c = 0u; c < COLS; c++) { partial[t * COLS + c] = acc[c]; }
    for (var s = LANES / 2u; s > 0u; s /= 2u) {
        workgroupBarrier();
        if (lane < s) {
            for (var c = 0u; c < COLS; c++) { partial[t * COLS + c] += partial[(t + s) * COLS + c]; }
        }
    }
    if (lane == 0u && r < p.rows) {
        for (var c = 0u; c < COLS; c++) {
            if (c0 + c < p.n_cols) { store(c0 + c, r, partial[t * COLS + c]); }
        }
    }
}
