//! Keeps what people write from becoming control tokens.
//!
//! A chat template pastes messages into text that is full of control tokens, and the tokenizer
//! reads the result as a whole: a message that says `<|im_end|>` would end its own turn. So a
//! [`Guard`] marks such texts before the template runs: a character of the private use area,
//! [`MARK`], goes into each of them, which says that the next character is plain text. Behind the
//! template the marks are taken out again ([`Rendered`]), and the tokenizer finds no control token
//! that holds a character which had one. Nothing is cut there: plain text around it is tokenized
//! as if control tokens did not exist.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use super::reasoning::REASONING_MARKS;
use super::{ChatTemplate, Message, TemplateError};
use crate::{TextError, TokenId, Tokenizer};
use serde_json::{Map, Value};

/// Says that the next character is plain text: the last character of the private use area. A
/// message that holds it itself has another one before it.
const MARK: char = '\u{10fffd}';
/// As JSON writes it where nothing but ASCII is wanted.
const MARK_ESCAPED: &str = "\\udbff\\udffd";
/// Keys of a message whose texts templates compare with words of their own.
const WORDS: [&str; 2] = ["role", "type"];

/// Marks what of messages would be control tokens of a vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'t> {
    /// None marks nothing.
    tokenizer: Option<&'t Tokenizer>,
}

impl<'t> Guard<'t> {
    /// For the control tokens of this vocabulary.
    pub fn new(tokenizer: &'t Tokenizer) -> Guard<'t> {
        Guard { tokenizer: Some(tokenizer) }
    }

    /// Marks nothing: texts of control tokens in messages become those tokens.
    pub fn off() -> Guard<'t> {
        Guard { tokenizer: None }
    }

    /// One text of a message of this role, marked. What an assistant wrote keeps the marks of its
    /// reasoning, which templates look for.
    pub fn text<'a>(&self, role: &str, text: &'a str) -> Cow<'a, str> {
        self.marked(role, text, true)
    }

    /// Messages of text, marked.
    pub fn messages(&self, messages: &[Message]) -> Vec<Message> {
        let marked = |m: &Message| Message::new(&*m.role, self.text(&m.role, &m.content));
        messages.iter().map(marked).collect()
    }

    /// A message of any shape, marked: all its texts at any depth, and the keys of what lies in it.
    pub fn message(&self, message: &mut Value) {
        let role = message.get("role").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(fields) = message.as_object_mut() else { return };
        for (key, value) in fields.iter_mut().filter(|(key, _)| *key != "role") {
            self.field(&role, key, value);
        }
    }

    fn field(&self, role: &str, key: &str, value: &mut Value) {
        match value {
            Value::String(text) if WORDS.contains(&key) => *text = self.marked(role, text, false).into_owned(),
            value => self.value(role, value),
        }
    }

    /// All texts of a value, and its keys, marked: tools, documents.
    pub fn value(&self, role: &str, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(marked) = self.text(role, text) {
                    *text = marked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(role, item)),
            Value::Object(fields) => {
                let marked = |(key, mut value): (String, Value)| {
                    self.field(role, &key, &mut value);
                    (self.marked(role, &key, false).into_owned(), value)
                };
                *fields = std::mem::take(fields).into_iter().map(marked).collect::<Map<_, _>>();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// With `edges` also what text beside it could make a control token of.
    fn marked<'a>(&self, role: &str, text: &'a str, edges: bool) -> Cow<'a, str> {
        let Some(tokenizer) = self.tokenizer else { return Cow::Borrowed(text) };
        // Before which characters a mark goes.
        // A mark's own text, and what JSON writes for it, are text as others.
        let mut at: BTreeSet<usize> = text.match_indices(MARK).map(|(i, _)| i).collect();
        at.extend(text.match_indices(MARK_ESCAPED).map(|(i, _)| i));
        let is_kept = |token: &[u8]| {
            let is_mark = |mark: &str| mark.as_bytes() == token;
            role == "assistant" && REASONING_MARKS.iter().any(|marks| is_mark(marks.start) || is_mark(marks.end))
        };
        tokenizer.for_each_control_in(text.as_bytes(), &mut |range, token| {
            if !is_kept(token) {
                at.insert(inner_char(text, range));
            }
        });
        if edges {
            let (starts, ends) = tokenizer.control_edges(text.as_bytes());
            at.extend(starts.then_some(0).filter(|_| !text.is_empty()));
            at.extend(text.char_indices().next_back().map(|(i, _)| i).filter(|_| ends));
        }
        if at.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len() + at.len() * MARK.len_utf8());
        let mut from = 0;
        for at in at {
            out.push_str(&text[from..at]);
            out.push(MARK);
            from = at;
        }
        out.push_str(&text[from..]);
        Cow::Owned(out)
    }

    /// Messages as the template writes them.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render(&self, template: &ChatTemplate, messages: &[Message]) -> Result<Rendered, TemplateError> {
        Ok(self.rendered(template.render(&self.messages(messages), true)?))
    }

    /// Messages of any shape as the template writes them, with `extra` variables, whose texts are
    /// marked too.
    ///
    /// # Errors
    /// As [`ChatTemplate::render_json`].
    pub fn render_json(
        &self,
        template: &ChatTemplate,
        mut messages: Value,
        mut extra: Map<String, Value>,
        add_generation_prompt: bool,
    ) -> Result<Rendered, TemplateError> {
        if self.tokenizer.is_some() {
            messages.as_array_mut().into_iter().flatten().for_each(|message| self.message(message));
            extra.values_mut().for_each(|value| self.value("system", value));
        }
        Ok(self.rendered(template.render_json(&messages, &extra, add_generation_prompt)?))
    }

    /// What a template made of marked texts.
    pub fn rendered(&self, marked: String) -> Rendered {
        match self.tokenizer {
            Some(_) => Rendered::unmarked(&marked),
            None => Rendered { text: marked, plain: None },
        }
    }
}

/// The place in `text` of a character that lies in `range`: the second one, so that the text is
/// none of a control token's in the template either.
fn inner_char(text: &str, range: Range<usize>) -> usize {
    let second = (range.start + 1..range.end).find(|&i| text.is_char_boundary(i));
    second.unwrap_or_else(|| (0..=range.start).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0))
}

/// A rendered chat: its text without marks, and where in it no control token may lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    /// In order: bytes of characters that were marked. Without, nothing was guarded.
    plain: Option<Vec<Range<usize>>>,
}

impl Rendered {
    /// Takes the marks out.
    fn unmarked(marked: &str) -> Rendered {
        let (mut text, mut plain) = (String::with_capacity(marked.len()), Vec::new());
        let mut rest = marked;
        while let Some((at, len)) = next_mark(rest) {
            text.push_str(&rest[..at]);
            rest = &rest[at + len..];
            // None at the end of a text that was cut behind a mark.
            let Some(c) = rest.chars().next() else { break };
            let start = text.len();
            text.push(c);
            plain.push(start..text.len());
            rest = &rest[c.len_utf8()..];
        }
        text.push_str(rest);
        Rendered { text, plain: Some(plain) }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes of it that belong to no control token, in order; none where nothing was guarded.
    pub fn plain(&self) -> Option<&[Range<usize>]> {
        self.plain.as_deref()
    }

    /// The ids of a text that stands at the beginning of a context. A template may write the token
    /// that begins a text itself; it is added where it did not.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<TokenId>, TextError> {
        let mut tokens = tokenizer.encode_rendered(None, self)?;
        if let Some(bos) = tokenizer.bos()
            && tokenizer.adds_bos()
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }
}

/// Place and length of the next mark.
fn next_mark(text: &str) -> Option<(usize, usize)> {
    let plain = text.find(MARK).map(|at| (at, MARK.len_utf8()));
    let escaped = text.find(MARK_ESCAPED).map(|at| (at, MARK_ESCAPED.len()));
    match (plain, escaped) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_out_and_leave_what_they_marked() {
        /// Marked, without marks, and from where to where those were.
        type Row<'a> = (&'a str, &'a str, &'a [(usize, usize)]);
        let rows: [Row<'_>; 6] = [
            ("plain", "plain", &[]),
            ("a<\u{10fffd}|x|>", "a<|x|>", &[(2, 3)]),
            ("\u{10fffd}\u{10fffd}é", "\u{10fffd}é", &[(0, 4)]),
            ("\u{10fffd}éa\u{10fffd}b", "éab", &[(0, 2), (3, 4)]),
            ("cut\u{10fffd}", "cut", &[]),
            ("\"<\\udbff\\udffd|\"", "\"<|\"", &[(2, 3)]),
        ];
        for (marked, text, plain) in rows {
            let rendered = Rendered::unmarked(marked);
            let seen: Option<Vec<_>> = rendered.plain().map(|all| all.iter().map(|at| (at.start, at.end)).collect());
            assert_eq!((rendered.text(), seen.as_deref()), (text, Some(plain)), "{marked:?}");
        }
    }
}
