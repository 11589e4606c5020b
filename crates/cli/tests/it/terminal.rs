//! The chat in a pseudo-terminal.

use crate::screen::Screen;
use crate::util::*;
use std::path::Path;

/// Starts a chat and waits for its first prompt.
pub fn start(home: &Path, model: &str, args: &[&str]) -> Screen {
    let mut command = binary(home);
    command.current_dir(home).env("TERM", "xterm").args(["-i", "-model", model]).args(args);
    let screen = Screen::start(command, 400, 80);
    screen.wait_for_prompt(1);
    screen
}

/// Ends the chat by Ctrl-D; returns what the screen shows then.
pub fn leave(mut screen: Screen) -> String {
    screen.send("\u{4}");
    screen.end_well()
}

/// The questions of a conversation that was written by `/save`.
pub fn saved_questions(path: &Path) -> Vec<String> {
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let messages = saved.as_array().unwrap().iter().filter(|message| message["role"] == "user");
    messages.map(|message| message["content"].as_str().unwrap().to_string()).collect()
}

#[test]
fn a_chat_answers_edits_lines_and_leaves_by_ctrl_d() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let home = tempfile::tempdir().unwrap();
    let args = ["-temp", "0", "-n", "40", "-system", "You are a helpful AI assistant."];
    let mut screen = start(home.path(), &model, &args);
    // A typing mistake, put right with backspace.
    screen.say("What is the capital of Frankx\u{7f}\u{7f}ce?\r");
    let text = screen.text();
    assert!(text.contains("> What is the capital of France?\n") && text.contains("Paris"), "{text}");
    screen.say("/help\r");
    assert!(screen.text().contains("/system [TEXT]"));
    screen.say("/stats\r");
    let text = screen.text();
    assert!(text.contains("Context: ") && text.contains("Decode: "), "{text}");
    assert!(leave(screen).contains("Memory Statistics:"));
}

#[test]
fn bytes_that_are_no_utf8_do_not_end_a_chat() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    let mut screen = start(home.path(), &tiny.model, &["-template", "chatml", "-temp", "0", "-n", "5"]);
    for (i, garbage) in [&b"th\xffe"[..], b"\xc3(", b"\x80"].into_iter().enumerate() {
        screen.send(garbage);
        screen.wait_until("the message", |screen| screen.text().matches("no UTF-8").count() == i + 1);
        screen.wait_until("the prompt", |screen| screen.cursor().0.starts_with('>'));
        screen.send("\u{15}");
        screen.wait_until("an empty line", |screen| screen.cursor() == (">".to_string(), 2));
    }
    screen.say("/stats\r");
    assert!(screen.text().contains("Context: 0 of "), "{}", screen.text());
    leave(screen);
}

#[test]
fn messages_of_many_lines_are_one_turn() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    let mut screen = start(home.path(), &tiny.model, &["-temp", "0", "-n", "1"]);
    for line in ["one\\\r", "two\r", "\"\"\"\r", "three\r", "four\"\"\"\r"] {
        screen.say(line);
    }
    // Bracketed paste: the line ends in it do not send.
    screen.say("\u{1b}[200~five\nsix\u{1b}[201~\r");
    screen.say("/save talk.json\r");
    leave(screen);
    assert_eq!(saved_questions(&home.path().join("talk.json")), ["one\ntwo", "three\nfour", "five\nsix"]);
}

#[test]
fn the_first_ctrl_c_stops_the_answer_and_the_second_leaves() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut screen = start(home.path(), &model, &["-temp", "0", "-n", "-1"]);
    let before = screen.text().len();
    screen.send("Write a very long story about a dog and a cat who travel around the world.\r");
    screen.wait_until("an answer", |screen| screen.text().len() > before + 150);
    screen.send("\u{3}");
    screen.wait_for("(stopped)");
    screen.wait_for_prompt(2);
    // The chat goes on.
    screen.say("/stats\r");
    assert!(screen.text().contains("Context: "));
    screen.say("\u{3}");
    assert!(screen.text().contains("leaves)"));
    screen.send("\u{3}");
    assert!(screen.end_well().contains("Memory Statistics:"));
}

#[test]
fn history_is_kept_between_runs() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    let mut screen = start(home.path(), &tiny.model, &["-n", "1"]);
    screen.say("a memorable question\r");
    screen.say("a second one\r");
    leave(screen);
    assert!(home.path().join("modelembed/history.txt").exists());
    let mut screen = start(home.path(), &tiny.model, &["-n", "1"]);
    // Twice up, and once down.
    screen.send("\u{1b}[A\u{1b}[A");
    screen.wait_for("> a memorable question");
    screen.send("\u{1b}[B");
    screen.wait_for("> a second one");
    screen.send("\u{15}");
    leave(screen);
}
