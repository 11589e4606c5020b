//! The description of the interface: paths come from the table of routes, shapes stand here.

use serde_json::{Map, Value, json};

use crate::api::sampling::{MOST_CHOICES, MOST_TOP};
use crate::app::VERSION;
use crate::http::routes::{Endpoint, ROUTES, Route};

/// The OpenAPI document.
pub(crate) fn document() -> Value {
    let paths: Map<String, Value> = ROUTES.iter().map(path).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "modelembed",
            "version": VERSION,
            "description": "OpenAI's chat and completions for one model, and what llama-server's clients ask for. \
                            Fields that are not listed are ignored.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn path(route: &Route) -> (String, Value) {
    let name = if route.is_openai { format!("/v1{}", route.path) } else { route.path.to_owned() };
    let (request, answer, kind) = shapes(route.endpoint);
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let content = |kind: &str, schema: Value| json!({kind: {"schema": schema}});
    let answer_schema = if answer.is_empty() { json!({"type": "string"}) } else { reference(answer) };
    let mut ok = json!({"description": "The answer", "content": content(kind, answer_schema)});
    if matches!(route.endpoint, Endpoint::Chat | Endpoint::Completions) {
        // With `stream`: chunks of the same shape, but for the first level's names.
        ok["content"]["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    let refusal = |description: &str| json!({"description": description, "content": content("application/json", reference("Error"))});
    let mut responses = json!({"200": ok});
    if route.is_post {
        for (status, description) in [
            ("400", "A field is not what it should be, or the context is too small"),
            ("408", "The body did not come in time"),
            ("413", "The body is too large"),
            ("415", "The body is no JSON"),
            ("429", "Too many requests wait"),
            ("500", "The answer could not be computed"),
        ] {
            responses[status] = refusal(description);
        }
    }
    match route.endpoint {
        Endpoint::Health | Endpoint::Ready | Endpoint::Live => {
            responses["503"] = json!({
                "description": "Not now",
                "content": content("application/json", reference("Health")),
            });
        }
        Endpoint::Model => responses["404"] = refusal("There is no such model"),
        _ if route.is_post => responses["503"] = refusal("The server is about to end"),
        _ => {}
    }
    if !route.is_open {
        responses["401"] = refusal("The key is missing or unknown");
    }
    responses["403"] = refusal("The host or the origin is not allowed");
    let mut operation = json!({
        "operationId": format!("{:?}", route.endpoint),
        "summary": route.summary,
        "responses": responses,
    });
    if !request.is_empty() {
        operation["requestBody"] =
            json!({"required": true, "content": content("application/json", reference(request))});
    }
    if !route.is_open {
        operation["security"] = json!([{}, {"bearer": []}]);
    }
    if route.endpoint == Endpoint::Model {
        operation["parameters"] =
            json!([{"name": "model", "in": "path", "required": true, "schema": {"type": "string"}}]);
    }
    let method = if route.is_post { "post" } else { "get" };
    (name, json!({ method: operation }))
}

/// Names of the shapes of request and answer, and the answer's type.
fn shapes(endpoint: Endpoint) -> (&'static str, &'static str, &'static str) {
    const JSON: &str = "application/json";
    const TEXT: &str = "text/plain";
    match endpoint {
        Endpoint::Root | Endpoint::Metrics => ("", "", TEXT),
        Endpoint::Health | Endpoint::Ready | Endpoint::Live => ("", "Health", JSON),
        Endpoint::Models => ("", "Models", JSON),
        Endpoint::Model => ("", "Model", JSON),
        Endpoint::Chat => ("ChatRequest", "Answer", JSON),
        Endpoint::Completions => ("CompletionRequest", "Answer", JSON),
        Endpoint::Tokenize => ("TokenizeRequest", "Tokens", JSON),
        Endpoint::Detokenize => ("DetokenizeRequest", "Content", JSON),
        Endpoint::ApplyTemplate => ("TemplateRequest", "Prompt", JSON),
        Endpoint::Props | Endpoint::OpenApi => ("", "Any", JSON),
    }
}

fn nullable(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn share() -> Value {
    json!({"type": ["number", "null"], "minimum": 0, "maximum": 1})
}

/// The fields that chats and completions share.
fn common() -> Value {
    json!({
        "model": nullable("string"),
        "stream": nullable("boolean"),
        "stream_options": {"type": ["object", "null"], "properties": {"include_usage": nullable("boolean")}},
        "max_tokens": {"type": ["integer", "null"], "minimum": -1},
        "max_completion_tokens": {"type": ["integer", "null"], "minimum": -1},
        "min_tokens": {"type": ["integer", "null"], "minimum": -1},
        "temperature": {"type": ["number", "null"], "minimum": 0},
        "top_k": {"type": ["integer", "null"], "minimum": -1},
        "top_p": share(),
        "min_p": share(),
        "typical_p": share(),
        "repeat_penalty": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "repeat_last_n": {"type": ["integer", "null"], "minimum": -1},
        "presence_penalty": nullable("number"),
        "frequency_penalty": nullable("number"),
        "logit_bias": {"type": ["object", "array", "null"]},
        "seed": nullable("integer"),
        "n": {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_CHOICES},
        "stop": {"anyOf": [
            {"type": "null"},
            {"type": "string", "maxLength": 1024},
            {"type": "array", "maxItems": 16, "items": {"type": "string", "maxLength": 1024}},
        ]},
        "stop_token_ids": {"type": ["array", "null"], "items": {"type": "integer", "minimum": 0}},
        "ignore_eos": nullable("boolean"),
        "cache_salt": {"type": ["string", "null"], "maxLength": 256},
    })
}

fn with(mut properties: Value, more: Value) -> Value {
    if let (Some(properties), Value::Object(more)) = (properties.as_object_mut(), more) {
        properties.extend(more);
    }
    properties
}

fn conversation() -> Value {
    json!({
        "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}},
        "tools": {"type": ["array", "null"], "items": {"type": "object"}},
        "chat_template_kwargs": nullable("object"),
        "add_generation_prompt": nullable("boolean"),
        "reasoning_effort": nullable("string"),
    })
}

fn schemas() -> Value {
    let top = json!({"type": ["integer", "null"], "minimum": 0, "maximum": MOST_TOP});
    let chat = with(
        with(common(), conversation()),
        json!({
            "logprobs": nullable("boolean"),
            "top_logprobs": top,
            "tool_choice": {"type": ["string", "object", "null"]},
            "response_format": nullable("object"),
            "reasoning_format": nullable("string"),
        }),
    );
    let completion = with(
        common(),
        json!({
            "prompt": {"anyOf": [
                {"type": "string"},
                {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
                {"type": "array", "minItems": 1, "maxItems": 128, "items": {"type": "string"}},
                {"type": "array", "minItems": 1, "maxItems": 128,
                 "items": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}},
            ]},
            "echo": nullable("boolean"),
            "logprobs": top,
            "suffix": nullable("string"),
        }),
    );
    json!({
        "Message": {
            "type": "object",
            "required": ["role"],
            "properties": {
                "role": {"enum": ["system", "developer", "user", "assistant", "tool", "function"]},
                "content": {"anyOf": [
                    {"type": ["string", "null"]},
                    {"type": "array", "items": {
                        "type": "object",
                        "required": ["type", "text"],
                        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                    }},
                ]},
                "reasoning_content": nullable("string"),
                "name": nullable("string"),
                "tool_call_id": nullable("string"),
                "tool_calls": {"type": ["array", "null"], "items": {"type": "object"}},
            },
        },
        "ChatRequest": {"type": "object", "required": ["messages"], "properties": chat},
        "CompletionRequest": {"type": "object", "required": ["prompt"], "properties": completion},
        "TemplateRequest": {"type": "object", "required": ["messages"], "properties": conversation()},
        "TokenizeRequest": {"type": "object", "required": ["content"], "properties": {
            "content": {"type": "string"},
            "add_special": nullable("boolean"),
            "parse_special": nullable("boolean"),
            "with_pieces": nullable("boolean"),
        }},
        "DetokenizeRequest": {"type": "object", "required": ["tokens"], "properties": {
            "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        }},
        "Answer": {
            "type": "object",
            "required": ["id", "object", "created", "model", "choices"],
            "properties": {
                "id": {"type": "string"},
                "object": {"type": "string"},
                "created": {"type": "integer"},
                "model": {"type": "string"},
                "choices": {"type": "array", "items": {"type": "object", "required": ["index", "finish_reason"]}},
                "usage": {"type": "object"},
            },
        },
        "Tokens": {"type": "object", "required": ["tokens"]},
        "Content": {"type": "object", "required": ["content"]},
        "Prompt": {"type": "object", "required": ["prompt"]},
        "Model": {"type": "object", "required": ["id", "object", "created", "owned_by"]},
        "Models": {"type": "object", "required": ["object", "data"]},
        "Health": {"type": "object", "required": ["status"]},
        "Any": {"type": "object"},
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
        }}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_every_reference_leads_somewhere() {
        let document = document();
        assert_eq!(document["paths"].as_object().unwrap().len(), ROUTES.len());
        let text = document.to_string();
        let mut references = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
        let schemas = document["components"]["schemas"].as_object().unwrap();
        assert!(references.all(|name| schemas.contains_key(name)));
        assert!(document["paths"]["/v1/chat/completions"]["post"]["requestBody"].is_object());
    }
}
