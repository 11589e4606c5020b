//! Clients that leave, silence, and the end of the server.

use std::io::{BufRead, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{Fixture, head_and_body, options, rest, scheduling, wait};

fn endless(stream: bool) -> Value {
    json!({"prompt": "a", "max_tokens": -1, "ignore_eos": true, "stream": stream})
}

/// A server whose answers take as long as the test wants.
fn slow() -> Fixture {
    let mut quick = options();
    quick.heartbeat = Duration::from_millis(20);
    let fixture = Fixture::with(quick, scheduling());
    fixture.handle.allow_steps(Some(0));
    fixture
}

fn next_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    assert!(reader.read_line(&mut line).unwrap() > 0, "the connection ended");
    line
}

#[test]
fn a_client_that_leaves_cancels_its_answer() {
    for stream in [false, true] {
        let fixture = slow();
        let mut connection = fixture.connect();
        connection.write_all(&head_and_body("/v1/completions", &endless(stream))).unwrap();
        fixture.wait("the request", |status| status.totals.accepted == 1);
        drop(connection);
        // It has a token a step: more than enough of them to see it leave, and far from its end.
        let begun = fixture.handle.status().totals.steps;
        fixture.handle.allow_steps(None);
        fixture.wait("the cancellation", |status| status.totals.cancelled + status.totals.finished == 1);
        let status = fixture.handle.status();
        assert_eq!((status.totals.cancelled, status.running, status.queued), (1, 0, 0), "after {begun} steps");
        assert_eq!(fixture.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 1})).status, 200);
    }
}

#[test]
fn a_stream_has_its_headers_at_once_and_signs_of_life_by_the_clock() {
    let fixture = slow();
    let messages = json!([{"role": "user", "content": "a"}]);
    let body = json!({"messages": messages, "stream": true, "max_tokens": 2, "ignore_eos": true});
    let (status, mut reader) = fixture.begin("/v1/chat/completions", &body);
    assert_eq!(status, 200);
    let mut events = Vec::new();
    while events.len() < 4 {
        if let Some(event) = next_line(&mut reader).strip_prefix("data: ") {
            events.push(serde_json::from_str::<Value>(event).unwrap());
        }
    }
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    // No comments: some clients fail at them, and some do not count them as life.
    let is_nothing =
        |event: &Value| event["choices"][0]["delta"] == json!({}) && event["choices"][0]["finish_reason"].is_null();
    assert!(events[1..].iter().all(is_nothing), "{events:?}");
    fixture.handle.allow_steps(None);
    assert!(rest(&mut reader).contains("data: [DONE]"));
}

#[test]
fn a_whole_answer_that_comes_late_begins_with_blanks() {
    let fixture = slow();
    let body = json!({"prompt": "a", "max_tokens": 2, "ignore_eos": true});
    let (status, mut reader) = fixture.begin("/v1/completions", &body);
    assert_eq!(status, 200);
    for _ in 0..3 {
        // A chunk of one byte, which is a blank.
        assert_eq!((next_line(&mut reader), next_line(&mut reader)), ("1\r\n".to_owned(), " \r\n".to_owned()));
    }
    fixture.handle.allow_steps(None);
    let text = rest(&mut reader);
    let (from, to) = (text.find('{').unwrap(), text.rfind('}').unwrap());
    let answer: Value = serde_json::from_str(&text[from..=to]).unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 2);
}

/// The answer is more than all buffers on the way hold.
#[test]
fn a_client_that_does_not_read_is_left() {
    let mut hasty = options();
    hasty.write_time = Duration::from_millis(50);
    let fixture = Fixture::with(hasty, scheduling());
    let mut connection = fixture.connect();
    let body = json!({"content": "é".repeat(600_000), "with_pieces": true});
    connection.write_all(&head_and_body("/tokenize", &body)).unwrap();
    // What is written to a connection that the other side has closed comes back as an error.
    wait("that it is left", || (&connection).write_all(b" ").is_err());
    assert_eq!(fixture.get("/health").status, 200);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let fixture = Fixture::with(options(), scheduling().sequences(1).queue(1));
    fixture.handle.allow_steps(Some(0));
    let mut held = Vec::new();
    let refused = loop {
        // How many fit besides is the scheduler's affair; at some point there is no more room.
        let mut connection = fixture.connect();
        connection.write_all(&head_and_body("/v1/completions", &endless(true))).unwrap();
        let mut first = [0; 12];
        std::io::Read::read_exact(&mut connection, &mut first).unwrap();
        if &first == b"HTTP/1.1 429" {
            break rest(&mut connection);
        }
        held.push(connection);
        assert!(held.len() < 10, "there is always room");
    };
    assert!(refused.contains("retry-after: ") && refused.contains("queue_full"), "{refused}");
    assert!(!refused.contains("x-should-retry"), "{refused}");
}

#[test]
fn a_server_that_ends_lets_answers_end_and_takes_no_more() {
    let mut fixture = slow();
    let body = json!({"prompt": "a", "max_tokens": 5, "ignore_eos": true, "stream": true});
    let (_, mut reader) = fixture.begin("/v1/completions", &body);
    let (address, handle) = (fixture.address, fixture.handle.clone());
    fixture.stopper.stop();
    wait("draining", || handle.status().is_draining);
    wait("the end of listening", || std::net::TcpStream::connect(address).is_err());
    handle.allow_steps(None);
    let text = rest(&mut reader);
    assert!(text.contains("\"finish_reason\":\"length\"") && text.contains("[DONE]"), "{text}");
    fixture.end().unwrap();
}

#[test]
fn answers_that_take_too_long_to_end_are_ended() {
    let mut hasty = options();
    hasty.drain_time = Duration::from_millis(50);
    let mut fixture = Fixture::with(hasty, scheduling());
    fixture.handle.allow_steps(Some(3));
    let (_, mut reader) = fixture.begin("/v1/completions", &endless(true));
    fixture.stopper.stop();
    let handle = fixture.handle.clone();
    wait("draining", || handle.status().is_draining);
    std::thread::sleep(Duration::from_millis(100));
    handle.allow_steps(None);
    let text = rest(&mut reader);
    assert!(text.contains("\"error\""), "{text}");
    fixture.end().unwrap();
}

#[test]
fn what_breaks_the_engine_is_told_and_shows_in_health() {
    let fixture = Fixture::new();
    fixture.handle.panic();
    fixture.wait("the panic", |status| status.stopped.is_some());
    let reply = fixture.post("/v1/completions", &json!({"prompt": "a"}));
    reply.refusal(503);
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    assert_eq!(fixture.get("/health").status, 503);
    assert_eq!(fixture.get("/livez").json()["status"], "stopped");
}

#[cfg(unix)]
#[test]
fn a_socket_in_the_file_system_is_this_users_alone_and_goes_with_the_server() {
    use modelembed_server::Listen;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    // A socket that nobody listens to any more is in nobody's way.
    drop(UnixListener::bind(&path).unwrap());
    let mut fixture = Fixture::on(Listen::Unix(path.clone()), options(), scheduling());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n").unwrap();
    let text = rest(&mut stream);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    fixture.end().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
