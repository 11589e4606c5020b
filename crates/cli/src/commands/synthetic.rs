//! `bench -synthetic`: writes a model with random weights.

use crate::interrupt::Interrupt;
use crate::progress::{Bar, Unit};
use crate::report::megabytes;
use crate::resolve::{Setting, SyntheticModel};
use anyhow::{Context, Result};
use modelembed::ModelFiles;
use modelembed_gguf::shown_path;
use modelembed_synthetic::Synthetic;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

/// Writes under another name and renames at the end: there is the whole file or none.
pub fn synthetic(setting: &Setting, model: &SyntheticModel) -> Result<ExitCode> {
    let notes = setting.notes();
    if let Some(note) = &setting.model_note {
        notes.line(note);
    }
    let interrupt = Interrupt::install();
    let vocab = ModelFiles::open(&setting.model)?;
    let plan = Synthetic::new(&model.spec, model.layers, vocab.gguf(), (**vocab.header()).as_ref())?;
    let cannot = || format!("cannot write {} ({})", shown_path(&model.out), megabytes(plan.n_bytes()));
    let folder = model.out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = temporary().tempfile_in(folder).with_context(cannot)?;
    let bar = Bar::new("writing the model", Unit::Bytes, notes);
    let counted =
        Counted { out: file.as_file_mut(), done_bytes: 0, total_bytes: plan.n_bytes(), bar, interrupt: &interrupt };
    let mut out = BufWriter::with_capacity(1 << 20, counted);
    plan.write(&mut out).with_context(cannot)?;
    drop(out);
    file.persist(&model.out).map_err(|e| e.error).with_context(cannot)?;
    notes.line(&format!("wrote {} ({}, {})", shown_path(&model.out), model.spec, megabytes(plan.n_bytes())));
    Ok(ExitCode::SUCCESS)
}

fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".synthetic");
    // As any new file, not for the owner alone: the system takes off what the user's mask says.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

/// Shows how far the file is. Refuses to write on after Ctrl-C; then the temporary file goes.
struct Counted<'a, W> {
    out: W,
    done_bytes: u64,
    total_bytes: u64,
    bar: Bar,
    interrupt: &'a Interrupt,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.interrupt.is_set() {
            // Not `Interrupted`, which `write_all` takes as a reason to try again.
            return Err(io::Error::other("stopped by Ctrl-C"));
        }
        let n = self.out.write(bytes)?;
        self.done_bytes += n as u64;
        self.bar.show(self.done_bytes, self.total_bytes);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
