//! A loaded model: its files, its configuration, where its tensors lie, and what computes with them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelembed_gguf::{Gguf, SharedBytes, TensorInfo};
use modelembed_kernels::{Isa, Kernels, MatRef};
use modelembed_pool::Pool;
use modelembed_storage::{self as storage, LoadMode, Progress, Storage, StreamReader, StreamStats, process};
use modelembed_terms::CacheType;
use modelembed_text::Tokenizer;

use crate::config::{Config, RopeConfig};
use crate::error::{Error, Result};
use crate::files::{self, ModelFiles, Shard};
use crate::gpu::{GpuLayers, GpuLimits, GpuModel, GpuPlacement, Here};
use crate::locking::{self, Budget, Lock, LockStats};
use crate::plan::{Plan, RamBudget, Verdict};
use crate::prefetch::Prefetch;
use crate::residency::{self, Residency, Sizes};
use crate::rope::RopeTable;
use crate::weights::{Tensor, Weights};

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where the model's bytes live.
    pub mode: LoadMode,
    /// Worker threads, the calling one included; `None` takes the physical cores that this process may use.
    pub threads: Option<usize>,
    /// Instruction set of the kernels; `None` takes the best that the CPU has.
    pub isa: Option<Isa>,
    /// Activations stay f32 and weights are dequantised on the fly: exact and slower.
    pub exact: bool,
    /// How much memory a mapped model may use; what is more streams from the disk.
    pub ram_budget: RamBudget,
    /// Tokens of the context that the plan leaves memory for; `None` takes the length that the model was trained for.
    pub ctx_tokens: Option<usize>,
    /// What keys and values of that context are stored in; `None` takes what a session takes that does not say.
    pub cache_type: Option<CacheType>,
    /// How much of the weights is locked in memory.
    pub lock: Lock,
    /// How many of the last layers a graphics processor computes.
    pub gpu_layers: GpuLayers,
    /// Which graphics processor: its index in [`gpu_adapters`](crate::gpu_adapters) or a part of its name; `None` takes the
    /// best that is no software.
    pub gpu_device: Option<String>,
    /// Bounds for it below its own.
    pub gpu_limits: GpuLimits,
    /// Who reads what streams.
    pub stream_reader: StreamReader,
}

/// What loading did.
#[derive(Clone, Debug)]
pub struct LoadStats {
    /// From the call until the model was ready for a prompt.
    pub load_time: Duration,
    /// Whatever a user should know, one sentence each.
    pub warnings: Vec<String>,
    /// What was locked in memory, if that was asked for.
    pub locked: Option<LockStats>,
}

/// A model that is ready to run. It never changes, and any number of sessions can share it.
pub struct Model {
    shards: Arc<[Shard]>,
    header: SharedBytes,
    config: Config,
    weights: Weights,
    tokenizer: Tokenizer,
    kernels: &'static Kernels,
    pool: Pool,
    rope: RopeTable,
    rope_windowed: Option<RopeTable>,
    gpu: Option<Arc<GpuModel>>,
    exact: bool,
    stats: LoadStats,
    residency: Residency,
    prefetch: Option<Prefetch>,
}

impl Model {
    /// Opens a model: maps it (or reads it, as `options.mode` says), reads its header and checks that it can run.
    ///
    /// A split model is opened by naming any of its files. `progress` is called while bytes are read and can end the loading.
    ///
    /// # Errors
    /// Whatever is wrong with the file, its metadata or its tensors; see [`Error`].
    pub fn load(
        path: &Path,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Arc<Model>> {
        let start = Instant::now();
        let kernels = match options.isa {
            None => Kernels::best(),
            Some(isa) => Kernels::by_isa(isa).ok_or_else(|| {
                let has = Kernels::all().map(|k| k.isa().name()).collect::<Vec<_>>().join(", ");
                Error::InvalidOption(format!("this CPU does not have the instruction set {isa}; it has {has}"))
            })?,
        };
        let threads = options.threads.unwrap_or_else(modelembed_pool::available_threads);
        if threads == 0 {
            return Err(Error::InvalidOption("0 threads compute nothing; wanted at least 1".into()));
        }
        let ModelFiles { mut shards, header, packed: _ } = ModelFiles::open_with(path, options.mode, progress)?;
        let gguf = &shards[0].gguf;
        let config = Config::from_gguf(gguf, (*header).as_ref())?;
        let weights = Weights::find(files::tensors(&shards), &config)?;
        let tokenizer = Tokenizer::from_gguf(gguf, Arc::clone(&header))?;
        if tokenizer.n_vocab() != weights.token_embd.rows {
            return Err(Error::Metadata {
                key: "tokenizer.ggml.tokens".into(),
                problem: format!(
                    "has {} tokens, but tensor token_embd.weight has {} rows",
                    tokenizer.n_vocab(),
                    weights.token_embd.rows
                ),
            });
        }
        load_tensors(&mut shards, &weights, progress)?;
        let mut warnings = tokenizer.warnings().to_vec();
        // Before the plan, which may replace pages of the map: what is copied is what the file holds.
        let gpu = GpuModel::load(&config, &weights, &shards, options, &mut warnings, progress)?;
        let budget = if options.mode == LoadMode::Map { options.ram_budget } else { RamBudget::Off };
        let here = gpu.as_deref().map_or(Here::all(&config), GpuModel::left);
        let sizes = Sizes::of(options, &config, here);
        let residency = Residency::new(&shards, &weights, &config, budget, sizes, options.stream_reader)?;
        let mut model = Model {
            residency,
            rope: RopeTable::new(config.rope.n_rot, config.rope.base, config.rope.scaling, None),
            rope_windowed: config.window.map(|w| plain_table(&w.rope)),
            shards: shards.into(),
            header,
            config,
            weights,
            kernels,
            pool: Pool::new(threads),
            gpu,
            exact: options.exact,
            stats: LoadStats { load_time: Duration::ZERO, warnings, locked: None },
            tokenizer,
            prefetch: None,
        };
        if let Some(divisors) = model.weights.rope_freqs.map(|t| model.floats(&t)) {
            check_divisors(&divisors)?;
            let c = &model.config.rope;
            model.rope = RopeTable::new(c.n_rot, c.base, c.scaling, Some(&divisors));
        }
        // Before pages are read ahead, so that they are locked as they come.
        model.stats.locked = model.lock(options.lock, options.mode)?;
        // Reading ahead what cannot stay would push out what was read before.
        if options.mode == LoadMode::Map && model.plan().verdict != Verdict::Impossible {
            model.start_prefetch();
        }
        model.stats.load_time = start.elapsed();
        Ok(Arc::new(model))
    }

    /// Metadata and directory of the (first) file.
    pub fn gguf(&self) -> &Gguf {
        &self.shards[0].gguf
    }

    /// The header's bytes, which [`Gguf`]'s arrays are read from.
    pub fn header(&self) -> &SharedBytes {
        &self.header
    }

    /// Directory of all files.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> + Clone {
        files::tensors(&self.shards)
    }

    /// Where the bytes of each file live.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.shards.iter().map(|s| &s.storage)
    }

    /// Bytes of the files that the page cache holds, whoever brought them there; what streams is not among them. `None` for
    /// other modes than mapping, and where the system does not tell.
    pub fn resident_bytes(&self) -> Option<u64> {
        let whole = self.storages().enumerate().map(|(i, storage)| (i, 0..storage.len())).collect();
        let parts = self.residency.staying(whole);
        parts.into_iter().map(|(i, bytes)| Some(self.shards[i].storage.residency(bytes)?.resident_bytes)).sum()
    }

    /// Length of all files, in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.storages().map(|s| s.len()).sum()
    }

    /// Bytes of weights that each generated token reads.
    pub fn bytes_per_token(&self) -> u64 {
        self.weights.bytes_per_token()
    }

    /// Bytes of the token embedding, of which each token reads one row.
    pub fn embedding_bytes(&self) -> u64 {
        self.weights.token_embd.n_bytes
    }

    /// Whether the output head is the token embedding.
    pub fn has_tied_head(&self) -> bool {
        self.weights.has_tied_head()
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens in the vocabulary: the length of logits.
    pub fn n_vocab(&self) -> usize {
        self.weights.token_embd.rows
    }

    /// The table of kernels in use.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// Worker threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// What loading did.
    pub fn load_stats(&self) -> &LoadStats {
        &self.stats
    }

    /// What a graphics processor computes of it, if anything.
    pub fn gpu_placement(&self) -> Option<&GpuPlacement> {
        self.gpu.as_deref().map(GpuModel::placement)
    }

    /// Gives the graphics processor up: evaluations of layers on it are errors from now on, as when it is unplugged.
    pub fn give_up_gpu(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.give_up();
        }
    }

    pub(crate) fn gpu(&self) -> Option<&Arc<GpuModel>> {
        self.gpu.as_ref()
    }

    /// What is computed on the CPU.
    pub(crate) fn here(&self) -> Here {
        self.gpu.as_deref().map_or(Here::all(&self.config), GpuModel::left)
    }

    /// How far the pages are that are read ahead of the first token; `None` where nothing is read ahead.
    pub fn prefetch_progress(&self) -> Option<Progress> {
        self.prefetch.as_ref().map(Prefetch::progress)
    }

    /// What of the model stays in memory and what streams.
    pub fn plan(&self) -> &Plan {
        self.residency.plan()
    }

    /// What a plan to stream fell back to, where the system refused something.
    pub fn plan_note(&self) -> Option<&str> {
        self.residency.note()
    }

    /// What streaming did so far; `None` if nothing streams.
    pub fn stream_stats(&self) -> Option<StreamStats> {
        self.residency.stats()
    }

    pub(crate) fn residency(&self) -> &Residency {
        &self.residency
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    pub(crate) fn rope(&self) -> &RopeTable {
        &self.rope
    }

    pub(crate) fn rope_windowed(&self) -> Option<&RopeTable> {
        self.rope_windowed.as_ref()
    }

    /// A tensor's bytes where they live.
    pub(crate) fn bytes(&self, t: &Tensor) -> &[u8] {
        let bytes = self.shards[t.shard].storage.bytes(t.offset..t.offset + t.n_bytes);
        bytes.unwrap_or_else(|| unreachable!("loading checked that every tensor lies in its file"))
    }

    pub(crate) fn matrix(&self, t: &Tensor) -> MatRef<'_> {
        let mat = MatRef::new(t.ty, self.bytes(t), t.rows, t.k);
        mat.unwrap_or_else(|| unreachable!("loading checked every tensor's type and shape"))
    }

    /// The embedding matrix, whose rows are looked up outside of any block.
    pub(crate) fn embedding(&self) -> MatRef<'_> {
        let t = &self.weights.token_embd;
        let bytes = self.residency.embedding(t).unwrap_or_else(|| self.bytes(t));
        MatRef::new(t.ty, bytes, t.rows, t.k).unwrap_or_else(|| unreachable!("loading checked the type and shape"))
    }

    fn floats(&self, t: &Tensor) -> Vec<f32> {
        self.bytes(t).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Locks the weights that stay, in the order in which a token needs them.
    fn lock(&self, wish: Lock, mode: LoadMode) -> Result<Option<LockStats>> {
        let asked = match wish {
            Lock::No => return Ok(None),
            Lock::Bytes(bytes) => Some(Budget { bytes, name: "-mlock".into() }),
            Lock::Allowed | Lock::Require => None,
        };
        let limit = storage::lockable_bytes().map(|bytes| Budget { bytes, name: "the limit (ulimit -l)".into() });
        // Locked pages are gone for everybody else: some memory must be left. A private copy is in memory already.
        let available = process::available_memory_bytes().filter(|_| mode == LoadMode::Map);
        let available = available.map(|n| Budget { bytes: n - n / 10, name: "the memory that is available".into() });
        let part = |t: &Tensor| (t.shard, t.offset..t.offset + t.n_bytes);
        // Layers, then the head: half a layer in memory helps no token.
        let mut units: Vec<_> = residency::units(&self.weights, self.here()).chunks(2).map(<[_]>::concat).collect();
        let (embd, head) = (&self.weights.token_embd, &self.weights.output);
        // Of a large vocabulary most rows are never looked up, so this comes last.
        if (embd.shard, embd.offset) != (head.shard, head.offset) {
            units.push(vec![*embd]);
        }
        let parts = |unit: &Vec<Tensor>| {
            let parts = unit.iter().map(part).collect();
            // Tensors that were read one by one lie apart: no bytes are from one into the next. Nor does any of them stream.
            if mode == LoadMode::File { parts } else { self.residency.staying(parts) }
        };
        let units: Vec<_> = units.iter().map(parts).collect();
        let budget = locking::least([asked, limit, available]);
        let lock = |shard: usize, bytes| self.shards[shard].storage.lock(bytes);
        let stats = locking::lock_units(&units, budget.as_ref(), lock);
        match (&stats.reason, wish) {
            (Some(reason), Lock::Require) => Err(Error::NotLocked {
                locked_bytes: stats.locked_bytes,
                wanted_bytes: stats.wanted_bytes,
                reason: reason.clone(),
            }),
            _ => Ok(Some(stats)),
        }
    }

    /// Asks for the model's pages in the order in which a token needs them, ahead of the first one.
    fn start_prefetch(&mut self) {
        let (around, w) = (!self.residency.is_streaming(), &self.weights);
        let is_embedding = |t: &Tensor| (t.shard, t.offset) == (w.token_embd.shard, w.token_embd.offset);
        let is_head = |t: &Tensor| (t.shard, t.offset) == (w.output.shard, w.output.offset);
        // Where memory is short, the embedding's rows come as they are looked up.
        let wanted = w.in_use_order().filter(|t| around || is_head(t) || !is_embedding(t));
        // Of what a graphics processor holds nothing is read here; of an embedding that is its head too, rows are looked up.
        let is_elsewhere = |t: &Tensor| self.gpu.as_ref().is_some_and(|gpu| gpu.holds(t));
        let wanted = wanted.filter(|t| !is_elsewhere(t));
        // What streams comes by itself, and memory has no room for what lies around the rest.
        let ranges = wanted.flat_map(|t| self.residency.staying(vec![(t.shard, t.offset..t.offset + t.n_bytes)]));
        self.prefetch = Some(Prefetch::start(&self.shards, ranges, around));
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("arch", &self.config.arch.name)
            .field("n_bytes", &self.n_bytes())
            .finish_non_exhaustive()
    }
}

fn plain_table(rope: &RopeConfig) -> RopeTable {
    RopeTable::new(rope.n_rot, rope.base, rope.scaling, None)
}

fn check_divisors(divisors: &[f32]) -> Result<()> {
    match divisors.iter().find(|d| !(d.is_finite() && **d > 0.0)) {
        None => Ok(()),
        Some(d) => Err(Error::Metadata {
            key: "rope_freqs.weight".into(),
            problem: format!("holds {d}, wanted numbers above 0"),
        }),
    }
}

/// Reads the tensors, where the load mode reads each on its own: in the order in which they lie in the files.
fn load_tensors(
    shards: &mut [Shard],
    weights: &Weights,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<()> {
    for (index, shard) in shards.iter_mut().enumerate() {
        let of_shard = weights.in_use_order().filter(|t| t.shard == index);
        let mut ranges: Vec<_> = of_shard.map(|t| t.offset..t.offset + t.n_bytes).collect();
        ranges.sort_by_key(|r| r.start);
        shard.storage.load(&ranges, progress)?;
    }
    Ok(())
}
