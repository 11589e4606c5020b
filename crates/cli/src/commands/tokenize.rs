//! `tokenize`: the ids and pieces of a text. Needs only a vocabulary.

use crate::resolve::{Format, Setting};
use crate::setup;
use crate::terminal::Answer;
use anyhow::Result;
use modelembed::ModelFiles;
use modelembed_text::{EncodeOptions, TokenId, Tokenizer};
use serde_json::json;
use std::process::ExitCode;

/// Prints one token a line, or `{"tokens":[{"id":..,"piece":..}]}`.
pub fn tokenize(setting: &Setting, text: &[u8], special: bool) -> Result<ExitCode> {
    let notes = setting.notes();
    if let Some(note) = &setting.model_note {
        notes.line(note);
    }
    let files = ModelFiles::open(&setting.model)?;
    let tokenizer = Tokenizer::from_gguf(files.gguf(), files.header().clone())?;
    tokenizer.warnings().iter().for_each(|warning| notes.warning(warning));
    let ids = tokenizer.encode(text, EncodeOptions::default().add_special(special).parse_special(special))?;
    if special {
        setup::warn_of_doubled_tokens(&tokenizer, &ids, notes);
    }
    let mut out = Answer::new();
    match setting.format {
        Format::Json => {
            let tokens: Vec<_> = ids
                .iter()
                .map(|&id| json!({"id": id.0, "piece": String::from_utf8_lossy(&piece(&tokenizer, id))}))
                .collect();
            out.bytes(format!("{}\n", json!({ "tokens": tokens })).as_bytes())?;
        }
        Format::Text => {
            for &id in &ids {
                out.bytes(format!("{:>7}  {}\n", id.0, quoted(&piece(&tokenizer, id))).as_bytes())?;
            }
        }
    }
    out.flush()?;
    notes.detail(&format!("{} tokens of {} bytes", ids.len(), text.len()));
    Ok(ExitCode::SUCCESS)
}

fn piece(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokenizer.piece(id, true, &mut bytes);
    bytes
}

/// A piece in quotes, with escapes for what is no printable text: a token may be a part of a
/// character.
fn quoted(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn pieces_are_shown_without_control_characters() {
        assert_eq!(quoted("a\"\n\u{1b}é".as_bytes()), r#""a\"\n\u{1b}é""#);
        assert_eq!(quoted(&[b' ', 0xf0, 0x9f]), r#"" \xf0\x9f""#);
    }
}
