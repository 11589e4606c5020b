//! Completes a text: `cargo run --release --example generate -- MODEL.gguf "Once upon a time"`

use std::io::Write;
use std::ops::ControlFlow::Continue;

use modelembed::text::EncodeOptions;
use modelembed::{GenerateOptions, LoadOptions, Model, Sampler, Session, SessionOptions, generate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: generate MODEL.gguf [TEXT]")?;
    let text = args.next().unwrap_or("Once upon a time".into());
    let model = Model::load(path.as_ref(), &LoadOptions::default(), &mut |_| Continue(()))?;
    let mut session = Session::new(&model, SessionOptions { ctx_tokens: Some(2048), ..Default::default() })?;
    let prompt = model.tokenizer().encode(text.as_bytes(), EncodeOptions { add_special: true, parse_special: true })?;
    let options = GenerateOptions { max_tokens: 64, ..Default::default() };
    let stats = generate(&mut session, &mut Sampler::default(), &prompt, &options, |piece| {
        print!("{piece}");
        std::io::stdout().flush().map_or_else(|_| std::ops::ControlFlow::Break(()), Continue)
    })?;
    println!("\n{:.1} tokens/s", stats.decode_tokens_per_second());
    Ok(())
}
