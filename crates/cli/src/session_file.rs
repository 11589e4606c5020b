//! `-session FILE`: a context that outlives the program.

use anyhow::{Result, bail};
use modelembed::text::{EncodeOptions, TokenId};
use modelembed::{Chat, Error, GenerateStats, Session};
use std::path::Path;

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

/// Goes on with the text of a file, if there is one. Returns the token that comes first.
pub fn restore_text(session: &mut Session, file: &Path, notes: Notes) -> Result<Option<TokenId>> {
    if !exists(file)? {
        return Ok(None);
    }
    let restored = session.restore(file)?;
    if restored.note != TEXT_NOTE {
        bail!("{}: it holds a chat, not the text of a -raw session", file.display());
    }
    notes.detail(&format!("session: {} tokens", session.len()));
    Ok(restored.pending)
}

/// Tokens of a text that goes on behind what a session holds and the token that comes first.
pub fn tokens_behind(session: &Session, pending: Option<TokenId>, text: &str) -> Result<Vec<TokenId>, Error> {
    let model = session.model();
    let tokenizer = model.tokenizer();
    let Some(before) = pending.or(session.tokens().last().copied()) else {
        return Ok(tokenizer.encode(text.as_bytes(), setup::WHOLE_TEXT)?);
    };
    let options = EncodeOptions { add_special: false, ..setup::WHOLE_TEXT };
    let behind = tokenizer.encode_after(before, text.as_bytes(), options)?;
    Ok(pending.into_iter().chain(behind).collect())
}

/// Writes the text of a session back.
pub fn save_text(session: &Session, file: &Path, stats: &GenerateStats) -> Result<()> {
    Ok(session.save(file, stats.pending, TEXT_NOTE)?)
}

fn exists(file: &Path) -> Result<bool> {
    Ok(file.try_exists()?)
}
