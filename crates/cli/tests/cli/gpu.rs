//! Layers on a GPU, from the flags to the banner.

use crate::util::{run, tiny_model};

/// The first GPU, software or not. `None` where there is none, unless `MODELEMBED_REQUIRE_GPU` is set.
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
    }
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
