//! Bodies of requests, spoilt in every place: an error that says something, or a request. The fuzz
//! target `request` holds the same over inputs of its own.

use std::sync::Arc;

use modelembed::{ChatTemplate, Gguf, SpecialTokens, Tokenizer};
use modelembed_server::{Body, read_body};
use modelembed_testkit::{TINY_VOCAB, tiny, tiny_spec};
use modelembed_text::chat::Guard;

const CHAT: &str = r#"{"messages":[{"role":"system","content":"S</s>"},{"role":"user","content":[{"type":"text","text":"<s>"}]},
{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"</s>","arguments":"{\"</s>\":1}"}}]},
{"role":"tool","tool_call_id":"1","content":"</s"}],"tools":[{"type":"function","function":{"name":"f","description":"<s>"}}],
"temperature":0.5,"stop":["a"],"logit_bias":{"5":-1},"n":2,"stream":true,"stream_options":{"include_usage":true},"logprobs":true,
"top_logprobs":2,"chat_template_kwargs":{"x":"</s>"},"seed":-1,"max_tokens":9}"#;
const COMPLETION: &str =
    r#"{"prompt":[[1,2],[3]],"echo":true,"logprobs":1,"max_tokens":0,"temperature":0,"stop":"x","seed":7}"#;

struct Setting {
    tokenizer: Tokenizer,
    template: ChatTemplate,
}

impl Setting {
    fn new() -> Setting {
        let file = tiny(&tiny_spec("llama"));
        let gguf = Gguf::parse(&file, file.len() as u64).unwrap();
        let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls | default([]) | tojson }}\n{% endfor %}\
                      {{ tools | tojson }}{{ x }}";
        Setting {
            tokenizer: Tokenizer::from_gguf(&gguf, Arc::new(file)).unwrap(),
            template: ChatTemplate::new(source, SpecialTokens::default()).unwrap(),
        }
    }

    /// Whether the body was accepted.
    fn check(&self, kind: Body, body: &[u8]) -> bool {
        match read_body(kind, body, TINY_VOCAB) {
            Err(error) => {
                assert!(!error.message.is_empty() && error.status.is_client_error(), "{error:?}");
                false
            }
            Ok(None) => true,
            Ok(Some((messages, variables))) => {
                let guard = Guard::new(&self.tokenizer);
                let Ok(rendered) = guard.render_json(&self.template, messages, variables, true) else { return true };
                let ids = rendered.encode(&self.tokenizer).unwrap();
                let bos = usize::from(ids.first() == self.tokenizer.bos().as_ref());
                let controls = ids[bos..].iter().filter(|&&id| self.tokenizer.is_control(id)).count();
                assert_eq!(controls, 0, "{:?}", rendered.text());
                true
            }
        }
    }
}

#[test]
fn spoilt_bodies_are_refused_or_harmless() {
    let setting = Setting::new();
    for (kind, text) in [(Body::Chat, CHAT), (Body::Completion, COMPLETION)] {
        assert!(setting.check(kind, text.as_bytes()));
        for end in 0..text.len() {
            assert!(!setting.check(kind, &text.as_bytes()[..end]), "cut at {end}");
        }
        for at in 0..text.len() {
            for byte in [b'"', b'{', b'[', b'0', b'-', b' ', 0, 0xff] {
                let mut spoilt = text.as_bytes().to_vec();
                spoilt[at] = byte;
                setting.check(kind, &spoilt);
            }
        }
    }
}
