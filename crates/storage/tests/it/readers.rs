//! Streaming by each reader: the same bytes, the same errors, and what happens where the system
//! refuses one.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use modelembed_storage::{LoadMode, Storage, StorageError, Stream, StreamOptions, StreamReader, StreamedRange};
use tempfile::TempDir;

const READERS: [StreamReader; 2] = [StreamReader::Ring, StreamReader::Threads];
const PAGE: u64 = 4096;

/// Bytes in which no two places look the same.
fn content(len: usize) -> Vec<u8> {
    (0..len.div_ceil(4) as u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).take(len).collect()
}

fn write(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("model");
    let mut file = File::create(&path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    path
}

fn open(path: &Path) -> Storage {
    Storage::open(path, LoadMode::Map, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn options(reader: StreamReader, direct: bool) -> StreamOptions {
    StreamOptions { n_windows: 3, reader, direct }
}

/// Units of several ranges: of one page, of odd numbers of pages, of more than one request, and a
/// unit of nothing.
fn units() -> Vec<Vec<StreamedRange>> {
    let range = |first: u64, n: u64| StreamedRange { file: 0, bytes: first * PAGE..(first + n) * PAGE };
    vec![
        vec![range(0, 1), range(300, 401)],
        vec![range(1, 299)],
        vec![],
        vec![range(701, 13), range(1000, 700), range(720, 128)],
        vec![range(2000, 37)],
    ]
}

/// Goes through all units three times; what a range holds is what the file holds.
fn check_bytes(storage: &Storage, stream: &Stream, units: &[Vec<StreamedRange>], wanted: &[u8]) {
    for round in 0..3 {
        for (i, unit) in units.iter().enumerate() {
            stream.acquire(i, &|| false).unwrap();
            for StreamedRange { bytes, .. } in unit {
                let seen = storage.bytes(bytes.clone()).unwrap();
                assert!(
                    seen == &wanted[bytes.start as usize..bytes.end as usize],
                    "round {round}, unit {i}, {bytes:?}"
                );
            }
        }
    }
}

/// A folder on a disk, and one in memory where there is such a thing.
fn folders() -> Vec<TempDir> {
    let shm = Path::new("/dev/shm");
    let disk = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::iter::once(disk).chain(shm.is_dir().then(|| TempDir::new_in(shm).ok()).flatten()).collect()
}

/// Whether this system lets programs have rings: containers often do not.
fn has_ring(storage: &Storage) -> bool {
    let unit = vec![StreamedRange { file: 0, bytes: 0..PAGE }];
    match Stream::start(&[storage], &[unit], options(StreamReader::Ring, false)) {
        Ok(_) => true,
        Err(e) => {
            eprintln!("skipped: io_uring is refused here ({e})");
            false
        }
    }
}

#[test]
fn every_reader_reads_the_same_bytes() {
    let wanted = content((2040 * PAGE + 77) as usize);
    for folder in folders() {
        let path = write(&folder, &wanted);
        for reader in READERS {
            for direct in [true, false] {
                if reader == StreamReader::Ring && !has_ring(&open(&path)) {
                    continue;
                }
                let storage = open(&path);
                let since = std::time::Instant::now();
                let stream = Stream::start(&[&storage], &units(), options(reader, direct)).unwrap();
                check_bytes(&storage, &stream, &units(), &wanted);
                let stats = stream.stats();
                let once: u64 = (0..units().len()).map(|i| stream.unit_bytes(i)).sum();
                eprintln!("{}: {direct} {stats:?}", path.display());
                assert!(stats.reader == reader && (direct || !stats.is_direct), "{stats:?}");
                assert!((3 * once..=5 * once).contains(&stats.read_bytes), "{stats:?}, {once} bytes a round");
                // Time in which the windows are full does not count.
                let pause = std::time::Duration::from_millis(20);
                let stands_still = (0..200).any(|_| {
                    let before = stream.stats().read_time;
                    std::thread::sleep(pause);
                    stream.stats().read_time == before
                });
                let read_time = stream.stats().read_time;
                assert!(stands_still && !read_time.is_zero() && read_time + pause <= since.elapsed(), "{stats:?}");
            }
        }
    }
}

/// Where reads go through the page cache, they leave next to nothing there.
#[test]
fn reads_through_the_cache_are_dropped_behind() {
    let wanted = content((2040 * PAGE) as usize);
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = write(&folder, &wanted);
    let cached = || open(&path).residency(0..wanted.len() as u64).map(|r| r.resident_bytes);
    for reader in READERS {
        if reader == StreamReader::Ring && !has_ring(&open(&path)) {
            continue;
        }
        let storage = open(&path);
        if storage.evict(0..storage.len()).is_err() || cached() != Some(0) {
            return eprintln!("skipped: {:?} bytes cannot be taken out of this cache", cached());
        }
        let stream = Stream::start(&[&storage], &units(), options(reader, false)).unwrap();
        check_bytes(&storage, &stream, &units(), &wanted);
        drop(stream);
        assert!(cached() < Some(wanted.len() as u64 / 8), "{reader:?}: {:?} of {} bytes", cached(), wanted.len());
    }
}

/// What stays comes into the cache without what lies around it, whether it is asked for or touched:
/// memory has no room for that.
#[test]
fn what_stays_brings_no_neighbours_in() {
    if modelembed_testkit::emulated("the advice about reading ahead") {
        return;
    }
    const KB: u64 = 1 << 10;
    let len = 8192 * KB;
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = write(&folder, &content(len as usize));
    let storage = open(&path);
    let other = open(&path);
    let cached = |range: std::ops::Range<u64>| other.residency(range).map(|r| r.resident_bytes);
    // Half a megabyte stays, half a one streams, and so on.
    let part = |i: u64| i * 512 * KB..(i + 1) * 512 * KB;
    let streamed = |i: u64| StreamedRange { file: 0, bytes: part(2 * i + 1) };
    let units: Vec<_> = (0..8).map(|i| vec![streamed(i)]).collect();
    let stream = Stream::start(&[&storage], &units, options(StreamReader::Threads, true)).unwrap();
    // What fills the windows leaves no trace, either.
    if !stream.stats().is_direct || storage.evict(0..len).is_err() || cached(0..len) != Some(0) {
        return eprintln!("skipped: {:?} bytes cannot be taken out of this cache", cached(0..len));
    }
    let asked = [part(0), part(4), part(10).start + 4 * KB..part(10).end - 4 * KB];
    asked.iter().for_each(|range| storage.prefetch_only(range.clone()));
    let touched = part(6).start + 100 * KB;
    assert_eq!(storage.bytes(touched..touched + 1), Some(&content(len as usize)[touched as usize..][..1]));
    for range in &asked {
        assert_eq!(cached(range.clone()), Some(range.end - range.start), "all of what was asked for: {range:?}");
    }
    let wanted = asked.iter().map(|r| r.end - r.start).sum::<u64>();
    let all = cached(0..len).unwrap();
    // A page that is touched may come as one of 64 KB.
    assert!(all > wanted && all <= wanted + 64 * KB, "{all} bytes for {wanted} and a page");
}

/// A model within another file begins anywhere: ranges are whole pages of the file, not of the
/// model.
#[test]
fn every_reader_reads_a_range_of_a_file() {
    let bytes = content((2100 * PAGE) as usize);
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = write(&folder, &bytes);
    let from = 3 * PAGE + 512;
    for reader in READERS {
        if reader == StreamReader::Ring && !has_ring(&open(&path)) {
            continue;
        }
        let go_on = &mut |_| ControlFlow::Continue(());
        let storage = Storage::open_range(&path, from..bytes.len() as u64, LoadMode::Map, go_on).unwrap();
        let align = |r: StreamedRange| StreamedRange { bytes: Stream::align(&storage, r.bytes), ..r };
        let units: Vec<Vec<_>> = units()
            .into_iter()
            .map(|unit| unit.into_iter().map(align).filter(|r| !r.bytes.is_empty()).collect())
            .collect();
        let stream = Stream::start(&[&storage], &units, options(reader, true)).unwrap();
        check_bytes(&storage, &stream, &units, &bytes[from as usize..]);
    }
}

/// What is told is what came in that time, it is not counted as waiting, and use begins with any
/// unit after it.
#[test]
fn a_stream_measures_how_fast_it_reads() {
    let wanted = content((2040 * PAGE) as usize);
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = write(&folder, &wanted);
    let storage = open(&path);
    let start = |units: &[Vec<StreamedRange>]| Stream::start(&[&storage], units, options(StreamReader::Auto, true));
    let since = std::time::Instant::now();
    let stream = start(&units()).unwrap();
    let speed = stream.measure().expect("it can be read");
    let (stats, elapsed) = (stream.stats(), since.elapsed());
    // No later than now, so at least as fast as the first unit in all this time; and all the bytes
    // took some of it.
    assert!(speed * elapsed.as_secs_f64() >= (402 * PAGE) as f64, "{speed} {elapsed:?}");
    assert!(speed * stats.read_time.as_secs_f64() <= 1.1 * stats.read_bytes as f64, "{speed} {stats:?}");
    assert_eq!((stats.stalls, stats.stall_time), (0, std::time::Duration::ZERO));
    // The first unit comes next, without anybody asking: once nothing is read any more, it is
    // there.
    let stands_still = (0..200).any(|_| {
        let before = stream.stats();
        std::thread::sleep(std::time::Duration::from_millis(20));
        stream.stats() == before
    });
    stream.acquire(0, &|| false).unwrap();
    assert!(stands_still && stream.stats().stalls == 0, "{:?}", stream.stats());
    check_bytes(&storage, &stream, &units(), &wanted);
    drop(stream);
    File::options().write(true).open(&path).unwrap().set_len(PAGE / 2).unwrap();
    let stream = start(&units()).unwrap();
    assert_eq!(stream.measure(), None, "there is nothing to read");
    assert!(stream.acquire(0, &|| false).is_err());
}

#[test]
fn a_file_that_was_cut_short_is_an_error_until_it_is_whole_again() {
    let wanted = content((2040 * PAGE) as usize);
    for folder in folders() {
        let path = write(&folder, &wanted);
        for reader in READERS {
            if reader == StreamReader::Ring && !has_ring(&open(&path)) {
                continue;
            }
            let storage = open(&path);
            let stream = Stream::start(&[&storage], &units(), options(reader, true)).unwrap();
            check_bytes(&storage, &stream, &units(), &wanted);
            // Within a page of the largest unit, and within a block of the disk.
            let mut file = File::options().write(true).open(&path).unwrap();
            let end = 1300 * PAGE + 100;
            file.set_len(end).unwrap();
            // What was read ahead is good for a part of a round.
            let error = (0..3 * units().len()).find_map(|turn| stream.acquire(turn % units().len(), &|| false).err());
            let error = error.expect("a part of the file is gone");
            let StorageError::StreamRead { path: named, offset, .. } = &error else { panic!("{error}") };
            assert!(*named == path && *offset >= end / PAGE * PAGE - (1 << 20), "{error}");
            assert!(error.to_string().contains("cut short"), "{error}");
            file.seek(SeekFrom::Start(end)).unwrap();
            file.write_all(&wanted[end as usize..]).unwrap();
            // What failed ahead is told once; then all is well.
            for _ in 0..2 {
                (0..units().len()).for_each(|i| drop(stream.acquire(i, &|| false)));
            }
            check_bytes(&storage, &stream, &units(), &wanted);
        }
    }
}

#[test]
fn dropping_a_stream_waits_for_its_reads() {
    let wanted = content((2040 * PAGE) as usize);
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = write(&folder, &wanted);
    if !has_ring(&open(&path)) {
        return;
    }
    for round in 0..40 {
        let storage = open(&path);
        let stream = Stream::start(&[&storage], &units(), options(StreamReader::Ring, round % 2 == 0)).unwrap();
        if round % 3 == 0 {
            stream.acquire(round % 2, &|| false).unwrap();
        }
    }
}

const CASE: &str = "MODELEMBED_TEST_REFUSE";
const FILE: &str = "MODELEMBED_TEST_FILE";

/// Has the system refuse rings, or direct reads, to this thread and those that it starts, as the
/// filters of containers do.
fn refuse(case: &str) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |k: u32, jt: u8, jf: u8| libc::sock_filter { code: 0x15, jt, jf, k };
    const LOAD: u32 = 0x20;
    const RETURN: u32 = 0x06;
    let (number, argument) = (0, |i: u32| 16 + 8 * i);
    let refusal = |errno: i32| statement(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32);
    let allow = statement(RETURN, libc::SECCOMP_RET_ALLOW);
    let mut filter = match case {
        "ring" => {
            vec![statement(LOAD, number), jump(libc::SYS_io_uring_setup as u32, 0, 1), refusal(libc::EPERM), allow]
        }
        _ => vec![
            statement(LOAD, number),
            jump(libc::SYS_fcntl as u32, 0, 5),
            statement(LOAD, argument(1)),
            jump(libc::F_SETFL as u32, 0, 3),
            statement(LOAD, argument(2)),
            libc::sock_filter { code: 0x45, jt: 0, jf: 1, k: libc::O_DIRECT as u32 },
            refusal(libc::EINVAL),
            allow,
        ],
    };
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program is a valid one of the length that is given, and lives until it was
    // copied.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// Streams under a refusal, and says how.
fn stream_refused(case: &str, path: &Path) {
    refuse(case);
    let wanted = std::fs::read(path).unwrap();
    let storage = open(path);
    let asked_for = Stream::start(&[&storage], &units(), options(StreamReader::Ring, true)).map(drop);
    let storage = open(path);
    let stream = Stream::start(&[&storage], &units(), options(StreamReader::Auto, true)).unwrap();
    check_bytes(&storage, &stream, &units(), &wanted);
    let stats = stream.stats();
    println!("ring: {asked_for:?}; {:?} {} {:?}", stats.reader, stats.is_direct, stream.ring_refusal());
}

#[test]
fn refusals_fall_back() {
    if let (Ok(case), Some(file)) = (std::env::var(CASE), std::env::var_os(FILE)) {
        return stream_refused(&case, Path::new(&file));
    }
    if modelembed_testkit::emulated("filters of system calls") {
        return;
    }
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = write(&folder, &content((2040 * PAGE) as usize));
    let has_ring = has_ring(&open(&path));
    let is_direct =
        Stream::start(&[&open(&path)], &units(), options(StreamReader::Threads, true)).unwrap().stats().is_direct;
    let run = |case: &str| {
        let mut test = Command::new(std::env::current_exe().unwrap());
        let test =
            test.args(["--exact", "readers::refusals_fall_back", "--nocapture"]).env(CASE, case).env(FILE, &path);
        let output = test.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{case}: {out} {err}");
        out.lines().find_map(|l| l.strip_prefix("ring: ").map(str::to_owned)).unwrap_or_else(|| panic!("{out} {err}"))
    };
    let ring = run("ring");
    assert!(ring.starts_with("Err(Os { code: 1,"), "{ring}");
    assert!(ring.contains(&format!("; Threads {is_direct} Some(Os {{ code: 1,")), "{ring}");
    let direct = run("direct");
    let reader = if has_ring { "Ring" } else { "Threads" };
    assert!(direct.contains(&format!("; {reader} false ")), "{direct}");
}
