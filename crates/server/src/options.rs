//! How the server is set up.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use modelembed::SamplerOptions;

/// Where requests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket in the file system, which nobody else may open.
    Unix(PathBuf),
}

/// How the server is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The name under which the model is listed. Requests may name any.
    pub model_name: String,
    /// Keys, one of which a request must have; empty: none is asked for.
    pub keys: Vec<String>,
    /// Names of this machine that requests may be sent to, besides those of the loopback device.
    pub hosts: Vec<String>,
    /// Origins of web pages that may send requests, such as `http://localhost:3000`.
    pub origins: Vec<String>,
    /// Whether `/metrics` is open to whoever has no key.
    pub opens_metrics: bool,
    /// Whether texts of control tokens in messages become those tokens.
    pub reads_control_tokens: bool,
    /// How tokens are chosen where a request says nothing.
    pub sampling: SamplerOptions,
    /// Bytes of a body at most; of one that is no prompt, never more than 4 MB.
    pub body_bytes: usize,
    /// How long reading a request's head may take.
    pub head_time: Duration,
    /// How long reading a body may take as a whole.
    pub body_time: Duration,
    /// How long a client may leave what is written to it unread.
    pub write_time: Duration,
    /// After so much silence a stream gives a sign of life.
    pub heartbeat: Duration,
    /// Connections at the same time, at most.
    pub connections: usize,
    /// How long answers may go on once the server is told to end.
    pub drain_time: Duration,
    /// A step that lasts longer is taken for one that hangs.
    pub stall_time: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            model_name: "model".to_owned(),
            keys: Vec::new(),
            hosts: Vec::new(),
            origins: Vec::new(),
            opens_metrics: false,
            reads_control_tokens: false,
            sampling: SamplerOptions::default(),
            body_bytes: 32 << 20,
            head_time: Duration::from_secs(30),
            body_time: Duration::from_secs(60),
            write_time: Duration::from_secs(60),
            heartbeat: Duration::from_secs(10),
            connections: 512,
            drain_time: Duration::from_secs(30),
            stall_time: Duration::from_secs(120),
        }
    }
}
