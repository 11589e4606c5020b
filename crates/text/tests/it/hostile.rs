//! Vocabularies that are wrong or meant to harm: one clear error or safe behaviour, never a panic
//! or a hang.

use std::sync::Arc;

use modelembed_gguf::{Gguf, SharedBytes};
use modelembed_text::chat::{ChatTemplate, SpecialTokens};
use modelembed_text::{EncodeOptions, TokenId, Tokenizer};
use proptest::prelude::*;

use crate::common::{Meta, header, tokenizer};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

const ALL: EncodeOptions = EncodeOptions::PLAIN.add_special(true).parse_special(true);

fn spm(more: &[(&'static str, Meta)]) -> Vec<(&'static str, Meta)> {
    let mut entries = vec![(MODEL, Meta::str("llama"))];
    entries.extend(more.iter().cloned());
    entries
}

fn bpe(more: &[(&'static str, Meta)]) -> Vec<(&'static str, Meta)> {
    let mut entries = vec![(MODEL, Meta::str("gpt2")), (PRE, Meta::str("gpt-2"))];
    entries.extend(more.iter().cloned());
    entries
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text.as_bytes(), ALL).unwrap().iter().map(|id| id.0).collect()
}

#[test]
fn what_is_refused_and_how() {
    let abc = || (TOKENS, Meta::strs(&["a", "b", "c"]));
    let rows = [
        (vec![(MODEL, Meta::U32(1))], "metadata tokenizer.ggml.model is 1 of type u32, wanted a string"),
        (vec![(MODEL, Meta::str("bert"))], "tokenizer.ggml.model is \"bert\", wanted one of gpt2"),
        (vec![(MODEL, Meta::str("\x1b[2J"))], "tokenizer.ggml.model is \"\\u{1b}[2J\", wanted"),
        (vec![(MODEL, Meta::str("t5")), abc()], "tokenizer.ggml.model is \"t5\", wanted one of gpt2"),
        (spm(&[]), "metadata tokenizer.ggml.tokens is missing"),
        (spm(&[(TOKENS, Meta::strs(&[]))]), "tokenizer.ggml.tokens has 0 elements, wanted 1 to"),
        (spm(&[(TOKENS, Meta::I32s(vec![1]))]), "metadata tokenizer.ggml.tokens is"),
        (spm(&[abc(), (SCORES, Meta::F32s(vec![1.0, 2.0]))]), "scores has 2 elements, wanted one for each of the 3"),
        (spm(&[abc(), (SCORES, Meta::I32s(vec![]))]), "scores has 0 elements, wanted one for each of the 3"),
        (spm(&[abc(), (SCORES, Meta::U8s(vec![1, 1, 1]))]), "metadata tokenizer.ggml.scores is"),
        (spm(&[abc(), (TYPES, Meta::I32s(vec![1]))]), "token_type has 1 elements, wanted one for each of the 3"),
        (spm(&[abc(), (TYPES, Meta::U8s(vec![1, 1, 1]))]), "metadata tokenizer.ggml.token_type is"),
        (
            spm(&[abc(), (BOS, Meta::str("a"))]),
            "metadata tokenizer.ggml.bos_token_id is the string \"a\", wanted an integer",
        ),
        (
            spm(&[abc(), (ADD_BOS, Meta::U32(1))]),
            "metadata tokenizer.ggml.add_bos_token is 1 of type u32, wanted a bool",
        ),
        (bpe(&[abc()]), "metadata tokenizer.ggml.merges is missing"),
        (
            bpe(&[abc(), (MERGES, Meta::U32(0))]),
            "metadata tokenizer.ggml.merges is 0 of type u32, wanted an array of strings",
        ),
    ];
    let mut failures = Vec::new();
    for (entries, wanted) in rows {
        match tokenizer(header(&entries)) {
            Ok(_) => failures.push(format!("accepted, wanted {wanted:?}")),
            Err(error) if !error.to_string().contains(wanted) => failures.push(format!("{error}\n  wanted {wanted:?}")),
            Err(_) => {}
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_is_repaired_is_reported() {
    let abc = || (TOKENS, Meta::strs(&["a", "b", "c"]));
    let rows = [
        (spm(&[abc(), (BOS, Meta::U32(3))]), "bos_token_id is 3, but there are 3 tokens"),
        (spm(&[(TOKENS, Meta::strs(&["a"])), (ADD_BOS, Meta::Bool(true))]), "asks for a BOS token but names none"),
        (vec![(MODEL, Meta::str("gpt2")), abc(), (MERGES, Meta::strs(&[]))], "tokenizer.ggml.pre is missing"),
        (
            vec![(MODEL, Meta::str("gpt2")), (PRE, Meta::str("nonsense")), abc(), (MERGES, Meta::strs(&[]))],
            "tokenizer.ggml.pre \"nonsense\" is unknown: the pre-tokenizer \"default\" is used",
        ),
    ];
    for (entries, wanted) in rows {
        let tokenizer = tokenizer(header(&entries)).unwrap();
        assert!(
            tokenizer.warnings().iter().any(|w| w.contains(wanted)),
            "{:?}\n  wanted {wanted}",
            tokenizer.warnings()
        );
    }
}

/// Ids that other programs use as indices: each names its key and is used for nothing.
#[test]
fn ids_beyond_the_vocabulary_are_reported_and_unused() {
    let keys = [
        "bos_token_id",
        "eos_token_id",
        "eot_token_id",
        "eom_token_id",
        "unknown_token_id",
        "padding_token_id",
        "fim_pre_token_id",
        "fim_suf_token_id",
        "fim_mid_token_id",
        "fim_pad_token_id",
        "fim_rep_token_id",
        "fim_sep_token_id",
    ];
    let mut failures = Vec::new();
    for key in keys {
        let full: &'static str = format!("tokenizer.ggml.{key}").leak();
        for id in [3, 1 << 20, i32::MAX as u32, u32::MAX - 1] {
            let entries = spm(&[(TOKENS, Meta::strs(&["a", "b", "c"])), (full, Meta::U32(id))]);
            let tokenizer = tokenizer(header(&entries)).unwrap();
            let wanted = format!("{key} is {id}, but there are 3 tokens");
            if !tokenizer.warnings().iter().any(|w| w.contains(&wanted)) {
                failures.push(format!("{:?}\n  wanted {wanted}", tokenizer.warnings()));
            }
            assert!(!tokenizer.is_eog(TokenId(id)) && !tokenizer.is_control(TokenId(id)), "{key} {id}");
            assert!(ids(&tokenizer, "abc").iter().all(|&id| id < 3), "{key} {id}");
        }
        // -1 says that there is no such token.
        let entries = spm(&[(TOKENS, Meta::strs(&["a", "b", "c"])), (full, Meta::U32(u32::MAX))]);
        let without = tokenizer(header(&spm(&[(TOKENS, Meta::strs(&["a", "b", "c"]))]))).unwrap();
        let tokenizer = tokenizer(header(&entries)).unwrap();
        if tokenizer.warnings() != without.warnings() || ids(&tokenizer, "abc") != ids(&without, "abc") {
            failures.push(format!("{key} -1: {:?}", tokenizer.warnings()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Tables that belong to other kinds of tokenizers, in sizes that those stumble over: nothing here
/// reads them.
#[test]
fn tables_of_other_tokenizers_change_nothing() {
    let plain = spm(&[(TOKENS, Meta::strs(&["<unk>", "a", "b", "ab"]))]);
    let want = ids(&tokenizer(header(&plain)).unwrap(), "ab ba");
    let strange = [
        ("tokenizer.ggml.precompiled_charsmap", Meta::U8s(vec![])),
        ("tokenizer.ggml.precompiled_charsmap", Meta::U8s(vec![0xff])),
        ("tokenizer.ggml.precompiled_charsmap", Meta::U8s(vec![0xff, 0xff, 0xff])),
        ("tokenizer.ggml.precompiled_charsmap", Meta::U8s(vec![0xff; 16])),
        ("tokenizer.ggml.suppress_tokens", Meta::I32s(vec![-1, i32::MAX])),
        ("tokenizer.ggml.token_type_count", Meta::U32(u32::MAX)),
    ];
    for (key, value) in strange {
        let mut entries = plain.clone();
        entries.push((key, value.clone()));
        assert_eq!(ids(&tokenizer(header(&entries)).unwrap(), "ab ba"), want, "{key} {value:?}");
    }
}

#[test]
fn suppressed_tokens_are_those_of_a_list_of_ids() {
    let of = |value: Meta| {
        let entries = [(TOKENS, Meta::strs(&["<unk>", "a"])), ("tokenizer.ggml.suppress_tokens", value)];
        tokenizer(header(&spm(&entries))).unwrap().suppressed().iter().map(|id| id.0).collect::<Vec<_>>()
    };
    assert_eq!(of(Meta::I32s(vec![7, -1, 3, 7, i32::MAX])), [3, 7, i32::MAX as u32]);
    let none: [u32; 0] = [];
    for value in [Meta::I32s(vec![]), Meta::U32(5), Meta::F32s(vec![1.0]), Meta::strs(&["a"])] {
        assert_eq!(of(value.clone()), none, "{value:?}");
    }
}

#[test]
fn odd_tokens_are_harmless() {
    let tokens = ["<unk>", "<s>", "</s>", "<0x-1>", "<0x4>", "<0xZZ>", "", "a", "a", "<0x41>", "▁"];
    let types = [2, 3, 3, 6, 6, 6, 6, 1, 1, 6, 99];
    let scores = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, 1.0, f32::NAN, 1.0, 0.0, f32::NAN];
    let tokenizer = tokenizer(header(&spm(&[
        (TOKENS, Meta::strs(&tokens)),
        (TYPES, Meta::I32s(types.to_vec())),
        (SCORES, Meta::F32s(scores.to_vec())),
    ])))
    .unwrap();
    // The last of equal tokens counts; a byte without a token is unknown; text of malformed byte
    // tokens is nothing.
    assert_eq!(ids(&tokenizer, "aAb"), [1, 10, 8, 9, 0]);
    let piece = |id| {
        let mut out = Vec::new();
        tokenizer.piece(TokenId(id), true, &mut out);
        out
    };
    let pieces: Vec<_> = (3..12).map(piece).collect();
    assert_eq!(pieces, [&b""[..], b"", b"", b"", b"a", b"a", b"A", b"", b""]);
    assert_eq!(piece(u32::MAX), b"");
    assert!(!tokenizer.is_eog(TokenId(u32::MAX)) && !tokenizer.is_control(TokenId(u32::MAX)));
}

#[test]
fn bytes_without_a_token_are_unknown() {
    let tokenizer = tokenizer(header(&spm(&[(TOKENS, Meta::strs(&["x"])), (ADD_BOS, Meta::Bool(false))]))).unwrap();
    // SentencePiece's unknown token is 0 where the file does not say; the space before the text has
    // three bytes.
    assert_eq!(ids(&tokenizer, "xy"), [0, 0, 0, 0, 0]);
}

#[test]
fn merges_without_a_space_or_a_token_are_ignored() {
    let merges = ["ab", "a b", "a b", " ", "", "a", "ab c", "x y"];
    let tokens = ["a", "b", "c", "ab", "x", "y"];
    let tokenizer = tokenizer(header(&bpe(&[(TOKENS, Meta::strs(&tokens)), (MERGES, Meta::strs(&merges))]))).unwrap();
    // "abc" and "xy" merge but are no tokens: their bytes are what is left. "z" has no token and
    // gives none.
    assert_eq!(ids(&tokenizer, "abc"), [0, 1, 2]);
    assert_eq!(ids(&tokenizer, "xyz"), [4, 5]);
    assert_eq!(ids(&tokenizer, "abab"), [3, 3]);
}

/// Merges that grow one symbol byte by byte, tokens that are prefixes of one another, special
/// tokens in runs: what quadratic algorithms need days for.
#[test]
fn long_texts_take_near_linear_time() {
    let long: Vec<String> = (1..200).map(|n| "a".repeat(n)).collect();
    let merges: Vec<String> = (1..199).map(|n| format!("{} a", "a".repeat(n))).collect();
    let mut tokens: Vec<Vec<u8>> = long.iter().map(|t| t.clone().into_bytes()).collect();
    let n = tokens.len();
    tokens.extend((1..40).map(|n| b"\n".repeat(n)));
    tokens.push(b"b".repeat(500_000));
    let mut types = vec![1; n];
    types.resize(tokens.len(), 4);
    let bytes = merges.iter().map(|m| m.clone().into_bytes()).collect();
    let vocabulary = [(TOKENS, Meta::Strs(tokens)), (TYPES, Meta::I32s(types)), (MERGES, Meta::Strs(bytes))];
    for entries in [bpe(&vocabulary), spm(&vocabulary)] {
        let tokenizer = tokenizer(header(&entries)).unwrap();
        for unit in ["a", "\n", "b", "ab", " ", "\n\nb", "语"] {
            let text = unit.repeat(1_000_000 / unit.len());
            tokenizer.encode(text.as_bytes(), ALL).unwrap();
        }
    }
}

/// A mapped file may change after it was checked: the text may be wrong then, nothing else.
#[test]
fn a_file_that_changes_underneath_does_no_harm() {
    let entries = bpe(&[
        (TOKENS, Meta::strs(&["a", "b", "ab", "<|im_end|>", "Ġ"])),
        (TYPES, Meta::I32s(vec![1, 1, 1, 3, 1])),
        (MERGES, Meta::strs(&["a b"])),
    ]);
    let good = header(&entries);
    let gguf = Gguf::parse(&good, good.len() as u64).unwrap();
    for bad in [vec![], good[..good.len() / 2].to_vec(), vec![0xff; good.len()], good.iter().map(|b| b ^ 1).collect()] {
        let shared: SharedBytes = Arc::new(bad);
        let tokenizer = Tokenizer::from_gguf(&gguf, shared).unwrap();
        let _ = tokenizer.encode(b"ab ab<|im_end|>", ALL);
        (0..7).for_each(|id| tokenizer.piece(TokenId(id), true, &mut Vec::new()));
        let _ = (tokenizer.eot(), tokenizer.is_eog(TokenId(3)));
    }
}

/// Fields of texts that are filled as Python does: no width takes memory out of proportion, no name
/// is cut within a character, and what is not known is refused and never printed in another way.
#[test]
fn formats_are_bounded_or_refused() {
    let rows = [
        ("'%999999999d' % 1", "a width or precision above 999"),
        ("'%.999999999f' % 1.5", "a width or precision above 999"),
        ("'%.70000f'|format(1)", "a width or precision above 999"),
        ("'%99999999999999999999999999s'|format(1)", "a width or precision above 999"),
        ("'{:>999999999}'.format(1)", "a width or precision above 999"),
        ("'{:.999999999f}'.format(1)", "a width or precision above 999"),
        ("'{99999999999999999999999999}'.format(1)", "no argument"),
        ("'{4294967296}'.format(1)", "no argument"),
        ("('{0:999}' * 1000000).format(1)", "too much work"),
        ("('%(a)999d' * 1000000)|format(a=1)", "too much work"),
        ("('{0}' * 100000).format([range(9000)|list])", "too much work"),
        ("'%(é)s'|format({'é': 1})", "a name needs a dictionary"),
        ("'%(é' % {'é': 1}", ") is missing"),
        ("'{0[é]}'.format('x')", "is not known here"),
        ("'{é'.format('x')", "} is missing"),
        ("'%é' % 1", "%é is not known here"),
        ("'%' % 1", "a field has no end"),
        ("'%*d' % (5, 3)", "%* is not known here"),
        ("'%r' % 'a'", "%r is not known here"),
        ("'{!r}'.format('a')", "is not known here"),
        ("'{:{}}'.format(1, 2)", "does not fit"),
        ("'{0.a}'.format(1)", "is not known here"),
        ("'{:n}'.format(1)", "does not fit"),
        ("'{:5}'.format(none)", "does not fit"),
        ("'{:d}'.format(1.0)", "does not fit"),
        ("'{:.3d}'.format(1)", "does not fit"),
        ("'{:015,}'.format(1234567)", "zeros before thousands"),
        ("'%#g' % 1.5", "'#' and zeros"),
        ("'%d' % 'a'", "%d needs an integer"),
        ("'%x' % 1.5", "%x needs an integer"),
        ("'%c' % 'ab'", "a character is"),
        ("'%s' % ()", "not enough arguments"),
        ("'%s' % (1, 2)", "not all arguments are used"),
        ("'%s'|format(1, a=2)", "cannot be mixed"),
        ("'{}{0}'.format(1)", "cannot be mixed"),
        ("'{a}'.format(1)", "no argument"),
        ("'%(a)s' % {}", "nothing is called"),
        // Only what is written as a text is known to be one.
        ("('%' ~ 's') % 1", "% operator"),
    ];
    let mut failed = Vec::new();
    for (expression, wanted) in rows {
        let template = ChatTemplate::new(&format!("{{{{ {expression} }}}}"), SpecialTokens::default());
        match template.and_then(|template| template.render(&[], false)) {
            Err(error) if error.to_string().contains(wanted) => {}
            other => failed.push(format!("{expression}: {other:?}\n  wanted {wanted}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_cycle_of_nothing_is_refused() {
    let rows = ["loop.cycle()", "loop.cycle(*[])", "loop.cycle(**{})", "l.cycle()"];
    for call in rows {
        let source = format!("\n{{% for x in [1] %}}{{% set l = loop %}}{{{{ {call} }}}}{{% endfor %}}");
        let error = ChatTemplate::new(&source, SpecialTokens::default()).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("line 2: cycle needs")), "{call}: {error:?}");
    }
    let source = "{% for x in [1, 2, 3] %}{{ loop.cycle('a', *['b']) }}{% endfor %}";
    let template = ChatTemplate::new(source, SpecialTokens::default()).expect("compiles");
    assert_eq!(template.render(&[], false).expect("renders"), "aba");
}

fn small_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"aab b<0x4>|\n\xc4\xa0\xe2\x96\x81\xff\0".to_vec());
    prop::collection::vec(byte, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_vocabulary_and_any_text(
        model in prop::sample::select(vec!["gpt2", "llama", "gemma4"]),
        pre in prop::sample::select(vec!["gpt-2", "llama-bpe", "default", "kimi-k2", "tekken", "?"]),
        tokens in prop::collection::vec(small_bytes(), 1..24),
        merges in prop::collection::vec(small_bytes(), 0..24),
        kinds in prop::collection::vec(-1..8i32, 24),
        scores in prop::collection::vec(any::<f32>(), 24),
        bos in any::<u32>(),
        flags in any::<(bool, bool)>(),
        text in prop::collection::vec(small_bytes(), 0..12),
    ) {
        let tokenizer = tokenizer(header(&[
            (MODEL, Meta::str(model)),
            (PRE, Meta::str(pre)),
            (TOKENS, Meta::Strs(tokens.clone())),
            (MERGES, Meta::Strs(merges)),
            (TYPES, Meta::I32s(kinds)),
            (SCORES, Meta::F32s(scores)),
            (BOS, Meta::U32(bos % 30)),
            (ADD_BOS, Meta::Bool(flags.0)),
            ("tokenizer.ggml.add_space_prefix", Meta::Bool(flags.1)),
        ])).unwrap();
        let text = text.concat();
        for options in [EncodeOptions::default(), ALL] {
            for id in tokenizer.encode(&text, options).unwrap_or_default() {
                prop_assert!(id.index() < tokenizer.n_vocab());
            }
        }
        let mut stream = tokenizer.detokenizer();
        for id in 0..tokens.len() as u32 + 1 {
            stream.push(TokenId(id), true);
        }
        stream.finish();
    }
}

#[test]
fn a_file_without_a_vocabulary_gives_a_tokenizer_that_refuses_text() {
    let special = || (BOS, Meta::U32(1));
    for (entries, word) in [
        (vec![], "missing"),
        (vec![special()], "missing"),
        (vec![(MODEL, Meta::str("none")), special()], "\"none\""),
        (vec![(MODEL, Meta::str("no_vocab")), (TOKENS, Meta::strs(&["a"]))], "\"no_vocab\""),
    ] {
        let tokenizer = tokenizer(header(&entries)).unwrap();
        let wanted = format!(
            "the model has no vocabulary (metadata tokenizer.ggml.model is {word}): it takes token ids and no text"
        );
        for text in ["", "a"] {
            assert_eq!(tokenizer.encode(text.as_bytes(), ALL).unwrap_err().to_string(), wanted);
        }
        assert_eq!(tokenizer.require_vocabulary().unwrap_err().to_string(), wanted);
        assert_eq!((tokenizer.n_vocab(), tokenizer.bos(), tokenizer.eot()), (0, None, None));
        assert_eq!(tokenizer.eog_tokens().count() + tokenizer.warnings().len(), 0);
        assert!(!tokenizer.is_eog(TokenId(0)) && !tokenizer.is_control(TokenId(5)));
        assert_eq!((tokenizer.token_bytes(TokenId(0)), tokenizer.find(b"a")), (&b""[..], None));
        let mut stream = tokenizer.detokenizer();
        assert_eq!(stream.push(TokenId(0), true), "");
        assert_eq!(stream.finish(), "");
        tokenizer.prepare();
    }
}
