//! Chooses tokens by a function of its own: the likeliest one without any letter from n to z.
//! `cargo run --release --example sampler -- MODEL.gguf "Once upon a time"`

use modelembed::{GenerateOptions, Model, SessionOptions, TokenId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: sampler MODEL.gguf [TEXT]")?;
    let prompt = args.next().unwrap_or("Once upon a time".into());
    let model = Model::open(path)?;
    let allows = |id: TokenId| !model.tokenizer().token_bytes(id).iter().any(|b| (b'n'..=b'z').contains(b));
    let mut chooser = |logits: &mut [f32]| {
        let allowed = (0..logits.len() as u32).map(TokenId).filter(|id| allows(*id));
        allowed.max_by(|a, b| logits[a.index()].total_cmp(&logits[b.index()])).unwrap_or(TokenId(0))
    };
    let mut session = model.session(SessionOptions::default().ctx_tokens(2048))?;
    let options = GenerateOptions::default().max_tokens(32);
    for piece in session.generate_with(&mut chooser, &prompt, options)? {
        print!("{}", piece?);
    }
    println!();
    Ok(())
}
