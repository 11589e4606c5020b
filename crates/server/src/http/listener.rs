//! Connections: accepted within a bound, each with a deadline for heads, ended in good order.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HeaderName, ORIGIN, VARY,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use modelembed_serve::Handle;
use modelembed_text::chat::ChatTemplate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::app::App;
use crate::http::guard::{Guard, is_private};
use crate::http::patience::Patient;
use crate::http::respond;
use crate::http::routes;
use crate::options::{Listen, Options};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a request's head at most.
const MOST_HEAD_BYTES: usize = 64 << 10;
/// How long to wait where the system has no more descriptors.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// Threads that serve connections: the cores belong to those that compute.
const THREADS: usize = 2;
/// Threads for what takes long besides, such as tokenizing.
const SIDE_THREADS: usize = 4;
/// What answers may take to leave once they have been ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A server that has its address, and answers once it [runs](Server::run).
#[derive(Debug)]
pub struct Server {
    bound: Bound,
    listen: Listen,
    handle: Handle,
    template: ChatTemplate,
    options: Options,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
enum Bound {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address or the socket's path.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start the threads of the server: {0}")]
    Threads(io::Error),
}

/// Ends a server from anywhere.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Takes no more connections and requests; what is being answered may go on for the time that
    /// the options give.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// Takes the address. Requests are computed by `handle`; conversations are written by
    /// `template`.
    ///
    /// # Errors
    /// An address that cannot be had.
    pub fn bind(
        handle: Handle,
        template: ChatTemplate,
        listen: Listen,
        options: Options,
    ) -> Result<Server, ServerError> {
        let bound = match &listen {
            Listen::Tcp(address) => std::net::TcpListener::bind(address).map(Bound::Tcp),
            Listen::Unix(path) => bind_unix(path),
        };
        let address = match &listen {
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix(path) => path.display().to_string(),
        };
        let bound = bound.map_err(|source| ServerError::Listen { address, source })?;
        Ok(Server { bound, listen, handle, template, options, stop: watch::Sender::new(false) })
    }

    /// The address; none for a socket in the file system.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.bound {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Bound::Unix(_) => None,
        }
    }

    /// Whether other machines can reach it while no key is asked for.
    pub fn is_exposed(&self) -> bool {
        self.options.keys.is_empty() && self.address().is_some_and(|address| !is_private(&address))
    }

    /// The name under which the model is listed.
    pub fn model_name(&self) -> &str {
        &self.options.model_name
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }

    /// Answers requests until it is stopped, then stops the scheduler too.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn run(self) -> Result<(), ServerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(SIDE_THREADS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(ServerError::Threads)?;
        let handle = self.handle.clone();
        let served = runtime.block_on(self.serve());
        handle.stop();
        runtime.shutdown_timeout(LAST_WORDS);
        served
    }

    async fn serve(self) -> Result<(), ServerError> {
        let Server { bound, listen, handle, template, options, stop } = self;
        let guard = Arc::new(Guard::new(&options, &listen));
        let (permits, drain_time) = (Arc::new(Semaphore::new(options.connections)), options.drain_time);
        let app = App::new(handle.clone(), template, options);
        let acceptor = Acceptor::new(bound).map_err(ServerError::Threads)?;
        let mut connections = JoinSet::new();
        let mut stopped = stop.subscribe();
        loop {
            let accepted = tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => break,
                accepted = accept(&acceptor, &permits) => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, permit)) => {
                    let (app, guard, stopped) = (app.clone(), guard.clone(), stop.subscribe());
                    connections.spawn(async move {
                        connection(stream, app, guard, stopped).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(FULL_PAUSE).await;
                }
            }
        }
        drop(acceptor);
        if let Listen::Unix(path) = &listen {
            let _ = std::fs::remove_file(path);
        }
        tracing::info!(seconds = drain_time.as_secs_f64(), connections = connections.len(), "draining");
        handle.drain(Instant::now() + drain_time);
        let left = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(drain_time + LAST_WORDS, left).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections were cut");
        }
        connections.shutdown().await;
        Ok(())
    }
}

/// A socket that nobody else may open, in the place of one that nobody listens to any more. It gets
/// its name when it is ready.
#[cfg(unix)]
fn bind_unix(path: &std::path::Path) -> io::Result<Bound> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::os::unix::net::{UnixListener, UnixStream};
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of that name, and it is no socket",
            ));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"));
        }
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let unnamed = path.with_file_name(name);
    let listener = UnixListener::bind(&unnamed)?;
    let renamed = std::fs::set_permissions(&unnamed, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&unnamed, path));
    if let Err(error) = renamed {
        let _ = std::fs::remove_file(&unnamed);
        return Err(error);
    }
    Ok(Bound::Unix(listener))
}

#[cfg(not(unix))]
fn bind_unix(_: &std::path::Path) -> io::Result<Bound> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no sockets in files"))
}

enum Acceptor {
    Tcp(tokio::net::TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream),
}

impl Acceptor {
    fn new(bound: Bound) -> io::Result<Acceptor> {
        match bound {
            Bound::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener).map(Acceptor::Tcp)
            }
            #[cfg(unix)]
            Bound::Unix(listener) => {
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener).map(Acceptor::Unix)
            }
        }
    }
}

/// The next connection, once there is room for it.
async fn accept(
    acceptor: &Acceptor,
    permits: &Arc<Semaphore>,
) -> io::Result<(Stream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let stream = match acceptor {
        Acceptor::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // Tokens are short, and none waits for another.
            let _ = stream.set_nodelay(true);
            Stream::Tcp(stream)
        }
        #[cfg(unix)]
        Acceptor::Unix(listener) => Stream::Unix(listener.accept().await?.0),
    };
    Ok((stream, permit))
}

async fn connection(stream: Stream, app: App, guard: Arc<Guard>, stopped: watch::Receiver<bool>) {
    match stream {
        Stream::Tcp(stream) => connection_on(stream, app, guard, stopped).await,
        #[cfg(unix)]
        Stream::Unix(stream) => connection_on(stream, app, guard, stopped).await,
    }
}

/// Serves one connection until it ends, or is idle after the server was stopped.
async fn connection_on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    app: App,
    guard: Arc<Guard>,
    mut stopped: watch::Receiver<bool>,
) {
    let (head_time, write_time) = (app.options.head_time, app.options.write_time);
    let service = service_fn(move |request| {
        let (app, guard) = (app.clone(), guard.clone());
        async move { Ok::<_, Infallible>(answer(&app, &guard, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_time)
        .max_buf_size(MOST_HEAD_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, write_time)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // What goes wrong on a connection is the client's affair.
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Answers one request, with the headers that all answers have, a line in the log and a count.
async fn answer(app: &App, guard: &Guard, request: Request<Incoming>) -> respond::Answered {
    let begun = Instant::now();
    let (method, origin) = (request.method().clone(), request.headers().get(ORIGIN).cloned());
    let theirs = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_plain(id));
    let echoed = theirs.map(str::to_owned);
    let id = app.request_id();
    let (endpoint, mut answered) = routes::answer(app, guard, &id, request).await;
    respond::insert(&mut answered, REQUEST_ID, echoed.as_deref().unwrap_or(&id));
    let allowed = origin.as_ref().and_then(|origin| origin.to_str().ok()).filter(|origin| guard.allows_origin(origin));
    if let Some(origin) = allowed {
        respond::insert(&mut answered, ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        respond::insert(&mut answered, VARY, "origin");
        respond::insert(&mut answered, ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS");
        respond::insert(&mut answered, ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    }
    let (status, millis) = (answered.status().as_u16(), begun.elapsed().as_millis() as u64);
    app.metrics.request(endpoint, status);
    // Never what was asked or answered, and no keys.
    tracing::info!(id, method = method.as_str(), endpoint, status, millis, "request");
    answered
}

/// Headers that pages of allowed origins may send: those of SDKs.
const ALLOWED_HEADERS: &str = "authorization, content-type, x-api-key, x-request-id, openai-organization, \
    openai-project, x-stainless-arch, x-stainless-async, x-stainless-custom-poll-interval, \
    x-stainless-helper-method, x-stainless-lang, x-stainless-os, x-stainless-package-version, \
    x-stainless-poll-helper, x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, \
    x-stainless-timeout";

/// Whether a name of a request can stand in logs and headers.
fn is_plain(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
