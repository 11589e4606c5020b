//! `verify`: hashes a model's files and looks for values that no weight can have, in one pass at
//! the disk's speed.

use super::scan::{bad_block, blocks_within, can_scan};
use crate::interrupt::{self, Interrupt};
use crate::progress::{Bar, Unit};
use crate::report::{megabytes, without_controls};
use crate::resolve::{Format, Setting};
use crate::terminal::Answer;
use anyhow::{Context, Result, bail};
use modelembed::ModelFiles;
use modelembed_gguf::{TensorInfo, escaped, shown_path};
use modelembed_storage::Storage;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Bytes that are hashed and scanned at the same time, while the next ones are read.
const STEP_BYTES: u64 = 16 << 20;

/// What is known of a file before it is read.
struct Stated {
    /// As people know it: a model in a program has the name that it was packed under, too.
    name: String,
    /// What its hash is to be, and who says so.
    wanted: Option<(String, &'static str)>,
}

impl Stated {
    fn of(files: &ModelFiles, i: usize, storage: &Storage) -> Result<Stated> {
        let path = storage.path();
        let Some(packed) = files.packed() else {
            let wanted = stated_hash(path)?.map(|hash| (hash, "its .sha256 file"));
            return Ok(Stated { name: path.to_string_lossy().into_owned(), wanted });
        };
        let part = &packed.manifest().parts[i];
        let wanted = Some((part.sha256.clone(), "the program that holds it"));
        Ok(Stated { name: format!("{} in {}", part.name, path.to_string_lossy()), wanted })
    }
}

/// What was found out about one file.
struct Report {
    stated: Stated,
    n_bytes: u64,
    sha256: String,
    /// Name and hash of each tensor, if asked for.
    tensors: Vec<(String, String)>,
    /// One sentence for each tensor with values that are no numbers.
    bad: Vec<String>,
    /// Tensors whose type is not searched.
    n_unknown: usize,
}

impl Report {
    fn matches(&self) -> bool {
        self.stated.wanted.as_ref().is_none_or(|(wanted, _)| *wanted == self.sha256)
    }
}

/// Verifies every file of the model; exit code 1 if anything is wrong.
pub fn verify(setting: &Setting, with_tensors: bool) -> Result<ExitCode> {
    let notes = setting.notes();
    if let Some(note) = &setting.model_note {
        notes.line(note);
    }
    let interrupt = Interrupt::install();
    let files = ModelFiles::open(&setting.model)?;
    let start = Instant::now();
    let total = files.n_bytes();
    let mut bar = Bar::new("verifying", Unit::Bytes, notes);
    let mut done = 0;
    let mut reports = Vec::new();
    for (i, storage) in files.storages().enumerate() {
        let tensors: Vec<&TensorInfo> = files.tensors().filter(|t| usize::from(t.shard) == i).collect();
        let report = one_file(storage, &tensors, with_tensors, Stated::of(&files, i, storage)?, |n| {
            done += n;
            bar.show(done, total);
            interrupt.is_set()
        });
        match report {
            Some(report) => reports.push(report),
            None => {
                bar.end();
                notes.line("interrupted");
                return Ok(ExitCode::from(interrupt::EXIT_CODE));
            }
        }
    }
    bar.end();
    let seconds = start.elapsed().as_secs_f64();
    let text = match setting.format {
        Format::Json => json_of(&reports, seconds),
        Format::Text => text_of(&reports, total, seconds),
    };
    let mut out = Answer::new();
    out.bytes(text.as_bytes())?;
    out.flush()?;
    let is_good = reports.iter().all(|r| r.matches() && r.bad.is_empty());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Goes over one file. `advance` is told how many bytes were done since the last call and says
/// whether to give up.
fn one_file(
    storage: &Storage,
    tensors: &[&TensorInfo],
    with_tensors: bool,
    stated: Stated,
    mut advance: impl FnMut(u64) -> bool,
) -> Option<Report> {
    let mut whole = Sha256::new();
    let mut of_tensors: Vec<Sha256> = vec![Sha256::new(); if with_tensors { tensors.len() } else { 0 }];
    let mut first_bad: Vec<Option<u64>> = vec![None; tensors.len()];
    let len = storage.len();
    storage.prefetch(0..STEP_BYTES.min(len));
    for from in (0..len).step_by(STEP_BYTES as usize) {
        let range = from..len.min(from + STEP_BYTES);
        let next = range.end..len.min(range.end + STEP_BYTES);
        // The hash of the file is the longest of these; the others run beside it.
        std::thread::scope(|scope| {
            scope.spawn(|| storage.prefetch(next));
            scope.spawn(|| scan(storage, tensors, &range, &mut first_bad));
            if with_tensors {
                scope.spawn(|| hash_tensors(storage, tensors, &range, &mut of_tensors));
            }
            whole.update(storage.bytes(range.clone()).unwrap_or_default());
        });
        if advance(range.end - range.start) {
            return None;
        }
    }
    let bad = tensors.iter().zip(&first_bad).filter_map(|(tensor, block)| {
        let block = (*block)?;
        Some(format!(
            "tensor {} ({}): block {block} has a scale or weight that is infinite or not a number",
            escaped(&tensor.name),
            tensor.ty
        ))
    });
    Some(Report {
        stated,
        n_bytes: len,
        sha256: hex(whole),
        tensors: tensors.iter().zip(of_tensors).map(|(tensor, hash)| (tensor.name.clone(), hex(hash))).collect(),
        bad: bad.collect(),
        n_unknown: tensors.iter().filter(|t| !can_scan(t.ty)).count(),
    })
}

/// Notes the first bad block of each tensor, among those that begin in a range.
fn scan(storage: &Storage, tensors: &[&TensorInfo], range: &Range<u64>, first_bad: &mut [Option<u64>]) {
    for (tensor, first_bad) in tensors.iter().zip(first_bad).filter(|(_, bad)| bad.is_none()) {
        let blocks = blocks_within(tensor, range);
        if let Some(bytes) = storage.bytes(blocks.clone())
            && let Some(i) = bad_block(tensor.ty, bytes)
        {
            *first_bad = Some((blocks.start - tensor.offset) / tensor.ty.block_bytes() as u64 + i as u64);
        }
    }
}

/// Adds what of a range belongs to each tensor to its hash.
fn hash_tensors(storage: &Storage, tensors: &[&TensorInfo], range: &Range<u64>, hashes: &mut [Sha256]) {
    for (tensor, hash) in tensors.iter().zip(hashes) {
        let end = tensor.offset + tensor.n_bytes;
        let own = tensor.offset.clamp(range.start, range.end)..end.clamp(range.start, range.end);
        hash.update(storage.bytes(own).unwrap_or_default());
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash in `FILE.sha256`, if there is such a file: alone, or before the file's name as
/// `sha256sum` writes it.
fn stated_hash(path: &Path) -> Result<Option<String>> {
    let mut beside = OsString::from(path);
    beside.push(".sha256");
    let text = match std::fs::read_to_string(&beside) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", shown_path(Path::new(&beside)))),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match hash_for(&text, &name) {
        Some(hash) => Ok(Some(hash)),
        None => bail!(
            "{} holds no SHA-256 of {}; wanted 64 hexadecimal digits, alone or before the name",
            shown_path(Path::new(&beside)),
            escaped(&name)
        ),
    }
}

/// The hash that a text gives for a name.
fn hash_for(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (hash, of) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        // A star before the name means that the file was read as bytes.
        let of = of.trim_start().trim_start_matches('*');
        let is_its_own = of.is_empty() || Path::new(of).file_name().is_some_and(|n| n.to_string_lossy() == name);
        (hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) && is_its_own)
            .then(|| hash.to_ascii_lowercase())
    })
}

fn text_of(reports: &[Report], total_bytes: u64, seconds: f64) -> String {
    let mut out = String::new();
    for report in reports {
        for (name, hash) in &report.tensors {
            out += &format!("{hash}  {}\n", escaped(name));
        }
        out += &format!("{}  {}\n", report.sha256, escaped(&report.stated.name));
        out += &match &report.stated.wanted {
            None => "  no .sha256 file lies beside it to compare with\n".to_string(),
            Some((_, who)) if report.matches() => format!("  as {who} says\n"),
            Some((wanted, who)) => format!("  WRONG: {who} says {wanted}\n"),
        };
        for bad in &report.bad {
            out += &format!("  WRONG: {bad}\n");
        }
        if report.bad.is_empty() {
            out += "  no infinite values and none that are no numbers\n";
        }
        if report.n_unknown > 0 {
            out += &format!("  ({} tensors are of types whose values were not looked at)\n", report.n_unknown);
        }
    }
    let gb_per_second = total_bytes as f64 / 1e9 / seconds.max(1e-9);
    out += &format!("{} in {seconds:.2} s, {gb_per_second:.2} GB/s\n", megabytes(total_bytes));
    modelembed_text::printable(&out).into()
}

fn json_of(reports: &[Report], seconds: f64) -> String {
    let files: Vec<Value> = reports
        .iter()
        .map(|report| {
            let tensors: Vec<_> =
                report.tensors.iter().map(|(name, hash)| json!({"name": name, "sha256": hash})).collect();
            json!({
                "name": report.stated.name,
                "bytes": report.n_bytes,
                "sha256": report.sha256,
                "stated_sha256": report.stated.wanted.as_ref().map(|(hash, _)| hash),
                "matches": report.stated.wanted.as_ref().map(|_| report.matches()),
                "tensors": tensors,
                "bad": report.bad,
                "unscanned_tensors": report.n_unknown,
            })
        })
        .collect();
    without_controls(&format!("{}\n", json!({"files": files, "seconds": seconds})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_in_both_forms() {
        let a = "a".repeat(64);
        let b = "B".repeat(64);
        let rows = [
            (a.clone(), Some(&a)),
            (format!("{a}\n"), Some(&a)),
            (format!("{a}  m.gguf\n"), Some(&a)),
            (format!("{a} *some/folder/m.gguf\n"), Some(&a)),
            (format!("{b}  other.gguf\n{a}  m.gguf\n"), Some(&a)),
            (format!("{a}  other.gguf\n"), None),
            ("abc  m.gguf\n".to_string(), None),
            (format!("{}g  m.gguf", "a".repeat(63)), None),
            (String::new(), None),
        ];
        let failed: Vec<_> =
            rows.iter().filter(|(text, wanted)| hash_for(text, "m.gguf").as_ref() != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(hash_for(&b, "m.gguf"), Some(b.to_lowercase()));
    }
}
