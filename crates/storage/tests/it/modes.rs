//! The three ways to load give the same bytes, and what cannot be loaded gives one clear error.

use std::ops::ControlFlow;
use std::path::Path;

use modelembed_storage::{Advice, Change, LoadMode, Progress, Storage, StorageError, lockable_bytes};

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
        assert!(!storage.advise(0..100, Advice::Normal) || mode == LoadMode::Map, "{mode:?}: only maps take advice");
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
    #[allow(clippy::reversed_empty_ranges, reason = "a caller's mistake")]
    for bad in [900..1001, u64::MAX - 1..u64::MAX, 10..5] {
        let beyond = storage.load(std::slice::from_ref(&bad), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(beyond, Err(StorageError::OutOfRange { .. })), "{bad:?}: {beyond:?}");
    }
}

#[test]
fn ranges_may_lie_in_any_order_and_within_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let bytes = content(1000);
    std::fs::write(&path, &bytes).unwrap();
    let mut storage = open(&path, LoadMode::File).unwrap();
    let mut total_bytes = Vec::new();
    for ranges in [&[500..600u64, 20..30, 20..20, 25..27][..], &[0..100, 500..550, 20..30], &[90..200, 500..600]] {
        storage
            .load(ranges, &mut |p| {
                total_bytes.push(p.total_bytes);
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    total_bytes.dedup();
    // What was loaded before (500..550, 20..30, 500..600) is not read again.
    assert_eq!(total_bytes, [112, 100, 110]);
    for r in [0..100usize, 20..30, 22..90, 90..200, 95..99, 150..200, 500..600, 510..511, 600..600] {
        assert_eq!(storage.bytes(r.start as u64..r.end as u64), Some(&bytes[r.clone()]), "{r:?}");
    }
    for r in [80..150, 200..201, 499..501, 600..601] {
        assert_eq!(storage.bytes(r.clone()), None, "{r:?}");
    }
}

#[test]
fn each_tensor_begins_at_a_cache_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, content(10_000)).unwrap();
    for mode in [LoadMode::Buffer, LoadMode::File] {
        let mut storage = open(&path, mode).unwrap();
        storage.load(&[0..3, 64..99, 192..9999], &mut |_| ControlFlow::Continue(())).unwrap();
        for start in [0, 64, 192] {
            let at = storage.bytes(start..start + 2).unwrap().as_ptr() as usize;
            assert_eq!(at % 64, 0, "{mode:?} {start}");
        }
    }
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

    let mut storage = open(&path, LoadMode::File).unwrap();
    let ranges = [0..10u64, 10..5 << 20];
    let cancelled = storage.load(&ranges, &mut |_| ControlFlow::Break(()));
    assert!(matches!(cancelled, Err(StorageError::Cancelled)), "{cancelled:?}");
    assert_eq!(storage.bytes(0..1), None, "nothing is kept");
    last = Progress { done_bytes: 0, total_bytes: 0 };
    storage
        .load(&ranges, &mut |p| {
            assert!(p.done_bytes >= last.done_bytes && p.done_bytes <= p.total_bytes);
            last = p;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(last, Progress { done_bytes: 5 << 20, total_bytes: 5 << 20 });
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, content(100_000)).unwrap();
    let mut storage = open(&path, LoadMode::File).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(30_000).unwrap();
    let result = storage.load(&[0..100, 20_000..50_000], &mut |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(StorageError::Shrunk { at: 30_000, wanted: 100_000, .. })), "{result:?}");
    let result = storage.header(90_000).map(|_| ());
    assert!(matches!(result, Err(StorageError::Shrunk { .. })), "{result:?}");
    // A map made before the file shrank must not be touched beyond its end; a new one knows the new
    // length.
    assert_eq!(open(&path, LoadMode::Map).unwrap().len(), 30_000);
}

// Other systems' file systems may not have sparse files.
#[cfg(target_os = "linux")]
#[test]
fn a_copy_that_does_not_fit_is_refused_before_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge-model");
    let len = 1u64 << 42;
    std::fs::File::create(&path).unwrap().set_len(len).unwrap();
    let refused = open(&path, LoadMode::Buffer).unwrap_err();
    assert!(matches!(refused, StorageError::OutOfMemory { wanted_bytes, .. } if wanted_bytes == len), "{refused:?}");
    let message = refused.to_string();
    assert!(message.contains("huge-model") && message.contains("private copy"), "{message}");
    let mut storage = open(&path, LoadMode::File).unwrap();
    let ranges = [0..10, 10..len / 2, len / 2..len];
    let refused = storage.load(&ranges, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(refused, StorageError::OutOfMemory { wanted_bytes, .. } if wanted_bytes == len), "{refused:?}");
    // The map has no such limit.
    if modelembed_testkit::emulated("a map of 4 TB") {
        return;
    }
    assert_eq!(open(&path, LoadMode::Map).unwrap().bytes(len - 3..len), Some(&[0; 3][..]));
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
        assert!(message(&empty.join("model")).starts_with("Model file not found: "), "{mode:?}");
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_dangling_ones_named() {
    let dir = tempfile::tempdir().unwrap();
    let (link, target) = (dir.path().join("link"), dir.path().join("target"));
    std::os::unix::fs::symlink("target", &link).unwrap();
    let message = open(&link, LoadMode::Map).unwrap_err().to_string();
    assert!(message.starts_with("Model file not found: ") && message.contains("link to target"), "{message}");
    std::fs::write(&target, b"bytes").unwrap();
    assert_eq!(open(&link, LoadMode::Map).unwrap().bytes(0..5), Some(&b"bytes"[..]));
    // A name that is no UTF-8.
    use std::os::unix::ffi::OsStrExt;
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"od\xff d"));
    if std::fs::rename(&target, &odd).is_ok() {
        let storage = open(&odd, LoadMode::Map).unwrap();
        assert_eq!(storage.bytes(1..3), Some(&b"yt"[..]));
        assert_eq!(storage.mapped_resident_bytes().is_some(), cfg!(target_os = "linux"));
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
    for _ in 0..200 {
        for mode in MODES {
            let mut storage = open(&path, mode).unwrap();
            storage.load(&[10..20, 5000..9000], &mut |_| ControlFlow::Continue(())).unwrap();
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
    if modelembed_testkit::emulated("which pages are there after a prefetch") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, content(1 << 20)).unwrap();
    let storage = open(&path, LoadMode::Map).unwrap();
    storage.prefetch(0..1 << 20);
    let all = storage.residency(100..(1 << 20) - 7).unwrap();
    assert_eq!((all.resident_bytes, all.total_bytes), ((1 << 20) - 107, (1 << 20) - 107));
    assert!(storage.mapped_resident_bytes().unwrap() >= 1 << 20);
    assert_eq!(storage.residency(0..(1 << 20) + 1), None);
    let buffer = open(&path, LoadMode::Buffer).unwrap();
    assert_eq!((buffer.residency(0..10), buffer.mapped_resident_bytes()), (None, None));
}

#[cfg(target_os = "linux")]
#[test]
fn advice_changes_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("advised-model");
    let bytes = content((1 << 20) + 77);
    std::fs::write(&path, &bytes).unwrap();
    let storage = open(&path, LoadMode::Map).unwrap();
    let whole = 0..storage.len();
    for advice in [Advice::Sequential, Advice::Random, Advice::Normal] {
        assert!(storage.advise(whole.clone(), advice), "{advice:?}");
        assert!(storage.bytes(whole.clone()) == Some(&bytes), "{advice:?}");
    }
    storage.advise(5000..9000, Advice::Cold); // Linux 5.4 and later
    storage.prefetch(whole.clone());
    assert!(storage.mapped_resident_bytes().unwrap() >= storage.len());
    assert!(storage.advise(whole.clone(), Advice::Release));
    // The pages leave the process, not the page cache.
    assert_eq!(storage.mapped_resident_bytes(), Some(0));
    assert_eq!(storage.residency(whole.clone()).unwrap().resident_bytes, storage.len());
    assert!(storage.bytes(whole) == Some(&bytes));
    assert!(!storage.advise(0..storage.len() + 1, Advice::Normal), "beyond the end");
    assert!(!storage.advise(7..7, Advice::Normal), "no bytes");
    storage.prefetch(7..7);
    storage.prefetch(0..u64::MAX);
}

#[test]
fn locked_pages_stay_as_long_as_the_file_is_mapped() {
    const LEN: u64 = 16 << 10; // less than any system's limit
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let bytes = content(5 * LEN as usize);
    std::fs::write(&path, &bytes).unwrap();
    // What Linux counts for this process; no other test here locks anything.
    let locked_kib = || {
        // wine shows /proc, too, but does not pass the locking on.
        let status = std::fs::read_to_string("/proc/self/status").ok().filter(|_| cfg!(target_os = "linux"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmLck:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let before = locked_kib();
    let storage = open(&path, LoadMode::Map).unwrap();
    if lockable_bytes().is_some_and(|bytes| bytes < 2 * LEN) {
        return; // Not even this much is allowed here.
    }
    storage.lock(LEN..2 * LEN).unwrap();
    if let Some(before) = before {
        let more = locked_kib().unwrap() - before;
        assert!((LEN >> 10..=(LEN >> 10) + 128).contains(&more), "{more} KiB"); // pages have at most 64 KiB
    }
    assert!(storage.bytes(0..5 * LEN) == Some(&bytes));
    drop(storage);
    assert_eq!(locked_kib(), before);
}

#[cfg(target_os = "linux")]
#[test]
fn a_mapped_file_that_was_just_written_is_not_private() {
    if modelembed_testkit::emulated("which pages are there after a prefetch") {
        return;
    }
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

#[test]
fn a_range_of_a_file_is_a_storage_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program-and-model");
    let bytes = content((5 << 20) + 777);
    std::fs::write(&path, &bytes).unwrap();
    let all = |_: Progress| ControlFlow::Continue(());
    // At a page boundary, as packed models lie, and anywhere.
    for range in [65536..(4 << 20) + 5u64, 0..100, 12_345..3_000_000, (5 << 20)..bytes.len() as u64] {
        let part = &bytes[range.start as usize..range.end as usize];
        for mode in MODES {
            let mut storage = Storage::open_range(&path, range.clone(), mode, &mut { all }).unwrap();
            let len = range.end - range.start;
            assert_eq!((storage.len(), storage.file_offset()), (len, range.start));
            let header = storage.header(50).unwrap();
            assert!((*header).as_ref().len() >= 50 && part.starts_with((*header).as_ref()), "{mode:?} {range:?}");
            storage.load(&[10..40, 40..len], &mut { all }).unwrap();
            assert!(storage.bytes(10..40) == Some(&part[10..40]), "{mode:?} {range:?}");
            assert!(storage.bytes(40..len) == Some(&part[40..]), "{mode:?} {range:?}");
            assert_eq!(storage.bytes(40..len + 1), None, "{mode:?}: what lies behind the range");
            storage.prefetch(0..len);
            if mode == LoadMode::Map && cfg!(target_os = "linux") {
                assert_eq!(storage.residency(0..len).map(|r| r.total_bytes), Some(len));
                assert_eq!(storage.base_address().unwrap() % 4096, range.start as usize % 4096);
            }
        }
    }
    #[allow(clippy::reversed_empty_ranges, reason = "a caller's mistake")]
    for bad in [7..7, 9..5, 0..bytes.len() as u64 + 1, u64::MAX - 5..u64::MAX] {
        for mode in MODES {
            let refused = Storage::open_range(&path, bad.clone(), mode, &mut { all });
            assert!(matches!(refused, Err(StorageError::OutOfRange { .. })), "{bad:?} {mode:?}: {refused:?}");
        }
    }
}

#[test]
fn a_range_that_is_cut_off_is_an_error_that_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program-and-model");
    std::fs::write(&path, content(100_000)).unwrap();
    let mut storage =
        Storage::open_range(&path, 20_000..90_000, LoadMode::File, &mut |_| ControlFlow::Continue(())).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(50_000).unwrap();
    let result = storage.load(std::slice::from_ref(&(20_000..60_000)), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(StorageError::Shrunk { at: 50_000, wanted: 90_000, .. })), "{result:?}");
}

/// The pages that a file lost are an error of the system call, not a signal: the thread that
/// prefetches must not end the process.
#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn prefetching_what_was_cut_off_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    std::fs::write(&path, content(4 << 20)).unwrap();
    let storage = open(&path, LoadMode::Map).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    for range in [0..4 << 20, 2 << 20..3 << 20, (1 << 20) - 10..(1 << 20) + 10] {
        storage.prefetch(range);
    }
    assert_eq!(storage.bytes(0..5), Some(&content(5)[..]), "what is left can be read");
}

#[test]
fn a_mapped_file_tells_what_became_of_it() {
    type Deed = fn(&Path) -> std::io::Result<()>;
    let rewrite: Deed = |path| {
        use std::io::Write;
        let mut file = std::fs::File::options().write(true).open(path)?;
        file.write_all(b"other")?;
        // Clocks of file systems tick every few milliseconds, and this one may have been written
        // within the same tick.
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1))
    };
    let replace: Deed = |path| {
        let other = path.with_extension("new");
        std::fs::write(&other, content(20000))?;
        std::fs::rename(other, path)
    };
    let rows: [(&str, Deed, Option<Change>); 6] = [
        ("left alone", |_| Ok(()), None),
        ("read", |path| std::fs::read(path).map(drop), None),
        ("cut short", |path| std::fs::File::options().write(true).open(path)?.set_len(10), Some(Change::CutShort)),
        ("rewritten", rewrite, Some(Change::Rewritten)),
        ("replaced", replace, Some(Change::Replaced)),
        ("removed", |path| std::fs::remove_file(path), Some(Change::Removed)),
    ];
    // On Windows the name of a removed file may stay until nobody has the file open.
    for (name, deed, wanted) in rows.into_iter().filter(|row| !(cfg!(windows) && row.0 == "removed")) {
        for mode in MODES {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model");
            std::fs::write(&path, content(20000)).unwrap();
            let storage = open(&path, mode).unwrap();
            assert_eq!(storage.changed(), None, "{name}, {mode:?}, before");
            match deed(&path) {
                // Windows does not do all of this to a file that is mapped or open.
                Err(_) if cfg!(windows) && wanted.is_some() => continue,
                done => done.unwrap(),
            }
            let wanted = if mode == LoadMode::Map { wanted } else { None };
            assert_eq!(storage.changed(), wanted, "{name}, {mode:?}");
            assert_eq!(storage.random_view().and_then(|view| view.changed()), wanted, "{name}, {mode:?}, second view");
        }
    }
}
