//! The model that was packed into the running program.

use modelembed_packed::{Packed, PackedError};
use std::path::PathBuf;

/// The running program and the model in it.
#[derive(Debug)]
pub struct Own {
    /// The executable.
    pub path: PathBuf,
    pub packed: Packed,
}

impl Own {
    /// Looks into the running executable; `None` for a program without a model.
    pub fn find() -> Result<Option<Own>, modelembed::Error> {
        let Some(path) = executable() else { return Ok(None) };
        match Packed::find(&path) {
            Ok(packed) => Ok(packed.map(|packed| Own { path, packed })),
            // Whoever may run a program need not be allowed to read it: then it is one without a
            // model.
            Err(PackedError::Read { .. }) => Ok(None),
            Err(source) => Err(modelembed::Error::Packed { path, source }),
        }
    }

    /// Options that stand before those that were typed.
    pub fn flags(&self) -> &[String] {
        &self.packed.manifest().flags
    }
}

/// The running executable's file, even if its name is gone or is another file's by now.
pub fn executable() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?;
    let running = PathBuf::from("/proc/self/exe");
    Some(if !path.exists() && running.exists() { running } else { path })
}
