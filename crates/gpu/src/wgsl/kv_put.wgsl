// Writing the cache. A thread has a unit of a row: as many pairs as can be written without a word
// that two threads share. What it writes is `element(origin, i)` of the kernel.

//# f16
const UNIT = 1u;
fn put(row: u32, unit: u32, origin: u32) {
    cache[words_at(row, unit).x] = pack2x16float(vec2<f32>(element(origin, 2u * unit), element(origin, 2u * unit + 1u)));
}
//# f32
const UNIT = 1u;
fn put(row: u32, unit: u32, origin: u32) {
    let at = words_at(row, unit);
    cache[at.x] = bitcast<u32>(element(origin, 2u * unit));
    cache[at.y] = bitcast<u32>(element(origin, 2u * unit + 1u));
}
//# q8
const UNIT = 32u; // two blocks, whose scales share a word
fn put(row: u32, unit: u32, origin: u32) {
    var scales = vec2<f32>();
    for (var b = 0u; b < 2u; b++) {
        let first = (unit * 2u + b) * 32u;
        if (first >= 2u * p.half_dim) { break; }
        // The bits of magnitudes are ordered as the magnitudes are, with infinity and then NaN on
        // top.
        var greatest = 0u;
        for (var j = 0u; j < 32u; j++) { greatest = max(greatest, bitcast<u32>(element(origin, first + j)) & 0x7fffffffu); }
        scales[b] = bitcast<f32>(greatest) / 127.0;
        // The integers fit the scale as it is stored: rounded.
        let scale = unpack2x16float(pack2x16float(scales))[b];
        let inverse = select(0.0, 1.0 / scale, scale > 0.0);
        for (var j = 0u; j < 32u; j += 4u) {
            let at = first + j;
            let four = vec4<f32>(element(origin, at), element(origin, at + 1u), element(origin, at + 2u), element(origin, at + 3u));
            let rounded = round(clamp(four * inverse, vec4<f32>(-127.0), vec4<f32>(127.0)));
            cache[words_at(row, at / 2u).x] = pack4xI8(vec4<i32>(rounded));
        }
    }
    cache[words_at(row, unit * UNIT).y] = pack2x16float(scales);
}
//#
