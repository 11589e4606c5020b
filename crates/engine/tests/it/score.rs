//! The two real models against llama.cpp's run in exact arithmetic (see tools/README.md).

use modelembed::{LoadOptions, Model, TokenId};
use modelembed_testkit::{argmax, log_prob, real_model};
use serde_json::Value;
use std::sync::Arc;

use crate::common::{golden_json, ids, load, session};

/// Exact activations cost several times the time of quantised ones; the goldens of long tiny models
/// cover the rest.
const EXACT_POSITIONS: usize = 256;
/// Tokens of each greedy continuation that are compared.
const GREEDY_TOKENS: usize = 32;

/// Distance from the exact run over some positions.
#[derive(Debug)]
struct Distance {
    /// Mean |difference| of log-probability.
    mean: f64,
    /// Share of positions with the same arg-max.
    top1_equal: f64,
}

/// Over the first `n` positions, or all where there are fewer.
fn distance(model: &Arc<Model>, golden: &Value, n: usize) -> Distance {
    let text = ids(&golden["ids"]);
    let mut session = session(model, text.len());
    let (mut sum, mut same) = (0.0, 0);
    let n = n.min(text.len() - 1);
    session
        .eval_each(&text[..n], |i, logits| {
            let want = golden["logprob"][i + 1].as_f64().expect("a log-probability");
            sum += (log_prob(logits, text[i + 1].0 as usize) - want).abs();
            same += usize::from(argmax(logits).map(|id| id as u64) == golden["top1"][i + 1].as_u64());
        })
        .expect("evaluates");
    Distance { mean: sum / n as f64, top1_equal: same as f64 / n as f64 }
}

/// The golden of a model, and the model under each of `exact`; `None` where the model is not there.
fn models(name: &str) -> Option<(Value, Arc<Model>, Arc<Model>)> {
    let golden = golden_json(&format!("score-{name}.json"));
    let path = real_model(golden["model"].as_str().expect("a file name"))?;
    let default = load(&path, &LoadOptions::default());
    let exact = load(&path, &LoadOptions::default().exact(true));
    Some((golden, default, exact))
}

fn check(name: &str) {
    let Some((golden, default, exact)) = models(name) else { return };
    let (d, e) = (distance(&default, &golden, usize::MAX), distance(&exact, &golden, EXACT_POSITIONS));
    println!("{name}: default {d:?}\n{name}: exact {e:?}\n{name}: llama.cpp {}", golden["llama_cpp"]);
    let theirs = |field: &str| {
        ["batched", "token_by_token"].map(|run| golden["llama_cpp"][run][field].as_f64().expect("a distance"))
    };
    let [mean, other_mean] = theirs("mean_abs_logprob");
    assert!(d.mean <= mean.min(other_mean), "mean distance {} is beyond llama.cpp's {mean} and {other_mean}", d.mean);
    let [top1, other_top1] = theirs("top1_equal");
    assert!(
        d.top1_equal >= top1.max(other_top1),
        "arg-max equal {}, llama.cpp's {top1} and {other_top1}",
        d.top1_equal
    );
    assert!(e.mean <= 0.002, "mean distance {} with exact activations", e.mean);
    assert!(e.top1_equal >= 0.995, "arg-max equal {} with exact activations", e.top1_equal);
    greedy(&exact, &golden);
}

/// Greedy continuations with exact activations are the golden ones, up to the first near-tie.
fn greedy(model: &Arc<Model>, golden: &Value) {
    const NEAR_TIE: f64 = 0.02;
    for prompt in golden["greedy"].as_array().expect("prompts") {
        let want = ids(&prompt["ids"]);
        let mut session = session(model, 512);
        let mut next = ids(&prompt["prompt_ids"]);
        for (step, want) in want.iter().enumerate().take(GREEDY_TOKENS) {
            let logits = session.eval(&next).expect("evaluates");
            let got = TokenId(argmax(logits).expect("a number") as u32);
            if got != *want {
                let lead = prompt["lead"][step].as_f64().expect("a lead");
                assert!(
                    lead < NEAR_TIE,
                    "{}: token {step} is {got:?}, not {want:?}, which leads by {lead}",
                    prompt["prompt"]
                );
                break;
            }
            next = vec![got];
        }
    }
}

#[test]
fn smollm2_is_at_least_as_exact_as_llama_cpp() {
    check("smollm2");
}

#[test]
fn gemma3_is_at_least_as_exact_as_llama_cpp() {
    check("gemma3");
}
