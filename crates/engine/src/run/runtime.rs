//! What models of a process share: workers, kernels, and the memory that contexts may take.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use modelembed_kernels::{Isa, Kernels};
use modelembed_pool::Pool;

use crate::error::{Error, Result};

/// How a [`Runtime`] is set up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RuntimeOptions {
    /// Worker threads, the calling one included; `None` takes the physical cores that this process
    /// may use.
    pub threads: Option<usize>,
    /// Instruction set of the kernels; `None` takes the best that the CPU has.
    pub isa: Option<Isa>,
    /// Bytes that keys and values of all contexts may take together, in whole pages; `None` sets no
    /// limit. A page that is given back stays with its engine, for that engine's next one.
    pub kv_budget_bytes: Option<u64>,
}

impl RuntimeOptions {
    /// These options with so many worker threads.
    #[must_use]
    pub fn threads(mut self, threads: impl Into<Option<usize>>) -> RuntimeOptions {
        self.threads = threads.into();
        self
    }

    /// These options with the kernels of this instruction set.
    #[must_use]
    pub fn isa(mut self, isa: impl Into<Option<Isa>>) -> RuntimeOptions {
        self.isa = isa.into();
        self
    }

    /// These options with so many bytes for keys and values.
    #[must_use]
    pub fn kv_budget_bytes(mut self, kv_budget_bytes: impl Into<Option<u64>>) -> RuntimeOptions {
        self.kv_budget_bytes = kv_budget_bytes.into();
        self
    }
}

/// Workers and kernels. Models that are loaded with the same one take turns on the same threads: a
/// draft model and its target, say.
pub struct Runtime {
    pool: Pool,
    kernels: &'static Kernels,
    turn: Mutex<()>,
    kv_budget: Arc<KvBudget>,
}

impl Runtime {
    /// Starts the workers.
    ///
    /// # Errors
    /// No threads, or an instruction set that the CPU does not have.
    pub fn new(options: &RuntimeOptions) -> Result<Arc<Runtime>> {
        let kernels = match options.isa {
            None => Kernels::best(),
            Some(isa) => Kernels::by_isa(isa).ok_or_else(|| Error::InstructionSet {
                wanted: isa,
                has: Kernels::all().map(|kernels| kernels.isa()).collect(),
            })?,
        };
        let threads = options.threads.unwrap_or_else(modelembed_pool::available_threads);
        if threads == 0 {
            return Err(Error::zero("threads"));
        }
        let kv_budget = Arc::new(KvBudget::new(options.kv_budget_bytes.unwrap_or(u64::MAX), None));
        Ok(Arc::new(Runtime { pool: Pool::new(threads), kernels, turn: Mutex::new(()), kv_budget }))
    }

    /// Worker threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The table of kernels in use.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// Bytes of the pages that hold keys and values of all contexts.
    pub fn kv_bytes(&self) -> u64 {
        self.kv_budget.used()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn kv_budget(&self) -> &Arc<KvBudget> {
        &self.kv_budget
    }

    /// To be held by a step from its first segment to its last.
    ///
    /// # Panics
    /// Within a step of this thread, which would wait for itself.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let holder = self as *const Runtime as usize;
        let is_held = HELD.with_borrow_mut(|held| {
            held.contains(&holder) || {
                held.push(holder);
                false
            }
        });
        assert!(!is_held, "a step was started from inside of a step with the same runtime");
        // What the turn guards is not left half done by a panic: the next one begins with its own
        // first segment.
        Turn { holder, _guard: self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) }
    }
}

thread_local! {
    /// Runtimes that steps of this thread hold, by their addresses.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A runtime that is held.
pub(crate) struct Turn<'a> {
    holder: usize,
    _guard: MutexGuard<'a, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| held.retain(|&holder| holder != self.holder));
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let isa = self.kernels.isa().name();
        f.debug_struct("Runtime").field("threads", &self.threads()).field("isa", &isa).finish_non_exhaustive()
    }
}

/// Bytes of pages that are out, and how many may be.
pub(crate) struct KvBudget {
    limit: u64,
    used: AtomicU64,
    /// What this is a part of.
    whole: Option<Arc<KvBudget>>,
}

impl KvBudget {
    pub(crate) fn new(limit: u64, whole: Option<Arc<KvBudget>>) -> KvBudget {
        KvBudget { limit, used: AtomicU64::new(0), whole }
    }

    /// Takes some bytes; an error is the budget that has not as many left.
    pub(crate) fn take(&self, bytes: u64) -> std::result::Result<(), &KvBudget> {
        let more = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| self)?;
        if let Some(Err(short)) = self.whole.as_deref().map(|whole| whole.take(bytes)) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(short);
        }
        Ok(())
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.give_back(bytes);
        }
    }

    /// Bytes that can be taken.
    pub(crate) fn left(&self) -> u64 {
        let own = self.limit.saturating_sub(self.used());
        self.whole.as_deref().map_or(own, |whole| own.min(whole.left()))
    }

    /// Bytes that can ever be out.
    pub(crate) fn most(&self) -> u64 {
        self.whole.as_deref().map_or(self.limit, |whole| self.limit.min(whole.most()))
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }
}
