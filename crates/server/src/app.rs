//! What all requests share.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use modelembed::{DryBreakers, Tokenizer};
use modelembed_serve::Handle;
use modelembed_text::chat::ChatTemplate;
use tokio::sync::Semaphore;

use crate::encode::{Head, Kind};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::prompt::Prompter;

/// What all requests share; clones are the same.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub handle: Handle,
    pub options: Options,
    pub prompter: Prompter,
    pub metrics: Metrics,
    /// What ends the sequences that DRY looks for, where the options have it.
    pub dry_breakers: Option<DryBreakers>,
    /// What the bodies of requests take places of.
    pub bodies: Semaphore,
    /// When the server was made, in seconds since 1970.
    pub created: u64,
    /// Tells this run's answers from those of others.
    run: u64,
    n_requests: AtomicU64,
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// The version of the program, which answers name as what computed them.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl App {
    pub fn new(handle: Handle, template: ChatTemplate, options: Options) -> App {
        let ctx_tokens = handle.limits().ctx_tokens;
        let prompter = Prompter::new(handle.model(), template, options.reads_control_tokens, ctx_tokens);
        let usual = || DryBreakers::new(handle.model().tokenizer(), &DryBreakers::DEFAULT).ok();
        let dry_breakers = options.sampling.dry.and_then(|_| usual());
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        App(Arc::new(Shared {
            handle,
            options,
            prompter,
            metrics: Metrics::default(),
            dry_breakers,
            bodies: crate::http::body::places(),
            created: nanos.as_secs(),
            run: nanos.as_nanos() as u64,
            n_requests: AtomicU64::new(0),
        }))
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        self.handle.model().tokenizer()
    }

    /// A name for a request that no other one has.
    pub fn request_id(&self) -> String {
        let n = self.n_requests.fetch_add(1, Ordering::Relaxed);
        format!("{:012x}{n:06x}", self.run & 0xffff_ffff_ffff)
    }

    /// What the objects of an answer have in common. Whatever model was asked for, this one
    /// answers, and says so.
    pub fn head(&self, kind: Kind, request_id: &str) -> Head {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Completion => "cmpl",
        };
        Head {
            id: format!("{prefix}-{request_id}"),
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            model: self.options.model_name.clone(),
            fingerprint: format!("modelembed-{VERSION}"),
            kind,
        }
    }
}
