//! Collects what the statistics show.

use crate::experts::ExpertReads;
use crate::report::{Pace, Statistics, Streamed};
use modelembed::{GenerateStats, Model, Verdict};
use modelembed_storage::{CountingAllocator, process};

/// Speeds of one or more answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Speed {
    prompt: Pace,
    decode: Pace,
    /// Evaluations while decoding.
    decode_steps: usize,
    draft_tokens: usize,
    accepted_tokens: usize,
    /// Of the first answer.
    first_token_us: Option<u64>,
}

impl Speed {
    /// Adds an answer.
    pub fn add(&mut self, stats: &GenerateStats) {
        let us = |time: std::time::Duration| time.as_micros() as u64;
        self.prompt.tokens += stats.prompt_tokens;
        self.prompt.elapsed_us += us(stats.prompt_time);
        self.decode.tokens += stats.decoded_tokens;
        self.decode_steps += stats.decode_steps;
        self.draft_tokens += stats.draft_tokens;
        self.accepted_tokens += stats.accepted_tokens;
        self.decode.elapsed_us += us(stats.decode_time);
        if stats.generated_tokens > 0 {
            self.first_token_us.get_or_insert(us(stats.first_token_time));
        }
    }
}

/// The figures now.
pub fn statistics(model: &Model, speed: &Speed) -> Statistics {
    let (process, system_bytes) = process_figures(model);
    Statistics {
        allocated_bytes: CountingAllocator::allocated_bytes(),
        total_bytes: CountingAllocator::total_bytes(),
        system_bytes,
        minor_faults: process.minor_faults,
        major_faults: process.major_faults,
        resident_bytes: model.resident_bytes(),
        model_bytes: model.n_bytes(),
        private_bytes: process.private_bytes,
        shared_bytes: process.shared_bytes,
        load_us: model.load_stats().load_time.as_micros() as u64,
        first_token_us: speed.first_token_us,
        prompt: speed.prompt,
        decode: speed.decode,
        decode_steps: speed.decode_steps,
        draft_tokens: speed.draft_tokens,
        accepted_tokens: speed.accepted_tokens,
        bytes_per_token: model.bytes_per_token(),
        process_resident_bytes: process.resident_bytes,
        locked: model.load_stats().locked.clone(),
        plan: (model.plan().verdict != Verdict::Unplanned).then(|| model.plan().to_string()),
        streamed: model.stream_stats().map(|stats| Streamed {
            bytes_per_token: model.plan().streamed_per_token(),
            read_bytes: stats.read_bytes,
            read_us: stats.read_time.as_micros() as u64,
            stalls: stats.stalls,
            stall_us: stats.stall_time.as_micros() as u64,
            is_direct: stats.is_direct,
            reader: stats.reader.name(),
        }),
        experts: model.expert_stats().and_then(|stats| {
            ExpertReads::new(model, stats, model.plan().disk_bytes_per_second, speed.decode.per_second())
        }),
        timing: None,
    }
}

/// The process's figures, and its resident set without the pages of the map: those are the page
/// cache's, not ours.
fn process_figures(model: &Model) -> (process::Snapshot, Option<u64>) {
    let mapped = || -> u64 { model.storages().filter_map(|storage| storage.mapped_resident_bytes()).sum() };
    let (mut before, mut figures) = (mapped(), process::snapshot());
    // The prefetching thread may map more between two readings. It ends soon; then they agree.
    for _ in 0..20 {
        let after = mapped();
        if before == after {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
        (before, figures) = (mapped(), process::snapshot());
    }
    let private = figures.private_bytes.unwrap_or(0);
    (figures, figures.resident_bytes.map(|bytes| bytes.saturating_sub(before).max(private)))
}
