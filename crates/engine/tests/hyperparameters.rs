//! Every number of the metadata that becomes a size, a divisor or an angle, with every value that
//! such numbers go wrong with: a model or an error, never a panic, and no memory that the file does
//! not pay for. One test in a binary of its own, since the counter counts the whole process.

#[path = "it/common.rs"]
mod common;

use std::sync::Arc;

use common::{Parts, TinyModels};
use modelembed::{LoadOptions, Model, Session, SessionOptions, TokenId};
use modelembed_storage::CountingAllocator;
use modelembed_testkit::{GgufValue, TinySpec, is_emulated, tiny_prompt, tiny_spec};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Keys that tiny models leave out, beside those that they have.
const MORE_KEYS: [&str; 24] = [
    "attention.key_length",
    "attention.value_length",
    "attention.scale",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.dimension_count",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "expert_count",
    "expert_used_count",
    "expert_shared_count",
    "leading_dense_block_count",
    "vocab_size",
    "attention.causal",
    "final_logit_softcapping",
    "logit_scale",
    "pooling_type",
    "rope.dimension_sections",
];

fn nasty_values() -> Vec<GgufValue> {
    let mut out: Vec<GgufValue> =
        [0, 1, 2, 3, 0xffff, 1 << 24, i32::MAX as u32, 1 << 31, u32::MAX].map(Into::into).into();
    out.extend([i64::MIN, -1].map(GgufValue::from));
    out.extend([1 << 32, 1 << 60, u64::MAX].map(GgufValue::from));
    let floats = [0.0, -0.0, -1.0, 1.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    out.extend(floats.map(GgufValue::from));
    out.extend([f64::MAX, f64::NAN].map(GgufValue::from));
    out.push(true.into());
    out.push((-1i8).into());
    out.extend(["", "yarn", "linear", "\u{1b}[2J"].map(GgufValue::from));
    out.push(vec![1u32, 2, 3].into());
    out.push(Vec::<u32>::new().into());
    out.push(vec!["a"].into());
    out
}

/// Loads, and if that works evaluates a few tokens in a small context and makes room for the one
/// that the metadata names.
fn outcome(path: &std::path::Path) -> Result<(), String> {
    let options = LoadOptions::default().threads(1);
    let model = Model::load(path, &options).map_err(|e| e.to_string())?;
    let ids: Vec<TokenId> = tiny_prompt(4).into_iter().map(TokenId).collect();
    let open = |ctx_tokens| Session::new(&model, SessionOptions::default().ctx_tokens(ctx_tokens));
    let logits = open(Some(4)).and_then(|mut session| Ok(session.eval(&ids)?.len())).map_err(|e| e.to_string())?;
    assert_eq!(logits, model.n_vocab());
    // qemu keeps 6 MiB of records for each GiB that is reserved, touched or not (measured):
    // terabytes are out of its reach.
    if is_emulated() {
        return Ok(());
    }
    let whole = open(None).map(drop).map_err(|e| e.to_string());
    assert_eq!(Arc::strong_count(&model), 1, "sessions are gone");
    whole
}

#[test]
fn every_hyper_parameter_with_every_nasty_value() {
    // A session reserves 4 MB for ids whatever its context, twice a row; the rest is small change.
    const MOST_BYTES: u64 = 16 << 20;
    let dir = TinyModels::new();
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for name in ["llama", "qwen2-yarn", "gemma3"] {
        let spec = TinySpec { n_layer: 1, ..tiny_spec(name) };
        let prefix = format!("{}.", spec.arch.name());
        let whole = Parts::of(&spec);
        let own = whole.metadata.iter().filter_map(|(key, _)| key.strip_prefix(&prefix));
        let keys: std::collections::BTreeSet<&str> = own.chain(MORE_KEYS).collect();
        for key in keys {
            for value in nasty_values() {
                let mut parts = whole.clone();
                let shown = format!("{name} {key} {value:?}");
                parts.set(&format!("{prefix}{key}"), value);
                let path = dir.write("nasty", &parts.build());
                let file_bytes = std::fs::metadata(&path).unwrap().len();
                let before = CountingAllocator::total_bytes();
                let outcome = outcome(&path);
                let used = CountingAllocator::total_bytes() - before;
                if used > MOST_BYTES + 4 * file_bytes {
                    wrong.push(format!("{shown}: {used} bytes of memory, {outcome:?}"));
                }
                match outcome {
                    Ok(()) => accepted += 1,
                    // What is wrong may be a key, a tensor that has no such shape, a context that
                    // no memory holds, or logits that overflow.
                    Err(e)
                        if [&*prefix, "tensor ", "context of ", "reserve", "is a number"]
                            .iter()
                            .any(|word| e.contains(word)) =>
                    {
                        refused += 1;
                        if e.contains(|c: char| c.is_control()) || e.len() > 400 {
                            wrong.push(format!("{shown}: {e:?}"));
                        }
                    }
                    Err(e) => wrong.push(format!("{shown}: {e:?} names nothing")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows fail:\n{}", wrong.len(), wrong.join("\n"));
    assert!(accepted > 500 && refused > 500, "{accepted} accepted, {refused} refused: the loop reaches nothing");
}
