//! A server with a tiny model, and what a client does with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use modelembed::{ChatTemplate, Model, SpecialTokens};
use modelembed_serve::{Handle, start};
use modelembed_server::{Listen, Options, Server, ServerError, Stopper};
use modelembed_testkit::{tiny, tiny_spec};
use serde_json::Value;

/// Whatever is waited for comes by then, or never.
const PATIENCE: Duration = Duration::from_secs(60);
/// A template with a place for everything, whose control tokens the tiny vocabulary has.
const TEMPLATE: &str = "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}\
    {% for m in messages %}{{ m.role }}: {{ m.content }}\
    {% for c in m.tool_calls or [] %}{{ c.function.arguments.x }}{% endfor %}{{ eos_token }}\n{% endfor %}\
    {% if add_generation_prompt %}assistant:{% if think %}<think>{% endif %}{% endif %}";

/// A running server.
pub struct Fixture {
    pub address: SocketAddr,
    pub handle: Handle,
    pub model: Arc<Model>,
    pub stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
    _file: tempfile::NamedTempFile,
}

pub fn options() -> Options {
    let mut options = Options::default();
    options.model_name = "org/tiny:1".to_owned();
    options
}

pub fn scheduling() -> modelembed_serve::Options {
    modelembed_serve::Options::default()
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture::with(options(), scheduling())
    }

    pub fn with(options: Options, scheduling: modelembed_serve::Options) -> Fixture {
        Fixture::on(Listen::Tcp("127.0.0.1:0".parse().unwrap()), options, scheduling)
    }

    pub fn on(listen: Listen, options: Options, scheduling: modelembed_serve::Options) -> Fixture {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), tiny(&tiny_spec("llama"))).unwrap();
        let model = Model::open(file.path()).unwrap();
        let special = SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() };
        let template = ChatTemplate::new(TEMPLATE, special).unwrap();
        let handle = start(model.clone(), scheduling).unwrap();
        let server = Server::bind(handle.clone(), template, listen, options).unwrap();
        let (address, stopper) = (server.address(), server.stopper());
        let thread = std::thread::spawn(move || server.run());
        let address = address.unwrap_or_else(|| "127.0.0.1:1".parse().unwrap());
        Fixture { address, handle, model, stopper, thread: Some(thread), _file: file }
    }

    pub fn get(&self, path: &str) -> Reply {
        Reply::of(agent().get(format!("http://{}{path}", self.address)).call())
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_with(path, body, &[])
    }

    pub fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Reply {
        let url = format!("http://{}{path}", self.address);
        let mut request = agent().post(url).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Reply::of(request.send(body.to_string()))
    }

    /// Sends bytes as they are; all that comes back until the connection ends.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // A server that has seen enough closes.
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Begins a request; its status and a reader behind the head of the answer.
    pub fn begin(&self, path: &str, body: &Value) -> (u16, BufReader<TcpStream>) {
        let mut stream = self.connect();
        stream.write_all(&head_and_body(path, body)).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status = status_of(&line);
        while line.len() > 2 {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        (status, reader)
    }

    /// Waits until the scheduler says so.
    pub fn wait(&self, what: &str, until: impl Fn(&modelembed_serve::Status) -> bool) {
        wait(what, || until(&self.handle.status()));
    }

    /// Tells the server to end and waits for it.
    pub fn end(&mut self) -> Result<(), ServerError> {
        self.stopper.stop();
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.handle.allow_steps(None);
        let ended = self.end();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

pub fn wait(what: &str, until: impl Fn() -> bool) {
    let begun = Instant::now();
    while !until() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What is left to read, as text.
pub fn rest(reader: &mut impl Read) -> String {
    let mut all = Vec::new();
    let _ = reader.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

pub fn status_of(text: &str) -> u16 {
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

pub fn head_and_body(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().new_agent()
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Reply {
    fn of(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
        let mut response = result.unwrap();
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        Reply { status: response.status().as_u16(), headers, text: response.body_mut().read_to_string().unwrap() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(seen, _)| seen == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of a successful answer.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Code and field of a refusal with this status.
    pub fn refusal(&self, status: u16) -> (String, String) {
        assert_eq!(self.status, status, "{self:?}");
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        assert!(error["type"].is_string(), "{self:?}");
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (text("code"), text("param"))
    }

    /// The objects of a stream that ended well.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!((self.status, self.header("content-type")), (200, Some("text/event-stream")), "{self:?}");
        let mut events: Vec<&str> =
            self.text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect("an event")).collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{self:?}");
        events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}
