// Reading weight blocks where the file's bytes lie: words of 32 bits, blocks at any even byte. Each
// format defines `oct(row_byte, g)`: elements 8g..8g+8 of the row that starts at a byte of the
// binding.

fn word(at: u32) -> u32 {
    let i = at >> 2u;
    let shift = (at & 3u) * 8u;
    if (shift == 0u) { return w[i]; }
    return (w[i] >> shift) | (w[i + 1u] << (32u - shift));
}

fn byte_at(at: u32) -> u32 {
    return (w[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu;
}

// At an even byte.
fn f16_at(at: u32) -> f32 {
    return unpack2x16float((w[at >> 2u] >> ((at & 2u) * 8u)) & 0xffffu).x;
}

// Bit i of a nibble to the lowest bit of byte i.
fn spread(nibble: u32) -> u32 {
    return (nibble * 0x00204081u) & 0x01010101u;
}

//# float
struct Oct { a: vec4<f32>, b: vec4<f32> }

fn bytes_to_f32(v: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(v));
}

fn scaled(a: u32, b: u32, scale: f32, offset: f32) -> Oct {
    return Oct(bytes_to_f32(a) * scale + offset, bytes_to_f32(b) * scale + offset);
}

// Integers that are exact before they are scaled: scale * (q - centre).
fn centred(a: u32, b: u32, centre: f32, scale: f32) -> Oct {
    return Oct((bytes_to_f32(a) - centre) * scale, (bytes_to_f32(b) - centre) * scale);
}

fn signed(a: u32, b: u32, scale: f32) -> Oct {
    return Oct(vec4<f32>(unpack4xI8(a)) * scale, vec4<f32>(unpack4xI8(b)) * scale);
}
//# int8
// Elements are scale * q + offset, q being 8 signed bits.
struct Oct { a: u32, b: u32, scale: f32, offset: f32 }

fn scaled(a: u32, b: u32, scale: f32, offset: f32) -> Oct { return Oct(a, b, scale, offset); }
fn centred(a: u32, b: u32, centre: f32, scale: f32) -> Oct { return Oct(a, b, scale, -centre * scale); }
fn signed(a: u32, b: u32, scale: f32) -> Oct { return Oct(a, b, scale, 0.0); }
//#
