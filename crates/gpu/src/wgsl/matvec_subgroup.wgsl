// As matvec, a workgroup to a row: subgroups of any size sum in registers and meet in workgroup
// memory once. Constant: COLS.

var<workgroup> partial: array<f32, 64u * COLS>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let r = group.y * groups.x + group.x;
    let c0 = group.z * COLS;
    var acc: array<f32, COLS>;
    if (r < p.rows) {
        let row = p.first_byte + r * p.row_bytes;
        let n = (p.k + 7u) / 8u;
        for (var g = t; g < n; g += 64u) {
            let weights = oct(row, g);
            for (var c = 0u; c < COLS; c++) {
                acc[c] += product(weights, min(c0 + c, p.n_cols - 1u), g);
            }
        }
    }
    for (var c = 0u; c < COLS; c++) {
        let sum = subgroupAdd(acc[c]);
        if (lane == 0u) { partial[subgroup * COLS + c] = sum; }
    }
    workgroupBarrier();
    if (t < COLS && c0 + t < p.n_cols && r < p.rows) {
        var sum = 0.0;
        for (var s = 0u; s < subgroups; s++) { sum += partial[s * COLS + t]; }
        store(c0 + t, r, sum);
    }
}
