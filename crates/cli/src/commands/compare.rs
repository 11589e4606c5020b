//! `compare`: what each load mode costs, measured in a process of its own each time, with a cold
//! and a warm page cache.

use super::chart;
use super::cost::{Figures, Row};
use crate::interrupt::{self, Interrupt};
use crate::own;
use crate::report::{self, megabytes};
use crate::resolve::{Compare, Format, Mode, Setting};
use crate::terminal::{Answer, Notes};
use anyhow::{Context, Result, bail};
use modelembed::{ModelFiles, RamBudget};
use modelembed_gguf::shown_path;
use modelembed_storage::{Storage, StreamReader};
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};

const MODES: [Mode; 3] = [Mode::Map, Mode::Buffer, Mode::File];

impl Mode {
    fn flag(self) -> &'static str {
        match self {
            Mode::Map => "-mmap=true",
            Mode::Buffer => "-memory=true",
            Mode::File => "-mmap=false",
        }
    }
}

/// Runs every mode and prints the table; exit code 1 if a mode did not run or the texts differ.
pub fn compare(setting: &Setting, compare: &Compare) -> Result<ExitCode> {
    let notes = setting.notes();
    if let Some(note) = &setting.model_note {
        notes.line(note);
    }
    let interrupt = Interrupt::install();
    // Whatever is wrong with the file is better said once.
    let n_bytes = ModelFiles::open(&setting.model)?.n_bytes();
    let mut why_no_cold = compare.warm_only.then(|| "-warm-only was given".to_string());
    let mut rows = Vec::new();
    for mode in MODES {
        for is_cold in [true, false] {
            if is_cold {
                why_no_cold = why_no_cold.map_or_else(|| drop_pages(setting), |reason| Ok(Some(reason)))?;
                if why_no_cold.is_some() {
                    continue;
                }
            } else {
                read_through(setting)?;
            }
            progress(notes, mode, is_cold);
            let result = child(setting, compare, mode)?;
            if interrupt.is_set() {
                notes.line("interrupted");
                return Ok(ExitCode::from(interrupt::EXIT_CODE));
            }
            rows.push(Row { mode, is_cold, result });
        }
    }
    let texts: Vec<&str> = rows.iter().filter_map(|row| Some(row.result.as_ref().ok()?.response.as_str())).collect();
    let is_same = texts.windows(2).all(|pair| pair[0] == pair[1]);
    let is_complete = rows.iter().all(|row| row.result.is_ok());
    let title = format!("{}, {}", shown_path(&setting.model), megabytes(n_bytes));
    if let Some(path) = &compare.svg {
        std::fs::write(path, chart::svg(&title, &rows))
            .with_context(|| format!("cannot write {}", shown_path(path)))?;
    }
    let text = match setting.format {
        Format::Json => json_of(setting, n_bytes, &rows, is_same, why_no_cold.as_deref()),
        Format::Text => text_of(&title, &rows, is_same, why_no_cold.as_deref()),
    };
    Answer::new().piece(&text)?;
    Ok(if is_same && is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is being measured, with `-verbose`.
fn progress(notes: Notes, mode: Mode, is_cold: bool) {
    notes.detail(&format!("measuring {}, {}", mode.name(), if is_cold { "cold" } else { "warm" }));
}

/// Takes the model out of the page cache. Returns why that did not work, if it did not.
fn drop_pages(setting: &Setting) -> Result<Option<String>> {
    /// What opening the file again reads of its header.
    const HEADER_BYTES: u64 = 4 << 20;
    let files = ModelFiles::open(&setting.model)?;
    let mut stays = 0;
    for storage in files.storages() {
        match storage.evict(0..storage.len()) {
            Ok(true) => {}
            Ok(false) => return Ok(Some("this system has no call that takes a file out of its cache".into())),
            Err(error) => return Ok(Some(error.to_string())),
        }
        match storage.residency(0..storage.len()) {
            Some(residency) => stays += residency.resident_bytes,
            None => return Ok(Some("the system does not tell whether the file has left its cache".into())),
        }
    }
    Ok((stays > HEADER_BYTES.min(files.n_bytes() / 100)).then(|| {
        let stays = megabytes(stays);
        format!("{stays} stay in memory: another process maps the file, or its file system lies in memory")
    }))
}

/// Reads the model's files once, so that the page cache holds them as far as they fit.
fn read_through(setting: &Setting) -> Result<()> {
    let files = ModelFiles::open(&setting.model)?;
    let mut buffer = vec![0; 4 << 20];
    for path in files.storages().map(Storage::path) {
        let context = || format!("cannot read {}", shown_path(path));
        let mut file = std::fs::File::open(path).with_context(context)?;
        while file.read(&mut buffer).with_context(context)? > 0 {}
    }
    Ok(())
}

/// Runs this program once more. The inner error is the child's own.
fn child(setting: &Setting, compare: &Compare, mode: Mode) -> Result<Result<Figures, String>> {
    let program = own::executable().context("the system does not tell which file this program is")?;
    let mut command = Command::new(program);
    command.arg("-model").arg(&setting.model).arg(format!("-p={}", compare.prompt));
    command.args(["-raw", "-quiet", "-temp=0", "-format=json", mode.flag()]);
    command.arg(format!("-n={}", compare.gen_tokens)).arg(format!("-ctx={}", setting.ctx_tokens.unwrap_or(0)));
    if let Some(threads) = setting.threads {
        command.arg(format!("-threads={threads}"));
    }
    if let Some(isa) = &setting.isa {
        command.arg(format!("-isa={isa}"));
    }
    if let Some(layers) = setting.gpu_layers {
        command.arg(format!("-ngl={}", report::layers(layers)));
    }
    if let Some(device) = &setting.gpu_device {
        command.arg(format!("-device={device}"));
    }
    if setting.exact {
        command.arg("-activations=f32");
    }
    match setting.ram_budget {
        RamBudget::Auto => {}
        RamBudget::Off => drop(command.arg("-ram-budget=off")),
        RamBudget::Bytes(bytes) => drop(command.arg(format!("-ram-budget={bytes}"))),
    }
    match setting.stream_reader {
        StreamReader::Auto => {}
        StreamReader::Ring => drop(command.arg("-stream-io=ring")),
        StreamReader::Threads => drop(command.arg("-stream-io=threads")),
    }
    let output = command.stdin(Stdio::null()).output().context("cannot start this program again")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let message = stderr.trim().trim_start_matches("error: ");
        return Ok(Err(if message.is_empty() { output.status.to_string() } else { message.to_string() }));
    }
    match serde_json::from_slice(&output.stdout).ok().as_ref().and_then(Figures::of) {
        Some(figures) => Ok(Ok(figures)),
        None => bail!("the program that was started says nothing that can be understood: {}", stderr.trim()),
    }
}

fn text_of(title: &str, rows: &[Row], is_same: bool, why_no_cold: Option<&str>) -> String {
    let mb = |bytes: Option<u64>| bytes.map_or("?".to_string(), |n| format!("{:.1}", n as f64 / 1024.0 / 1024.0));
    let count = |n: Option<u64>| n.map_or("?".to_string(), |n| n.to_string());
    let mut out = format!(
        "{title}\n\n{:<7} {:<5} {:>9} {:>12} {:>10} {:>9} {:>9} {:>9} {:>8} {:>6} {:>9}\n{:<7} {:<5} {:>9} {:>12} {:>10} {:>9} {:>9} \
         {:>9} {:>8} {:>6} {:>9}\n",
        "mode",
        "cache",
        "load",
        "first token",
        "allocated",
        "private",
        "shared",
        "resident",
        "minor",
        "major",
        "decode",
        "",
        "",
        "ms",
        "ms",
        "MB",
        "MB",
        "MB",
        "MB",
        "faults",
        "faults",
        "tokens/s",
    );
    for row in rows {
        let cache = if row.is_cold { "cold" } else { "warm" };
        out += &match &row.result {
            Err(message) => format!("{:<7} {cache:<5} did not run: {message}\n", row.mode.name()),
            Ok(f) => format!(
                "{:<7} {cache:<5} {:>9.1} {:>12.1} {:>10} {:>9} {:>9} {:>9} {:>8} {:>6} {:>9.1}\n",
                row.mode.name(),
                f.load_ms,
                f.first_token_ms,
                mb(f.allocated_bytes),
                mb(f.private_bytes),
                mb(f.shared_bytes),
                mb(f.resident_bytes),
                count(f.minor_faults),
                count(f.major_faults),
                f.tokens_per_second,
            ),
        };
    }
    for row in rows {
        let cache = if row.is_cold { "cold" } else { "warm" };
        if let Some(experts) = row.result.as_ref().ok().and_then(|f| experts_of(&f.statistics)) {
            out += &format!("\nExperts, {}, {cache}: {experts}\n", row.mode.name());
        }
    }
    out += match is_same {
        true => "\nEvery run gave the same text.\n",
        false => "\nWRONG: the runs gave different texts.\n",
    };
    if let Some(reason) = why_no_cold {
        out += &format!("No runs with a cold cache: {reason}.\n");
    }
    modelembed_text::printable(&out).into()
}

/// How a mixture's experts were had, where they did not all fit.
fn experts_of(statistics: &Value) -> Option<String> {
    let experts = &statistics["experts"];
    let (hit_rate, missed) = (experts["hit_rate"].as_f64()?, experts["missed_bytes_per_token"].as_f64()?);
    let missed = megabytes(missed as u64);
    Some(format!("{:.0}% of those used in memory, {missed} a token from the disk", 100.0 * hit_rate))
}

fn json_of(setting: &Setting, n_bytes: u64, rows: &[Row], is_same: bool, why_no_cold: Option<&str>) -> String {
    let object = |row: &Row| match &row.result {
        Err(message) => json!({"mode": row.mode.name(), "cold": row.is_cold, "error": message}),
        Ok(f) => json!({"mode": row.mode.name(), "cold": row.is_cold, "statistics": f.statistics}),
    };
    let object = json!({
        "model": setting.model.to_string_lossy(),
        "bytes": n_bytes,
        "runs": rows.iter().map(object).collect::<Vec<_>>(),
        "same_text": is_same,
        "no_cold_runs": why_no_cold,
    });
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_tell_failures_and_differences() {
        let good = |response: &str| Ok(Figures { load_ms: 1.25, response: response.into(), ..Figures::default() });
        let rows = [
            Row { mode: Mode::Map, is_cold: true, result: good("a") },
            Row { mode: Mode::Buffer, is_cold: false, result: Err("no memory\u{1b}[1m".into()) },
        ];
        let text = text_of("m.gguf", &rows, false, Some("a reason"));
        assert!(text.contains("map     cold        1.2 "), "{text}");
        assert!(text.contains("buffer  warm  did not run: no memory[1m\n") && text.contains("WRONG"), "{text}");
        assert!(text.ends_with("No runs with a cold cache: a reason.\n"), "{text}");
        assert!(!text.contains("Experts"), "{text}");
    }

    #[test]
    fn figures_that_are_missing_are_noticed() {
        assert_eq!(Figures::of(&json!({"response": "x", "statistics": {"load_ms": 1.0}})), None);
        let whole = json!({"response": "x", "statistics": {
            "load_ms": 1.5, "first_token_ms": 2.0, "decode_tokens_per_second": 3.0, "private_bytes": 4, "shared_bytes": null}});
        let wanted = Figures {
            statistics: whole["statistics"].clone(),
            load_ms: 1.5,
            first_token_ms: 2.0,
            tokens_per_second: 3.0,
            private_bytes: Some(4),
            response: "x".into(),
            ..Figures::default()
        };
        assert_eq!(Figures::of(&whole), Some(wanted));
    }
}
