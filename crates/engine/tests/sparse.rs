//! A file of 100 GB opens without being read: what it costs is counted, not timed.
#![cfg(target_os = "linux")]

use modelembed::{LoadOptions, Model, ModelFiles, RamBudget, Verdict};
use modelembed_storage::process;
use modelembed_testkit::{emulated, sparse_model};

const MIB: u64 = 1 << 20;

fn cached_bytes(files: &ModelFiles) -> u64 {
    files.storages().map(|s| s.residency(0..s.len()).expect("the file is ours").resident_bytes).sum()
}

// One test in a binary of its own, since faults are the whole process's.
#[test]
fn a_hundred_gigabytes_open_without_being_read() {
    if emulated("a map of 100 GB") {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("sparse.gguf");
    let len = match sparse_model(&path, 1900) {
        Ok(len) => len,
        Err(error) => return eprintln!("skipped: this file system has no files of 100 GB: {error}"),
    };
    assert!(len > 100_000_000_000, "{len}");
    // What was just written is in the cache: the header.
    let faults = |s: process::Snapshot| s.minor_faults.unwrap_or(0) + s.major_faults.unwrap_or(0);
    let before = process::snapshot();
    let files = ModelFiles::open(&path).unwrap();
    let options = LoadOptions::default().threads(2).ram_budget(RamBudget::Bytes(400 * MIB)).ctx_tokens(32);
    let plan = files.plan(&options).unwrap();
    let after = process::snapshot();
    assert_eq!((files.tensors().count(), plan.verdict), (1900 * 9 + 3, Verdict::Streams));
    // The directory of 17,103 tensors is what costs pages: 1.3 MB in the file, some MB on the heap.
    assert!(faults(after) - faults(before) < 8000, "{} faults", faults(after) - faults(before));
    let read = after.read_bytes.zip(before.read_bytes).map_or(0, |(after, before)| after - before);
    assert!(read < 16 * MIB, "{read} bytes read");
    assert!(cached_bytes(&files) < 16 * MIB, "{} bytes in the cache", cached_bytes(&files));

    // Ready for a prompt: a few windows are filled past the cache, and nothing is read of all the
    // rest.
    let model = Model::load(&path, &options).unwrap();
    assert_eq!(model.plan().verdict, Verdict::Streams, "{}", model.plan());
    let streamed = model.stream_stats().expect("it streams").read_bytes;
    assert!(streamed < 400 * MIB, "{streamed} bytes streamed");
    drop(model);
    assert!(cached_bytes(&files) < 400 * MIB, "{} bytes in the cache", cached_bytes(&files));
}
