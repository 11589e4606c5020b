// Moves keys down and turns them. `old` is a copy of the cache, so that nothing is read after it
// was written over.

struct Params {
    heads: u32,
    half_dim: u32,
    capacity: u32,
    to_pos: u32,
    from_pos: u32,
    n_pos: u32,
    pairs: u32,
    halves: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> cache: array<u32>;
@group(0) @binding(2) var<storage, read_write> old: array<u32>;
@group(0) @binding(3) var<storage, read_write> angles: array<f32>; // (2, pairs)

fn old_element(row: u32, i: u32) -> f32 {
    let at = words_at(row, i / 2u);
    return pair_of(vec2<u32>(old[at.x], old[at.y]), i / 2u)[i % 2u];
}

// Element i of an old row, turned.
fn element(row: u32, i: u32) -> f32 {
    let own = old_element(row, i);
    if (i >= 2u * p.pairs) { return own; }
    var pair = i / 2u;
    var is_second = i % 2u == 1u;
    var other = i ^ 1u;
    if (p.halves != 0u) {
        pair = i % p.pairs;
        is_second = i >= p.pairs;
        other = select(i + p.pairs, i - p.pairs, is_second);
    }
    let partner = old_element(row, other);
    let cosine = angles[pair];
    let sine = angles[p.pairs + pair];
    if (is_second) { return partner * sine + own * cosine; }
    return own * cosine - partner * sine;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.y * groups.x * 64u + id.x;
    let units = (p.half_dim + UNIT - 1u) / UNIT;
    let pos = i / units % p.n_pos;
    let head = i / units / p.n_pos;
    if (head >= p.heads) { return; }
    let row = head * p.capacity + pos;
    put(row + p.to_pos, i % units, row + p.from_pos);
}
