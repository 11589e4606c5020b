//! Nothing that is typed is lost, however it arrives.

use crate::screen::Screen;
use crate::terminal::{leave, saved_questions, start};
use crate::util::*;
use rustix::termios::LocalModes;
use std::path::Path;
use std::process::Command;

/// Starts a chat with the tiny model, whose answers are a token long, in a context that forgets
/// nothing.
fn chat(home: &Path, tiny: &Tiny) -> Screen {
    start(home, &tiny.model, &["-temp", "0", "-n", "1", "-ctx", "60000", "-template", "chatml"])
}

/// Sends all keys in one write, then saves the conversation and leaves. Returns the questions that
/// the program saw.
fn questions(keys: &str) -> Vec<String> {
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let mut screen = chat(home.path(), &tiny);
    screen.send(format!("{keys}/save talk.json\r"));
    screen.wait_for("messages written to talk.json");
    screen.wait_until("a prompt", |screen| screen.cursor() == (">".to_string(), 2));
    leave(screen);
    saved_questions(&home.path().join("talk.json"))
}

#[test]
fn lines_that_arrive_in_one_write_are_all_there() {
    let lines: Vec<String> = (0..60).map(|i| format!("line {i} {}", "the cat ".repeat(i % 7))).collect();
    let mut keys: String = lines.iter().map(|line| format!("{line}\r")).collect();
    let mut wanted = lines;
    // Line feeds as scripts send them, a block, and lines that go on.
    keys += "\"\"\"a\nb\nc\"\"\"\nbefore \\\nafter\n";
    wanted.extend(["a\nb\nc".to_string(), "before \nafter".to_string()]);
    assert_eq!(questions(&keys), wanted);
}

/// A line that the system alone would cut. As a system message it costs no evaluation.
fn long_line(len: usize) -> String {
    "the cat sat on the mat ".chars().cycle().take(len).collect::<String>() + "."
}

/// The system message of a conversation that was written by `/save`.
fn saved_system(path: &Path) -> String {
    let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    saved[0]["content"].as_str().unwrap().to_string()
}

#[test]
fn lines_of_any_length_are_whole() {
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let mut screen = chat(home.path(), &tiny);
    let [first, second] = [6000, 9000].map(long_line);
    // They arrive while a question is answered.
    screen.send(format!("the cat\r/system {first}\r/save first.json\r/system {second}\r/save second.json\r"));
    screen.wait_for("messages written to second.json");
    screen.wait_until("a prompt", |screen| screen.cursor() == (">".to_string(), 2));
    leave(screen);
    assert_eq!(saved_system(&home.path().join("first.json")), first);
    assert_eq!(saved_system(&home.path().join("second.json")), second);
}

#[test]
fn what_is_pasted_is_one_message_and_what_follows_is_the_next() {
    let text: String = (0..300).map(|i| format!("pasted line {i}\n")).collect();
    let text = text + "the end";
    // Some terminals send carriage returns in a paste.
    let sent = text.replace('\n', "\r");
    let keys = format!("\u{1b}[200~{sent}\u{1b}[201~\rafterwards\r\u{1b}[200~a\r\n\tb\u{1b}[201~\r");
    assert_eq!(questions(&keys), [text.as_str(), "afterwards", "a\n\tb"]);
}

#[test]
fn keys_behind_ctrl_c_and_ctrl_d_are_kept() {
    // Ctrl-C throws away its own line only.
    assert_eq!(questions("dropped\u{3}kept\rnext\r"), ["kept", "next"]);
    // Ctrl-D ends a block that nobody ended, and a line that holds something is not its business.
    assert_eq!(questions("\"\"\"half\r\u{4}next\rno\u{4}t empty\r"), ["half\n", "next", "not empty"]);
}

#[test]
fn a_paste_without_an_end_is_ended_by_ctrl_c() {
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let mut screen = chat(home.path(), &tiny);
    screen.send("\u{1b}[200~never\rended\r");
    screen.say("\u{3}");
    assert!(screen.text().contains("(Ctrl-C again"), "{}", screen.text());
    screen.say("asked first\r");
    // In one write, too.
    screen.send("\u{1b}[200~never ended\u{3}asked\r/save talk.json\r");
    screen.wait_for("messages written to talk.json");
    screen.wait_until("a prompt", |screen| screen.cursor() == (">".to_string(), 2));
    leave(screen);
    assert_eq!(saved_questions(&home.path().join("talk.json")), ["asked first", "asked"]);
}

#[test]
fn what_is_typed_during_an_answer_stays_out_of_it() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut screen = start(home.path(), &model, &["-temp", "0", "-n", "60"]);
    let before = screen.text().len();
    screen.send("Count from one to thirty.\r");
    screen.wait_until("an answer", |screen| screen.text().len() > before + 60);
    // An arrow key, and a paste with its marks.
    screen.send("typed aheat\u{1b}[D\u{1b}[C\u{7f}d\\\r\u{1b}[200~pas\nted\u{1b}[201~\r/save talk.json\r");
    screen.wait_for("messages written to talk.json");
    let text = leave(screen);
    assert!(text.contains("\n> typed ahead\\\n... pas\n"), "{text}");
    assert!(!text.contains("^[") && text.matches("typed ahea").count() == 1, "{text}");
    let said = saved_questions(&home.path().join("talk.json"));
    assert_eq!(said, ["Count from one to thirty.", "typed ahead\npas\nted"]);
}

#[test]
fn arrows_move_over_characters_of_any_width() {
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let mut screen = chat(home.path(), &tiny);
    let line_is = |screen: &Screen, line: &str, col: u16| {
        screen.wait_until(line, |screen| screen.cursor() == (line.to_string(), col));
    };
    screen.send("日本語x");
    line_is(&screen, "> 日本語x", 9);
    // Two to the left, and the character before is gone.
    screen.send("\u{1b}[D\u{1b}[D\u{7f}");
    line_is(&screen, "> 日語x", 4);
    screen.send("e\u{301}");
    line_is(&screen, "> 日e\u{301}語x", 5);
    // To the beginning, to the end, and a word back.
    screen.send("\u{1b}[Ha\u{1b}[F b\u{1b}b\u{1b}[3~c");
    line_is(&screen, "> a日e\u{301}語x c", 11);
    screen.send("\r/save talk.json\r");
    screen.wait_for("messages written to talk.json");
    leave(screen);
    assert_eq!(saved_questions(&home.path().join("talk.json")), ["a日e\u{301}語x c"]);
}

/// The binary behind a shell that does something first, as `"$@"`.
fn behind(shell: &str, home: &Path, args: &[&str]) -> Command {
    let mut command = program_at(Path::new("/bin/sh"), home);
    command.current_dir(home).args(["-c", shell, "sh", env!("CARGO_BIN_EXE_modelembed")]).args(args);
    command
}

#[test]
fn a_terminal_without_a_cursor_takes_lines_of_any_length_and_edits_their_ends() {
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let args = ["-i", "-model", &tiny.model, "-temp", "0", "-n", "1", "-ctx", "60000", "-template", "chatml"];
    let mut command = behind("stty echo; exec \"$@\"", home.path(), &args);
    command.env("TERM", "dumb");
    let mut screen = Screen::start(command, 400, 80);
    screen.wait_for_prompt(1);
    let long = long_line(6900);
    // A whole word, a wide character, and a line are taken back.
    screen.send(format!("/system {long}\r"));
    screen.send("not this\u{15}a wrong\u{17}日本\u{7f}\u{7f}good one\r");
    screen.send("dropped\u{3}kept\r/save talk.json\r");
    screen.wait_for("messages written to talk.json");
    screen.wait_until("a prompt", |screen| screen.cursor() == (">".to_string(), 2));
    assert!(!screen.bytes().contains('\u{1b}'), "{}", screen.bytes());
    let text = leave(screen);
    assert!(text.contains("\n> a good one\n") && text.contains("\n> dropped^C\n"), "{text}");
    assert_eq!(saved_questions(&home.path().join("talk.json")), ["a good one", "kept"]);
    assert_eq!(saved_system(&home.path().join("talk.json")), long);
}

#[test]
fn a_chat_whose_answers_go_into_a_pipe_is_edited_on_the_terminal() {
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let args = ["-i", "-model", &tiny.model, "-temp", "0", "-n", "1", "-ctx", "60000", "-template", "chatml"];
    let mut command = behind("\"$@\" | cat > log", home.path(), &args);
    command.env("TERM", "xterm");
    let mut screen = Screen::start(command, 400, 80);
    screen.wait_for_prompt(1);
    let long = long_line(6900);
    screen.send(format!("/system {long}\rac\u{1b}[Db\r/save talk.json\r"));
    screen.wait_for("messages written to talk.json");
    screen.wait_until("a prompt", |screen| screen.cursor() == (">".to_string(), 2));
    leave(screen);
    assert_eq!(saved_questions(&home.path().join("talk.json")), ["abc"]);
    assert_eq!(saved_system(&home.path().join("talk.json")), long);
    let log = std::fs::read_to_string(home.path().join("log")).unwrap();
    assert!(!log.contains('>') && !log.contains('\u{1b}'), "{log:?}");
}

#[test]
fn a_text_typed_at_a_terminal_is_read_whole() {
    let (tiny, home) = (tiny_model(), tempfile::tempdir().unwrap());
    let args = ["tokenize", "-p", "-", "-verbose", "-model", &tiny.model];
    let mut command = behind("stty echo; exec \"$@\"", home.path(), &args);
    command.env("TERM", "xterm");
    let mut screen = Screen::start(command, 2000, 80);
    screen.wait_until("a program that reads", |screen| !screen.local_modes().contains(LocalModes::ICANON));
    let line = "the cat sat on the mat ".repeat(300);
    screen.send(format!("{line}\rmore\u{4}\u{4}"));
    let text = screen.end_well();
    assert!(text.contains(&format!("tokens of {} bytes", line.len() + "\nmore".len())), "{text}");
}
