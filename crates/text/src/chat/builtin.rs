//! Templates of well-known families, for models that carry none or a broken one.

use super::{ChatTemplate, SpecialTokens, TemplateError};

/// A template that comes with the program.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// What it is asked for by.
    pub name: &'static str,
    /// The Jinja source.
    pub source: &'static str,
    /// Texts that end an answer.
    pub stop: &'static [&'static str],
    /// The tokens that a vocabulary must all hold for this template to be the family's. Empty:
    /// never chosen by tokens.
    pub tokens: &'static [&'static str],
    /// Words, one of which the model's architecture or name contains in the absence of any telling
    /// token.
    pub names: &'static [&'static str],
}

macro_rules! source {
    ($name:literal) => {
        include_str!(concat!("templates/", $name, ".jinja"))
    };
}

/// All built-in templates. The order is that of the search: a family whose tokens include another's
/// stands before it.
pub const BUILTINS: &[Builtin] = &[
    Builtin {
        name: "llama4",
        source: source!("llama4"),
        stop: &["<|eot|>"],
        tokens: &["<|header_start|>", "<|header_end|>", "<|eot|>"],
        names: &["llama-4", "llama 4", "llama4"],
    },
    Builtin {
        name: "kimi-k2",
        source: source!("kimi-k2"),
        stop: &["<|im_end|>"],
        tokens: &["<|im_user|>", "<|im_assistant|>", "<|im_middle|>"],
        names: &["kimi"],
    },
    Builtin {
        name: "glm4",
        source: source!("glm4"),
        stop: &["<|user|>", "<|observation|>", "<|endoftext|>"],
        tokens: &["[gMASK]", "<sop>", "<|user|>", "<|assistant|>"],
        names: &["glm-4", "glm4"],
    },
    Builtin {
        name: "exaone",
        source: source!("exaone"),
        stop: &["[|endofturn|]"],
        tokens: &["[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"],
        names: &["exaone-3", "exaone-4", "exaone 3", "exaone 4"],
    },
    Builtin {
        name: "seed-oss",
        source: source!("seed-oss"),
        stop: &["<seed:eos>"],
        tokens: &["<seed:bos>", "<seed:eos>"],
        names: &["seed-oss", "seed_oss"],
    },
    Builtin {
        name: "bailing2",
        source: source!("bailing2"),
        stop: &["<|role_end|>"],
        tokens: &["<role>", "</role>", "<|role_end|>"],
        names: &["ling-2", "ring-2"],
    },
    Builtin {
        name: "bailing",
        source: source!("bailing"),
        stop: &["<|endoftext|>"],
        tokens: &["<role>", "</role>"],
        names: &["ling-lite", "ling-plus"],
    },
    Builtin {
        name: "minicpm",
        source: source!("minicpm"),
        stop: &["</s>"],
        tokens: &["<用户>", "<AI>"],
        names: &["minicpm"],
    },
    Builtin {
        name: "megrez",
        source: source!("megrez"),
        stop: &["<|turn_end|>"],
        tokens: &["<|role_start|>", "<|role_end|>", "<|turn_end|>"],
        names: &["megrez"],
    },
    Builtin {
        name: "solar-open",
        source: source!("solar-open"),
        stop: &["<|end|>", "<|flush|>", "<|calls|>"],
        tokens: &["<|begin|>", "<|content|>", "<|end|>"],
        names: &["solar-open", "solar open"],
    },
    Builtin {
        name: "openchat",
        source: source!("openchat"),
        stop: &["<|end_of_turn|>"],
        tokens: &["<|end_of_turn|>"],
        names: &["openchat", "starling"],
    },
    Builtin {
        name: "llama3",
        source: source!("llama3"),
        stop: &["<|eot_id|>"],
        tokens: &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        names: &["llama-3", "llama 3", "llama3"],
    },
    Builtin {
        name: "phi4",
        source: source!("phi4"),
        stop: &["<|im_end|>"],
        tokens: &["<|im_start|>", "<|im_sep|>", "<|im_end|>"],
        names: &["phi-4", "phi4"],
    },
    Builtin {
        name: "chatml",
        source: source!("chatml"),
        stop: &["<|im_end|>"],
        tokens: &["<|im_start|>", "<|im_end|>"],
        names: &["qwen", "smollm", "hermes", "chatml"],
    },
    Builtin {
        name: "gemma",
        source: source!("gemma"),
        stop: &["<end_of_turn>"],
        tokens: &["<start_of_turn>", "<end_of_turn>"],
        names: &["gemma"],
    },
    Builtin {
        name: "command-r",
        source: source!("command-r"),
        stop: &["<|END_OF_TURN_TOKEN|>"],
        tokens: &["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"],
        names: &["command-r", "cohere"],
    },
    Builtin {
        name: "deepseek",
        source: source!("deepseek"),
        stop: &["<｜end▁of▁sentence｜>", "<｜User｜>"],
        tokens: &["<｜User｜>", "<｜Assistant｜>"],
        names: &["deepseek"],
    },
    Builtin {
        name: "granite",
        source: source!("granite"),
        stop: &["<|end_of_text|>"],
        tokens: &["<|start_of_role|>", "<|end_of_role|>"],
        names: &["granite"],
    },
    Builtin {
        name: "phi3",
        source: source!("phi3"),
        stop: &["<|end|>"],
        tokens: &["<|user|>", "<|assistant|>", "<|end|>"],
        names: &["phi-3", "phi3"],
    },
    Builtin {
        name: "mistral-tekken",
        source: source!("mistral-tekken"),
        stop: &["</s>"],
        tokens: &["[INST]", "[/INST]", "[IMG]"],
        names: &["nemo", "ministral", "pixtral"],
    },
    Builtin {
        name: "mistral",
        source: source!("mistral"),
        stop: &["</s>"],
        tokens: &["[INST]", "[/INST]"],
        names: &["mistral", "mixtral"],
    },
    Builtin {
        name: "falcon3",
        source: source!("falcon3"),
        stop: &["<|endoftext|>", "<|user|>"],
        tokens: &[],
        names: &["falcon3", "falcon-3", "falcon 3"],
    },
    Builtin {
        name: "zephyr",
        source: source!("zephyr"),
        stop: &["</s>", "<|user|>"],
        tokens: &["<|user|>", "<|assistant|>"],
        names: &["zephyr", "tinyllama", "stablelm"],
    },
    Builtin { name: "vicuna", source: source!("vicuna"), stop: &["</s>", "USER:"], tokens: &[], names: &["vicuna"] },
    Builtin {
        name: "alpaca",
        source: source!("alpaca"),
        stop: &["</s>", "### Instruction:"],
        tokens: &[],
        names: &["alpaca", "wizard"],
    },
    Builtin {
        name: "llama2",
        source: source!("llama2"),
        stop: &["</s>", "[INST]"],
        tokens: &["<<SYS>>"],
        names: &["llama-2", "llama 2", "llama2"],
    },
];

/// Longest name that an error repeats.
const MOST_NAME_CHARS: usize = 60;

/// The built-in template called `name`.
///
/// # Errors
/// [`TemplateError::Unknown`], which lists all names.
pub fn builtin(name: &str, special: SpecialTokens) -> Result<ChatTemplate, TemplateError> {
    match BUILTINS.iter().find(|builtin| builtin.name.eq_ignore_ascii_case(name)) {
        Some(builtin) => builtin.template(special),
        None => {
            let known: Vec<&str> = BUILTINS.iter().map(|builtin| builtin.name).collect();
            // It may be a whole text that was taken for a name.
            let mut shown: String = name.chars().take(MOST_NAME_CHARS).collect();
            if shown.len() < name.len() {
                shown.push_str("...");
            }
            Err(TemplateError::Unknown { name: shown, known: known.join(", ") })
        }
    }
}

impl Builtin {
    /// Compiles it for a vocabulary.
    ///
    /// # Errors
    /// None for the templates of [`BUILTINS`]; a unit test compiles them all.
    pub fn template(&self, special: SpecialTokens) -> Result<ChatTemplate, TemplateError> {
        Ok(ChatTemplate::new(self.source, special)?.with_stop(self.stop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;

    #[test]
    fn every_builtin_compiles_and_keeps_what_was_said() {
        let messages = [("system", "SYS"), ("user", "ONE"), ("assistant", "TWO"), ("user", "THREE")];
        let messages: Vec<Message> = messages.map(|(role, content)| Message::new(role, content)).into();
        for b in BUILTINS {
            let special = SpecialTokens { bos: Some("<B>".into()), eos: Some("<E>".into()), ..Default::default() };
            let text = builtin(b.name, special).unwrap().render(&messages, true).unwrap();
            let order: Vec<_> = messages.iter().map(|m| text.find(&m.content)).collect();
            assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{}: {text:?}", b.name);
        }
    }

    #[test]
    fn a_family_is_found_before_those_whose_tokens_it_contains() {
        for (i, a) in BUILTINS.iter().enumerate() {
            for b in &BUILTINS[i + 1..] {
                let hides = !a.tokens.is_empty() && a.tokens.iter().all(|token| b.tokens.contains(token));
                assert!(!hides, "{} hides {}", a.name, b.name);
            }
        }
    }
}
