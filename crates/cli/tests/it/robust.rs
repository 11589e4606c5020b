//! What the system does to a program: signals, full disks, streams that are closed, files that are
//! none.

use crate::util::*;
use modelembed_gguf::TensorType;
use modelembed_testkit::{GgufWriter, tiny_metadata, tiny_spec};
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn ctrl_c_while_a_model_is_read_into_memory_ends_the_program() {
    // One gigabyte of holes behind the tensors: long to read, short to make.
    let tiny = tiny_model();
    File::options().write(true).open(&tiny.model).unwrap().set_len(1 << 30).unwrap();
    let mut seen = Vec::new();
    // Mapped and read tensor by tensor the model is there at once: what Ctrl-C ends then is the
    // answer.
    let rows = [("-memory", [0, 20, 100, 200]), ("-mmap", [0, 5, 20, 100]), ("-mmap=false", [0, 5, 20, 100])];
    let rows = rows.iter().flat_map(|(mode, waits)| waits.map(|wait_ms| (*mode, wait_ms)));
    for (mode, wait_ms) in rows {
        let home = tempfile::tempdir().unwrap();
        let mut command = binary(home.path());
        command.args([mode, "-p", "the", "-n", "100000", "-ctx", "200000", "-temp", "0", "-model", &tiny.model]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = child.wait().unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        use std::os::unix::process::ExitStatusExt;
        // Before the handler stands, the signal ends the process by itself. A model that is there
        // at once may have had its say.
        let is_over = mode != "-memory" && status.code() == Some(0);
        let is_stopped = status.code() == Some(130) || status.signal() == Some(2);
        assert!(is_stopped || is_over, "{mode} {wait_ms} ms: {status} {stderr}");
        seen.push(stderr.contains("loading was cancelled"));
    }
    assert!(seen.contains(&true), "no run was stopped while it loaded: {seen:?}");
}

#[test]
fn streams_that_are_closed_or_full_are_no_panic() {
    let tiny = tiny_model();
    let binary = env!("CARGO_BIN_EXE_modelembed");
    let rows = [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "error: cannot write to standard output: No space left on device"),
        ("2>/dev/full", 0, ""),
    ];
    for (redirection, code, wanted) in rows {
        if redirection.contains("/dev/full") && !std::path::Path::new("/dev/full").exists() {
            continue;
        }
        for command in ["-p the -n 5", "inspect", "score -p 'the cat sat'", "tokenize -p the"] {
            let script = format!("'{binary}' {command} -model '{}' {redirection}", tiny.model);
            let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{command} {redirection}: {stderr}");
            assert!(stderr.contains(wanted) && !stderr.contains("panicked"), "{command} {redirection}: {stderr}");
        }
    }
}

/// What a file says of itself steers no terminal, whichever command shows it.
#[test]
fn names_and_texts_of_a_file_are_shown_without_control_characters() {
    let evil = "a\u{1b}]0;title\u{7}\u{9b}2Jb";
    let folder = tempfile::tempdir().unwrap();
    let pairs = tiny_metadata(&tiny_spec("llama")).into_iter().filter(|(key, _)| key != "general.name");
    let writer = pairs.fold(GgufWriter::new(), |w, (key, value)| w.pair(&key, value));
    let writer = writer.pair("general.name", evil).pair(evil, vec![evil]).pair("tokenizer.chat_template", evil);
    let writer = writer.tensor(evil, TensorType::F32, &[8], &[0; 32]);
    std::fs::write(folder.path().join("m.gguf"), writer.build()).unwrap();
    let json = ["inspect -format json", "verify -tensors -format json"];
    for command in ["inspect", "inspect -plan", "verify", "verify -tensors", "status", "-p x"].into_iter().chain(json) {
        let words: Vec<&str> = command.split(' ').chain(["-model", "m.gguf"]).collect();
        let run = run_in(folder.path(), &words, None);
        assert_eq!(run.code == 0, command != "-p x", "{command}: {}", run.stderr);
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\r'), "{command}: {text:?}");
        }
    }
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo.gguf");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (path, wanted) in [(fifo.to_str().unwrap(), "pipe (FIFO)"), ("/dev/null", "character device")] {
        for command in [&["-p", "x"][..], &["-memory", "-p", "x"], &["-mmap=false", "-p", "x"], &["inspect"]] {
            let run = run(&[&["-model", path], command].concat());
            assert_eq!(run.code, 1, "{path} {command:?}: {}", run.stderr);
            assert!(run.stderr.contains(wanted), "{path} {command:?}: {}", run.stderr);
        }
    }
}

/// A folder of its own on a disk of one megabyte, seen by `script` only; none where mounting is not
/// allowed.
fn on_a_small_disk(script: &str) -> Option<std::process::Output> {
    let folder = tempfile::tempdir().unwrap();
    let script =
        format!("mount -t tmpfs -o size=1m none '{0}' || exit 99; cd '{0}'; {script}", folder.path().display());
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).stdin(Stdio::null()).output().ok()?;
    (output.status.success() || output.status.code() != Some(99) && output.status.code() != Some(1)).then_some(output)
}

#[test]
fn a_full_disk_is_one_error_and_leaves_nothing_behind() {
    let tiny = tiny_model();
    let pack = format!("'{}' -quiet pack -model '{}' -o chat", env!("CARGO_BIN_EXE_modelembed"), tiny.model);
    let Some(output) = on_a_small_disk(&format!("{pack}; echo code=$?; ls -A | wc -l")) else {
        eprintln!("skipped: no right to mount a small disk");
        return;
    };
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.starts_with("code=1\n"), "{stdout} {stderr}");
    assert_eq!(stdout.lines().nth(1).map(str::trim), Some("0"), "{stdout}");
    assert!(stderr.contains("cannot write chat: No space left on device"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
