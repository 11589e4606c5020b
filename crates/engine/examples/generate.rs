//! Completes a text: `cargo run --release --example generate -- MODEL.gguf "Once upon a time"`

use std::io::{Write, stdout};

use modelembed::{GenerateOptions, Model, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: generate MODEL.gguf [TEXT]")?;
    let prompt = args.next().unwrap_or("Once upon a time".into());
    let model = Model::open(path)?;
    let mut session = model.session(SessionOptions::default().ctx_tokens(2048))?;
    let mut text = session.generate(&prompt, GenerateOptions::default().max_tokens(64))?;
    for piece in &mut text {
        print!("{}", piece?);
        stdout().flush()?;
    }
    eprintln!("\n{:.1} tokens/s", text.stats().decode_tokens_per_second());
    Ok(())
}
