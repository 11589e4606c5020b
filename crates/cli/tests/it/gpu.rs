//! Layers on a GPU, from the flags to the banner.

use crate::util::{run, tiny_model};

/// The first GPU, software or not. `None` where there is none, unless `MODELEMBED_REQUIRE_GPU` is
/// set.
fn has_gpu() -> bool {
    let found = run(&["-device", "list"]).ok().stdout.starts_with("0: ");
    assert!(found || std::env::var_os("MODELEMBED_REQUIRE_GPU").is_none(), "no GPU, and MODELEMBED_REQUIRE_GPU is set");
    if !found {
        eprintln!("skipped: no GPU adapter");
    }
    found
}

#[test]
fn the_same_answer_comes_from_any_split() {
    if !has_gpu() {
        return;
    }
    let tiny = tiny_model();
    let answer = |ngl: &str| {
        run(&[
            "-model",
            &tiny.model,
            "-ngl",
            ngl,
            "-device",
            "0",
            "-p",
            "the cat",
            "-n",
            "12",
            "-temp",
            "0",
            "-activations",
            "f32",
        ])
        .ok()
    };
    let want = answer("0");
    assert!(!want.stderr.contains("✓ GPU"), "{}", want.stderr);
    for (ngl, placed) in
        [("1", "1 of 3 on"), ("3", "3 of 3 on"), ("4", "3 of 3 and the output head on"), ("all", "3 of 3 and the")]
    {
        let got = answer(ngl);
        assert_eq!(got.stdout, want.stdout, "-ngl {ngl}");
        assert!(got.stderr.contains(&format!("  GPU layers: {ngl}\n")), "{}", got.stderr);
        assert!(got.stderr.contains(&format!("✓ GPU layers: {placed}")), "{}", got.stderr);
        assert!(got.stderr.contains(" MB; on the CPU "), "{}", got.stderr);
        assert!(got.stderr.contains(" MB and the token embedding's "), "{}", got.stderr);
    }
}

#[test]
fn an_embedding_that_is_the_head_too_is_told_to_stay_on_the_cpu() {
    if !has_gpu() {
        return;
    }
    let tiny = tiny_model();
    std::fs::write(&tiny.model, modelembed_testkit::tiny(&modelembed_testkit::tiny_spec("gemma3"))).unwrap();
    for (ngl, is_told) in [("1", false), ("all", true)] {
        let run = run(&["-model", &tiny.model, "-ngl", ngl, "-device", "0", "-raw", "-p", "the cat", "-n", "2"]).ok();
        assert_eq!(run.stderr.contains(" and the token embedding's "), is_told, "-ngl {ngl}: {}", run.stderr);
    }
}

#[test]
fn a_device_without_layers_for_it_is_told_to_be_unused() {
    let tiny = tiny_model();
    let warned = |args: &[&str]| {
        let run = run(&[&["-model", &*tiny.model, "-p", "the cat", "-n", "2"], args].concat()).ok();
        run.stderr.contains("warning: -device has no effect without -ngl")
    };
    assert!(warned(&["-device", "anything"]));
    assert!(!warned(&["-device", "anything", "-ngl", "0"]));
    assert!(!warned(&[]));
}

#[test]
fn the_list_of_devices_comes_as_json_too() {
    let text = run(&["-device", "list"]).ok().stdout;
    let devices = run(&["-device", "list", "-format", "json"]).ok().json()["devices"].clone();
    let devices = devices.as_array().unwrap();
    let lines: Vec<String> = text.lines().filter(|line| !line.starts_with("no GPU")).map(str::to_string).collect();
    // Each fact in a field of its own, which together say what the line does.
    let mut told = Vec::new();
    for device in devices {
        let of = |key: &str| device[key].as_str().unwrap_or_else(|| panic!("{key} is no text in {device}"));
        assert!(["Vulkan", "Metal", "Dx12"].contains(&of("backend")), "{device}");
        assert!(["discrete", "integrated", "virtual", "software", "unknown kind"].contains(&of("kind")), "{device}");
        let index = device["index"].as_u64().unwrap();
        told.push(format!("{index}: {} ({}, {})", of("name"), of("backend"), of("kind")));
    }
    assert_eq!(told, lines);
    assert_eq!(!devices.is_empty(), has_gpu());
}

#[test]
fn a_dry_run_tells_which_device_takes_which_layers_and_loads_nothing() {
    if !has_gpu() {
        return;
    }
    let tiny = tiny_model();
    let dry = |ngl: &str, more: &[&str]| {
        run(&[&["-model", &*tiny.model, "-dry-run", "-device", "0", "-ngl", ngl][..], more].concat()).ok()
    };
    for (ngl, here, there) in [
        ("1", "layers 0 to 1 and the output head", "layer 2"),
        ("all", "the token embedding", "layers 0 to 2 and the output head"),
        ("auto", "the token embedding", "layers 0 to 2 and the output head"),
    ] {
        let text = dry(ngl, &[]).stdout;
        assert!(text.starts_with("Plan: fits: "), "{text}");
        assert!(text.contains(&format!("\nDevice: {here} on CPU: ")), "-ngl {ngl}: {text}");
        let line = text.lines().find(|line| line.starts_with(&format!("Device: {there} on "))).unwrap_or_default();
        assert!(line.contains("): ") && line.ends_with(" MB of keys and values"), "-ngl {ngl}: {text}");
        let object = dry(ngl, &["-format", "json"]).json();
        let devices = object["devices"].as_array().unwrap();
        let number = |i: usize, key: &str| devices[i][key].as_u64().unwrap_or_else(|| panic!("{key}: {object}"));
        assert_eq!((devices.len(), devices[0]["device"].as_str()), (2, Some("CPU")), "{object}");
        assert_eq!(number(0, "n_layers") + number(1, "n_layers"), 3);
        assert_eq!((number(0, "first_layer"), number(1, "first_layer")), (0, number(0, "n_layers")));
        assert_eq!(devices[0]["has_head"].as_bool(), devices[1]["has_head"].as_bool().map(|there| !there));
        assert!(devices[0]["backend"].is_null() && devices[1]["backend"].is_string(), "{object}");
        // What a run that loads it says.
        let args = ["-model", &tiny.model, "-device", "0", "-ngl", ngl, "-p", "the cat", "-n", "1", "-raw"];
        let placed = format!(", {:.2} MB; on the CPU ", number(1, "weight_bytes") as f64 / f64::from(1 << 20));
        let loaded = run(&args).ok().stderr;
        assert!(loaded.contains(&placed), "-ngl {ngl}: not {placed} in {loaded}");
    }
    // Without a GPU in play there is one share, of which the text need not speak.
    let none = dry("0", &[]).stdout;
    assert!(!none.contains("Device: "), "{none}");
    let devices = dry("0", &["-format", "json"]).json()["devices"].clone();
    assert_eq!((devices[0]["n_layers"].as_u64(), &devices[1]), (Some(3), &serde_json::Value::Null));
}

#[test]
fn a_dry_run_for_a_gpu_that_is_not_there_ends_with_1() {
    let tiny = tiny_model();
    let missing = run(&["-model", &tiny.model, "-dry-run", "-ngl", "2", "-device", "no such device"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""), "{}", missing.stderr);
    assert!(missing.stderr.contains("Vulkan, Metal and Direct3D 12"), "{}", missing.stderr);
    let unused = run(&["-model", &tiny.model, "-dry-run", "-device", "anything"]).ok();
    assert!(unused.stderr.contains("warning: -device has no effect without -ngl"), "{}", unused.stderr);
}

#[test]
fn compare_asks_for_the_gpu_in_every_mode() {
    let tiny = tiny_model();
    let args = ["compare", "-model", &tiny.model, "-warm-only", "-ctx", "64", "-format", "json"];
    let run = run(&[&args[..], &["-ngl", "3", "-device", "no such device"]].concat());
    assert_eq!(run.code, 1, "{}", run.stdout);
    let runs = run.json()["runs"].clone();
    let told: Vec<&str> = runs.as_array().unwrap().iter().filter_map(|run| run["error"].as_str()).collect();
    assert!(told.len() == 3 && told.iter().all(|error| error.contains("GPU")), "{runs}");
}

#[test]
fn a_gpu_that_is_not_there_ends_with_1_and_auto_goes_on_without() {
    let tiny = tiny_model();
    let missing = run(&["-model", &tiny.model, "-ngl", "8", "-device", "no such device"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""), "{}", missing.stderr);
    assert!(missing.stderr.contains("Vulkan, Metal and Direct3D 12"), "{}", missing.stderr);
    let auto = run(&["-model", &tiny.model, "-ngl", "auto", "-n", "2"]).ok();
    assert!(!auto.stdout.is_empty());
    let usage = run(&["-model", &tiny.model, "-ngl", "some"]);
    assert_eq!(usage.code, 2, "{}", usage.stderr);
}
