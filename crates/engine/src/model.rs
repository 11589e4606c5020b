//! A loaded model: its files, its configuration, where its tensors lie, and what computes with them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use modelembed_gguf::split::{self, SplitName};
use modelembed_gguf::{Gguf, SharedBytes, TensorInfo};
use modelembed_kernels::{Isa, Kernels, MatRef};
use modelembed_pool::Pool;
use modelembed_storage::{LoadMode, Progress, Storage};
use modelembed_text::Tokenizer;

use crate::config::{Config, RopeConfig};
use crate::error::{Error, Result};
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
}

/// What loading did.
#[derive(Clone, Debug)]
pub struct LoadStats {
    /// From the call until the model was ready for a prompt.
    pub load_time: Duration,
    /// Whatever a user should know, one sentence each.
    pub warnings: Vec<String>,
}

/// One file of a model with its directory.
struct Shard {
    storage: Storage,
    gguf: Gguf,
}

/// A model that is ready to run. It never changes, and any number of sessions can share it.
pub struct Model {
    shards: Arc<[Shard]>,
    header: SharedBytes,
    tensors: Vec<TensorInfo>,
    config: Config,
    weights: Weights,
    tokenizer: Tokenizer,
    kernels: &'static Kernels,
    pool: Pool,
    rope: RopeTable,
    rope_windowed: Option<RopeTable>,
    exact: bool,
    stats: LoadStats,
    stop_prefetch: Arc<AtomicBool>,
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
        let (mut shards, header) = open_shards(path, options.mode, progress)?;
        let tensors = directory(&shards, path)?;
        let gguf = &shards[0].gguf;
        let config = Config::from_gguf(gguf)?;
        let weights = Weights::find(tensors.iter(), &config)?;
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
        let mut model = Model {
            rope: RopeTable::new(config.rope.n_rot, config.rope.base, config.rope.scaling, None),
            rope_windowed: config.window.map(|w| plain_table(&w.rope)),
            shards: shards.into(),
            header,
            tensors,
            config,
            weights,
            kernels,
            pool: Pool::new(threads),
            exact: options.exact,
            stats: LoadStats { load_time: Duration::ZERO, warnings: tokenizer.warnings().to_vec() },
            tokenizer,
            stop_prefetch: Arc::new(AtomicBool::new(false)),
        };
        if let Some(divisors) = model.weights.rope_freqs.map(|t| model.floats(&t)) {
            check_divisors(&divisors)?;
            let c = &model.config.rope;
            model.rope = RopeTable::new(c.n_rot, c.base, c.scaling, Some(&divisors));
        }
        if options.mode == LoadMode::Map {
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
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Where the bytes of each file live.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.shards.iter().map(|s| &s.storage)
    }

    /// Length of all files, in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.storages().map(|s| s.len()).sum()
    }

    /// Bytes of weights that each generated token reads.
    pub fn bytes_per_token(&self) -> u64 {
        self.weights.bytes_per_token()
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

    fn floats(&self, t: &Tensor) -> Vec<f32> {
        self.bytes(t).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Asks for the model's pages in the order in which a token needs them, ahead of the first one.
    fn start_prefetch(&self) {
        const STEP_BYTES: u64 = 8 << 20;
        let (shards, stop) = (Arc::clone(&self.shards), Arc::clone(&self.stop_prefetch));
        let ranges: Vec<_> = self.weights.in_use_order().map(|t| (t.shard, t.offset, t.offset + t.n_bytes)).collect();
        let run = move || {
            for (shard, start, end) in ranges {
                let mut at = start;
                while at < end && !stop.load(Ordering::Relaxed) {
                    let next = end.min(at + STEP_BYTES);
                    shards[shard].storage.prefetch(at..next);
                    at = next;
                }
            }
        };
        // Without the thread pages come as they are touched: slower, not wrong.
        let _ = std::thread::Builder::new().name("prefetch".into()).spawn(run);
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stop_prefetch.store(true, Ordering::Relaxed);
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

/// Opens the named file and, where it is one of a split model, all the others.
fn open_shards(
    path: &Path,
    mode: LoadMode,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Vec<Shard>, SharedBytes)> {
    let (named, header) = open_shard(path, mode, progress)?;
    let gguf_error = |source| Error::Gguf { path: path.to_owned(), source };
    let Some(split) = named.gguf.split().map_err(gguf_error)? else { return Ok((vec![named], header)) };
    let name = path.file_name().and_then(|n| n.to_str()).and_then(SplitName::parse);
    let Some(name) = name.filter(|n| n.count == split.count && n.number == split.index + 1) else {
        let wanted = format!("...-{:05}-of-{:05}.gguf", split.index + 1, split.count);
        let problem =
            format!("it is file {} of {} by its metadata, wanted the name {wanted}", split.index + 1, split.count);
        return Err(gguf_error(modelembed_gguf::Error::Split(problem)));
    };
    let mut named = Some((named, header));
    let mut shards = Vec::new();
    let mut first_header = None;
    for number in 1..=name.count {
        let (shard, header) = match (number == name.number, named.take()) {
            (true, Some(opened)) => opened,
            (_, kept) => {
                named = kept;
                open_shard(&path.with_file_name(name.sibling(number)), mode, progress)?
            }
        };
        first_header.get_or_insert(header);
        shards.push(shard);
    }
    let header = first_header.unwrap_or_else(|| unreachable!("a split model has at least two files"));
    Ok((shards, header))
}

fn open_shard(
    path: &Path,
    mode: LoadMode,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(Shard, SharedBytes)> {
    // Most headers fit; others say how much more they need.
    const FIRST_BYTES: u64 = 1 << 20;
    let storage = Storage::open(path, mode, progress)?;
    let mut wanted = FIRST_BYTES;
    loop {
        let header = storage.header(wanted)?;
        let bytes = (*header).as_ref();
        match Gguf::parse(bytes, storage.len()) {
            Ok(gguf) => return Ok((Shard { storage, gguf }, header)),
            Err(modelembed_gguf::Error::HeaderTruncated { needed_bytes, .. }) => {
                // Doubling keeps the number of tries low; growing past what is asked for is bounded by the file.
                wanted = needed_bytes.max(2 * bytes.len() as u64).min(storage.len());
            }
            Err(modelembed_gguf::Error::Magic { .. }) => {
                let found = modelembed_gguf::identify(bytes).description().to_owned();
                return Err(Error::NotGguf { path: path.to_owned(), found });
            }
            Err(source) => return Err(Error::Gguf { path: path.to_owned(), source }),
        }
    }
}

fn directory(shards: &[Shard], path: &Path) -> Result<Vec<TensorInfo>> {
    let files: Vec<&Gguf> = shards.iter().map(|s| &s.gguf).collect();
    split::merge_directories(&files).map_err(|source| Error::Gguf { path: path.to_owned(), source })
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
