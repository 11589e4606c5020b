//! status, warm, evict, verify.

use crate::util::*;
use serde_json::Value;
use std::path::Path;

fn json(args: &[&str]) -> Value {
    run(&[args, &["-format", "json"]].concat()).ok().json()
}

fn resident(model: &str) -> Option<u64> {
    json(&["status", "-model", model])["resident_bytes"].as_u64()
}

#[test]
fn status_shows_parts_and_warm_fills_them() {
    let tiny = tiny_model();
    let warmed = json(&["warm", "-model", &tiny.model]);
    assert_eq!(warmed["interrupted"], false);
    let status = json(&["status", "-model", &tiny.model]);
    let names: Vec<&str> = status["parts"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["embedding", "layer 0", "layer 1", "layer 2", "head"]);
    if cfg!(any(target_os = "linux", target_os = "macos")) {
        assert_eq!(warmed["resident_bytes"], warmed["bytes"]);
        assert_eq!(status["resident_bytes"], status["tensor_bytes"]);
        let cells = status["parts"][1]["cells"].as_array().unwrap();
        assert!(cells.len() == 40 && cells.iter().all(|share| share == 1.0), "{cells:?}");
    }
    let text = run(&["status", "-model", &tiny.model]).ok().stdout;
    assert_eq!(text.lines().filter(|line| line.contains("layer")).count(), 3, "{text}");
    let wrong = run(&["warm", "-model", &tiny.model, "-layers", "7"]);
    assert!(wrong.code == 1 && wrong.stderr.contains("no layer 7; it has layers 0..3"), "{}", wrong.stderr);
}

/// On a file system in memory nothing can be evicted; that is said, and no failure.
#[test]
fn evict_drops_what_warm_brought() {
    let Some(original) = real_model(SMOLLM2) else { return };
    // A copy of its own: other tests use the model.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = folder.path().join("m.gguf");
    std::fs::copy(original, &model).unwrap();
    let model = model.to_str().unwrap();
    let Some(all) = resident(model) else { return eprintln!("skipped: this system does not tell what is resident") };
    assert!(all > 0);
    let evicted = json(&["evict", "-model", model]);
    if evicted["resident_bytes"].as_u64() == Some(all) {
        return eprintln!("skipped: this file system keeps its pages");
    }
    assert_eq!(evicted["resident_bytes"], 0);
    let warmed = json(&["warm", "-model", model, "-layers", "3..5,head"]);
    assert_eq!(warmed["resident_bytes"], warmed["bytes"]);
    let status = json(&["status", "-model", model]);
    let part = |name: &str| status["parts"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap().clone();
    for name in ["layer 3", "layer 4", "head"] {
        assert_eq!(part(name)["resident_bytes"], part(name)["bytes"], "{name}");
    }
    assert!(part("layer 20")["resident_bytes"].as_u64() < part("layer 20")["bytes"].as_u64(), "{status}");
}

/// A chat that has answered once and waits: the model is mapped for sure, and nothing reads it.
#[cfg(target_os = "linux")]
fn chat_with(model: &str, home: &Path) -> std::process::Child {
    let mut command = binary(home);
    command.args(["-model", model, "-i", "-quiet", "-n", "4", "-format", "json"]).stdin(std::process::Stdio::piped());
    let mut chat = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(chat.stdin.as_mut().unwrap(), b"hello\n").unwrap();
    let mut answer = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(chat.stdout.as_mut().unwrap()), &mut answer).unwrap();
    assert!(answer.ends_with('\n'), "{answer:?}");
    chat
}

#[cfg(target_os = "linux")]
#[test]
fn status_names_the_processes_that_map_the_model() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    let mut chat = chat_with(&tiny.model, home.path());
    let status = json(&["status", "-model", &tiny.model]);
    drop(chat.stdin.take());
    chat.wait_with_output().unwrap();
    let processes = status["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 1, "{status}");
    assert_eq!(processes[0]["name"], "modelembed");
    assert!(processes[0]["resident_bytes"].as_u64().unwrap() > 0 && processes[0]["private_bytes"].as_u64().is_some());
    assert!(processes[0]["change"].is_null(), "{status}");
}

#[cfg(target_os = "linux")]
#[test]
fn status_tells_which_processes_map_a_file_that_was_replaced_or_cut_short() {
    let tiny = tiny_model();
    let home = tempfile::tempdir().unwrap();
    let mut chat = chat_with(&tiny.model, home.path());
    let pid = chat.id();
    let other = tiny.folder.path().join("other");
    std::fs::copy(&tiny.model, &other).unwrap();
    std::fs::rename(&other, &tiny.model).unwrap();
    let status = json(&["status", "-model", &tiny.model]);
    let text = run(&["status", "-model", &tiny.model]).ok().stdout;
    drop(chat.stdin.take());
    chat.wait_with_output().unwrap();
    assert_eq!(
        (&status["processes"][0]["pid"], &status["processes"][0]["change"]),
        (&pid.into(), &"replaced".into()),
        "{status}"
    );
    assert!(text.contains("maps the file that had this name before"), "{text}");

    let mut chat = chat_with(&tiny.model, home.path());
    let pid = chat.id();
    std::fs::File::options().write(true).open(&tiny.model).unwrap().set_len(5000).unwrap();
    let broken = run(&["status", "-model", &tiny.model]);
    drop(chat.stdin.take());
    chat.wait_with_output().unwrap();
    assert_eq!(broken.code, 1, "{}", broken.stderr);
    assert!(
        broken.stderr.contains(&format!("warning: process {pid} (modelembed) maps more than is left")),
        "{broken:?}"
    );
    assert!(broken.stderr.lines().last().unwrap().starts_with("error: "), "{}", broken.stderr);
}

#[test]
fn verify_hashes_compares_and_finds_bad_values() {
    let tiny = tiny_model();
    let verified = json(&["verify", "-model", &tiny.model, "-tensors"]);
    let file = &verified["files"][0];
    let hash = file["sha256"].as_str().unwrap().to_string();
    assert_eq!(hash, modelembed_testkit::sha256_hex(&std::fs::read(&tiny.model).unwrap()));
    assert!(file["tensors"].as_array().unwrap().len() > 10 && file["bad"] == serde_json::json!([]), "{file}");
    assert_eq!(file["matches"], Value::Null);

    let beside = format!("{}.sha256", tiny.model);
    std::fs::write(&beside, format!("{hash}  tiny.gguf\n")).unwrap();
    assert_eq!(json(&["verify", "-model", &tiny.model])["files"][0]["matches"], true);
    std::fs::write(&beside, "0".repeat(64)).unwrap();
    let wrong = run(&["verify", "-model", &tiny.model]);
    assert!(wrong.code == 1 && wrong.stdout.contains("WRONG: its .sha256 file says 0000"), "{}", wrong.stdout);
    std::fs::write(&beside, "hello").unwrap();
    let nonsense = run(&["verify", "-model", &tiny.model]);
    assert!(nonsense.code == 1 && nonsense.stderr.contains("holds no SHA-256 of tiny.gguf"), "{}", nonsense.stderr);
    std::fs::remove_file(&beside).unwrap();

    spoil_last_weight(Path::new(&tiny.model));
    let bad = run(&["verify", "-model", &tiny.model]);
    assert_eq!(bad.code, 1);
    assert!(bad.stdout.contains("WRONG: tensor ") && bad.stdout.contains(": block "), "{}", bad.stdout);
}

/// The tiny llama's tensors are F32: four bytes of the last one become a NaN.
fn spoil_last_weight(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let inspected = run(&["inspect", "-model", path.to_str().unwrap(), "-format", "json"]).ok().stdout;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let tensors = inspected["tensors"].as_array().unwrap();
    let last = tensors.iter().filter(|t| t["type"] == "F32").max_by_key(|t| t["offset"].as_u64()).unwrap();
    let end = (last["offset"].as_u64().unwrap() + last["bytes"].as_u64().unwrap()) as usize;
    bytes[end - 4..end].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn compare_runs_every_mode_in_a_process_of_its_own() {
    let tiny = tiny_model();
    let svg = tiny.folder.path().join("modes.svg");
    let runs = json(&["compare", "-model", &tiny.model, "-ctx", "128", "-svg", svg.to_str().unwrap()])["runs"].clone();
    let warm: Vec<&Value> = runs.as_array().unwrap().iter().filter(|run| run["cold"] == false).collect();
    let modes: Vec<&str> = warm.iter().map(|run| run["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["map", "buffer", "file"]);
    assert!(warm.iter().all(|run| run["statistics"]["load_ms"].as_f64().is_some()), "{runs}");
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
}

#[test]
fn compare_shows_that_the_text_is_the_same_and_that_a_map_is_shared() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let compared =
        json(&["compare", "-model", &model, "-warm-only", "-gen-tokens", "4", "-ctx", "64", "-threads", "1"]);
    assert_eq!((&compared["same_text"], &compared["no_cold_runs"]), (&true.into(), &"-warm-only was given".into()));
    let private = |i: usize| compared["runs"][i]["statistics"]["private_bytes"].as_u64();
    if let (Some(map), Some(buffer), Some(file)) = (private(0), private(1), private(2)) {
        assert!(map < 40 << 20 && buffer > 80 << 20 && file > 80 << 20, "{compared}");
    }
    let text = run(&["compare", "-model", &model, "-warm-only", "-gen-tokens", "2", "-ctx", "64"]).ok();
    assert!(text.stdout.contains("Every run gave the same text.") && text.stderr.is_empty(), "{}", text.stdout);
    assert_eq!(text.stdout.matches(" warm ").count(), 3, "{}", text.stdout);
}
