//! `status`: which part of a model is in memory, and which processes map it, or what it was before.
//! Reads no tensor.

use super::parts::{Part, parts, resident_bytes};
use crate::report::megabytes;
use crate::resolve::{Format, Setting};
use crate::terminal::{Answer, speaks_utf8};
use anyhow::Result;
use modelembed::ModelFiles;
use modelembed_gguf::{escaped, shown_path};
use modelembed_storage::{Change, Mappers, mappers};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Cells of a heat bar.
const CELLS: u64 = 40;

/// Prints a bar for each part of the model and a line for each process that maps it.
pub fn status(setting: &Setting) -> Result<ExitCode> {
    if let Some(note) = &setting.model_note {
        setting.notes().line(note);
    }
    let own = std::process::id();
    let files = ModelFiles::open(&setting.model).inspect_err(|_| {
        // What broke the file may have been done to processes that use it.
        let found = mappers(&setting.model).unwrap_or_default();
        for (process, change) in found.processes.iter().filter_map(|p| Some((p, p.change?))) {
            setting.notes().warning(&format!(
                "process {} ({}) {}",
                process.pid,
                escaped(&process.name),
                in_words(change)
            ));
        }
    })?;
    let processes = merged(files.storages().map(|s| mappers(s.path())), own);
    let rows: Vec<Row> = parts(files.tensors()).into_iter().map(|part| Row::of(&files, part)).collect();
    let text = match setting.format {
        Format::Json => json_of(setting, &files, &rows, processes.as_ref()),
        Format::Text => text_of(setting, &files, &rows, processes.as_ref(), speaks_utf8()),
    };
    let mut out = Answer::new();
    out.bytes(text.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A part, what of it is in memory, and the same for each cell of its bar, in shares of 1.
struct Row {
    part: Part,
    resident_bytes: Option<u64>,
    cells: Vec<f64>,
}

impl Row {
    fn of(files: &ModelFiles, part: Part) -> Row {
        let n = part.n_bytes();
        let cell = |i: u64| {
            let (from, to) = (
                (u128::from(n) * u128::from(i) / u128::from(CELLS)) as u64,
                (u128::from(n) * u128::from(i + 1) / u128::from(CELLS)) as u64,
            );
            Some(resident_bytes(files, &part.slice(from, to))? as f64 / (to - from).max(1) as f64)
        };
        let cells = (0..CELLS).map(cell).collect::<Option<Vec<_>>>().unwrap_or_default();
        Row { resident_bytes: resident_bytes(files, &part.ranges), cells, part }
    }
}

/// The processes over all files of a split model, without this one.
fn merged(of_files: impl Iterator<Item = Option<Mappers>>, own: u32) -> Option<Mappers> {
    let mut all: Option<Mappers> = None;
    for found in of_files {
        let found = found?;
        let all = all.get_or_insert_default();
        all.n_unreadable = all.n_unreadable.max(found.n_unreadable);
        for process in found.processes.into_iter().filter(|p| p.pid != own) {
            match all.processes.iter_mut().find(|p| p.pid == process.pid) {
                None => all.processes.push(process),
                Some(known) => {
                    known.resident_bytes += process.resident_bytes;
                    known.proportional_bytes += process.proportional_bytes;
                    known.unshared_bytes += process.unshared_bytes;
                    known.change = known.change.or(process.change);
                }
            }
        }
    }
    all
}

/// What became of the file that a process maps.
fn in_words(change: Change) -> &'static str {
    match change {
        Change::CutShort => "maps more than is left of the file: it ends when it needs what is gone; start it again",
        Change::Replaced => {
            "maps the file that had this name before, which is whole; start it again to use the new one"
        }
        Change::Removed => "maps the file that had this name, which is whole for as long as the process runs",
        _ => "maps a file that was changed since; start it again",
    }
}

/// [`in_words`] for programs.
fn name_of(change: Change) -> &'static str {
    match change {
        Change::CutShort => "cut short",
        Change::Replaced => "replaced",
        Change::Removed => "removed",
        _ => "changed",
    }
}

fn bar(cells: &[f64], utf8: bool) -> String {
    let scale: [char; 5] = if utf8 { [' ', '░', '▒', '▓', '█'] } else { [' ', '.', '-', '+', '#'] };
    // Full is full and empty is empty; what is between never looks like either.
    let of = |share: f64| match share {
        s if s >= 1.0 => scale[4],
        s if s <= 0.0 => scale[0],
        s => scale[1 + ((s * 3.0) as usize).min(2)],
    };
    cells.iter().map(|&share| of(share)).collect()
}

fn text_of(setting: &Setting, files: &ModelFiles, rows: &[Row], processes: Option<&Mappers>, utf8: bool) -> String {
    let total: u64 = rows.iter().map(|row| row.part.n_bytes()).sum();
    let resident: Option<u64> = rows.iter().map(|row| row.resident_bytes).sum();
    let mut out = format!(
        "Model: {}\nSize: {} in {} file(s)\n",
        shown_path(&setting.model),
        megabytes(files.n_bytes()),
        files.storages().count()
    );
    match resident {
        Some(bytes) => {
            let share = 100.0 * bytes as f64 / total.max(1) as f64;
            out += &format!("In memory: {} of {} of tensors ({share:.0}%)\n\n", megabytes(bytes), megabytes(total));
        }
        None => {
            out +=
                "In memory: the system does not tell (on Linux it tells the file's owner, and who may write to it)\n\n"
        }
    }
    for row in rows {
        let figure = match row.resident_bytes {
            Some(bytes) => format!("{:>12} of {:>12}", megabytes(bytes), megabytes(row.part.n_bytes())),
            None => format!("{:>12}", megabytes(row.part.n_bytes())),
        };
        match row.cells.is_empty() {
            true => out += &format!("  {:<10} {figure}\n", row.part.name),
            false => out += &format!("  {:<10} |{}| {figure}\n", row.part.name, bar(&row.cells, utf8)),
        }
    }
    out += "\nProcesses that map it:\n";
    match processes {
        None => out += "  the system does not tell\n",
        Some(found) => {
            if found.processes.is_empty() {
                out += "  none\n";
            }
            for p in &found.processes {
                let private = p.private_bytes.map_or("unknown".to_string(), megabytes);
                out += &format!(
                    "  {:>8} {:<16} mapped {}, its share {}, unshared {}; own memory {private}\n",
                    p.pid,
                    escaped(&p.name),
                    megabytes(p.resident_bytes),
                    megabytes(p.proportional_bytes),
                    megabytes(p.unshared_bytes),
                );
                out += &p.change.map_or(String::new(), |change| format!("  {:>8} ! {}\n", "", in_words(change)));
            }
            if found.n_unreadable > 0 {
                out +=
                    &format!("  ({} processes may not be looked at: they belong to other users)\n", found.n_unreadable);
            }
        }
    }
    modelembed_text::printable(&out).into()
}

fn json_of(setting: &Setting, files: &ModelFiles, rows: &[Row], processes: Option<&Mappers>) -> String {
    let parts: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.part.name.to_string(),
                "bytes": row.part.n_bytes(),
                "resident_bytes": row.resident_bytes,
                "cells": row.cells,
            })
        })
        .collect();
    let list = |found: &Mappers| -> Vec<Value> {
        found
            .processes
            .iter()
            .map(|p| {
                json!({
                    "pid": p.pid,
                    "name": p.name,
                    "resident_bytes": p.resident_bytes,
                    "proportional_bytes": p.proportional_bytes,
                    "unshared_bytes": p.unshared_bytes,
                    "private_bytes": p.private_bytes,
                    "change": p.change.map(name_of),
                })
            })
            .collect()
    };
    let object = json!({
        "path": setting.model.to_string_lossy(),
        "bytes": files.n_bytes(),
        "tensor_bytes": rows.iter().map(|row| row.part.n_bytes()).sum::<u64>(),
        "resident_bytes": rows.iter().map(|row| row.resident_bytes).sum::<Option<u64>>(),
        "parts": parts,
        "processes": processes.map(list),
        "unreadable_processes": processes.map(|found| found.n_unreadable),
    });
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_looks_full_and_only_empty_looks_empty() {
        assert_eq!(bar(&[0.0, 0.001, 0.5, 0.999, 1.0], false), " .-+#");
        assert_eq!(bar(&[0.0, 0.001, 0.5, 0.999, 1.0], true), " ░▒▓█");
    }
}
