// The cache: (heads, capacity, head_dim), two neighbouring elements at a time.

//# f16
const PAIR_WORDS = 1u;
fn pair_of(words: vec2<u32>) -> vec2<f32> { return unpack2x16float(words.x); }
fn words_of(pair: vec2<f32>) -> vec2<u32> { return vec2<u32>(pack2x16float(pair), 0u); }
//# f32
const PAIR_WORDS = 2u;
fn pair_of(words: vec2<u32>) -> vec2<f32> { return bitcast<vec2<f32>>(words); }
fn words_of(pair: vec2<f32>) -> vec2<u32> { return bitcast<vec2<u32>>(pair); }
//#
