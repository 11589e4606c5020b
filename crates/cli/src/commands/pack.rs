//! `pack` and `unpack`: a program with its model in one file, and the model out of it again.

use crate::interrupt::Interrupt;
use crate::own;
use crate::progress::{Bar, Unit};
use crate::report::megabytes;
use crate::resolve::{Pack, Setting, Unpack};
use crate::setup;
use anyhow::{Context, Result, bail};
use modelembed::ModelFiles;
use modelembed_gguf::shown_path;
use modelembed_packed::{Packed, Plan, Progress, unpack_names};
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Writes this program and the model into one executable.
pub fn pack(setting: &Setting, pack: Pack) -> Result<ExitCode> {
    let notes = setting.notes();
    let interrupt = Interrupt::install();
    // A model that would not run is better refused now.
    drop(setup::load(setting, &interrupt)?);
    let files = ModelFiles::open(&setting.model)?;
    let same = |a: &std::path::Path| Some(a.canonicalize().ok()? == pack.output.canonicalize().ok()?);
    if files.packed().is_none() && files.storages().any(|storage| same(storage.path()) == Some(true)) {
        bail!("{} is the model itself: name another file with -o", shown_path(&pack.output));
    }
    let plan = Plan {
        program: own::executable().context("the system does not tell which file this program is")?,
        parts: files.sources(),
        flags: pack.flags,
        output: pack.output,
        overwrite: pack.force,
    };
    let mut bar = Bar::new("packing", Unit::Bytes, notes);
    let written = plan.write(&mut |progress| show(&mut bar, progress, &interrupt));
    bar.end();
    let packed = written?;
    notes.line(&format!(
        "✓ {} holds the program ({}) and the model ({})",
        shown_path(&plan.output),
        megabytes(packed.program_range().end),
        megabytes(files.n_bytes())
    ));
    Ok(ExitCode::SUCCESS)
}

/// Writes the model that a program holds, checked against its SHA-256.
pub fn unpack(setting: &Setting, unpack: Unpack) -> Result<ExitCode> {
    let notes = setting.notes();
    let interrupt = Interrupt::install();
    let path = &setting.model;
    let found = Packed::find(path).map_err(|source| modelembed::Error::Packed { path: path.clone(), source })?;
    let Some(packed) = found else { bail!("no model is packed into {}", shown_path(path)) };
    let outputs = unpack_names(&packed, &unpack.output)?;
    let mut bar = Bar::new("unpacking", Unit::Bytes, notes);
    let written = packed.unpack(path, &outputs, unpack.force, &mut |progress| show(&mut bar, progress, &interrupt));
    bar.end();
    written?;
    for (part, output) in packed.manifest().parts.iter().zip(&outputs) {
        notes.line(&format!("✓ {} ({}), SHA-256 {}", shown_path(output), megabytes(part.bytes), part.sha256));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(bar: &mut Bar, progress: Progress, interrupt: &Interrupt) -> ControlFlow<()> {
    bar.show(progress.done_bytes, progress.total_bytes);
    if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
