//! What the counters and the system say about memory. One test, since the figures are the whole
//! process's.

use std::ops::ControlFlow;

use modelembed_storage::{CountingAllocator, LoadMode, Reserved, Storage, process};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const MIB: u64 = 1 << 20;

/// Runs `work` and tells by how much it changed (allocated bytes, bytes allocated in total, private
/// bytes), while what it returns still lives.
fn growth<T>(work: impl FnOnce() -> T) -> (T, u64, u64, Option<u64>) {
    // Windows counts what is promised, not what is touched; wine, where its tests run, counts
    // neither. Under an emulator the figures are the emulator's process's.
    let private = || {
        process::snapshot().private_bytes.filter(|_| !cfg!(windows) && !modelembed_testkit::emulated("private bytes"))
    };
    private(); // Its own buffers come from memory that the allocator keeps afterwards.
    let before = (CountingAllocator::allocated_bytes(), CountingAllocator::total_bytes(), private());
    let result = work();
    let now = (CountingAllocator::allocated_bytes(), CountingAllocator::total_bytes(), private());
    (result, now.0.saturating_sub(before.0), now.1 - before.1, now.2.zip(before.2).map(|(a, b)| a.saturating_sub(b)))
}

/// A figure that should be `wanted` MiB, with what the runtime and the system do beside it.
#[track_caller]
fn about(bytes: u64, wanted: u64) {
    let mib = bytes as f64 / MIB as f64;
    assert!((mib - wanted as f64).abs() < 2.5, "{mib} MiB instead of {wanted}");
}

#[test]
fn figures_are_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, vec![3u8; 32 << 20]).unwrap();
    let open = |mode| Storage::open(&path, mode, &mut |_| ControlFlow::Continue(())).unwrap();

    let (vec, allocated, total, _) = growth(|| {
        drop(vec![1u8; 7 << 20]);
        vec![1u8; 5 << 20]
    });
    about(allocated, 5);
    about(total, 12);
    drop(vec);

    // The pages of a map are not private, not even those that were just written and wait for the
    // disk.
    let (map, allocated, total, private) = growth(|| {
        let map = open(LoadMode::Map);
        assert!(map.bytes(0..map.len()).unwrap().iter().all(|byte| *byte == 3));
        map
    });
    about(allocated, 0);
    about(total, 0);
    private.into_iter().for_each(|private| about(private, 0));
    if !modelembed_testkit::emulated("shared bytes")
        && let (Some(shared), Some(mapped)) = (process::snapshot().shared_bytes, map.mapped_resident_bytes())
    {
        assert_eq!(mapped, 32 * MIB);
        assert!(shared >= mapped, "{shared}");
    }
    drop(map);

    let (buffer, allocated, total, private) = growth(|| open(LoadMode::Buffer));
    about(allocated, 32);
    about(total, 32);
    private.into_iter().for_each(|private| about(private, 32));
    let before = CountingAllocator::allocated_bytes();
    drop(buffer);
    about(before - CountingAllocator::allocated_bytes(), 32);

    let (file, allocated, _, private) = growth(|| {
        let mut file = open(LoadMode::File);
        file.load(&[0..MIB, 4 * MIB..9 * MIB], &mut |_| ControlFlow::Continue(())).unwrap();
        file
    });
    about(allocated, 6);
    private.into_iter().for_each(|private| about(private, 6));
    drop(file);

    // Reserved memory counts as it is touched, in the system's figures only.
    let (mut reserved, allocated, _, private) = growth(|| Reserved::<f32>::zeroed(64 << 20).unwrap());
    about(allocated, 0);
    private.into_iter().for_each(|private| about(private, 0));
    let ((), _, _, private) = growth(|| reserved[..2 << 20].fill(1.0));
    private.into_iter().for_each(|private| about(private, 8));
    reserved.committed_bytes().into_iter().for_each(|committed| about(committed, 8));
}
