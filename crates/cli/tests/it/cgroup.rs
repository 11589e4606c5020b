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

    fn below(parent: &Path, limit: &str, limit_bytes: u64) -> Result<Group, String> {
        let folder = parent.join(format!("modelembed-test-{}", std::process::id()));
        let told = |e: std::io::Error| format!("{}: {e}", folder.display());
        fs::create_dir(&folder).map_err(told)?;
        let group = Group(folder.clone());
        // Version 2 has the file only where the parent deals out memory.
        fs::write(folder.join(limit), limit_bytes.to_string()).map_err(told)?;
        Ok(group)
    }

    /// Runs the binary inside.
    fn run(&self, args: &[&str]) -> Run {
        let home = tempfile::tempdir().unwrap();
        let script = r#"echo $$ > "$0" && exec "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(self.0.join("cgroup.procs")).arg(env!("CARGO_BIN_EXE_modelembed")).args(args);
        let output = command.env("HOME", home.path()).stdin(Stdio::null()).output().unwrap();
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

#[test]
fn a_model_larger_than_its_control_group_streams_and_says_the_same() {
    const LIMIT: u64 = 64 * MIB;
    if emulated("a control group, in which the emulator's own memory would count") {
        return;
    }
    let group = match Group::new(LIMIT) {
        Ok(group) => group,
        Err(reason) => return eprintln!("skipped: no memory control group can be made here ({reason})"),
    };
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
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("larger.gguf");
    let bytes = tiny(&spec);
    assert!(bytes.len() as u64 > LIMIT + 8 * MIB, "{} bytes", bytes.len());
    fs::write(&path, bytes).unwrap();
    let model = path.to_str().unwrap();
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
