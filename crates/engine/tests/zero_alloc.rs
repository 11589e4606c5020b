//! A decoded token allocates nothing. One test in a binary of its own: the counter counts the whole
//! process.

#[path = "it/common.rs"]
mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::{Parts, TinyModels, load, session};
use modelembed::{
    Dry, DryBreakers, GenerateOptions, LoadOptions, Mirostat, MirostatVersion, Model, Sampler, SamplerOptions, TokenId,
    Xtc, generate,
};
use modelembed_gguf::TensorType;
use modelembed_storage::CountingAllocator;
use modelembed_testkit::{TINY_EOS, TINY_VOCAB, TinyTensor, tiny_prompt, tiny_spec};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A tiny model that never ends its text.
fn endless(name: &str) -> Vec<u8> {
    let mut parts = Parts::of(&tiny_spec(name));
    let mut bias = [0f32; TINY_VOCAB];
    bias[TINY_EOS as usize] = f32::NEG_INFINITY;
    let data = bias.iter().flat_map(|x| x.to_le_bytes()).collect();
    let dims = vec![TINY_VOCAB as u64];
    parts.tensors.push(TinyTensor { name: "output.bias".into(), ty: TensorType::F32, dims, data });
    parts.build()
}

/// How a text is asked for.
#[derive(Clone, Copy, Debug)]
enum How {
    Callback,
    Iterator,
}

/// Bytes that generating a text of up to `max_tokens` allocates.
fn allocated_for(model: &Arc<Model>, prompt: &[TokenId], max_tokens: usize, options: SamplerOptions, how: How) -> u64 {
    let mut session = session(model, 128);
    let mut sampler = Sampler::new(options).expect("valid options");
    sampler.set_logit_biases([(TokenId(5), 1.0), (TokenId(6), f32::NEG_INFINITY)]);
    sampler.set_dry_breakers(DryBreakers::from_sequences([(TokenId(40), &[][..]), (TokenId(41), &[TokenId(42)])]));
    let options = GenerateOptions::default().max_tokens(max_tokens).stop(["a text that never comes"]);
    let before = CountingAllocator::total_bytes();
    let stats = match how {
        How::Callback => generate(&mut session, &mut sampler, prompt, &options, |_| ControlFlow::Continue(())),
        How::Iterator => session.generate_with(&mut sampler, prompt, options).map(|mut generation| {
            for piece in &mut generation {
                assert!(!piece.expect("generates").is_empty());
            }
            generation.stats()
        }),
    };
    assert!(stats.expect("generates").generated_tokens == max_tokens, "the text ends early");
    CountingAllocator::total_bytes() - before
}

/// The default with a penalty, and what each other sampler makes of it.
fn chains() -> Vec<SamplerOptions> {
    let base = SamplerOptions::default().repeat_penalty(1.1);
    let mirostat = |version| Some(Mirostat { version, tau: 3.0, eta: 0.1 });
    vec![
        base,
        base.temp(0.0),
        base.frequency_penalty(0.1).presence_penalty(0.1).repeat_last_n(usize::MAX),
        base.dry(Dry { allowed_length: 1, ..Dry::default() }),
        base.dry(Dry { last_n: None, ..Dry::default() }),
        base.top_k(0),
        base.top_k(0).top_p(1.0).min_p(0.0).typical_p(0.9),
        base.top_n_sigma(2.0).dynatemp_range(0.5),
        base.xtc(Xtc { probability: 0.5, threshold: 0.05 }),
        base.mirostat(mirostat(MirostatVersion::V1)),
        base.mirostat(mirostat(MirostatVersion::V2)),
        base.order("top_k;penalties;dry;top_p".parse().expect("an order")),
    ]
}

#[test]
fn a_decoded_token_allocates_nothing() {
    let dir = TinyModels::new();
    for name in [
        "llama",
        "qwen2",
        "qwen3",
        "gemma3",
        "gemma4",
        "gemma4-moe",
        "q4_k",
        "q8_0",
        "bloom",
        "gpt2",
        "olmo",
        "mistral3",
    ] {
        for exact in [false, true] {
            let options = LoadOptions::default().exact(exact).threads(2);
            let model = load(&dir.write(name, &endless(name)), &options);
            let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
            let mut session = session(&model, 128);
            let mut sampler = Sampler::new(SamplerOptions::default().temp(0.8)).expect("valid options");
            // The first token sets up what is set up once.
            let mut next = sampler.sample(session.eval(&ids).expect("evaluates"));
            next = sampler.sample(session.eval(&[next]).expect("evaluates"));
            // Threads that start late (the model's prefetching, a worker of the pool) allocate
            // within some window, once; what a token allocates is there in every window.
            let windows = [(); 4].map(|()| {
                let before = CountingAllocator::total_bytes();
                for _ in 0..16 {
                    sampler.accept(next);
                    next = sampler.sample(session.eval(&[next]).expect("evaluates"));
                }
                CountingAllocator::total_bytes() - before
            });
            assert!(
                windows.contains(&0),
                "{name}, exact {exact}: bytes allocated for 16 tokens, four times: {windows:?}"
            );
            // A token that begins a page takes what counts the page, for each group of layers, and
            // no more: the page is there already.
            let mut long = common::session(&model, 600);
            long.eval(&ids[..30].repeat(8)).expect("evaluates");
            let costs: Vec<u64> = (240..300)
                .map(|_| {
                    let before = CountingAllocator::total_bytes();
                    long.eval(&ids[..1]).expect("evaluates");
                    CountingAllocator::total_bytes() - before
                })
                .collect();
            assert!(costs[16] > 0 && costs[16] < 1024, "{name}: token 256 allocates {} bytes", costs[16]);
            let others = costs.iter().enumerate().filter(|(i, cost)| *i != 16 && **cost > 0).count();
            assert!(others <= 3, "{name}: {others} of 59 tokens within a page allocate: {costs:?}");
            // A text that is longer costs no more, where the head's job has found the peaks,
            // whatever the sampler is told.
            for options in chains().into_iter().take(if name == "llama" { usize::MAX } else { 1 }) {
                for how in [How::Callback, How::Iterator] {
                    let least = |n| (0..4).map(|_| allocated_for(&model, &ids, n, options, how)).min();
                    let (short, long) = (least(24), least(72));
                    assert_eq!(
                        short, long,
                        "{name}, exact {exact}: bytes allocated for 24 and for 72 tokens, {how:?}, {options:?}"
                    );
                }
            }
        }
    }
}
