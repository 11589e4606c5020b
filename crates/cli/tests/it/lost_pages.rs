//! A model file that is cut short, deleted or replaced while it is mapped and in use.

use crate::util::*;
use modelembed_testkit::{GgufValue, GgufWriter, TINY_EOS, tiny_metadata, tiny_spec, tiny_tensors};
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};

/// The tiny llama without a token that ends an answer.
pub fn endless_model() -> Tiny {
    let tiny = tiny_model();
    let spec = tiny_spec("llama");
    let mut writer = GgufWriter::new();
    for (key, mut value) in tiny_metadata(&spec) {
        if let ("tokenizer.ggml.tokens", GgufValue::Array(_, tokens)) = (key.as_str(), &mut value) {
            tokens[TINY_EOS as usize] = "<goes-on>".into();
        }
        // Without the key it would be the usual id of this kind of vocabulary. The unknown token is
        // never the likeliest.
        let value = if key == "tokenizer.ggml.eos_token_id" { GgufValue::U32(0) } else { value };
        writer = writer.pair(&key, value);
    }
    let writer = tiny_tensors(&spec).iter().fold(writer, |w, t| w.tensor(&t.name, t.ty, &t.dims, &t.data));
    std::fs::write(&tiny.model, writer.build()).unwrap();
    tiny
}

/// Starts an answer that does not end by itself soon, and waits until it has begun. Nobody reads
/// on: the program waits for its reader at the latest when the pipe is full, so that it is in the
/// middle of the answer.
fn answering(model: &str, args: &[&str], home: &Path) -> Child {
    let mut command = binary(home);
    command.args(["-quiet", "-raw", "-temp", "0"]);
    command.args(["-ctx", "100000", "-p", "the cat", "-model", model]).args(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut begun = [0; 20];
    child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    child
}

/// Lets the answer go on to its end: exit code, length of the rest, standard error.
pub fn rest(mut child: Child) -> (Option<i32>, usize, String) {
    let mut rest = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().code(), rest.len(), stderr)
}

fn cut(model: &str) {
    File::options().write(true).open(model).unwrap().set_len(5000).unwrap();
}

#[test]
fn a_file_cut_short_during_an_answer_ends_the_program_with_one_line_and_74() {
    let home = tempfile::tempdir().unwrap();
    for threads in ["1", "2", "4"] {
        let tiny = endless_model();
        let child = answering(&tiny.model, &["-n", "50000", "-threads", threads], home.path());
        cut(&tiny.model);
        let (code, _, stderr) = rest(child);
        assert_eq!(code, Some(74), "{threads} threads: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{threads} threads: {stderr:?}");
        assert!(stderr.starts_with(&format!("error: {} was cut short", tiny.model)), "{stderr}");
        assert!(stderr.contains("start again") && stderr.contains("-memory"), "{stderr}");
    }
}

#[test]
fn a_private_copy_does_not_need_the_file_any_more() {
    let home = tempfile::tempdir().unwrap();
    for mode in ["-memory", "-mmap=false"] {
        let tiny = endless_model();
        let child = answering(&tiny.model, &["-n", "3000", mode], home.path());
        cut(&tiny.model);
        let (code, len, stderr) = rest(child);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{mode}");
        assert!(len > 1000, "{mode}: {len} bytes");
    }
}

#[test]
fn a_deleted_and_a_replaced_file_go_on_working() {
    let home = tempfile::tempdir().unwrap();
    let whole = endless_model();
    let wanted = rest(answering(&whole.model, &["-n", "3000"], home.path()));
    assert_eq!((wanted.0, wanted.2.as_str()), (Some(0), ""));
    let deleted = endless_model();
    let child = answering(&deleted.model, &["-n", "3000"], home.path());
    std::fs::remove_file(&deleted.model).unwrap();
    assert_eq!(rest(child), wanted, "deleted");
    let replaced = endless_model();
    let child = answering(&replaced.model, &["-n", "3000"], home.path());
    let other = replaced.folder.path().join("other");
    std::fs::write(&other, b"something else").unwrap();
    std::fs::rename(&other, &replaced.model).unwrap();
    assert_eq!(rest(child), wanted, "replaced by another file");
}

#[test]
fn a_chat_tells_once_that_its_file_is_another_one() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    let mut command = binary(home.path());
    command.args(["-i", "-model", &tiny.model, "-template", "chatml", "-temp", "0", "-n", "4", "-format", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut answers = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut say = |child: &mut Child| {
        child.stdin.as_mut().unwrap().write_all(b"the cat\n").unwrap();
        assert!(answers.next().unwrap().unwrap().contains("response"));
    };
    say(&mut child);
    let other = tiny.folder.path().join("other");
    std::fs::copy(&tiny.model, &other).unwrap();
    std::fs::rename(&other, &tiny.model).unwrap();
    say(&mut child);
    say(&mut child);
    drop(child.stdin.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    let told = format!("warning: {} is another file since it was mapped", tiny.model);
    assert_eq!(stderr.matches(&told).count(), 1, "{stderr}");
}

#[test]
fn a_run_tells_at_its_end_that_its_file_was_written_to() {
    let home = tempfile::tempdir().unwrap();
    for more in [&[][..], &["-quiet"]] {
        let model = endless_model();
        let mut command = binary(home.path());
        command.args(["-raw", "-temp", "0", "-ctx", "100000", "-n", "3000", "-p", "the cat", "-model", &model.model]);
        let mut child = command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 20]).unwrap();
        rewrite(&model.model);
        let (code, len, stderr) = rest(child);
        assert_eq!(code, Some(74), "{more:?}: {stderr}");
        assert!(len > 1000, "{more:?}: the answer is there, {len} bytes");
        let told = format!("error: {} was written to by another program", model.model);
        assert_eq!(stderr.matches(&told).count(), 1, "{more:?}: {stderr}");
    }
}

/// The same bytes again: what is told hangs on the time of writing.
fn rewrite(model: &str) {
    let bytes = std::fs::read(model).unwrap();
    let mut file = File::options().write(true).open(model).unwrap();
    file.write_all(&bytes).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
}

#[test]
fn a_file_that_was_written_to_is_a_field_in_json() {
    let home = tempfile::tempdir().unwrap();
    // Nothing, other rights and another name change no byte.
    let harmless: [fn(&str); 3] = [
        |_| {},
        |model| {
            let mut rights = std::fs::metadata(model).unwrap().permissions();
            rights.set_readonly(true);
            std::fs::set_permissions(model, rights).unwrap();
        },
        |model| std::fs::rename(model, format!("{model}.old")).unwrap(),
    ];
    let rows = harmless.map(|act| (act, 0)).into_iter().chain([(rewrite as fn(&str), 74)]);
    for ((act, code), changed) in rows.zip([None, None, Some("removed"), Some("rewritten")]) {
        let model = endless_model();
        let mut command = binary(home.path());
        command.args(["-raw", "-temp", "0", "-ctx", "100000", "-n", "800", "-p", "the cat", "-format", "json"]);
        command.args(["-model", &model.model]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut notes = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(notes.any(|line| line.unwrap().starts_with("---")), "the prompt is shown before the answer");
        act(&model.model);
        let notes: Vec<String> = notes.map(Result::unwrap).collect();
        let mut stdout = String::new();
        child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{changed:?}: {notes:?}");
        let object: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(object["changed"], changed.map_or(serde_json::Value::Null, Into::into), "{notes:?}");
        assert_eq!(object["stop"], "length");
    }
}

#[test]
fn a_chat_tells_of_a_file_that_was_written_to_even_if_quiet() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    let mut command = binary(home.path());
    command.args(["-i", "-quiet", "-model", &tiny.model, "-template", "chatml", "-n", "4", "-format", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut answers = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut changed = |child: &mut Child| -> serde_json::Value {
        child.stdin.as_mut().unwrap().write_all(b"the cat\n").unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        answer["changed"].clone()
    };
    assert_eq!(changed(&mut child), serde_json::Value::Null);
    rewrite(&tiny.model);
    assert_eq!(changed(&mut child), "rewritten");
    assert_eq!(changed(&mut child), "rewritten");
    drop(child.stdin.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    let told = format!("warning: {} was written to by another program", tiny.model);
    assert_eq!(stderr.matches(&told).count(), 1, "{stderr}");
}

#[test]
fn a_chat_leaves_the_terminal_as_it_was() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    let script = format!(
        "stty -a; echo before; '{}' -i -model '{}' -template chatml -temp 0 -n 100; echo code=$?; stty -a; echo end-of-test",
        env!("CARGO_BIN_EXE_modelembed"),
        tiny.model
    );
    let mut command = program_at(Path::new("/bin/sh"), home.path());
    command.stdin(Stdio::inherit()).env("TERM", "xterm").args(["-c", &script]);
    let options = rexpect::session::Options::new().timeout_ms(Some(120_000));
    let mut session = rexpect::session::spawn_with_options(command, options).unwrap();
    let before = session.exp_string("before").unwrap();
    session.exp_string("Ctrl-D leaves").unwrap();
    session.exp_string("> ").unwrap();
    cut(&tiny.model);
    session.send("the cat\r").unwrap();
    session.flush().unwrap();
    let told = session.exp_string("code=74").unwrap();
    assert!(told.contains("was cut short by another program"), "{told:?}");
    let state = session.exp_string("end-of-test").unwrap();
    let words = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    assert!(before.contains("icanon") && before.contains("isig"), "{before}");
    assert_eq!(words(&state), words(&before));
}
