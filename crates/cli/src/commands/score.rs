//! `score`: how likely the model finds each token of a text.

use crate::interrupt::Interrupt;
use crate::npy::NpyFile;
use crate::progress::Waiting;
use crate::report;
use crate::resolve::{Scored, Setting};
use crate::setup;
use crate::terminal::Answer;
use anyhow::{Context, Result, ensure};
use modelembed::{ContextNeed, Error};
use modelembed_gguf::Gguf;
use modelembed_text::{TokenId, Tokenizer};
use serde_json::json;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Prints a JSON object a token: `{"pos":..,"id":..,"logprob":..,"top1":..}`, with natural
/// logarithms. The first token follows nothing: its `logprob` and `top1` are null. All logits go to
/// the file `all`, if there is one: (n_tokens, n_vocab), row i about what follows token i.
pub fn score(setting: &Setting, input: &Scored, all: Option<&Path>) -> Result<ExitCode> {
    let notes = setting.notes();
    let interrupt = Interrupt::install();
    // The whole text at once, and nothing after it.
    let mut need = |_: &Gguf, tokenizer: &Tokenizer| {
        let n = match input {
            Scored::Text(text) => tokenizer.encode(text, setup::WHOLE_TEXT).ok()?.len(),
            Scored::Ids(ids) => ids.len(),
        };
        Some(ContextNeed { ctx_tokens: n.max(1), chunk_tokens: n })
    };
    let model = setup::load_for(setting, &mut need, &interrupt)?;
    let ids = match input {
        Scored::Text(text) => model.tokenizer().encode(text, setup::WHOLE_TEXT)?,
        Scored::Ids(ids) => ids.clone(),
    };
    setup::warn_of_doubled_tokens(model.tokenizer(), &ids, notes);
    ensure!(!ids.is_empty(), "the text is empty: there is nothing to score");
    let (n, n_vocab, ctx_tokens) = (ids.len(), model.n_vocab(), setting.ctx_of(&model));
    if let Some(id) = ids.iter().find(|id| id.0 as usize >= n_vocab) {
        return Err(Error::TokenOutOfRange { id: id.0, n_vocab }.into());
    }
    ensure!(
        n <= ctx_tokens,
        "the text has {n} tokens, but the context holds {ctx_tokens}; {}",
        report::way_to_more(n, model.spec().ctx_train)
    );
    let need = ContextNeed { ctx_tokens: n, chunk_tokens: n };
    let progress = Arc::default();
    let mut session = setup::session(&model, setting, Some(need), &interrupt, Some(&progress))?;
    let mut file = all.map(|path| NpyFile::create(path, n, n_vocab)).transpose()?;
    let mut out = Answer::new();
    // On a terminal the lines themselves show how far it is.
    let waiting = (!std::io::stdout().is_terminal()).then(|| Waiting::start(&model, &progress, notes));
    out.bytes(line(0, ids[0], None, None).as_bytes())?;
    let (mut failure, mut file_failure, mut sum) = (None, None, 0.0);
    // The last token's own logits are about what follows the text.
    let n_judging = if file.is_some() { n } else { n - 1 };
    let evaluated = session.eval_each(&ids[..n_judging], |i, logits| {
        if let Some(file) = file.as_mut().filter(|_| file_failure.is_none()) {
            file_failure = file.row(logits).err();
        }
        let Some(&next) = ids.get(i + 1) else { return };
        let (logprob, top1) = judge(logits, next);
        sum += logprob;
        if failure.is_none() {
            failure = out.bytes(line(i + 1, next, Some(logprob), Some(top1)).as_bytes()).err();
        }
    });
    drop(waiting);
    if let (Some(error), Some(path)) = (file_failure, all) {
        return Err(error).with_context(|| format!("cannot write {}", path.display()));
    }
    if let Some(error) = failure {
        return Err(error.into());
    }
    out.flush()?;
    // What failed may have failed for it.
    setup::check_files(&model, notes).1?;
    evaluated?;
    if let Some(file) = file {
        file.finish()?;
    }
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
