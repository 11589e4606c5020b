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
    assert!(copy.code == 1 && copy.stdout.contains("a mapped model needs no copy"), "{}", copy.stdout);
}

/// Plans, runs and benchmarks of a mixture whose experts do not all fit, with the text that it has
/// when they do.
#[test]
fn a_mixture_keeps_what_every_token_needs_and_some_experts() {
    let mixture = tiny_mixture();
    let roomy = json(&["-model", &mixture.model, "-dry-run", "-ram-budget", "4G", "-ctx", "64"]);
    assert_eq!((roomy["verdict"].as_str(), &roomy["experts"]), (Some("fits"), &Value::Null), "{roomy}");
    let all = roomy["weight_bytes"].as_u64().unwrap() + roomy["other_bytes"].as_u64().unwrap();
    let budget = (all - (40 << 20)).to_string();
    let fixed = ["-model", &mixture.model, "-ram-budget", &budget, "-ctx", "64"];
    let text = run(&[&fixed[..], &["-dry-run"]].concat()).ok().stdout;
    assert!(text.starts_with("Plan: streams experts: ") && text.contains("40, 65 or 80 % of those"), "{text}");
    let plan = json(&[&fixed[..], &["-dry-run"]].concat());
    let number = |key: &str| plan["experts"][key].as_u64().unwrap();
    assert_eq!((plan["verdict"].as_str(), number("count"), number("used_per_token")), (Some("streams"), 96, 24));
    assert!(number("slot_bytes") < number("bytes") && number("dense_bytes") > 0, "{plan}");
    assert_eq!(plan["experts"]["speeds"].as_array().unwrap().len(), 3);
    let talk = ["-raw", "-p", "the cat", "-n", "8", "-temp", "0", "-quiet"];
    run(&["evict", "-model", &mixture.model]).ok();
    let squeezed = run(&[&fixed[..], &talk].concat()).ok();
    let in_cache = json(&["status", "-model", &mixture.model]);
    let free = run(&[&["-model", &mixture.model, "-ctx", "64"], &talk[..]].concat()).ok();
    let answer = |text: &str| text.split("Memory Statistics").next().unwrap().to_owned();
    assert_eq!(answer(&squeezed.stdout), answer(&free.stdout));
    let run_json = json(&[&fixed[..], &talk].concat());
    let experts = &run_json["statistics"]["experts"];
    assert!(experts["used"].as_u64().unwrap() > 24 && experts["missed"].as_u64().unwrap() > 0, "{run_json}");
    // Where reads go past the page cache, it has little of the experts: the pages that they share with
    // what every token needs, and what the system read around those.
    let parts = in_cache["parts"].as_array().unwrap();
    let of_experts =
        || parts.iter().filter(|part| part["name"].as_str().is_some_and(|name| name.starts_with("experts")));
    let sum = |key: &str| of_experts().map(|part| part[key].as_u64()).sum::<Option<u64>>();
    if let (Some(resident), Some(all), true) = (sum("resident_bytes"), sum("bytes"), experts["direct"] == true) {
        assert!(resident < all / 4, "{resident} of {all} bytes of experts in the page cache");
    }
    let bench = ["bench", "-prompt-tokens", "0", "-gen-tokens", "4", "-repeat", "1", "-no-bandwidth"];
    let ids = mixture.folder.path().join("ids").to_str().unwrap().to_owned();
    let text = run(&[&bench[..], &fixed, &["-write-ids", &ids]].concat()).ok().stdout;
    assert!(text.contains("Experts, last run: ") && text.contains("At most "), "{text}");
    assert_eq!(std::fs::read_to_string(&ids).unwrap().lines().count(), 5);
    let again = json(&[&bench[..], &fixed, &["-ids", &ids]].concat());
    assert_eq!(again["experts"]["bounds"].as_array().unwrap().len(), 2, "{again}");
    let compare = ["compare", "-warm-only", "-gen-tokens", "4"];
    let text = run(&[&compare[..], &fixed].concat()).ok().stdout;
    assert!(text.contains("\nExperts, map, warm: ") && text.contains(" a token from the disk"), "{text}");
    assert!(text.contains("Every run gave the same text."), "{text}");
    let status = run(&["status", "-model", &mixture.model]).ok().stdout;
    assert!(status.contains("experts 0") && status.contains("experts 11"), "{status}");
    assert!(run(&["warm", "-model", &mixture.model, "-layers", "dense"]).ok().stdout.contains("in memory after"));
}

#[test]
fn inspect_measures_for_a_plan_only_if_it_is_asked_for() {
    let tiny = tiny_model();
    let with = run(&["inspect", "-model", &tiny.model, "-plan"]).ok().stdout;
    assert!(with.contains("\nPlan: fits: ") && with.contains("\nMetadata:\n"), "{with}");
    let plan = json_of_inspect(&tiny.model, &["-plan"])["plan"].clone();
    assert!(plan["verdict"] == "fits" && plan["memory_bytes_per_second"].is_number(), "{plan}");
    let without = run(&["inspect", "-model", &tiny.model]).ok().stdout;
    assert!(!without.contains("Plan: ") && without.contains("\nMetadata:\n"), "{without}");
    assert_eq!(json_of_inspect(&tiny.model, &[])["plan"], Value::Null);
}

/// Half a gigabyte is swept to measure memory: a limit on addresses tells whether it was.
#[cfg(target_os = "linux")]
#[test]
fn inspect_needs_little_memory() {
    let tiny = tiny_model();
    let mut command = std::process::Command::new("sh");
    let script = r#"ulimit -v 262144; exec "$0" inspect -model "$1" -quiet"#;
    command.args(["-c", script, env!("CARGO_BIN_EXE_modelembed"), &tiny.model]);
    let output = command.env("HOME", tiny.folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn one_answer_is_planned_with_what_it_can_use() {
    let tiny = tiny_model();
    let other_bytes = |args: &[&str]| {
        let common = ["-model", &tiny.model, "-dry-run", "-ram-budget", "4G"];
        json(&[&common, args].concat())["other_bytes"].as_u64().unwrap()
    };
    let whole = other_bytes(&["-i"]);
    let endless = other_bytes(&["-raw", "-p", "the cat", "-n", "-1"]);
    let short = other_bytes(&["-raw", "-p", "the cat", "-n", "8"]);
    let longer = other_bytes(&["-raw", "-p", "the cat", "-n", "9"]);
    let chat = other_bytes(&["-template", "chatml", "-p", "the cat", "-n", "8"]);
    assert!(short < endless && endless < whole, "{short} {endless} {whole}");
    // One token's keys and values, and the template's tokens.
    assert!(short < longer && longer < chat && chat < endless, "{short} {longer} {chat} {endless}");
    assert_eq!(whole, other_bytes(&["-i", "-ctx", "2048"]));
    assert!(other_bytes(&["-i", "-ctx", "0"]) < whole, "this model's own context has 1024 tokens");
    assert!(other_bytes(&["-raw", "-p", "the cat", "-n", "8", "-ctx", "4"]) < short, "-ctx is a bound");
    // What will come through a pipe is not waited for.
    let piped = run_in(
        tiny.folder.path(),
        &["-model", &tiny.model, "-dry-run", "-format", "json", "-ram-budget", "4G"],
        Some(b"x"),
    );
    assert_eq!(piped.ok().json()["other_bytes"], whole);
    // The run itself has the same plan.
    let args = ["-model", &tiny.model, "-ram-budget", "4G", "-raw", "-p", "the cat", "-n", "8"];
    let planned = run(&[&args[..], &["-dry-run"]].concat()).ok().stdout;
    let ran = json(&args)["statistics"]["plan"].as_str().unwrap().to_string();
    assert!(planned.lines().next().unwrap().ends_with(&ran), "{planned} {ran}");
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
    assert!(
        text.contains("  Locked: ") && text.contains("the limit that was asked for allows 20971520 bytes"),
        "{text}"
    );
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
