//! Options of a run, and which stream says what.

use crate::util::*;
use std::io::Read;
use std::process::Stdio;

#[test]
fn the_answer_is_on_standard_output_and_all_else_on_standard_error() {
    let tiny = tiny_model();
    let args = ["-model", &tiny.model, "-p", "the cat", "-n", "12"];
    let run = run(&args).ok();
    assert!(run.stdout.ends_with('\n') && !run.stdout.contains("==="), "{:?}", run.stdout);
    let mut rest = run.stderr.as_str();
    for line in [
        "=== Memory Loading Example ===",
        "System: ",
        "CPU cores: ",
        "Configuration:",
        "  Context size: 2048",
        "  GPU layers: 0",
        "  Mode: Memory-mapped file (efficient, no size limit)",
        "Loading model using memory-mapped file...",
        "✓ Model mapped at address: 0x",
        "✓ Model size: ",
        "Model loaded successfully!",
        "Prompt: the cat",
        "-------------------------------",
        "Response: ",
        "Memory Statistics:",
        "  Allocated: ",
        "  Total: ",
        "  Load time: ",
        "  Time to first token: ",
        "  Prompt: ",
        "  Decode: ",
    ] {
        let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} is not (in this order) in\n{}", run.stderr));
        rest = &rest[at + line.len()..];
    }
    let quiet = crate::util::run(&[&args[..], &["-quiet"]].concat()).ok();
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (run.stdout, ""));
}

#[test]
fn every_load_mode_and_thread_count_gives_the_same_text() {
    let tiny = tiny_model();
    let common = ["-model", &tiny.model, "-p", "the cat sat", "-n", "40", "-temp", "1.2", "-seed", "3"];
    let first = run(&common).ok();
    assert!(first.stdout.len() > 20, "{:?}\n{}", first.stdout, first.stderr);
    for (extra, words) in [
        (&["-mmap=false"][..], "Loading model using standard file loading..."),
        (&["-memory"], "Loading model into memory buffer..."),
        (&["-memory", "-mmap=false"], "Loading model into memory buffer..."),
        (&["-mmap", "-threads", "1"], "Loading model using memory-mapped file..."),
        (&["-threads=3"], "memory-mapped"),
        (&["-isa", "scalar"], "memory-mapped"),
    ] {
        let run = run(&[&common[..], extra].concat()).ok();
        assert!(run.stderr.contains(words), "{extra:?}: {}", run.stderr);
        if extra[0] != "-isa" {
            assert_eq!(run.stdout, first.stdout, "{extra:?}");
        }
    }
    assert_ne!(run(&[&common[..], &["-seed", "8"]].concat()).ok().stdout, first.stdout);
}

#[test]
fn a_prompt_comes_from_p_a_dash_or_a_pipe() {
    let tiny = tiny_model();
    let folder = tiny.folder.path();
    let wanted = run(&["-model", &tiny.model, "-p", "the cat", "-n", "9"]).ok().stdout;
    for args in [&["-p", "-"][..], &[]] {
        let args = [&["-model", &tiny.model, "-n", "9"], args].concat();
        let run = run_in(folder, &args, Some(b"the cat\n")).ok();
        assert_eq!(run.stdout, wanted, "{args:?}");
    }
    // A device says nothing, and nobody expects it to; a pipe was to say something.
    let device = run(&["-model", &tiny.model, "-n", "1"]).ok();
    assert!(device.stderr.contains("Prompt: Hello! How can I help you today?"), "{}", device.stderr);
    for (input, args) in [(&b""[..], &[][..]), (b"\n", &[]), (b"\r\n", &[]), (b"", &["-p", "-"]), (b"\n", &["-p", "-"])]
    {
        let empty = run_in(folder, &[&["-model", &tiny.model, "-n", "1"], args].concat(), Some(input));
        assert_eq!((empty.code, empty.stdout.as_str()), (1, ""), "{input:?} {args:?}");
        assert_eq!(empty.stderr, "error: no prompt on standard input\n", "{input:?} {args:?}");
    }
    // Every turn of a chat may be missing.
    run_in(folder, &["-model", &tiny.model, "-i", "-template", "chatml"], Some(b"")).ok();
}

#[test]
fn the_only_model_in_the_folder_is_used_and_named() {
    let tiny = tiny_model();
    let run = run_in(tiny.folder.path(), &["-p", "the", "-n", "2"], None).ok();
    let only = std::path::Path::new("models").join("tiny.gguf"); // with the system's own separator
    let note = format!("models/tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf is not there: using {}", only.display());
    assert!(run.stderr.contains(&note), "{}", run.stderr);
    std::fs::copy(&tiny.model, tiny.folder.path().join("models/tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf")).unwrap();
    let run = run_in(tiny.folder.path(), &["-p", "the", "-n", "2"], None).ok();
    assert!(run.stderr.contains("Model: models/tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"), "{}", run.stderr);
}

#[test]
fn json_is_one_object_with_the_answer_and_the_statistics() {
    let tiny = tiny_model();
    let args = ["-model", &tiny.model, "-p", "the cat", "-n", "5", "-temp", "0"];
    let text = run(&args).ok().stdout;
    let json = run(&[&args[..], &["-format", "json", "-quiet"]].concat()).ok();
    assert_eq!(json.stdout.lines().count(), 1);
    let object = json.json();
    assert_eq!(object["prompt"], "the cat");
    assert_eq!(object["response"].as_str().unwrap().trim_end(), text.trim_end());
    assert!(["length", "end"].contains(&object["stop"].as_str().unwrap()));
    for key in ["allocated_bytes", "load_ms", "prompt_tokens_per_second", "decode_tokens_per_second", "gb_per_second"] {
        assert!(object["statistics"][key].as_f64().is_some_and(|x| x > 0.0), "{key}: {object}");
    }
}

#[test]
fn a_model_without_a_template_completes_text_and_a_template_can_be_given() {
    let tiny = tiny_model();
    let args = ["-model", &tiny.model, "-p", "the cat", "-n", "5", "-temp", "0"];
    let plain = run(&args).ok();
    assert!(plain.stderr.contains("warning: the model has no chat template"), "{}", plain.stderr);
    let raw = run(&[&args[..], &["-raw"]].concat()).ok();
    assert!(!raw.stderr.contains("chat template"), "{}", raw.stderr);
    assert_eq!(raw.stdout, plain.stdout);
    let named = run(&[&args[..], &["-template", "chatml"]].concat()).ok();
    assert!(!named.stderr.contains("no chat template"), "{}", named.stderr);
    assert_ne!(named.stdout, plain.stdout);
    let same = run(&[&args[..], &["-template", "{{ messages[0].content }}"]].concat()).ok();
    assert_eq!(same.stdout, plain.stdout);
    for (template, code, wanted) in [
        ("nonsense", 2, "no built-in chat template"),
        ("{% for %}", 1, "line 1"),
        ("no/file.jinja", 1, "no/file.jinja"),
    ] {
        let run = run(&[&args[..], &["-template", template]].concat());
        assert_eq!(run.code, code, "{template}");
        assert!(run.stderr.contains(wanted), "{template}: {}", run.stderr);
    }
}

#[test]
fn a_closed_pipe_ends_the_run_quietly() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    for command in [&["-p", "the", "-n", "2000", "-raw"][..], &["inspect"]] {
        let mut child = binary(home.path())
            .args(["-quiet", "-model", &tiny.model])
            .args(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{command:?}");
    }
}

#[test]
fn verbose_tells_what_was_decided() {
    let tiny = tiny_model();
    let run = run(&["-model", &tiny.model, "-p", "a", "-n", "1", "-verbose", "-threads", "2"]).ok();
    assert!(run.stderr.contains("kernels: ") && run.stderr.contains("threads: 2"), "{}", run.stderr);
}

#[test]
fn a_template_file_needs_no_tag_but_a_text() {
    let tiny = tiny_model();
    let folder = tiny.folder.path();
    let given = |text: &str, more: &[&str]| {
        std::fs::write(folder.join("template"), text).unwrap();
        let common = ["-model", &tiny.model, "-n", "4", "-temp", "0", "-template", "template", "-p", "the cat"];
        run_in(folder, &[&common[..], more].concat(), None)
    };
    let plain = given("the dog sat", &[]).ok();
    assert!(plain.stderr.contains("warning: the chat template \"template\" holds no Jinja tag"), "{}", plain.stderr);
    let wanted = run_in(folder, &["-model", &tiny.model, "-n", "4", "-temp", "0", "-raw", "-p", "the dog sat"], None);
    assert_eq!(plain.stdout, wanted.ok().stdout);
    let tagged = given("{{ messages[0].content }}", &[]).ok();
    assert!(!tagged.stderr.contains("tag"), "{}", tagged.stderr);
    for text in ["", " \n"] {
        let empty = given(text, &[]);
        assert_eq!(empty.code, 1);
        assert!(empty.stderr.contains("the chat template \"template\" is empty"), "{}", empty.stderr);
    }
    // A text that is no file, no name and no template is not repeated as a whole.
    let long = "You are a helpful assistant. ".repeat(40);
    let unknown = run_in(folder, &["-model", &tiny.model, "-template", &long, "-p", "x"], None);
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("You are a helpful") && unknown.stderr.len() < 1500, "{}", unknown.stderr);
}

/// Tokens of the prompt that a run evaluated.
fn prompt_tokens(run: Run) -> u64 {
    run.ok().json()["statistics"]["prompt_tokens"].as_u64().unwrap()
}

#[test]
fn a_typed_prompt_keeps_every_byte_and_a_piped_one_or_a_file_loses_one_line_end() {
    let tiny = tiny_model();
    let folder = tiny.folder.path();
    let args = |more: &[&str]| {
        let common = ["-model", &tiny.model, "-raw", "-n", "1", "-format", "json"];
        common.iter().chain(more).map(|arg| arg.to_string()).collect::<Vec<_>>()
    };
    let run_args = |more: &[&str], input: Option<&[u8]>| {
        let args = args(more);
        run_in(folder, &args.iter().map(String::as_str).collect::<Vec<_>>(), input)
    };
    let of_text = |text: &str| {
        let tokens = run(&["tokenize", "-model", &tiny.model, "-format", "json", "-p", text]).ok();
        tokens.json()["tokens"].as_array().unwrap().len() as u64
    };
    for (text, shorter) in [("Four\n", "Four"), ("Four\r\n", "Four"), ("a\nb\n\n", "a\nb\n"), ("a\nb", "a\nb")] {
        assert_eq!(prompt_tokens(run_args(&["-p", text], None)), of_text(text), "-p {text:?}");
        assert_eq!(run_args(&["-p", text], None).json()["prompt"], text);
        let wanted = of_text(shorter);
        assert_eq!(prompt_tokens(run_args(&[], Some(text.as_bytes()))), wanted, "a pipe: {text:?}");
        assert_eq!(prompt_tokens(run_args(&["-p", "-"], Some(text.as_bytes()))), wanted, "-p -: {text:?}");
        std::fs::write(folder.join("prompt.txt"), text).unwrap();
        assert_eq!(prompt_tokens(run_args(&["-f", "prompt.txt"], None)), wanted, "-f: {text:?}");
    }
    assert_eq!(run_args(&["-f", "prompt.txt", "-p", "a"], None).code, 2);
    let missing = run_args(&["-f", "no/such.txt"], None);
    assert!(missing.code == 1 && missing.stderr.contains("cannot read the prompt no/such.txt"), "{}", missing.stderr);
    // The first turn of a chat, too.
    let chat =
        run_in(folder, &["-model", &tiny.model, "-i", "-template", "chatml", "-n", "1", "-f", "prompt.txt"], Some(b""));
    assert!(chat.ok().stderr.contains("> a\nb\n"));
}

#[test]
fn a_context_may_be_as_long_as_the_model_and_errors_name_that_length() {
    let tiny = tiny_model();
    let own = run(&["-model", &tiny.model, "-ctx", "0", "-p", "a", "-n", "1"]).ok();
    assert!(own.stderr.contains("  Context size: the model's own\n"), "{}", own.stderr);
    let long = "the cat ".repeat(600);
    let rows: [(&[&str], &[&str]); 4] = [
        (
            &["-ctx", "16", "-p", "the cat sat on the mat and was happy about it all day long"],
            &["the prompt has", "holds 16;", "trained for 1024: -ctx N", "-ctx 0"],
        ),
        (&["-ctx", "0", "-p", &long], &["holds 1024;", "trained for 1024, and", "shorter"]),
        (
            &["score", "-ctx", "3", "-p", "the cat sat"],
            &["the text has", "holds 3;", "trained for 1024: -ctx N", "-ctx 0"],
        ),
        (&["score", "-ctx", "0", "-p", &long], &["holds 1024;", "trained for 1024, and"]),
    ];
    for (args, words) in rows {
        let refused = run(&[args, &["-model", &tiny.model]].concat());
        assert_eq!(refused.code, 1, "{args:?}");
        let error = refused.stderr.lines().last().unwrap();
        assert!(words.iter().all(|word| error.contains(word)), "{error:?} lacks one of {words:?}");
    }
}

#[test]
fn a_token_that_the_tokenizer_adds_and_the_text_has_is_warned_of() {
    let tiny = tiny_model();
    let told = "warning: the text begins with <s>, which this model's tokenizer adds as well";
    let rows: [(&[&str], bool); 9] = [
        (&["-raw", "-n", "1", "-p", "<s>the cat"], true),
        (&["-raw", "-n", "1", "-p", "the <s>cat"], false),
        (&["-raw", "-n", "1", "-p", "the cat"], false),
        (&["-raw", "-n", "1", "-quiet", "-p", "<s>the cat"], false),
        (&["-template", "chatml", "-n", "1", "-p", "<s>the cat"], false),
        (&["tokenize", "-p", "<s>the cat"], true),
        (&["tokenize", "-no-special", "-p", "<s>the cat"], false),
        (&["score", "-p", "<s>the cat"], true),
        (&["score", "-p", "the cat"], false),
    ];
    for (args, wanted) in rows {
        let run = run(&[args, &["-model", &tiny.model]].concat()).ok();
        assert_eq!(run.stderr.contains(told), wanted, "{args:?}: {}", run.stderr);
    }
}
