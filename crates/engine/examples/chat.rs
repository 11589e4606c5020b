//! Chats, a line a message, with the likeliest token each time:
//! `cargo run --release --example chat -- MODEL.gguf`

use std::io::{Write, stdin, stdout};

use modelembed::{GenerateOptions, Model, SamplerOptions, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chat MODEL.gguf")?;
    let model = Model::open(path)?;
    let options = GenerateOptions::default().max_tokens(128).sampler(SamplerOptions::default().temp(0.0));
    let mut chat = model.chat(SessionOptions::default().ctx_tokens(2048), options)?;
    for line in stdin().lines() {
        for piece in chat.ask(&line?)? {
            print!("{}", piece?);
            stdout().flush()?;
        }
        println!();
    }
    Ok(())
}
