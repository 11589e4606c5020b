//! Everything that must end with a message and an exit code.

use crate::util::*;
use modelembed_testkit::{tiny, tiny_spec};

#[test]
fn contradictions_and_mistakes_end_with_2() {
    let rows: [(&[&str], &str); 10] = [
        (&["-mmap", "-memory"], "-mmap and -memory"),
        (&["-raw", "-i"], "-raw"),
        (&["-raw", "-system", "x"], "-system"),
        (&["-raw", "-template", "chatml"], "-template"),
        (&["-i", "-p", "-"], "-p -"),
        (&["-modle", "x"], "-model"),
        (&["-n", "x"], "-n"),
        (&["tokenize"], "-p"),
        (&["-device", ""], "-device"),
        (&["completions", "nosuchshell"], "nosuchshell"),
    ];
    for (args, wanted) in rows {
        let run = run(args);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(wanted), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn words_that_mean_nothing_end_with_2_though_it_takes_a_model_to_know() {
    let tiny = tiny_model();
    let rows: [(&[&str], &str); 6] = [
        (&["-isa", "nosuch"], "-isa nosuch: no such instruction set; this CPU has scalar"),
        (&["score", "-p", "the cat", "-isa", "nosuch"], "-isa nosuch"),
        (&["-template", "nosuch"], "-template: no built-in chat template is called \"nosuch\""),
        (&["warm", "-layers", "x"], "-layers x: wanted a layer's number"),
        (&["evict", "-layers", "0,2..1"], "-layers 2..1: wanted a layer's number"),
        (&["status", "-layers", "x"], "-layers"),
    ];
    for (args, wanted) in rows {
        let run = run(&[&["-model", &tiny.model], args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(wanted), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn requests_that_cannot_be_met_end_with_1() {
    let tiny = tiny_model();
    let rows: [(&[&str], &str); 3] = [
        (&["-ngl", "3", "-device", "no such device"], "GPU"),
        (&["warm", "-layers", "99"], "-layers 99: the model has no layer 99"),
        // On a line of its own.
        (&["-ctx", "4", "-p", "the cat sat on the mat and was very happy"], "---\nerror: "),
    ];
    for (args, wanted) in rows {
        let run = run(&[&["-model", &tiny.model], args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(wanted), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn a_model_without_a_number_among_its_logits_ends_with_1_and_names_verify() {
    let tiny = tiny_model();
    let mut bytes = std::fs::read(&tiny.model).unwrap();
    let inspected = run(&["inspect", "-model", &tiny.model, "-format", "json"]).ok().stdout;
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let norm = inspected["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "output_norm.weight").unwrap();
    let at = norm["offset"].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&tiny.model, bytes).unwrap();
    let rows: [&[&str]; 5] = [
        &["-p", "the cat"],
        &["-p", "the cat", "-raw", "-temp", "0", "-quiet"],
        &["-p", "the cat", "-lookup", "7"],
        &["-p", "the cat", "-format", "json"],
        &["bench", "-prompt-tokens", "8", "-gen-tokens", "2", "-no-bandwidth"],
    ];
    let told = "is a number: the file holds weights that are none, or too large; `modelembed verify` looks for them";
    for args in rows {
        let run = run(&[&["-model", &tiny.model], args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains("error: ") && run.stderr.contains(told), "{args:?}: {}", run.stderr);
    }
    // What was found before stays: the first token follows nothing.
    let score = run(&["score", "-model", &tiny.model, "-p", "the cat"]);
    assert!(score.code == 1 && score.stdout.lines().count() <= 1, "{score:?}");
    assert!(score.stderr.contains(told) && !score.stderr.contains("perplexity"), "{}", score.stderr);
    let chat = run_in(tiny.folder.path(), &["-i", "-template", "chatml", "-model", &tiny.model], Some(b"the cat\n"));
    assert!(chat.stderr.contains(told), "{}", chat.stderr);
    let verified = run(&["verify", "-model", &tiny.model]);
    assert!(verified.code == 1 && verified.stdout.contains("output_norm.weight"), "{}", verified.stdout);
}

#[test]
fn files_that_are_no_models_are_named_for_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let whole = tiny(&tiny_spec("llama"));
    let mut safetensors = 20u64.to_le_bytes().to_vec();
    safetensors.extend(b"{\"__metadata__\":{} }");
    let mut big_endian = whole.clone();
    big_endian[4..8].reverse();
    let files: [(&str, &[u8], &str); 9] = [
        ("empty.gguf", b"", "empty"),
        ("page.gguf", b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git"),
        ("archive.gguf", b"PK\x03\x04 and more bytes", "zip"),
        ("weights.gguf", &safetensors, "safetensors"),
        ("noise.gguf", b"some bytes that are nothing at all", "not a GGUF"),
        ("big.gguf", &big_endian, "big-endian"),
        ("header.gguf", &whole[..100], "header.gguf"),
        ("half.gguf", &whole[..whole.len() / 2], "half.gguf"),
    ];
    for (name, bytes, wanted) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        for command in [
            &["-p", "x"][..],
            &["inspect"],
            &["tokenize", "-p", "x"],
            &["-mmap=false", "-p", "x"],
            &["-memory", "-p", "x"],
        ] {
            let run = run(&[&["-model", path.to_str().unwrap()], command].concat());
            assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{name} {command:?}: {}", run.stderr);
            let error = run.stderr.lines().filter(|line| line.starts_with("error: ")).collect::<Vec<_>>().join("\n");
            assert!(error.to_lowercase().contains(&wanted.to_lowercase()), "{name} {command:?}: {}", run.stderr);
            let (first, rest) = error.rsplit_once(": ").unwrap();
            assert!(!first.contains(rest), "{name} {command:?}: told twice: {error}");
        }
    }
}

#[test]
fn missing_files_and_folders_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("folder.gguf")).unwrap();
    let missing = run_in(folder.path(), &["-model", "no/such.gguf", "-p", "x"], None);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("Model file not found: no/such.gguf"), "{}", missing.stderr);
    assert!(missing.stderr.contains("fetch-model.sh"), "{}", missing.stderr);
    for command in [&["-p", "x"][..], &["-memory", "-p", "x"], &["-mmap=false", "-p", "x"], &["inspect"], &["status"]] {
        let directory = run_in(folder.path(), &[&["-model", "folder.gguf"], command].concat(), None);
        assert_eq!(directory.code, 1, "{command:?}");
        assert!(directory.stderr.contains("folder.gguf is a directory"), "{command:?}: {}", directory.stderr);
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_named_as_such() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let tiny = tiny_model();
    let permit = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    permit(tiny.model.as_ref(), 0o000);
    permit(tiny.folder.path(), 0o755);
    permit(&tiny.folder.path().join("models"), 0o755);
    // The superuser may read everything, so it runs a copy as another user: the build's folder may
    // be closed to others.
    let is_root = std::fs::read(&tiny.model).is_ok();
    let program = tiny.folder.path().join("copy");
    if is_root {
        std::fs::copy(env!("CARGO_BIN_EXE_modelembed"), &program).unwrap();
        permit(&program, 0o755);
    }
    for command in [&["-p", "x"][..], &["-memory", "-p", "x"], &["-mmap=false", "-p", "x"], &["inspect"], &["verify"]] {
        let mut run = if is_root {
            let mut run = program_at(&program, tiny.folder.path());
            run.uid(NOBODY).gid(NOBODY).current_dir("/");
            run
        } else {
            binary(tiny.folder.path())
        };
        let output = run.args(["-model", &tiny.model]).args(command).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
        assert!(stderr.contains(&format!("permission denied: {}", tiny.model)), "{command:?}: {stderr}");
    }
}

/// Before anything is allocated: afterwards it would be the system that ends a process, and not
/// always this one.
#[cfg(target_os = "linux")]
#[test]
fn a_copy_larger_than_memory_is_refused_before_it_is_made() {
    let tiny = tiny_model();
    let sparse = tiny.folder.path().join("sparse.gguf");
    let grown = std::fs::File::options().write(true).open(&tiny.model).and_then(|file| file.set_len(8 << 40));
    let made = grown.and_then(|()| modelembed_testkit::sparse_model(&sparse, 1900));
    if let Err(error) = made {
        return eprintln!("skipped: this file system has no files of that length: {error}");
    }
    for (model, mode) in [(&*tiny.model, "-memory"), (sparse.to_str().unwrap(), "-mmap=false")] {
        let run = run(&["-model", model, mode, "-p", "x"]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{mode}: {}", run.stderr);
        assert!(run.stderr.contains(&format!("not enough memory for a private copy of {model}: ")), "{}", run.stderr);
        assert!(run.stderr.contains(" bytes wanted, ") && run.stderr.contains("try -mmap"), "{mode}: {}", run.stderr);
    }
}
