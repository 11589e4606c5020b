//! Starts the binary and checks what holds for every run of it.

use modelembed_testkit::{is_emulated, tiny, tiny_spec};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run printed.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Panics unless the run succeeded.
    pub fn ok(self) -> Run {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The last line of standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}\nstderr: {}", self.stderr))
    }
}

/// The binary, with a home of its own.
pub fn binary(home: &Path) -> Command {
    program_at(Path::new(env!("CARGO_BIN_EXE_modelembed")), home)
}

/// Another program, with a home of its own.
pub fn program_at(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("XDG_DATA_HOME", home).env("HOME", home).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// Runs with these arguments and nothing on standard input.
pub fn run(args: &[&str]) -> Run {
    run_in(Path::new("."), args, None)
}

/// Runs in a folder, with `input` through a pipe on standard input.
pub fn run_in(folder: &Path, args: &[&str], input: Option<&[u8]>) -> Run {
    run_program(Path::new(env!("CARGO_BIN_EXE_modelembed")), folder, args, input)
}

/// Starts a program that may have been written just now: a process that another test starts
/// meanwhile holds the file open for writing until it has become that program.
fn started(command: &mut Command) -> std::process::Child {
    let since = std::time::Instant::now();
    loop {
        match command.spawn() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && since.elapsed().as_secs() < 60 => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            child => return child.unwrap(),
        }
    }
}

/// As `run_in`, another program: one with a model in it.
pub fn run_program(program: &Path, folder: &Path, args: &[&str], input: Option<&[u8]>) -> Run {
    // Under qemu nobody is told that a program could not be started, since it has no processes that
    // share memory: a busy file looks like a program that ends with 127.
    let since = std::time::Instant::now();
    loop {
        let run = run_once(program, folder, args, input);
        if !(is_emulated() && run.code == 127 && run.stderr.is_empty() && since.elapsed().as_secs() < 60) {
            return run;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn run_once(program: &Path, folder: &Path, args: &[&str], input: Option<&[u8]>) -> Run {
    let home = tempfile::tempdir().unwrap();
    let mut command = program_at(program, home.path());
    command.current_dir(folder).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = started(&mut command);
    if let Some(input) = input {
        // A program that ends early closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input);
    }
    let output = child.wait_with_output().unwrap();
    let run = Run {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    for text in [&run.stdout, &run.stderr] {
        // Neither end is a terminal. (A random model may well say U+001B itself: see
        // `answers_are_untouched`.)
        assert!(!text.contains("\u{1b}["), "escape codes: {text:?}");
    }
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run
}

/// A folder that holds the tiny llama as `models/tiny.gguf`.
pub struct Tiny {
    pub folder: tempfile::TempDir,
    pub model: String,
}

pub fn tiny_model() -> Tiny {
    tiny_of(&tiny_spec("llama"))
}

/// A mixture of which most are experts.
pub fn tiny_mixture() -> Tiny {
    let spec = tiny_spec("mixtral");
    tiny_of(&modelembed_testkit::TinySpec { n_embd: 256, n_ff: 256, n_layer: 12, ..spec })
}

fn tiny_of(spec: &modelembed_testkit::TinySpec) -> Tiny {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    let path = folder.path().join("models/tiny.gguf");
    std::fs::write(&path, tiny(spec)).unwrap();
    Tiny { model: path.to_str().unwrap().to_string(), folder }
}

pub const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
pub const GEMMA3: &str = "gemma-3-270m-q4_k_m.gguf";

/// A real model, from $MODELEMBED_MODELS or models/. Where it is absent the test ends early and
/// says so, unless $MODELEMBED_REQUIRE_MODELS is set.
pub fn real_model(name: &str) -> Option<String> {
    let folder = std::env::var_os("MODELEMBED_MODELS").map(PathBuf::from);
    let path = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")).join(name);
    if path.exists() {
        return Some(path.canonicalize().unwrap().to_str().unwrap().to_string());
    }
    assert!(std::env::var_os("MODELEMBED_REQUIRE_MODELS").is_none(), "{} is missing", path.display());
    eprintln!("skipped: {} is missing (scripts/fetch-model.sh all fetches it)", path.display());
    None
}
