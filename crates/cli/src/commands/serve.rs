//! `serve`: many users at once over HTTP.

use crate::args::LogFormat;
use crate::interrupt::Interrupt;
use crate::resolve::{Serve, Setting};
use crate::setup;
use crate::terminal::{Notes, eprint_line};
use anyhow::{Context, Result};
use modelembed::{Model, RamBudget};
use modelembed_serve::Handle;
use modelembed_server::{Listen, Options, Server, Stopper};
use modelembed_storage::process::available_memory_bytes;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Tokens of one request where nothing is said: models are trained on far more than most machines
/// have memory for.
const DEFAULT_CTX_TOKENS: usize = 8192;
/// Memory for keys and values where nothing is said, at most and at least.
const MOST_KV_BYTES: u64 = 8 << 30;
const LEAST_KV_BYTES: u64 = 256 << 20;
/// How often the model's file is looked at.
const WATCH_TIME: Duration = Duration::from_secs(2);

/// Serves until it is told to end.
pub fn serve(setting: &Setting, serve: Serve) -> Result<ExitCode> {
    let notes = setting.notes();
    let interrupt = Interrupt::install();
    // Planned for what a request may need, not for the default of a run.
    let setting = &Setting { ctx_tokens: serve.ctx_tokens.or(Some(DEFAULT_CTX_TOKENS)), ..setting.clone() };
    let model = setup::load(setting, &interrupt)?;
    let template = setup::server_template(&model, serve.template.as_ref(), notes)?;
    let ctx_tokens = serve.ctx_tokens.unwrap_or(DEFAULT_CTX_TOKENS.min(model.spec().ctx_train));
    let scheduling = modelembed_serve::Options::default()
        .sequences(usize::from(serve.args.sequences))
        .ctx_tokens(ctx_tokens)
        .kv_bytes(kv_bytes(&model, serve.args.kv_bytes))
        .cache_type(setting.cache_type)
        .step(Duration::from_millis(serve.args.step_ms))
        .queue(serve.args.queue as usize);
    let handle = modelembed_serve::start(model.clone(), scheduling)?;
    let limits = handle.limits();
    if limits.ctx_tokens < ctx_tokens {
        notes.warning(&format!(
            "the memory for keys and values holds {} tokens: requests may have no more than that, instead of {ctx_tokens}",
            limits.ctx_tokens
        ));
    }
    log(serve.args.log);
    let mut options = Options::default();
    options.model_name = serve.args.name.clone().unwrap_or_else(|| name_of(&setting.model));
    options.keys = serve.keys;
    options.hosts = serve.args.allow_host;
    options.origins = serve.args.allow_origin;
    options.opens_metrics = serve.args.open_metrics;
    options.reads_control_tokens = serve.args.control_tokens;
    options.sampling = serve.sampling.options(notes);
    options.heartbeat = Duration::from_secs(serve.args.heartbeat);
    options.drain_time = Duration::from_secs(serve.args.drain);
    let engine = handle.clone();
    let server = Server::bind(handle, template, serve.listen.clone(), options)?;
    if server.is_exposed() {
        notes.warning(
            "other machines can reach this server, and no key is asked for: -api-key-file names a file of keys",
        );
    }
    let address = match (&serve.listen, server.address()) {
        (Listen::Unix(path), _) => path.display().to_string(),
        (_, address) => address.map(|address| format!("http://{address}")).unwrap_or_default(),
    };
    // Whoever started it waits for this line, also with -quiet.
    eprint_line(&format!(
        "Serving {} on {address}: {} answers at once, {} tokens each",
        server.model_name(),
        limits.sequences,
        limits.ctx_tokens
    ));
    let ended = Arc::new(AtomicBool::new(false));
    stop_on_signals(server.stopper(), &interrupt).context("cannot take signals")?;
    let watch = watch(&model, (server.stopper(), engine), notes, ended.clone());
    let served = server.run();
    ended.store(true, Ordering::Release);
    let _ = watch.join();
    setup::check_files(&model, notes).1?;
    served?;
    Ok(ExitCode::SUCCESS)
}

/// The file's name without what tells its kind.
fn name_of(model: &Path) -> String {
    model.file_stem().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Half of what is left once the model is in memory.
fn kv_bytes(model: &Model, asked: RamBudget) -> Option<u64> {
    match asked {
        RamBudget::Bytes(bytes) => Some(bytes),
        RamBudget::Off => None,
        RamBudget::Auto => {
            let left = available_memory_bytes()?.saturating_sub(model.n_bytes());
            Some((left / 2).clamp(LEAST_KV_BYTES, MOST_KV_BYTES))
        }
    }
}

/// Where lines about requests go: they hold no text of any.
fn log(format: LogFormat) {
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    // Only the first of a process counts.
    let _ = match format {
        LogFormat::Off => return,
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// The first signal to end stops the server, the second one the program.
#[cfg(unix)]
fn stop_on_signals(stopper: Stopper, _: &Interrupt) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for (n, signal) in signals.forever().enumerate() {
            if n > 0 {
                std::process::exit(128 + signal);
            }
            stopper.stop();
        }
    })?;
    Ok(())
}

#[cfg(not(unix))]
fn stop_on_signals(stopper: Stopper, interrupt: &Interrupt) -> Result<()> {
    let interrupt = interrupt.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while !interrupt.is_set() {
            std::thread::sleep(Duration::from_millis(100));
        }
        stopper.stop();
    })?;
    Ok(())
}

/// Looks at the model's files: what is computed from one that was written to is worth nothing.
fn watch(
    model: &Arc<Model>,
    (stopper, handle): (Stopper, Handle),
    notes: Notes,
    ended: Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let model = model.clone();
    std::thread::spawn(move || {
        let mut watch = setup::Watch::default();
        let mut since = std::time::Instant::now();
        while !ended.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(50));
            if since.elapsed() < WATCH_TIME {
                continue;
            }
            since = std::time::Instant::now();
            watch.tell(&model, notes);
            if model.storages().any(|storage| storage.changed().is_some_and(crate::report::spoils)) {
                stopper.stop();
                handle.drain(std::time::Instant::now());
                // The server sets a time of its own once it has seen that.
                while !ended.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(50));
                    handle.drain(std::time::Instant::now());
                }
                return;
            }
        }
    })
}
