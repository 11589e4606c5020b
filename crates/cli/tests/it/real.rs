//! The real models.

use crate::util::*;

// Without a system message, greedily and with quantised activations, this small model (in llama.cpp
// too) answers in a sort of French.
const QUESTION: &[&str] = &[
    "-system",
    "You are a helpful AI assistant.",
    "-p",
    "What is the capital of France?",
    "-temp",
    "0",
    "-n",
    "40",
    "-quiet",
];

#[test]
fn smollm2_knows_the_capital_of_france_in_every_load_mode() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let mut answers = Vec::new();
    for mode in [&[][..], &["-memory", "-mmap=false"], &["-mmap=false"]] {
        answers.push(run(&[&["-model", &model], QUESTION, mode].concat()).ok().stdout);
    }
    assert!(answers[0].contains("The capital of France is Paris."), "{:?}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn mapping_keeps_the_model_out_of_private_memory() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let statistics = |mode: &[&str]| {
        let args = [&["-model", &model, "-format", "json"], QUESTION, mode].concat();
        run(&args).ok().json()["statistics"].clone()
    };
    let (mapped, buffer) = (statistics(&[]), statistics(&["-memory"]));
    let model_bytes = mapped["model_bytes"].as_u64().unwrap();
    assert!(mapped["allocated_bytes"].as_u64().unwrap() < model_bytes / 4, "{mapped}");
    assert!(buffer["allocated_bytes"].as_u64().unwrap() > model_bytes, "{buffer}");
    if cfg!(target_os = "linux") {
        assert!(mapped["private_bytes"].as_u64().unwrap() < model_bytes / 2, "{mapped}");
        assert!(mapped["system_bytes"].as_u64().unwrap() < model_bytes / 2, "{mapped}");
        assert!(buffer["private_bytes"].as_u64().unwrap() > model_bytes, "{buffer}");
    }
}

#[test]
fn gemma_completes_text_and_says_that_it_has_no_template() {
    let Some(model) = real_model(GEMMA3) else { return };
    let run = run(&["-model", &model, "-p", "One, two, three, four,", "-temp", "0", "-n", "8"]).ok();
    assert!(run.stderr.contains("no chat template"), "{}", run.stderr);
    assert!(run.stdout.contains("five, six"), "{:?}", run.stdout);
}

#[test]
fn a_piped_chat_remembers_what_was_said() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let input = "The secret word is banana.\nRepeat the secret word.\n";
    let args = ["-i", "-model", &model, "-temp", "0", "-n", "48", "-format", "json", "-quiet"];
    let run = run_in(std::path::Path::new("."), &args, Some(input.as_bytes())).ok();
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    assert!(run.json()["response"].as_str().unwrap().contains("banana"), "{}", run.stdout);
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_answer_and_statistics_still_come() {
    use std::io::Read;
    use std::process::Stdio;
    let Some(model) = real_model(GEMMA3) else { return };
    let home = tempfile::tempdir().unwrap();
    let mut child = binary(home.path())
        .args(["-model", &model, "-raw", "-p", "One, two, three, four,", "-temp", "0", "-n", "-1", "-ctx", "8192"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once the answer has begun.
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 8]).unwrap();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("Memory Statistics:"), "{stderr}");
}
