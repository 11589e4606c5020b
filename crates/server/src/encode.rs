//! OpenAI's shapes of answers: chats and completions, whole and in chunks.

use modelembed::{TokenId, Tokenizer};
use modelembed_serve::Usage;
use serde_json::{Map, Value, json};

use crate::events::{Delta, Finish, TokenRow};

/// What all objects of one answer have in common.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub model: String,
    pub fingerprint: String,
    pub kind: Kind,
}

/// Which interface is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Completion,
}

/// Numbers of tokens of all choices of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub prompt: usize,
    pub cached: usize,
    pub completion: usize,
    pub reasoning: usize,
}

impl Totals {
    /// Adds a choice. Choices of one prompt count its tokens once.
    pub fn add(&mut self, usage: Usage, reasoning: usize, is_first_of_prompt: bool) {
        if is_first_of_prompt {
            self.prompt += usage.prompt;
            self.cached += usage.cached;
        }
        self.completion += usage.completion;
        self.reasoning += reasoning;
    }

    fn json(&self, kind: Kind) -> Value {
        let mut usage = json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        });
        if kind == Kind::Chat {
            usage["completion_tokens_details"] = json!({"reasoning_tokens": self.reasoning});
        }
        usage
    }
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

impl Head {
    fn object(&self, name: &str, choices: Value) -> Map<String, Value> {
        Map::from_iter([
            ("id".to_owned(), json!(self.id)),
            ("object".to_owned(), json!(name)),
            ("created".to_owned(), json!(self.created)),
            ("model".to_owned(), json!(self.model)),
            ("system_fingerprint".to_owned(), json!(self.fingerprint)),
            ("choices".to_owned(), choices),
        ])
    }

    fn chunk_of(&self, choices: Value) -> Value {
        let name = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        };
        Value::Object(self.object(name, choices))
    }

    fn chunk(&self, index: usize, payload: Value, logprobs: Value, finish: Option<Finish>) -> Value {
        let name = match self.kind {
            Kind::Chat => "delta",
            Kind::Completion => "text",
        };
        self.chunk_of(json!([{
            "index": index, name: payload, "logprobs": logprobs, "finish_reason": finish.map(finish_reason),
        }]))
    }

    /// The chunk that opens a choice of a chat.
    pub fn opening(&self, index: usize) -> Value {
        self.chunk(index, json!({"role": "assistant", "content": ""}), Value::Null, None)
    }

    /// A chunk that says nothing: a sign of life.
    pub fn nothing(&self) -> Value {
        let payload = match self.kind {
            Kind::Chat => json!({}),
            Kind::Completion => json!(""),
        };
        self.chunk(0, payload, Value::Null, None)
    }

    /// A chunk for each part; the first has the log-probabilities.
    pub fn parts(&self, index: usize, parts: &[Delta], mut logprobs: Value) -> Vec<Value> {
        let mut chunks: Vec<Value> =
            parts.iter().map(|part| self.chunk(index, self.delta(part), logprobs.take(), None)).collect();
        if chunks.is_empty() && !logprobs.is_null() {
            let payload = self.delta(&Delta::Content(String::new()));
            chunks.push(self.chunk(index, payload, logprobs, None));
        }
        chunks
    }

    fn delta(&self, part: &Delta) -> Value {
        match (self.kind, part) {
            (Kind::Completion, Delta::Content(text) | Delta::Reasoning(text) | Delta::Arguments { text, .. }) => {
                json!(text)
            }
            (Kind::Completion, Delta::ToolCall { .. }) => json!(""),
            (Kind::Chat, Delta::Content(text)) => json!({ "content": text }),
            (Kind::Chat, Delta::Reasoning(text)) => json!({ "reasoning_content": text }),
            (Kind::Chat, Delta::ToolCall { index, id, name }) => json!({"tool_calls": [{
                "index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""},
            }]}),
            (Kind::Chat, Delta::Arguments { index, text }) => {
                json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
            }
        }
    }

    /// The chunk that closes a choice.
    pub fn closing(&self, index: usize, finish: Finish) -> Value {
        let payload = match self.kind {
            Kind::Chat => json!({}),
            Kind::Completion => json!(""),
        };
        self.chunk(index, payload, Value::Null, Some(finish))
    }

    /// The chunk with the numbers of tokens, which has no choices.
    pub fn usage(&self, totals: &Totals) -> Value {
        let mut chunk = self.chunk_of(json!([]));
        chunk["usage"] = totals.json(self.kind);
        chunk
    }

    /// A whole answer.
    pub fn whole(&self, choices: Vec<Choice>, totals: &Totals, tokenizer: &Tokenizer) -> Value {
        let name = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Completion => "text_completion",
        };
        let choices: Vec<Value> =
            choices.into_iter().enumerate().map(|(i, choice)| choice.json(i, self.kind, tokenizer)).collect();
        let mut object = self.object(name, Value::Array(choices));
        object.insert("usage".to_owned(), totals.json(self.kind));
        Value::Object(object)
    }
}

/// One choice of a whole answer, as it comes together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    /// The prompt's text, where it is a part of the answer.
    pub echo: String,
    pub prompt_rows: Vec<TokenRow>,
    pub content: String,
    pub reasoning: String,
    /// Id, name and arguments.
    pub calls: Vec<(String, String, String)>,
    pub rows: Vec<TokenRow>,
    pub wants_rows: bool,
    pub finish: Option<Finish>,
}

impl Choice {
    pub fn add(&mut self, parts: Vec<Delta>) {
        for part in parts {
            match part {
                Delta::Content(text) => self.content.push_str(&text),
                Delta::Reasoning(text) => self.reasoning.push_str(&text),
                Delta::ToolCall { id, name, .. } => self.calls.push((id, name, String::new())),
                Delta::Arguments { index, text } => {
                    if let Some((.., arguments)) = self.calls.get_mut(index) {
                        arguments.push_str(&text);
                    }
                }
            }
        }
    }

    fn json(self, index: usize, kind: Kind, tokenizer: &Tokenizer) -> Value {
        let finish = self.finish.map(finish_reason);
        if kind == Kind::Completion {
            let rows: Vec<TokenRow> = self.prompt_rows.into_iter().chain(self.rows).collect();
            let logprobs = if self.wants_rows { completion_logprobs(&rows, 0, tokenizer) } else { Value::Null };
            let text = self.echo + &self.content;
            return json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish});
        }
        let logprobs = if self.wants_rows { chat_logprobs(&self.rows, tokenizer) } else { Value::Null };
        let mut message = Map::from_iter([("role".to_owned(), json!("assistant"))]);
        let content = if self.content.is_empty() && !self.calls.is_empty() { Value::Null } else { json!(self.content) };
        message.insert("content".to_owned(), content);
        message.insert("refusal".to_owned(), Value::Null);
        if !self.reasoning.is_empty() {
            message.insert("reasoning_content".to_owned(), json!(self.reasoning));
        }
        if !self.calls.is_empty() {
            let call = |(id, name, arguments): &(String, String, String)| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
            message.insert("tool_calls".to_owned(), self.calls.iter().map(call).collect());
        }
        json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})
    }
}

/// The bytes of a token as a text; half characters show as replacement characters.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bytes_of(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokenizer.piece(id, true, &mut bytes);
    bytes
}

/// `logprobs` of a chat: of the model's own distribution, before biases and the temperature.
pub(crate) fn chat_logprobs(rows: &[TokenRow], tokenizer: &Tokenizer) -> Value {
    let entry = |bytes: &[u8], logprob: Option<f32>| json!({"token": text_of(bytes), "logprob": logprob.map(finite), "bytes": bytes});
    let content: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut token = entry(&row.bytes, row.logprob);
            let top = row.top.iter().map(|&(id, logprob)| entry(&bytes_of(tokenizer, id), Some(logprob)));
            token["top_logprobs"] = top.collect();
            token
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// `logprobs` of a completion, in their older shape. `offset` is where the first token's text
/// begins, in characters.
pub(crate) fn completion_logprobs(rows: &[TokenRow], offset: usize, tokenizer: &Tokenizer) -> Value {
    let mut at = offset;
    let mut offsets = Vec::with_capacity(rows.len());
    let (mut tokens, mut logprobs, mut tops) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        offsets.push(at);
        let text = text_of(&row.bytes);
        at += text.chars().count();
        let top = match row.logprob {
            None => Value::Null,
            // Tokens may have the same text: the most likely one counts.
            Some(logprob) => {
                let mut top: Map<String, Value> = Map::new();
                for &(id, logprob) in &row.top {
                    top.entry(text_of(&bytes_of(tokenizer, id))).or_insert_with(|| finite(logprob));
                }
                top.entry(text.clone()).or_insert_with(|| finite(logprob));
                Value::Object(top)
            }
        };
        tokens.push(text);
        logprobs.push(row.logprob.map(finite));
        tops.push(top);
    }
    json!({"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets})
}

/// A log-probability as JSON can say it: that of a token that cannot come is a very small one.
fn finite(logprob: f32) -> Value {
    let shown = if logprob.is_finite() { logprob } else { -9999.0 };
    json!(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: Kind) -> Head {
        Head { id: "x-1".into(), created: 7, model: "m".into(), fingerprint: "f".into(), kind }
    }

    fn content(text: &str) -> Delta {
        Delta::Content(text.into())
    }

    /// Chunks as they were written by hand from OpenAI's description of its streams.
    fn check(chunks: &[Value], golden: &str) {
        let seen: Vec<String> = chunks.iter().map(Value::to_string).collect();
        let wanted: Vec<&str> = golden.lines().collect();
        for (seen, wanted) in seen.iter().zip(&wanted) {
            assert_eq!(seen, wanted);
        }
        assert_eq!(seen.len(), wanted.len());
    }

    #[test]
    fn streams_of_chats_are_as_they_should_be() {
        let head = head(Kind::Chat);
        let call = |index: usize| Delta::ToolCall { index, id: format!("c{index}"), name: "look".into() };
        let arguments = |index, text: &str| Delta::Arguments { index, text: text.into() };
        let parts = [
            Delta::Reasoning("Hm".into()),
            content("Yes \"é\"\n"),
            call(0),
            arguments(0, "{\"x\":"),
            arguments(0, "1}"),
            call(1),
            arguments(1, "{}"),
        ];
        let mut chunks = vec![head.opening(0)];
        chunks.extend(head.parts(0, &parts, Value::Null));
        chunks.extend([head.nothing(), head.closing(0, Finish::ToolCalls), head.closing(1, Finish::Length)]);
        let totals = Totals { prompt: 5, cached: 2, completion: 3, reasoning: 1 };
        chunks.push(head.usage(&totals));
        check(&chunks, include_str!("../tests/goldens/chat_stream.jsonl"));
        assert!(head.parts(0, &[], Value::Null).is_empty());
    }

    #[test]
    fn streams_of_completions_are_as_they_should_be() {
        let head = head(Kind::Completion);
        let mut chunks = head.parts(1, &[content("a")], Value::Null);
        chunks.extend([head.nothing(), head.closing(1, Finish::Stop)]);
        chunks.push(head.usage(&Totals { prompt: 5, completion: 3, ..Totals::default() }));
        check(&chunks, include_str!("../tests/goldens/completion_stream.jsonl"));
    }

    #[test]
    fn calls_of_a_whole_answer_come_together() {
        let mut choice = Choice::default();
        let call = |index: usize, name: &str| Delta::ToolCall { index, id: format!("c{index}"), name: name.into() };
        let arguments = |index, text: &str| Delta::Arguments { index, text: text.into() };
        choice.add(vec![call(0, "f"), arguments(0, "{"), arguments(0, "}"), call(1, "g"), arguments(1, "{}")]);
        let names: Vec<_> =
            choice.calls.iter().map(|(id, name, text)| (id.as_str(), name.as_str(), text.as_str())).collect();
        assert_eq!(names, [("c0", "f", "{}"), ("c1", "g", "{}")]);
    }
}
