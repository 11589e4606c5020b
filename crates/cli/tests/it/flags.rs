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
    let empty = run_in(folder, &["-model", &tiny.model, "-n", "1"], Some(b"")).ok();
    assert!(empty.stderr.contains("Prompt: Hello! How can I help you today?"), "{}", empty.stderr);
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
