//! Carries a [`Plan`] out: takes the streamed part of each unit out of the map, and has it read
//! before it is computed with.
//!
//! A unit is what must be in memory together: a segment of the program, that is half a layer, and
//! last the output head. Smaller ones leave more memory to what stays, since windows hold whole
//! units. Units come in a circle, one after the other, as the segments of a dense model do.

pub(crate) mod bandwidth;
pub(crate) mod devices;
pub(crate) mod experts;
pub(crate) mod forecast;
pub(crate) mod plan;

use std::ops::Range;
use std::time::Duration;

use modelembed_spec::Program;
use modelembed_storage::process::MemoryLeft;
use modelembed_storage::{
    SlotStats, Storage, StorageError, Stream, StreamOptions, StreamReader, StreamStats, StreamedRange,
};
use modelembed_terms::CacheType;

use crate::cpu::scratch;
use crate::error::{Error, Result};
use crate::load::options::LoadOptions;
use crate::load::shard::Shard;
use crate::load::share::CpuShare;
use crate::load::tensors::{Compiled, Tensor};
use crate::residency::experts::{ExpertGroups, ExpertSlots};
use crate::residency::plan::{Plan, PlanInput, RamBudget, Verdict};
use crate::state::{layout, records};

/// Units in memory at once: one that is computed with, one that is complete when that is done, one
/// that is being read.
const N_WINDOWS: usize = 3;

/// How long it is looked how fast the disk gives experts, when a model is loaded.
const FIRST_LOOK: Duration = Duration::from_millis(100);

/// Parts that stay and are as near as this are one.
const GAP_BYTES: u64 = 64;

/// What of a model stays in memory, and the stream of what does not.
pub(crate) struct Residency {
    plan: Plan,
    stream: Option<Streaming>,
    experts: Option<ExpertSlots>,
    /// What streams.
    streamed: Vec<StreamedRange>,
    /// Why a plan could not be carried out.
    note: Option<String>,
}

struct Streaming {
    stream: Stream,
    /// The files of tables once more, each with its number, without streamed parts: rows are looked
    /// up whatever the windows hold.
    tables: Vec<(usize, Storage)>,
}

impl Residency {
    /// Plans, and starts to stream if that is the plan.
    ///
    /// # Errors
    /// An explicit budget that is too small for the model.
    pub(crate) fn new(
        shards: &[Shard],
        compiled: &Compiled,
        budget: RamBudget,
        sizes: Sizes,
        reader: StreamReader,
    ) -> Result<Residency> {
        let (input, runs) = plan_input(shards, compiled, budget, sizes);
        let mut residency =
            Residency { plan: Plan::new(&input), stream: None, experts: None, streamed: Vec::new(), note: None };
        match (residency.plan.verdict, budget) {
            (Verdict::Streams, _) if residency.plan.keeps_experts() => {
                residency.start_slots(shards, compiled, sizes.share, reader)?;
            }
            (Verdict::Streams, _) => residency.start(shards, compiled, runs, reader)?,
            (Verdict::Impossible, RamBudget::Bytes(_)) => {
                return Err(Error::BudgetTooSmall { plan: Box::new(residency.plan) });
            }
            _ => {}
        }
        Ok(residency)
    }

    fn start(
        &mut self,
        shards: &[Shard],
        compiled: &Compiled,
        runs: Vec<Vec<StreamedRange>>,
        reader: StreamReader,
    ) -> Result<()> {
        let storages: Vec<&Storage> = shards.iter().map(|s| &s.storage).collect();
        let shares: Vec<_> = runs.into_iter().zip(&self.plan.streamed_bytes).map(|(r, n)| share(r, *n)).collect();
        let mut of_tables: Vec<usize> = compiled.program.tables().map(|id| compiled.tensors.get(id).shard).collect();
        of_tables.dedup();
        let tables: Option<Vec<_>> =
            of_tables.into_iter().map(|shard| Some((shard, storages[shard].random_view()?))).collect();
        let Some(tables) = tables else {
            self.note = Some("not streaming: the file could not be mapped twice; the system pages instead".into());
            return Ok(());
        };
        let options = StreamOptions { n_windows: N_WINDOWS, reader, direct: true };
        match Stream::start(&storages, &shares, options) {
            Ok(stream) => {
                self.plan.disk_bytes_per_second = stream.measure();
                self.note = note(stream.ring_refusal(), stream.stats().is_direct);
                self.streamed = shares.into_iter().flatten().collect();
                self.stream = Some(Streaming { stream, tables });
            }
            Err(e) if reader == StreamReader::Ring => {
                return Err(Error::ReaderRefused { reader, source: e });
            }
            Err(e) => self.note = Some(format!("not streaming ({e}): the system pages instead")),
        }
        Ok(())
    }

    fn start_slots(
        &mut self,
        shards: &[Shard],
        compiled: &Compiled,
        share: CpuShare,
        reader: StreamReader,
    ) -> Result<()> {
        let Some(groups) = ExpertGroups::new(compiled, share) else { return Ok(()) };
        let storages: Vec<&Storage> = shards.iter().map(|s| &s.storage).collect();
        let streamed = groups.ranges();
        match ExpertSlots::start(&storages, groups, (self.plan.slot_bytes, self.plan.dense_bytes()), reader) {
            Ok(experts) => {
                self.plan.disk_bytes_per_second = experts.measure(FIRST_LOOK);
                self.note = note(experts.slots().ring_refusal(), experts.slots().stats().is_direct);
                self.streamed = streamed;
                self.experts = Some(experts);
            }
            Err(e) if reader == StreamReader::Ring => return Err(Error::ReaderRefused { reader, source: e }),
            Err(e) => self.note = Some(format!("not streaming ({e}): the system pages instead")),
        }
        Ok(())
    }

    /// The experts that are kept one by one, if the model's are.
    pub(crate) fn experts(&self) -> Option<&ExpertSlots> {
        self.experts.as_ref()
    }

    /// What was asked for of experts so far, where they are kept one by one.
    pub(crate) fn expert_stats(&self) -> Option<SlotStats> {
        self.experts.as_ref().map(|experts| experts.slots().stats())
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    pub(crate) fn stats(&self) -> Option<StreamStats> {
        self.stream.as_ref().map(|s| s.stream.stats())
    }

    /// Waits until the tensors of a unit, by its number in the order of use, are in memory. They
    /// are until the next call.
    ///
    /// # Errors
    /// A failed read, or cancellation.
    pub(crate) fn enter(&self, unit: usize, is_cancelled: &dyn Fn() -> bool) -> Result<()> {
        let Some(s) = &self.stream else { return Ok(()) };
        s.stream.acquire(unit, is_cancelled).map_err(wait_failed)
    }

    /// Bytes of a table, where they are valid at any time.
    pub(crate) fn table(&self, t: &Tensor) -> Option<&[u8]> {
        let (_, storage) = self.stream.as_ref()?.tables.iter().find(|(shard, _)| *shard == t.shard)?;
        storage.bytes(t.offset..t.offset + t.n_bytes)
    }

    /// What of `parts` of the files, (shard, bytes), does not stream, with neighbours joined.
    pub(crate) fn staying(&self, parts: Vec<(usize, Range<u64>)>) -> Vec<(usize, Range<u64>)> {
        without(parts, &self.streamed)
    }

    /// Whether any bytes stream.
    pub(crate) fn is_streaming(&self) -> bool {
        self.stream.is_some() || self.experts.is_some()
    }

    /// Follows what others leave of the machine's memory, where memory can be given back.
    pub(crate) fn follow_memory(&self) {
        if let Some(experts) = &self.experts {
            experts.follow_memory();
        }
    }
}

/// The error of a wait for bytes.
pub(crate) fn wait_failed(e: StorageError) -> Error {
    match e {
        StorageError::Cancelled => Error::Cancelled,
        other => other.into(),
    }
}

/// What a user may want to know of who reads, and how.
fn note(ring_refusal: Option<&std::io::Error>, is_direct: bool) -> Option<String> {
    let ring = ring_refusal.map(|e| format!("io_uring is refused ({e}): several threads read"));
    let direct = "the file system refuses direct reads: reading through the page cache".to_owned();
    [ring, (!is_direct).then_some(direct)].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"))
}

/// Tokens of a prompt that may be computed together where experts are read for each chunk.
const WIDER_CHUNKS: [usize; 2] = [2048, 1024];

/// What memory beside the weights depends on.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    ctx_tokens: usize,
    chunk_tokens: Option<usize>,
    exact: bool,
    cache_type: CacheType,
    pub(crate) share: CpuShare,
}

impl Sizes {
    pub(crate) fn of(options: &LoadOptions, compiled: &Compiled, share: CpuShare) -> Sizes {
        let usual = || layout::usual_type(compiled.program.caches(), options.exact);
        Sizes {
            ctx_tokens: options.ctx_tokens.unwrap_or(compiled.spec.ctx_train),
            chunk_tokens: options.chunk_tokens,
            exact: options.exact,
            cache_type: options.cache_type.unwrap_or_else(usual),
            share,
        }
    }

    /// Keys and values of a full context, and the states of recurrences.
    pub(crate) fn kv_bytes(&self, program: &Program) -> u64 {
        let records = records::bytes(&program.records()[..self.share.n_records(program)]);
        layout::bytes(&program.caches()[..self.share.n_caches(program)], self.ctx_tokens, self.cache_type) + records
    }
}

/// What a plan for a model depends on here and now, and the parts of each unit that can stream.
fn plan_input(
    shards: &[Shard],
    compiled: &Compiled,
    budget: RamBudget,
    sizes: Sizes,
) -> (PlanInput, Vec<Vec<StreamedRange>>) {
    let units = units(compiled, sizes.share);
    let cols = |widest| scratch::session_cols(&compiled.program, sizes.ctx_tokens, sizes.chunk_tokens, widest);
    let scratch_bytes = |cols: usize| scratch::bytes(&compiled.program, cols, sizes.exact);
    // A GPU has buffers for the usual one.
    let wider = if sizes.share == CpuShare::all(&compiled.program) { &WIDER_CHUNKS[..] } else { &[] };
    let wider = wider.iter().map(|widest| cols(Some(*widest))).filter(|wider| *wider > cols(None));
    let runs: Vec<Vec<StreamedRange>> = units.iter().map(|unit| runs(shards, unit)).collect();
    let total = |tensors: &[Tensor]| tensors.iter().map(|t| t.n_bytes).sum::<u64>();
    let input = PlanInput {
        unit_bytes: units.iter().map(|unit| total(unit)).collect(),
        streamable_bytes: runs.iter().map(|runs| runs.iter().map(|r| r.bytes.end - r.bytes.start).sum()).collect(),
        kv_bytes: sizes.kv_bytes(&compiled.program),
        scratch_bytes: scratch_bytes(cols(None)),
        wider_chunks: wider.map(|cols| (cols, scratch_bytes(cols))).collect(),
        budget,
        left: match budget {
            RamBudget::Auto => modelembed_storage::process::memory_left(),
            _ => MemoryLeft::default(),
        },
        n_windows: N_WINDOWS,
        memory_bytes_per_second: None,
        experts: ExpertGroups::new(compiled, sizes.share).map(|groups| groups.sizes()),
    };
    (input, runs)
}

/// The plan that loading would make, without carrying it out.
pub(crate) fn plan(shards: &[Shard], compiled: &Compiled, budget: RamBudget, sizes: Sizes) -> Plan {
    Plan::new(&plan_input(shards, compiled, budget, sizes).0)
}

/// The tensors of each segment that is computed here. A norm behind a half of a layer is the next
/// one's: that is where its output joins the residual stream.
pub(crate) fn units(compiled: &Compiled, share: CpuShare) -> Vec<Vec<Tensor>> {
    let segments = share.segments(&compiled.program);
    segments.map(|segment| compiled.tensors.of(segment.tensors())).collect()
}

/// The parts of a unit that can stream: whole pages that hold nothing but its tensors, longest
/// parts first.
fn runs(shards: &[Shard], tensors: &[Tensor]) -> Vec<StreamedRange> {
    let mut tensors: Vec<&Tensor> = tensors.iter().collect();
    tensors.sort_by_key(|t| (t.shard, t.offset));
    let mut runs: Vec<StreamedRange> = Vec::new();
    for t in tensors {
        let bytes = t.offset..t.offset + t.n_bytes;
        // Less than the alignment is padding: another tensor, however small, would take as much.
        let padding = shards[t.shard].gguf.alignment();
        match runs.last_mut() {
            Some(last) if last.file == t.shard && t.offset < last.bytes.end + padding => {
                last.bytes.end = last.bytes.end.max(bytes.end);
            }
            _ => runs.push(StreamedRange { file: t.shard, bytes }),
        }
    }
    for run in &mut runs {
        run.bytes = Stream::align(&shards[run.file].storage, run.bytes.clone());
    }
    runs.retain(|r| !r.bytes.is_empty());
    runs.sort_by_key(|r| std::cmp::Reverse(r.bytes.end - r.bytes.start));
    runs
}

/// The first `n` bytes of some runs, from the end of each.
fn share(runs: Vec<StreamedRange>, mut n: u64) -> Vec<StreamedRange> {
    let mut out = Vec::new();
    for StreamedRange { file, bytes } in runs {
        let taken = n.min(bytes.end - bytes.start);
        if taken > 0 {
            out.push(StreamedRange { file, bytes: bytes.end - taken..bytes.end });
        }
        n -= taken;
    }
    out
}

/// `parts` without the bytes of `holes`, and with neighbours joined.
fn without(mut parts: Vec<(usize, Range<u64>)>, holes: &[StreamedRange]) -> Vec<(usize, Range<u64>)> {
    parts.sort_by_key(|(shard, range)| (*shard, range.start));
    let mut joined: Vec<(usize, Range<u64>)> = Vec::new();
    for (shard, range) in parts {
        match joined.last_mut() {
            Some((last, bytes)) if *last == shard && range.start < bytes.end + GAP_BYTES => {
                bytes.end = bytes.end.max(range.end);
            }
            _ => joined.push((shard, range)),
        }
    }
    for StreamedRange { file, bytes: hole } in holes {
        let is_cut = |(of, range): &(usize, Range<u64>)| of == file && hole.start < range.end && hole.end > range.start;
        let Some(at) = joined.iter().position(is_cut) else { continue };
        let cut = joined.iter().skip(at).take_while(|part| is_cut(part)).count();
        let rest = joined[at..at + cut].iter().flat_map(|(of, range)| {
            let (before, after) = (range.start..hole.start.max(range.start), hole.end.min(range.end)..range.end);
            [(*of, before), (*of, after)].into_iter().filter(|(_, range)| !range.is_empty())
        });
        let rest: Vec<_> = rest.collect();
        joined.splice(at..at + cut, rest);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_and_lose_what_streams() {
        type Ranges<'a> = &'a [(usize, Range<u64>)];
        let rows: [(Ranges<'_>, Ranges<'_>); 5] = [
            (&[], &[(0, 0..130), (1, 0..50)]),
            (&[(0, 20..40)], &[(0, 0..20), (0, 40..130), (1, 0..50)]),
            (&[(0, 0..130)], &[(1, 0..50)]),
            (&[(1, 30..50), (1, 0..10)], &[(0, 0..130), (1, 10..30)]),
            (&[(2, 0..99)], &[(0, 0..130), (1, 0..50)]),
        ];
        for (holes, wanted) in rows {
            let parts = vec![(1, 0..50), (0, 100..130), (0, 0..90)];
            let holes: Vec<_> =
                holes.iter().map(|(file, bytes)| StreamedRange { file: *file, bytes: bytes.clone() }).collect();
            assert_eq!(without(parts, &holes), wanted, "{holes:?}");
        }
    }
}
