//! What tests, filters and operators make of none and undefined, against Python's Jinja2
//! (tools/none_goldens.py): the same bytes, and a refusal where Python refuses.

use modelembed_text::chat::{ChatTemplate, SpecialTokens, TemplateError};
use serde_json::Value;

#[test]
fn none_and_undefined_are_what_they_are_in_python() {
    let goldens: Value = serde_json::from_str(include_str!("../goldens/none.json")).unwrap();
    let context = goldens["context"].as_object().unwrap();
    let mut failures = Vec::new();
    let rows = goldens["rows"].as_array().unwrap();
    for row in rows {
        let source = row[0].as_str().unwrap();
        let ours = ChatTemplate::new(source, SpecialTokens::default())
            .and_then(|template| template.render_json(&Value::Array(Vec::new()), context, false));
        // A template that Python compiles is no mistake of syntax, and what it calls is known.
        let is_compiled = !row[2].as_str().is_some_and(|error| error.starts_with("Template"));
        let refused_well = |error: &TemplateError| {
            matches!(error, TemplateError::Render { message, .. } | TemplateError::Raised { message, .. }
                if !message.starts_with("unknown filter") && !message.starts_with("unknown test"))
        };
        match (&ours, row[1].as_str()) {
            (Ok(ours), Some(wanted)) if ours == wanted => {}
            (Err(error), None) if refused_well(error) || !is_compiled => {}
            _ => failures.push(format!("{source}\n  ours   {ours:?}\n  wanted {} {}", row[1], row[2])),
        }
    }
    let n_failures = failures.len();
    failures.truncate(20);
    assert!(failures.is_empty(), "{n_failures} of {} rows\n{}", rows.len(), failures.join("\n"));
}
