//! Models that are opened and closed leave nothing behind. A program of its own: other tests would
//! open files meanwhile.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use modelembed::{LoadMode, LoadOptions, Model};
use modelembed_testkit::{tiny, tiny_spec};

/// Open descriptors, mappings and threads of this process.
fn held() -> [usize; 3] {
    let count = |folder| std::fs::read_dir(folder).unwrap().count();
    let mappings = std::fs::read_to_string("/proc/self/maps").unwrap();
    // Memory of the allocator's comes and goes; files are what must not stay.
    let of_files = mappings.lines().filter(|line| line.contains("leak-test")).count();
    [count("/proc/self/fd"), of_files, count("/proc/self/task")]
}

#[test]
fn a_thousand_models_leave_no_descriptor_mapping_or_thread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leak-test.gguf");
    std::fs::write(&path, tiny(&tiny_spec("llama"))).unwrap();
    let bad = dir.path().join("leak-test-bad.gguf");
    std::fs::write(&bad, &tiny(&tiny_spec("llama"))[..100_000]).unwrap();
    let before = held();
    for i in 0..1000 {
        let mode = [LoadMode::Map, LoadMode::Buffer, LoadMode::File][i % 3];
        let options = LoadOptions::default().mode(mode).threads(2);
        let load = |path| Model::load(path, &options);
        drop(load(&path).unwrap());
        assert!(load(&bad).is_err());
    }
    // The threads that prefetch end soon, by themselves.
    let start = Instant::now();
    while held() != before && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(held(), before, "(descriptors, mappings, threads)");
}
