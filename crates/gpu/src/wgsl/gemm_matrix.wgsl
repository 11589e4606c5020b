// Many columns by matrix units: halves in, f32 sums. A workgroup has a square of 4 by 4 matrices of
// the unit's size, in quarters of 2 by 2, one to each of its first four subgroups; others, where a
// driver makes subgroups smaller than it may, do the same again. Constants: SIZE, of a matrix;
// THREADS; SLOTS, subgroups that there are at most.

const EDGE = 4u * SIZE;
const PITCH = 40u; // a block of 32 elements, and as many bytes more as keep rows aligned and in different banks
var<workgroup> w_tile: array<f16, EDGE * PITCH>; // (row, k)
var<workgroup> x_tile: array<f16, EDGE * PITCH>; // (column, k)
var<workgroup> sums: array<f32, SLOTS * SIZE * SIZE>; // (subgroup, column, row)

// Matrix (r, c) of each quarter to where its products belong.
fn store_sums(t: u32, r0: u32, c0: u32, r: u32, c: u32) {
    for (var o = t; o < 4u * SIZE * SIZE; o += THREADS) {
        let quarter = o / (SIZE * SIZE);
        let row = r0 + (quarter % 2u * 2u + r) * SIZE + o % SIZE;
        let column = c0 + (quarter / 2u * 2u + c) * SIZE + o / SIZE % SIZE;
        if (row < p.rows && column < p.n_cols) { store(column, row, sums[o] * x_scale(column)); }
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let r0 = group.x * EDGE;
    let c0 = group.y * EDGE;
    let w0 = subgroup % 2u * 2u * SIZE * PITCH;
    let w1 = w0 + SIZE * PITCH;
    let x0 = subgroup / 2u % 2u * 2u * SIZE * PITCH;
    let x1 = x0 + SIZE * PITCH;
    var y00 = Sums();
    var y01 = Sums();
    var y10 = Sums();
    var y11 = Sums();
    for (var g0 = 0u; g0 < p.k / 8u; g0 += 4u) {
        for (var o = t; o < EDGE * 4u; o += THREADS) {
            let at = o / 4u * PITCH + o % 4u * 8u;
            let weights = w_halves(r0 + o / 4u, g0 + o % 4u);
            let column = x_halves(c0 + o / 4u, g0 + o % 4u);
            for (var i = 0u; i < 4u; i++) {
                w_tile[at + i] = weights.a[i];
                w_tile[at + 4u + i] = weights.b[i];
                x_tile[at + i] = column.a[i];
                x_tile[at + 4u + i] = column.b[i];
            }
        }
        workgroupBarrier();
        for (var i = 0u; i < 32u; i += SIZE) {
            let a0 = coopLoadT<Rows>(&w_tile[w0 + i], PITCH);
            let a1 = coopLoadT<Rows>(&w_tile[w1 + i], PITCH);
            let b0 = coopLoad<Cols>(&x_tile[x0 + i], PITCH);
            let b1 = coopLoad<Cols>(&x_tile[x1 + i], PITCH);
            y00 = coopMultiplyAdd(a0, b0, y00);
            y01 = coopMultiplyAdd(a0, b1, y01);
            y10 = coopMultiplyAdd(a1, b0, y10);
            y11 = coopMultiplyAdd(a1, b1, y11);
        }
        workgroupBarrier();
    }
    let slot = subgroup * SIZE * SIZE;
    coopStore(y00, &sums[slot], SIZE);
    workgroupBarrier();
    store_sums(t, r0, c0, 0u, 0u);
    workgroupBarrier();
    coopStore(y01, &sums[slot], SIZE);
    workgroupBarrier();
    store_sums(t, r0, c0, 0u, 1u);
    workgroupBarrier();
    coopStore(y10, &sums[slot], SIZE);
    workgroupBarrier();
    store_sums(t, r0, c0, 1u, 0u);
    workgroupBarrier();
    coopStore(y11, &sums[slot], SIZE);
    workgroupBarrier();
    store_sums(t, r0, c0, 1u, 1u);
}
