//! A decoded token allocates nothing. One test in a binary of its own: the counter counts the whole process.

mod common;

use common::{TinyModels, load, session};
use modelembed::{LoadOptions, Sampler, SamplerOptions, TokenId};
use modelembed_storage::CountingAllocator;
use modelembed_testkit::{tiny, tiny_prompt, tiny_spec};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn a_decoded_token_allocates_nothing() {
    let dir = TinyModels::new();
    for name in ["llama", "qwen2", "qwen3", "gemma3", "q4_k", "q8_0"] {
        for exact in [false, true] {
            let options = LoadOptions { exact, threads: Some(2), ..LoadOptions::default() };
            let model = load(&dir.write(name, &tiny(&tiny_spec(name))), &options);
            let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
            let mut session = session(&model, 128);
            let mut sampler =
                Sampler::new(SamplerOptions { temp: 0.8, ..SamplerOptions::default() }).expect("valid options");
            // The first token sets up what is set up once.
            let mut next = sampler.sample(session.eval(&ids).expect("evaluates"));
            next = sampler.sample(session.eval(&[next]).expect("evaluates"));
            // Threads that start late (the model's prefetching, a worker of the pool) allocate within some window, once; what a
            // token allocates is there in every window.
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
        }
    }
}
