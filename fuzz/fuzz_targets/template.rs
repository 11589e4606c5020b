//! Any text as a chat template: it renders or fails within its budget, and an error shows no
//! control characters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelembed_text::chat::{ChatTemplate, Message, SpecialTokens};

fuzz_target!(|source: &str| {
    let special = SpecialTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), ..SpecialTokens::default() };
    let template = match ChatTemplate::with_fixed_time(source, special, 1_700_000_000) {
        Ok(template) => template,
        Err(error) => return drop(error.to_string()),
    };
    let messages = [("system", "Be brief."), ("user", "Hi {{ 1 }} \u{1b}[2J"), ("assistant", "Ho"), ("user", "")];
    let messages = messages.map(|(role, content)| Message::new(role, content));
    for n in [0, 2, 4] {
        for prompt in [false, true] {
            match template.render(&messages[..n], prompt) {
                // The bound of `Budget`: one megabyte and four times what was said.
                Ok(text) => assert!(text.len() <= (1 << 20) + 4 * 200, "{} bytes", text.len()),
                Err(error) => drop(error.to_string()),
            }
        }
    }
});
