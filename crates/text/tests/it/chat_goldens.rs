//! Chat templates against Python's Jinja2 (tools/template_goldens.py), byte for byte, and against
//! hostile sources.

use modelembed_text::chat::{ChatTemplate, Message, SpecialTokens, TemplateError, builtin};
use serde_json::Value;

fn special(goldens: &Value) -> SpecialTokens {
    let text = |name: &str| goldens["special"][name].as_str().map(str::to_string);
    SpecialTokens { bos: text("bos_token"), eos: text("eos_token"), unk: text("unk_token"), pad: text("pad_token") }
}

#[test]
fn renders_what_transformers_renders() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/chat.json")).unwrap();
    let mut failures = Vec::new();
    for case in goldens["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let source = goldens["templates"][name].as_str().unwrap();
        let template = ChatTemplate::with_fixed_time(source, special(&goldens), goldens["now"].as_i64().unwrap());
        let conversation = &goldens["conversations"][case["conversation"].as_str().unwrap()];
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        let ours = template.and_then(|template| {
            template.render_json(&conversation["messages"], conversation["extra"].as_object().unwrap(), prompt)
        });
        let what = format!("{name}, {}, prompt {prompt}", case["conversation"]);
        match (ours, case["text"].as_str(), case["error"].as_str()) {
            (Ok(ours), Some(wanted), _) if ours == wanted => {}
            (Ok(ours), Some(wanted), _) => failures.push(format!("{what}: {}", differences(&ours, wanted))),
            (Err(TemplateError::Raised { message, .. }), _, Some(error)) if message == error => {}
            // Python's and our words for a failed operation differ; that it fails does not.
            (Err(TemplateError::Render { .. }), _, Some(_)) => {}
            (ours, _, error) => failures.push(format!("{what}: {ours:?} but {error:?}")),
        }
    }
    failures.truncate(5);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn differences(ours: &str, wanted: &str) -> String {
    let rows: Vec<String> = (ours.lines().zip(wanted.lines()).enumerate())
        .filter(|(_, (a, b))| a != b)
        .map(|(i, (ours, wanted))| format!("\n line {}\n  ours   {ours:?}\n  wanted {wanted:?}", i + 1))
        .collect();
    if rows.is_empty() { format!("lengths differ: ours {ours:?}\n wanted {wanted:?}") } else { rows.concat() }
}

#[test]
fn plain_messages_render_as_their_json_does() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/chat.json")).unwrap();
    let source = goldens["templates"]["qwen3_style"].as_str().unwrap();
    let template = ChatTemplate::new(source, special(&goldens)).unwrap();
    let messages = [Message::new("system", "S"), Message::new("user", "Hi")];
    let json = serde_json::json!([{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]);
    assert_eq!(template.render(&messages, true), template.render_json(&json, &serde_json::Map::new(), true));
}

#[test]
fn built_in_templates_write_what_llama_cpp_writes() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/chat.json")).unwrap();
    let peers = &goldens["llama_cpp"];
    let texts = peers["texts"].as_object().unwrap();
    assert!(texts.len() > 15);
    let failed: Vec<String> = texts
        .iter()
        .filter_map(|(name, want)| {
            let template = builtin(name, SpecialTokens::default()).unwrap();
            let got = template.render_json(&peers["messages"], &serde_json::Map::new(), true).unwrap();
            (got != want.as_str().unwrap()).then(|| format!("{name}: {got:?}, llama.cpp writes {want}"))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_template_without_a_place_for_a_system_message_is_known() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/chat.json")).unwrap();
    let mute = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}";
    let sources = goldens["templates"].as_object().unwrap();
    let rows = (sources.iter().filter(|(name, _)| name.ends_with("_style") || name.starts_with("builtin/")))
        .map(|(name, source)| (name.as_str(), source.as_str().unwrap(), name != "no_system_style"))
        .chain([
            ("mute", mute, false),
            ("broken", "{{ nope() }}", true),
            ("of no role", "{% for m in messages %}{{ m.content }}{% endfor %}", true),
        ]);
    let failed: Vec<&str> = rows
        .filter(|(_, source, wanted)| ChatTemplate::new(source, special(&goldens)).unwrap().takes_system() != *wanted)
        .map(|(name, ..)| name)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn hostile_templates_end_with_an_error_that_names_the_line() {
    let deep = format!("{{{{ {}", "(".repeat(100_000));
    let nested = "{% if true %}".repeat(50_000);
    let list = format!("{{{{ {}1{} }}}}", "[".repeat(5_000), "]".repeat(5_000));
    // A list that holds itself twice, 60 deep: 2^60 items when printed.
    let bomb = |use_it: &str| {
        format!(
            "{{% set ns = namespace(x=[1]) %}}{{% for i in range(60) %}}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{use_it}"
        )
    };
    let bombs = [
        "{{ ns.x }}",
        "{{ ns.x | tojson }}",
        "{{ ns.x | tojson(sort_keys=true, indent=1) }}",
        "{{ '{}'.format(ns.x) }}",
        "{{ ','.join(ns.x) }}",
        "{{ raise_exception(ns.x) }}",
        "{{ strftime_now(ns.x) }}",
        "{{ ns.x ~ '' }}",
        "{{ ns.x|string }}",
        "{{ ns.x|join }}",
        "{{ ns.x|upper }}",
        "{{ ns.x|sort }}",
        "{{ ns.x == [ns.x] }}",
        "{{ [ns.x] in ns.x }}",
        "{{ ns.x < [ns.x] }}",
        "{{ ns.x == [ns.x] == 1 }}",
        "{{ ns.x is lt(ns.x) }}",
        "{{ ns.x|center }}",
        "{{ ns.x|pprint }}",
        "{{ [ns.x, ns.x]|max }}",
        "{{ {(ns.x): 1} }}",
    ]
    .map(bomb);
    // The same without a list that names itself twice, and values without end.
    let makers = [
        "dict(a=ns.x, b=ns.x)",
        "{'a': ns.x, 'b': ns.x}",
        "(ns.x, ns.x)",
        "ns.x, ns.x",
        "[ns.x] * 2",
        "2 * [ns.x]",
        "[ns.x] + [ns.x]",
        "[ns.x, 1]|batch(3, ns.x)|list",
        "[1, 1]|map(attribute='a', default=ns.x)|list",
        "[ns.x]",
        "ns",
        "(ns)",
        "ns if true else 1",
        "loop.cycle(ns)",
        "(loop).cycle(ns)",
        "{}.get('a', ns)",
        "[ns]",
        "dict(a=ns)",
        "namespace(a=ns)",
    ]
    .map(|made| format!("{{% set ns = namespace(x=[1]) %}}{{% for i in range(4000) %}}{{% set ns.x = {made} %}}{{% endfor %}}{{{{ ns ~ '' }}}}"));
    let rows: &[(&str, &str)] = &[
        ("\n{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "line 2"),
        ("{% for a in range(9999999999) %}x{% endfor %}", "line 1"),
        ("\n\n{{ 'x' * 99999999999 }}", "line 3"),
        (
            "{% set ns = namespace(x='abcdefgh') %}{% for i in range(90) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "line 1",
        ),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "line 1"),
        ("{% for a in range(90000) %}{{ 'some words that are repeated' }}{% endfor %}", "longer than"),
        ("{{ messages | tojson(indent=99999999) }}", "indent"),
        ("{{ '%999999999d' | format(1) }}", "line 1"),
        ("{{ '{:>999999999}'.format(1) }}", "line 1"),
        ("{{ 'aaaaaaaa'.replace('a', 'a' * 100000).replace('a', 'b' * 100000) }}", "line 1"),
        ("{{ 'x'|center(99999999) }}", "width"),
        ("{{ 'x'|indent(99999999) }}", "width"),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(99999) %}{% set ns.x = ns.x|indent(60000, true) %}{% endfor %}",
            "line 1",
        ),
        ("{{ none|list }}", "None is not iterable"),
        ("{% for x in tools %}{% endfor %}", "None is not iterable"),
        ("{{ missing < 1 }}", "< between undefined and int"),
        ("{{ strftime_now('%9999999999999d') }}", "strftime_now"),
        ("{{ strftime_now('%Q%') }}", "strftime_now"),
        ("{{ raise_exception('\u{1b}[2Jgone') }}", "[2Jgone"),
        ("line\n{% for %}", "line 2"),
        ("{% if true %}\n\nnever closed", "line"),
        ("{{ ", "line 1"),
        ("{% include '/etc/passwd' %}", "line 1"),
        ("{% import 'x' as y %}", "line 1"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "line 1"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "line 1"),
        (&deep, "line 1"),
        (&nested, "line 1"),
        (&list, "line 1"),
    ];
    let mut failures = Vec::new();
    // Compiling recurses.
    let long: Vec<String> =
        ["+1", "~x", "**1", " and x", " if x else x", " or not x", "|e", ".a", "[0]", "<x", "-1", "//1", " in x"]
            .map(|step| format!("{{{{ x{} }}}}", step.repeat(60_000)))
            .into_iter()
            .chain(["not ", "-", "- "].map(|step| format!("{{{{ {}x }}}}", step.repeat(100_000))))
            .chain(["{% elif x %}", "{% else %}{% if x %}"].map(|tag| format!("{{% if x %}}{}", tag.repeat(20_000))))
            .collect();
    let long = long.iter().map(|source| (&**source, "line 1"));
    let makers = makers.iter().map(|source| (&**source, "chat template"));
    let bombs = bombs.iter().map(|source| (&**source, "chat template"));
    for (source, wanted) in rows.iter().copied().chain(bombs).chain(makers).chain(long) {
        let shown = source.chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<String>();
        let result = ChatTemplate::new(source, SpecialTokens::default())
            .and_then(|template| template.render(&[Message::new("user", "Hi")], true));
        match result {
            Err(error) if error.to_string().contains(wanted) && !error.to_string().contains('\u{1b}') => {}
            Err(error) => failures.push(format!("{shown}: {error}")),
            Ok(text) => failures.push(format!("{shown}: rendered {} bytes", text.len())),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_long_honest_conversation_fits_the_budget() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/chat.json")).unwrap();
    let messages: Vec<Message> =
        (0..2000).map(|i| Message::new(if i % 2 == 0 { "user" } else { "assistant" }, "word ".repeat(200))).collect();
    for (name, source) in goldens["templates"].as_object().unwrap() {
        if name == "python_semantics" {
            continue;
        }
        let template = ChatTemplate::new(source.as_str().unwrap(), special(&goldens)).unwrap();
        let text = template.render(&messages, true).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.len() > 1_900_000, "{name}: {} bytes", text.len());
    }
}
