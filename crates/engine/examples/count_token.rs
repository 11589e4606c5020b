//! Fixed work for `bench/instructions.py`, which counts the instructions of the [`measured`] call
//! with callgrind: a tiny model's tokens, from one to the next with sampling and text.
//!
//! Prints the case's name, and how many tokens the call decodes.

use std::error::Error;
use std::ops::ControlFlow::Continue;

use modelembed::{
    GenerateOptions, Isa, LoadMode, LoadOptions, Model, Sampler, Session, SessionOptions, TokenId, generate,
};
use modelembed_gguf::TensorType;
use modelembed_testkit::{TINY_EOS, TinyArch, TinySpec, tiny, tiny_prompt};

const N_TOKENS: usize = 32;

/// Callgrind collects in here only, and writes what it has collected when this returns.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
    // Something to do behind the work: a jump in place of a call would never return here.
    std::hint::black_box(&work);
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tiny.gguf");
    // Rows of two blocks: much of a token's instructions are not the kernels', which have counts of
    // their own.
    let spec = TinySpec { ty: TensorType::Q8_0, ..TinySpec::new("count", TinyArch::Llama) };
    std::fs::write(&path, tiny(&spec))?;
    // Not mapped: no thread reads ahead.
    let options = LoadOptions::default().mode(LoadMode::Buffer).threads(1).isa(Isa::Avx2);
    let model = Model::load(&path, &options)?;
    let mut session = Session::new(&model, SessionOptions::default().ctx_tokens(256))?;
    let mut sampler = Sampler::default();
    // The text must not end early.
    sampler.set_logit_biases([(TokenId(TINY_EOS), f32::NEG_INFINITY)]);
    let options = GenerateOptions::default().max_tokens(N_TOKENS);
    let mut next_tokens = |context: &[TokenId]| {
        let stats = generate(&mut session, &mut sampler, context, &options, |_| Continue(()))?;
        let all = stats.pending.filter(|_| stats.generated_tokens == N_TOKENS);
        all.ok_or_else(|| Box::<dyn Error>::from(format!("ended after {} tokens", stats.generated_tokens)))
    };
    // What is set up once is set up by the first tokens.
    let prompt: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
    let last = next_tokens(&prompt)?;
    println!("decode, tiny llama in Q8_0, 1 thread\t{N_TOKENS}");
    let mut outcome = None;
    measured(&mut || outcome = Some(next_tokens(&[last])));
    outcome.ok_or("nothing was measured")?.map(drop)
}
