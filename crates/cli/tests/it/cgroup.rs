//! The binary in a memory control group that is smaller than the model: it streams, and answers the
//! same.

use crate::util::*;
use modelembed_gguf::TensorType;
use modelembed_testkit::{TinyArch, TinySpec, emulated, tiny};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// A control group with a limit on memory, gone when this is.
struct Group(PathBuf);

impl Group {
    /// A group of either version below this process's own; the reason where none can be made.
    fn new(limit_bytes: u64) -> Result<Group, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
        let mut reasons = Vec::new();
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let (mounted, limit) = match controllers {
                "" => (["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "memory.max"),
                c if c.split(',').any(|c| c == "memory") => (["/sys/fs/cgroup/memory"; 2], "memory.limit_in_bytes"),
                _ => continue,
            };
            for root in mounted {
                // Inside a container the path may not exist: its root is the container's own group
                // then.
                for parent in [Path::new(root).join(path.trim_start_matches('/')), PathBuf::from(root)] {
                    match Group::below(&parent, limit, limit_bytes) {
                        Ok(group) => return Ok(group),
                        Err(reason) => reasons.push(reason),
                    }
                }
            }
        }
        Err(reasons.join("; "))
    }

    /// The same; where none can be made, or would say nothing, the reason is printed.
    fn or_reason(limit_bytes: u64) -> Option<Group> {
        if emulated("a control group, in which the emulator's own memory would count") {
            return None;
        }
        let told = |reason: &String| eprintln!("skipped: no memory control group can be made here ({reason})");
        Group::new(limit_bytes).inspect_err(told).ok()
    }

    fn below(parent: &Path, limit: &str, limit_bytes: u64) -> Result<Group, String> {
        let folder = parent.join(format!("modelembed-test-{}", std::process::id()));
        let told = |e: std::io::Error| format!("{}: {e}", folder.display());
        fs::create_dir(&folder).map_err(told)?;
        let group = Group(folder.clone());
        // Version 2 has the file only where the parent deals out memory.
        fs::write(folder.join(limit), limit_bytes.to_string()).map_err(told)?;
        Ok(group)
    }

    /// What a command in the group starts with: its shell joins the group.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(self.0.join("cgroup.procs")).arg(program);
        command
    }

    fn used_bytes(&self) -> u64 {
        let read = |file: &str| fs::read_to_string(self.0.join(file)).ok()?.trim().parse().ok();
        read("memory.current").or_else(|| read("memory.usage_in_bytes")).unwrap_or(0)
    }

    /// Memory in use that is no page of a file, which the system takes back at once.
    fn lasting_bytes(&self) -> u64 {
        let stat = fs::read_to_string(self.0.join("memory.stat")).unwrap_or_default();
        let pages =
            |line: &str| line.strip_prefix("active_file ").or(line.strip_prefix("inactive_file "))?.parse::<u64>().ok();
        self.used_bytes().saturating_sub(stat.lines().filter_map(pages).sum())
    }

    /// Runs the binary inside.
    fn run(&self, args: &[&str]) -> Run {
        let home = tempfile::tempdir().unwrap();
        let mut command = self.command(env!("CARGO_BIN_EXE_modelembed"));
        let output = command.args(args).env("HOME", home.path()).stdin(Stdio::null()).output().unwrap();
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The system may need a moment to see that its last process is gone.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} is left over", self.0.display());
    }
}

/// Writes a model that a group with this limit has no room for.
fn larger_than(limit_bytes: u64, spec: &TinySpec) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("model.gguf");
    let bytes = tiny(spec);
    assert!(bytes.len() as u64 > limit_bytes + 8 * MIB, "{} bytes", bytes.len());
    fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn a_model_larger_than_its_control_group_streams_and_says_the_same() {
    const LIMIT: u64 = 64 * MIB;
    let Some(group) = Group::or_reason(LIMIT) else { return };
    let spec = TinySpec {
        ty: TensorType::Q8_0,
        n_layer: 24,
        n_embd: 512,
        n_ff: 1536,
        n_head: 8,
        n_head_kv: 2,
        head_dim: 64,
        rope_dims: 64,
        ..TinySpec::new("larger", TinyArch::Llama)
    };
    let (_folder, model) = larger_than(LIMIT, &spec);
    let model = &model[..];
    let args = ["-model", model, "-p", "the cat", "-raw", "-n", "12", "-ctx", "64", "-format", "json", "-verbose"];
    let outside = run(&args).ok();
    assert_eq!(outside.json()["statistics"]["streamed"], Value::Null, "{}", outside.stderr);
    // What others brought into the page cache costs the group nothing.
    run(&["evict", "-model", model]).ok();
    for reader in ["auto", "threads"] {
        let inside = group.run(&[&args[..], &["-stream-io", reader]].concat());
        assert_eq!(inside.code, 0, "{}", inside.stderr);
        assert!(inside.stderr.contains("Plan: streams "), "{}", inside.stderr);
        let (inside, outside) = (inside.json(), outside.json());
        assert_eq!(inside["response"], outside["response"]);
        let streamed = &inside["statistics"]["streamed"];
        let (a_token, all) = (streamed["bytes_per_token"].as_u64().unwrap(), streamed["read_bytes"].as_u64().unwrap());
        assert!(a_token > 0 && all >= 10 * a_token, "{streamed}");
        assert!(reader == "auto" || streamed["reader"] == reader, "{streamed}");
    }
    // A group too small even for the windows is told so before anything else.
    fs::write(
        group.0.join(if group.0.join("memory.max").exists() { "memory.max" } else { "memory.limit_in_bytes" }),
        (20 * MIB).to_string(),
    )
    .unwrap();
    let refused = group.run(&["-model", model, "-dry-run", "-ctx", "100000"]);
    assert!(
        refused.code == 1 && refused.stdout.starts_with("Plan: impossible: "),
        "{} {}",
        refused.stdout,
        refused.stderr
    );
}

/// A mixture gives memory for experts back while it answers, when another program of its group wants
/// some and takes what is free: both live, and the text is the same.
#[test]
fn a_mixture_gives_memory_back_to_a_program_that_wants_it() {
    const LIMIT: u64 = 96 * MIB;
    const WANTED: usize = 30 << 20;
    let Some(group) = Group::or_reason(LIMIT) else { return };
    let spec = TinySpec {
        ty: TensorType::Q8_0,
        n_layer: 16,
        n_embd: 512,
        n_ff: 512,
        n_head: 8,
        n_head_kv: 2,
        head_dim: 64,
        rope_dims: 64,
        ..TinySpec::new("mixture", TinyArch::Mixtral)
    };
    let (_folder, model) = larger_than(LIMIT, &spec);
    let model = &model[..];
    let args = ["-model", model, "-p", "the cat", "-raw", "-n", "500", "-ctx", "600", "-format", "json", "-ignore-eos"];
    let outside = run(&args).ok();
    assert_eq!(outside.json()["statistics"]["experts"], Value::Null);
    run(&["evict", "-model", model]).ok();
    let alone = group.run(&args);
    assert_eq!(alone.code, 0, "{}", alone.stderr);
    let budget = |run: &Value| run["statistics"]["experts"]["budget_bytes"].as_u64().unwrap();
    assert_eq!(alone.json()["response"], outside.json()["response"]);

    let home = tempfile::tempdir().unwrap();
    let mut command = group.command(env!("CARGO_BIN_EXE_modelembed"));
    command.args(args).env("HOME", home.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let answering = command.spawn().unwrap();
    let since = std::time::Instant::now();
    while group.used_bytes() < LIMIT * 3 / 4 && since.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // It keeps a line in memory until the line ends.
    let mut eater = group.command("tail").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut line = eater.stdin.take().unwrap();
    // In parts that fit into what is free: the system would end a program that takes more.
    for _ in 0..WANTED >> 20 {
        let since = std::time::Instant::now();
        while group.lasting_bytes() + 3 * MIB > LIMIT {
            assert!(since.elapsed() < Duration::from_secs(60), "no memory is given back");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::io::Write::write_all(&mut line, &[b'x'; 1 << 20]).unwrap();
    }
    let output = answering.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(eater.try_wait().unwrap(), None, "the other program was ended");
    drop(line);
    assert!(eater.wait().unwrap().success());
    let squeezed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(squeezed["response"], outside.json()["response"]);
    let (before, after) = (budget(&alone.json()), budget(&squeezed));
    assert!(after + WANTED as u64 / 2 < before, "{after} of {before} bytes are left for experts");
}
