//! The vocabulary of the tiny models: SentencePiece with byte fallback, small enough to read.

/// One token as GGUF stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct TinyToken {
    /// Its text; U+2581 stands for a space.
    pub text: String,
    /// Its score: merges with higher scores come first.
    pub score: f32,
    /// Its kind, in GGUF's numbers (1 normal, 2 unknown, 3 control, 6 byte).
    pub kind: i32,
}

/// Number of tokens in [`tiny_vocab`].
pub const TINY_VOCAB: usize = 320;
/// Id of `<s>`.
pub const TINY_BOS: u32 = 1;
/// Id of `</s>`.
pub const TINY_EOS: u32 = 2;

/// `<unk>`, `<s>`, `</s>`, the 256 byte tokens, then 61 pieces (among them every merge on the way
/// to `▁the`).
pub fn tiny_vocab() -> Vec<TinyToken> {
    let token = |text: &str, score: f32, kind: i32| TinyToken { text: text.to_owned(), score, kind };
    let mut out = vec![token("<unk>", 0.0, 2), token("<s>", 0.0, 3), token("</s>", 0.0, 3)];
    out.extend((0..256).map(|b| token(&format!("<0x{b:02X}>"), 0.0, 6)));
    let merged = "▁t he ▁the in er ▁a on re an ▁s at en or ▁w ▁o es it is ▁of ▁b ▁c ▁in nd ou ▁and al ▁to ▁f ing ed ar";
    let single = "▁ e t a o i n s h r d l u c m w f g y p b v k , . x q j z é";
    for (rank, piece) in merged.split(' ').chain(single.split(' ')).enumerate() {
        out.push(token(piece, -(rank as f32), 1));
    }
    debug_assert_eq!(out.len(), TINY_VOCAB);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_its_size_and_no_piece_twice() {
        let vocab = tiny_vocab();
        assert_eq!(vocab.len(), TINY_VOCAB);
        let mut texts: Vec<&str> = vocab.iter().map(|t| t.text.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), TINY_VOCAB);
        assert_eq!((vocab[1].text.as_str(), vocab[2].text.as_str()), ("<s>", "</s>"));
    }
}
