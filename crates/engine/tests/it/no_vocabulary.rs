//! Models that hold no vocabulary: tokens in, logits out, and an error wherever text is wanted.

use std::ops::ControlFlow;

use modelembed::{DryBreakers, GenerateOptions, LoadOptions, Sampler, TokenId, generate};
use modelembed_testkit::{first_bit_difference, tiny_prompt, tiny_spec};

use crate::common::{Parts, TinyModels, all_logits, load, session};

#[test]
fn tokens_are_evaluated_and_text_is_refused() {
    let dir = TinyModels::new();
    let ids: Vec<TokenId> = tiny_prompt(20).into_iter().map(TokenId).collect();
    let whole = Parts::of(&tiny_spec("llama"));
    let want = all_logits(&load(&dir.write("whole", &whole.build()), &LoadOptions::default()), &ids, 20);
    for kind in [Some("none"), Some("no_vocab"), None] {
        let mut parts = whole.clone();
        parts.metadata.retain(|(key, _)| !key.starts_with("tokenizer."));
        kind.into_iter().for_each(|kind| parts.set("tokenizer.ggml.model", kind));
        let model = load(&dir.write("part", &parts.build()), &LoadOptions::default());
        assert_eq!(model.n_vocab(), 320);
        assert_eq!(first_bit_difference(&all_logits(&model, &ids, 20), &want), None, "{kind:?}");
        let (mut session, mut sampler) = (session(&model, 64), Sampler::default());
        let next = sampler.sample(session.eval(&ids).expect("evaluates"));
        assert!(next.0 < 320);
        let refused = "the model has no vocabulary";
        let options = GenerateOptions::default();
        let error = generate(&mut session, &mut sampler, &[next], &options, |_| ControlFlow::Continue(()));
        assert!(error.expect_err("no text").to_string().starts_with(refused));
        assert_eq!(session.len(), ids.len(), "nothing was evaluated for it");
        let error = DryBreakers::new(model.tokenizer(), &["\n"]).expect_err("no text");
        assert!(error.to_string().starts_with(refused), "{error}");
    }
}
