// The greatest of each run of 1024 elements, in order: a workgroup to a run, a bitonic sort
// (Batcher 1968) of keys and indices. Over the results of one pass the next one goes, until one run
// is left. Constants: PAIRS, whether x holds (key, index) pairs of an earlier pass and no numbers;
// KEPT, pairs that a run leaves.

struct Params {
    len: u32, // elements or pairs of a column
    x_first: u32,
    x_stride: u32, // words
    out_first: u32,
    out_stride: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<u32>;

const RUN = 1024u;
const NOTHING = 0xffffffffu;

var<workgroup> keys: array<u32, RUN>;
var<workgroup> indices: array<u32, RUN>;

// Unsigned numbers in the order of the f32 with these bits; a NaN comes last, and both zeros are
// one.
fn key_of(bits: u32) -> u32 {
    let magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) { return 0u; }
    if (magnitude == 0u) { return 0x80000000u; }
    return select(bits | 0x80000000u, ~bits, bits != magnitude);
}

fn comes_before(a: u32, b: u32) -> bool {
    return keys[a] > keys[b] || (keys[a] == keys[b] && indices[a] < indices[b]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let base = p.x_first + group.y * p.x_stride;
    for (var i = t; i < RUN; i += 256u) {
        let at = group.x * RUN + i;
        var key = 0u;
        var index = NOTHING;
        if (at < p.len) {
            if (PAIRS) {
                key = x[base + 2u * at];
                index = x[base + 2u * at + 1u];
            } else {
                key = key_of(x[base + at]);
                index = at;
            }
        }
        keys[i] = key;
        indices[i] = index;
    }
    for (var size = 2u; size <= RUN; size *= 2u) {
        for (var apart = size / 2u; apart > 0u; apart /= 2u) {
            workgroupBarrier();
            for (var j = t; j < RUN / 2u; j += 256u) {
                let a = 2u * j - (j & (apart - 1u));
                let b = a + apart;
                if (comes_before(b, a) == ((a & size) == 0u)) {
                    let key = keys[a];
                    let index = indices[a];
                    keys[a] = keys[b];
                    indices[a] = indices[b];
                    keys[b] = key;
                    indices[b] = index;
                }
            }
        }
    }
    workgroupBarrier();
    for (var i = t; i < KEPT; i += 256u) {
        let at = p.out_first + group.y * p.out_stride + 2u * (group.x * KEPT + i);
        out[at] = keys[i];
        out[at + 1u] = indices[i];
    }
}
