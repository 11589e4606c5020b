//! Guessed tokens change the speed of a text and nothing else.

use std::ops::ControlFlow;
use std::sync::Arc;

use modelembed::{
    CacheType, GenerateOptions, GenerateStats, LoadMode, LoadOptions, Model, Sampler, SamplerOptions, Session,
    SessionOptions, TokenId, generate,
};
use modelembed_testkit::{real_model, tiny, tiny_prompt, tiny_spec};

use crate::common::{TinyModels, load};

/// What a generation leaves: its text, the context, and the logits of one more token.
#[derive(PartialEq)]
struct Outcome {
    text: String,
    tokens: Vec<TokenId>,
    pending: Option<TokenId>,
    next: Vec<u32>,
}

fn run(
    model: &Arc<Model>,
    cache_type: Option<CacheType>,
    prompt: &[TokenId],
    sampling: SamplerOptions,
    options: &GenerateOptions,
) -> (Outcome, GenerateStats) {
    let setup = SessionOptions::default().ctx_tokens(prompt.len() + 120).cache_type(cache_type);
    let mut session = Session::new(model, setup).expect("a session");
    let mut sampler = Sampler::new(sampling).expect("valid options");
    let mut text = String::new();
    let stats = generate(&mut session, &mut sampler, prompt, options, |piece| {
        text.push_str(piece);
        ControlFlow::Continue(())
    })
    .expect("generates");
    let tokens = session.tokens().to_vec();
    let next = match session.len() < session.capacity() {
        true => session.eval(&[TokenId(5)]).expect("evaluates").iter().map(|x| x.to_bits()).collect(),
        false => Vec::new(),
    };
    (Outcome { text, tokens, pending: stats.pending, next }, stats)
}

/// Runs with and without draft tokens under many settings; returns how many came true.
fn compare(model: &Arc<Model>, what: &str, prompt: &[TokenId], max_tokens: &[usize], lookups: &[usize]) -> usize {
    let mut accepted = 0;
    let mut failures = Vec::new();
    // Blocks of 32 do not fit the heads of every tiny model.
    let q8 = model.program().caches()[0].key_dim.is_multiple_of(32).then_some(Some(CacheType::Q8));
    for cache_type in [None].into_iter().chain(q8) {
        for (temp, penalty) in [(0.0, 1.0), (0.8, 1.0), (0.2, 1.1)] {
            let sampling = SamplerOptions::default().temp(temp).repeat_penalty(penalty);
            for &max_tokens in max_tokens {
                let options =
                    |lookup_tokens| GenerateOptions::default().max_tokens(max_tokens).lookup_tokens(lookup_tokens);
                let (want, plain) = run(model, cache_type, prompt, sampling, &options(0));
                assert_eq!((plain.draft_tokens, plain.decoded_tokens), (0, plain.decode_steps));
                for &lookup_tokens in lookups {
                    let (got, stats) = run(model, cache_type, prompt, sampling, &options(lookup_tokens));
                    if got != want || stats.generated_tokens != plain.generated_tokens || stats.stop != plain.stop {
                        failures
                            .push(format!("{what}, {cache_type:?}, temp {temp}, {max_tokens}, lookup {lookup_tokens}"));
                    }
                    assert_eq!(stats.decoded_tokens, plain.decoded_tokens);
                    assert_eq!(stats.decode_steps + stats.accepted_tokens, stats.decoded_tokens);
                    assert!(stats.accepted_tokens <= stats.draft_tokens);
                    accepted += stats.accepted_tokens;
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    accepted
}

#[test]
fn draft_tokens_change_nothing_on_tiny_models() {
    let dir = TinyModels::new();
    let prompt: Vec<TokenId> = tiny_prompt(12).into_iter().cycle().take(60).map(TokenId).collect();
    let mut accepted = 0;
    for name in ["llama", "qwen2", "qwen3", "gemma3", "q4_k", "q8_0"] {
        let path = dir.write(name, &tiny(&tiny_spec(name)));
        for (mode, threads) in [(LoadMode::Map, 1), (LoadMode::Buffer, 2), (LoadMode::File, 3)] {
            let options = LoadOptions::default().mode(mode).threads(threads);
            // As many tokens as asked for, and more than the context holds.
            accepted += compare(&load(&path, &options), name, &prompt, &[2, 50, 500], &[2, 100]);
        }
    }
    assert!(accepted > 100, "only {accepted} guesses came true: the test shows nothing");
}

#[test]
fn draft_tokens_change_nothing_on_a_real_model() {
    let Some(path) = real_model("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let model = load(&path, &LoadOptions::default());
    let text = "One two three four five six seven eight. ".repeat(8);
    let encode = modelembed_text::EncodeOptions::default().add_special(true);
    let prompt = model.tokenizer().encode(text.as_bytes(), encode).expect("encodes");
    let accepted = compare(&model, "smollm2", &prompt, &[40], &[3, 7]);
    assert!(accepted > 100, "only {accepted} guesses came true: the test shows nothing");
}
