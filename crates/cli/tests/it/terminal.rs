//! The chat in a pseudo-terminal.

use crate::util::*;
use rexpect::session::{Options, PtySession, spawn_with_options};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// Starts a chat and waits for its first prompt.
fn start(home: &Path, model: &str, args: &[&str]) -> PtySession {
    let mut command = binary(home);
    command.stdin(Stdio::inherit()).current_dir(home).env("TERM", "xterm").args(["-i", "-model", model]).args(args);
    // Slow machines with a whole test suite running beside this need long.
    let options = Options::new().timeout_ms(Some(120_000));
    let mut session = spawn_with_options(command, options).unwrap();
    session.exp_string("Ctrl-D leaves").unwrap();
    session.exp_string("> ").unwrap();
    session
}

fn send(session: &mut PtySession, keys: &str) {
    session.send(keys).unwrap();
    session.flush().unwrap();
}

/// Sends keys that end a line, and waits until the editor has taken it: it then turns bracketed paste off.
fn enter(session: &mut PtySession, keys: &str) {
    send(session, keys);
    session.exp_string("\u{1b}[?2004l").unwrap();
}

/// As `enter`; waits for the next prompt too. Returns what was printed in between.
fn say(session: &mut PtySession, keys: &str, prompt: &str) -> String {
    enter(session, keys);
    session.exp_string(prompt).unwrap()
}

/// Ends the chat by Ctrl-D; returns what was printed since.
fn leave(mut session: PtySession) -> String {
    send(&mut session, "\u{4}");
    let rest = session.exp_eof().unwrap();
    let status = session.process().wait().unwrap();
    assert!(format!("{status:?}").contains(", 0)"), "{status:?}\n{rest}");
    rest
}

#[test]
fn a_chat_answers_edits_lines_and_leaves_by_ctrl_d() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let home = tempfile::tempdir().unwrap();
    let args = ["-temp", "0", "-n", "40", "-system", "You are a helpful AI assistant."];
    let mut session = start(home.path(), &model, &args);
    // A typing mistake, put right with backspace.
    let answer = say(&mut session, "What is the capital of Frankx\u{7f}\u{7f}ce?\r", "> ");
    assert!(answer.contains("Paris"), "{answer}");
    assert!(say(&mut session, "/help\r", "> ").contains("/system [TEXT]"));
    let stats = say(&mut session, "/stats\r", "> ");
    assert!(stats.contains("Context: ") && stats.contains("Decode: "), "{stats}");
    assert!(leave(session).contains("Memory Statistics:"));
}

#[test]
fn bytes_that_are_no_utf8_do_not_end_a_chat() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    let mut session = start(home.path(), &tiny.model, &["-template", "chatml", "-temp", "0", "-n", "5"]);
    for garbage in [&b"th\xffe"[..], b"\xc3(", b"\x80"] {
        session.process().get_file_handle().unwrap().write_all(garbage).unwrap();
        session.exp_string("no UTF-8").unwrap();
        session.exp_string("> ").unwrap();
    }
    send(&mut session, "\u{15}");
    let stats = say(&mut session, "/stats\r", "> ");
    assert!(stats.contains("Context: 0 of "), "{stats}");
    leave(session);
}

#[test]
fn messages_of_many_lines_are_one_turn() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut session = start(home.path(), &model, &["-temp", "0", "-n", "8"]);
    say(&mut session, "one\\\r", "... ");
    say(&mut session, "two\r", "> ");
    say(&mut session, "\"\"\"\r", "... ");
    say(&mut session, "three\r", "... ");
    say(&mut session, "four\"\"\"\r", "> ");
    // Bracketed paste: the line ends in it do not send.
    say(&mut session, "\u{1b}[200~five\nsix\u{1b}[201~\r", "> ");
    assert!(say(&mut session, "/save talk.json\r", "> ").contains("messages written to talk.json"));
    leave(session);
    let saved: serde_json::Value =
        serde_json::from_slice(&std::fs::read(home.path().join("talk.json")).unwrap()).unwrap();
    let said: Vec<&str> = saved
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["role"] == "user")
        .map(|message| message["content"].as_str().unwrap())
        .collect();
    assert_eq!(said, ["one\ntwo", "three\nfour", "five\nsix"]);
}

#[test]
fn the_first_ctrl_c_stops_the_answer_and_the_second_leaves() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut session = start(home.path(), &model, &["-temp", "0", "-n", "-1"]);
    enter(&mut session, "Write a very long story about a dog and a cat who travel around the world.\r");
    session.exp_regex("[a-z] ").unwrap();
    session.send_control('c').unwrap();
    session.exp_string("(stopped)").unwrap();
    session.exp_string("> ").unwrap();
    // The chat goes on.
    assert!(say(&mut session, "/stats\r", "> ").contains("Context: "));
    session.send_control('c').unwrap();
    session.exp_string("leaves)").unwrap();
    session.exp_string("> ").unwrap();
    session.send_control('c').unwrap();
    let rest = session.exp_eof().unwrap();
    assert!(rest.contains("Memory Statistics:"), "{rest}");
}

#[test]
fn history_is_kept_between_runs() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut session = start(home.path(), &model, &["-n", "1"]);
    say(&mut session, "a memorable question\r", "> ");
    leave(session);
    assert!(home.path().join("modelembed/history.txt").exists());
    let mut session = start(home.path(), &model, &["-n", "1"]);
    send(&mut session, "\u{1b}[A");
    session.exp_string("a memorable question").unwrap();
    send(&mut session, "\u{15}");
    leave(session);
}
