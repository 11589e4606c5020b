//! Items that are read when they are wanted and stay for as long as there is room.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use modelembed_storage::{
    Held, Keep, LoadMode, SlotOptions, Slots, Storage, StorageError, StreamReader, StreamedRange,
};
use tempfile::TempDir;

const PAGE: u64 = 4096;
const READERS: [StreamReader; 2] = [StreamReader::Auto, StreamReader::Threads];
/// Bytes of an item's two ranges.
const LENS: [u64; 2] = [3 * PAGE, (1 << 20) + 100];
const N_ITEMS: u64 = 12;
/// Where the first item begins: nowhere near a page.
const FIRST: u64 = 1000;
/// Bytes of a slot: each range with the pages around it.
const SLOT_BYTES: u64 = 4 * PAGE + (1 << 20) + 2 * PAGE;

fn content(len: usize) -> Vec<u8> {
    (0..len.div_ceil(4) as u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).take(len).collect()
}

/// Ranges of items: all first ones, then all second ones, up to the end of the file.
fn items() -> Vec<Vec<StreamedRange>> {
    let range = |i: u64, part: usize| {
        let start = FIRST + if part == 0 { 0 } else { N_ITEMS * LENS[0] } + i * LENS[part];
        StreamedRange { file: 0, bytes: start..start + LENS[part] }
    };
    (0..N_ITEMS).map(|i| vec![range(i, 0), range(i, 1)]).collect()
}

struct Model {
    _folder: TempDir,
    path: PathBuf,
    storage: Storage,
    wanted: Vec<u8>,
}

impl Model {
    fn new() -> Model {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = folder.path().join("model");
        let wanted = content((FIRST + N_ITEMS * (LENS[0] + LENS[1])) as usize);
        let mut file = File::create(&path).unwrap();
        file.write_all(&wanted).unwrap();
        file.sync_all().unwrap();
        let storage = open(&path);
        Model { _folder: folder, path, storage, wanted }
    }

    fn slots(&self, n_slots: u64, reader: StreamReader, direct: bool) -> Slots {
        let options = SlotOptions { budget_bytes: n_slots * SLOT_BYTES, reader, direct };
        Slots::start(&[&self.storage], &items(), options).unwrap()
    }

    /// What is held is what the file holds.
    fn check(&self, held: &mut Held<'_>, ids: &[u32]) {
        held.wait_all(&|| false).unwrap();
        for (index, id) in ids.iter().enumerate() {
            for (part, StreamedRange { bytes, .. }) in items()[*id as usize].iter().enumerate() {
                let wanted = &self.wanted[bytes.start as usize..bytes.end as usize];
                assert!(held.bytes(index, part) == wanted, "item {id}, range {part}");
            }
        }
    }

    fn hold(&self, slots: &Slots, ids: &[u32], keep: Keep) {
        self.check(&mut slots.hold(ids, keep).unwrap(), ids);
    }
}

fn open(path: &Path) -> Storage {
    Storage::open(path, LoadMode::Map, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Bytes of the pages that some items touch.
fn pages_of(ids: &[usize]) -> u64 {
    let pages = |r: &StreamedRange| r.bytes.end.next_multiple_of(PAGE) - r.bytes.start / PAGE * PAGE;
    ids.iter().flat_map(|id| items()[*id].clone()).map(|range| pages(&range)).sum()
}

/// Which items are in memory.
fn there(slots: &Slots) -> Vec<u32> {
    (0..N_ITEMS as u32).filter(|item| slots.has(*item)).collect()
}

#[test]
fn every_item_is_what_the_file_holds_whoever_reads_and_however_few_slots_there_are() {
    let model = Model::new();
    for reader in READERS {
        for direct in [true, false] {
            for n_slots in [3, 7, N_ITEMS] {
                let slots = model.slots(n_slots, reader, direct);
                for round in 0..60u32 {
                    let ids = [round * 7 % 12, (round * 7 + 5) % 12, (round * 7 + 2) % 12];
                    model.hold(&slots, &ids, if round % 5 == 4 { Keep::Passing } else { Keep::Lasting });
                    slots.expect(&[(round * 7 + 7) % 12]);
                }
                let stats = slots.stats();
                assert!(stats.used_bytes <= stats.budget_bytes && stats.budget_bytes == n_slots * SLOT_BYTES);
                assert_eq!(stats.hits + stats.misses, 3 * 48, "{stats:?}");
                assert_eq!(stats.missed_bytes, stats.misses * (LENS[0] + LENS[1]), "{stats:?}");
            }
        }
    }
}

#[test]
fn what_was_used_longest_ago_leaves_first_and_passing_by_is_no_use() {
    let model = Model::new();
    let slots = model.slots(4, StreamReader::Auto, true);
    for ids in [[0, 1], [2, 3], [0, 1], [4, 5]] {
        model.hold(&slots, &ids, Keep::Lasting);
    }
    assert_eq!(there(&slots), [0, 1, 4, 5]);
    // A walk over everything takes the slots of one after the other, and leaves the rest alone.
    for id in [6, 7, 8, 0, 9] {
        model.hold(&slots, &[id], Keep::Passing);
    }
    assert_eq!(there(&slots), [1, 4, 5, 9], "0 was used longest ago, and being passed did not help it");
    model.hold(&slots, &[0], Keep::Lasting);
    assert_eq!(there(&slots), [0, 1, 4, 5]);
    let stats = slots.stats();
    assert_eq!((stats.hits, stats.misses, stats.passed, stats.passed_misses), (2, 7, 5, 5));
    // Whole pages around each range, and nothing else.
    assert_eq!(stats.read_bytes, pages_of(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0]));
}

#[test]
fn what_is_expected_is_there_and_leaves_first_when_it_was_not_wanted() {
    let model = Model::new();
    let slots = model.slots(4, StreamReader::Auto, true);
    model.hold(&slots, &[0, 1], Keep::Lasting);
    slots.expect(&[0, 2, 3]);
    while slots.stats().read_bytes < pages_of(&[0, 1, 2, 3]) {
        std::thread::yield_now();
    }
    model.hold(&slots, &[2], Keep::Lasting);
    let stats = slots.stats();
    assert_eq!((stats.hits, stats.misses, stats.expected, stats.came_true), (1, 2, 2, 1));
    model.hold(&slots, &[5, 6], Keep::Lasting);
    assert!(!slots.has(3) && slots.has(2) && slots.has(1), "{:?}", there(&slots));
    // Nothing that is held makes room for a guess.
    let held = slots.hold(&[1, 2, 5, 6], Keep::Lasting).unwrap();
    slots.expect(&[7]);
    assert!(!slots.has(7));
    drop(held);
    slots.expect(&[7]);
    assert!(slots.has(7));
}

#[test]
fn more_than_there_is_room_for_is_refused_and_nothing_is_lost() {
    let model = Model::new();
    let slots = model.slots(3, StreamReader::Auto, true);
    let Err(StorageError::NoSlot { n_items: 4, budget_bytes }) = slots.hold(&[0, 1, 2, 3], Keep::Lasting) else {
        panic!("four items do not fit")
    };
    assert_eq!(budget_bytes, 3 * SLOT_BYTES);
    model.hold(&slots, &[3, 4, 5], Keep::Lasting);
    let first = slots.hold(&[3, 4], Keep::Lasting).unwrap();
    assert!(slots.hold(&[6, 7], Keep::Passing).is_err());
    drop(first);
    model.hold(&slots, &[6, 7], Keep::Passing);
}

#[test]
fn a_smaller_budget_gives_memory_back_at_once_but_for_what_is_held() {
    let model = Model::new();
    let slots = model.slots(6, StreamReader::Auto, true);
    model.hold(&slots, &[0, 1, 2, 3, 4, 5], Keep::Lasting);
    assert_eq!(slots.stats().used_bytes, 6 * SLOT_BYTES);
    let mut held = slots.hold(&[2, 3, 4], Keep::Lasting).unwrap();
    slots.set_budget(2 * SLOT_BYTES);
    assert_eq!(there(&slots), [2, 3, 4]);
    model.check(&mut held, &[2, 3, 4]);
    drop(held);
    assert_eq!(slots.stats().used_bytes, 2 * SLOT_BYTES);
    // It can grow again, up to what it was.
    slots.set_budget(u64::MAX);
    model.hold(&slots, &[0, 1, 2, 3, 4, 5], Keep::Lasting);
    assert_eq!(slots.stats().budget_bytes, 6 * SLOT_BYTES);
}

#[test]
fn a_file_that_was_cut_short_is_an_error_that_names_it_and_the_next_read_tries_again() {
    let model = Model::new();
    let slots = model.slots(4, StreamReader::Auto, true);
    model.hold(&slots, &[0], Keep::Lasting);
    let file = File::options().write(true).open(&model.path).unwrap();
    file.set_len(FIRST + LENS[0]).unwrap();
    for keep in [Keep::Lasting, Keep::Passing] {
        let failure = slots.hold(&[7], keep).unwrap().wait_all(&|| false).unwrap_err().to_string();
        assert!(failure.contains("model") && failure.contains("cut short"), "{failure}");
        assert!(!slots.has(7));
    }
    let mut file = file;
    file.write_all(&model.wanted).unwrap();
    file.sync_all().unwrap();
    model.hold(&slots, &[7], Keep::Lasting);
}

#[test]
fn waiting_ends_when_it_is_cancelled_and_speed_is_measured_without_a_trace_in_the_counts() {
    let model = Model::new();
    let slots = model.slots(8, StreamReader::Auto, true);
    let mut held = slots.hold(&[1, 2], Keep::Lasting).unwrap();
    match held.wait_all(&|| true) {
        Ok(()) | Err(StorageError::Cancelled) => {}
        Err(e) => panic!("{e}"),
    }
    drop(held);
    // What was let go of while it was read is in nobody's way.
    for round in 0..20 {
        drop(slots.hold(&[0, 1, 2, 3, 4, 5, 6, 7], Keep::Lasting).unwrap());
        model.hold(&slots, &[round % 8, 8, 9, 10, 11], Keep::Passing);
    }
    let before = slots.stats();
    assert!(slots.measure(Duration::from_millis(30)).is_some_and(|speed| speed > 0.0));
    let after = slots.stats();
    assert_eq!((after.hits, after.misses, after.passed), (before.hits, before.misses, before.passed));
    assert!(after.read_bytes > before.read_bytes);
}
