//! Bars on a terminal: what they show meanwhile, and that nothing of them stays.

use crate::screen::Screen;
use crate::util::*;
use std::fs::File;
use std::path::Path;

const WIDTHS: [u16; 2] = [80, 40];

/// Runs a command in a terminal of so many columns. `bar` is in the line that shows how far it is.
/// Returns that line, if it was seen, and what the screen shows afterwards.
fn run_on_screen(home: &Path, cols: u16, args: &[&str], bar: &str) -> (Option<String>, String) {
    let mut command = binary(home);
    command.current_dir(home).env("TERM", "xterm").env("LC_ALL", "C.UTF-8").args(args);
    let screen = Screen::start(command, 60, cols);
    let (mut line, mut has_begun) = (None, false);
    screen.wait_until("the bar or the end", |screen| {
        line = screen.text().lines().find(|line| line.contains(bar) && line.contains("left")).map(str::to_string);
        // Before the program has its session there is no state either.
        let state = screen.state();
        has_begun |= state.is_some();
        line.is_some() || state.map_or(has_begun, |state| state == 'Z')
    });
    let text = screen.end_well();
    assert!(!text.contains(" left") && !text.contains('█'), "{cols} columns: {text}");
    (line, text)
}

#[test]
fn verifying_shows_a_bar_and_leaves_nothing_of_it() {
    let tiny = tiny_model();
    // Holes behind the tensors: long to read, short to make.
    File::options().write(true).open(&tiny.model).unwrap().set_len(3 << 30).unwrap();
    for cols in WIDTHS {
        let (line, text) = run_on_screen(tiny.folder.path(), cols, &["verify", "-model", &tiny.model], "/3072 MB");
        let line = line.expect("a bar");
        assert!(line.contains(" MB/s ") && line.contains(" left"), "{line}");
        assert_eq!(line.contains("verifying"), cols == 80, "{line}");
        assert!(!text.contains("MB/s") && text.contains("GB/s"), "{text}");
        let hash = text.split([' ', '\n']).next().unwrap();
        assert!(hash.len() >= 40 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{text}");
    }
}

#[test]
fn a_long_prompt_is_counted_in_tokens() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let home = tempfile::tempdir().unwrap();
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(100);
    for cols in WIDTHS {
        // One thread takes seconds on any machine.
        let args = ["-model", &model, "-raw", "-p", &prompt, "-n", "2", "-ctx", "8192", "-threads", "1", "-temp", "0"];
        let (line, text) = run_on_screen(home.path(), cols, &args, " tokens ");
        let line = line.expect("a bar");
        assert!(line.contains("/10") && line.contains("/s") && line.contains(" left"), "{line}");
        assert_eq!(line.contains("evaluating the prompt") && line.contains("tokens/s"), cols == 80, "{line}");
        assert!(text.contains("\nResponse: ") && !text.contains("/10"), "{text}");
    }
}

#[test]
fn what_is_quiet_or_no_terminal_has_no_bar() {
    let tiny = tiny_model();
    File::options().write(true).open(&tiny.model).unwrap().set_len(1 << 30).unwrap();
    let (line, text) = run_on_screen(tiny.folder.path(), 80, &["verify", "-quiet", "-model", &tiny.model], " MB");
    assert_eq!(line, None, "{text}");
    let piped = run(&["verify", "-model", &tiny.model]).ok();
    assert_eq!(piped.stderr, "");
    let mut command = binary(tiny.folder.path());
    command.env("TERM", "dumb").args(["verify", "-model", &tiny.model]);
    let screen = Screen::start(command, 60, 80);
    screen.wait_for("GB/s");
    assert!(!screen.bytes().contains(['\u{1b}', '█']), "{}", screen.bytes());
    screen.end_well();
}

#[test]
fn a_model_that_is_not_in_memory_leaves_no_trace_of_its_bar() {
    let Some(model) = real_model(GEMMA3) else { return };
    for cols in WIDTHS {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("model.gguf");
        std::fs::copy(&model, &copy).unwrap();
        File::open(&copy).unwrap().sync_all().unwrap();
        let copy = copy.to_str().unwrap();
        run(&["evict", "-model", copy]).ok();
        // How fast the disk is decides whether there is a bar at all.
        let args = ["-model", copy, "-raw", "-p", "The capital of France is", "-n", "4", "-temp", "0"];
        let (line, text) = run_on_screen(folder.path(), cols, &args, " MB");
        assert!(line.is_none_or(|line| line.contains("MB/s")), "{text}");
        let answer = text.lines().position(|line| line.starts_with("Response: ")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[answer - 1].starts_with("-----"), "{text}");
        assert!(!lines[answer].contains("MB"), "{text}");
    }
}
