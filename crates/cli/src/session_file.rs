//! `-session FILE`: a context that outlives the program.

use anyhow::{Result, bail};
use modelembed::{Chat, Model, Sampler, Session};
use modelembed_gguf::escaped;
use modelembed_text::TokenId;
use std::path::Path;

use crate::report;
use crate::setup;
use crate::terminal::Notes;

/// What a file says that holds a text, not a chat.
const TEXT_NOTE: &[u8] = b"{\"kind\":\"text\"}";

/// Goes on with the chat of a file, if there is one. A system message beside it has no place: the
/// chat has its own.
pub fn restore_chat(chat: &mut Chat, file: &Path, has_system: bool, notes: Notes) -> Result<()> {
    if !exists(file)? {
        return Ok(());
    }
    chat.restore(file)?;
    let n = chat.messages().iter().filter(|message| message.role == "user").count();
    notes.detail(&format!("session: {} tokens, {n} questions", chat.session().len()));
    if has_system {
        notes.warning("-system has no effect: the session has begun");
    }
    Ok(())
}

/// Writes a chat back, if something was said, and if its computing was sound.
pub fn save_chat(chat: &Chat, file: &Path, notes: Notes) -> Result<()> {
    if chat.messages().iter().all(|message| message.role == "system") {
        return Ok(());
    }
    if is_spoilt(chat.session().model(), file, notes) {
        return Ok(());
    }
    Ok(chat.save(file)?)
}

/// Whether the model's file was changed meanwhile: then nothing is kept of what was computed with
/// it.
fn is_spoilt(model: &Model, file: &Path, notes: Notes) -> bool {
    let is_spoilt = model.storages().any(|storage| storage.changed().is_some_and(report::spoils));
    if is_spoilt {
        notes.warning(&format!("{} is left as it was: the model's file was changed meanwhile", file.display()));
    }
    is_spoilt
}

/// Refuses a file in a folder that is not there, before anything is computed for it.
pub fn check_place(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("-session {}: there is no folder {}", escaped_path(file), escaped_path(folder));
    }
    if file.is_dir() {
        bail!("-session {}: that is a folder", escaped_path(file));
    }
    Ok(())
}

/// A path as it is shown, on one line.
fn escaped_path(path: &Path) -> String {
    escaped(&path.to_string_lossy()).into_owned()
}

/// Goes on with the text of a file, if there is one. Returns the token that comes first.
pub fn restore_text(
    session: &mut Session,
    sampler: &mut Sampler,
    file: &Path,
    notes: Notes,
) -> Result<Option<TokenId>> {
    if !exists(file)? {
        return Ok(None);
    }
    let restored = session.restore(file)?;
    if restored.note != TEXT_NOTE {
        bail!("{}: it holds a chat, not the text of a -raw session", escaped_path(file));
    }
    // Penalties look at what was said. A token that is pending comes again with the prompt.
    session.tokens().iter().for_each(|&id| sampler.accept(id));
    notes.detail(&format!("session: {} tokens", session.len()));
    Ok(restored.pending)
}

/// Tokens of a text that goes on behind what a session holds and the token that comes first.
pub fn tokens_behind(session: &Session, pending: Option<TokenId>, text: &str) -> Result<Vec<TokenId>> {
    let model = session.model();
    let tokenizer = model.tokenizer();
    let Some(before) = pending.or(session.tokens().last().copied()) else {
        return Ok(tokenizer.encode(text.as_bytes(), setup::WHOLE_TEXT)?);
    };
    let options = setup::WHOLE_TEXT.add_special(false);
    let behind = tokenizer.encode_after(before, text.as_bytes(), options)?;
    let tokens: Vec<TokenId> = pending.into_iter().chain(behind).collect();
    if tokens.is_empty() {
        bail!("the text of this session has ended; wanted a prompt to go on with");
    }
    Ok(tokens)
}

/// Writes the text of a session back.
pub fn save_text(session: &Session, file: &Path, notes: Notes) -> Result<()> {
    if is_spoilt(session.model(), file, notes) {
        return Ok(());
    }
    Ok(session.save(file, TEXT_NOTE)?)
}

fn exists(file: &Path) -> Result<bool> {
    Ok(file.try_exists()?)
}
