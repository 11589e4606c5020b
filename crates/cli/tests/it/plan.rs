//! What is told before anything is loaded, and -mlock.

use crate::util::*;
use serde_json::Value;

fn json(args: &[&str]) -> Value {
    run(&[args, &["-format", "json"]].concat()).ok().json()
}

#[test]
fn a_dry_run_plans_and_loads_nothing() {
    let tiny = tiny_model();
    let text = run(&["-model", &tiny.model, "-dry-run", "-p", "the"]).ok();
    assert!(text.stdout.starts_with("Plan: fits: "), "{}", text.stdout);
    assert!(text.stdout.contains("\nLoad: ") && text.stdout.contains("\nSpeed: "), "{}", text.stdout);
    assert_eq!(text.stderr, "");
    let object = json(&["-model", &tiny.model, "-dry-run", "-quiet"]);
    assert_eq!(object["verdict"], "fits");
    assert!(object["weight_bytes"].as_u64().unwrap() > 0 && object["other_bytes"].as_u64().unwrap() > 0, "{object}");
    assert!(object["most_tokens_per_second"].as_f64().is_none_or(|speed| speed > 0.0), "{object}");
}

#[test]
fn a_model_without_room_is_impossible_and_ends_with_1() {
    let tiny = tiny_model();
    let refused = run(&["-model", &tiny.model, "-dry-run", "-ram-budget", "1M"]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(refused.stdout.starts_with("Plan: impossible: "), "{}", refused.stdout);
}

#[test]
fn a_model_that_streams_says_how_much_a_token() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let text = run(&["-model", &model, "-dry-run", "-ram-budget", "80M", "-ctx", "128"]).ok().stdout;
    assert!(text.starts_with("Plan: streams ") && text.contains(" a token"), "{text}");
    let object = json(&["-model", &model, "-dry-run", "-ram-budget", "80M", "-ctx", "128"]);
    let streamed = object["streamed_bytes_per_token"].as_u64().unwrap();
    assert!(streamed > 0 && object["first_read_bytes"].as_u64().is_none_or(|bytes| bytes >= streamed), "{object}");
    let copy = run(&["-model", &model, "-dry-run", "-ram-budget", "80M", "-ctx", "128", "-memory"]);
    assert!(copy.code == 1 && copy.stdout.contains("-mmap needs no copy"), "{}", copy.stdout);
}

#[test]
fn inspect_has_the_plan_unless_it_is_left_out() {
    let tiny = tiny_model();
    let with = run(&["inspect", "-model", &tiny.model]).ok().stdout;
    assert!(with.contains("\nPlan: fits: ") && with.contains("\nMetadata:\n"), "{with}");
    assert_eq!(json_of_inspect(&tiny.model, &[])["plan"]["verdict"], "fits");
    let without = run(&["inspect", "-model", &tiny.model, "-no-plan"]).ok().stdout;
    assert!(!without.contains("Plan: "), "{without}");
    assert_eq!(json_of_inspect(&tiny.model, &["-no-plan"])["plan"], Value::Null);
}

/// The JSON of `inspect` has many lines.
fn json_of_inspect(model: &str, more: &[&str]) -> Value {
    let args = [&["inspect", "-model", model, "-format", "json"], more].concat();
    serde_json::from_str(&run(&args).ok().stdout).unwrap()
}

#[test]
fn locking_tells_what_it_got_and_fails_only_where_all_is_required() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let common = ["-model", &model, "-p", "a", "-n", "2", "-raw"];
    let locked = |more: &[&str]| json(&[&common[..], more].concat())["statistics"]["locked"].clone();
    assert_eq!(locked(&[]), Value::Null);
    let some = locked(&["-mlock=20M"]);
    let (bytes, wanted) = (some["bytes"].as_u64().unwrap(), some["wanted_bytes"].as_u64().unwrap());
    assert!(bytes <= 20 << 20 && wanted > 80 << 20 && some["reason"].is_string(), "{some}");
    let all = locked(&["-mlock"]);
    assert!(all["bytes"].as_u64() == Some(wanted) || all["reason"].is_string(), "{all}");
    // Tensors that are read one by one can be locked, too.
    let one_by_one = locked(&["-mlock", "-mmap=false"]);
    assert!(all["bytes"].as_u64() != Some(wanted) || one_by_one["bytes"] == all["bytes"], "{one_by_one}");
    let text = run(&[&common[..], &["-mlock=20M"]].concat()).ok().stderr;
    assert!(text.contains("  Locked: ") && text.contains("-mlock allows 20971520 bytes"), "{text}");
    let required = run(&[&common[..], &["-mlock=require"]].concat());
    match required.code {
        0 => assert_eq!(all["bytes"].as_u64(), Some(wanted)),
        code => assert!(code == 1 && required.stderr.contains("can be locked in memory: "), "{}", required.stderr),
    }
    assert_eq!(run(&["-mlock=perhaps"]).code, 2);
}

/// Under a limit of 8 MiB, as many systems have it.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_locked_memory_ends_the_locking_but_not_the_run() {
    let Some(model) = real_model(SMOLLM2) else { return };
    let home = tempfile::tempdir().unwrap();
    let is_root = std::fs::metadata(home.path()).is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if is_root {
        return eprintln!("skipped: the superuser has no limit on locked memory");
    }
    let script = r#"ulimit -l 8192; exec "$0" "$@""#;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_modelembed"), "-model", &model, "-p", "a", "-n", "2", "-mlock"]);
    let output = command.env("HOME", home.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("the limit (ulimit -l) allows "), "{stderr}");
}
