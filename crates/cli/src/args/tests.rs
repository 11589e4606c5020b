use super::*;

fn parse_words(words: &[&str]) -> Result<LowArgs, Refusal> {
    parse(std::iter::once("modelembed").chain(words.iter().copied()).map(OsString::from))
}

#[test]
fn clap_finds_no_mistake_in_the_table() {
    LowArgs::command().debug_assert();
}

#[test]
fn options_take_one_dash_or_two_and_a_blank_or_an_equals_sign() {
    for words in [
        &["-p", "hi", "-n", "7", "-ctx", "99", "-mmap=false", "-top-k", "5", "-i"][..],
        &["--p", "hi", "--n", "7", "--ctx", "99", "--mmap=false", "--top-k", "5", "--i"],
        &["-p=hi", "-n=7", "-ctx=99", "-mmap=false", "-top-k=5", "-i=true"],
        &["--p=hi", "--n=7", "--ctx=99", "-mmap=0", "--top-k=5", "-i"],
    ] {
        let low = parse_words(words).unwrap_or_else(|refusal| panic!("{words:?}: {}", refusal.text));
        assert_eq!(low.run.prompt.as_deref(), Some("hi".as_ref()), "{words:?}");
        assert_eq!((low.run.n_predict, low.common.ctx, low.common.mmap), (7, Some(99), Some(false)), "{words:?}");
        assert_eq!((low.run.sampling.top_k, low.run.interactive), (5, true), "{words:?}");
    }
}

#[test]
fn a_value_is_never_taken_for_an_option() {
    let rows: [(&[&str], &str); 8] = [
        (&["-p", "-model"], "-model"),
        (&["-p", "-"], "-"),
        (&["-p", "--"], "--"),
        (&["-p", "-n=5"], "-n=5"),
        (&["-p", ""], ""),
        (&["-p=a=b"], "a=b"),
        (&["-p="], ""),
        (&["-p", "- a list\n- of things"], "- a list\n- of things"),
    ];
    for (words, wanted) in rows {
        let low = parse_words(words).unwrap_or_else(|refusal| panic!("{words:?}: {}", refusal.text));
        assert_eq!(low.run.prompt.as_deref(), Some(wanted.as_ref()), "{words:?}");
        assert_eq!(low.run.n_predict, 512, "{words:?}");
    }
}

#[test]
fn switches_the_last_word_wins_and_defaults() {
    let low = parse_words(&["-mmap", "-memory=false", "-quiet=false", "-n", "1", "-n", "2", "-temp=0", "-seed", "-1"])
        .unwrap();
    assert_eq!((low.common.mmap, low.common.memory, low.common.quiet), (Some(true), Some(false), false));
    assert_eq!((low.run.n_predict, low.run.sampling.temp, low.run.sampling.seed), (2, 0.0, Seed::Random));
    let low = parse_words(&[]).unwrap();
    assert_eq!((low.common.mmap, low.common.memory, low.common.ctx, low.common.ngl), (None, None, None, None));
    assert_eq!((low.run.n_predict, low.run.sampling.seed), (512, Seed::Fixed(42)));
}

#[test]
fn common_options_stand_before_or_after_a_command() {
    for words in [&["-model", "m.gguf", "tokenize", "-p", "x"][..], &["tokenize", "-p", "x", "--model=m.gguf"]] {
        let low = parse_words(words).unwrap_or_else(|refusal| panic!("{words:?}: {}", refusal.text));
        assert_eq!(low.common.model.as_deref(), Some("m.gguf".as_ref()), "{words:?}");
        assert!(matches!(&low.command, Some(Command::Tokenize(args)) if args.prompt == "x"), "{words:?}");
    }
    let low = parse_words(&["bench", "-prompt-tokens", "5", "-gen-tokens=6", "-threads", "3"]).unwrap();
    assert!(matches!(&low.command, Some(Command::Bench(b)) if (b.prompt_tokens, b.gen_tokens, b.repeat) == (5, 6, 3)));
    assert_eq!(low.common.threads, Some(Numbers(vec![3])));
}

#[test]
fn mistakes_end_with_2_and_name_what_was_typed_with_one_dash() {
    let rows: [(&[&str], &str); 19] = [
        (&["-modle", "x"], "-model"),
        (&["--unknown"], "'-unknown'"),
        (&["-n"], "-n"),
        (&["-n", "many"], "many"),
        (&["-n", "-2"], "-2"),
        (&["-ctx", "-1"], "-1"),
        (&["-temp", "-1"], "negative"),
        (&["-temp=nan"], "nan"),
        (&["-top-p", "1.5"], "0 to 1"),
        (&["-threads", "0"], "-threads"),
        (&["-threads", "1,"], "-threads"),
        (&["bench", "-short-prompts", "1,x"], "-short-prompts"),
        (&["bench", "-synthetic", "llama-1.1b:q8_0"], "-out"),
        (&["-activations", "q4"], "f32"),
        (&["-mmap=perhaps"], "perhaps"),
        (&["-quiet=perhaps"], "-quiet"),
        (&["a prompt without -p"], "a prompt without -p"),
        (&["tokenize"], "-p"),
        (&["-n", "5", "inspect"], "'-n' does not belong before the command 'inspect'"),
    ];
    for (words, wanted) in rows {
        let refusal = parse_words(words).expect_err(&format!("{words:?}"));
        assert_eq!(refusal.exit_code, 2, "{words:?}");
        assert!(refusal.text.contains(wanted) && !refusal.text.contains(" --"), "{words:?}: {}", refusal.text);
        assert!(!refusal.text.contains('\u{1b}'), "{words:?}");
    }
}

#[test]
fn help_shows_every_option_with_one_dash() {
    for word in ["-help", "--help", "-h"] {
        let refusal = parse_words(&[word]).unwrap_err();
        assert_eq!(refusal.exit_code, 0);
        for option in [
            "-model <PATH>",
            "-p <PROMPT>",
            "-i ",
            "-mmap[=<BOOL>]",
            "-memory[=<BOOL>]",
            "-ctx <N>",
            "-ngl <LAYERS>",
            "-device <NAME>",
            "-n <TOKENS>",
            "-seed <SEED>",
            "-temp <T>",
            "-isa <NAME>",
            "-format <FORMAT>",
            "tokenize",
            "completions",
        ] {
            assert!(refusal.text.contains(option), "{option} is not in\n{}", refusal.text);
        }
        assert!(!refusal.text.contains("--"), "{}", refusal.text);
    }
    assert!(parse_words(&["-version"]).unwrap_err().text.starts_with("modelembed 0."));
    assert!(parse_words(&["bench", "-help"]).unwrap_err().text.contains("-repeat <N>"));
}

#[cfg(unix)]
#[test]
fn a_prompt_may_be_any_bytes() {
    use std::os::unix::ffi::OsStringExt;
    for (words, wanted) in [(&[&b"-p"[..], b"\xff\xfe"][..], &b"\xff\xfe"[..]), (&[b"-p=a\xff=b"], b"a\xff=b")] {
        let words = std::iter::once(&b"modelembed"[..]).chain(words.iter().copied());
        let low = parse(words.map(|word| OsString::from_vec(word.to_vec()))).unwrap();
        assert_eq!(low.run.prompt.unwrap().into_vec(), wanted);
    }
}

#[test]
fn ram_budgets() {
    let rows = [
        ("auto", Some(RamBudget::Auto)),
        ("off", Some(RamBudget::Off)),
        ("600M", Some(RamBudget::Bytes(600 << 20))),
        ("4G", Some(RamBudget::Bytes(4 << 30))),
        ("1.5g", Some(RamBudget::Bytes(3 << 29))),
        ("123456", Some(RamBudget::Bytes(123_456))),
        ("16MiB", Some(RamBudget::Bytes(16 << 20))),
        ("", None),
        ("M", None),
        ("0", None),
        ("-1G", None),
        ("4X", None),
        ("nan", None),
        ("inf", None),
        ("99999999T", None),
        ("4 G", None),
        ("4é", None),
    ];
    let failed: Vec<_> = rows.iter().filter(|(text, wanted)| parse_ram_budget(text).ok() != *wanted).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
