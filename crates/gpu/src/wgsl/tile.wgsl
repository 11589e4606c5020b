// A thread's 4 by 4 products of a tile: every eighth row and column from its first on, as far as
// there are such.
fn store_products(r0: u32, c0: u32, acc: ptr<function, array<vec4<f32>, 4>>) {
    for (var i = 0u; i < 4u; i++) {
        let r = r0 + 8u * i;
        for (var j = 0u; j < 4u; j++) {
            let c = c0 + 8u * j;
            if (r < p.rows && c < p.n_cols) { store(c, r, (*acc)[i][j]); }
        }
    }
}
