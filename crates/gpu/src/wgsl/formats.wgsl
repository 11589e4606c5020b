//# Q4_0
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 4u * 18u;
    let at = block + 2u + (g & 1u) * 8u;
    let shift = (g & 2u) * 2u;
    return centred((word(at) >> shift) & 0x0f0f0f0fu, (word(at + 4u) >> shift) & 0x0f0f0f0fu, 8.0, f16_at(block));
}
//# Q4_1
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 4u * 20u;
    let at = block + 4u + (g & 1u) * 8u;
    let shift = (g & 2u) * 2u;
    let dm = unpack2x16float(word(block));
    return scaled((word(at) >> shift) & 0x0f0f0f0fu, (word(at + 4u) >> shift) & 0x0f0f0f0fu, dm.x, dm.y);
}
//# Q5_0
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 4u * 22u;
    let at = block + 6u + (g & 1u) * 8u;
    let shift = (g & 2u) * 2u;
    let fifth = word(block + 2u) >> ((g & 3u) * 8u);
    let a = ((word(at) >> shift) & 0x0f0f0f0fu) | (spread(fifth & 15u) << 4u);
    let b = ((word(at + 4u) >> shift) & 0x0f0f0f0fu) | (spread((fifth >> 4u) & 15u) << 4u);
    return centred(a, b, 16.0, f16_at(block));
}
//# Q5_1
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 4u * 24u;
    let at = block + 8u + (g & 1u) * 8u;
    let shift = (g & 2u) * 2u;
    let fifth = word(block + 4u) >> ((g & 3u) * 8u);
    let a = ((word(at) >> shift) & 0x0f0f0f0fu) | (spread(fifth & 15u) << 4u);
    let b = ((word(at + 4u) >> shift) & 0x0f0f0f0fu) | (spread((fifth >> 4u) & 15u) << 4u);
    let dm = unpack2x16float(word(block));
    return scaled(a, b, dm.x, dm.y);
}
//# Q8_0
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 4u * 34u;
    let at = block + 2u + (g & 3u) * 8u;
    return signed(word(at), word(at + 4u), f16_at(block));
}
//# Q2_K
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 32u * 84u;
    let e = (g & 31u) * 8u;
    let at = block + 16u + e / 128u * 32u + (e & 31u);
    let shift = (e & 127u) / 32u * 2u;
    let both = byte_at(block + e / 16u);
    let scale = f16_at(block + 80u) * f32(both & 15u);
    let offset = -f16_at(block + 82u) * f32(both >> 4u);
    return scaled((word(at) >> shift) & 0x03030303u, (word(at + 4u) >> shift) & 0x03030303u, scale, offset);
}
//# Q3_K
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 32u * 110u;
    let e = (g & 31u) * 8u;
    let at = block + 32u + e / 128u * 32u + (e & 31u);
    let shift = (e & 127u) / 32u * 2u;
    let third = block + (e & 31u);
    let a = ((word(at) >> shift) & 0x03030303u) | (((word(third) >> (e / 32u)) & 0x01010101u) << 2u);
    let b = ((word(at + 4u) >> shift) & 0x03030303u) | (((word(third + 4u) >> (e / 32u)) & 0x01010101u) << 2u);
    let j = e / 16u;
    let low = (byte_at(block + 96u + (j & 7u)) >> (j / 8u * 4u)) & 15u;
    let high = (byte_at(block + 104u + (j & 3u)) >> (j / 4u * 2u)) & 3u;
    return centred(a, b, 4.0, f16_at(block + 108u) * (f32(low | (high << 4u)) - 32.0));
}
//# Q4_K
fn scale_and_min(at: u32, j: u32) -> vec2<f32> {
    if (j < 4u) { return vec2<f32>(f32(byte_at(at + j) & 63u), f32(byte_at(at + j + 4u) & 63u)); }
    let low = byte_at(at + j + 4u);
    return vec2<f32>(
        f32((low & 15u) | ((byte_at(at + j - 4u) >> 6u) << 4u)),
        f32((low >> 4u) | ((byte_at(at + j) >> 6u) << 4u)));
}
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 32u * 144u;
    let e = (g & 31u) * 8u;
    let at = block + 16u + e / 64u * 32u + (e & 31u);
    let shift = (e & 32u) / 8u;
    let dm = unpack2x16float(word(block)) * scale_and_min(block + 4u, e / 32u);
    return scaled((word(at) >> shift) & 0x0f0f0f0fu, (word(at + 4u) >> shift) & 0x0f0f0f0fu, dm.x, -dm.y);
}
//# Q5_K
fn scale_and_min(at: u32, j: u32) -> vec2<f32> {
    if (j < 4u) { return vec2<f32>(f32(byte_at(at + j) & 63u), f32(byte_at(at + j + 4u) & 63u)); }
    let low = byte_at(at + j + 4u);
    return vec2<f32>(
        f32((low & 15u) | ((byte_at(at + j - 4u) >> 6u) << 4u)),
        f32((low >> 4u) | ((byte_at(at + j) >> 6u) << 4u)));
}
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 32u * 176u;
    let e = (g & 31u) * 8u;
    let at = block + 48u + e / 64u * 32u + (e & 31u);
    let shift = (e & 32u) / 8u;
    let fifth = block + 16u + (e & 31u);
    let a = ((word(at) >> shift) & 0x0f0f0f0fu) | (((word(fifth) >> (e / 32u)) & 0x01010101u) << 4u);
    let b = ((word(at + 4u) >> shift) & 0x0f0f0f0fu) | (((word(fifth + 4u) >> (e / 32u)) & 0x01010101u) << 4u);
    let dm = unpack2x16float(word(block)) * scale_and_min(block + 4u, e / 32u);
    return scaled(a, b, dm.x, -dm.y);
}
//# Q6_K
fn oct(row: u32, g: u32) -> Oct {
    let block = row + g / 32u * 210u;
    let e = (g & 31u) * 8u;
    let part = e / 128u;
    let l = e & 127u;
    let at = block + part * 64u + (l & 63u);
    let shift = l / 64u * 4u;
    let upper = block + 128u + part * 32u + (l & 31u);
    let upper_shift = l / 32u * 2u;
    let a = ((word(at) >> shift) & 0x0f0f0f0fu) | (((word(upper) >> upper_shift) & 0x03030303u) << 4u);
    let b = ((word(at + 4u) >> shift) & 0x0f0f0f0fu) | (((word(upper + 4u) >> upper_shift) & 0x03030303u) << 4u);
    let scale = f32(unpack4xI8(byte_at(block + 192u + e / 16u)).x);
    return centred(a, b, 32.0, f16_at(block + 208u) * scale);
}
//# F32
fn element(row: u32, i: u32) -> f32 {
    if (i >= p.k) { return 0.0; }
    return bitcast<f32>(w[(row >> 2u) + i]);
}
fn oct(row: u32, g: u32) -> Oct {
    let i = g * 8u;
    return Oct(
        vec4<f32>(element(row, i), element(row, i + 1u), element(row, i + 2u), element(row, i + 3u)),
        vec4<f32>(element(row, i + 4u), element(row, i + 5u), element(row, i + 6u), element(row, i + 7u)));
}
//# F16
fn two(row: u32, i: u32) -> vec2<f32> {
    let both = unpack2x16float(word(row + i * 2u));
    return select(vec2<f32>(), both, vec2<bool>(i < p.k, i + 1u < p.k));
}
fn oct(row: u32, g: u32) -> Oct {
    let i = g * 8u;
    return Oct(
        vec4<f32>(two(row, i), two(row, i + 2u)),
        vec4<f32>(two(row, i + 4u), two(row, i + 6u)));
}
//# BF16
fn two(row: u32, i: u32) -> vec2<f32> {
    let both = word(row + i * 2u);
    let wide = vec2<f32>(bitcast<f32>(both << 16u), bitcast<f32>(both & 0xffff0000u));
    return select(vec2<f32>(), wide, vec2<bool>(i < p.k, i + 1u < p.k));
}
fn oct(row: u32, g: u32) -> Oct {
    let i = g * 8u;
    return Oct(
        vec4<f32>(two(row, i), two(row, i + 2u)),
        vec4<f32>(two(row, i + 4u), two(row, i + 6u)));
}
