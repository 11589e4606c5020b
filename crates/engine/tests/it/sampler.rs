//! The sampler chain against llama.cpp's (goldens from tools/sampler_goldens.py), and its behaviour at the edges.

use modelembed::{Sampler, SamplerOptions, TokenId};
use serde_json::Value;

const NEUTRAL: SamplerOptions =
    SamplerOptions { temp: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, repeat_last_n: 64, seed: 42 };

fn goldens() -> Value {
    serde_json::from_str(include_str!("../goldens/sampler.json")).expect("goldens/sampler.json is JSON")
}

/// The formula of tools/sampler_goldens.py.
fn logits(n: usize, seed: u32, shift: i32) -> Vec<f32> {
    let mut x = seed;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        x >> 8
    };
    (0..n)
        .map(|_| {
            let total = next() + next() + next();
            ((total >> 2) as i32 - 3 * (1 << 21)) as f32 / 2f32.powi(shift)
        })
        .collect()
}

fn options(case: &Value) -> SamplerOptions {
    let mut o = NEUTRAL;
    for (name, value) in case["options"].as_object().expect("options") {
        let x = value.as_f64().expect("a number");
        match name.as_str() {
            "temp" => o.temp = x as f32,
            "top_k" => o.top_k = x as usize,
            "top_p" => o.top_p = x as f32,
            "min_p" => o.min_p = x as f32,
            "repeat_penalty" => o.repeat_penalty = x as f32,
            "repeat_last_n" => o.repeat_last_n = x as usize,
            _ => panic!("unknown option {name}"),
        }
    }
    o
}

fn kept(options: SamplerOptions, logits: &[f32]) -> Vec<(u32, f32)> {
    let mut sampler = Sampler::new(options).expect("valid options");
    sampler.distribution(&mut logits.to_vec()).iter().map(|c| (c.id.0, c.p)).collect()
}

#[test]
fn keeps_what_llama_cpp_keeps() {
    let mut wrong = Vec::new();
    let goldens = goldens();
    let cases = goldens["cases"].as_array().expect("cases");
    assert!(cases.len() > 25);
    for case in cases {
        let name = case["name"].as_str().expect("name");
        let number = |key: &str| case[key].as_u64().expect(key);
        let mut logits = logits(number("n") as usize, number("seed") as u32, number("shift") as i32);
        let sum: f64 = logits.iter().map(|&x| f64::from(x)).sum();
        assert_eq!(Some(sum), case["logit_sum"].as_f64(), "{name}: other logits than the golden's");

        let mut sampler = Sampler::new(options(case)).expect("valid options");
        for id in case["accepted"].as_array().expect("accepted") {
            sampler.accept(TokenId(id.as_u64().expect("an id") as u32));
        }
        let mut seen: Vec<(u32, f32)> = sampler.distribution(&mut logits).iter().map(|c| (c.id.0, c.p)).collect();
        let SamplerOptions { top_k, top_p, min_p, .. } = options(case);
        if (1..logits.len()).contains(&top_k) || top_p < 1.0 || min_p > 0.0 {
            assert!(seen.is_sorted_by(|a, b| a.1 >= b.1), "{name}: not the most likely first");
        }
        seen.sort_by_key(|&(id, _)| id);
        let want_ids: Vec<u32> =
            case["ids"].as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect();
        if !seen.iter().map(|&(id, _)| id).eq(want_ids.iter().copied()) {
            wrong.push(format!("{name}: keeps {} tokens, wanted {}, or others", seen.len(), want_ids.len()));
            continue;
        }
        for (&(id, p), want) in seen.iter().zip(case["p"].as_array().expect("p")) {
            let want = want.as_f64().expect("a probability");
            if (f64::from(p) - want).abs() > 1e-5 {
                wrong.push(format!("{name}: token {id} has probability {p}, wanted {want}"));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_random_stream_is_chacha8() {
    // With 2^16 equally likely tokens a draw shows the top 16 bits of the stream's next 64.
    let mut flat = vec![0f32; 1 << 16];
    for (seed, words) in goldens()["random"].as_object().expect("random") {
        let seed = seed.parse().expect("a seed");
        let mut sampler = Sampler::new(SamplerOptions { seed, ..NEUTRAL }).expect("valid options");
        for word in words.as_array().expect("words") {
            let word: u64 = word.as_str().expect("a word").parse().expect("64 bits");
            assert_eq!(u64::from(sampler.sample(&mut flat).0), word >> 48, "seed {seed}");
        }
    }
}

#[test]
fn a_seed_repeats_and_seeds_differ() {
    let base = logits(5000, 9, 19);
    let text = |seed: u64| {
        let mut sampler = Sampler::new(SamplerOptions { seed, ..SamplerOptions::default() }).expect("valid options");
        (0..50).map(|_| sampler.sample(&mut base.clone()).0).collect::<Vec<_>>()
    };
    assert_eq!(text(42), text(42));
    assert_ne!(text(42), text(43));
    assert_ne!(text(42), text(42 + (1 << 32)), "the upper half of the seed counts");
}

#[test]
fn draws_are_as_frequent_as_probable() {
    let base = logits(50, 2, 19);
    let options = SamplerOptions { top_k: 5, temp: 1.5, ..NEUTRAL };
    let want = kept(options, &base);
    let mut sampler = Sampler::new(options).expect("valid options");
    let n = 20_000;
    let mut counts = [0u32; 50];
    (0..n).for_each(|_| counts[sampler.sample(&mut base.clone()).0 as usize] += 1);
    assert_eq!(counts.iter().sum::<u32>(), want.iter().map(|&(id, _)| counts[id as usize]).sum::<u32>());
    for (id, p) in want {
        // The seed is fixed, so this does not vary; 5 standard deviations of a fair draw.
        let deviation = (f64::from(p) * (1.0 - f64::from(p)) / f64::from(n)).sqrt();
        let seen = f64::from(counts[id as usize]) / f64::from(n);
        assert!((seen - f64::from(p)).abs() < 5.0 * deviation, "token {id}: {seen} of draws, probability {p}");
    }
}

#[test]
fn equal_logits_keep_the_lower_ids() {
    let flat = vec![1.5f32; 1000];
    let ids = |o: SamplerOptions, logits: &[f32]| kept(o, logits).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(ids(SamplerOptions { top_k: 5, ..NEUTRAL }, &flat), [0, 1, 2, 3, 4]);
    assert_eq!(ids(SamplerOptions { top_k: 400, ..NEUTRAL }, &flat), (0..400).collect::<Vec<_>>());
    assert_eq!(ids(SamplerOptions { top_p: 0.0045, ..NEUTRAL }, &flat), [0, 1, 2, 3, 4]);
    assert_eq!(ids(SamplerOptions { temp: 0.0, ..NEUTRAL }, &flat), [0]);
    assert_eq!(ids(SamplerOptions { min_p: 1.0, ..NEUTRAL }, &flat).len(), 1000);
    // Ties across the cut, after better ones at higher ids.
    let mut steps: Vec<f32> = (0..1000).map(|i| (i / 100) as f32).collect();
    let mut want: Vec<u32> = (900..1000).chain(800..850).collect();
    assert_eq!(ids(SamplerOptions { top_k: 150, ..NEUTRAL }, &steps), want);
    steps.reverse();
    want = (0..150).collect();
    assert_eq!(ids(SamplerOptions { top_k: 150, ..NEUTRAL }, &steps), want);
    // Zeros of both signs are equal.
    let zeros: Vec<f32> = (0..600).map(|i| if i % 2 == 0 { -0.0 } else { 0.0 }).collect();
    assert_eq!(ids(SamplerOptions { top_k: 3, ..NEUTRAL }, &zeros), [0, 1, 2]);
}

#[test]
fn strange_logits_choose_a_real_token() {
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    let chains = [
        NEUTRAL,
        SamplerOptions::default(),
        SamplerOptions { temp: 0.0, ..NEUTRAL },
        SamplerOptions { temp: 1e-40, ..NEUTRAL },
        SamplerOptions { temp: f32::MAX, ..NEUTRAL },
        SamplerOptions { top_k: 1, ..NEUTRAL },
        SamplerOptions { top_k: 2, ..NEUTRAL },
        SamplerOptions { top_p: 0.5, ..NEUTRAL },
        SamplerOptions { min_p: 0.5, ..NEUTRAL },
        SamplerOptions { top_p: 0.9, min_p: 0.1, repeat_penalty: 1.1, ..NEUTRAL },
    ];
    // (logits, tokens that may be chosen)
    let rows: &[(&[f32], &[u32])] = &[
        (&[], &[0]),
        (&[NAN, NAN, NAN], &[0]),
        (&[-INF, -INF, -INF], &[0]),
        (&[NAN, -INF, 3.0, NAN], &[2]),
        (&[NAN, -INF, f32::MIN, NAN], &[2]),
        (&[-INF, 1.0, -INF], &[1]),
        (&[1.0, INF, -INF, NAN], &[1]),
        (&[INF, 1.0, INF], &[0, 2]),
        (&[f32::MAX, f32::MIN, -INF], &[0]),
        (&[0.0], &[0]),
    ];
    let mut wrong = Vec::new();
    for (logits, may) in rows {
        for chain in chains {
            let mut sampler = Sampler::new(chain).expect("valid options");
            for _ in 0..20 {
                let id = sampler.sample(&mut logits.to_vec());
                sampler.accept(id);
                // Dividing by a huge temperature makes all finite logits alike.
                let any_finite = chain.temp == f32::MAX && logits.get(id.0 as usize).is_some_and(|x| x.is_finite());
                if !may.contains(&id.0) && !any_finite {
                    wrong.push((logits.to_vec(), chain, id));
                    break;
                }
            }
            let p: Vec<f32> = kept(chain, logits).iter().map(|c| c.1).collect();
            let sum: f32 = p.iter().sum();
            assert!(p.iter().all(|p| p.is_finite()), "{logits:?} {chain:?}: {p:?}");
            assert!(p.is_empty() || (sum - 1.0).abs() < 1e-5, "{logits:?} {chain:?}: sum {sum}");
        }
    }
    assert!(wrong.is_empty(), "logits, options, chosen: {wrong:#?}");
}

#[test]
fn the_penalty_looks_back_at_accepted_tokens() {
    let mut sampler = Sampler::new(SamplerOptions { repeat_penalty: 2.0, repeat_last_n: 2, temp: 0.0, ..NEUTRAL })
        .expect("valid options");
    let base = [4.0, 3.0, 2.5, -1.0];
    let next = |sampler: &mut Sampler| {
        let mut logits = base;
        let id = sampler.sample(&mut logits);
        sampler.accept(id);
        (id.0, logits)
    };
    assert_eq!(next(&mut sampler), (0, base));
    assert_eq!(next(&mut sampler), (1, [2.0, 3.0, 2.5, -1.0]));
    assert_eq!(next(&mut sampler), (2, [2.0, 1.5, 2.5, -1.0]));
    assert_eq!(next(&mut sampler), (0, [4.0, 1.5, 1.25, -1.0]), "token 0 left the window");
    sampler.reset();
    sampler.accept(TokenId(3));
    sampler.accept(TokenId(77)); // not in this vocabulary
    assert_eq!(next(&mut sampler), (0, [4.0, 3.0, 2.5, -2.0]));
}

#[test]
fn impossible_options_are_named() {
    let bad = [
        (SamplerOptions { temp: -0.1, ..NEUTRAL }, "temp is -0.1, wanted a finite number from 0"),
        (SamplerOptions { temp: f32::NAN, ..NEUTRAL }, "temp is NaN, wanted a finite number from 0"),
        (SamplerOptions { temp: f32::INFINITY, ..NEUTRAL }, "temp is inf, wanted a finite number from 0"),
        (SamplerOptions { top_p: 1.1, ..NEUTRAL }, "top_p is 1.1, wanted a number from 0 to 1"),
        (SamplerOptions { top_p: f32::NAN, ..NEUTRAL }, "top_p is NaN, wanted a number from 0 to 1"),
        (SamplerOptions { min_p: -1.0, ..NEUTRAL }, "min_p is -1, wanted a number from 0 to 1"),
        (SamplerOptions { repeat_penalty: 0.0, ..NEUTRAL }, "repeat_penalty is 0, wanted a finite number above 0"),
    ];
    let wrong: Vec<_> = bad
        .into_iter()
        .map(|(options, want)| (Sampler::new(options).map(|_| ()).map_err(|e| e.to_string()), want))
        .filter(|(seen, want)| seen.as_ref().err().map(String::as_str) != Some(*want))
        .collect();
    assert!(wrong.is_empty(), "seen, wanted: {wrong:#?}");
    assert!(Sampler::new(SamplerOptions::default()).is_ok());
}

#[test]
fn the_best_and_the_recent_tokens_are_enough_to_choose_one() {
    let mut wrong = Vec::new();
    for (case, shift) in (0..60u32).zip([18, 19, 22].into_iter().cycle()) {
        let mut all = logits(700, case + 1, shift);
        // Equals at every cut, and what is no number.
        all[10..300].iter_mut().for_each(|x| *x = x.round());
        all[case as usize] = f32::NAN;
        all[case as usize + 1] = f32::NEG_INFINITY;
        let o = SamplerOptions {
            temp: [0.0, 0.8, 1.5][case as usize % 3],
            top_k: [1, 5, 40][case as usize / 3 % 3],
            top_p: [1.0, 0.9][case as usize / 9 % 2],
            min_p: [0.0, 0.05][case as usize / 2 % 2],
            repeat_penalty: [1.0, 1.3, 0.7][case as usize / 5 % 3],
            repeat_last_n: 16,
            seed: case.into(),
        };
        let (mut whole, mut part) = (Sampler::new(o).expect("valid"), Sampler::new(o).expect("valid"));
        for step in 0..40 {
            let n_best = part.n_best().expect("a cut");
            let rank = |i: &usize| (!all[*i].is_nan()).then_some(all[*i]);
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by(|a, b| rank(b).partial_cmp(&rank(a)).expect("comparable"));
            let mut ids: Vec<TokenId> = order[..n_best].iter().map(|&i| TokenId(i as u32)).collect();
            ids.extend(part.recent());
            ids.sort_unstable();
            ids.dedup();
            let mut some: Vec<f32> = ids.iter().map(|id| all[id.0 as usize]).collect();
            let (a, b) = (whole.sample(&mut all.clone()), part.sample_best(&ids, &mut some));
            if a != b {
                wrong.push((o, step, a, b));
            }
            whole.accept(a);
            part.accept(a);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let takes_all = Sampler::new(SamplerOptions { top_k: 0, ..NEUTRAL }).expect("valid");
    assert_eq!(takes_all.n_best(), None);
}
