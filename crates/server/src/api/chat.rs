//! `/v1/chat/completions`: the body, read into messages for a template and what is wanted of the
//! answer.

use modelembed::SamplerOptions;
use serde_json::{Map, Value, json};

use super::fields::{Fields, MOST_ITEMS, shown};
use super::sampling::{Common, MOST_TOP};
use crate::error::ApiError;

/// Roles that messages can have, as templates know them. Only these words reach a template as they
/// are.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
/// What a template has from the server, not from a client.
const RESERVED: [&str; 7] =
    ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "unk_token", "pad_token"];

/// A conversation for a template.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conversation {
    /// A JSON array of messages: contents are texts, arguments of calls are objects.
    pub messages: Value,
    /// Variables beside them: tools, and what the client passes on.
    pub variables: Map<String, Value>,
    /// Whether the text ends where the assistant's answer begins.
    pub add_generation_prompt: bool,
}

/// A chat request.
#[derive(Clone, Debug)]
pub(crate) struct ChatRequest {
    pub conversation: Conversation,
    pub common: Common,
    /// Reasoning is a part of the content.
    pub keeps_reasoning: bool,
}

impl ChatRequest {
    pub fn read(body: &Value, defaults: &SamplerOptions, n_vocab: usize) -> Result<ChatRequest, ApiError> {
        let fields = Fields::of_body(body)?;
        let mut common = Common::read(fields, defaults, n_vocab)?;
        common.request.logprobs = logprobs(fields)?;
        let conversation = Conversation::read(fields, &mut common.warnings)?;
        if let Some(format) = fields.object("response_format")? {
            let kind = Fields::of(format, "response_format").str("type")?;
            if !matches!(kind, None | Some("text")) {
                common.warnings.push("response_format is not enforced".to_owned());
            }
        }
        let keeps_reasoning = fields.str("reasoning_format")? == Some("none");
        Ok(ChatRequest { conversation, common, keeps_reasoning })
    }
}

fn logprobs(fields: Fields<'_>) -> Result<Option<usize>, ApiError> {
    let top = fields.whole("top_logprobs", 0, MOST_TOP)?;
    match fields.bool("logprobs")? {
        Some(true) => Ok(Some(top.unwrap_or(0) as usize)),
        _ if top.is_some_and(|top| top > 0) => {
            Err(ApiError::invalid("top_logprobs", "top_logprobs is given without logprobs, wanted logprobs: true"))
        }
        _ => Ok(None),
    }
}

impl Conversation {
    /// Reads `messages`, `tools` and variables; `warnings` get what has no effect.
    pub fn read(fields: Fields<'_>, warnings: &mut Vec<String>) -> Result<Conversation, ApiError> {
        let wanted = format!("a list of 1 to {MOST_ITEMS} messages");
        let list = fields.list("messages")?.filter(|list| (1..=MOST_ITEMS).contains(&list.len()));
        let list = list.ok_or_else(|| fields.error("messages", &wanted))?;
        let messages: Vec<Value> = list
            .iter()
            .enumerate()
            .map(|(i, message)| read_message(message, &format!("messages[{i}]")))
            .collect::<Result<_, _>>()?;
        let mut variables = Map::new();
        if let Some(kwargs) = fields.object("chat_template_kwargs")? {
            if let Some(name) = RESERVED.iter().find(|name| kwargs.contains_key(**name)) {
                let message = format!("chat_template_kwargs.{name} is the server's own, wanted another variable");
                return Err(ApiError::invalid(format!("chat_template_kwargs.{name}"), message));
            }
            variables.extend(kwargs.clone());
        }
        if let Some(effort) = fields.str("reasoning_effort")? {
            variables.entry("reasoning_effort").or_insert_with(|| json!(effort));
        }
        let tools = tools(fields, warnings)?;
        if !tools.is_empty() && fields.value("tool_choice").and_then(Value::as_str) != Some("none") {
            warnings.push("calls of tools come as text".to_owned());
            variables.insert("tools".to_owned(), Value::Array(tools));
        }
        let add_generation_prompt = fields.bool("add_generation_prompt")?.unwrap_or(true);
        Ok(Conversation { messages: Value::Array(messages), variables, add_generation_prompt })
    }
}

/// The tools that are functions: others are of a server that runs them.
fn tools(fields: Fields<'_>, warnings: &mut Vec<String>) -> Result<Vec<Value>, ApiError> {
    let Some(list) = fields.list("tools")? else { return Ok(Vec::new()) };
    if list.len() > MOST_ITEMS {
        return Err(fields.error("tools", &format!("at most {MOST_ITEMS} tools")));
    }
    let mut tools = Vec::with_capacity(list.len());
    for (i, tool) in list.iter().enumerate() {
        let path = format!("tools[{i}]");
        let Some(map) = tool.as_object() else {
            return Err(ApiError::invalid(&path, format!("{path} is {}, wanted an object", shown(tool))));
        };
        let tool_fields = Fields::of(map, &path);
        match tool_fields.str("type")? {
            Some("function") | None if tool_fields.object("function")?.is_some() => tools.push(tool.clone()),
            Some("function") => return Err(tool_fields.error("function", "an object with a name")),
            other => {
                let kind = other.map_or_else(|| "none".to_owned(), |kind| shown(&json!(kind)));
                warnings.push(format!("a tool of type {} is left out", kind.replace(|c: char| !c.is_ascii(), "?")));
            }
        }
    }
    Ok(tools)
}

/// A message as templates want it; keys that are unknown here stay.
fn read_message(message: &Value, path: &str) -> Result<Value, ApiError> {
    let Some(map) = message.as_object() else {
        return Err(ApiError::invalid(path, format!("{path} is {}, wanted an object", shown(message))));
    };
    let fields = Fields::of(map, path);
    let role = fields.str("role")?.filter(|role| ROLES.contains(role));
    let role = role.ok_or_else(|| fields.error("role", &format!("one of {}", ROLES.join(", "))))?;
    let mut out = map.clone();
    let role = match role {
        "developer" => "system",
        "function" => "tool",
        role => role,
    };
    out.insert("role".to_owned(), json!(role));
    out.insert("content".to_owned(), json!(content(fields, role)?));
    for name in ["reasoning_content", "name", "tool_call_id"] {
        if fields.str(name)?.is_none() {
            out.shift_remove(name);
        }
    }
    match fields.list("tool_calls")? {
        Some(calls) if !calls.is_empty() && role == "assistant" => {
            let calls: Vec<Value> = calls
                .iter()
                .enumerate()
                .map(|(i, call)| read_call(call, &format!("{path}.tool_calls[{i}]")))
                .collect::<Result<_, _>>()?;
            out.insert("tool_calls".to_owned(), Value::Array(calls));
        }
        // Templates ask whether there are any by asking for the key.
        _ => drop(out.shift_remove("tool_calls")),
    }
    Ok(Value::Object(out))
}

/// The text of a message: a text, or the texts of its parts with a line end between them.
fn content(fields: Fields<'_>, role: &str) -> Result<String, ApiError> {
    const WANTED: &str = "a text or a list of parts";
    match fields.value("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let mut texts = Vec::with_capacity(parts.len());
            for (i, part) in parts.iter().enumerate() {
                let path = format!("{}[{i}]", fields.path("content"));
                texts.push(part_text(part, &path)?);
            }
            Ok(texts.join("\n"))
        }
        Some(_) => Err(fields.error("content", WANTED)),
        // Calls and answers that were cut off have none; templates join texts.
        None if matches!(role, "assistant" | "tool") => Ok(String::new()),
        None => Err(fields.error("content", WANTED)),
    }
}

fn part_text<'a>(part: &'a Value, path: &str) -> Result<&'a str, ApiError> {
    if let Value::String(text) = part {
        return Ok(text);
    }
    let Some(map) = part.as_object() else {
        return Err(ApiError::invalid(path, format!("{path} is {}, wanted an object", shown(part))));
    };
    let fields = Fields::of(map, path);
    let key = match fields.str("type")? {
        Some("text" | "input_text" | "output_text") | None => "text",
        Some("refusal") => "refusal",
        Some(_) => {
            let wanted = "\"text\": this model reads no images, sounds or files";
            return Err(fields.error("type", wanted).code("unsupported_content"));
        }
    };
    map.get(key).and_then(Value::as_str).ok_or_else(|| fields.error(key, "a text"))
}

/// A call of a tool. The wire has arguments as JSON in a text, templates want the object; what is
/// none stays a text.
fn read_call(call: &Value, path: &str) -> Result<Value, ApiError> {
    let Some(map) = call.as_object() else {
        return Err(ApiError::invalid(path, format!("{path} is {}, wanted an object", shown(call))));
    };
    let mut out = map.clone();
    if let Some(Value::Object(function)) = out.get_mut("function")
        && let Some(Value::String(arguments)) = function.get("arguments")
    {
        let parsed = serde_json::from_str::<Value>(arguments).ok().filter(Value::is_object);
        let empty = arguments.trim().is_empty().then(|| json!({}));
        if let Some(object) = parsed.or(empty) {
            function.insert("arguments".to_owned(), object);
        }
    }
    Ok(Value::Object(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<ChatRequest, ApiError> {
        ChatRequest::read(&body, &SamplerOptions::default(), 100)
    }

    #[test]
    fn messages_become_what_templates_want() {
        let request = read(json!({"messages": [
            {"role": "developer", "content": "S"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": null, "extra": 1},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
                {"id": "2", "type": "function", "function": {"name": "f", "arguments": "broken"}},
            ]},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
            {"role": "assistant", "content": "x", "tool_calls": [], "reasoning_content": "hm"},
        ], "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "web_search"}],
            "chat_template_kwargs": {"enable_thinking": false}, "logprobs": true, "top_logprobs": 3}))
        .unwrap();
        let wanted = json!([
            {"role": "system", "content": "S"},
            {"role": "user", "content": "a\nb", "extra": 1},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
                {"id": "2", "type": "function", "function": {"name": "f", "arguments": "broken"}},
            ]},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
        ]);
        assert_eq!(request.conversation.messages, wanted);
        let variables = &request.conversation.variables;
        assert_eq!(variables["tools"].as_array().unwrap().len(), 1);
        assert_eq!(variables["enable_thinking"], json!(false));
        assert_eq!(request.common.request.logprobs, Some(3));
        assert_eq!(request.common.warnings.len(), 2, "{:?}", request.common.warnings);
        let none = read(json!({"messages": [{"role": "user", "content": "a"}], "tools": [], "tool_choice": "none"}));
        assert!(none.unwrap().conversation.variables.is_empty());
    }

    #[test]
    fn malformed_messages_are_named_by_their_place() {
        let user = |content: Value| json!({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": content}]});
        let rows = [
            (json!({}), "messages"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": "hi"}), "messages"),
            (json!({"messages": ["hi"]}), "messages[0]"),
            (json!({"messages": [{"content": "hi"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "<|im_start|>", "content": "hi"}]}), "messages[0].role"),
            (user(json!(5)), "messages[1].content"),
            (user(json!(null)), "messages[1].content"),
            (user(json!([5])), "messages[1].content[0]"),
            (user(json!([{"type": "image_url", "image_url": {"url": "http://x"}}])), "messages[1].content[0].type"),
            (user(json!([{"type": "text"}])), "messages[1].content[0].text"),
            (json!({"messages": [{"role": "assistant", "tool_calls": [1]}]}), "messages[0].tool_calls[0]"),
            (json!({"messages": [{"role": "user", "content": "a"}], "tools": [1]}), "tools[0]"),
            (
                json!({"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}]}),
                "tools[0].function",
            ),
            (json!({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}), "top_logprobs"),
            (
                json!({"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 21}),
                "top_logprobs",
            ),
            (
                json!({"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"messages": []}}),
                "chat_template_kwargs.messages",
            ),
        ];
        let failed: Vec<_> = rows
            .into_iter()
            .map(|(body, param)| (read(body).err().and_then(|error| error.param), param))
            .filter(|(seen, wanted)| seen.as_deref() != Some(*wanted))
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
