// Reading the cache: (heads, capacity, head_dim), two neighbouring elements at a time. A pair lies
// in the two words that `words_at` finds of a row, or in one of them.

//# f16
fn words_at(row: u32, i: u32) -> vec2<u32> { return vec2<u32>(row * p.half_dim + i); }
fn pair_of(words: vec2<u32>, i: u32) -> vec2<f32> { return unpack2x16float(words.x); }
//# f32
fn words_at(row: u32, i: u32) -> vec2<u32> {
    let at = (row * p.half_dim + i) * 2u;
    return vec2<u32>(at, at + 1u);
}
fn pair_of(words: vec2<u32>, i: u32) -> vec2<f32> { return bitcast<vec2<f32>>(words); }
//# q8
// Blocks of 32 elements as in Q8_0, but a row's scales come behind all its integers, so that
// everything lies in words of its own.
fn row_words() -> u32 { return p.half_dim / 2u + (p.half_dim + 31u) / 32u; }
fn words_at(row: u32, i: u32) -> vec2<u32> {
    let at = row * row_words();
    return vec2<u32>(at + i / 2u, at + p.half_dim / 2u + i / 32u);
}
fn pair_of(words: vec2<u32>, i: u32) -> vec2<f32> {
    let four = unpack4xI8(words.x);
    return vec2<f32>(select(four.xy, four.zw, i % 2u == 1u)) * unpack2x16float(words.y)[(i / 16u) % 2u];
}
//#
