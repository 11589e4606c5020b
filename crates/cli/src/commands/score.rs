//! `score`: how likely the model finds each token of a text.

use crate::interrupt::Interrupt;
use crate::progress::Waiting;
use crate::report;
use crate::resolve::Setting;
use crate::setup;
use crate::terminal::Answer;
use anyhow::{Result, ensure};
use modelembed::ContextNeed;
use modelembed::gguf::Gguf;
use modelembed::text::{TokenId, Tokenizer};
use serde_json::json;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

/// Prints a JSON object a token: `{"pos":..,"id":..,"logprob":..,"top1":..}`, with natural logarithms. The first token
/// follows nothing: its `logprob` and `top1` are null.
pub fn score(setting: &Setting, text: &[u8]) -> Result<ExitCode> {
    let notes = setting.notes();
    let interrupt = Interrupt::install();
    // The whole text at once, and nothing after it.
    let mut need = |_: &Gguf, tokenizer: &Tokenizer| {
        let n = tokenizer.encode(text, setup::WHOLE_TEXT).ok()?.len();
        Some(ContextNeed { ctx_tokens: n.max(1), chunk_tokens: n })
    };
    let model = setup::load_for(setting, &mut need, &interrupt)?;
    let ids = model.tokenizer().encode(text, setup::WHOLE_TEXT)?;
    setup::warn_of_doubled_tokens(model.tokenizer(), &ids, notes);
    ensure!(!ids.is_empty(), "the text is empty: there is nothing to score");
    let (n, ctx_tokens) = (ids.len(), setting.ctx_of(&model));
    ensure!(
        n <= ctx_tokens,
        "the text has {n} tokens, but the context holds {ctx_tokens}; {}",
        report::way_to_more(n, model.spec().ctx_train)
    );
    let need = ContextNeed { ctx_tokens: n, chunk_tokens: n };
    let progress = Arc::default();
    let mut session = setup::session(&model, setting, Some(need), &interrupt, Some(&progress))?;
    let mut out = Answer::new();
    // On a terminal the lines themselves show how far it is.
    let waiting = (!std::io::stdout().is_terminal()).then(|| Waiting::start(&model, &progress, notes));
    out.bytes(line(0, ids[0], None, None).as_bytes())?;
    let (mut failure, mut sum) = (None, 0.0);
    // The last token's own logits are about what follows the text.
    let evaluated = session.eval_each(&ids[..n - 1], |i, logits| {
        let next = ids[i + 1];
        let (logprob, top1) = judge(logits, next);
        sum += logprob;
        if failure.is_none() {
            failure = out.bytes(line(i + 1, next, Some(logprob), Some(top1)).as_bytes()).err();
        }
    });
    drop(waiting);
    if let Some(error) = failure {
        return Err(error.into());
    }
    out.flush()?;
    // What failed may have failed for it.
    setup::check_files(&model, notes).1?;
    evaluated?;
    if n > 1 {
        let mean = sum / (n - 1) as f64;
        notes.line(&format!("{n} tokens, mean log-probability {mean:.4}, perplexity {:.3}", (-mean).exp()));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(pos: usize, id: TokenId, logprob: Option<f64>, top1: Option<usize>) -> String {
    format!("{}\n", json!({"pos": pos, "id": id.0, "logprob": logprob, "top1": top1}))
}

/// The log-probability of `next` and the likeliest id (the first of equals): log-softmax in f64.
fn judge(logits: &[f32], next: TokenId) -> (f64, usize) {
    let (mut top1, mut max) = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > max {
            (top1, max) = (id, logit);
        }
    }
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    (f64::from(logits[next.0 as usize] - max) - sum.ln(), top1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judgement_is_a_log_softmax() {
        let (logprob, top1) = judge(&[0.0, 3f32.ln(), 3f32.ln(), 0.0], TokenId(2));
        assert!((logprob - (3.0f64 / 8.0).ln()).abs() < 1e-7, "{logprob}");
        assert_eq!(top1, 1);
        assert_eq!(judge(&[500.0, -500.0], TokenId(0)), (0.0, 0));
    }
}
