//! Goes on with three texts at once, the likeliest token each time:
//! `cargo run --release --example batch -- MODEL.gguf`

use modelembed::{EncodeOptions, EngineOptions, Model, Run, Sampler, SamplerOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: batch MODEL.gguf")?;
    let model = Model::open(path)?;
    let mut engine = model.engine(EngineOptions::default().sequences(3).ctx_tokens(256))?;
    let mut sampler = Sampler::new(SamplerOptions::default().temp(0.0))?;
    let mut texts = Vec::new();
    for text in ["One, two, three,", "The sky is", "Roses are red,"] {
        let ids = model.tokenizer().encode(text.as_bytes(), EncodeOptions::default().add_special(true))?;
        texts.push((engine.add()?, text.to_owned(), model.tokenizer().detokenizer().continuing(), ids));
    }
    for _ in 0..24 {
        // All three share one reading of the weights. What follows each is what goes in next.
        let runs: Vec<Run> = texts.iter().map(|(id, _, _, next)| Run::new(*id, next)).collect();
        let mut chosen = Vec::new();
        engine.step(&runs, &mut |row| chosen.push(sampler.sample(row.logits)))?;
        for ((_, text, pieces, next), id) in texts.iter_mut().zip(chosen) {
            text.push_str(pieces.push(id, false));
            *next = vec![id];
        }
    }
    texts.iter().for_each(|(_, text, ..)| println!("{text}"));
    Ok(())
}
