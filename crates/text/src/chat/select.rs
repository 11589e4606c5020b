//! Which template a model gets.

use super::builtin::{BUILTINS, Builtin, builtin};
use super::{ChatTemplate, Message, SpecialTokens, TemplateError};
use crate::printable::printable;
use crate::{EncodeOptions, TokenId, Tokenizer};
use modelembed_gguf::Gguf;

/// Where a template comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The model file.
    Model,
    /// The caller asked for it.
    Override,
    /// The model carries none: this built-in one (named) looks right. Such a model may be a base
    /// model, which completes text and was never taught to chat.
    Missing(&'static str),
    /// The model's own template does not work: this built-in one (named) stands in.
    Broken(&'static str),
}

/// The template for a model and how it was found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Selection {
    /// The template.
    pub template: ChatTemplate,
    /// Where it comes from.
    pub source: Source,
    /// What to tell the user: which fallback is in use and why.
    pub warning: Option<String>,
}

/// A template that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// The built-in one of this name.
    Named(&'a str),
    /// This Jinja source, which may well hold no tag.
    Source(&'a str),
}

impl<'a> From<&'a str> for Wanted<'a> {
    /// What holds a Jinja tag is a source, and everything else a name.
    fn from(text: &'a str) -> Wanted<'a> {
        if has_tag(text) { Wanted::Source(text) } else { Wanted::Named(text) }
    }
}

/// Whether a text holds a Jinja tag: without one, a template renders the same text for all
/// messages.
pub fn has_tag(source: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|tag| source.contains(tag))
}

/// The template for a model: `wanted` if given, else the model's own if it works, else
/// the built-in one that its vocabulary or name points to, with a warning.
///
/// # Errors
/// Only for `wanted`: what was asked for explicitly must work. A broken template in the file never
/// makes a model unusable.
pub fn for_model(gguf: &Gguf, tokenizer: &Tokenizer, wanted: Option<Wanted>) -> Result<Selection, TemplateError> {
    let text = |key: &str| gguf.str(key).ok().flatten();
    let token = |id: Option<TokenId>| id.map(|id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned());
    let pad = gguf.u32("tokenizer.ggml.padding_token_id").ok().flatten().map(TokenId);
    let facts = Facts {
        own: text("tokenizer.chat_template"),
        architecture: text("general.architecture").unwrap_or_default(),
        name: text("general.name").unwrap_or_default(),
        special: SpecialTokens {
            bos: token(tokenizer.bos()),
            eos: token(tokenizer.eos()),
            unk: token(tokenizer.unk()),
            pad: token(pad.filter(|id| id.index() < tokenizer.n_vocab())),
        },
        has_token: &|token| is_one_token(tokenizer, token),
    };
    choose(&facts, wanted)
}

/// Whether the vocabulary holds `text` as a special token: reading it as one gives a token that is
/// exactly it.
fn is_one_token(tokenizer: &Tokenizer, text: &str) -> bool {
    let ids = tokenizer.encode(text.as_bytes(), EncodeOptions { add_special: false, parse_special: true });
    ids.is_ok_and(|ids| ids.iter().any(|&id| tokenizer.token_bytes(id) == text.as_bytes()))
}

/// What is known about a model when its template is chosen.
pub struct Facts<'a> {
    /// `tokenizer.chat_template`
    pub own: Option<&'a str>,
    /// `general.architecture`
    pub architecture: &'a str,
    /// `general.name`
    pub name: &'a str,
    /// Texts of the special tokens.
    pub special: SpecialTokens,
    /// Whether the vocabulary holds this text as one token.
    pub has_token: &'a dyn Fn(&str) -> bool,
}

/// Picks the template: `wanted` if given, else the model's own if it works, else a
/// built-in one.
///
/// # Errors
/// Only for `wanted`: what was asked for explicitly must work.
pub fn choose(facts: &Facts, wanted: Option<Wanted>) -> Result<Selection, TemplateError> {
    if let Some(wanted) = wanted {
        let template = match wanted {
            Wanted::Source(source) => ChatTemplate::new(source, facts.special.clone())?,
            Wanted::Named(name) => builtin(name, facts.special.clone())?,
        };
        return Ok(Selection { template, source: Source::Override, warning: None });
    }
    let problem = match facts.own.filter(|own| !own.trim().is_empty()) {
        None => None,
        Some(own) => match ChatTemplate::new(own, facts.special.clone()).and_then(try_out) {
            Ok(template) => return Ok(Selection { template, source: Source::Model, warning: None }),
            Err(error) => Some(error),
        },
    };
    let (family, why) = fallback(facts);
    let template = family.template(facts.special.clone())?;
    let (source, problem) = match problem {
        Some(error) => (Source::Broken(family.name), format!("the model's own chat template does not work: {error}")),
        None => (Source::Missing(family.name), "the model has no chat template (it may be a base model)".to_string()),
    };
    let warning = format!("{problem}; the built-in template {:?} stands in, because {why}", family.name);
    Ok(Selection { template, source, warning: Some(warning) })
}

/// Renders the smallest conversation: many mistakes show only when a template runs. A template that
/// *refuses* it is sound.
fn try_out(template: ChatTemplate) -> Result<ChatTemplate, TemplateError> {
    match template.render(&[Message::new("user", "Hi")], true) {
        Ok(_) | Err(TemplateError::Raised { .. }) => Ok(template),
        Err(error) => Err(error),
    }
}

/// The family whose tokens the vocabulary holds; else the one that the architecture or name speaks
/// of; else ChatML, which more models have seen than any other.
fn fallback(facts: &Facts) -> (&'static Builtin, String) {
    let holds = |family: &&Builtin| !family.tokens.is_empty() && family.tokens.iter().all(|t| (facts.has_token)(t));
    if let Some(family) = BUILTINS.iter().find(holds) {
        return (family, format!("the vocabulary holds {}", family.tokens[0]));
    }
    for text in [facts.name, facts.architecture] {
        let lower = text.to_ascii_lowercase();
        if let Some(family) = BUILTINS.iter().find(|family| family.names.iter().any(|name| lower.contains(name))) {
            return (family, format!("the model is called {:?}", printable(text)));
        }
    }
    let chatml = BUILTINS.iter().find(|family| family.name == "chatml").unwrap_or(&BUILTINS[0]);
    (chatml, "nothing in the model points to another".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(
        own: Option<&'a str>,
        architecture: &'a str,
        name: &'a str,
        has: &'a dyn Fn(&str) -> bool,
    ) -> Facts<'a> {
        Facts { own, architecture, name, special: SpecialTokens::default(), has_token: has }
    }

    #[test]
    fn the_fallback_follows_tokens_then_names() {
        let rows: [(&[&str], &str, &str, &str); 8] = [
            (&["<|im_start|>", "<|im_end|>"], "llama", "x", "chatml"),
            (&["<|im_start|>", "<|im_end|>", "<|im_sep|>"], "phi3", "x", "phi4"),
            (&["<start_of_turn>", "<end_of_turn>"], "gemma3", "x", "gemma"),
            (&["<|user|>", "<|assistant|>", "<|end|>"], "phi3", "x", "phi3"),
            (&["[INST]", "[/INST]"], "llama", "x", "mistral"),
            (&[], "llama", "TinyLlama 1.1B", "zephyr"),
            (&[], "gemma", "", "gemma"),
            (&[], "llama", "\u{1b}[31m", "chatml"),
        ];
        for (tokens, architecture, name, wanted) in rows {
            let has = |token: &str| tokens.contains(&token);
            let selection = choose(&facts(None, architecture, name, &has), None).unwrap();
            assert_eq!(selection.source, Source::Missing(wanted), "{tokens:?} {architecture} {name}");
            assert!(selection.warning.unwrap().contains(wanted));
        }
    }

    #[test]
    fn a_broken_template_falls_back_and_names_its_line() {
        let own = "{% for m in messages %}\n{{ m.content }}\n{% endfor %}\n{{ nope() }}";
        let selection = choose(&facts(Some(own), "llama", "", &|_| false), None).unwrap();
        assert_eq!(selection.source, Source::Broken("chatml"));
        let warning = selection.warning.unwrap();
        assert!(warning.contains("line 4") && warning.contains("nope"), "{warning}");
    }

    #[test]
    fn a_template_that_refuses_a_conversation_is_not_broken() {
        let own = "{{ raise_exception('a system message is needed') }}";
        assert_eq!(choose(&facts(Some(own), "llama", "", &|_| false), None).unwrap().source, Source::Model);
    }

    #[test]
    fn an_override_is_a_name_or_a_source_and_must_work() {
        let none = |_: &str| false;
        let facts = facts(Some("own {{ messages }}"), "llama", "", &none);
        let render = |s: Selection| s.template.render(&[Message::new("user", "Hi")], false).unwrap();
        assert_eq!(render(choose(&facts, Some("phi3".into())).unwrap()), "<|user|>\nHi<|end|>\n");
        assert_eq!(render(choose(&facts, Some("{{ messages[0].role }}".into())).unwrap()), "user");
        assert_eq!(render(choose(&facts, Some(Wanted::Source("plain"))).unwrap()), "plain");
        assert_eq!(render(choose(&facts, Some("{# c #}plain".into())).unwrap()), "plain");
        let error = choose(&facts, Some("nonsense".into())).unwrap_err().to_string();
        assert!(error.contains("nonsense") && error.contains("chatml"), "{error}");
        let long = "a long text\n".repeat(1000);
        let error = choose(&facts, Some(Wanted::Named(&long))).unwrap_err().to_string();
        assert!(error.contains("a long text") && error.len() < 500, "{error}");
    }
}
