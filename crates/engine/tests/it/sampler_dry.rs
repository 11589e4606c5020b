//! DRY with sequence breakers that are looked up in a vocabulary, against llama.cpp (goldens from
//! tools/sampler_goldens.py).

use modelembed::{Dry, DryBreakers, ModelFiles, Sampler, SamplerOptions, TokenId};
use modelembed_testkit::real_model;
use modelembed_text::Tokenizer;
use serde_json::Value;

fn numbers(value: &Value) -> impl Iterator<Item = f64> {
    value.as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number"))
}

#[test]
fn sequences_end_where_llama_cpp_ends_them() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/sampler-dry.json")).expect("JSON");
    let mut wrong = Vec::new();
    for (model, rows) in goldens.as_object().expect("models") {
        let Some(path) = real_model(model) else { continue };
        let files = ModelFiles::open(&path).expect("opens");
        let tokenizer = Tokenizer::from_gguf(files.gguf(), files.header().clone()).expect("a vocabulary");
        let rows = rows.as_array().expect("rows");
        assert!(rows.len() > 50 && rows.iter().any(|row| row["ids"].as_array().is_some_and(|ids| ids.len() > 1)));
        for (i, row) in rows.iter().enumerate() {
            let breakers: Vec<&str> =
                row["breakers"].as_array().expect("texts").iter().map(|text| text.as_str().expect("a text")).collect();
            let dry = Dry { multiplier: 1.0, base: 1.5, last_n: None, ..Dry::default() };
            let options = SamplerOptions::NEUTRAL.dry(dry);
            let mut sampler = Sampler::new(options).expect("valid options");
            sampler.set_dry_breakers(DryBreakers::new(&tokenizer, &breakers).expect("breakers"));
            numbers(&row["accepted"]).for_each(|id| sampler.accept(TokenId(id as u32)));
            let mut logits = vec![0f32; tokenizer.n_vocab()];
            sampler.distribution(&mut logits);
            let seen: Vec<(usize, f32)> =
                logits.iter().enumerate().filter(|(_, x)| **x != 0.0).map(|(i, &x)| (i, -x)).collect();
            let want: Vec<(usize, f32)> =
                numbers(&row["ids"]).zip(numbers(&row["penalties"])).map(|(id, x)| (id as usize, x as f32)).collect();
            let is_same = |(a, b): (&(usize, f32), &(usize, f32))| a.0 == b.0 && (a.1 / b.1 - 1.0).abs() < 1e-5;
            if seen.len() != want.len() || !seen.iter().zip(&want).all(is_same) {
                wrong.push(format!("{model}, row {i}, {breakers:?}: {seen:?}, wanted {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows: {wrong:#?}", wrong.len());
}

#[test]
fn breakers_that_cannot_be_are_refused() {
    let Some(path) = real_model("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let files = ModelFiles::open(&path).expect("opens");
    let tokenizer = Tokenizer::from_gguf(files.gguf(), files.header().clone()).expect("a vocabulary");
    let error = |text: &str| DryBreakers::new(&tokenizer, &["a", text]).expect_err(text).to_string();
    assert_eq!(error(""), "the sequence breaker \"\" has 0 bytes, wanted 1 to 40");
    assert!(error(&"x".repeat(41)).ends_with("has 41 bytes, wanted 1 to 40"));
}
