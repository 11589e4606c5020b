//! Which path is answered by what. The table is the only list: dispatch, `Allow`, what is open
//! without a key and the OpenAPI document come from it.

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};

use crate::app::App;
use crate::endpoints;
use crate::error::ApiError;
use crate::http::body::shown;
use crate::http::guard::Guard;
use crate::http::respond::{self, Answered};

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Root,
    Health,
    Live,
    Ready,
    Models,
    Model,
    Chat,
    Completions,
    Tokenize,
    Detokenize,
    ApplyTemplate,
    Props,
    Metrics,
    OpenApi,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// Without `/v1`, which may stand before any.
    pub path: &'static str,
    pub endpoint: Endpoint,
    pub is_post: bool,
    /// Needs no key.
    pub is_open: bool,
    /// Is written with `/v1` in the OpenAPI document.
    pub is_openai: bool,
    pub summary: &'static str,
}

const fn route(path: &'static str, endpoint: Endpoint, summary: &'static str) -> Route {
    Route { path, endpoint, is_post: false, is_open: false, is_openai: false, summary }
}

impl Route {
    const fn open(self) -> Route {
        Route { is_open: true, ..self }
    }

    const fn post(self) -> Route {
        Route { is_post: true, ..self }
    }

    const fn openai(self) -> Route {
        Route { is_openai: true, ..self }
    }

    fn allow(&self) -> &'static str {
        if self.is_post { "POST, OPTIONS" } else { "GET, HEAD, OPTIONS" }
    }
}

/// All routes.
pub(crate) const ROUTES: &[Route] = &[
    route("/", Endpoint::Root, "That there is a server").open(),
    route("/health", Endpoint::Health, "Whether requests are taken").open(),
    route("/livez", Endpoint::Live, "Whether the engine goes on").open(),
    route("/readyz", Endpoint::Ready, "Whether requests are taken").open(),
    route("/models", Endpoint::Models, "The models that there are").openai(),
    route("/models/{model}", Endpoint::Model, "One model").openai(),
    route("/chat/completions", Endpoint::Chat, "An answer in a chat").post().openai(),
    route("/completions", Endpoint::Completions, "What follows a text").post().openai(),
    route("/tokenize", Endpoint::Tokenize, "Token ids of a text").post(),
    route("/detokenize", Endpoint::Detokenize, "The text of token ids").post(),
    route("/apply-template", Endpoint::ApplyTemplate, "A chat as the template writes it").post(),
    route("/props", Endpoint::Props, "What the server was set up with"),
    route("/metrics", Endpoint::Metrics, "Figures for Prometheus"),
    route("/openapi.json", Endpoint::OpenApi, "This description").open(),
];

/// What a path leads to, and what stands in the place of `{model}`.
pub(crate) fn find(path: &str) -> Option<(&'static Route, String)> {
    let path = path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    let path = if path.is_empty() { "/" } else { path };
    if let Some(route) = ROUTES.iter().find(|route| route.path == path) {
        return Some((route, String::new()));
    }
    let model = path.strip_prefix("/models/")?;
    let route = ROUTES.iter().find(|route| route.endpoint == Endpoint::Model)?;
    Some((route, decoded(model)?))
}

/// A path without percent signs; `None` for one that is no text.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push((digit()? << 4 | digit()?) as u8);
    }
    String::from_utf8(bytes).ok()
}

/// Answers a request. The name of the endpoint is for logs and figures.
pub(crate) async fn answer(app: &App, guard: &Guard, id: &str, request: Request<Incoming>) -> (&'static str, Answered) {
    let (parts, body) = request.into_parts();
    let found = find(parts.uri.path());
    let name = found.as_ref().map_or("unknown", |(route, _)| route.path);
    let answered = match admit(app, guard, &parts, found) {
        Ok(Admitted::Answer(answered)) => Ok(answered),
        Ok(Admitted::Endpoint(endpoint, rest)) => endpoints::answer(app, endpoint, &rest, id, &parts, body).await,
        Err(error) => Err(error),
    };
    (name, answered.unwrap_or_else(|error| respond::error(&error)))
}

enum Admitted {
    Endpoint(Endpoint, String),
    Answer(Answered),
}

fn admit(
    app: &App,
    guard: &Guard,
    parts: &Parts,
    found: Option<(&'static Route, String)>,
) -> Result<Admitted, ApiError> {
    guard.check_host(&parts.uri, &parts.headers)?;
    guard.check_site(&parts.method, &parts.headers)?;
    let path = parts.uri.path();
    let Some((route, rest)) = found else {
        // A client that knows no key is told nothing.
        guard.check_key(&parts.headers)?;
        let hint = if path.starts_with("/v1/v1/") { ": the base URL of the client has a /v1 too many" } else { "" };
        let message = format!("there is nothing at {:?}{hint}", shown(path));
        return Err(ApiError::refused(StatusCode::NOT_FOUND, message).code("not_found"));
    };
    match parts.method {
        Method::OPTIONS => return Ok(Admitted::Answer(respond::options(route.allow()))),
        Method::POST if route.is_post => {}
        Method::GET | Method::HEAD if !route.is_post => {}
        ref method => {
            let message = format!("the method is {:?}, wanted {}", shown(method.as_str()), route.allow());
            let mut answered = respond::error(&ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, message));
            respond::insert(&mut answered, hyper::header::ALLOW, route.allow());
            return Ok(Admitted::Answer(answered));
        }
    }
    let is_open = route.is_open || route.endpoint == Endpoint::Metrics && app.options.opens_metrics;
    if !is_open {
        guard.check_key(&parts.headers)?;
    }
    Ok(Admitted::Endpoint(route.endpoint, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_a_version_or_none_and_a_slash_or_none() {
        let rows = [
            ("/", Some((Endpoint::Root, ""))),
            ("/v1/", Some((Endpoint::Root, ""))),
            ("/v1/chat/completions", Some((Endpoint::Chat, ""))),
            ("/chat/completions/", Some((Endpoint::Chat, ""))),
            ("/v1/v1/chat/completions", None),
            ("/v1models", None),
            ("/v1/models/a/b:c", Some((Endpoint::Model, "a/b:c"))),
            ("/models/a%2Fb%20", Some((Endpoint::Model, "a/b "))),
            ("/models/a%2", None),
            ("/models/%ff", None),
            ("/nothing", None),
        ];
        let failed: Vec<_> = rows
            .iter()
            .filter(|(path, wanted)| {
                let found = find(path);
                found.as_ref().map(|(route, rest)| (route.endpoint, rest.as_str())) != *wanted
            })
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
