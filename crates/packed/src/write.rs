//! Making a packed file, and giving the model back.

use std::fs::{File, Metadata};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use crate::copy::{Counter, Progress, copy_range, hash_range};
use crate::error::{self, PackedError};
use crate::manifest::{ALIGNMENT, MAX_MANIFEST_BYTES, Manifest, Part, Program, check_name, first_offset, hex};
use crate::mark::{MARK_BYTES, Mark};
use crate::packed::{Packed, changed};
use crate::unfinished::Unfinished;

/// A file, or a part of one, that is to be packed.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The part of it.
    pub range: Range<u64>,
    /// What the manifest calls it: a file name.
    pub name: String,
    /// Length of its GGUF header.
    pub header_bytes: u64,
}

/// What is to be packed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The executable. If a model is packed into it already, only the program is taken.
    pub program: PathBuf,
    /// The files of the model, in their order.
    pub parts: Vec<Source>,
    /// Words to put before those on the command line.
    pub flags: Vec<String>,
    /// The file to make.
    pub output: PathBuf,
    /// Whether a file of that name is replaced.
    pub overwrite: bool,
}

impl Plan {
    /// Makes the file: without its name at first, so that there is either all of it or nothing.
    ///
    /// # Errors
    /// A file of that name, a read or write that fails (a full disk), the callback's wish to end:
    /// then nothing is left behind.
    pub fn write(&self, progress: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Packed, PackedError> {
        let packed_before = Packed::find(&self.program)?;
        let mut program = Input::open(&self.program)?;
        let program_bytes = match &packed_before {
            Some(packed) => packed.program_range().end,
            None => program.before.len(),
        };
        let total_bytes = program_bytes + self.parts.iter().map(|part| part.range.end - part.range.start).sum::<u64>();
        let mut new = Unfinished::begin(&self.output, self.overwrite, true)?;
        let mut counter = Counter::new(total_bytes, progress);

        let sha256 = hex(program.copy(0..program_bytes, &mut new, &mut counter)?);
        if let Some(before) = packed_before.as_ref().map(|packed| &packed.manifest().program)
            && before.sha256 != sha256
        {
            return Err(changed("the program", &sha256, &before.sha256));
        }
        let unfit = || error::unfit("its length does not fit into 64 bits".into());
        let mut offset = first_offset(program_bytes).ok_or_else(unfit)?;
        new.pad_to(offset - MARK_BYTES as u64)?;
        new.append(&Mark::Front(offset).to_bytes(&[]))?;

        let mut parts = Vec::with_capacity(self.parts.len());
        let mut end = offset;
        for source in &self.parts {
            new.pad_to(offset)?;
            let part = source.copy(offset, &mut new, &mut counter)?;
            end = part.range().end;
            offset = end.checked_next_multiple_of(ALIGNMENT).ok_or_else(unfit)?;
            parts.push(part);
        }
        let manifest = Manifest { program: Program { bytes: program_bytes, sha256 }, parts, flags: self.flags.clone() };
        manifest.check(end).map_err(error::unfit)?;
        let json = serde_json::to_vec(&manifest).map_err(|e| error::unfit(e.to_string()))?;
        if json.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(error::unfit(format!("its description has {} bytes", json.len())));
        }
        new.append(&json)?;
        new.append(&Mark::End(json.len() as u64).to_bytes(&json))?;
        new.finish()?;
        Packed::find(&self.output)?.ok_or_else(|| PackedError::SourceChanged { path: self.output.clone() })
    }
}

impl Source {
    fn copy(&self, offset: u64, new: &mut Unfinished, counter: &mut Counter<'_>) -> Result<Part, PackedError> {
        let mut input = Input::open(&self.path)?;
        let header = self.range.start..self.range.start + self.header_bytes.min(self.range.end - self.range.start);
        let header_bytes = header.end - header.start;
        let header =
            hash_range(&mut input.file, &self.path, header, &mut Counter::new(0, &mut |_| ControlFlow::Continue(())))?;
        let sha256 = hex(input.copy(self.range.clone(), new, counter)?);
        let bytes = self.range.end - self.range.start;
        Ok(Part { name: self.name.clone(), offset, bytes, sha256, header_bytes, header_sha256: hex(header) })
    }
}

impl Packed {
    /// Writes the model's files, checked against their hashes: `outputs` names one for each part.
    ///
    /// # Errors
    /// As [`Plan::write`], and a part that is not what it was when it was packed.
    pub fn unpack(
        &self,
        path: &Path,
        outputs: &[PathBuf],
        overwrite: bool,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), PackedError> {
        let parts = &self.manifest().parts;
        let mut counter = Counter::new(parts.iter().map(|part| part.bytes).sum(), progress);
        let mut input = Input::open(path)?;
        let mut finished = Vec::new();
        for (part, output) in parts.iter().zip(outputs) {
            let mut new = Unfinished::begin(output, overwrite, false)?;
            let seen = hex(input.copy(part.range(), &mut new, &mut counter)?);
            if seen != part.sha256 {
                return Err(changed(&part.name, &seen, &part.sha256));
            }
            finished.push(new);
        }
        // All of them or none.
        finished.into_iter().try_for_each(Unfinished::finish)
    }
}

/// Where the parts go: a single one to `output` itself or, if that is a folder, into it under its
/// own name; several into a folder.
///
/// # Errors
/// Several parts and no folder.
pub fn unpack_names(packed: &Packed, output: &Path) -> Result<Vec<PathBuf>, PackedError> {
    let parts = &packed.manifest().parts;
    parts.iter().try_for_each(|part| check_name(&part.name)).map_err(error::changed)?;
    match &parts[..] {
        _ if output.is_dir() => Ok(parts.iter().map(|part| output.join(&part.name)).collect()),
        [_] => Ok(vec![output.to_owned()]),
        _ => {
            let problem = format!("the model has {} files: name a folder that exists", parts.len());
            Err(PackedError::Output { path: output.to_owned(), problem })
        }
    }
}

/// A file that is read, and what was known of it before.
struct Input<'a> {
    file: File,
    path: &'a Path,
    before: Metadata,
}

impl Input<'_> {
    fn open(path: &Path) -> Result<Input<'_>, PackedError> {
        let failed = |source| PackedError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let before = file.metadata().map_err(failed)?;
        Ok(Input { file, path, before })
    }

    fn copy(
        &mut self,
        range: Range<u64>,
        new: &mut Unfinished,
        counter: &mut Counter<'_>,
    ) -> Result<sha2::Sha256, PackedError> {
        let hash = copy_range(&mut self.file, self.path, range, (&mut new.file, &new.output), counter)?;
        let after = self.file.metadata().map_err(|source| PackedError::Read { path: self.path.to_owned(), source })?;
        let same = after.len() == self.before.len() && after.modified().ok() == self.before.modified().ok();
        if same { Ok(hash) } else { Err(PackedError::SourceChanged { path: self.path.to_owned() }) }
    }
}
