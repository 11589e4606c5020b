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

#[test]
fn commands_answer_with_quiet_too() {
    let tiny = tiny_model();
    let rows = [
        ("/help", "Commands:"),
        ("/stats", "Memory Statistics:"),
        ("/system", "(no system message)"),
        ("/system Be brief.", "a new conversation with this system message"),
        ("/reset", "the conversation is forgotten"),
        ("/save talk.json", "messages written to talk.json"),
        ("/nosuch", "unknown command \"/nosuch\""),
    ];
    for (command, answer) in rows {
        let args = ["-i", "-quiet", "-model", &tiny.model, "-template", "chatml"];
        let run = run_in(tiny.folder.path(), &args, Some(format!("{command}\n").as_bytes())).ok();
        assert!(run.stderr.contains(answer), "{command}: {:?}", run.stderr);
        assert_eq!(run.stdout, "", "{command}");
    }
    // Nothing else is said.
    let args = ["-i", "-quiet", "-model", &tiny.model, "-template", "chatml", "-n", "3"];
    assert_eq!(run_in(tiny.folder.path(), &args, Some(b"the cat\n\n/exit\n")).ok().stderr, "");
}

/// A template of the kind that refuses a system message.
const NO_SYSTEM: &str = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
                         {% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]";

#[test]
fn a_system_message_without_a_place_goes_before_the_first_question() {
    let tiny = tiny_model();
    let folder = tiny.folder.path();
    let common = ["-model", &tiny.model, "-n", "6", "-temp", "0", "-seed", "1"];
    let with = |more: &[&str], input: Option<&[u8]>| run_in(folder, &[&common[..], more].concat(), input).ok();
    let wanted = with(&["-raw", "-p", "[user]Be brief.\nthe cat\n[assistant]"], None).stdout;
    let note = "warning: the chat template has no place for a system message";
    // One that leaves it out without a word is of the same kind.
    let mute = "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]";
    for template in [NO_SYSTEM, mute] {
        let ask = ["-template", template, "-system", "Be brief."];
        let one = with(&[&ask[..], &["-p", "the cat"]].concat(), None);
        assert_eq!(one.stdout, wanted);
        assert_eq!(one.stderr.matches(note).count(), 1, "{}", one.stderr);
        let chat = with(&[&ask[..], &["-i"]].concat(), Some(b"the cat\nthe dog\n/save talk.json\n"));
        assert_eq!(chat.stdout.lines().next(), wanted.lines().next());
        assert_eq!(chat.stderr.matches(note).count(), 1, "{}", chat.stderr);
        // Saved as it was given.
        let path = folder.join("talk.json");
        let saved: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((&saved[0]["content"], &saved[1]["content"]), (&"Be brief.".into(), &"the cat".into()));
        std::fs::remove_file(path).unwrap();
    }
    let without = with(&["-template", NO_SYSTEM, "-p", "the cat"], None);
    assert!(!without.stderr.contains(note), "{}", without.stderr);
}

#[test]
fn a_piped_chat_in_which_a_question_failed_ends_with_1() {
    let tiny = tiny_model();
    let template =
        "{% if messages[-1].content == 'bad' %}{{ raise_exception('no') }}{% endif %}{{ messages[-1].content }}";
    let args = ["-i", "-model", &tiny.model, "-n", "3", "-template", template, "-format", "json"];
    let run = run_in(tiny.folder.path(), &args, Some(b"the cat\nbad\nthe dog\n"));
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("the template refuses these messages: no"), "{}", run.stderr);
    let lines: Vec<serde_json::Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<bool> = lines.iter().map(|line| line["response"].is_string()).collect();
    assert_eq!(said, [true, false, true], "{}", run.stdout);
    assert!(lines[1]["error"].as_str().unwrap().contains("refuses"), "{}", run.stdout);
}

#[test]
fn what_is_saved_is_the_whole_chat_with_a_mark_where_the_context_begins() {
    let tiny = tiny_model();
    let questions: Vec<String> = (0..12).map(|i| format!("number {i} sat on the mat")).collect();
    let input = questions.join("\n") + "\n/save talk.json\n";
    let saved = |ctx: &str| -> (Vec<serde_json::Value>, usize) {
        let args = ["-i", "-model", &tiny.model, "-n", "8", "-ctx", ctx, "-system", "Be brief.", "-template", "chatml"];
        let run = run_in(tiny.folder.path(), &args, Some(input.as_bytes())).ok();
        let dropped = run.stderr.split("the context is full: the ").skip(1);
        let dropped = dropped.map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap()).sum();
        let path = tiny.folder.path().join("talk.json");
        let text = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        (serde_json::from_slice(&text).unwrap(), dropped)
    };
    for ctx in ["256", "4096"] {
        let (messages, dropped) = saved(ctx);
        assert_eq!(messages[0]["content"], "Be brief.");
        let asked: Vec<&str> =
            messages.iter().filter(|m| m["role"] == "user").map(|m| m["content"].as_str().unwrap()).collect();
        assert_eq!(asked, questions, "-ctx {ctx}");
        let marks: Vec<usize> = (0..messages.len()).filter(|&i| messages[i]["context_begins_here"] == true).collect();
        // Behind the system message, a question and an answer each.
        let wanted = if dropped > 0 { vec![1 + 2 * dropped] } else { vec![] };
        assert_eq!((marks, dropped > 0), (wanted, ctx == "256"), "-ctx {ctx}");
    }
}
