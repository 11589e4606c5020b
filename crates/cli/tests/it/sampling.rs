//! Options of sampling: stop texts, biases, the order of samplers, and what of them makes no sense.

use crate::util::*;

/// A text of the tiny model, which is random but always the same, and the command that gives it.
fn base(tiny: &Tiny) -> (Vec<String>, String) {
    let words =
        ["-model", &tiny.model, "-raw", "-p", "the cat", "-n", "60", "-seed", "5", "-temp", "1.2", "-ignore-eos"];
    let command: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let text = answer(&command, &[]);
    assert!(text.chars().count() > 40, "{text:?}");
    (command, text)
}

fn answer(command: &[String], more: &[&str]) -> String {
    let args: Vec<&str> = command.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let text = run(&args).ok().stdout;
    text.strip_suffix('\n').map(str::to_string).unwrap_or(text)
}

#[test]
fn a_stop_text_ends_the_answer_wherever_tokens_are_cut() {
    let tiny = tiny_model();
    let (command, text) = base(&tiny);
    let starts: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
    let mut wrong = Vec::new();
    // Texts of 1 to 9 characters from different places: within a token and across several.
    for (place, n_chars) in [(2, 1), (5, 2), (9, 3), (12, 5), (17, 9), (30, 4)] {
        let stop = &text[starts[place]..starts[place + n_chars]];
        let want = &text[..text.find(stop).unwrap()];
        for stops in [&["-stop", stop][..], &["-stop", "never to be seen", "-stop", stop]] {
            // Escapes are read, so that a backslash of the text must be one.
            let stops: Vec<String> = stops.iter().map(|word| word.replace('\\', r"\\")).collect();
            let seen = answer(&command, &stops.iter().map(String::as_str).collect::<Vec<_>>());
            // A line end is added unless there is one.
            if seen.trim_end_matches('\n') != want.trim_end_matches('\n') {
                wrong.push((stops, seen, want));
            }
        }
    }
    assert!(wrong.is_empty(), "stop texts, seen, wanted: {wrong:#?}\nof {text:?}");
    // What only begins like a stop text is printed, in the middle of the answer and at its end.
    let end = &text[starts[starts.len() - 4]..];
    let beginnings = [format!("{}!never!", &text[starts[3]..starts[8]]), format!("{end}!never!")];
    let beginnings = beginnings.map(|text| text.replace('\\', r"\\"));
    assert_eq!(answer(&command, &["-stop", &beginnings[0], "-stop", &beginnings[1]]), text);
}

#[test]
fn biases_and_ignore_eos_decide_how_an_answer_ends() {
    let tiny = tiny_model();
    let command = ["-model", &tiny.model, "-raw", "-p", "the cat", "-n", "6", "-format", "json"];
    let json = |more: &[&str]| run(&[&command[..], more].concat()).ok().json();
    // Token 2 ends an answer.
    let ended = json(&["-logit-bias", "2+100"]);
    assert_eq!((ended["response"].as_str(), ended["stop"].as_str()), (Some(""), Some("end")));
    let ignored = json(&["-logit-bias", "2+100", "-ignore-eos"]);
    assert_eq!(ignored["stop"], "length");
    // One token again and again, whatever else is wanted, unless it is forbidden.
    let token = run(&["tokenize", "-model", &tiny.model, "-p", "the cat", "-format", "json"]).ok().json();
    let last = token["tokens"].as_array().unwrap().last().unwrap();
    let (id, piece) = (last["id"].as_u64().unwrap(), last["piece"].as_str().unwrap());
    let bias = format!("{id}+100");
    let same = json(&["-logit-bias", &bias, "-temp", "2"])["response"].as_str().unwrap().to_string();
    assert_eq!(same.trim_start(), piece.repeat(6).trim_start());
    let forbidden = json(&["-logit-bias", &bias, "-logit-bias", &format!("{id}-inf")]);
    assert_ne!(forbidden["response"], same);
    let unknown = run(&["-model", &tiny.model, "-p", "x", "-logit-bias", "320+1"]);
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.stderr.contains("-logit-bias: there is no token 320, the model has 0 to 319"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn samplers_do_what_they_say_in_the_order_that_is_asked_for() {
    let tiny = tiny_model();
    let (command, text) = base(&tiny);
    let greedy = answer(&command, &["-temp", "0"]);
    assert_ne!(greedy, text);
    for one_token in [
        &["-top-k", "1"][..],
        &["-samplers", "top_k", "-top-k", "1"],
        &["-top-nsigma", "0.00001"],
        &["-min-p", "1"],
        &["-mirostat", "2", "-temp", "0"],
        &["-temp", "0", "-dynatemp-range", "0"],
    ] {
        assert_eq!(answer(&command, one_token), greedy, "{one_token:?}");
    }
    for other_text in [
        &["-samplers", "temperature"][..],
        &["-xtc-probability", "1", "-xtc-threshold", "0.05"],
        &["-typical", "0.3"],
        &["-dynatemp-range", "1.1"],
        &["-presence-penalty", "5"],
        &["-frequency-penalty", "5", "-repeat-last-n", "-1"],
        &["-mirostat", "1"],
        &["-mirostat", "2", "-mirostat-ent", "1"],
    ] {
        let other = answer(&command, other_text);
        assert_ne!(other, text, "{other_text:?}");
        assert_eq!(answer(&command, other_text), other, "a seed repeats: {other_text:?}");
    }
    // DRY breaks the circles that a greedy answer runs in; not where every token is a breaker.
    let dry = ["-temp", "0", "-dry-multiplier", "20", "-dry-allowed-length", "1"];
    assert_ne!(answer(&command, &dry), answer(&command, &["-temp", "0"]));
    let idle = run(&["-model", &tiny.model, "-p", "x", "-n", "1", "-mirostat", "2", "-top-k", "5"]).ok();
    assert!(idle.stderr.contains("-top-k has no effect: with -mirostat"), "{}", idle.stderr);
}
