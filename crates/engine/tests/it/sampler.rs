//! The sampler chain against llama.cpp's (goldens from tools/sampler_goldens.py), and its behaviour
//! at the edges.

use modelembed::{Candidate, Dry, Mirostat, MirostatVersion, Sampler, SamplerOptions, SamplerOrder, TokenId, Xtc};
use serde_json::Value;

const NEUTRAL: SamplerOptions = SamplerOptions::NEUTRAL;

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
    let (mut xtc, mut dry) =
        (Xtc { probability: 0.0, threshold: 0.1 }, Dry { multiplier: 0.0, last_n: None, ..Dry::default() });
    let mut mirostat = Mirostat { version: MirostatVersion::V1, tau: 5.0, eta: 0.1 };
    for (name, value) in case["options"].as_object().expect("options") {
        let x = value.as_f64().unwrap_or_default();
        match name.as_str() {
            "temp" => o.temp = x as f32,
            "dynatemp_range" => o.dynatemp_range = x as f32,
            "dynatemp_exponent" => o.dynatemp_exponent = x as f32,
            "top_k" => o.top_k = x as usize,
            "top_p" => o.top_p = x as f32,
            "min_p" => o.min_p = x as f32,
            "typical_p" => o.typical_p = x as f32,
            "top_n_sigma" => o.top_n_sigma = x as f32,
            "xtc_probability" => xtc.probability = x as f32,
            "xtc_threshold" => xtc.threshold = x as f32,
            "repeat_penalty" => o.repeat_penalty = x as f32,
            "frequency_penalty" => o.frequency_penalty = x as f32,
            "presence_penalty" => o.presence_penalty = x as f32,
            "repeat_last_n" => o.repeat_last_n = x as usize,
            "dry_multiplier" => dry.multiplier = x as f32,
            "dry_base" => dry.base = x as f32,
            "dry_allowed_length" => dry.allowed_length = x as usize,
            "dry_last_n" => dry.last_n = Some(x as usize),
            "mirostat" => mirostat.version = if x == 1.0 { MirostatVersion::V1 } else { MirostatVersion::V2 },
            "mirostat_tau" => mirostat.tau = x as f32,
            "mirostat_eta" => mirostat.eta = x as f32,
            "order" => o.order = value.as_str().expect("an order").parse().expect("llama.cpp's names"),
            "logit_bias" => {} // no option, but told to the sampler
            _ => panic!("unknown option {name}"),
        }
    }
    let is_given = |name: &str| case["options"].get(name).is_some();
    o.xtc = is_given("xtc_probability").then_some(xtc);
    o.dry = is_given("dry_multiplier").then_some(dry);
    o.mirostat = is_given("mirostat").then_some(mirostat);
    o
}

/// The sampler of a case, which has accepted what the case says.
fn sampler(case: &Value) -> Sampler {
    let mut sampler = Sampler::new(options(case)).expect("valid options");
    let biases = case["options"]["logit_bias"].as_object().into_iter().flatten();
    sampler.set_logit_biases(biases.map(|(id, bias)| {
        let bias = bias.as_f64().map_or(f32::NEG_INFINITY, |bias| bias as f32);
        (TokenId(id.parse().expect("an id")), bias)
    }));
    ids(&case["accepted"]).into_iter().for_each(|id| sampler.accept(TokenId(id)));
    sampler
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// The logits of a case, which are those that its golden was made from.
fn case_logits(case: &Value) -> Vec<f32> {
    let number = |key: &str| case[key].as_u64().expect(key);
    let logits = logits(number("n") as usize, number("seed") as u32, number("shift") as i32);
    let sum: f64 = logits.iter().map(|&x| f64::from(x)).sum();
    assert_eq!(Some(sum), case["logit_sum"].as_f64(), "{}: other logits than the golden's", case["name"]);
    logits
}

/// What is wrong with candidates, if anything.
fn difference(candidates: &[Candidate], want: &Value) -> Option<String> {
    let mut seen: Vec<(u32, f32)> = candidates.iter().map(|c| (c.id.0, c.p)).collect();
    seen.sort_by_key(|&(id, _)| id);
    let want_ids = ids(&want["ids"]);
    if !seen.iter().map(|&(id, _)| id).eq(want_ids.iter().copied()) {
        return Some(format!("keeps {} tokens, wanted {}, or others", seen.len(), want_ids.len()));
    }
    let p = want["p"].as_array().expect("probabilities").iter().map(|p| p.as_f64().expect("a probability"));
    let wrong = seen.iter().zip(p).find(|&(&(_, p), want)| (f64::from(p) - want).abs() > 1e-5);
    wrong.map(|((id, p), want)| format!("token {id} has probability {p}, wanted {want}"))
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
    assert!(cases.len() > 75);
    for case in cases.iter().filter(|case| case.get("steps").is_none()) {
        let mut logits = case_logits(case);
        let mut sampler = sampler(case);
        let seen = sampler.distribution(&mut logits);
        let SamplerOptions { top_k, top_p, min_p, order, .. } = options(case);
        if order == SamplerOrder::DEFAULT && ((1..logits.len()).contains(&top_k) || top_p < 1.0 || min_p > 0.0) {
            assert!(seen.is_sorted_by(|a, b| a.p >= b.p), "{}: not the most likely first", case["name"]);
        }
        wrong.extend(difference(seen, case).map(|text| format!("{}: {text}", case["name"])));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn mirostat_follows_the_surprise_as_llama_cpp_does() {
    let mut wrong = Vec::new();
    let goldens = goldens();
    let cases = goldens["cases"].as_array().expect("cases").iter();
    let cases: Vec<&Value> = cases.filter(|case| case.get("steps").is_some()).collect();
    assert!(cases.len() >= 8);
    for case in cases {
        let logits = case_logits(case);
        let mut sampler = sampler(case);
        let mu_is = |sampler: &Sampler, want: &Value| {
            let (mu, want) = (sampler.mirostat_mu().expect("Mirostat"), want.as_f64().expect("a bound"));
            let is_near = (f64::from(mu) - want).abs() < 1e-4;
            (!is_near).then(|| format!("mu is {mu}, wanted {want}"))
        };
        for step in case["steps"].as_array().expect("steps") {
            let before = mu_is(&sampler, &step["mu"]);
            let seen = difference(sampler.distribution(&mut logits.clone()), step);
            wrong.extend(before.or(seen).map(|text| format!("{}: {text}", case["name"])));
            // The token that llama.cpp drew.
            sampler.accept(TokenId(step["selected"].as_u64().expect("an id") as u32));
        }
        wrong.extend(mu_is(&sampler, &case["last_mu"]).map(|text| format!("{}, last: {text}", case["name"])));
        sampler.reset();
        assert_eq!(sampler.mirostat_mu(), Some(2.0 * options(case).mirostat.expect("Mirostat").tau));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_random_stream_is_chacha8() {
    // With 2^16 equally likely tokens a draw shows the top 16 bits of the stream's next 64.
    let mut flat = vec![0f32; 1 << 16];
    for (seed, words) in goldens()["random"].as_object().expect("random") {
        let seed = seed.parse().expect("a seed");
        let mut sampler = Sampler::new(NEUTRAL.seed(seed)).expect("valid options");
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
        let mut sampler = Sampler::new(SamplerOptions::default().seed(seed)).expect("valid options");
        (0..50).map(|_| sampler.sample(&mut base.clone()).0).collect::<Vec<_>>()
    };
    assert_eq!(text(42), text(42));
    assert_ne!(text(42), text(43));
    assert_ne!(text(42), text(42 + (1 << 32)), "the upper half of the seed counts");
}

#[test]
fn draws_are_as_frequent_as_probable() {
    let base = logits(50, 2, 19);
    let options = NEUTRAL.top_k(5).temp(1.5);
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
    assert_eq!(ids(NEUTRAL.top_k(5), &flat), [0, 1, 2, 3, 4]);
    assert_eq!(ids(NEUTRAL.top_k(400), &flat), (0..400).collect::<Vec<_>>());
    assert_eq!(ids(NEUTRAL.top_p(0.0045), &flat), [0, 1, 2, 3, 4]);
    assert_eq!(ids(NEUTRAL.temp(0.0), &flat), [0]);
    assert_eq!(ids(NEUTRAL.min_p(1.0), &flat).len(), 1000);
    // Ties across the cut, after better ones at higher ids.
    let mut steps: Vec<f32> = (0..1000).map(|i| (i / 100) as f32).collect();
    let mut want: Vec<u32> = (900..1000).chain(800..850).collect();
    assert_eq!(ids(NEUTRAL.top_k(150), &steps), want);
    steps.reverse();
    want = (0..150).collect();
    assert_eq!(ids(NEUTRAL.top_k(150), &steps), want);
    // Zeros of both signs are equal.
    let zeros: Vec<f32> = (0..600).map(|i| if i % 2 == 0 { -0.0 } else { 0.0 }).collect();
    assert_eq!(ids(NEUTRAL.top_k(3), &zeros), [0, 1, 2]);
}

#[test]
fn strange_logits_choose_a_real_token() {
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    let chains = [
        NEUTRAL,
        SamplerOptions::default(),
        NEUTRAL.temp(0.0),
        NEUTRAL.temp(1e-40),
        NEUTRAL.temp(f32::MAX),
        NEUTRAL.top_k(1),
        NEUTRAL.top_k(2),
        NEUTRAL.top_p(0.5),
        NEUTRAL.min_p(0.5),
        NEUTRAL.top_p(0.9).min_p(0.1).repeat_penalty(1.1),
        NEUTRAL.presence_penalty(1e38).frequency_penalty(1e38),
        NEUTRAL.typical_p(0.5),
        NEUTRAL.top_n_sigma(1.0),
        NEUTRAL.temp(0.5).dynatemp_range(0.5),
        NEUTRAL.mirostat(Mirostat { version: MirostatVersion::V1, tau: 2.0, eta: 0.1 }),
        NEUTRAL.mirostat(Mirostat { version: MirostatVersion::V2, tau: 2.0, eta: 0.1 }),
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
                // A huge temperature or penalty makes all finite logits alike.
                let are_alike = chain.temp == f32::MAX || chain.presence_penalty > 1e30;
                let any_finite = are_alike && logits.get(id.0 as usize).is_some_and(|x| x.is_finite());
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
    let mut sampler = Sampler::new(NEUTRAL.repeat_penalty(2.0).repeat_last_n(2).temp(0.0)).expect("valid options");
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
        (NEUTRAL.temp(-0.1), "temp is -0.1, wanted a finite number from 0"),
        (NEUTRAL.temp(f32::NAN), "temp is NaN, wanted a finite number from 0"),
        (NEUTRAL.temp(f32::INFINITY), "temp is inf, wanted a finite number from 0"),
        (NEUTRAL.top_p(1.1), "top_p is 1.1, wanted a number from 0 to 1"),
        (NEUTRAL.top_p(f32::NAN), "top_p is NaN, wanted a number from 0 to 1"),
        (NEUTRAL.min_p(-1.0), "min_p is -1, wanted a number from 0 to 1"),
        (NEUTRAL.repeat_penalty(0.0), "repeat_penalty is 0, wanted a finite number above 0"),
        (NEUTRAL.presence_penalty(f32::NAN), "presence_penalty is NaN, wanted a finite number"),
        (NEUTRAL.typical_p(1.5), "typical_p is 1.5, wanted a number from 0 to 1"),
        (NEUTRAL.xtc(Xtc { probability: 2.0, threshold: 0.1 }), "xtc.probability is 2, wanted a number from 0 to 1"),
        (NEUTRAL.dynatemp_range(-1.0), "dynatemp_range is -1, wanted a finite number from 0"),
        (NEUTRAL.dry(Dry { base: 0.5, ..Dry::default() }), "dry.base is 0.5, wanted a finite number from 1"),
        (
            NEUTRAL.mirostat(Mirostat { version: MirostatVersion::V2, tau: -1.0, eta: 0.1 }),
            "mirostat.tau is -1, wanted a finite number from 0",
        ),
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
        let o = NEUTRAL
            .temp([0.0, 0.8, 1.5][case as usize % 3])
            .top_k([1, 5, 40][case as usize / 3 % 3])
            .top_p([1.0, 0.9][case as usize / 9 % 2])
            .min_p([0.0, 0.05][case as usize / 2 % 2])
            .repeat_penalty([1.0, 1.3, 0.7][case as usize / 5 % 3])
            .repeat_last_n(16)
            .seed(case.into());
        let o = match case % 4 {
            0 => o.presence_penalty(0.5).frequency_penalty(-0.3),
            1 => o.xtc(Xtc { probability: 0.5, threshold: 0.1 }).typical_p(0.9),
            // Where it is certain that the answer is greedy, the cuts do not count.
            2 => o.order("top_k;penalties;temperature".parse().expect("an order")),
            _ => o,
        };
        let biases = [(TokenId(case + 2), 5.0), (TokenId(20), f32::NEG_INFINITY), (TokenId(15), -1.0)];
        let [mut whole, mut part] = [(); 2].map(|()| Sampler::new(o).expect("valid"));
        if case % 5 == 0 {
            whole.set_logit_biases(biases);
            part.set_logit_biases(biases);
        }
        for step in 0..40 {
            let n_best = part.n_best().expect("a cut").min(all.len());
            let rank = |i: &usize| (!all[*i].is_nan()).then_some(all[*i]);
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by(|a, b| rank(b).partial_cmp(&rank(a)).expect("comparable"));
            let mut ids: Vec<TokenId> = order[..n_best].iter().map(|&i| TokenId(i as u32)).collect();
            ids.extend(part.changed());
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
    let mirostat = Mirostat { version: MirostatVersion::V2, tau: 5.0, eta: 0.1 };
    let n_best = |o: SamplerOptions| Sampler::new(o).expect("valid").n_best();
    for takes_all in [
        NEUTRAL,
        NEUTRAL.top_n_sigma(1.0).top_k(5),
        NEUTRAL.dry(Dry::default()).top_k(5),
        NEUTRAL.mirostat(mirostat).top_k(5),
        NEUTRAL.order("temperature;top_k".parse().expect("an order")).temp(0.5).top_k(5),
        // The most likely one may be left out before the temperature leaves one.
        NEUTRAL.temp(0.0).typical_p(0.5),
    ] {
        assert_eq!(n_best(takes_all), None, "{takes_all:?}");
    }
    // What is not in the order does not count, and of a greedy choice only one token.
    let order = "top_k;top_p".parse().expect("an order");
    assert_eq!(n_best(NEUTRAL.order(order).top_k(5).temp(0.0).typical_p(0.5)), Some(5));
    assert_eq!(n_best(NEUTRAL.temp(0.0).top_n_sigma(1.0).top_k(5).min_p(0.1)), Some(1));
}

#[test]
fn the_random_stream_goes_on_alike_where_xtc_leaves_out_nothing() {
    // XTC takes 64 bits before each draw, whether it does something or not.
    let mut flat = vec![0f32; 1 << 16];
    let plain = Sampler::new(NEUTRAL).expect("valid options");
    let xtc = Some(Xtc { probability: 0.5, threshold: 0.4 });
    let (mut every, mut second) = (plain, Sampler::new(NEUTRAL.xtc(xtc)).expect("valid options"));
    for _ in 0..20 {
        every.sample(&mut flat);
        assert_eq!(every.sample(&mut flat), second.sample(&mut flat));
    }
}

#[test]
fn xtc_is_done_as_often_as_it_is_probable() {
    let base = [3.0, 2.9, 1.0, 0.0];
    let options = NEUTRAL.xtc(Xtc { probability: 0.3, threshold: 0.2 });
    let mut sampler = Sampler::new(options).expect("valid options");
    let n = 4000;
    let mut n_left_out = 0;
    for _ in 0..n {
        let ids: Vec<u32> = sampler.distribution(&mut base.clone()).iter().map(|c| c.id.0).collect();
        let chosen = sampler.sample(&mut base.clone()).0;
        assert!(ids.contains(&chosen), "{chosen} of {ids:?}: what is shown is what is drawn from");
        n_left_out += u32::from(ids == [1, 2, 3]);
        assert!(ids == [1, 2, 3] || ids == [0, 1, 2, 3], "{ids:?}");
    }
    let share = f64::from(n_left_out) / f64::from(n);
    assert!((share - 0.3).abs() < 5.0 * (0.3 * 0.7 / f64::from(n)).sqrt(), "{share}");
}

#[test]
fn biases_add_up_and_forbid() {
    let mut sampler = Sampler::new(NEUTRAL.temp(0.0)).expect("valid options");
    let next = |sampler: &mut Sampler| {
        let mut logits = [4.0, 3.0, f32::NEG_INFINITY, f32::NAN];
        (sampler.sample(&mut logits).0, [logits[0], logits[1], logits[2]])
    };
    let none = f32::NEG_INFINITY;
    type Row<'a> = (&'a [(u32, f32)], (u32, [f32; 3]));
    let rows: [Row<'_>; 6] = [
        (&[], (0, [4.0, 3.0, none])),
        (&[(1, 0.75), (0, -1.0), (1, 0.75)], (1, [3.0, 4.5, none])),
        (&[(0, none)], (1, [none, 3.0, none])),
        (&[(2, 50.0), (3, 50.0), (9, 50.0)], (0, [4.0, 3.0, none])), // neither a number nor a token
        (&[(0, f32::NAN), (1, f32::INFINITY)], (0, [4.0, 3.0, none])),
        (&[(0, none), (0, 5.0)], (1, [none, 3.0, none])),
    ];
    for (biases, want) in rows {
        sampler.set_logit_biases(biases.iter().map(|&(id, bias)| (TokenId(id), bias)));
        assert_eq!(next(&mut sampler), want, "{biases:?}");
    }
}
