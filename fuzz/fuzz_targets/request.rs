//! Bodies of requests: the first byte chooses who reads, the rest is the body. Whatever comes is an
//! error that names something, or a request whose messages a guard keeps from becoming control
//! tokens.

#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use modelembed_gguf::{Gguf, SharedBytes};
use modelembed_server::{Body, read_body};
use modelembed_testkit::{TINY_VOCAB, tiny, tiny_spec};
use modelembed_text::chat::{ChatTemplate, Guard, SpecialTokens};
use modelembed_text::Tokenizer;

struct Setting {
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

fn setting() -> &'static Setting {
    static SETTING: OnceLock<Setting> = OnceLock::new();
    SETTING.get_or_init(|| {
        let file = tiny(&tiny_spec("llama"));
        let gguf = Gguf::parse(&file, file.len() as u64).unwrap();
        let header: SharedBytes = Arc::new(file);
        let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ tools | tojson }}";
        Setting {
            tokenizer: Tokenizer::from_gguf(&gguf, header).unwrap(),
            template: ChatTemplate::new(source, SpecialTokens::default()).unwrap(),
        }
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, body)) = input.split_first() else { return };
    let kind = if kind & 1 == 0 { Body::Chat } else { Body::Completion };
    match read_body(kind, body, TINY_VOCAB) {
        Err(error) => assert!(!error.message.is_empty() && error.status.is_client_error()),
        Ok(None) => {}
        Ok(Some((messages, variables))) => {
            let Setting { tokenizer, template } = setting();
            let Ok(rendered) = Guard::new(tokenizer).render_json(template, messages, variables, true) else { return };
            let ids = rendered.encode(tokenizer).unwrap();
            let bos = usize::from(ids.first() == tokenizer.bos().as_ref());
            assert!(!ids[bos..].iter().any(|&id| tokenizer.is_control(id)), "{:?}", rendered.text());
        }
    }
});
