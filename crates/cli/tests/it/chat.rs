//! The chat without a terminal: lines through a pipe.

use crate::util::*;

#[test]
fn lines_are_turns_and_commands() {
    let tiny = tiny_model();
    let input = "/help\nthe cat\n\n/system Be brief.\n/system\nthe dog\\\nsat\n/stats\n/save talk.json\n/save talk.json\n/nosuch\n";
    let args = ["-i", "-model", &tiny.model, "-n", "4", "-temp", "0"];
    let run = run_in(tiny.folder.path(), &args, Some(input.as_bytes())).ok();
    for part in [
        "Commands:",
        "a new conversation with this system message",
        "System message: Be brief.",
        "Context: ",
        "3 messages written to talk.json",
        "error: cannot create talk.json",
        "unknown command \"/nosuch\"",
        "Memory Statistics:",
    ] {
        assert!(run.stderr.contains(part), "{part:?} is not in\n{}", run.stderr);
    }
    assert!(!run.stdout.contains("Commands") && !run.stdout.contains('>'), "{:?}", run.stdout);
    let saved: serde_json::Value =
        serde_json::from_slice(&std::fs::read(tiny.folder.path().join("talk.json")).unwrap()).unwrap();
    assert_eq!(saved[0]["content"], "Be brief.");
    assert_eq!(saved[1]["content"], "the dog\nsat");
    assert_eq!(saved[2]["role"], "assistant");
}

#[test]
fn an_explicit_prompt_is_the_first_turn_and_json_is_a_line_a_turn() {
    let tiny = tiny_model();
    let args = ["-i", "-p", "the cat", "-model", &tiny.model, "-n", "4", "-format", "json", "-quiet"];
    let run = run_in(tiny.folder.path(), &args, Some(b"and then?\n/exit\nnever said\n")).ok();
    let lines: Vec<serde_json::Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{}", run.stdout);
    assert!(lines.iter().all(|line| line["response"].is_string() && line["dropped_turns"] == 0));
    assert_eq!(run.stderr, "");
}

#[test]
fn a_full_context_forgets_the_oldest_turns_and_says_so() {
    let tiny = tiny_model();
    let input = "the cat sat on the mat\n".repeat(12);
    let args = ["-i", "-model", &tiny.model, "-n", "8", "-ctx", "256", "-system", "Be brief.", "-template", "chatml"];
    let run = run_in(tiny.folder.path(), &args, Some(input.as_bytes())).ok();
    assert!(run.stderr.contains("the context is full: the "), "{}", run.stderr);
    assert!(!run.stderr.contains("error:"), "{}", run.stderr);
}
