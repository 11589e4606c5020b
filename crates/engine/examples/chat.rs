//! Chats, a line a message: `cargo run --release --example chat -- MODEL.gguf`

use std::io::{Write, stdin, stdout};
use std::ops::ControlFlow::{Break, Continue};

use modelembed::text::chat::for_model;
use modelembed::{Chat, GenerateOptions, LoadOptions, Model, Sampler, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chat MODEL.gguf")?;
    let model = Model::load(path.as_ref(), &LoadOptions::default(), &mut |_| Continue(()))?;
    let template = for_model(model.gguf(), model.tokenizer(), None)?.template;
    let session = Session::new(&model, SessionOptions { ctx_tokens: Some(2048), ..Default::default() })?;
    let mut chat = Chat::new(session, Sampler::default(), template, GenerateOptions::default());
    for line in stdin().lines() {
        chat.send(&line?, |piece| {
            print!("{piece}");
            stdout().flush().map_or(Break(()), Continue)
        })?;
        println!();
    }
    Ok(())
}
