//! Streams of tokens to text.

use modelembed_text::{EncodeOptions, TokenId, Tokenizer};

use crate::common::{Meta, file, header, tokenizer};

const PLAIN: EncodeOptions = EncodeOptions::PLAIN;

fn spm(space_prefix: bool) -> Tokenizer {
    let tokens = ["<unk>", "<s>", "</s>", "▁x", "▁", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "<0xC3>", "x", "é"];
    let types = [2, 3, 3, 1, 1, 6, 6, 6, 6, 6, 1, 1];
    tokenizer(header(&[
        ("tokenizer.ggml.model", Meta::str("llama")),
        ("tokenizer.ggml.tokens", Meta::strs(&tokens)),
        ("tokenizer.ggml.token_type", Meta::I32s(types.to_vec())),
        ("tokenizer.ggml.add_space_prefix", Meta::Bool(space_prefix)),
    ]))
    .unwrap()
}

#[test]
fn only_complete_characters_come_out() {
    let tokenizer = spm(false);
    // What each token releases, and what the end does.
    let rows: &[(&[u32], &[&str], &str)] = &[
        (&[5, 6, 7, 8], &["", "", "", "😀"], ""),
        (&[10, 5, 6, 10], &["x", "", "", "\u{fffd}x"], ""),
        (&[5, 5, 6, 7, 8], &["", "\u{fffd}", "", "", "😀"], ""),
        (&[8, 11], &["\u{fffd}", "é"], ""),
        (&[9], &[""], "\u{fffd}"),
        (&[5, 6, 7], &["", "", ""], "\u{fffd}"),
        (&[1, 3, 2, 3], &["", " x", "", " x"], ""),
    ];
    for (ids, wanted, end) in rows {
        let mut stream = tokenizer.detokenizer();
        let got: Vec<String> = ids.iter().map(|&id| stream.push(TokenId(id), false).to_string()).collect();
        assert_eq!(&got, wanted, "{ids:?}");
        assert_eq!(stream.finish(), *end, "{ids:?}");
    }
}

#[test]
fn the_space_that_encoding_adds_goes_again() {
    let tokenizer = spm(true);
    assert_eq!(tokenizer.encode(b"x", PLAIN).unwrap(), [TokenId(3)]);
    let mut start = tokenizer.detokenizer();
    assert_eq!(start.push(TokenId(1), false), "");
    assert_eq!(start.push(TokenId(3), false), "x");
    assert_eq!(start.push(TokenId(3), false), " x");
    let mut continuing = tokenizer.detokenizer().continuing();
    assert_eq!(continuing.push(TokenId(3), false), " x");
}

#[test]
fn control_tokens_show_only_on_demand() {
    let tokenizer = spm(false);
    assert_eq!(tokenizer.detokenizer().push(TokenId(2), false), "");
    assert_eq!(tokenizer.detokenizer().push(TokenId(2), true), "</s>");
    assert_eq!(tokenizer.detokenizer().push(TokenId(0), true), "<unk>");
}

#[test]
fn valid_text_comes_back() {
    for name in ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"] {
        let Some(bytes) = file("MODELEMBED_MODELS", "models", name) else { continue };
        let tokenizer = tokenizer(bytes).unwrap();
        for text in [
            "",
            " ",
            "Hello,  world!\r\n\tx ",
            "naïve 👨‍👩‍👧‍👦 日本語 שלום \u{200f} ▂\u{10ffff}",
            "<|im_end|><eos> <h1>\n\n\n",
        ] {
            let mut stream = tokenizer.detokenizer();
            let mut back = String::new();
            for id in tokenizer.encode(text.as_bytes(), PLAIN).unwrap() {
                back.push_str(stream.push(id, false));
            }
            back.push_str(stream.finish());
            assert_eq!(back, text, "{name}");
        }
    }
}
