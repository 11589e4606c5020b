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
            let before = CountingAllocator::total_bytes();
            for _ in 0..32 {
                sampler.accept(next);
                next = sampler.sample(session.eval(&[next]).expect("evaluates"));
            }
            let after = CountingAllocator::total_bytes();
            assert_eq!(after - before, 0, "{name}, exact {exact}: bytes allocated for 32 tokens");
        }
    }
}
