//! Tokens that are more than text: control tokens, user-defined tokens, and those that end a
//! generation.
//!
//! GGUF files mark them only in part. llama.cpp recognises the rest by their text, and files are
//! written for that, so the same names are recognised here.

use modelembed_gguf::Gguf;

use crate::vocab::{Vocab, attr};

/// Texts of end-of-turn tokens, best first.
const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Texts of tokens that end a generation, besides those of [`END_OF_TURN`].
const END_OF_GENERATION: &[&str] = &[
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "</s>",
    "<|eom_id|>",
    "[EOS]",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
];

/// Markers of fill-in-the-middle: metadata keys and texts. Models that have them for code also end
/// a generation with some.
struct Marker {
    keys: &'static [&'static str],
    texts: &'static [&'static str],
    ends_generation: bool,
}

const MARKERS: &[Marker] = &[
    Marker { keys: &["tokenizer.ggml.eom_token_id"], texts: &["<|eom_id|>"], ends_generation: true },
    Marker {
        keys: &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
        texts: &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        ends_generation: false,
    },
    Marker {
        keys: &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
        texts: &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        ends_generation: false,
    },
    Marker {
        keys: &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
        texts: &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        ends_generation: false,
    },
    Marker {
        keys: &["tokenizer.ggml.fim_pad_token_id"],
        texts: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        ends_generation: true,
    },
    Marker {
        keys: &["tokenizer.ggml.fim_rep_token_id"],
        texts: &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        ends_generation: true,
    },
    Marker { keys: &["tokenizer.ggml.fim_sep_token_id"], texts: &["<|file_sep|>"], ends_generation: true },
];

/// Tokens of gpt-oss that are shown although they are control tokens.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Which whitespace next to a special token belongs to it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Strip {
    pub(crate) left: bool,
    pub(crate) right: bool,
}

/// What metadata says that is needed here; read at load, used by the first text.
pub(crate) struct Facts {
    pub(crate) eos: Option<u32>,
    pub(crate) eot: Option<u32>,
    markers: Vec<Option<u32>>, // one for each of MARKERS
    strips: StripRule,
}

/// Models whose special tokens take neighbouring whitespace; files do not say it, so it goes by
/// name.
#[derive(Clone, Copy, PartialEq)]
enum StripRule {
    None,
    /// Whitespace on the left of this token.
    LeftOf(&'static str),
    /// Whitespace on the right of all but a few (Phi-3).
    RightOfMost,
}

impl Facts {
    /// `id_of` reads an id from metadata.
    pub(crate) fn new<E>(
        gguf: &Gguf,
        eos: Option<u32>,
        mut id_of: impl FnMut(&'static str) -> Result<Option<u32>, E>,
    ) -> Result<Facts, E> {
        let mut markers = Vec::new();
        for marker in MARKERS {
            let mut id = None;
            for key in marker.keys {
                id = id_of(key)?.or(id);
            }
            markers.push(id);
        }
        Ok(Facts { eos, eot: id_of("tokenizer.ggml.eot_token_id")?, markers, strips: strip_rule(gguf) })
    }
}

fn strip_rule(gguf: &Gguf) -> StripRule {
    let text = |key| gguf.str(key).ok().flatten().unwrap_or_default();
    let (pre, arch) = (text("tokenizer.ggml.pre"), text("general.architecture"));
    let name = text("general.name").to_lowercase();
    let any = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if any(pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"]) || any(arch, &["nomic-bert-moe", "jina-bert-v3"]) {
        StripRule::LeftOf("<mask>")
    } else if any(&name, &["phi-3", "phi3"]) {
        StripRule::RightOfMost
    } else if name.contains("modern-bert") {
        StripRule::LeftOf("[MASK]")
    } else {
        StripRule::None
    }
}

/// The special tokens of a vocabulary.
pub(crate) struct Specials {
    /// Kinds that differ from the file's, by id.
    changed: Vec<(u32, u8)>,
    /// Ids that end a generation, in order.
    eog: Vec<u32>,
    pub(crate) eot: Option<u32>,
    /// Every special token with its strip rule, by length (longest first), then by id.
    pub(crate) tokens: Vec<(u32, Strip)>,
}

impl Specials {
    pub(crate) fn new(vocab: &Vocab, facts: &Facts) -> Specials {
        let mut specials = Specials { changed: Vec::new(), eog: Vec::new(), eot: facts.eot, tokens: Vec::new() };
        specials.recognise(vocab, facts);
        specials.correct(vocab);
        specials.tokens = (0..vocab.len() as u32)
            .filter(|&id| specials.attr(vocab, id) & (attr::CONTROL | attr::USER_DEFINED | attr::UNKNOWN) != 0)
            .filter(|&id| !vocab.token(id).is_empty())
            .map(|id| (id, Strip::default()))
            .collect();
        specials.tokens.sort_by_key(|&(id, _)| std::cmp::Reverse(vocab.token(id).len()));
        for (id, strip) in &mut specials.tokens {
            let text = vocab.token(*id);
            match facts.strips {
                StripRule::None => {}
                StripRule::LeftOf(token) => strip.left = text == token.as_bytes(),
                StripRule::RightOfMost => strip.right = ![&b"<unk>"[..], b"<s>", b"<|endoftext|>"].contains(&text),
            }
        }
        specials
    }

    fn recognise(&mut self, vocab: &Vocab, facts: &Facts) {
        let first = |texts: &[&str]| texts.iter().find_map(|text| vocab.find(text.as_bytes()));
        for (marker, &stored) in MARKERS.iter().zip(&facts.markers) {
            let found = if stored.is_none() { first(marker.texts) } else { None };
            if let Some(id) = found {
                self.make_control(vocab, id);
            }
            if let Some(id) = stored.or(found).filter(|_| marker.ends_generation) {
                self.eog.push(id);
            }
        }
        for id in END_OF_TURN.iter().chain(END_OF_GENERATION).filter_map(|text| vocab.find(text.as_bytes())) {
            self.make_control(vocab, id);
            self.eog.push(id);
        }
        self.eot = facts.eot.or_else(|| first(END_OF_TURN));
        for id in SHOWN.iter().filter_map(|text| vocab.find(text.as_bytes())) {
            self.set(id, attr::USER_DEFINED);
        }
        self.eog.extend(facts.eos);
        self.eog.extend(self.eot);
        self.eog.sort_unstable();
        self.eog.dedup();
    }

    /// Texts that end a generation in most models, but not in some.
    fn correct(&mut self, vocab: &Vocab) {
        let ends = |text: &str| vocab.find(text.as_bytes()).filter(|id| self.eog.binary_search(id).is_ok());
        let has = |text: &str| ends(text).is_some();
        let call = has("<|call|>") || has("<|calls|>");
        let harmony = call && (has("<|return|>") || has("<|flush|>"));
        let plain_s = has("<|tool_response>") || has("<|plamo:eos|>");
        let end = ends("<|end|>").filter(|_| harmony).map(|id| (id, attr::USER_DEFINED));
        let s = ends("</s>").filter(|_| plain_s).map(|id| (id, attr::NORMAL));
        for (id, attr) in [end, s].into_iter().flatten() {
            self.eog.retain(|&other| other != id);
            self.set(id, attr);
        }
    }

    fn make_control(&mut self, vocab: &Vocab, id: u32) {
        let seen = self.attr(vocab, id);
        if seen & attr::CONTROL == 0 {
            self.set(id, seen | attr::CONTROL);
        }
    }

    fn set(&mut self, id: u32, attr: u8) {
        match self.changed.binary_search_by_key(&id, |&(other, _)| other) {
            Ok(at) => self.changed[at].1 = attr,
            Err(at) => self.changed.insert(at, (id, attr)),
        }
    }

    /// The kind of a token, in bits of [`attr`].
    pub(crate) fn attr(&self, vocab: &Vocab, id: u32) -> u8 {
        match self.changed.binary_search_by_key(&id, |&(other, _)| other) {
            Ok(at) => self.changed[at].1,
            Err(_) => vocab.stored_attr(id),
        }
    }

    pub(crate) fn is_eog(&self, id: u32) -> bool {
        self.eog.binary_search(&id).is_ok()
    }

    /// Ids that end a generation, ascending.
    pub(crate) fn eog(&self) -> &[u32] {
        &self.eog
    }
}
