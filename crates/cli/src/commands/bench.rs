//! `bench`: how fast this machine runs a model.

use crate::interrupt::Interrupt;
use crate::report::{Pace, megabytes};
use crate::resolve::{Bench, Format, Setting};
use crate::setup;
use crate::terminal::Answer;
use anyhow::{Context, Result};
use modelembed::storage::process;
use modelembed::{Session, TokenId};
use serde_json::json;
use std::process::ExitCode;
use std::time::Instant;

/// Times of one run.
struct Lap {
    prompt_us: u64,
    decode_us: u64,
}

/// Evaluates a prompt and then single tokens, some times over, and prints the medians.
pub fn bench(setting: &Setting, bench: Bench) -> Result<ExitCode> {
    let notes = setting.notes();
    let interrupt = Interrupt::install();
    let model = setup::load(setting, &interrupt)?;
    let wanted = bench.prompt_tokens + bench.gen_tokens;
    let mut session = setup::session(&model, setting, setting.ctx_tokens.max(wanted), &interrupt)?;
    let tokens = tokens(wanted, model.n_vocab());
    let mut laps = Vec::with_capacity(bench.repeat);
    for i in 0..bench.repeat {
        let lap = lap(&mut session, &tokens, bench.prompt_tokens)?;
        notes.detail(&format!("run {}: prompt {} us, decode {} us", i + 1, lap.prompt_us, lap.decode_us));
        laps.push(lap);
    }
    let first_token_us = laps.first().map_or(0, |lap| lap.prompt_us);
    let prompt = Pace { tokens: bench.prompt_tokens, elapsed_us: median(laps.iter().map(|lap| lap.prompt_us)) };
    let decode = Pace { tokens: bench.gen_tokens, elapsed_us: median(laps.iter().map(|lap| lap.decode_us)) };
    let gb_per_second = decode.per_second() * model.bytes_per_token() as f64 / 1e9;
    let load_ms = model.load_stats().load_time.as_secs_f64() * 1e3;
    let private_bytes = process::snapshot().private_bytes;
    let text = match setting.format {
        Format::Json => {
            let object = json!({
                "model": setting.model.to_string_lossy(),
                "isa": model.kernels().isa().name(),
                "threads": model.threads(),
                "prompt_tokens": bench.prompt_tokens,
                "gen_tokens": bench.gen_tokens,
                "repeat": bench.repeat,
                "prompt_tokens_per_second": prompt.per_second(),
                "decode_tokens_per_second": decode.per_second(),
                "gb_per_second": gb_per_second,
                "load_ms": load_ms,
                "first_token_ms": first_token_us as f64 / 1e3,
                "private_bytes": private_bytes,
            });
            format!("{object}\n")
        }
        Format::Text => format!(
            "Prompt: {} tokens, {:.1} tokens/s\nDecode: {} tokens, {:.1} tokens/s, {gb_per_second:.2} GB/s\n\
             Load time: {load_ms:.1} ms\nTime to first token: {:.1} ms\nPrivate: {}\n({}, {} threads, median of {})\n",
            bench.prompt_tokens,
            prompt.per_second(),
            bench.gen_tokens,
            decode.per_second(),
            first_token_us as f64 / 1e3,
            private_bytes.map_or("unknown".to_string(), megabytes),
            model.kernels().isa().name(),
            model.threads(),
            bench.repeat,
        ),
    };
    Answer::new().piece(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn lap(session: &mut Session, tokens: &[TokenId], prompt_tokens: usize) -> Result<Lap> {
    session.truncate(0);
    let start = Instant::now();
    session.eval(&tokens[..prompt_tokens]).context("the prompt")?;
    let prompt_us = start.elapsed().as_micros() as u64;
    let start = Instant::now();
    for token in tokens[prompt_tokens..].chunks(1) {
        session.eval(token)?;
    }
    Ok(Lap { prompt_us, decode_us: start.elapsed().as_micros() as u64 })
}

/// Ids that look random, but are the same each time. What they say does not matter to speed.
fn tokens(n: usize, n_vocab: usize) -> Vec<TokenId> {
    let mut state = 42u64;
    let mut next = || {
        // Knuth's MMIX generator; its upper bits are the good ones.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        TokenId(((state >> 33) % n_vocab as u64) as u32)
    };
    (0..n).map(|_| next()).collect()
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
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
        let failed: Vec<_> = rows.iter().filter(|(values, wanted)| median(values.iter().copied()) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn tokens_stay_in_the_vocabulary() {
        assert!(tokens(1000, 7).iter().all(|id| id.0 < 7));
        assert_eq!(tokens(5, 100), tokens(5, 100));
    }
}
