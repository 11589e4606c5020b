//! A decoded token allocates nothing. One test in a binary of its own: the counter counts the whole
//! process.

#[path = "it/common.rs"]
mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::{Parts, TinyModels, load, session};
use modelembed::gguf::TensorType;
use modelembed::{GenerateOptions, LoadOptions, Model, Sampler, SamplerOptions, TokenId, generate};
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

/// Bytes that [`generate`] allocates for a text of up to `max_tokens`.
fn allocated_for(model: &Arc<Model>, prompt: &[TokenId], max_tokens: usize) -> u64 {
    let mut session = session(model, 128);
    let options = SamplerOptions { repeat_penalty: 1.1, ..SamplerOptions::default() };
    let mut sampler = Sampler::new(options).expect("valid options");
    let generation = GenerateOptions { max_tokens, ..GenerateOptions::default() };
    let before = CountingAllocator::total_bytes();
    let stats = generate(&mut session, &mut sampler, prompt, &generation, |_| ControlFlow::Continue(()));
    assert!(stats.expect("generates").generated_tokens == max_tokens, "the text ends early");
    CountingAllocator::total_bytes() - before
}

#[test]
fn a_decoded_token_allocates_nothing() {
    let dir = TinyModels::new();
    for name in ["llama", "qwen2", "qwen3", "gemma3", "q4_k", "q8_0"] {
        for exact in [false, true] {
            let options = LoadOptions { exact, threads: Some(2), ..LoadOptions::default() };
            let model = load(&dir.write(name, &endless(name)), &options);
            let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
            let mut session = session(&model, 128);
            let mut sampler =
                Sampler::new(SamplerOptions { temp: 0.8, ..SamplerOptions::default() }).expect("valid options");
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
            // A text that is longer costs no more, where the head's job has found the peaks.
            let least = |max_tokens| (0..4).map(|_| allocated_for(&model, &ids, max_tokens)).min();
            let (short, long) = (least(24), least(72));
            assert_eq!(short, long, "{name}, exact {exact}: bytes allocated for 24 and for 72 tokens");
        }
    }
}
