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
    let rows: [(&[&str], &str); 20] = [
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
        (&["bench", "-sequences", "1,0"], "-sequences"),
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

/// The options of sampling as a table, from the list that help and completions come from too.
fn sampling_table() -> String {
    let command = LowArgs::command();
    let ours = command.get_arguments().filter(|arg| arg.get_help_heading() == Some("Sampling"));
    let row = |arg: &clap::Arg| {
        let value = arg.get_value_names().filter(|_| arg.get_action().takes_values());
        let value = value.map(|names| format!(" {}", names[0])).unwrap_or_default();
        let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let help = arg.get_help().unwrap().to_string().replace('|', "\\|");
        format!("| `-{}{value}` | {help} | {} |\n", arg.get_long().unwrap(), default.join(" "))
    };
    format!("| option | meaning | default |\n|---|---|---|\n{}", ours.map(row).collect::<String>())
}

#[test]
fn the_document_on_sampling_lists_the_options_as_they_are() {
    let document = include_str!("../../../../docs/sampling.md");
    let table = sampling_table();
    assert!(document.contains(&table), "docs/sampling.md should hold\n\n{table}");
    assert!(table.lines().count() > 25);
}

#[test]
fn sampling_options_have_llama_cpps_names_and_may_be_repeated() {
    let low = parse_words(&[
        "-temperature=0.5",
        "-typical-p",
        "0.9",
        "-top-n-sigma",
        "-1",
        "-presence-penalty",
        "-0.5",
        "-repeat-last-n",
        "-1",
        "-logit-bias",
        "5-inf",
        "-logit-bias=6+2",
        "-stop",
        "a",
        "-stop",
        "-b",
        "-samplers",
        "top_k;temp",
        "-ignore-eos",
        "-dry-sequence-breaker",
        r"\n",
        "-dry-sequence-breaker",
        "none",
        "-mirostat",
        "2",
        "-xtc-probability",
        "0.5",
    ])
    .unwrap_or_else(|refusal| panic!("{}", refusal.text));
    let s = &low.run.sampling;
    assert_eq!((s.temp, s.typical, s.top_n_sigma, s.presence_penalty), (0.5, 0.9, -1.0, -0.5));
    assert_eq!((s.repeat_last_n, s.dry_penalty_last_n), (Window::All, Window::Last(64)));
    assert_eq!(
        s.logit_bias.iter().map(|(id, bias)| (id.0, *bias)).collect::<Vec<_>>(),
        [(5, f32::NEG_INFINITY), (6, 2.0)]
    );
    assert_eq!((s.stop.as_slice(), s.ignore_eos), (&["a".to_string(), "-b".to_string()][..], true));
    assert_eq!((s.samplers.to_string().as_str(), s.mirostat, s.xtc_probability), ("top_k;temperature", 2, 0.5));
    assert_eq!(s.dry_sequence_breaker, ["\n", "none"]);
    let none = parse_words(&[]).unwrap().run.sampling;
    assert!(none.stop.is_empty() && none.logit_bias.is_empty() && none.dry_sequence_breaker.is_empty());
    assert_eq!((none.samplers, none.repeat_last_n), (modelembed::SamplerOrder::DEFAULT, Window::Last(64)));
}

#[test]
fn packing_keeps_every_value_and_typed_ones_take_the_place_of_packed_ones() {
    let low = parse_words(&["pack", "-o", "x", "-stop", "a", "-stop", "b", "-n", "1", "-n", "2"]).unwrap();
    let Some(Command::Pack(pack)) = low.command else { panic!("no pack") };
    assert_eq!(pack.flags, ["--n=2", "--stop=a", "--stop=b"]);
    let with = |words: &[&str]| {
        let words = std::iter::once("modelembed").chain(words.iter().copied()).map(OsString::from);
        parse_with(&pack.flags, words).unwrap().run.sampling.stop
    };
    assert_eq!(with(&[]), ["a", "b"]);
    assert_eq!(with(&["-stop", "c"]), ["c"]);
}

#[test]
fn sampling_options_that_make_no_sense_are_one_clear_error() {
    let rows: [(&[&str], &str); 15] = [
        (&["-repeat-last-n", "-2"], "wanted a whole number from 0, or -1 for all"),
        (&["-dry-penalty-last-n", "x"], "wanted a whole number from 0, or -1 for all"),
        (&["-typical", "1.5"], "wanted a number from 0 to 1"),
        (&["-xtc-probability", "2"], "wanted a number from 0 to 1"),
        (&["-xtc-threshold", "-0.1"], "wanted a number from 0 to 1"),
        (&["-dynatemp-range", "-1"], "wanted a number that is not negative"),
        (&["-presence-penalty", "nan"], "wanted a number"),
        (&["-dry-base", "0.5"], "wanted a number from 1"),
        (&["-dry-sequence-breaker", ""], "wanted a text that is not empty"),
        (&["-mirostat", "3"], "3 is not in 0..=2"),
        (&["-samplers", "top_k;topp"], "there is no sampler \"topp\", wanted some of penalties;dry;"),
        (&["-samplers", "top_k;top_k"], "the sampler top_k is named twice"),
        (&["-logit-bias", "5"], "wanted ID+BIAS or ID-BIAS"),
        (&["-stop="], "wanted a text that is not empty"),
        (&["score"], "-p"),
    ];
    for (words, wanted) in rows {
        let refusal = parse_words(words).expect_err(&format!("{words:?}"));
        assert_eq!(refusal.exit_code, 2, "{words:?}");
        assert!(refusal.text.contains(wanted) && refusal.text.contains(words[0].trim_matches('=')), "{}", refusal.text);
    }
    let both = parse_words(&["score", "-p", "x", "-ids", "1"]).unwrap_err().text;
    assert!(both.contains("-ids") && both.contains("-p"), "{both}");
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

/// A library's message cannot know which program shows it: what an option has to do with it is
/// said here, in `report::way_out`.
#[test]
fn no_library_names_an_option() {
    let command = LowArgs::command();
    let options: Vec<String> = std::iter::once(&command)
        .chain(command.get_subcommands())
        .flat_map(|command| command.get_arguments().filter_map(|arg| arg.get_long()))
        .filter(|long| long.len() > 1)
        .map(|long| format!("-{long}"))
        .collect();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let names_one = |line: &&str| {
        // Lines of texts alone: in code a minus may stand before a variable of that name.
        let is_text = line.contains('"') || line.ends_with('\\');
        is_text
            && options.iter().any(|option| {
                line.match_indices(option.as_str()).any(|(at, _)| {
                    // A line may begin in the middle of a text.
                    !line[..at].ends_with(is_word) && !line[at + option.len()..].starts_with(is_word)
                })
            })
    };
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
    let (mut found, mut n_files) = (Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let is_left_out = ["cli", "tests", "examples", "goldens"].iter().any(|name| path.ends_with(name));
            if path.is_dir() && !is_left_out {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a text");
                n_files += 1;
                found.extend(text.lines().filter(names_one).map(|line| format!("{}: {line}", path.display())));
            }
        }
    }
    assert!(n_files > 100 && options.len() > 50, "{n_files} files, {} options", options.len());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
