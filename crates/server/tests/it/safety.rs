//! Who may ask, and what is refused before anything is computed.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::fixture::{Fixture, head_and_body, options, rest, scheduling, status_of};

#[test]
fn mistakes_get_one_clear_error_that_would_come_again() {
    let fixture = Fixture::new();
    let reply = fixture.post("/v1/chat/completions", &json!({"messages": [{"role": "user", "content": 5}]}));
    assert_eq!(reply.refusal(400).1, "messages[0].content");
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    let user = json!([{"role": "user", "content": "a"}]);
    let rows = [
        ("/v1/chat/completions", json!({}), "messages"),
        ("/v1/chat/completions", json!({"messages": user, "temperature": "x"}), "temperature"),
        ("/v1/chat/completions", json!({"messages": user, "stream": true, "top_p": 2}), "top_p"),
        ("/v1/completions", json!({"prompt": [1, 999_999]}), "prompt"),
        ("/tokenize", json!({}), "content"),
        ("/detokenize", json!({"tokens": [-1]}), "tokens"),
        ("/apply-template", json!({"messages": []}), "messages"),
    ];
    for (path, body, param) in rows {
        assert_eq!(fixture.post(path, &body).refusal(400).1, param, "{path} {body}");
    }
}

#[test]
fn a_prompt_that_never_fits_says_so_in_the_words_that_clients_know() {
    let fixture = Fixture::with(options(), scheduling().ctx_tokens(64));
    for stream in [false, true] {
        let long = "the other ".repeat(200);
        let body = json!({"messages": [{"role": "user", "content": long}], "stream": stream});
        let reply = fixture.post("/v1/chat/completions", &body);
        assert_eq!(reply.refusal(400).0, "context_length_exceeded");
        let error = &reply.json()["error"];
        assert!(error["message"].as_str().unwrap().contains("exceeds the available context size"), "{error}");
        assert!(error["n_prompt_tokens"].as_u64() > Some(64) && error["n_ctx"] == 64, "{error}");
        assert_eq!(reply.header("x-should-retry"), Some("false"));
    }
    // Longer than any tokens could make it: no time is spent on them.
    let huge = json!({"prompt": "a".repeat(4 << 20)});
    assert_eq!(fixture.post("/v1/completions", &huge).refusal(400).0, "context_length_exceeded");
    // More tokens than there is room for are cut, not refused.
    let body = json!({"prompt": "a", "max_tokens": 32_000, "ignore_eos": true});
    assert_eq!(fixture.post("/v1/completions", &body).ok()["choices"][0]["finish_reason"], "length");
}

#[test]
fn bodies_are_json_of_bounded_size_and_depth() {
    let mut small = options();
    small.body_bytes = 10_000;
    let fixture = Fixture::with(small, scheduling());
    let send = |kind: &str, body: &str| {
        let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
        let text = format!("{head}{kind}content-length: {}\r\n\r\n{body}", body.len());
        status_of(&fixture.raw(text.as_bytes()))
    };
    const JSON: &str = "content-type: application/json\r\n";
    let deep = format!("{{\"prompt\": {}1{}}}", "[".repeat(4000), "]".repeat(4000));
    let long = format!("\"{}\"", "a".repeat(10_000));
    let rows = [
        ("", "{}", 415),
        ("content-type: text/plain\r\n", "{}", 415),
        ("content-type: application/json; charset=utf-8\r\n", "{}", 400),
        (JSON, "{", 400),
        (JSON, "\u{0}", 400),
        (JSON, "[1e999]", 400),
        (JSON, &"[".repeat(5000), 400),
        (JSON, &deep, 400),
        (JSON, &long, 413),
    ];
    for (kind, body, status) in rows {
        assert_eq!(send(kind, body), status, "{kind:?} {body:.40?}");
    }
    // Without a length it shows only on the way.
    let chunk = format!("2000\r\n{}\r\n", "a".repeat(0x2000));
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let head = format!("{head}{JSON}transfer-encoding: chunked\r\n\r\n");
    assert_eq!(status_of(&fixture.raw(format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes())), 413);
}

#[test]
fn heads_and_bodies_have_deadlines_however_they_trickle() {
    let mut short = options();
    (short.head_time, short.body_time) = (Duration::from_millis(100), Duration::from_millis(100));
    let fixture = Fixture::with(short, scheduling());
    let mut stream = fixture.connect();
    stream.write_all(b"GET /health HT").unwrap();
    let text = rest(&mut stream);
    assert!(text.is_empty() || status_of(&text) == 408, "{text}");
    let mut stream = fixture.connect();
    let body = head_and_body("/v1/completions", &json!({"prompt": "a"}));
    stream.write_all(&body[..body.len() - 1]).unwrap();
    assert_eq!(status_of(&rest(&mut stream)), 408);
}

#[test]
fn keys_are_asked_for_everywhere_but_at_the_door() {
    let mut locked = options();
    locked.keys = vec!["secret".into()];
    let fixture = Fixture::with(locked.clone(), scheduling());
    let body = json!({"prompt": "a", "max_tokens": 1});
    let post = |headers: &[(&str, &str)]| fixture.post_with("/v1/completions", &body, headers);
    let reply = post(&[]);
    assert_eq!(reply.refusal(401).0, "invalid_api_key");
    assert!(!reply.text.contains("secret"));
    post(&[("authorization", "Bearer secret")]).ok();
    post(&[("x-api-key", "secret")]).ok();
    post(&[("authorization", "Bearer other")]).refusal(401);
    for open in ["/", "/health", "/livez", "/readyz", "/openapi.json"] {
        assert_eq!(fixture.get(open).status, 200, "{open}");
    }
    for closed in ["/v1/models", "/props", "/metrics", "/nothing"] {
        assert_eq!(fixture.get(closed).status, 401, "{closed}");
    }
    locked.opens_metrics = true;
    assert_eq!(Fixture::with(locked, scheduling()).get("/metrics").status, 200);
}

#[test]
fn other_hosts_and_pages_of_other_sites_get_nothing() {
    let mut allowing = options();
    allowing.origins = vec!["http://localhost:3000".into()];
    let fixture = Fixture::with(allowing, scheduling());
    let body = json!({"prompt": "a", "max_tokens": 1});
    let post = |headers: &[(&str, &str)]| fixture.post_with("/v1/completions", &body, headers);
    assert_eq!(post(&[("host", "evil.example")]).refusal(403).0, "host_not_allowed");
    assert_eq!(post(&[("origin", "http://evil.example")]).refusal(403).0, "origin_not_allowed");
    assert_eq!(post(&[("origin", "null")]).refusal(403).0, "origin_not_allowed");
    assert_eq!(post(&[("sec-fetch-site", "cross-site")]).refusal(403).0, "origin_not_allowed");
    let allowed = post(&[("origin", "http://localhost:3000"), ("sec-fetch-site", "cross-site")]);
    allowed.ok();
    assert_eq!(allowed.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    let absolute = b"GET http://evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(status_of(&fixture.raw(absolute)), 403);
}

#[test]
fn paths_and_methods() {
    let fixture = Fixture::new();
    let reply = fixture.get("/v1/v1/models");
    assert_eq!(reply.refusal(404).0, "not_found");
    assert!(reply.text.contains("a /v1 too many"), "{reply:?}");
    let reply = fixture.get("/v1/completions");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST, OPTIONS")));
    assert_eq!(fixture.post("/models", &json!({})).status, 405);
    assert_eq!(fixture.get("/models/").ok()["object"], "list");
    let raw = |first: &str| {
        fixture.raw(format!("{first} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
    };
    let head = raw("HEAD /");
    assert!(status_of(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
    let options = raw("OPTIONS /v1/chat/completions");
    assert_eq!(status_of(&options), 204);
    assert!(!options.to_ascii_lowercase().contains("access-control"), "{options}");
    let named = |id: &str| {
        let reply = fixture.post_with("/tokenize", &json!({"content": "a"}), &[("x-request-id", id)]);
        reply.header("x-request-id").map(str::to_owned)
    };
    assert_eq!(named("mine-1").as_deref(), Some("mine-1"));
    assert_ne!(named("with blanks").as_deref(), Some("with blanks"));
}

/// Whatever bytes come, the next request is answered.
#[test]
fn garbage_on_connections_does_no_harm() {
    let fixture = Fixture::new();
    let huge_head = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    let many_heads = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let garbage: [&[u8]; 6] = [
        b"\x00\xff\x16\x03\x01\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        huge_head.as_bytes(),
        many_heads.as_bytes(),
    ];
    for bytes in garbage {
        let text = fixture.raw(bytes);
        assert!(text.is_empty() || status_of(&text) >= 400, "{text}");
        assert_eq!(fixture.get("/health").status, 200);
    }
}
