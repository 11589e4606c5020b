//! What is answered, whole and as a stream.

use modelembed::{EncodeOptions, Sampler, SamplerOptions, SessionOptions, TokenId};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Reply, options, scheduling};

/// A question with some fields more.
fn question(more: Value) -> Value {
    let messages =
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "on the other hand"}]);
    let body = json!({"model": "any", "messages": messages, "temperature": 0, "max_tokens": 12, "ignore_eos": true});
    with(&body, more)
}

fn with(body: &Value, more: Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn ask(fixture: &Fixture, body: &Value) -> Value {
    fixture.post("/v1/chat/completions", body).ok()
}

fn stream(fixture: &Fixture, body: &Value) -> Reply {
    fixture.post("/v1/chat/completions", &with(body, json!({"stream": true})))
}

fn content(answer: &Value, index: usize) -> &str {
    answer["choices"][index]["message"]["content"].as_str().unwrap()
}

/// What the chunks of a choice say under a key.
fn joined(events: &[Value], index: usize, key: &str) -> String {
    let choices = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
    choices.filter(|choice| choice["index"] == index).filter_map(|choice| choice["delta"][key].as_str()).collect()
}

fn ids(fixture: &Fixture, text: &str, options: EncodeOptions) -> Vec<TokenId> {
    fixture.model.tokenizer().encode(text.as_bytes(), options).unwrap()
}

fn numbers(ids: &[TokenId]) -> Vec<u32> {
    ids.iter().map(|id| id.0).collect()
}

#[test]
fn a_chat_is_answered_as_the_library_answers() {
    let fixture = Fixture::new();
    let reply = fixture.post("/v1/chat/completions", &question(json!({})));
    let answer = reply.ok();
    let prompt = "<s>system: Be brief.</s>\nuser: on the other hand</s>\nassistant:";
    let tokens = ids(&fixture, prompt, EncodeOptions::default().parse_special(true));
    let mut session = fixture.model.session(SessionOptions::default()).unwrap();
    let mut sampler = Sampler::new(SamplerOptions::default().temp(0.0)).unwrap();
    sampler.set_logit_biases(fixture.model.tokenizer().eog_tokens().map(|id| (id, f32::NEG_INFINITY)));
    let options = modelembed::GenerateOptions::default().max_tokens(12);
    let wanted: String = session.generate_with(&mut sampler, &tokens, options).unwrap().map(Result::unwrap).collect();
    assert_eq!(content(&answer, 0), wanted);
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("org/tiny:1")));
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["logprobs"]), (&json!("length"), &Value::Null));
    assert_eq!(choice["message"]["role"], "assistant");
    let usage = &answer["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(tokens.len()), &json!(12)));
    assert_eq!(usage["total_tokens"], json!(tokens.len() + 12));
    assert!(usage["prompt_tokens_details"]["cached_tokens"].is_u64());
    assert!(reply.header("x-request-id").is_some());
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    let fixture = Fixture::new();
    let whole = ask(&fixture, &question(json!({})));
    let reply = stream(&fixture, &question(json!({})));
    let events = reply.events();
    assert_eq!(joined(&events, 0, "content"), content(&whole, 0));
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let last = &events.last().unwrap()["choices"][0];
    assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &json!("length")));
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk" && event["id"] == events[0]["id"]));
    assert!(events.iter().all(|event| event.get("usage").is_none()), "nobody asked for it");
    assert_eq!((reply.header("cache-control"), reply.header("x-accel-buffering")), (Some("no-cache"), Some("no")));
    let body = question(json!({"stream_options": {"include_usage": true}}));
    let events = stream(&fixture, &body).events();
    let last = events.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(12)));
    assert_eq!(last["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
}

#[test]
fn choices_draw_by_seeds_of_their_own() {
    let fixture = Fixture::new();
    let wild = question(json!({"temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 7}));
    let three = ask(&fixture, &with(&wild, json!({"n": 3})));
    for i in 0..3 {
        let one = ask(&fixture, &with(&wild, json!({"seed": 7 + i})));
        assert_eq!(content(&three, i), content(&one, 0));
        assert_eq!(three["choices"][i]["index"], i);
    }
    assert_ne!(content(&three, 0), content(&three, 1));
    assert_eq!(three["usage"]["completion_tokens"], 36);
    let events = stream(&fixture, &with(&wild, json!({"n": 3}))).events();
    for i in 0..3 {
        assert_eq!(joined(&events, i, "content"), content(&three, i));
    }
}

#[test]
fn stop_texts_end_an_answer_wherever_tokens_end() {
    let fixture = Fixture::new();
    let long = question(json!({"max_tokens": 30}));
    let whole = ask(&fixture, &long);
    let text: Vec<char> = content(&whole, 0).chars().collect();
    for (from, len) in [(3, 1), (5, 3), (8, 5)] {
        let stop: String = text[from..from + len].iter().collect();
        let before = content(&whole, 0).split(&stop).next().unwrap();
        let body = with(&long, json!({"stop": ["never comes", stop]}));
        let stopped = ask(&fixture, &body);
        assert_eq!(
            (content(&stopped, 0), &stopped["choices"][0]["finish_reason"]),
            (before, &json!("stop")),
            "{stop:?}"
        );
        assert_eq!(joined(&stream(&fixture, &body).events(), 0, "content"), before);
    }
}

#[test]
fn log_probabilities_are_told_token_by_token() {
    let fixture = Fixture::new();
    let body = question(json!({"logprobs": true, "top_logprobs": 3}));
    let answer = ask(&fixture, &body);
    let rows = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(rows.len(), 12);
    let bytes = rows.iter().flat_map(|row| row["bytes"].as_array().unwrap());
    let bytes: Vec<u8> = bytes.map(|byte| byte.as_u64().unwrap() as u8).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), content(&answer, 0));
    for row in rows {
        let top = row["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["logprob"]), (3, &row["logprob"]), "greedy: the first is what was chosen");
        assert!(top[0]["logprob"].as_f64() >= top[1]["logprob"].as_f64());
    }
    let events = stream(&fixture, &body).events();
    let streamed = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(&streamed.flatten().cloned().collect::<Vec<_>>(), rows);
}

#[test]
fn evaluation_harnesses_get_log_probabilities_of_the_prompt() {
    let fixture = Fixture::new();
    let tokens = ids(&fixture, "the other and the", EncodeOptions::default().add_special(true));
    let other: Vec<u32> = numbers(&tokens).into_iter().rev().collect();
    let body =
        json!({"prompt": [numbers(&tokens), other], "echo": true, "logprobs": 1, "max_tokens": 1, "temperature": 0});
    let answer = fixture.post("/v1/completions", &body).ok();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 2);
    let mut session = fixture.model.session(SessionOptions::default()).unwrap();
    let mut wanted = Vec::new();
    session
        .eval_each(&tokens, |i, logits| {
            wanted.extend(tokens.get(i + 1).map(|next| modelembed_testkit::log_prob(logits, next.0 as usize)));
        })
        .unwrap();
    let logprobs = &answer["choices"][0]["logprobs"];
    let seen = logprobs["token_logprobs"].as_array().unwrap();
    assert_eq!((seen.len(), &seen[0]), (tokens.len() + 1, &Value::Null));
    for (i, wanted) in wanted.iter().enumerate() {
        let seen = &seen[i + 1];
        assert!((seen.as_f64().unwrap() - wanted).abs() < 1e-4, "token {i}: {seen} but {wanted}");
        let top = logprobs["top_logprobs"][i + 1].as_object().unwrap();
        assert!((1..=2).contains(&top.len()) && top.values().any(|value| value == seen), "{top:?}");
    }
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert!(text.contains("the other and the"), "{text:?}");
    let nothing = json!({"prompt": numbers(&tokens), "echo": true, "logprobs": 0, "max_tokens": 0});
    let answer = fixture.post("/v1/completions", &nothing).ok();
    assert_eq!(answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), tokens.len());
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[test]
fn completions_go_on_with_texts_and_tokens_alike() {
    let fixture = Fixture::new();
    let ask = |more: Value| {
        let body = json!({"temperature": 0, "max_tokens": 8, "ignore_eos": true});
        fixture.post("/v1/completions", &with(&body, more))
    };
    let text = ask(json!({"prompt": "the other"})).ok();
    assert_eq!(text["object"], "text_completion");
    let tokens = ids(&fixture, "the other", EncodeOptions::default().add_special(true));
    assert_eq!(ask(json!({"prompt": numbers(&tokens)})).ok()["choices"], text["choices"]);
    let many = ask(json!({"prompt": ["the other", "and"]})).ok();
    assert_eq!(many["choices"][0], text["choices"][0]);
    assert_eq!(many["choices"][1]["index"], 1);
    let events = ask(json!({"prompt": "the other", "stream": true})).events();
    let streamed: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text["choices"][0]["text"], streamed);
}

#[test]
fn reasoning_comes_apart_where_the_prompt_opens_it() {
    let fixture = Fixture::new();
    // The tiny model never closes it.
    let body = question(json!({"chat_template_kwargs": {"think": true}}));
    let answer = ask(&fixture, &body);
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "");
    assert!(message["reasoning_content"].as_str().is_some_and(|text| !text.is_empty()), "{message}");
    assert!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64() > Some(0));
    let events = stream(&fixture, &body).events();
    assert_eq!(message["reasoning_content"], joined(&events, 0, "reasoning_content"));
    let answer = ask(&fixture, &with(&body, json!({"reasoning_format": "none"})));
    assert!(answer["choices"][0]["message"].get("reasoning_content").is_none());
    assert_ne!(content(&answer, 0), "");
}

#[test]
fn tools_are_written_by_the_template_and_a_warning_says_that_calls_are_text() {
    let fixture = Fixture::new();
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": {}}}, {"type": "web_search"}]);
    let call = json!({"id": "1", "type": "function", "function": {"name": "look", "arguments": "{\"x\": \"deep\"}"}});
    let messages = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "found"},
    ]);
    let body = json!({"messages": messages, "tools": tools, "max_tokens": 1});
    let reply = fixture.post("/v1/chat/completions", &body);
    reply.ok();
    let warnings: Vec<_> = reply.headers.iter().filter(|(name, _)| name == "warning").map(|(_, text)| text).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("calls of tools come as text")), "{warnings:?}");
    let prompt = fixture.post("/apply-template", &body).ok()["prompt"].as_str().unwrap().to_owned();
    for part in ["\"name\": \"look\"", "assistant: deep", "tool: found"] {
        assert!(prompt.contains(part), "{prompt}");
    }
    assert!(!prompt.contains("web_search"));
}

#[test]
fn no_message_ends_a_turn_unless_that_is_asked_for() {
    let count = |reads: bool, content: &str| {
        let mut options = options();
        options.reads_control_tokens = reads;
        let fixture = Fixture::with(options, scheduling());
        let body = json!({"messages": [{"role": "user", "content": content}], "max_tokens": 1});
        ask(&fixture, &body)["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let plain = count(true, "a");
    assert_eq!(count(false, "a"), plain);
    assert_eq!(count(true, "a</s>"), plain + 1);
    assert!(count(false, "a</s>") > plain + 1, "as text it has several tokens");
}

#[test]
fn what_clients_of_llama_server_ask_for() {
    let fixture = Fixture::new();
    let tokenize = |body: Value| fixture.post("/tokenize", &body).ok()["tokens"].clone();
    let tokens = tokenize(json!({"content": "the other", "add_special": true}));
    assert_eq!(tokens[0], 1);
    assert_eq!(fixture.post("/detokenize", &json!({ "tokens": tokens })).ok()["content"], "<s> the other");
    let pieces = tokenize(json!({"content": "\u{1f600}", "with_pieces": true}));
    assert!(pieces.as_array().unwrap().iter().any(|token| token["piece"].is_array()), "half characters are bytes");
    assert_eq!(fixture.get("/props").ok()["total_slots"], 16);
    assert_eq!(fixture.get("/health").ok(), json!({"status": "ok"}));
    assert_eq!(fixture.get("/livez").ok()["status"], "ok");
    let models = fixture.get("/v1/models").ok();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("org/tiny:1")));
    assert!(models["data"][0]["max_model_len"].as_u64() > Some(0));
    assert_eq!(fixture.get("/v1/models/org/tiny:1").ok()["object"], "model");
    assert_eq!(fixture.get("/v1/models/org%2Ftiny%3A1/").ok()["object"], "model");
    assert_eq!(fixture.get("/v1/models/gpt-4").refusal(404).0, "model_not_found");
    assert!(fixture.get("/openapi.json").ok()["paths"]["/v1/chat/completions"].is_object());
}

#[test]
fn figures_are_in_the_format_of_prometheus_and_move() {
    let fixture = Fixture::new();
    ask(&fixture, &question(json!({})));
    let reply = fixture.get("/metrics");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let value = |name: &str| -> f64 {
        let line = reply.text.lines().find(|line| line.starts_with(&format!("{name}{{")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {}", reply.text))
    };
    for line in reply.text.lines() {
        let is_comment = line.starts_with("# HELP ") || line.starts_with("# TYPE ");
        let sample = line.split_once("} ");
        let is_sample = sample.is_some_and(|(head, value)| head.contains('{') && value.parse::<f64>().is_ok());
        assert!(is_comment || is_sample, "{line:?}");
    }
    assert_eq!(value("modelembed_requests_finished_total"), 1.0);
    assert_eq!(value("modelembed_completion_tokens_total"), 12.0);
    assert_eq!(value("modelembed_first_token_seconds_count"), 1.0);
    assert_eq!(value("modelembed_next_token_seconds_count"), 11.0);
    assert_eq!(value("vllm:num_requests_running"), 0.0);
    for name in ["vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:cache_config_info"] {
        value(name);
    }
    assert!(reply.text.contains("endpoint=\"/chat/completions\",status=\"200\""));
}
