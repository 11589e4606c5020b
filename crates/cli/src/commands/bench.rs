//! `bench`: how fast this machine runs a model, and how fast it could at best. `docs/benchmarks.md`
//! says what each figure means.

use super::ids::{read_ids, tokens, walk};
use crate::experts::ExpertReads;
use crate::interrupt::Interrupt;
use crate::report::{Pace, megabytes};
use crate::resolve::{Bench, Format, Setting};
use crate::setup;
use crate::terminal::Answer;
use anyhow::{Context, Result};
use modelembed::{Engine, Model, ReadBandwidth, Run, SequenceId, Session, SlotStats, TokenId, Wants};
use modelembed_storage::process;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Everything that was measured with one number of threads. Times in microseconds, one a run.
#[derive(Default)]
struct Figures {
    /// The tokens before everything else, once.
    depth_us: Option<u64>,
    prompt_us: Vec<u64>,
    decode_us: Vec<u64>,
    /// Length of a prompt, and the times to its first token.
    short_us: Vec<(usize, Vec<u64>)>,
    /// A prompt whose every token gets logits.
    scored_us: Vec<u64>,
    /// Number of sequences, and the times that all of them took to decode.
    sequences_us: Vec<(usize, Vec<u64>)>,
    /// From before loading to the logits of the first prompt, where nothing was evaluated in
    /// between.
    load_to_first_token_us: Option<u64>,
    private_bytes: Option<u64>,
    bandwidth: Option<ReadBandwidth>,
    experts: Option<ExpertReads>,
}

/// How long the disk is measured before and after, where experts are read from it.
const DISK_TIME: Duration = Duration::from_secs(2);

/// Evaluates prompts and single tokens, some times over, with each number of threads, and prints
/// the medians.
pub fn bench(setting: Setting, bench: &Bench) -> Result<ExitCode> {
    let interrupt = Interrupt::install();
    let mut setting = setting;
    let mut answer = Answer::new();
    for threads in &bench.threads {
        setting.threads = *threads;
        let start = Instant::now();
        let model = setup::load(&setting, &interrupt)?;
        let figures = measure(&setting, bench, &model, &interrupt, start)?;
        let text = match setting.format {
            Format::Json => format!("{}\n", json_of(&setting, bench, &model, &figures)),
            Format::Text => text_of(bench, &model, &figures),
        };
        answer.piece(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    setting: &Setting,
    bench: &Bench,
    model: &std::sync::Arc<Model>,
    interrupt: &Interrupt,
    start: Instant,
) -> Result<Figures> {
    let notes = setting.notes();
    let longest_short = bench.short_prompts.iter().copied().max().unwrap_or(0);
    // Decoding is measured behind one token at least.
    let wanted = bench.depth + bench.prompt_tokens.max(bench.gen_tokens + 1).max(longest_short);
    let ctx_tokens = Some(setting.ctx_of(model).max(wanted));
    let mut session = setup::session(model, &Setting { ctx_tokens, ..setting.clone() }, None, interrupt, None)?;
    let tokens = match &bench.ids {
        Some(path) => read_ids(path, wanted, model.n_vocab())?,
        None if model.plan().experts.is_some() => walk(wanted, model.n_vocab()),
        None => tokens(wanted, model.n_vocab()),
    };
    if let Some(path) = &bench.write_ids {
        let ids: Vec<String> = tokens.iter().map(|id| id.0.to_string()).collect();
        std::fs::write(path, ids.join("\n") + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (before, behind) = tokens.split_at(bench.depth);
    let mut figures = Figures::default();
    let disk_before = model.measure_expert_reads(DISK_TIME);
    let mut of_experts: Option<SlotStats> = None;
    if !before.is_empty() {
        figures.depth_us = Some(eval(&mut session, &[], before)?);
    }
    for i in 0..bench.repeat {
        if bench.prompt_tokens > 0 {
            let us = eval(&mut session, before, &behind[..bench.prompt_tokens])?;
            if i == 0 && before.is_empty() {
                figures.load_to_first_token_us = Some(start.elapsed().as_micros() as u64);
            }
            notes.detail(&format!("run {}: prompt {us} us", i + 1));
            figures.prompt_us.push(us);
        }
        if bench.gen_tokens > 0 {
            let from = model.expert_stats();
            let us = decode(&mut session, before, &behind[..=bench.gen_tokens])?;
            let since = model.expert_stats().zip(from).map(|(after, before)| after.since(&before));
            // As of one run: how the first one went depends on what was in memory before.
            of_experts = since.or(of_experts);
            notes.detail(&format!("run {}: decode {us} us", i + 1));
            figures.decode_us.push(us);
        }
    }
    for &n in &bench.short_prompts {
        let runs = (0..bench.repeat).map(|_| eval(&mut session, before, &behind[..n]));
        figures.short_us.push((n, runs.collect::<Result<_>>()?));
    }
    figures.private_bytes = process::snapshot().private_bytes;
    if !bench.sequences.is_empty() {
        measure_sequences(setting, bench, &mut session, &tokens, &mut figures, interrupt)?;
    }
    drop(session);
    if let (Some(stats), Some(us)) = (of_experts, figures.decode_us.last()) {
        let disk = disk_before.into_iter().chain(model.measure_expert_reads(DISK_TIME)).reduce(f64::max);
        let pace = Pace { tokens: bench.gen_tokens, elapsed_us: *us };
        figures.experts = ExpertReads::new(model, stats, disk, pace.per_second());
    }
    if bench.bandwidth {
        figures.bandwidth = ReadBandwidth::measure(model.threads());
    }
    Ok(figures)
}

/// Decodes several sequences at once, and for comparison evaluates a prompt whose every token gets
/// logits, as decoding does: in turns, so that what slows the machine for a while slows both.
fn measure_sequences(
    setting: &Setting,
    bench: &Bench,
    session: &mut Session,
    tokens: &[TokenId],
    figures: &mut Figures,
    interrupt: &Interrupt,
) -> Result<()> {
    let model = std::sync::Arc::clone(session.model());
    let most = bench.sequences.iter().copied().max().unwrap_or(1);
    let ctx_tokens = bench.depth + bench.gen_tokens + 1;
    let mut engine = setup::engine(&model, setting, most, ctx_tokens)?;
    let ids = (0..most).map(|_| engine.add()).collect::<Result<Vec<_>, _>>()?;
    figures.sequences_us = bench.sequences.iter().map(|&n| (n, Vec::new())).collect();
    let n_prompt = bench.prompt_tokens.min(tokens.len() - bench.depth);
    let before = &tokens[..bench.depth];
    let cancel = interrupt.flag();
    for _ in 0..bench.repeat {
        if n_prompt > 0 {
            go_back(session, before)?;
            let start = Instant::now();
            session.eval_each(&tokens[bench.depth..][..n_prompt], |_, _| {}).context("a prompt with all logits")?;
            figures.scored_us.push(start.elapsed().as_micros() as u64);
        }
        for (n, all_us) in &mut figures.sequences_us {
            all_us.push(decode_sequences(&mut engine, &ids[..*n], tokens, bench, &cancel)?);
        }
    }
    Ok(())
}

/// Microseconds that some sequences take for their tokens behind the first `depth` and one.
fn decode_sequences(
    engine: &mut Engine,
    ids: &[SequenceId],
    tokens: &[TokenId],
    bench: &Bench,
    cancel: &AtomicBool,
) -> Result<u64> {
    // Each sequence has words of its own.
    let word = |sequence: usize, i: usize| tokens[(31 * sequence + i) % tokens.len()];
    for (n, &id) in ids.iter().enumerate() {
        engine.truncate(id, 0)?;
        let first: Vec<TokenId> = (0..=bench.depth).map(|i| word(n, i)).collect();
        engine.step(&[Run { cancel: Some(cancel), ..Run::new(id, &first).wants(Wants::Nothing) }], &mut |_| {})?;
    }
    let start = Instant::now();
    for i in 1..=bench.gen_tokens {
        let words: Vec<TokenId> = (0..ids.len()).map(|n| word(n, bench.depth + i)).collect();
        let runs: Vec<_> = ids
            .iter()
            .zip(words.chunks(1))
            .map(|(&id, word)| Run { cancel: Some(cancel), ..Run::new(id, word) })
            .collect();
        engine.step(&runs, &mut |_| {})?;
    }
    Ok(start.elapsed().as_micros() as u64)
}

/// Takes a session back to the tokens `before`, which are evaluated again where it forgot what they
/// need.
fn go_back(session: &mut Session, before: &[TokenId]) -> Result<()> {
    if session.can_return(before.len()) {
        return Ok(session.truncate(before.len())?);
    }
    session.clear();
    session.eval(before).context("the tokens before, again")?;
    Ok(())
}

/// Microseconds that a prompt behind the tokens `before` takes to its logits.
fn eval(session: &mut Session, before: &[TokenId], prompt: &[TokenId]) -> Result<u64> {
    go_back(session, before)?;
    let start = Instant::now();
    session.eval(prompt).context("the prompt")?;
    Ok(start.elapsed().as_micros() as u64)
}

/// Microseconds that all tokens but the first take, one by one.
fn decode(session: &mut Session, before: &[TokenId], tokens: &[TokenId]) -> Result<u64> {
    go_back(session, before)?;
    let mut tokens = tokens.chunks(1);
    tokens.next().map(|first| session.eval(first)).transpose()?;
    let start = Instant::now();
    for token in tokens {
        session.eval(token)?;
    }
    Ok(start.elapsed().as_micros() as u64)
}

impl Figures {
    /// Medians: prompt, then decode; `None` for what was left out.
    fn paces(&self, bench: &Bench) -> [Option<Pace>; 2] {
        let pace = |tokens, us: &[u64]| (!us.is_empty()).then(|| Pace { tokens, elapsed_us: median(us) });
        [pace(bench.prompt_tokens, &self.prompt_us), pace(bench.gen_tokens, &self.decode_us)]
    }

    /// The prompt whose every token gets logits.
    fn scored(&self, bench: &Bench) -> Option<Pace> {
        let us = &self.scored_us;
        (!us.is_empty()).then(|| Pace { tokens: bench.prompt_tokens, elapsed_us: median(us) })
    }

    /// All tokens of `n` sequences.
    fn decoded(&self, bench: &Bench, n: usize, us: &[u64]) -> Pace {
        Pace { tokens: n * bench.gen_tokens, elapsed_us: median(us) }
    }

    /// Bytes of weights that decoding reads a second, in GB; the key-value cache comes on top.
    fn gb_per_second(&self, bench: &Bench, model: &Model) -> Option<f64> {
        let [_, decode] = self.paces(bench);
        decode.map(|pace| pace.per_second() * model.bytes_per_token() as f64 / 1e9)
    }

    /// The part of the machine's read bandwidth that decoding reaches. More than 1 where weights
    /// stay in a cache.
    fn bandwidth_share(&self, bench: &Bench, model: &Model) -> Option<f64> {
        Some(self.gb_per_second(bench, model)? * 1e9 / self.bandwidth?.bytes_per_second)
    }
}

fn json_of(setting: &Setting, bench: &Bench, model: &Model, figures: &Figures) -> Value {
    let [prompt, decode] = figures.paces(bench);
    let ms = |us: Option<u64>| us.map(|us| us as f64 / 1e3);
    let of_sequences = |(n, us): &(usize, Vec<u64>)| json!({ "sequences": n, "decode_tokens_per_second": figures.decoded(bench, *n, us).per_second(), "us": us });
    let short = |(n, us): &(usize, Vec<u64>)| json!({ "tokens": n, "first_token_ms": ms(Some(median(us))), "us": us });
    json!({
        "model": setting.model.to_string_lossy(),
        "version": env!("CARGO_PKG_VERSION"),
        "isa": model.kernels().isa().name(),
        "threads": model.threads(),
        "prompt_tokens": bench.prompt_tokens,
        "gen_tokens": bench.gen_tokens,
        "depth": bench.depth,
        "repeat": bench.repeat,
        "prompt_tokens_per_second": prompt.map(|pace| pace.per_second()),
        "decode_tokens_per_second": decode.map(|pace| pace.per_second()),
        "depth_us": figures.depth_us,
        "prompt_us": figures.prompt_us,
        "decode_us": figures.decode_us,
        "short_prompts": figures.short_us.iter().map(short).collect::<Vec<_>>(),
        "scored_tokens_per_second": figures.scored(bench).map(|pace| pace.per_second()),
        "scored_us": figures.scored_us,
        "sequences": figures.sequences_us.iter().map(of_sequences).collect::<Vec<_>>(),
        "bytes_per_token": model.bytes_per_token(),
        "gb_per_second": figures.gb_per_second(bench, model),
        "read_gb_per_second": figures.bandwidth.map(|found| found.bytes_per_second / 1e9),
        "bandwidth_share": figures.bandwidth_share(bench, model),
        "experts": figures.experts.as_ref().map(ExpertReads::json),
        "load_ms": model.load_stats().load_time.as_secs_f64() * 1e3,
        "first_token_ms": ms(figures.prompt_us.first().copied()),
        "load_to_first_token_ms": ms(figures.load_to_first_token_us),
        "private_bytes": figures.private_bytes,
    })
}

fn text_of(bench: &Bench, model: &Model, figures: &Figures) -> String {
    let mut out = String::new();
    let [prompt, decode] = figures.paces(bench);
    let behind = if bench.depth > 0 { format!(" behind {}", bench.depth) } else { String::new() };
    if let Some(pace) = prompt {
        let _ = writeln!(out, "Prompt: {} tokens{behind}, {:.1} tokens/s", pace.tokens, pace.per_second());
    }
    if let (Some(pace), Some(gb)) = (decode, figures.gb_per_second(bench, model)) {
        let _ = write!(out, "Decode: {} tokens{behind}, {:.1} tokens/s, {gb:.2} GB/s", pace.tokens, pace.per_second());
        if let (Some(found), Some(share)) = (figures.bandwidth, figures.bandwidth_share(bench, model)) {
            let _ = write!(out, ", {:.0}% of the {:.2} GB/s", share * 100.0, found.bytes_per_second / 1e9);
            let _ = write!(out, " that the machine reads");
        }
        out.push('\n');
    }
    for (n, us) in &figures.short_us {
        let _ = writeln!(out, "Time to first token of {n} tokens{behind}: {:.2} ms", median(us) as f64 / 1e3);
    }
    if let Some(pace) = figures.scored(bench) {
        let (n, speed) = (pace.tokens, pace.per_second());
        let _ = writeln!(out, "Prompt with all logits: {n} tokens{behind}, {speed:.1} tokens/s");
    }
    for (n, us) in &figures.sequences_us {
        let speed = figures.decoded(bench, *n, us).per_second();
        let of_scored = figures.scored(bench).map_or(String::new(), |pace| {
            format!(", {:.0}% of a prompt with all logits", 100.0 * speed / pace.per_second())
        });
        let _ = writeln!(out, "Decode of {n} sequences{behind}: {speed:.1} tokens/s in all{of_scored}");
    }
    if let Some(experts) = &figures.experts {
        let _ = writeln!(out, "Experts, last run: {}", experts.text());
        if let Some([both, one]) = experts.bounds() {
            let (both, one, share) = (both.tokens_per_second, one.tokens_per_second, 100.0 * one.share);
            let _ =
                writeln!(out, "At most {both:.1} tokens/s; {one:.1} if nothing was read ahead ({share:.0}% of that)");
        }
    }
    let _ = writeln!(out, "Load time: {:.1} ms", model.load_stats().load_time.as_secs_f64() * 1e3);
    if let Some(us) = figures.prompt_us.first() {
        let _ = writeln!(out, "Time to first token: {:.1} ms", *us as f64 / 1e3);
    }
    let private = figures.private_bytes.map_or("unknown".to_string(), megabytes);
    let (isa, threads) = (model.kernels().isa().name(), model.threads());
    let _ = writeln!(out, "Private: {private}\n({isa}, {threads} threads, median of {})", bench.repeat);
    out
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    let middle = values.len() / 2;
    match values.len() {
        0 => 0,
        n if n % 2 == 1 => values[middle],
        _ => values[middle - 1].midpoint(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let rows: [(&[u64], u64); 4] = [(&[], 0), (&[7], 7), (&[9, 1, 5], 5), (&[4, 1, 3, 2], 2)];
        let failed: Vec<_> = rows.iter().filter(|(values, wanted)| median(values) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
