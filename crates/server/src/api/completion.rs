//! `/v1/completions`: the body, read into prompts and what is wanted of the answers.

use modelembed::{SamplerOptions, TokenId};
use serde_json::Value;

use super::fields::Fields;
use super::sampling::{Common, MOST_TOP, token_id};
use crate::error::ApiError;

/// Prompts of one request at most.
const MOST_PROMPTS: usize = 128;
/// Tokens of an answer where nothing is said, as OpenAI has it.
const DEFAULT_MAX_TOKENS: usize = 16;

/// A prompt as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RawPrompt {
    /// A text, in which names of control tokens are those tokens.
    Text(String),
    /// Tokens, as they are.
    Tokens(Vec<TokenId>),
}

/// A completion request.
#[derive(Clone, Debug)]
pub(crate) struct CompletionRequest {
    pub prompts: Vec<RawPrompt>,
    pub common: Common,
    /// The prompt is a part of the answer.
    pub echo: bool,
}

impl CompletionRequest {
    pub fn read(body: &Value, defaults: &SamplerOptions, n_vocab: usize) -> Result<CompletionRequest, ApiError> {
        let fields = Fields::of_body(body)?;
        let mut common = Common::read(fields, defaults, n_vocab)?;
        // null stands for the default here, and -1 for no limit.
        if fields.value("max_tokens").is_none() && fields.value("max_completion_tokens").is_none() {
            common.request.max_tokens = Some(DEFAULT_MAX_TOKENS);
        }
        let echo = fields.bool("echo")?.unwrap_or(false);
        let top = fields.whole("logprobs", 0, MOST_TOP)?.map(|top| top as usize);
        common.request.logprobs = top;
        common.request.prompt_logprobs = top.filter(|_| echo);
        if fields.str("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(fields.error("suffix", "none: text between two texts is not filled in"));
        }
        if echo && common.stream {
            return Err(fields.error("echo", "false in a stream"));
        }
        let prompts = prompts(fields, n_vocab)?;
        Ok(CompletionRequest { prompts, common, echo })
    }
}

fn prompts(fields: Fields<'_>, n_vocab: usize) -> Result<Vec<RawPrompt>, ApiError> {
    const WANTED: &str = "a text, token ids, or a list of either";
    let error = || fields.error("prompt", WANTED);
    let tokens = |ids: &[Value], name: &str| {
        let ids: Option<Vec<TokenId>> = ids.iter().map(|id| token_id(id, n_vocab)).collect();
        let message = || format!("{name} is no list of token ids, wanted whole numbers from 0 to {}", n_vocab - 1);
        ids.map(RawPrompt::Tokens).ok_or_else(|| ApiError::invalid("prompt", message()))
    };
    let prompts = match fields.value("prompt") {
        Some(Value::String(text)) => vec![RawPrompt::Text(text.clone())],
        Some(Value::Array(list)) => match list.first() {
            None => return Err(error()),
            Some(Value::Number(_)) => vec![tokens(list, "prompt")?],
            Some(_) if list.len() > MOST_PROMPTS => {
                return Err(fields.error("prompt", &format!("at most {MOST_PROMPTS} prompts")));
            }
            Some(_) => list
                .iter()
                .enumerate()
                .map(|(i, prompt)| match prompt {
                    Value::String(text) => Ok(RawPrompt::Text(text.clone())),
                    Value::Array(ids) => tokens(ids, &format!("prompt[{i}]")),
                    _ => Err(error()),
                })
                .collect::<Result<_, _>>()?,
        },
        _ => return Err(error()),
    };
    if prompts.iter().any(|prompt| matches!(prompt, RawPrompt::Tokens(ids) if ids.is_empty())) {
        return Err(ApiError::invalid("prompt", "a prompt is an empty list, wanted at least one token id"));
    }
    Ok(prompts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<CompletionRequest, ApiError> {
        CompletionRequest::read(&body, &SamplerOptions::default(), 100)
    }

    #[test]
    fn prompts_are_texts_or_tokens_alone_or_many() {
        let text = |text: &str| RawPrompt::Text(text.to_owned());
        let ids = |ids: &[u32]| RawPrompt::Tokens(ids.iter().copied().map(TokenId).collect());
        let rows = [
            (json!("a"), vec![text("a")]),
            (json!(["a", "b"]), vec![text("a"), text("b")]),
            (json!([1, 2]), vec![ids(&[1, 2])]),
            (json!([[1, 2], [3]]), vec![ids(&[1, 2]), ids(&[3])]),
            (json!(["a", [3]]), vec![text("a"), ids(&[3])]),
        ];
        for (prompt, wanted) in rows {
            assert_eq!(read(json!({ "prompt": prompt })).unwrap().prompts, wanted);
        }
        let wrong =
            [json!(null), json!([]), json!([[]]), json!([100]), json!([-1]), json!([1.5]), json!([1, "a"]), json!(5)];
        for prompt in wrong.into_iter().chain([json!(vec!["a"; 129])]) {
            let error = read(json!({ "prompt": prompt })).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("prompt"), "{prompt}: {}", error.message);
        }
    }

    #[test]
    fn echo_with_logprobs_wants_those_of_the_prompt() {
        let request =
            read(json!({"prompt": "a", "echo": true, "logprobs": 1, "max_tokens": 0})).unwrap().common.request;
        assert_eq!((request.prompt_logprobs, request.logprobs, request.max_tokens), (Some(1), Some(1), Some(0)));
        let request = read(json!({"prompt": "a", "logprobs": 1})).unwrap().common.request;
        assert_eq!((request.prompt_logprobs, request.max_tokens), (None, Some(16)));
        assert_eq!(read(json!({"prompt": "a", "max_tokens": -1})).unwrap().common.request.max_tokens, None);
        for body in [json!({"prompt": "a", "suffix": "b"}), json!({"prompt": "a", "echo": true, "stream": true})] {
            assert!(read(body).is_err());
        }
    }
}
