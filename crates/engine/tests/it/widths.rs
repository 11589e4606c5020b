//! Widths that differ from layer to layer: what is left out of a layer is what weights of zero
//! would add.

use modelembed::{CacheType, LoadOptions, Session, SessionOptions, TokenId};
use modelembed_testkit::{GgufValue, TinyTensor, diff, first_bit_difference, tiny_prompt, tiny_spec};

use crate::common::{Parts, TinyModels, all_logits, load};

/// Keeps the first `n` rows of a matrix of f32.
fn keep_rows(t: &mut TinyTensor, n: usize) {
    t.data.truncate(n * t.dims[0] as usize * 4);
    t.dims[1] = n as u64;
}

/// Keeps the first `n` elements of each row.
fn keep_columns(t: &mut TinyTensor, n: usize) {
    let row = t.dims[0] as usize * 4;
    t.data = t.data.chunks_exact(row).flat_map(|row| &row[..n * 4]).copied().collect();
    t.dims[0] = n as u64;
}

/// Clears the elements of each row from the `n`-th on.
fn clear_columns(t: &mut TinyTensor, n: usize) {
    let row = t.dims[0] as usize * 4;
    t.data.chunks_exact_mut(row).for_each(|row| row[n * 4..].fill(0));
}

#[test]
fn layers_have_widths_of_their_own() {
    let spec = tiny_spec("llama");
    let (half_ff, half_rows, group) = (spec.n_ff / 2, spec.n_head / 2 * spec.head_dim, spec.n_head / spec.n_head_kv);
    let mut full = Parts::of(&spec);
    clear_columns(full.tensor("blk.1.ffn_down.weight"), half_ff);
    clear_columns(full.tensor("blk.2.attn_output.weight"), half_rows);
    let mut narrow = full.clone();
    for part in ["gate", "up"] {
        keep_rows(narrow.tensor(&format!("blk.1.ffn_{part}.weight")), half_ff);
    }
    keep_columns(narrow.tensor("blk.1.ffn_down.weight"), half_ff);
    keep_rows(narrow.tensor("blk.2.attn_q.weight"), half_rows);
    for part in ["k", "v"] {
        keep_rows(narrow.tensor(&format!("blk.2.attn_{part}.weight")), half_rows / group);
    }
    keep_columns(narrow.tensor("blk.2.attn_output.weight"), half_rows);
    let array = |all: usize, layer: usize, own: usize| {
        let mut widths = vec![all as u32; spec.n_layer];
        widths[layer] = own as u32;
        GgufValue::from(widths)
    };
    narrow.set("llama.feed_forward_length", array(spec.n_ff, 1, half_ff));
    narrow.set("llama.attention.head_count", array(spec.n_head, 2, spec.n_head / 2));
    narrow.set("llama.attention.head_count_kv", array(spec.n_head_kv, 2, spec.n_head_kv / 2));
    narrow.set("llama.attention.key_length", spec.head_dim as u32);
    narrow.set("llama.attention.value_length", spec.head_dim as u32);

    let dir = TinyModels::new();
    let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
    let exact = LoadOptions::default().exact(true).threads(2);
    let (full, narrow) = (dir.write("full", &full.build()), dir.write("narrow", &narrow.build()));
    let want = all_logits(&load(&full, &exact), &ids, ids.len());
    let got = all_logits(&load(&narrow, &exact), &ids, ids.len());
    let d = diff(&got, &want);
    assert!(d.max_abs < 1e-5, "{d}");
    // The same bits with other threads, token by token, and with the usual activations and cache.
    for options in [exact, LoadOptions::default().threads(3)] {
        let model = load(&narrow, &options);
        let difference = first_bit_difference(&all_logits(&model, &ids, 1), &all_logits(&model, &ids, ids.len()));
        assert_eq!(difference, None, "{options:?}");
    }
}

/// Rows `0..keep` of each `dim`.
fn rows_of_heads(t: &mut TinyTensor, dim: usize, keep: usize) {
    let row = t.dims[0] as usize * 4;
    t.data = t.data.chunks_exact(dim * row).flat_map(|head| &head[..keep * row]).copied().collect();
    t.dims[1] = t.dims[1] / dim as u64 * keep as u64;
}

/// Elements `0..keep` of each `dim` of a row; `others` says what becomes of the rest.
fn columns_of_heads(t: &mut TinyTensor, dim: usize, keep: usize, others: impl Fn(&[u8]) -> Vec<u8>) {
    let heads = t.data.chunks_exact(dim * 4);
    let data: Vec<u8> =
        heads.flat_map(|head| [head[..keep * 4].to_vec(), others(&head[keep * 4..])].concat()).collect();
    t.dims[0] = data.len() as u64 / 4 / t.dims[1];
    t.data = data;
}

#[test]
fn values_may_be_shorter_than_keys() {
    let spec = tiny_spec("llama");
    let (dim, keep) = (spec.head_dim, spec.head_dim / 2);
    let (mut full, mut narrow) = (Parts::of(&spec), Parts::of(&spec));
    for il in 0..spec.n_layer {
        let output = format!("blk.{il}.attn_output.weight");
        columns_of_heads(full.tensor(&output), dim, keep, |rest| vec![0; rest.len()]);
        columns_of_heads(narrow.tensor(&output), dim, keep, |_| Vec::new());
        rows_of_heads(narrow.tensor(&format!("blk.{il}.attn_v.weight")), dim, keep);
    }
    narrow.set("llama.attention.key_length", dim as u32);
    narrow.set("llama.attention.value_length", keep as u32);
    let dir = TinyModels::new();
    let (full, narrow) = (dir.write("full", &full.build()), dir.write("narrow", &narrow.build()));
    let ids: Vec<TokenId> = tiny_prompt(600).into_iter().map(TokenId).collect();
    let exact = LoadOptions::default().exact(true).threads(2);
    let d = diff(&all_logits(&load(&narrow, &exact), &ids, 600), &all_logits(&load(&full, &exact), &ids, 600));
    assert!(d.max_abs < 1e-4, "{d}");
    let model = load(&narrow, &LoadOptions::default().threads(2));
    for cache_type in [CacheType::I16, CacheType::F16, CacheType::F32] {
        let options = SessionOptions::default().ctx_tokens(600).cache_type(cache_type);
        let logits = |chunk: usize| {
            let mut session = Session::new(&model, options.clone()).expect("a session");
            let mut out = Vec::new();
            for part in ids.chunks(chunk) {
                session.eval_each(part, |_, logits| out.extend_from_slice(logits)).expect("evaluates");
            }
            out
        };
        assert_eq!(first_bit_difference(&logits(7), &logits(600)), None, "{cache_type:?}");
    }
}
