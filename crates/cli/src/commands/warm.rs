//! `warm` and `evict`: bring a model, or some of its layers, into the page cache, or make the
//! system forget them.

use super::parts::{Part, chosen, parts, resident_bytes};
use crate::interrupt::{self, Interrupt};
use crate::progress::{Bar, Unit};
use crate::report::megabytes;
use crate::resolve::{Format, Setting};
use crate::terminal::Answer;
use anyhow::{Result, bail};
use modelembed::ModelFiles;
use modelembed_storage::{Storage, mappers, process};
use serde_json::json;
use std::hint::black_box;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes that a thread asks for at a time.
const STEP_BYTES: u64 = 4 << 20;
/// Requests under way: solid-state disks are slow with fewer.
const THREADS: usize = 8;

/// Reads what is not in memory yet.
pub fn warm(setting: &Setting, layers: Option<&str>, force: bool) -> Result<ExitCode> {
    let (files, ranges, n_bytes) = open(setting, layers)?;
    let before = resident_bytes(&files, &ranges);
    let missing = n_bytes - before.unwrap_or(0).min(n_bytes);
    if let (Some(available), false) = (process::available_memory_bytes(), force)
        && available < missing
    {
        bail!(
            "{} would have to be read, but only {} of memory are available: pages would push one another out; choose fewer layers \
             with -layers, or use -force",
            megabytes(missing),
            megabytes(available)
        );
    }
    let interrupt = Interrupt::install();
    let start = Instant::now();
    read(setting, &files, &ranges, n_bytes, &interrupt);
    let seconds = start.elapsed().as_secs_f64();
    let after = resident_bytes(&files, &ranges);
    let gained = after.zip(before).map(|(after, before)| after.saturating_sub(before));
    let text = match setting.format {
        Format::Json => {
            let object = json!({
                "bytes": n_bytes,
                "resident_bytes_before": before,
                "resident_bytes": after,
                "seconds": seconds,
                "interrupted": interrupt.is_set(),
            });
            format!("{object}\n")
        }
        Format::Text => {
            let speed = gained.map_or(String::new(), |bytes| {
                format!(", {} of it read at {:.2} GB/s", megabytes(bytes), bytes as f64 / 1e9 / seconds.max(1e-9))
            });
            format!("{} in memory after {seconds:.2} s{speed}\n", of(after, n_bytes))
        }
    };
    Answer::new().piece(&text)?;
    Ok(if interrupt.is_set() { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// Makes the system forget the pages.
pub fn evict(setting: &Setting, layers: Option<&str>) -> Result<ExitCode> {
    let (files, ranges, n_bytes) = open(setting, layers)?;
    let before = resident_bytes(&files, &ranges);
    let storages: Vec<&Storage> = files.storages().collect();
    let mut could_ask = true;
    for (file, range) in &ranges {
        could_ask &= storages[*file].evict(range.clone())?;
    }
    if !could_ask {
        bail!("this system has no call that takes a file's pages out of its cache");
    }
    let after = resident_bytes(&files, &ranges);
    let text = match setting.format {
        Format::Json => {
            format!("{}\n", json!({"bytes": n_bytes, "resident_bytes_before": before, "resident_bytes": after}))
        }
        Format::Text => {
            let reason = if after.unwrap_or(0) > 0 { why_pages_stay(&storages) } else { String::new() };
            format!("{} in memory, {} before{reason}\n", of(after, n_bytes), before.map_or("unknown".into(), megabytes))
        }
    };
    Answer::new().piece(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn of(resident: Option<u64>, n_bytes: u64) -> String {
    match resident {
        Some(bytes) => format!("{} of {}", megabytes(bytes), megabytes(n_bytes)),
        None => format!("an unknown part of {}", megabytes(n_bytes)),
    }
}

type Ranges = Vec<(usize, Range<u64>)>;

/// The model's files, and the ranges that are meant: the parts that were named, else all bytes of
/// all files.
fn open(setting: &Setting, layers: Option<&str>) -> Result<(ModelFiles, Ranges, u64)> {
    if let Some(note) = &setting.model_note {
        setting.notes().line(note);
    }
    let files = ModelFiles::open(&setting.model)?;
    let ranges: Ranges = match layers {
        None => files.storages().enumerate().map(|(i, storage)| (i, 0..storage.len())).collect(),
        Some(_) => chosen(parts(files.tensors()), layers)?.into_iter().flat_map(|part: Part| part.ranges).collect(),
    };
    let n_bytes = ranges.iter().map(|(_, range)| range.end - range.start).sum();
    Ok((files, ranges, n_bytes))
}

/// Reads the ranges with several threads, from front to back, and shows how far it is.
fn read(setting: &Setting, files: &ModelFiles, ranges: &Ranges, n_bytes: u64, interrupt: &Interrupt) {
    let storages: Vec<&Storage> = files.storages().collect();
    let steps: Ranges = ranges
        .iter()
        .flat_map(|(file, range)| {
            let range = range.clone();
            range.clone().step_by(STEP_BYTES as usize).map(move |at| (*file, at..range.end.min(at + STEP_BYTES)))
        })
        .collect();
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || {
        while let Some((file, range)) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
            if interrupt.is_set() {
                break;
            }
            storages[*file].prefetch(range.clone());
            // Where that only asked for the pages, touching them waits until they are there.
            let bytes = storages[*file].bytes(range.clone()).unwrap_or_default();
            black_box(bytes.iter().step_by(4096).fold(0u8, |sum, byte| sum ^ byte));
            done.fetch_add(range.end - range.start, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut bar = Bar::new("reading the model", Unit::Bytes, setting.notes());
        while !workers.iter().all(|worker| worker.is_finished()) {
            bar.show(done.load(Ordering::Relaxed), n_bytes);
            std::thread::sleep(Duration::from_millis(5));
        }
        bar.end();
    });
}

/// What keeps pages in the cache although the system was asked to drop them.
fn why_pages_stay(storages: &[&Storage]) -> String {
    let own = std::process::id();
    let found = storages.iter().filter_map(|storage| mappers(storage.path()));
    let mut pids: Vec<u32> = found.flat_map(|m| m.processes).map(|p| p.pid).filter(|pid| *pid != own).collect();
    pids.sort_unstable();
    pids.dedup();
    if pids.is_empty() {
        "; what stays is held by the file system (one in memory keeps all), or was read again meanwhile".into()
    } else {
        let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        format!("; what stays is mapped by process {list}")
    }
}
