//! Weights that are no numbers: where nothing can be chosen from, that is an error and not an empty
//! answer.

use std::ops::ControlFlow;
use std::sync::Arc;

use modelembed::{Chat, Error, GenerateOptions, LoadOptions, Model, Sampler, SamplerOptions, TokenId, generate};
use modelembed_testkit::{tiny_prompt, tiny_spec};
use modelembed_text::chat;

use crate::common::{Parts, TinyModels, load, session};

/// A tiny model with other bytes in a tensor.
fn spoilt(dir: &TinyModels, model: &str, tensor: &str, spoil: fn(&mut [u8])) -> Arc<Model> {
    let mut parts = Parts::of(&tiny_spec(model));
    spoil(&mut parts.tensor(tensor).data);
    load(&dir.write("spoilt", &parts.build()), &LoadOptions::default())
}

fn ids() -> Vec<TokenId> {
    tiny_prompt(12).into_iter().map(TokenId).collect()
}

fn is_no_number<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::NoLogitIsANumber { n_vocab: 320, n_tokens: 1.. }))
}

#[test]
fn where_no_logit_is_a_number_every_way_to_one_is_an_error() {
    type Row = (&'static str, &'static str, fn(&mut [u8]));
    let rows: [Row; 5] = [
        ("llama", "output_norm.weight", |data| data[..4].copy_from_slice(&f32::NAN.to_le_bytes())),
        ("llama", "blk.1.attn_norm.weight", |data| data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes())),
        ("gemma3", "blk.0.post_ffw_norm.weight", |data| data[..4].copy_from_slice(&f32::NAN.to_le_bytes())),
        // The scale of one block of 32 and of one of 256.
        ("q8_0", "blk.0.ffn_down.weight", |data| data[..2].copy_from_slice(&[0x00, 0x7e])),
        ("q4_k", "blk.1.ffn_down.weight", |data| data[..2].copy_from_slice(&[0x00, 0x7e])),
    ];
    let dir = TinyModels::new();
    for (name, tensor, spoil) in rows {
        let model = spoilt(&dir, name, tensor, spoil);
        let (ids, what) = (ids(), format!("{name} {tensor}"));
        let mut own = session(&model, 64);
        assert!(is_no_number(own.eval(&ids).map(|_| ())), "{what}: eval");
        assert!(own.is_empty(), "{what}: the context is as it was");
        let mut seen = 0;
        assert!(is_no_number(own.eval_each(&ids, |_, _| seen += 1)), "{what}: eval_each");
        assert_eq!((seen, own.len()), (0, 0), "{what}");
        for (temp, lookup_tokens) in [(0.0, 0), (0.8, 0), (0.0, 7), (0.8, 7)] {
            let mut own = session(&model, 64);
            let mut sampler = Sampler::new(SamplerOptions::default().temp(temp)).unwrap();
            let options = GenerateOptions::default().max_tokens(8).lookup_tokens(lookup_tokens);
            let mut text = String::new();
            let generated = generate(&mut own, &mut sampler, &ids, &options, |piece| {
                text += piece;
                ControlFlow::Continue(())
            });
            assert!(is_no_number(generated), "{what}: temp {temp}, lookup {lookup_tokens}");
            assert_eq!(text, "", "{what}");
        }
        let template =
            chat::for_model(model.gguf(), model.tokenizer(), Some(chat::Wanted::Named("chatml"))).unwrap().template;
        let mut chat = Chat::new(session(&model, 64), Sampler::default(), template, GenerateOptions::default());
        for _ in 0..2 {
            let turn = chat.send("the cat", |_| ControlFlow::Continue(()));
            assert!(is_no_number(turn.map(|_| ())), "{what}: chat");
            assert!(chat.messages().is_empty() && chat.session().is_empty(), "{what}: the chat is as it was");
        }
    }
}

#[test]
fn a_logit_that_is_no_number_is_never_chosen_and_spoils_nothing_else() {
    // The output's first row, of the token with id 0, and all but the last one. In folders of their
    // own: both are mapped.
    let dirs = [TinyModels::new(), TinyModels::new()];
    let one = spoilt(&dirs[0], "llama", "output.weight", |data| data[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    let most = spoilt(&dirs[1], "llama", "output.weight", |data| {
        let row = data.len() / 320;
        data[..319 * row].chunks_exact_mut(4).for_each(|x| x.copy_from_slice(&f32::NAN.to_le_bytes()));
    });
    assert_eq!(session(&one, 64).eval(&ids()).expect("evaluates").iter().filter(|x| x.is_nan()).count(), 1);
    assert_eq!(session(&most, 64).eval(&ids()).expect("evaluates").iter().filter(|x| x.is_nan()).count(), 319);
    let mut sampler = Sampler::new(SamplerOptions::default().temp(0.0)).unwrap();
    let options = GenerateOptions::default().max_tokens(3);
    let mut own = session(&most, 64);
    let stats = generate(&mut own, &mut sampler, &ids(), &options, |_| ControlFlow::Continue(())).expect("generates");
    assert_eq!((stats.generated_tokens, stats.pending), (3, Some(TokenId(319))));
}
