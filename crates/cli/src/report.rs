//! The banner before and the statistics after an answer.

use crate::experts::ExpertReads;
use crate::resolve::Mode;
use modelembed::{Error, GpuLayers, GpuPlacement, LockStats, Model};
use modelembed_gguf::shown_path;
use modelembed_packed::PackedError;
use modelembed_storage::{Change, StorageError};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Bytes in what the banner and statistics call MB.
const MB: f64 = 1024.0 * 1024.0;

impl Mode {
    /// In the banner.
    fn words(self) -> &'static str {
        match self {
            Mode::Map => "Memory-mapped file (efficient, no size limit)",
            Mode::Buffer => "Memory buffer (whole file in private memory)",
            Mode::File => "Standard file loading (tensor by tensor)",
        }
    }

    /// While it loads.
    pub fn loading(self) -> &'static str {
        match self {
            Mode::Map => "Loading model using memory-mapped file...",
            Mode::Buffer => "Loading model into memory buffer...",
            Mode::File => "Loading model using standard file loading...",
        }
    }
}

/// As -ngl takes it.
pub fn layers(gpu_layers: GpuLayers) -> String {
    match gpu_layers {
        GpuLayers::Count(n) => n.to_string(),
        GpuLayers::All => "all".to_string(),
        GpuLayers::Auto => "auto".to_string(),
    }
}

/// What is printed before the model is loaded.
pub fn banner(model: &Path, ctx_tokens: Option<usize>, gpu_layers: GpuLayers, mode: Mode) -> String {
    let ctx_tokens = ctx_tokens.map_or("the model's own".to_string(), |n| n.to_string());
    let gpu_layers = layers(gpu_layers);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "=== Memory Loading Example ===\n\
         System: {}/{}\n\
         CPU cores: {cores}\n\
         modelembed version: {} (rustc {})\n\
         \n\
         Configuration:\n\
         \x20 Model: {}\n\
         \x20 Context size: {ctx_tokens}\n\
         \x20 GPU layers: {gpu_layers}\n\
         \x20 Mode: {}\n\
         \n\
         {}",
        std::env::consts::OS,
        std::env::consts::ARCH,
        env!("CARGO_PKG_VERSION"),
        env!("MODELEMBED_RUSTC_VERSION"),
        shown_path(model),
        mode.words(),
        mode.loading(),
    )
}

/// What a GPU computes of a model, and what is left to the CPU: the weights that a token reads, and
/// the token embedding, of which it reads a row. That one never leaves the CPU: a tied head on the
/// GPU is a copy.
pub fn placed(gpu: &GpuPlacement, model: &Model) -> String {
    let head = if gpu.has_head { " and the output head" } else { "" };
    let embedding = match model.has_tied_head() && !gpu.has_head {
        true => String::new(), // It is the head, which the bytes of a token hold.
        false => format!(" and the token embedding's {}", megabytes(model.embedding_bytes())),
    };
    format!(
        "✓ GPU layers: {} of {}{head} on {} ({}), {}; on the CPU {}{embedding}",
        gpu.n_layers,
        model.spec().n_layer(),
        gpu.adapter,
        gpu.backend,
        megabytes(gpu.weight_bytes),
        megabytes(model.bytes_per_token().saturating_sub(gpu.weight_bytes)),
    )
}

/// What is printed once the model is there.
pub fn loaded(mode: Mode, address: Option<usize>, len_bytes: u64) -> String {
    let place = match (mode, address) {
        (Mode::Map, Some(address)) => format!("✓ Model mapped at address: {address:#x}"),
        (Mode::Buffer, Some(address)) => format!("✓ Model read into a buffer at address: {address:#x}"),
        _ => "✓ Model read tensor by tensor".to_string(),
    };
    format!(
        "{place}\n✓ Model size: {}\n\nModel loaded successfully!\n===============================\n",
        megabytes(len_bytes)
    )
}

/// What became of a mapped file, and what that means for the answers.
pub fn changed(path: &Path, change: Change) -> String {
    let path = shown_path(path);
    match change {
        Change::CutShort => format!(
            "{path} was cut short by another program since it was mapped: this one ends when it needs what is gone; start again"
        ),
        Change::Replaced => format!(
            "{path} is another file since it was mapped: answers come from the one that was there before; start again to use the new one"
        ),
        Change::Removed => {
            format!(
                "{path} was removed or renamed since it was mapped: answers come from it for as long as this program runs"
            )
        }
        // Whatever else there may be: the bytes are not those that were checked.
        _ => format!(
            "{path} was written to by another program since it was mapped: answers may come from mixed weights; start again"
        ),
    }
}

/// Whether answers may be made of other bytes than those that were checked: not so where a file
/// only lost its name.
pub fn spoils(change: Change) -> bool {
    !matches!(change, Change::Replaced | Change::Removed)
}

/// The same for programs.
pub fn change_name(change: Change) -> &'static str {
    match change {
        Change::CutShort => "cut short",
        Change::Replaced => "replaced",
        Change::Removed => "removed",
        _ => "rewritten",
    }
}

/// What this program has to offer where the library's message can name no command and no option:
/// what is to follow that message.
fn way_out(error: &Error) -> &'static str {
    match error {
        Error::NoLogitIsANumber { .. } => "; `modelembed verify` looks for them",
        Error::Storage(error) => way_out_of_storage(error),
        Error::Packed { source, .. } => way_out_of_packed(source),
        _ => "",
    }
}

fn way_out_of_storage(error: &StorageError) -> &'static str {
    match error {
        StorageError::NotFound { .. } => "\n  check the path, or name another file with -model",
        StorageError::MapFailed { .. } => "\n  try -mmap=false, which reads the file instead",
        StorageError::OutOfMemory { .. } | StorageError::CopyRefused { .. } => "\n  try -mmap, which needs no copy",
        _ => "",
    }
}

fn way_out_of_packed(error: &PackedError) -> &'static str {
    match error {
        PackedError::Exists { .. } => "; -force replaces it",
        _ => "",
    }
}

/// The same for whatever ended the program.
pub fn way_out_of_any(error: &anyhow::Error) -> &'static str {
    let of_any = error.downcast_ref().map(way_out);
    let of_storage = || error.downcast_ref().map(way_out_of_storage);
    let of_packed = || error.downcast_ref().map(way_out_of_packed);
    of_any.or_else(of_storage).or_else(of_packed).unwrap_or_default()
}

/// An error of a run or a turn, and what to do about it.
pub fn explained(error: &Error, model: &Model) -> String {
    let more = |wanted: usize| way_to_more(wanted, model.spec().ctx_train);
    match (error, way_out(error)) {
        (&Error::ContextFull { used: 0, wanted, capacity }, _) => {
            format!("the prompt has {wanted} tokens, but the context holds {capacity}; {}", more(wanted))
        }
        (&Error::ContextFull { used, wanted, .. }, _) => format!("{error}; {}", more(used.saturating_add(wanted))),
        (_, way_out) => format!("{error}{way_out}"),
    }
}

/// How a context comes to hold as many tokens.
pub fn way_to_more(wanted_tokens: usize, trained_tokens: usize) -> String {
    let trained = format!("the model was trained for {trained_tokens}");
    match wanted_tokens < trained_tokens {
        true => format!("{trained}: -ctx N makes the context larger, -ctx 0 as large as that"),
        false => {
            format!("{trained}, and -ctx N goes beyond that at the price of worse answers: a shorter text is better")
        }
    }
}

/// Under the prompt.
pub const RULE: &str = "-------------------------------";

/// `637.54 MB`
pub fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / MB)
}

/// Tokens processed in some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    pub tokens: usize,
    pub elapsed_us: u64,
}

impl Pace {
    /// Tokens a second; 0 if nothing was measured.
    pub fn per_second(self) -> f64 {
        if self.elapsed_us == 0 { 0.0 } else { self.tokens as f64 * 1e6 / self.elapsed_us as f64 }
    }
}

/// Everything that is measured in a run. All of it comes from the counting allocator, the OS or a
/// clock.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    /// Heap and anonymous buffers in use.
    pub allocated_bytes: u64,
    /// Heap and buffers ever asked for.
    pub total_bytes: u64,
    /// Resident set of the process without the model's mapped pages.
    pub system_bytes: Option<u64>,
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
    /// Bytes of the model in memory, as far as the OS tells.
    pub resident_bytes: Option<u64>,
    pub model_bytes: u64,
    /// Memory that only this process uses.
    pub private_bytes: Option<u64>,
    /// Resident pages of files: the mapped model's and the program's.
    pub shared_bytes: Option<u64>,
    pub load_us: u64,
    pub first_token_us: Option<u64>,
    pub prompt: Pace,
    pub decode: Pace,
    /// Evaluations while decoding: fewer than tokens where guesses came true.
    pub decode_steps: usize,
    pub draft_tokens: usize,
    pub accepted_tokens: usize,
    /// Bytes of weights that an evaluation reads.
    pub bytes_per_token: u64,
    /// All resident pages of the process.
    pub process_resident_bytes: Option<u64>,
    /// What of the weights is locked in memory, if that was asked for.
    pub locked: Option<LockStats>,
    /// The plan's line, where there is a plan.
    pub plan: Option<String>,
    /// What was read from the disk while computing, where the model does not fit.
    pub streamed: Option<Streamed>,
    /// How experts were had, where they do not all fit.
    pub experts: Option<ExpertReads>,
    /// Where the time went, if that was asked for.
    pub timing: Option<modelembed::Timing>,
}

/// What streaming did.
#[derive(Debug, Clone, Copy)]
pub struct Streamed {
    /// As planned.
    pub bytes_per_token: u64,
    pub read_bytes: u64,
    /// Time in which reads were under way.
    pub read_us: u64,
    /// How often a layer waited for its weights.
    pub stalls: u64,
    pub stall_us: u64,
    /// Past the page cache.
    pub is_direct: bool,
    /// Who reads.
    pub reader: &'static str,
}

impl Statistics {
    /// Weight bytes read a second while decoding, in units of 10^9.
    pub fn gb_per_second(&self) -> f64 {
        let steps = Pace { tokens: self.decode_steps, ..self.decode };
        steps.per_second() * self.bytes_per_token as f64 / 1e9
    }

    /// The lines after an answer.
    pub fn text(&self) -> String {
        let mut out = String::from("Memory Statistics:\n");
        let mut line = |label: &str, value: String| {
            let _ = writeln!(out, "  {label}: {value}");
        };
        line("Allocated", megabytes(self.allocated_bytes));
        line("Total", megabytes(self.total_bytes));
        if let Some(bytes) = self.system_bytes {
            line("System", megabytes(bytes));
        }
        if let (Some(minor), Some(major)) = (self.minor_faults, self.major_faults) {
            line("Page faults", format!("{minor} minor, {major} major"));
        }
        if let Some(bytes) = self.resident_bytes {
            let share = 100.0 * bytes as f64 / self.model_bytes.max(1) as f64;
            line(
                "Resident",
                format!("{} of {} of the model ({share:.0}%)", megabytes(bytes), megabytes(self.model_bytes)),
            );
        }
        if let Some(bytes) = self.private_bytes {
            line("Private", megabytes(bytes));
        }
        if let Some(lock) = &self.locked {
            let reason = lock.reason.as_ref().map_or(String::new(), |reason| format!("; {reason}"));
            let (locked, wanted) = (megabytes(lock.locked_bytes), megabytes(lock.wanted_bytes));
            line("Locked", format!("{locked} of {wanted} of weights{reason}"));
        }
        line("Load time", milliseconds(self.load_us));
        if let Some(elapsed_us) = self.first_token_us {
            line("Time to first token", milliseconds(elapsed_us));
        }
        if self.prompt.tokens > 0 {
            line("Prompt", format!("{} tokens, {:.1} tokens/s", self.prompt.tokens, self.prompt.per_second()));
        }
        if self.decode.tokens > 0 {
            let pace = self.decode.per_second();
            line(
                "Decode",
                format!("{} tokens, {pace:.1} tokens/s, {:.2} GB/s", self.decode.tokens, self.gb_per_second()),
            );
        }
        if let Some(s) = self.streamed {
            let way = if s.is_direct { "past" } else { "through" };
            line(
                "Streamed",
                format!(
                    "{}, {} a token, read at {}/s by {} {way} the page cache; {} stalls of {} together",
                    megabytes(s.read_bytes),
                    megabytes(s.bytes_per_token),
                    megabytes((s.read_bytes as f64 * 1e6 / s.read_us.max(1) as f64) as u64),
                    s.reader,
                    s.stalls,
                    milliseconds(s.stall_us)
                ),
            );
        }
        if let Some(experts) = &self.experts {
            line("Experts", experts.text());
        }
        if self.draft_tokens > 0 {
            let share = 100.0 * self.accepted_tokens as f64 / self.draft_tokens as f64;
            line(
                "Lookup",
                format!("{} of {} guesses came true ({share:.0}%)", self.accepted_tokens, self.draft_tokens),
            );
        }
        if let Some(timing) = &self.timing {
            out.push_str(&crate::timing::text(timing));
        }
        out
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        json!({
            "allocated_bytes": self.allocated_bytes,
            "total_bytes": self.total_bytes,
            "system_bytes": self.system_bytes,
            "minor_faults": self.minor_faults,
            "major_faults": self.major_faults,
            "resident_bytes": self.resident_bytes,
            "model_bytes": self.model_bytes,
            "private_bytes": self.private_bytes,
            "shared_bytes": self.shared_bytes,
            "load_ms": self.load_us as f64 / 1e3,
            "first_token_ms": self.first_token_us.map(|us| us as f64 / 1e3),
            "prompt_tokens": self.prompt.tokens,
            "prompt_tokens_per_second": self.prompt.per_second(),
            "decode_tokens": self.decode.tokens,
            "decode_tokens_per_second": self.decode.per_second(),
            "gb_per_second": self.gb_per_second(),
            "process_resident_bytes": self.process_resident_bytes,
            "locked": self.locked.as_ref().map(|lock| json!({
                "bytes": lock.locked_bytes,
                "wanted_bytes": lock.wanted_bytes,
                "reason": lock.reason,
            })),
            "plan": self.plan,
            "streamed": self.streamed.map(|s| json!({
                "bytes_per_token": s.bytes_per_token,
                "read_bytes": s.read_bytes,
                "read_ms": s.read_us as f64 / 1e3,
                "stalls": s.stalls,
                "stall_ms": s.stall_us as f64 / 1e3,
                "direct": s.is_direct,
                "reader": s.reader,
            })),
            "experts": self.experts.as_ref().map(ExpertReads::json),
            "lookup_guessed_tokens": self.draft_tokens,
            "lookup_accepted_tokens": self.accepted_tokens,
            "timing": self.timing.as_ref().map(crate::timing::json),
        })
    }
}

fn milliseconds(elapsed_us: u64) -> String {
    if elapsed_us < 10_000_000 {
        format!("{:.1} ms", elapsed_us as f64 / 1e3)
    } else {
        format!("{:.1} s", elapsed_us as f64 / 1e6)
    }
}

/// JSON in which DEL, the C1 controls and what turns the direction of text around are escaped, too:
/// JSON lets them stand, and terminals obey some of them.
pub fn without_controls(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out += &format!("\\u{:04x}", u32::from(c))
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_what_will_be_done() {
        let text = banner("models/x.gguf".as_ref(), Some(2048), GpuLayers::Count(0), Mode::Map);
        for line in [
            "=== Memory Loading Example ===",
            "System: ",
            "CPU cores: ",
            "modelembed version: 0.",
            "  Model: models/x.gguf\n  Context size: 2048\n  GPU layers: 0\n  Mode: Memory-mapped file (efficient, no size limit)\n",
            "\nLoading model using memory-mapped file...",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        let text = loaded(Mode::Map, Some(0x12a000000), 668_509_143);
        assert!(
            text.starts_with("✓ Model mapped at address: 0x12a000000\n✓ Model size: 637.54 MB\n\nModel loaded"),
            "{text}"
        );
    }

    #[test]
    fn statistics_print_what_was_measured_and_nothing_else() {
        let all = Statistics {
            allocated_bytes: 13_054_771,
            total_bytes: 15_969_812,
            system_bytes: Some(51_045_728),
            minor_faults: Some(12),
            major_faults: Some(3),
            resident_bytes: Some(1 << 20),
            model_bytes: 4 << 20,
            private_bytes: Some(2 << 20),
            shared_bytes: None,
            load_us: 1_500,
            first_token_us: Some(12_345_678),
            prompt: Pace { tokens: 10, elapsed_us: 100_000 },
            decode: Pace { tokens: 5, elapsed_us: 500_000 },
            decode_steps: 5,
            draft_tokens: 0,
            accepted_tokens: 0,
            bytes_per_token: 100_000_000,
            process_resident_bytes: Some(4),
            locked: Some(LockStats {
                locked_bytes: 1 << 20,
                wanted_bytes: 3 << 20,
                reason: Some("the limit allows 9 bytes".into()),
            }),
            plan: Some("streams".to_string()),
            streamed: Some(Streamed {
                bytes_per_token: 10 << 20,
                read_bytes: 90 << 20,
                read_us: 500_000,
                stalls: 7,
                stall_us: 250_000,
                is_direct: true,
                reader: "threads",
            }),
            experts: None,
            timing: None,
        };
        assert_eq!(
            all.text(),
            "Memory Statistics:\n  Allocated: 12.45 MB\n  Total: 15.23 MB\n  System: 48.68 MB\n  Page faults: 12 minor, 3 major\n  \
             Resident: 1.00 MB of 4.00 MB of the model (25%)\n  Private: 2.00 MB\n  \
             Locked: 1.00 MB of 3.00 MB of weights; the limit allows 9 bytes\n  Load time: 1.5 ms\n  \
             Time to first token: 12.3 s\n  Prompt: 10 tokens, 100.0 tokens/s\n  Decode: 5 tokens, 10.0 tokens/s, 1.00 GB/s\n  \
             Streamed: 90.00 MB, 10.00 MB a token, read at 180.00 MB/s by threads past the page cache; 7 stalls of 250.0 ms together\n"
        );
        let none = Statistics::default().text();
        assert!(!none.contains("System") && !none.contains("Decode") && !none.contains("first token"), "{none}");
        assert_eq!(none.matches("NaN").count(), 0);
    }
}
