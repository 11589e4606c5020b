//! What generation chooses by the peaks that the output head's job leaves is what all logits give.

use std::ops::ControlFlow;
use std::sync::Arc;

use modelembed::{GenerateOptions, LoadOptions, Model, Sampler, SamplerOptions, TokenId, generate};
use modelembed_gguf::TensorType;
use modelembed_testkit::{Rng, TINY_EOS, TINY_VOCAB, TinyTensor, real_model, tiny_prompt, tiny_spec};

use crate::common::{Parts, TinyModels, all_logits, load, session};

const PLAIN: SamplerOptions = SamplerOptions::NEUTRAL.temp(0.0);

/// Each way to look at the peaks, with logits that change after they are known and without.
const CHAINS: [SamplerOptions; 8] = [
    PLAIN,
    PLAIN.repeat_penalty(1.3),
    PLAIN.repeat_penalty(0.7).repeat_last_n(5),
    PLAIN.temp(0.8).top_k(5),
    PLAIN.temp(1.5).top_k(40).top_p(0.95).min_p(0.05).repeat_penalty(1.3),
    PLAIN.temp(1.0).top_k(300).repeat_penalty(0.7),
    PLAIN.temp(1.0).top_p(0.9).repeat_penalty(1.1),
    PLAIN.temp(2.0).min_p(0.1),
];

/// The prompt and `n` tokens after it, each sampled from all logits.
fn from_all_logits(model: &Arc<Model>, prompt: &[TokenId], n: usize, options: SamplerOptions) -> Vec<TokenId> {
    let mut session = session(model, prompt.len() + n);
    let mut sampler = Sampler::new(options).expect("valid options");
    prompt.iter().for_each(|&id| sampler.accept(id));
    let mut all = prompt.to_vec();
    let mut next = sampler.sample(session.eval(prompt).expect("evaluates"));
    while all.len() < prompt.len() + n && !model.tokenizer().is_eog(next) {
        sampler.accept(next);
        all.push(next);
        next = sampler.sample(session.eval(&[next]).expect("evaluates"));
    }
    all
}

/// The same by [`generate`].
fn generated(
    model: &Arc<Model>,
    prompt: &[TokenId],
    options: SamplerOptions,
    generation: &GenerateOptions,
) -> Vec<TokenId> {
    let mut session = session(model, prompt.len() + generation.max_tokens);
    let mut sampler = Sampler::new(options).expect("valid options");
    let stats = generate(&mut session, &mut sampler, prompt, generation, |_| ControlFlow::Continue(()));
    let pending = stats.expect("generates").pending;
    session.tokens().iter().copied().chain(pending).collect()
}

/// Compares them for every chain, without guesses and with; returns the runs that differ.
fn differing(model: &Arc<Model>, what: &str, prompt: &[TokenId], n: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for options in CHAINS {
        let want = from_all_logits(model, prompt, n, options);
        for lookup_tokens in [0, 7] {
            let generation = GenerateOptions::default().max_tokens(n).lookup_tokens(lookup_tokens);
            let got = generated(model, prompt, options, &generation);
            if got != want {
                wrong.push(format!("{what}, lookup {lookup_tokens}, {options:?}:\n{got:?}\nwanted\n{want:?}"));
            }
        }
    }
    wrong
}

/// A bias of the output head that makes some logits equal, some infinite and some no number.
fn strange_bias(rng: &mut Rng) -> TinyTensor {
    let mut bias: Vec<f32> = (0..TINY_VOCAB)
        .map(|_| match rng.below(8) {
            // Whatever is added to so large a number is lost.
            0 => 1e30,
            1 => -1e30,
            2 => f32::NAN,
            3 => f32::NEG_INFINITY,
            _ => 4.0 * rng.unit(),
        })
        .collect();
    // Texts are to go on.
    bias[TINY_EOS as usize] = f32::NEG_INFINITY;
    let data = bias.iter().flat_map(|x| x.to_le_bytes()).collect();
    TinyTensor { name: "output.bias".into(), ty: TensorType::F32, dims: vec![TINY_VOCAB as u64], data }
}

/// With no large numbers among the others, so that sampling has a choice; infinities choose for
/// themselves.
fn with(mut bias: TinyTensor, large: f32) -> TinyTensor {
    let values = bias.data.as_chunks_mut::<4>().0;
    values.iter_mut().filter(|x| f32::from_le_bytes(**x) == 1e30).for_each(|x| *x = large.to_le_bytes());
    bias
}

#[test]
fn tiny_models_choose_what_all_logits_give() {
    let dir = TinyModels::new();
    let prompt: Vec<TokenId> = tiny_prompt(12).into_iter().cycle().take(30).map(TokenId).collect();
    let mut rng = Rng::new(7);
    let mut wrong = Vec::new();
    for name in ["llama", "gemma3", "q4_k"] {
        let plain = Parts::of(&tiny_spec(name));
        let strange = strange_bias(&mut rng);
        let biases = [
            ("no bias", None),
            ("a bias", Some(with(strange.clone(), 0.5))),
            ("equals", Some(strange.clone())),
            ("infinities", Some(with(strange, f32::INFINITY))),
        ];
        for (what, bias) in biases {
            let mut parts = plain.clone();
            parts.tensors.extend(bias);
            let path = dir.write(name, &parts.build());
            // Peaks of 48, 32 and 16 logits of 320.
            for threads in [1, 2, 3] {
                let options = LoadOptions::default().threads(threads);
                let what = format!("{name}, {what}, {threads} threads");
                wrong.extend(differing(&load(&path, &options), &what, &prompt, 40));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn tokens_that_a_file_suppresses_are_never_chosen_and_change_no_other_logit() {
    let dir = TinyModels::new();
    let ids: Vec<TokenId> = tiny_prompt(12).into_iter().map(TokenId).collect();
    let mut parts = Parts::of(&tiny_spec("gemma4"));
    let plain = all_logits(&load(&dir.write("plain", &parts.build()), &LoadOptions::default()), &ids, 12);
    // The best of each position, the first token and the last, and some that are none.
    let best = plain.chunks(TINY_VOCAB).map(|row| (0..TINY_VOCAB).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap());
    let mut suppressed: Vec<i32> = best.map(|id| id as i32).collect();
    suppressed.extend([0, TINY_VOCAB as i32 - 1, -1, TINY_VOCAB as i32, i32::MAX]);
    parts.set("tokenizer.ggml.suppress_tokens", suppressed.clone());
    let path = dir.write("suppressed", &parts.build());
    for threads in [1, 3] {
        let model = load(&path, &LoadOptions::default().threads(threads));
        for (i, (got, plain)) in all_logits(&model, &ids, 5).iter().zip(&plain).enumerate() {
            let id = (i % TINY_VOCAB) as i32;
            let want = if suppressed.contains(&id) { f32::NEG_INFINITY } else { *plain };
            assert_eq!(got.to_bits(), want.to_bits(), "logit {id} of token {}", i / TINY_VOCAB);
        }
        let wrong = differing(&model, "suppressed", &ids, 20);
        assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn a_real_model_chooses_what_all_logits_give() {
    let Some(path) = real_model("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let model = load(&path, &LoadOptions::default());
    let encode = modelembed_text::EncodeOptions::default().add_special(true);
    let text = "The history of the city begins with a river and a market. The history of";
    let prompt = model.tokenizer().encode(text.as_bytes(), encode).expect("encodes");
    let wrong = differing(&model, "smollm2", &prompt, 24);
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
