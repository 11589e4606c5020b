use modelembed_testkit::Rng;

use super::*;
use crate::cpu::peaks::{STRETCH, greatest};

/// Logits of each kind that a sampler may meet, most of them in many places.
fn some_logits(n: usize, kind: usize, rng: &mut Rng) -> Vec<f32> {
    const STRANGE: [f32; 4] = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, f32::MIN];
    let mut one = |_| match kind {
        0 => rng.normal(),
        1 => (2.0 * rng.normal()).round(),
        2 if rng.below(3) == 0 => STRANGE[rng.below(2)],
        3 if rng.below(3) == 0 => STRANGE[rng.below(STRANGE.len())],
        4 => STRANGE[rng.below(2)],
        5 => -0.0,
        _ => (8.0 * rng.normal()).round() / 4.0,
    };
    (0..n).map(&mut one).collect()
}

/// The chain by its description: changes the logits of `recent` tokens, then sorts everything.
fn by_sorting(mut logits: Vec<f32>, recent: &[TokenId], o: &SamplerOptions) -> Vec<u32> {
    let mut recent = recent.to_vec();
    recent.sort_unstable();
    recent.dedup();
    for id in recent {
        if let Some(x) = logits.get_mut(id.0 as usize).filter(|x| x.is_finite()) {
            *x = if *x <= 0.0 { *x * o.repeat_penalty } else { *x / o.repeat_penalty };
            *x = x.clamp(f32::MIN, f32::MAX);
        }
    }
    let mut ids: Vec<u32> = (0..logits.len() as u32).filter(|&i| logits[i as usize] > f32::NEG_INFINITY).collect();
    ids.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).expect("numbers"));
    ids.truncate(if o.temp == 0.0 { 1 } else { o.top_k });
    ids
}

#[test]
fn peaks_of_any_stretch_choose_what_sorting_all_logits_does() {
    let mut rng = Rng::new(11);
    let plain = SamplerOptions { top_p: 1.0, min_p: 0.0, repeat_last_n: 20, ..SamplerOptions::default() };
    let mut wrong = Vec::new();
    for (case, n) in [1, 5, 255, 256, 257, 320, 1000, 3001].into_iter().cycle().take(144).enumerate() {
        let options = SamplerOptions {
            temp: [0.0, 1.0][case / 8 % 2],
            top_k: [1, 4, 40, 300][case % 4].min(n - 1),
            repeat_penalty: [1.0, 1.3, 0.7][case / 16 % 3],
            ..plain
        };
        let logits = some_logits(n, case / 8 % 7, &mut rng);
        for stretch in [1, 16, 48, STRETCH, 4000] {
            let (mut own, mut given) = (Sampler::with_valid(options), Sampler::with_valid(options));
            for step in 0..12 {
                let recent: Vec<TokenId> = own.changed().collect();
                let mut all = logits.clone();
                let mut values: Vec<f32> = all.chunks(stretch).map(greatest).collect();
                let peaks = Peaks { stretch, values: &mut values };
                let ids = (own.sample(&mut logits.clone()), given.sample_with_peaks(&mut all, peaks));
                let want = by_sorting(logits.clone(), &recent, &options);
                let kept: Vec<u32> = given.candidates.list.iter().map(|c| c.id.0).collect();
                let is_right = match options {
                    SamplerOptions { temp: 0.0, .. } => ids.1.0 == want.first().copied().unwrap_or(0),
                    // All of them, in order of id.
                    SamplerOptions { top_k: 0, .. } => true,
                    _ => kept == want && given.candidates.list == own.candidates.list,
                };
                if ids.0 != ids.1 || !is_right {
                    wrong.push((case, n, stretch, step, options, ids, kept, want));
                }
                // The chosen one, a neighbour and the last token.
                for id in [ids.0, TokenId(ids.0.0 + 1), TokenId(n as u32 - 1)] {
                    own.accept(id);
                    given.accept(id);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ, the first one: {:?}", wrong.len(), wrong[0]);
}

#[test]
fn sums_of_exponentials_are_those_of_f64() {
    let mut rng = modelembed_testkit::Rng::new(5);
    for n in [1, 7, 8, 255, 256, 257, 5000] {
        let logits: Vec<f32> = (0..n).map(|_| rng.below(4000) as f32 / 100.0 - 20.0).collect();
        for id in [0, n / 2, n - 1] {
            let got = f64::from(logits[id]) - log_sum_exp(&logits);
            let want = modelembed_testkit::log_prob(&logits, id);
            assert!((got - want).abs() < 1e-5, "{n}: {got}, not {want}");
        }
    }
    assert_eq!(log_sum_exp(&[f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY]), 2.0);
    assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 3]), f64::NEG_INFINITY);
}
