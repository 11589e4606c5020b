//! Chat templates: from a list of messages to the text that the model was trained on.
//!
//! Templates are Jinja programs that arrive inside the model file, so they are run as Hugging
//! Face's `transformers` runs them (same whitespace rules, same helper functions, Python's string
//! methods) and, because whoever made the file wrote them, with a budget: see
//! [`ChatTemplate::render`].
//!
//! * [`ChatTemplate`]: one compiled template;
//! * [`builtin`]: the table of templates of well-known model families;
//! * [`Guard`]: keeps what messages hold from becoming control tokens;
//! * [`for_model`]: which template a model gets, and the warning to show if it is not its own.

mod bounded;
mod builtin;
mod environment;
mod error;
mod filters;
mod format;
mod generation;
mod guard;
mod json;
mod methods;
mod printed;
mod python;
mod reasoning;
mod select;
mod weigh;

pub use builtin::{BUILTINS, Builtin, builtin};
pub use error::TemplateError;
pub use guard::{Guard, Rendered};
pub use reasoning::{AnswerPart, REASONING_MARKS, ReasoningMarks, ReasoningSplit};
pub use select::{Facts, Selection, Source, Wanted, choose, for_model, has_tag};

use environment::Clock;
use minijinja::{Environment, Value};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`; a model's own template may know more (`tool`).
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// The texts of the vocabulary's special tokens, which templates use by name (`bos_token`,
/// `eos_token`, ...). A token that the model lacks is undefined in the template and prints as
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of sequence.
    pub bos: Option<String>,
    /// End of sequence.
    pub eos: Option<String>,
    /// Unknown token.
    pub unk: Option<String>,
    /// Padding.
    pub pad: Option<String>,
}

/// A compiled chat template. Rendering needs no `&mut`: one template serves many conversations.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: SpecialTokens,
    stop: Vec<String>,
    /// What is defined beside the messages.
    variables: Vec<(String, Value)>,
    source: String,
    /// How it marks reasoning, if it knows any.
    marks: Option<&'static ReasoningMarks>,
}

/// Longest template source that is compiled. The longest known real one (tool calling with
/// examples) has about 20 KiB.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Name under which the one template of an environment is stored.
const NAME: &str = "chat template";

impl ChatTemplate {
    /// Compiles `source`. Fails with the line of the first syntax error.
    pub fn new(source: &str, special: SpecialTokens) -> Result<ChatTemplate, TemplateError> {
        Self::compile(source, special, Clock::Local)
    }

    /// As [`ChatTemplate::new`], but `strftime_now` tells the time given here, in UTC: for tests
    /// and reproducible runs.
    pub fn with_fixed_time(
        source: &str,
        special: SpecialTokens,
        unix_seconds: i64,
    ) -> Result<ChatTemplate, TemplateError> {
        Self::compile(source, special, Clock::Fixed(unix_seconds))
    }

    fn compile(source: &str, special: SpecialTokens, clock: Clock) -> Result<ChatTemplate, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TemplateError::TooLong { len_bytes: source.len(), limit_bytes: MAX_SOURCE_BYTES });
        }
        let mut environment = environment::new(clock);
        environment
            .add_template_owned(NAME, environment::prepare(source)?)
            .map_err(|error| TemplateError::compiling(&error))?;
        let marks = ReasoningMarks::of_template(source);
        let source = source.to_owned();
        Ok(ChatTemplate { environment, special, stop: Vec::new(), variables: Vec::new(), source, marks })
    }

    fn with_stop(mut self, stop: &[&str]) -> ChatTemplate {
        self.stop = stop.iter().map(|text| text.to_string()).collect();
        self
    }

    /// Defines a variable such as `enable_thinking` for every rendering that does not itself.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &serde_json::Value) -> ChatTemplate {
        self.variables.push((name.to_owned(), json::from_json(value)));
        self
    }

    /// What tells reasoning from answers to this template's prompts, which may end within reasoning.
    /// A template without marks gets those of most models: a model may reason without its template
    /// saying so.
    pub fn reasoning_split(&self) -> ReasoningSplit {
        let Some(marks) = self.marks else { return ReasoningSplit::new(&REASONING_MARKS[0], false) };
        ReasoningSplit::new(marks, self.opens_reasoning())
    }

    /// How it marks reasoning, if it knows any.
    pub fn reasoning_marks(&self) -> Option<&'static ReasoningMarks> {
        self.marks
    }

    /// What of an answer's text is the content of its message.
    pub fn message_of(&self, answer: &str) -> String {
        match self.marks {
            Some(marks) => marks.message(answer, self.opens_reasoning()),
            None => answer.to_owned(),
        }
    }

    fn opens_reasoning(&self) -> bool {
        let prompt = self.render(&[Message::new("user", "Hi")], true);
        self.marks.is_some_and(|marks| prompt.is_ok_and(|prompt| marks.is_open_in(&prompt)))
    }

    /// As [`reasoning_split`](Self::reasoning_split), for the answer to a prompt that this template
    /// wrote.
    pub fn reasoning_split_behind(&self, prompt: &str) -> ReasoningSplit {
        let marks = self.marks.unwrap_or(&REASONING_MARKS[0]);
        ReasoningSplit::new(marks, marks.is_open_in(prompt))
    }

    /// The Jinja text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Texts that end an answer although the vocabulary may not hold them as one end-of-generation
    /// token. Only built-in templates know theirs: a model's own template goes with its own end
    /// tokens.
    pub fn stop(&self) -> &[String] {
        &self.stop
    }

    /// Renders a conversation. With `add_generation_prompt` the text ends where the assistant's
    /// answer begins.
    ///
    /// # Errors
    /// What the template itself raises (`raise_exception`: roles that do not alternate, ...),
    /// mistakes in it, and a template that uses more steps, memory, depth or output than an honest
    /// one would: its budget grows with the messages.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TemplateError> {
        let list: Vec<Value> = messages
            .iter()
            .map(|m| Value::from_pairs([("role", Value::from(&*m.role)), ("content", Value::from(&*m.content))]))
            .collect();
        let len_bytes = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        let budget = environment::Budget::new(messages.len(), len_bytes);
        self.render_values(Value::from(list), Vec::new(), add_generation_prompt, budget)
    }

    /// Whether a system message shows in what is rendered. Some templates refuse one, and some
    /// leave it out without a word.
    pub fn takes_system(&self) -> bool {
        const TEXT: &str = "Answer briefly";
        let question = Message::new("user", "Hi");
        match self.render(&[Message::new("system", TEXT), question.clone()], true) {
            Ok(text) => text.contains(TEXT),
            // What refuses the question too has another reason.
            Err(_) => self.render(&[question], true).is_err(),
        }
    }

    /// Renders messages of any shape (tool calls, content in parts) together with `extra` variables
    /// such as `tools`, `documents` or `enable_thinking`. `messages` is a JSON array; keys keep
    /// their order.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_json(
        &self,
        messages: &serde_json::Value,
        extra: &serde_json::Map<String, serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let count = messages.as_array().map_or(1, Vec::len);
        let len_bytes = json::approximate_len(messages) + extra.values().map(json::approximate_len).sum::<usize>();
        let extra = extra.iter().map(|(key, value)| (key.clone(), json::from_json(value))).collect();
        let budget = environment::Budget::new(count, len_bytes);
        self.render_values(json::from_json(messages), extra, add_generation_prompt, budget)
    }

    fn render_values(
        &self,
        messages: Value,
        extra: Vec<(String, Value)>,
        add_generation_prompt: bool,
        budget: environment::Budget,
    ) -> Result<String, TemplateError> {
        let mut context = extra;
        let mut define = |name: &str, value: Value| {
            if !context.iter().any(|(key, _)| key == name) {
                context.push((name.to_string(), value));
            }
        };
        for (name, value) in &self.variables {
            define(name, value.clone());
        }
        define("messages", messages);
        define("add_generation_prompt", Value::from(add_generation_prompt));
        // transformers passes these two even when a caller has none.
        define("tools", Value::from(()));
        define("documents", Value::from(()));
        let special = &self.special;
        for (name, text) in [
            ("bos_token", &special.bos),
            ("eos_token", &special.eos),
            ("unk_token", &special.unk),
            ("pad_token", &special.pad),
        ] {
            if let Some(text) = text {
                define(name, Value::from(&**text));
            }
        }
        environment::render(&self.environment, NAME, Value::from_pairs(context), budget)
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("special", &self.special).field("stop", &self.stop).finish_non_exhaustive()
    }
}
