//! Contexts on disk: tokens, keys and values, and the token that comes next.

pub(crate) mod error;
mod header;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use modelembed_text::TokenId;
use sha2::{Digest, Sha256};

pub use error::SavedError;

use self::header::{ALIGN, Group, Hash, Header, MAX_NOTE_BYTES};
use crate::error::{Error, Result};
use crate::load::model::Model;
use crate::run::engine::{Engine, SequenceId};
use crate::run::session::Session;
use crate::state::layout::PAGE_TOKENS;
use crate::state::pages::{Page, PageStore, Table, Tables};
use crate::state::records::{CHUNK, Records};

/// What a file held besides a context.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// A token that was chosen, but not evaluated: it comes first.
    pub pending: Option<TokenId>,
    /// Whatever was saved with the context.
    pub note: Vec<u8>,
}

/// Tensors of which some bytes are part of a model's fingerprint, and how many bytes of each.
const SAMPLED_TENSORS: usize = 64;
const SAMPLE_BYTES: u64 = 4 << 10;

/// What tells a model from every other that somebody is likely to have: the first file's header,
/// and some bytes of its weights. The same in every load mode.
fn fingerprint(model: &Model) -> Hash {
    let mut hash = Sha256::new();
    let header: &[u8] = (**model.header()).as_ref();
    hash.update(&header[..header.len().min(model.gguf().data_offset() as usize)]);
    // Matrices by the hash of their name: each kind has its share, whatever the order of the file.
    let matrices =
        model.program().tensors().iter().zip(model.placed_tensors()).filter(|(want, _)| want.role.is_matrix());
    let mut matrices: Vec<_> = matrices.map(|(want, t)| (Sha256::digest(&want.name), t)).collect();
    matrices.sort_by_key(|(name, _)| *name);
    // Of a model that streams, parts of the map stand for others; a second one does not.
    let views: Vec<_> = model.storages().map(|storage| (storage.random_view(), storage)).collect();
    for (name, t) in matrices.iter().take(SAMPLED_TENSORS) {
        hash.update(name);
        let start = t.offset + t.n_bytes / 2;
        let end = (start + SAMPLE_BYTES).min(t.offset + t.n_bytes);
        let (view, storage) = &views[t.shard];
        hash.update(view.as_ref().unwrap_or(storage).bytes(start..end).unwrap_or_default());
    }
    hash.finalize().into()
}

impl Engine {
    /// Writes a sequence: its tokens, their keys and values, a token that was chosen but is not
    /// evaluated yet, and a note of the caller's, at most 64 MB.
    ///
    /// # Errors
    /// There is no such sequence, layers on a GPU, a note that is too long, or a failed write.
    pub fn save(&self, id: SequenceId, pending: Option<TokenId>, note: &[u8], out: &mut dyn Write) -> Result<()> {
        self.refuse_gpu("a saved context")?;
        if note.len() as u64 > MAX_NOTE_BYTES {
            return Err(Error::NoteTooLong { seen_bytes: note.len() as u64, most_bytes: MAX_NOTE_BYTES });
        }
        let (tokens, tables) = self.parts(id)?;
        let groups: Vec<Group> = self.groups(tables, tokens.len());
        let mut list: Vec<u8> = tokens.iter().flat_map(|id| id.0.to_le_bytes()).collect();
        list.extend_from_slice(note);
        let mut room = Vec::new();
        self.each_page(tables, &groups, tokens.len(), &mut room, &mut |bytes| {
            list.extend_from_slice(&Sha256::digest(bytes));
            Ok(())
        })?;
        let header = Header {
            list_hash: Sha256::digest(&list).into(),
            n_tokens: tokens.len() as u64,
            n_pure: self.n_pure(id)? as u64,
            pending: pending.map(|id| id.0),
            n_note_bytes: note.len() as u64,
            groups,
            ..self.header_here()
        };
        let io = |e: std::io::Error| Error::from(SavedError::from(e));
        out.write_all(&header.to_bytes()).map_err(io)?;
        write_padded(out, &list).map_err(io)?;
        self.each_page(tables, &header.groups, tokens.len(), &mut room, &mut |bytes| {
            write_padded(out, bytes).map_err(io)
        })?;
        out.flush().map_err(io)
    }

    /// Reads a sequence that [`save`](Self::save) wrote into one that is empty.
    ///
    /// # Errors
    /// There is no such sequence, it is not empty, layers on a GPU, no memory left, a failed read,
    /// or what was saved is of another model or of other bits, too long, or damaged. The sequence
    /// then is empty.
    pub fn restore(&mut self, id: SequenceId, input: &mut dyn Read) -> Result<Restored> {
        self.refuse_gpu("a saved context")?;
        let used = self.tokens(id)?.len();
        if used > 0 {
            return Err(Error::ContextInUse { used });
        }
        let mut block = vec![0; ALIGN as usize];
        read_exact(input, &mut block)?;
        let header = Header::parse(&block)?;
        self.check_header(&header)?;
        let n_list = header.list_bytes().ok_or(SavedError::Damaged("its header was changed"))?;
        let list = read_padded(input, n_list)?;
        if header.list_hash != *Sha256::digest(&list) {
            return Err(SavedError::Damaged("its tokens were changed").into());
        }
        let (ids, rest) = list.split_at(4 * header.n_tokens as usize);
        let (note, hashes) = rest.split_at(header.n_note_bytes as usize);
        let tokens: Vec<TokenId> = ids.as_chunks().0.iter().map(|id| TokenId(u32::from_le_bytes(*id))).collect();
        let n_vocab = self.model().n_vocab();
        let pending = header.pending.map(TokenId);
        if let Some(id) = tokens.iter().chain(&pending).find(|id| id.0 as usize >= n_vocab) {
            return Err(Error::TokenOutOfRange { id: id.0, n_vocab });
        }
        let mut hashes = hashes.chunks_exact(size_of::<Hash>());
        let mut read = |mut page: Page| {
            read_exact(input, page.bytes_mut())?;
            skip(input, padding(page.bytes().len() as u64))?;
            match hashes.next() == Some(&Sha256::digest(page.bytes())[..]) {
                true => Ok(Arc::new(page)),
                false => Err(Error::from(SavedError::Damaged("keys and values were changed"))),
            }
        };
        let mut tables = Vec::with_capacity(header.groups.len());
        let n_groups = self.store().page_bytes().len();
        for (group, saved) in header.groups[..n_groups].iter().enumerate() {
            let mut table = Table::new(saved.first_page as usize, saved.valid as usize);
            for _ in 0..saved.n_pages {
                table.pages.push_back(read(self.store().take(group)?)?);
            }
            tables.push(table);
        }
        let records = match header.groups[n_groups..].iter().any(|saved| saved.n_pages > 0) {
            true => Records::of(tokens.len(), read(self.store().take_record()?)?),
            false => Records::default(),
        };
        if input.read(&mut [0]).map_err(SavedError::from)? != 0 {
            return Err(SavedError::Damaged("something stands behind its end").into());
        }
        let tables = Tables::new(tables, records);
        if !self.store().can_return(&tables, tokens.len()) {
            return Err(SavedError::Damaged("it lacks keys and values").into());
        }
        let note = note.to_vec();
        self.fill(id, tables, &tokens, header.n_pure)?;
        Ok(Restored { pending, note })
    }

    /// What a context that is saved here is of.
    fn header_here(&self) -> Header {
        let model = self.model();
        Header {
            fingerprint: fingerprint(model),
            cache_type: self.cache_type().name().to_owned(),
            isa: model.kernels().isa().name().to_owned(),
            bits_version: modelembed_kernels::BITS_VERSION,
            exact: model.is_exact(),
            long_ropes: model.ropes().iter().map(|rope| rope.is_long(self.ctx_tokens())).collect(),
            n_tokens: 0,
            n_pure: 0,
            pending: None,
            n_note_bytes: 0,
            list_hash: Hash::default(),
            groups: Vec::new(),
        }
    }

    /// Refuses what cannot be gone on with here.
    fn check_header(&self, header: &Header) -> Result<(), SavedError> {
        let here = self.header_here();
        if header.fingerprint != here.fingerprint {
            return Err(SavedError::OtherModel);
        }
        let activations = |exact: bool| if exact { "f32" } else { "q8" }.to_owned();
        let angles = |long: &[bool]| if long.contains(&true) { "long contexts" } else { "short contexts" }.to_owned();
        for (what, seen, wanted) in [
            ("cache type", header.cache_type.clone(), here.cache_type.clone()),
            ("instruction set", header.isa.clone(), here.isa.clone()),
            ("version of the kernels", header.bits_version.to_string(), here.bits_version.to_string()),
            ("type of activations", activations(header.exact), activations(here.exact)),
            ("rotary embedding", angles(&header.long_ropes), angles(&here.long_ropes)),
        ] {
            if seen != wanted {
                return Err(SavedError::Other { what, seen, wanted });
            }
        }
        if header.n_tokens > self.ctx_tokens() as u64 {
            return Err(SavedError::TooLong { tokens: header.n_tokens, ctx_tokens: self.ctx_tokens() });
        }
        let page_tokens = PAGE_TOKENS as u64;
        let fits = |(saved, here): (&Group, usize)| {
            let (len, end) = (header.n_tokens, header.n_tokens.div_ceil(page_tokens));
            let is_empty = saved.n_pages == 0 && saved.valid == len && saved.first_page == len / page_tokens;
            let is_whole = saved.first_page <= end
                && saved.n_pages == end - saved.first_page
                && saved.valid <= len
                && saved.first_page == saved.valid / page_tokens;
            saved.page_bytes == here as u64 && (is_empty || is_whole)
        };
        let page_bytes = self.store().page_bytes();
        let (groups, record) = header.groups.split_at(page_bytes.len().min(header.groups.len()));
        let wanted = self.record_group(header.n_tokens as usize);
        let same =
            groups.len() == page_bytes.len() && record == wanted.as_slice() && header.long_ropes == here.long_ropes;
        match same && groups.iter().zip(page_bytes).all(fits) {
            true => Ok(()),
            false => Err(SavedError::Damaged("its header fits no context of this model")),
        }
    }

    /// The groups of a sequence of `len` tokens.
    fn groups(&self, tables: &Tables, len: usize) -> Vec<Group> {
        let group = |(group, page_bytes): (usize, usize)| {
            let table = tables.of(group);
            Group {
                page_bytes: page_bytes as u64,
                valid: table.valid() as u64,
                first_page: table.first as u64,
                n_pages: table.pages.len().min(len.div_ceil(PAGE_TOKENS).saturating_sub(table.first)) as u64,
            }
        };
        self.store().page_bytes().into_iter().enumerate().map(group).chain(self.record_group(len)).collect()
    }

    /// The record of a sequence of `len` tokens, if the model has recurrences.
    fn record_group(&self, len: usize) -> Option<Group> {
        let page_bytes = self.store().record_bytes() as u64;
        let (valid, first_page) = (len as u64, (len / CHUNK) as u64);
        (page_bytes > 0).then_some(Group { page_bytes, valid, first_page, n_pages: u64::from(len > 0) })
    }

    /// Hands out the bytes of each page; what no token stands in is zero.
    fn each_page(
        &self,
        tables: &Tables,
        groups: &[Group],
        len: usize,
        room: &mut Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let store: &PageStore = self.store();
        let n_groups = store.page_bytes().len();
        for (group, saved) in groups[..n_groups].iter().enumerate() {
            let table = tables.of(group);
            for (i, page) in table.pages.iter().take(saved.n_pages as usize).enumerate() {
                let n_rows = (len - (table.first + i) * PAGE_TOKENS).min(PAGE_TOKENS);
                let first_row = table.valid().saturating_sub((table.first + i) * PAGE_TOKENS);
                room.clear();
                room.resize(page.bytes().len(), 0);
                store.layout().copy_rows(group, page.bytes(), room, first_row.min(n_rows)..n_rows);
                each(room)?;
            }
        }
        if let Some(record) = tables.records.at(len).filter(|_| groups.len() > n_groups && len > 0) {
            room.clear();
            room.resize(record.bytes().len(), 0);
            store.record_layout().copy(record.bytes(), room, len % CHUNK);
            each(room)?;
        }
        Ok(())
    }
}

impl Session {
    /// Writes the context to a file, with the token that is [pending](Self::pending) and a note of
    /// the caller's, as [`Engine::save`] does. It is written under another name, and renamed when it
    /// is complete and on the disk: the file is the old one or the new one. Only its owner may read
    /// it.
    ///
    /// # Errors
    /// As [`Engine::save`].
    pub fn save(&self, path: impl AsRef<Path>, note: &[u8]) -> Result<()> {
        self.save_with(path.as_ref(), self.pending(), note)
    }

    /// The same with a token of the caller's in place of the one that is pending.
    pub(crate) fn save_with(&self, path: &Path, pending: Option<TokenId>, note: &[u8]) -> Result<()> {
        let write = || {
            // Where a link leads, not in its place.
            let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::NamedTempFile::new_in(folder).map_err(SavedError::from)?;
            let (engine, sequence) = self.parts();
            engine.save(sequence, pending, note, file.as_file_mut())?;
            file.as_file().sync_all().map_err(SavedError::from)?;
            file.persist(&path).map_err(|e| SavedError::from(e.error))?;
            Ok(())
        };
        write().map_err(|e| of_file(e, path))
    }

    /// Reads the context of a file that [`save`](Self::save) wrote. This context must be empty. The
    /// next text goes on from where the saved one ended.
    ///
    /// # Errors
    /// As [`Engine::restore`].
    pub fn restore(&mut self, path: impl AsRef<Path>) -> Result<Restored> {
        let path = path.as_ref();
        let mut read = || {
            let mut file = std::fs::File::open(path).map_err(SavedError::from)?;
            let (engine, sequence) = self.parts_mut();
            engine.restore(sequence, &mut file)
        };
        let restored = read().map_err(|e| of_file(e, path))?;
        self.set_pending(restored.pending);
        Ok(restored)
    }
}

/// Says which file it was.
fn of_file(error: Error, path: &Path) -> Error {
    match error {
        Error::Saved { path: None, source } => Error::Saved { path: Some(path.to_owned()), source },
        other => other,
    }
}

/// Bytes behind a part, up to where the next one begins.
fn padding(len: u64) -> u64 {
    len.next_multiple_of(ALIGN) - len
}

fn write_padded(out: &mut dyn Write, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes)?;
    out.write_all(&vec![0; padding(bytes.len() as u64) as usize])
}

fn read_exact(input: &mut dyn Read, out: &mut [u8]) -> Result<(), SavedError> {
    input.read_exact(out).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => SavedError::Damaged("it ends too early"),
        _ => SavedError::Io(e),
    })
}

/// Reads a part of `len` bytes; memory grows with what is there.
fn read_padded(input: &mut dyn Read, len: u64) -> Result<Vec<u8>, SavedError> {
    let mut bytes = Vec::new();
    input.take(len).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < len {
        return Err(SavedError::Damaged("it ends too early"));
    }
    skip(input, padding(len))?;
    Ok(bytes)
}

fn skip(input: &mut dyn Read, len: u64) -> Result<(), SavedError> {
    match std::io::copy(&mut input.take(len), &mut std::io::sink())? == len {
        true => Ok(()),
        false => Err(SavedError::Damaged("it ends too early")),
    }
}
