//! From a conversation to the tokens of a prompt.

use modelembed::{EncodeOptions, Model, TokenId, Tokenizer};
use modelembed_text::chat::{ChatTemplate, Guard, Rendered};
use serde_json::{Value, json};

use crate::api::chat::Conversation;
use crate::api::completion::RawPrompt;
use crate::error::ApiError;

/// What turns conversations into prompts.
pub(crate) struct Prompter {
    template: ChatTemplate,
    /// Whether the template has a place for a system message.
    takes_system: bool,
    reads_control_tokens: bool,
    /// Bytes of the longest token.
    longest_token: usize,
    /// Whether states are kept where messages end: models that cannot go back anywhere need it.
    wants_turn_ends: bool,
    ctx_tokens: usize,
}

/// A prompt, and where a later one may leave it.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub tokens: Vec<TokenId>,
    pub turn_ends: Vec<usize>,
    /// As the template wrote it.
    pub text: String,
}

impl Prompter {
    pub fn new(model: &Model, template: ChatTemplate, reads_control_tokens: bool, ctx_tokens: usize) -> Prompter {
        let tokenizer = model.tokenizer();
        let len = |id: u32| tokenizer.token_bytes(TokenId(id)).len();
        Prompter {
            takes_system: template.takes_system(),
            template,
            reads_control_tokens,
            longest_token: (0..tokenizer.n_vocab() as u32).map(len).max().unwrap_or(0).max(1),
            wants_turn_ends: !model.program().records().is_empty(),
            ctx_tokens,
        }
    }

    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Control tokens that reasoning is marked with, which have text for it to be told apart.
    pub fn reasoning_tokens(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let names = self.template.reasoning_marks().into_iter().flat_map(|marks| marks.tokens());
        names.filter_map(|name| tokenizer.find(name.as_bytes())).collect()
    }

    /// The conversation as the template writes it.
    pub fn render(&self, tokenizer: &Tokenizer, conversation: Conversation) -> Result<Rendered, ApiError> {
        let Conversation { mut messages, variables, add_generation_prompt } = conversation;
        if !self.takes_system {
            move_system(&mut messages);
        }
        let guard = if self.reads_control_tokens { Guard::off() } else { Guard::new(tokenizer) };
        guard
            .render_json(&self.template, messages, variables, add_generation_prompt)
            .map_err(|error| ApiError::invalid("messages", error.to_string()))
    }

    /// The prompt of a chat.
    pub fn chat(&self, tokenizer: &Tokenizer, conversation: Conversation) -> Result<Prompt, ApiError> {
        let without_prompt =
            self.wants_turn_ends.then(|| Conversation { add_generation_prompt: false, ..conversation.clone() });
        let rendered = self.render(tokenizer, conversation)?;
        self.check_len("messages", rendered.text().len())?;
        let encode = |rendered: &Rendered| {
            rendered.encode(tokenizer).map_err(|error| ApiError::invalid("messages", error.to_string()))
        };
        let tokens = encode(&rendered)?;
        let mut turn_ends = Vec::new();
        // Where the last message ends: the next turn writes an answer there, which a template may
        // begin in another way than it asks for one.
        if let Some(Ok(rendered)) = without_prompt.map(|conversation| self.render(tokenizer, conversation)) {
            let shorter = encode(&rendered)?;
            let alike = shorter.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
            turn_ends.extend((0 < alike && alike < tokens.len()).then_some(alike));
        }
        if tokens.is_empty() {
            return Err(ApiError::invalid("messages", "the chat template writes nothing for these messages"));
        }
        Ok(Prompt { tokens, turn_ends, text: rendered.text().to_owned() })
    }

    /// The tokens of a prompt as it came.
    pub fn raw(&self, tokenizer: &Tokenizer, prompt: RawPrompt) -> Result<Vec<TokenId>, ApiError> {
        let text = match prompt {
            RawPrompt::Tokens(tokens) if tokens.len() > self.ctx_tokens => {
                let (n, limit) = (tokens.len(), self.ctx_tokens);
                let message = format!(
                    "the prompt has {n} tokens, but the context holds {limit}: it exceeds the available context size"
                );
                return Err(ApiError::too_long("prompt", n, limit, message));
            }
            RawPrompt::Tokens(tokens) => return Ok(tokens),
            RawPrompt::Text(text) => text,
        };
        self.check_len("prompt", text.len())?;
        let options = EncodeOptions::default().add_special(true).parse_special(true);
        let mut tokens = tokenizer
            .encode(text.as_bytes(), options)
            .map_err(|error| ApiError::invalid("prompt", error.to_string()))?;
        if tokens.is_empty() {
            // Something has to stand before the answer.
            let start = tokenizer.bos().or(tokenizer.eos());
            tokens.extend(start);
        }
        if tokens.is_empty() {
            return Err(ApiError::invalid("prompt", "prompt is an empty text, wanted at least one token"));
        }
        Ok(tokens)
    }

    /// Refuses a text that cannot fit, before time is spent on its tokens.
    fn check_len(&self, param: &str, len_bytes: usize) -> Result<(), ApiError> {
        let least = len_bytes / self.longest_token;
        if least <= self.ctx_tokens {
            return Ok(());
        }
        let limit = self.ctx_tokens;
        let message = format!(
            "the prompt has {len_bytes} bytes, which are at least {least} tokens, but the context holds {limit}: \
             it exceeds the available context size"
        );
        Err(ApiError::too_long(param, least, limit, message))
    }
}

/// Puts system messages before the text of the next message, for templates without a place for
/// them.
fn move_system(messages: &mut Value) {
    let Some(list) = messages.as_array_mut() else { return };
    let mut system = String::new();
    let mut kept = Vec::with_capacity(list.len());
    for mut message in std::mem::take(list) {
        let content = message["content"].as_str().unwrap_or_default().to_owned();
        if message["role"] == "system" {
            system.push_str(&content);
            system.push('\n');
            continue;
        }
        if !system.is_empty() && message["role"] == "user" {
            message["content"] = json!(std::mem::take(&mut system) + &content);
        }
        kept.push(message);
    }
    if !system.is_empty() {
        kept.push(json!({"role": "user", "content": system.trim_end_matches('\n')}));
    }
    *list = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_message_without_a_place_goes_before_the_question() {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let mut messages = json!([message("system", "S"), message("user", "Q"), message("assistant", "A")]);
        move_system(&mut messages);
        assert_eq!(messages, json!([message("user", "S\nQ"), message("assistant", "A")]));
        let mut alone = json!([message("system", "S")]);
        move_system(&mut alone);
        assert_eq!(alone, json!([message("user", "S")]));
    }
}
