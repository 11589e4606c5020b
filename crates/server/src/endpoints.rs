//! What each endpoint answers.

use std::fmt::Write;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use modelembed::{EncodeOptions, TokenId};
use modelembed_serve::Status;
use serde_json::{Value, json};

use crate::answer::{Choices, late, stream, whole};
use crate::api::chat::{ChatRequest, Conversation};
use crate::api::completion::{CompletionRequest, RawPrompt};
use crate::api::fields::Fields;
use crate::api::sampling::{Common, token_id};
use crate::app::{App, VERSION};
use crate::encode::{Choice, Kind};
use crate::error::ApiError;
use crate::events::Interpreter;
use crate::http::body::{read_json, shown};
use crate::http::respond::{self, Answered, Streamed};
use crate::http::routes::Endpoint;
use crate::openapi;

/// Bytes of bodies that are no prompts, at most.
const MOST_OTHER_BYTES: usize = 4 << 20;

/// Answers a request to an endpoint; `rest` is what its path ends with.
pub(crate) async fn answer(
    app: &App,
    endpoint: Endpoint,
    rest: &str,
    id: &str,
    parts: &Parts,
    body: Incoming,
) -> Result<Answered, ApiError> {
    let is_prompt = matches!(endpoint, Endpoint::Chat | Endpoint::Completions);
    let most_bytes = if is_prompt { app.options.body_bytes } else { app.options.body_bytes.min(MOST_OTHER_BYTES) };
    let read = || read_json(&parts.headers, body, most_bytes, app.options.body_time, &app.bodies);
    match endpoint {
        Endpoint::Root => Ok(respond::text("text/plain; charset=utf-8", format!("modelembed {VERSION} is running\n"))),
        Endpoint::Health | Endpoint::Ready => Ok(ready(&app.handle.status())),
        Endpoint::Live => Ok(live(app, &app.handle.status())),
        Endpoint::Models => Ok(respond::json(&json!({"object": "list", "data": [model(app)]}))),
        Endpoint::Model if rest == app.options.model_name => Ok(respond::json(&model(app))),
        Endpoint::Model => {
            let message = format!("there is no model {:?}, wanted {:?}", shown(rest), app.options.model_name);
            Err(ApiError::refused(StatusCode::NOT_FOUND, message).code("model_not_found"))
        }
        Endpoint::Chat => chat(app, id, read().await?).await,
        Endpoint::Completions => completions(app, id, read().await?).await,
        Endpoint::Tokenize => tokenize(app, read().await?).await,
        Endpoint::Detokenize => detokenize(app, read().await?).await,
        Endpoint::ApplyTemplate => apply_template(app, read().await?).await,
        Endpoint::Props => Ok(respond::json(&props(app))),
        Endpoint::Metrics => {
            let text = app.metrics.text(&app.handle.status(), app.handle.limits(), &app.options.model_name);
            Ok(respond::text("text/plain; version=0.0.4; charset=utf-8", text))
        }
        Endpoint::OpenApi => Ok(respond::json(&openapi::document())),
    }
}

/// Runs what takes long, as tokenizing does, beside the threads that serve connections.
async fn aside<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let app = app.clone();
    let done = tokio::task::spawn_blocking(move || work(&app)).await;
    done.unwrap_or_else(|_| Err(ApiError::failed("the request could not be worked on")))
}

async fn chat(app: &App, id: &str, body: Value) -> Result<Answered, ApiError> {
    let (request, prompt) = aside(app, move |app| {
        let request = ChatRequest::read(&body, &app.options.sampling, app.handle.limits().n_vocab)?;
        let prompt = app.prompter.chat(app.tokenizer(), request.conversation.clone())?;
        Ok((request, prompt))
    })
    .await?;
    let mut common = request.common;
    common.request.turn_ends = prompt.turn_ends;
    common.request.stop.extend(app.prompter.template().stop().iter().cloned());
    common.request.shown_tokens = app.prompter.reasoning_tokens(app.tokenizer());
    let wants_rows = common.request.logprobs.is_some();
    let mut answers = Vec::with_capacity(common.n);
    for number in 0..common.n {
        let answer = submit(app, common.choice(prompt.tokens.clone(), number), "messages")?;
        let split = (!request.keeps_reasoning).then(|| app.prompter.template().reasoning_split_behind(&prompt.text));
        answers.push((answer, Interpreter::new(split, wants_rows)));
    }
    let begun = vec![Choice { wants_rows, ..Choice::default() }; answers.len()];
    respond_with(app, Kind::Chat, id, &common, Choices::new(app, answers, common.n), begun).await
}

async fn completions(app: &App, id: &str, body: Value) -> Result<Answered, ApiError> {
    let (request, prompts) = aside(app, move |app| {
        let mut request = CompletionRequest::read(&body, &app.options.sampling, app.handle.limits().n_vocab)?;
        let prompts = std::mem::take(&mut request.prompts);
        let (wanted, limits) = (prompts.len() * request.common.n, app.handle.limits());
        let most = limits.queue + limits.sequences;
        if wanted > most {
            let message = format!("the request wants {wanted} answers, of which at most {most} can wait");
            return Err(ApiError::invalid("n", message));
        }
        let echo = request.echo;
        let of_prompt = |prompt: RawPrompt| {
            // A text as it came; of token ids the text that an answer would have.
            let text = match &prompt {
                RawPrompt::Text(text) if echo => text.clone(),
                _ => String::new(),
            };
            let is_text = matches!(prompt, RawPrompt::Text(_));
            let tokens = app.prompter.raw(app.tokenizer(), prompt)?;
            let echoed = if echo && !is_text { text_of(app, &tokens, false) } else { text };
            Ok((tokens, echoed))
        };
        let prompts = prompts.into_iter().map(of_prompt).collect::<Result<Vec<_>, ApiError>>()?;
        Ok((request, prompts))
    })
    .await?;
    let common = request.common;
    let wants_rows = common.request.logprobs.is_some();
    let (mut answers, mut begun) = (Vec::new(), Vec::new());
    for (prompt, echoed) in prompts {
        for number in 0..common.n {
            let answer = submit(app, common.choice(prompt.clone(), number), "prompt")?;
            answers.push((answer, Interpreter::new(None, wants_rows)));
            begun.push(Choice { echo: echoed.clone(), wants_rows, ..Choice::default() });
        }
    }
    respond_with(app, Kind::Completion, id, &common, Choices::new(app, answers, common.n), begun).await
}

fn submit(
    app: &App,
    mut request: modelembed_serve::Request,
    param: &str,
) -> Result<modelembed_serve::Answer, ApiError> {
    request.dry_breakers.clone_from(&app.dry_breakers);
    app.handle.submit(request).map_err(|refused| ApiError::of_refusal(&refused, param))
}

/// A stream, or a whole answer: with its status if it comes soon, else as a body that begins with
/// signs of life.
async fn respond_with(
    app: &App,
    kind: Kind,
    id: &str,
    common: &Common,
    choices: Choices,
    begun: Vec<Choice>,
) -> Result<Answered, ApiError> {
    let head = app.head(kind, id);
    let mut answered = if common.stream {
        respond::stream(Streamed::Events, stream(app, head, choices, common.stream_usage))
    } else {
        let owned = app.clone();
        let mut answer = Box::pin(async move { whole(&owned, &head, choices, begun).await });
        match tokio::time::timeout(app.options.heartbeat, &mut answer).await {
            Ok(answer) => respond::json(&answer?),
            Err(_) => respond::stream(Streamed::Json, late(app, answer)),
        }
    };
    respond::warn(&mut answered, &common.warnings);
    Ok(answered)
}

/// The text of tokens, with that of control tokens or without.
fn text_of(app: &App, ids: &[TokenId], with_control: bool) -> String {
    let mut bytes = Vec::new();
    ids.iter().for_each(|&id| app.tokenizer().piece(id, with_control, &mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn tokenize(app: &App, body: Value) -> Result<Answered, ApiError> {
    let text = aside(app, move |app| {
        let fields = Fields::of_body(&body)?;
        let content = fields.str("content")?.ok_or_else(|| fields.error("content", "a text"))?;
        let options = EncodeOptions::default()
            .add_special(fields.bool("add_special")?.unwrap_or(false))
            .parse_special(fields.bool("parse_special")?.unwrap_or(true));
        let ids = app.tokenizer().encode(content.as_bytes(), options);
        let ids = ids.map_err(|error| ApiError::invalid("content", error.to_string()))?;
        let with_pieces = fields.bool("with_pieces")?.unwrap_or(false);
        // Written as it goes: there may be as many tokens as bytes.
        let mut text = String::from("{\"tokens\":[");
        for (i, id) in ids.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let token = if with_pieces { with_piece(app, *id) } else { json!(id.0) };
            let _ = write!(text, "{comma}{token}");
        }
        text.push_str("]}");
        Ok(text)
    })
    .await?;
    Ok(respond::text("application/json", text))
}

/// A token with its text, or its bytes where they are a part of a character.
fn with_piece(app: &App, id: TokenId) -> Value {
    let mut bytes = Vec::new();
    app.tokenizer().piece(id, true, &mut bytes);
    let piece = String::from_utf8(bytes).map_or_else(|error| json!(error.as_bytes()), |text| json!(text));
    json!({"id": id.0, "piece": piece})
}

async fn detokenize(app: &App, body: Value) -> Result<Answered, ApiError> {
    let content = aside(app, move |app| {
        let fields = Fields::of_body(&body)?;
        let n_vocab = app.tokenizer().n_vocab();
        let wanted = format!("a list of token ids below {n_vocab}");
        let list = fields.list("tokens")?.ok_or_else(|| fields.error("tokens", &wanted))?;
        let ids: Option<Vec<TokenId>> = list.iter().map(|id| token_id(id, n_vocab)).collect();
        let wrong = || ApiError::invalid("tokens", format!("tokens is no list of token ids, wanted {wanted}"));
        Ok(text_of(app, &ids.ok_or_else(wrong)?, true))
    })
    .await?;
    Ok(respond::json(&json!({ "content": content })))
}

async fn apply_template(app: &App, body: Value) -> Result<Answered, ApiError> {
    let prompt = aside(app, move |app| {
        let conversation = Conversation::read(Fields::of_body(&body)?, &mut Vec::new())?;
        Ok(app.prompter.render(app.tokenizer(), conversation)?.text().to_owned())
    })
    .await?;
    Ok(respond::json(&json!({ "prompt": prompt })))
}

fn model(app: &App) -> Value {
    let (model, limits) = (app.handle.model(), app.handle.limits());
    let n_params: u64 = model.tensors().map(|tensor| tensor.dims.iter().product::<u64>()).sum();
    json!({
        "id": app.options.model_name,
        "object": "model",
        "created": app.created,
        "owned_by": "modelembed",
        "root": app.options.model_name,
        "parent": null,
        "max_model_len": limits.ctx_tokens,
        "meta": {
            "n_ctx": limits.ctx_tokens,
            "n_ctx_train": model.spec().ctx_train,
            "n_embd": model.spec().n_embd,
            "n_vocab": limits.n_vocab,
            "n_params": n_params,
            "size": model.n_bytes(),
        },
    })
}

fn props(app: &App) -> Value {
    let (limits, sampling) = (app.handle.limits(), &app.options.sampling);
    let tokenizer = app.tokenizer();
    let text = |id: Option<TokenId>| id.map(|id| text_of(app, &[id], true));
    json!({
        "default_generation_settings": {
            "n_ctx": limits.ctx_tokens,
            "params": {
                "temperature": sampling.temp,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "typical_p": sampling.typical_p,
                "repeat_penalty": sampling.repeat_penalty,
                "presence_penalty": sampling.presence_penalty,
                "frequency_penalty": sampling.frequency_penalty,
            },
        },
        "total_slots": limits.sequences,
        "model_path": app.options.model_name,
        "model_alias": app.options.model_name,
        "chat_template": app.prompter.template().source(),
        "bos_token": text(tokenizer.bos()),
        "eos_token": text(tokenizer.eos()),
        "modalities": {"vision": false, "audio": false},
        "build_info": format!("modelembed {VERSION}"),
        "is_sleeping": false,
    })
}

/// Whether requests are taken.
fn ready(status: &Status) -> Answered {
    if status.stopped.is_some() {
        return unavailable("stopped", "what computes has ended");
    }
    if status.is_draining {
        return unavailable("draining", "the server is about to end");
    }
    respond::json(&json!({"status": "ok"}))
}

fn unavailable(status: &str, message: &str) -> Answered {
    let error = json!({"message": message, "type": "unavailable_error", "param": null, "code": 503});
    respond::json_with(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": status, "error": error}))
}

/// Whether the engine goes on: with work at hand, its last step ended not long ago.
fn live(app: &App, status: &Status) -> Answered {
    let is_busy = status.queued + status.prompts + status.running > 0;
    let hangs = is_busy && status.since_step > app.options.stall_time;
    let word = match &status.stopped {
        Some(_) => "stopped",
        None if hangs => "stalled",
        None => "ok",
    };
    let code = if word == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::json_with(
        code,
        &json!({
            "status": word,
            "since_step_seconds": status.since_step.as_secs_f64(),
            "step_seconds": status.step.as_secs_f64(),
            "running": status.running,
            "prompts": status.prompts,
            "queued": status.queued,
        }),
    )
}
