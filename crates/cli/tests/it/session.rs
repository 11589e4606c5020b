//! `-session`: what one run leaves, the next one goes on with.

use crate::util::{run, tiny_model};

#[test]
fn a_text_goes_on_as_if_it_had_never_stopped() {
    let tiny = tiny_model();
    let file = tiny.folder.path().join("text.session");
    let file = file.to_str().unwrap();
    let common = ["-model", &tiny.model, "-raw", "-temp", "0", "-ctx", "300", "-quiet", "-threads", "2"];
    let whole = run(&[&common[..], &["-p", "hello", "-n", "24"]].concat()).ok().stdout;
    let mut parts = String::new();
    for (prompt, n) in [("hello", "8"), ("", "8"), ("", "8")] {
        let part = run(&[&common[..], &["-p", prompt, "-n", n, "-session", file]].concat()).ok().stdout;
        parts += part.trim_end_matches('\n');
    }
    assert_eq!(parts, whole.trim_end_matches('\n'));
    // A chat does not go on with a text, another model with neither; both say so and touch nothing.
    let before = std::fs::read(file).unwrap();
    let chat = ["-model", &tiny.model, "-template", "chatml", "-p", "x", "-n", "1", "-session", file];
    let refused = run(&chat);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("it holds no chat"), "{}", refused.stderr);
    let longer = run(&[&common[..], &["-p", "x", "-n", "1", "-session", file, "-cache-type", "f16"]].concat());
    assert!(longer.code == 1 && longer.stderr.contains("cache type is i16"), "{}", longer.stderr);
    let model = run(&[&common[..], &["-p", "x", "-n", "1", "-session", &tiny.model]].concat());
    assert!(model.code == 1 && model.stderr.contains("no saved session"), "{}", model.stderr);
    assert_eq!(std::fs::read(file).unwrap(), before);
}

#[test]
fn a_conversation_goes_on() {
    let tiny = tiny_model();
    let file = tiny.folder.path().join("chat.session");
    let file = file.to_str().unwrap();
    let common =
        ["-model", &tiny.model, "-template", "chatml", "-n", "6", "-ctx", "600", "-format", "json", "-seed", "1"];
    let say = |words: &[&str]| {
        let out = run(&[&common[..], words].concat()).ok().stdout;
        let object: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        object["statistics"]["prompt_tokens"].as_u64().unwrap()
    };
    let first = say(&["-p", "first question", "-session", file]);
    let second = say(&["-p", "first question", "-session", file]);
    // The second question stands behind the first and its answer. Were those evaluated again, it
    // would be twice as many tokens and more.
    assert!(second + first / 4 < 2 * first, "{first}, then {second}");
    let messages = |file: &str| {
        let bytes = std::fs::read(file).unwrap();
        let at = bytes.windows(9).position(|window| window == b"{\"kind\":\"").unwrap();
        let note: serde_json::Value =
            serde_json::Deserializer::from_slice(&bytes[at..]).into_iter().next().unwrap().unwrap();
        note["messages"].as_array().unwrap().len()
    };
    assert_eq!(messages(file), 4);
    // A chat goes on with it, and keeps it when nothing is said.
    let chat = ["-model", &tiny.model, "-template", "chatml", "-i", "-session", file, "-n", "6", "-ctx", "600"];
    run(&chat).ok();
    assert_eq!(messages(file), 4);
    // Nothing is written where nothing was said, and a place that is none is refused before a word.
    let unused = tiny.folder.path().join("unused.session");
    run(&["-model", &tiny.model, "-template", "chatml", "-i", "-session", unused.to_str().unwrap()]).ok();
    assert!(!unused.exists());
    let nowhere = tiny.folder.path().join("nowhere/x");
    let refused = run(&[&common[..], &["-p", "x", "-session", nowhere.to_str().unwrap()]].concat());
    assert!(refused.code != 0 && refused.stdout.is_empty(), "{}", refused.stdout);
    assert!(refused.stderr.contains("there is no folder"), "{}", refused.stderr);
    assert!(run(&["-help"]).ok().stdout.contains("-session"));
}
