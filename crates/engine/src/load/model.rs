//! A loaded model: its files, its program, and what computes with them.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelembed_gguf::{Gguf, SharedBytes, TensorInfo};
use modelembed_kernels::{Kernels, MatRef};
use modelembed_pool::Pool;
use modelembed_spec::{ModelSpec, Program, RopeSpec, RopeTensors, TensorId};
use modelembed_storage::{self as storage, LoadMode, Progress, SlotStats, Storage, StreamStats, process};
use modelembed_text::Tokenizer;
use modelembed_text::chat::{Selection as TemplateSelection, Wanted as TemplateWanted};

use crate::error::{Error, Result};
use crate::gpu::{self, GpuModel, GpuPlacement};
use crate::load::files::ModelFiles;
use crate::load::locking::{self, Budget, Lock, LockStats};
use crate::load::options::{ContextNeed, LoadOptions, LoadStats};
use crate::load::prefetch::{Asked, Prefetch};
use crate::load::shard::{self, Shard};
use crate::load::share::CpuShare;
use crate::load::tensors::{Compiled, Tensor};
use crate::residency::plan::{Plan, RamBudget, Verdict};
use crate::residency::{self, Residency, Sizes};
use crate::run::chat::Chat;
use crate::run::engine::{Engine, EngineOptions};
use crate::run::generate::GenerateOptions;
use crate::run::runtime::Runtime;
use crate::run::sampler::Sampler;
use crate::run::session::{Session, SessionOptions};
use crate::state::rope::{Divisors, Rope};

/// A model that is ready to run. It never changes, and any number of sessions can share it.
pub struct Model {
    shards: Arc<[Shard]>,
    header: SharedBytes,
    compiled: Compiled,
    tokenizer: Tokenizer,
    runtime: Arc<Runtime>,
    ropes: Vec<Rope>,
    gpu: Option<Arc<GpuModel>>,
    exact: bool,
    stats: LoadStats,
    residency: Residency,
    prefetch: Option<Prefetch>,
    asked: Asked,
}

impl Model {
    /// Opens a model with the usual options: maps it, reads its header and checks that it can run.
    ///
    /// A split model is opened by naming any of its files.
    ///
    /// # Errors
    /// Whatever is wrong with the file, its metadata or its tensors; see [`Error`].
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<Model>> {
        Model::load(path, &LoadOptions::default())
    }

    /// Opens a model: maps it or reads it, as [`LoadOptions::mode`] says.
    ///
    /// # Errors
    /// As [`open`](Self::open), or options that cannot be met.
    pub fn load(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Arc<Model>> {
        Model::load_with_progress(path, options, |_| ControlFlow::Continue(()))
    }

    /// As [`load`](Self::load), and calls `progress` while bytes are read, which can end the
    /// loading.
    ///
    /// # Errors
    /// As [`load`](Self::load), or cancellation by `progress`.
    pub fn load_with_progress(
        path: impl AsRef<Path>,
        options: &LoadOptions,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Arc<Model>> {
        Model::load_for(path.as_ref(), options, &mut |_, _| None, &mut progress)
    }

    /// A context over this model.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn session(self: &Arc<Self>, options: SessionOptions) -> Result<Session> {
        Session::new(self, options)
    }

    /// Many contexts over this model, computed together.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn engine(self: &Arc<Self>, options: EngineOptions) -> Result<Engine> {
        Engine::new(self, &options)
    }

    /// A chat in a session of its own, through the model's [template](Self::chat_template).
    ///
    /// # Errors
    /// As [`Session::new`], a model without a vocabulary, or options that the sampler does not
    /// take.
    pub fn chat(self: &Arc<Self>, session: SessionOptions, options: GenerateOptions) -> Result<Chat> {
        self.tokenizer.require_vocabulary()?;
        let template = self.chat_template(None)?.template;
        Ok(Chat::new(self.session(session)?, Sampler::new(options.sampler)?, template, options))
    }

    /// The chat template: the one that is wanted, else the model's own, else a built-in one that
    /// its vocabulary or its name points to, with a warning. A model that has none of its own may
    /// be a base model, which was never taught to chat.
    ///
    /// # Errors
    /// A template that was asked for and does not work.
    pub fn chat_template(&self, wanted: Option<TemplateWanted<'_>>) -> Result<TemplateSelection> {
        Ok(modelembed_text::chat::for_model(self.gguf(), &self.tokenizer, wanted)?)
    }

    /// As [`load`](Self::load), but memory is planned for what `need` says, which is asked once
    /// there is a tokenizer to count a prompt with: a single answer rarely takes the whole context.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for(
        path: &Path,
        options: &LoadOptions,
        need: &mut dyn FnMut(&Gguf, &Tokenizer) -> Option<ContextNeed>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Arc<Model>> {
        let start = Instant::now();
        let runtime = options.runtime_or_own()?;
        let ModelFiles { mut shards, header, packed: _ } = ModelFiles::open_with(path, options.mode, progress)?;
        let gguf = &shards[0].gguf;
        let compiled = Compiled::new(gguf, (*header).as_ref(), shard::directory(&shards))?;
        let tokenizer = Tokenizer::from_gguf(gguf, Arc::clone(&header))?;
        let n_vocab = compiled.program.n_vocab();
        if tokenizer.require_vocabulary().is_ok() && tokenizer.n_vocab() != n_vocab {
            let seen = tokenizer.n_vocab();
            let problem = format!("has {seen} tokens, but tensor token_embd.weight has {n_vocab} rows");
            return Err(modelembed_spec::Error::Metadata { key: "tokenizer.ggml.tokens".into(), problem }.into());
        }
        let of_need = need(gguf, &tokenizer).map(|need| options.needing(need, compiled.spec.ctx_train));
        let options = of_need.as_ref().unwrap_or(options);
        load_tensors(&mut shards, &compiled, progress)?;
        let mut warnings = tokenizer.warnings().to_vec();
        // Before the plan, which may replace pages of the map: what is copied is what the file
        // holds.
        let gpu = gpu::load(&compiled, &shards, options, &mut warnings, progress)?;
        let budget = if options.mode == LoadMode::Map { options.ram_budget } else { RamBudget::Off };
        let share = gpu.as_deref().map_or(CpuShare::all(&compiled.program), GpuModel::cpu_share);
        let sizes = Sizes::of(options, &compiled, share);
        let residency = Residency::new(&shards, &compiled, budget, sizes, options.stream_reader)?;
        let mut model = Model {
            residency,
            ropes: Vec::new(),
            shards: shards.into(),
            header,
            compiled,
            runtime,
            gpu,
            exact: options.exact,
            stats: LoadStats { load_time: Duration::ZERO, warnings, locked: None },
            tokenizer,
            prefetch: None,
            asked: Asked::default(),
        };
        model.ropes = model.read_ropes()?;
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
        shard::directory(&self.shards)
    }

    /// Where the bytes of each file live.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.shards.iter().map(|s| &s.storage)
    }

    /// Bytes of the files that the page cache holds, whoever brought them there; what streams is
    /// not among them. `None` for other modes than mapping, and where the system does not tell.
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
        self.compiled.bytes_per_token()
    }

    /// Bytes of the token embedding, and of those that layers have of their own: each token reads one
    /// row.
    pub fn embedding_bytes(&self) -> u64 {
        self.compiled.table_bytes()
    }

    /// Whether the output head is the token embedding.
    pub fn has_tied_head(&self) -> bool {
        self.compiled.program.has_tied_head()
    }

    /// What the metadata say that the model is.
    pub fn spec(&self) -> &ModelSpec {
        &self.compiled.spec
    }

    /// The steps that compute it.
    pub fn program(&self) -> &Program {
        &self.compiled.program
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokens in the vocabulary: the length of logits.
    pub fn n_vocab(&self) -> usize {
        self.compiled.program.n_vocab()
    }

    /// The table of kernels in use.
    pub fn kernels(&self) -> &'static Kernels {
        self.runtime.kernels()
    }

    /// Worker threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.runtime.threads()
    }

    /// What computes it.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// What loading did.
    pub fn load_stats(&self) -> &LoadStats {
        &self.stats
    }

    /// What a GPU computes of it, if anything.
    pub fn gpu_placement(&self) -> Option<&GpuPlacement> {
        self.gpu.as_deref().map(GpuModel::placement)
    }

    /// Gives the GPU up: evaluations of layers on it are errors from now on, as when it is
    /// unplugged.
    #[cfg(feature = "faults")]
    #[doc(hidden)]
    pub fn give_up_gpu(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.give_up();
        }
    }

    pub(crate) fn gpu(&self) -> Option<&Arc<GpuModel>> {
        self.gpu.as_ref()
    }

    /// What is computed on the CPU.
    pub(crate) fn cpu_share(&self) -> CpuShare {
        self.gpu.as_deref().map_or(CpuShare::all(self.program()), GpuModel::cpu_share)
    }

    /// How far the pages are that are read ahead of the first token; `None` where nothing is read
    /// ahead.
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

    /// How many of the experts that tokens used were in memory, and what was read; `None` unless
    /// experts are kept one by one.
    pub fn expert_stats(&self) -> Option<SlotStats> {
        self.residency.expert_stats()
    }

    /// How fast the disk gives experts that are not in memory, in bytes a second: reads some for so
    /// long. `None` unless experts are kept one by one, or if all are in memory.
    pub fn measure_expert_reads(&self, duration: Duration) -> Option<f64> {
        let _turn = self.runtime.turn();
        self.residency.experts()?.measure(duration)
    }

    pub(crate) fn residency(&self) -> &Residency {
        &self.residency
    }

    pub(crate) fn pool(&self) -> &Pool {
        self.runtime.pool()
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Where a tensor lies.
    pub(crate) fn tensor(&self, id: TensorId) -> &Tensor {
        self.compiled.tensors.get(id)
    }

    /// Where the program's tensors lie, in the order of their ids.
    pub(crate) fn placed_tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.compiled.tensors.iter()
    }

    /// The rotary embeddings, in the order of [`ModelSpec::ropes`].
    pub(crate) fn ropes(&self) -> &[Rope] {
        &self.ropes
    }

    /// A tensor's bytes where they live.
    pub(crate) fn bytes(&self, t: &Tensor) -> &[u8] {
        let bytes = self.shards[t.shard].storage.bytes(t.offset..t.offset + t.n_bytes);
        bytes.unwrap_or_else(|| unreachable!("loading checked that every tensor lies in its file"))
    }

    /// A tensor's bytes where they live, by its id.
    pub(crate) fn tensor_bytes(&self, id: TensorId) -> &[u8] {
        self.bytes(self.tensor(id))
    }

    pub(crate) fn matrix(&self, id: TensorId) -> MatRef<'_> {
        let t = self.tensor(id);
        let mat = MatRef::new(t.ty, self.bytes(t), t.rows, t.k);
        mat.unwrap_or_else(|| unreachable!("loading checked every tensor's type and shape"))
    }

    /// A matrix whose rows are looked up outside of any segment.
    pub(crate) fn table(&self, id: TensorId) -> MatRef<'_> {
        let t = self.tensor(id);
        let bytes = self.residency.table(t).unwrap_or_else(|| self.bytes(t));
        MatRef::new(t.ty, bytes, t.rows, t.k).unwrap_or_else(|| unreachable!("loading checked the type and shape"))
    }

    fn read_ropes(&self) -> Result<Vec<Rope>> {
        let read = |id: &Option<TensorId>| id.map(|id| self.divisors(id)).transpose();
        let program = self.program();
        let rope = |(spec, tensors): (&RopeSpec, &RopeTensors)| {
            let divisors =
                Divisors { fixed: read(&tensors.fixed)?, long: read(&tensors.long)?, short: read(&tensors.short)? };
            Ok(Rope::new(spec, &divisors))
        };
        self.spec().ropes.iter().zip(program.rope_factors()).map(rope).collect()
    }

    /// Divisors of angles.
    fn divisors(&self, id: TensorId) -> Result<Vec<f32>> {
        let bytes = self.tensor_bytes(id);
        let divisors: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        match divisors.iter().find(|d| !(d.is_finite() && **d > 0.0)) {
            None => Ok(divisors),
            Some(d) => {
                let (key, problem) =
                    (self.program().tensor(id).name.clone(), format!("holds {d}, wanted numbers above 0"));
                Err(modelembed_spec::Error::Metadata { key, problem }.into())
            }
        }
    }

    /// Locks the weights that stay, in the order in which a token needs them.
    fn lock(&self, wish: Lock, mode: LoadMode) -> Result<Option<LockStats>> {
        let asked = match wish {
            Lock::No => return Ok(None),
            Lock::Bytes(bytes) => Some(Budget { bytes, name: "the limit that was asked for".into() }),
            Lock::Allowed | Lock::Require => None,
        };
        let limit = storage::lockable_bytes().map(|bytes| Budget { bytes, name: "the limit (ulimit -l)".into() });
        // Locked pages are gone for everybody else: some memory must be left. A private copy is in
        // memory already.
        let available = process::available_memory_bytes().filter(|_| mode == LoadMode::Map);
        let available = available.map(|n| Budget { bytes: n - n / 10, name: "the memory that is available".into() });
        let part = |t: &Tensor| (t.shard, t.offset..t.offset + t.n_bytes);
        // Layers, then the head: half a layer in memory helps no token.
        let mut units: Vec<_> =
            residency::units(&self.compiled, self.cpu_share()).chunks(2).map(<[_]>::concat).collect();
        // Of a large vocabulary most rows are never looked up, so this comes last.
        let looked_up = self.program().tables().filter(|id| self.program().is_looked_up(*id));
        units.extend(looked_up.map(|id| vec![*self.tensor(id)]));
        let parts = |unit: &Vec<Tensor>| {
            let parts = unit.iter().map(part).collect();
            // Tensors that were read one by one lie apart: no bytes are from one into the next. Nor
            // does any of them stream.
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
        let around = !self.residency.is_streaming();
        let (program, gpu) = (self.program(), self.gpu.as_deref());
        // Where memory is short, the embedding's rows come as they are looked up; those with a slice
        // for each layer are so many that they always do.
        let is_wanted = |id: &TensorId| !program.is_looked_up(*id) || (around && *id == program.embedding());
        // Of what a GPU holds nothing is read here; of an embedding that is its head too, rows are
        // looked up.
        let is_here = |id: &TensorId| gpu.is_none_or(|gpu| !gpu.holds(*id));
        let wanted = program.in_use_order().into_iter().filter(|id| is_wanted(id) && is_here(id));
        // A token uses a few experts. Where memory has no room for all, none is read ahead but what
        // stays in any case.
        let shares = if around { program.expert_shares() } else { HashMap::new() };
        let (of_experts, needed): (Vec<_>, Vec<_>) = wanted.partition(|id| shares.contains_key(id));
        let range = |id: &TensorId| {
            let tensor = self.tensor(*id);
            (tensor.shard, tensor.offset..tensor.offset + tensor.n_bytes)
        };
        let mut later: Vec<_> = of_experts.iter().map(range).collect();
        later.sort_unstable_by_key(|(shard, range)| (*shard, range.start));
        let asked = Asked::new(of_experts.iter().map(|id| (*id, shares[id].1)));
        // What streams comes by itself, and memory has no room for what lies around the rest.
        let needed = needed.iter().flat_map(|id| self.residency.staying(vec![range(id)]));
        self.prefetch = Some(Prefetch::start(&self.shards, needed, later.into_iter(), around));
        self.asked = asked;
    }

    /// A token was computed: what others may use can be read ahead.
    pub(crate) fn prefetch_experts(&self) {
        if let Some(prefetch) = &self.prefetch {
            prefetch.go_on();
        }
    }

    /// Asks for an expert's part of some tensors, unless it was asked for before.
    pub(crate) fn ask_for_expert(&self, tensors: impl Iterator<Item = TensorId>, expert: usize) {
        if self.asked.is_empty() || self.prefetch.as_ref().is_none_or(Prefetch::is_over) {
            return;
        }
        for id in tensors {
            if let Some(n_experts) = self.asked.first_time(id, expert) {
                let tensor = self.tensor(id);
                let len = tensor.n_bytes / n_experts as u64;
                let start = tensor.offset + len * expert as u64;
                self.shards[tensor.shard].storage.ask(start..start + len);
            }
        }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("arch", &self.spec().arch.name)
            .field("n_bytes", &self.n_bytes())
            .finish_non_exhaustive()
    }
}

/// Reads the tensors, where the load mode reads each on its own: in the order in which they lie in
/// the files.
fn load_tensors(
    shards: &mut [Shard],
    compiled: &Compiled,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<()> {
    let tensors = compiled.in_use_order();
    for (index, shard) in shards.iter_mut().enumerate() {
        let of_shard = tensors.iter().filter(|t| t.shard == index);
        let mut ranges: Vec<_> = of_shard.map(|t| t.offset..t.offset + t.n_bytes).collect();
        ranges.sort_by_key(|r| r.start);
        shard.storage.load(&ranges, progress)?;
    }
    Ok(())
}
