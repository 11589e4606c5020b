//! The three ways to load give the same bytes, and what cannot be loaded gives one clear error.

use std::ops::ControlFlow;
use std::path::Path;

use modelembed_storage::{LoadMode, Progress, Storage, StorageError};

const MODES: [LoadMode; 3] = [LoadMode::Map, LoadMode::Buffer, LoadMode::File];

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

fn open(path: &Path, mode: LoadMode) -> Result<Storage, StorageError> {
    Storage::open(path, mode, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn all_modes_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    // More than one piece of a parallel read, and no multiple of a page.
    let bytes = content((9 << 20) + 12345);
    std::fs::write(&path, &bytes).unwrap();
    let ranges = [0..1u64, 4095..4097, 70..70, 1 << 20..6 << 20, (9 << 20)..bytes.len() as u64];
    for mode in MODES {
        let mut storage = open(&path, mode).unwrap();
        assert_eq!(storage.len(), bytes.len() as u64);
        let header = storage.header(5000).unwrap();
        assert!((*header).as_ref().len() >= 5000 && bytes.starts_with((*header).as_ref()), "{mode:?}");
        storage.load(&ranges, &mut |_| ControlFlow::Continue(())).unwrap();
        for r in &ranges {
            let got = storage.bytes(r.clone()).unwrap_or_else(|| panic!("{mode:?} {r:?}"));
            assert!(got == &bytes[r.start as usize..r.end as usize], "{mode:?} {r:?}");
        }
        assert_eq!(
            storage.bytes((2 << 20) + 3..(2 << 20) + 5).unwrap(),
            &bytes[(2 << 20) + 3..(2 << 20) + 5],
            "{mode:?}"
        );
        assert_eq!(storage.bytes(10..bytes.len() as u64 + 1), None, "{mode:?}");
        assert_eq!(storage.bytes(u64::MAX - 1..u64::MAX), None, "{mode:?}");
    }
}

#[test]
fn bytes_that_were_not_loaded_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, content(1000)).unwrap();
    let mut storage = open(&path, LoadMode::File).unwrap();
    storage.load(std::slice::from_ref(&(100..200)), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(storage.bytes(150..200).is_some());
    assert_eq!(storage.bytes(150..201), None);
    assert_eq!(storage.bytes(50..60), None);
    let beyond = storage.load(std::slice::from_ref(&(900..1001)), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(beyond, Err(StorageError::Shrunk { .. })), "{beyond:?}");
}

#[test]
fn progress_reaches_the_end_and_can_cancel() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, content(5 << 20)).unwrap();
    let mut last = Progress { done_bytes: 0, total_bytes: 0 };
    Storage::open(&path, LoadMode::Buffer, &mut |p| {
        assert!(p.done_bytes >= last.done_bytes && p.done_bytes <= p.total_bytes);
        last = p;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(last, Progress { done_bytes: 5 << 20, total_bytes: 5 << 20 });
    let cancelled = Storage::open(&path, LoadMode::Buffer, &mut |_| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(StorageError::Cancelled)), "{cancelled:?}");
}

#[test]
fn what_is_no_model_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    for mode in MODES {
        let message = |path: &Path| open(path, mode).unwrap_err().to_string();
        assert!(message(&dir.path().join("none")).starts_with("Model file not found: "), "{mode:?}");
        assert!(message(dir.path()).contains("is a directory"), "{mode:?}");
        assert!(message(&empty).contains("is empty"), "{mode:?}");
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for mode in MODES {
        assert!(matches!(open(&fifo, mode), Err(StorageError::NotRegular { .. })), "{mode:?}");
        assert!(matches!(open(Path::new("/dev/null"), mode), Err(StorageError::NotRegular { .. })), "{mode:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn opening_and_closing_leaks_no_descriptor_and_no_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leak-test-model");
    std::fs::write(&path, content(10_000)).unwrap();
    for _ in 0..70 {
        for mode in MODES {
            drop(open(&path, mode).unwrap());
        }
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let left = descriptors.filter(|d| std::fs::read_link(d.as_ref().unwrap().path()).is_ok_and(|p| p == path)).count();
    assert_eq!(left, 0, "descriptors");
    assert!(!std::fs::read_to_string("/proc/self/maps").unwrap().contains("leak-test-model"), "mappings");
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_just_written_is_resident() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, content(1 << 20)).unwrap();
    let storage = open(&path, LoadMode::Map).unwrap();
    storage.prefetch(0..1 << 20);
    let all = storage.residency(100..(1 << 20) - 7).unwrap();
    assert_eq!((all.resident_bytes, all.total_bytes), ((1 << 20) - 107, (1 << 20) - 107));
    assert!(storage.mapped_resident_bytes().unwrap() >= 1 << 20);
    assert_eq!(open(&path, LoadMode::Buffer).unwrap().residency(0..10), None);
}

#[cfg(target_os = "linux")]
#[test]
fn a_mapped_file_that_was_just_written_is_not_private() {
    const MB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, content(64 << 20)).unwrap();
    let storage = open(&path, LoadMode::Map).unwrap();
    storage.prefetch(0..64 * MB);
    let mapped = modelembed_storage::process::snapshot();
    assert!(storage.mapped_resident_bytes().unwrap() >= 64 * MB);
    assert!(mapped.private_bytes.unwrap() + 64 * MB <= mapped.resident_bytes.unwrap(), "{mapped:?}");
}
