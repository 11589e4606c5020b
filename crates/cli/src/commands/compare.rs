//! `compare`: the three ways to load a model side by side, each in a fresh process, cold and warm.

use crate::interrupt::{self, Interrupt};
use crate::resolve::{Format, Mode, Setting};
use crate::terminal::Answer;
use anyhow::{Context, Result, bail};
use modelembed::ModelFiles;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// What every run answers; long enough for a speed to be told.
const PROMPT: &str = "Write one sentence about the sea.";
const TOKENS: &str = "32";

/// One run.
struct Row {
    mode: Mode,
    /// The file's pages were dropped from the cache before.
    is_cold: bool,
    /// As the run's own JSON gives them.
    statistics: Value,
}

/// A column: its head, the statistic's key, what it is divided by, and its number of decimals.
const COLUMNS: [(&str, &str, f64, usize); 9] = [
    ("load ms", "load_ms", 1.0, 1),
    ("first token ms", "first_token_ms", 1.0, 1),
    ("allocated MB", "allocated_bytes", MB, 1),
    ("private MB", "private_bytes", MB, 1),
    ("shared MB", "shared_bytes", MB, 1),
    ("resident MB", "resident_bytes", MB, 1),
    ("minor faults", "minor_faults", 1.0, 0),
    ("major faults", "major_faults", 1.0, 0),
    ("tokens/s", "decode_tokens_per_second", 1.0, 1),
];
const MB: f64 = (1 << 20) as f64;

/// Runs each mode cold (where the system drops the file's pages) and warm.
pub fn compare(setting: &Setting, svg: Option<&Path>) -> Result<ExitCode> {
    let notes = setting.notes();
    if let Some(note) = &setting.model_note {
        notes.line(note);
    }
    let interrupt = Interrupt::install();
    let mut rows = Vec::new();
    for mode in [Mode::Map, Mode::Buffer, Mode::File] {
        for wants_cold in [true, false] {
            if wants_cold && !drop_pages(&setting.model)? {
                notes.line("the file's pages stay in memory (another process maps them, or the system keeps them): no cold runs");
                continue;
            }
            notes.detail(&format!("{}, {}", name(mode), if wants_cold { "cold" } else { "warm" }));
            rows.push(Row { mode, is_cold: wants_cold, statistics: one_run(setting, mode)? });
            if interrupt.is_set() {
                return Ok(ExitCode::from(interrupt::EXIT_CODE));
            }
        }
    }
    if let Some(path) = svg {
        std::fs::write(path, picture(&rows)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = match setting.format {
        Format::Json => json_of(setting, &rows),
        Format::Text => table(&rows),
    };
    Answer::new().piece(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Map => "map",
        Mode::Buffer => "buffer",
        Mode::File => "file",
    }
}

/// Whether no page of the model is left in memory.
fn drop_pages(model: &Path) -> Result<bool> {
    let files = ModelFiles::open(model)?;
    for storage in files.storages() {
        if !storage.evict(0..storage.len())? {
            return Ok(false);
        }
    }
    Ok(files.storages().all(|s| s.residency(0..s.len()).is_some_and(|r| r.resident_bytes == 0)))
}

/// Answers the prompt in a process of its own.
fn one_run(setting: &Setting, mode: Mode) -> Result<Value> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.arg("-model").arg(&setting.model).args(match mode {
        Mode::Map => ["-mmap=true", "-memory=false"],
        Mode::Buffer => ["-mmap=false", "-memory=true"],
        Mode::File => ["-mmap=false", "-memory=false"],
    });
    command.args(["-p", PROMPT, "-n", TOKENS, "-temp", "0", "-quiet", "-format", "json"]);
    command.args(["-ctx", &setting.ctx_tokens.to_string()]);
    if let Some(threads) = setting.threads {
        command.args(["-threads", &threads.to_string()]);
    }
    if let Some(isa) = &setting.isa {
        command.args(["-isa", isa]);
    }
    let output = command.stdin(Stdio::null()).output().context("cannot start this program again")?;
    if !output.status.success() {
        bail!("the run with {} failed: {}", name(mode), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let object: Value = serde_json::from_slice(&output.stdout).context("a run printed no JSON")?;
    Ok(object["statistics"].clone())
}

fn cell(row: &Row, (_, key, unit, decimals): (&str, &str, f64, usize)) -> String {
    row.statistics[key].as_f64().map_or("-".to_string(), |value| format!("{:.decimals$}", value / unit))
}

fn table(rows: &[Row]) -> String {
    let mut out = format!("{:<14}", "mode");
    for (head, ..) in COLUMNS {
        out += &format!("  {head:>14}");
    }
    out.push('\n');
    for row in rows {
        out += &format!("{:<14}", format!("{}, {}", name(row.mode), if row.is_cold { "cold" } else { "warm" }));
        for column in COLUMNS {
            out += &format!("  {:>14}", cell(row, column));
        }
        out.push('\n');
    }
    out
}

fn json_of(setting: &Setting, rows: &[Row]) -> String {
    let runs: Vec<Value> = rows
        .iter()
        .map(|row| json!({"mode": name(row.mode), "cold": row.is_cold, "statistics": row.statistics}))
        .collect();
    format!("{}\n", json!({"model": setting.model.to_string_lossy(), "runs": runs}))
}

/// Bars of three figures, one group a figure; the longest bar of each is as wide as the picture.
fn picture(rows: &[Row]) -> String {
    const SHOWN: [usize; 3] = [0, 1, 3]; // load, first token, private
    const BAR: usize = 18;
    const LABEL: usize = 110;
    const WIDTH: usize = 420;
    let group = 34 + rows.len() * BAR;
    let height = SHOWN.len() * group + 10;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LABEL + WIDTH + 100
    );
    for (g, column) in SHOWN.into_iter().map(|i| COLUMNS[i]).enumerate() {
        let top = g * group;
        let value = |row: &Row| row.statistics[column.1].as_f64().unwrap_or(0.0);
        let longest = rows.iter().map(value).fold(f64::MIN_POSITIVE, f64::max);
        out += &format!("<text x=\"10\" y=\"{}\" font-weight=\"bold\">{}</text>\n", top + 22, column.0);
        for (i, row) in rows.iter().enumerate() {
            let y = top + 30 + i * BAR;
            let width = value(row) / longest * WIDTH as f64;
            let (colour, state) = if row.is_cold { ("#7fa8d1", "cold") } else { ("#d98e4a", "warm") };
            out += &format!(
                "<text x=\"10\" y=\"{}\">{}, {state}</text>\n\
                 <rect x=\"{LABEL}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{}\">{}</text>\n",
                y + 12,
                name(row.mode),
                BAR - 4,
                LABEL as f64 + width + 6.0,
                y + 12,
                cell(row, column),
            );
        }
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let statistics = json!({"load_ms": 3.25, "first_token_ms": 80.0, "private_bytes": 2 << 20, "minor_faults": 12});
        vec![
            Row { mode: Mode::Map, is_cold: true, statistics: statistics.clone() },
            Row { mode: Mode::File, is_cold: false, statistics },
        ]
    }

    #[test]
    fn a_table_has_a_line_a_run_and_a_dash_for_what_is_unknown() {
        let text = table(&rows());
        assert_eq!(text.lines().count(), 3);
        let line: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["map,", "cold", "3.2", "80.0", "-", "2.0", "-", "-", "12", "-", "-"]);
    }

    #[test]
    fn a_picture_has_a_bar_a_run_and_figure() {
        let svg = picture(&rows());
        assert_eq!(svg.matches("<rect x=").count(), 6);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("file, warm"));
    }
}
