//! `serve` as it is started: its first line, its end, and what it refuses.

use crate::util::{binary, run, tiny_model};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that has said where it listens.
struct Serving {
    child: Child,
    url: String,
    stderr: BufReader<std::process::ChildStderr>,
}

fn start(command: &mut Command) -> Serving {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut serving = Serving { child, url: String::new(), stderr };
    let mut all = String::new();
    while serving.url.is_empty() {
        let mut line = String::new();
        assert!(serving.stderr.read_line(&mut line).unwrap() > 0, "it ended: {all}");
        all.push_str(&line);
        let address = line.strip_prefix("Serving tiny on ").and_then(|rest| rest.split(": ").next());
        serving.url = address.unwrap_or_default().to_owned();
    }
    serving
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Serving {
    fn post(&self, path: &str, body: &str, key: &str) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        match request.header("authorization", format!("Bearer {key}")).send(body) {
            Ok(mut response) => (response.status().as_u16(), response.body_mut().read_to_string().unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    }

    /// What it still said, and its exit code.
    fn end(mut self) -> (i32, String) {
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), text)
    }
}

fn serve(home: &Path, model: &str, more: &[&str]) -> Command {
    let mut command = binary(home);
    command.args(["serve", "-model", model, "-port", "0"]).args(more);
    command
}

const QUESTION: &str = r#"{"messages": [{"role": "user", "content": "private words"}], "max_tokens": 4}"#;

#[cfg(unix)]
fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

#[cfg(unix)]
#[test]
fn it_answers_logs_no_words_and_ends_when_it_is_told_to() {
    let tiny = tiny_model();
    let keys = tiny.folder.path().join("keys");
    std::fs::write(&keys, "one-key\n\nother-key\n").unwrap();
    let keys = keys.to_str().unwrap();
    let options = ["-api-key-file", keys, "-log", "json", "-sequences", "2"];
    let serving = start(&mut serve(tiny.folder.path(), &tiny.model, &options));
    let (status, text) = serving.post("/v1/chat/completions", QUESTION, "other-key");
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("\"model\":\"tiny\""), "{text}");
    assert_eq!(serving.post("/v1/chat/completions", QUESTION, "no-key").0, 401);
    terminate(&serving.child);
    let (code, log) = serving.end();
    assert_eq!(code, 0, "{log}");
    let requests: Vec<serde_json::Value> =
        log.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(requests.iter().any(|line| line["endpoint"] == "/chat/completions" && line["status"] == 200), "{log}");
    assert!(requests.iter().any(|line| line["status"] == 401), "{log}");
    for secret in ["private words", "one-key", "other-key", "no-key"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_file_that_is_cut_short_ends_it_with_74() {
    let tiny = tiny_model();
    let serving = start(&mut serve(tiny.folder.path(), &tiny.model, &["-log", "off"]));
    assert_eq!(serving.post("/v1/chat/completions", QUESTION, "").0, 200);
    std::fs::OpenOptions::new().write(true).open(&tiny.model).unwrap().set_len(4096).unwrap();
    // Whether a request or the look at the file is first.
    serving.post("/v1/chat/completions", QUESTION, "");
    let (code, text) = serving.end();
    assert_eq!(code, 74, "{text}");
    assert!(text.contains("tiny.gguf"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_served() {
    let tiny = tiny_model();
    let none = tiny.folder.path().join("none");
    std::fs::write(&none, "\n\n").unwrap();
    let none = none.to_str().unwrap();
    let rows: [(&[&str], i32, &str); 7] = [
        (&["-host", "example.org"], 2, "127.0.0.1"),
        (&["-allow-origin", "*"], 2, "http://localhost:3000"),
        (&["-stop", "x"], 2, "-stop is for each request to say"),
        (&["-sequences", "0"], 2, "0"),
        (&["-api-key-file", none], 1, "holds none"),
        (&["-api-key-file", "no/such/file"], 1, "no/such/file"),
        (&["-template", "no such"], 2, "no such"),
    ];
    for (more, code, wanted) in rows {
        let run = run(&[&["serve", "-model", &tiny.model, "-port", "0"], more].concat());
        assert_eq!(run.code, code, "{more:?}: {}", run.stderr);
        assert!(run.stderr.contains(wanted), "{more:?}: {}", run.stderr);
    }
}
