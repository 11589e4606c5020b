//! The table of pre-tokenizers: which names (`tokenizer.ggml.pre`) mean which steps.
//!
//! Names, patterns and flags are those of llama.cpp (`llama-vocab.cpp`), which GGUF files are
//! written for.

use super::lexers::Llama3;
use super::pattern::Tail;

/// Inclusive ranges of characters.
pub(crate) type Ranges = &'static [(u32, u32)];

/// What may stand before a run of characters, as a part of the word.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Lead {
    Nothing,
    Space,
    Whitespace,
}

/// One way to cut pieces into smaller ones. A pre-tokenizer applies its steps one after the other.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    /// [`super::lexers::gpt2`]
    Gpt2,
    /// [`super::lexers::llama3`]
    Llama3(Llama3),
    /// [`super::lexers::lines`]
    Lines,
    /// [`super::lexers::digit_groups`]
    DigitGroups,
    /// [`super::lexers::thousands`]
    Thousands,
    /// [`super::lexers::kimi`]
    Kimi,
    /// A pattern over classes, and what becomes of other whitespace.
    Pattern(&'static str, Tail),
    /// Runs of characters that are all in one of the sets.
    Runs(Lead, &'static [Ranges]),
    /// Runs of characters that are neither whitespace nor in the set.
    RunsOutside(Lead, Ranges),
}

/// A pre-tokenizer: how text is cut into words before pairs are merged, and what else its name
/// implies.
pub(crate) struct PreTokenizer {
    /// Values of `tokenizer.ggml.pre`.
    pub(crate) names: &'static [&'static str],
    /// The steps.
    pub(crate) steps: &'static [Step],
    /// A word that is a token as a whole is that token, whatever the merges say.
    pub(crate) ignore_merges: bool,
    /// Whether BOS is added where the file does not say.
    pub(crate) add_bos: bool,
    /// BOS is token 11 where the file does not say (as in GPT-NeoX); with `false` there is none.
    pub(crate) default_bos: bool,
    /// Tokens are text with ▁ for a space, not GPT-2's alphabet of bytes.
    pub(crate) plain: Option<Plain>,
}

/// How vocabularies without GPT-2's alphabet differ.
#[derive(Clone, Copy)]
pub(crate) struct Plain {
    /// Spaces are ▁ in tokens.
    pub(crate) escape_spaces: bool,
    /// A word of line feeds only that is a token is that token.
    pub(crate) whole_newlines: bool,
    /// BOS is added even where the file says no.
    pub(crate) force_bos: bool,
}

const BASE: PreTokenizer =
    PreTokenizer { names: &[], steps: &[], ignore_merges: false, add_bos: false, default_bos: true, plain: None };

const LLAMA3: Step = Step::Llama3(Llama3 { digits: 3, marks: false });
const QWEN2: Step = Step::Llama3(Llama3 { digits: 1, marks: false });
const NUMBERS_1: Step = Step::Pattern(r"[\pN]", Tail::None);
const NUMBERS_3: Step = Step::Pattern(r"[\pN]{1,3}", Tail::None);
const NUMBERS: Step = Step::Pattern(r"[\pN]+", Tail::None);
const ASCII_DIGITS_3: Step = Step::Pattern("[0-9][0-9][0-9]", Tail::None);
const NEWLINE: Step = Step::Pattern(r"[\r\n]", Tail::None);

macro_rules! contraction {
    () => {
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    };
}

/// Words of letters: any number of `$upper` then some `$lower`, or some `$upper` then any number of
/// `$lower`. A letter without case is in both.
macro_rules! cased {
    ($upper:literal, $lower:literal, $suffix:expr) => {
        concat!(
            r"[^\r\n\pL\pN]?",
            $upper,
            "*",
            $lower,
            "+",
            $suffix,
            r"|[^\r\n\pL\pN]?",
            $upper,
            "+",
            $lower,
            "*",
            $suffix
        )
    };
}

macro_rules! rest_of_gpt4o {
    ($digits:literal) => {
        concat!("|[\\pN]", $digits, r"| ?[^\s\pL\pN]+[\r\n/]*|\s*[\r\n]+")
    };
}

const TEKKEN: Step = Step::Pattern(concat!(cased!(r"[A-Z\x82]", r"[a-z\x82]", ""), rest_of_gpt4o!("")), Tail::KeepLast);
const GPT_4O: Step = Step::Pattern(
    concat!(cased!(r"[A-Z\x82]", r"[a-z\x82]", concat!(contraction!(), "?")), rest_of_gpt4o!("{1,3}")),
    Tail::KeepLast,
);
const GRANITE_MULTI: Step = Step::Pattern(
    concat!(cased!(r"[A-Z\x82\pM]", r"[a-z\x82\pM]", concat!(contraction!(), "?")), rest_of_gpt4o!("{1,3}")),
    Tail::KeepLast,
);
const TINY_AYA: Step = Step::Pattern(
    concat!(cased!(r"[\pL\pM]", r"[\pL\pM]", concat!(contraction!(), "?")), rest_of_gpt4o!("{1,3}")),
    Tail::KeepLast,
);
const YOUTU: Step = Step::Pattern(
    concat!(cased!(r"[\pL\pM]", r"[\pL\pM]", concat!(contraction!(), "?")), rest_of_gpt4o!("")),
    Tail::KeepLast,
);

macro_rules! deepseek_words {
    () => {
        r"[!-/:-~&&[^A-Za-z]][A-Za-z]+|[^\r\n\pL\pP\pS]?[\pL\pM]+| ?[\pP\pS]+"
    };
}
const DEEPSEEK_V3: Step = Step::Pattern(concat!(deepseek_words!(), r"[\r\n]*|\s*[\r\n]+"), Tail::KeepLast);
const SPARK: Step = Step::Pattern(concat!(deepseek_words!(), r"|[\r\n]"), Tail::KeepLast);

const JAIS_2: Step = Step::Pattern(
    concat!(contraction!(), r"|[^\r\n\pL\pN]?[\pL]+|[\pN]{1,3}| ?[^\s\pL\pN]+[\r\n]*|\s*[\r\n]+"),
    Tail::Cascade,
);
const BAILING: Step = Step::Pattern(
    concat!(contraction!(), r"|[^\r\n\pL\pN]?[\pL]+|[\pN]| ?[^\s\pL\pN]+[\r\n]*|\s*[\r\n]"),
    Tail::KeepLast,
);
const SEED_CODER: Step = Step::Pattern(
    concat!(contraction!(), r"|[^\r\n\pL\pN]?[\pL]+|[\pN]| ?[^\s\pL\pN\r\n]+|\s*[\r\n]+"),
    Tail::KeepLast,
);
const UFAKZEKA: Step = Step::Pattern(r"[^\r\n\pL\pN]?[\pL]+|[\pN]| ?[^\s\pL\pN]+[\r\n]*|\s*[\r\n]+", Tail::KeepLast);
const EXAONE_MOE: Step = Step::Pattern(
    concat!(contraction!(), r"|[^\r\n\pL\pN]?(?:[\pL][\pM]*(?: [\pL][\pM]*)*)+|[\pN]| ?[^\s\pL\pN]+[\r\n/]?|\s*[\r\n]"),
    Tail::KeepLast,
);

/// Letters that have case, as DeepSeek's tokenizer lists them (scripts of an older Unicode).
#[rustfmt::skip]
const CASED_LETTERS: Ranges = &[
    (0x41, 0x5a), (0x61, 0x7a), (0xb5, 0xb5), (0xc0, 0xd6), (0xd8, 0xf6), (0xf8, 0x1ba), (0x1bc, 0x1bf),
    (0x1c4, 0x293), (0x295, 0x2af), (0x370, 0x373), (0x376, 0x377), (0x37b, 0x37d), (0x37f, 0x37f), (0x386, 0x386),
    (0x388, 0x38a), (0x38c, 0x38c), (0x38e, 0x3a1), (0x3a3, 0x3f5), (0x3f7, 0x481), (0x48a, 0x52f), (0x531, 0x556),
    (0x10a0, 0x10c5), (0x13a0, 0x13f5), (0x13f8, 0x13fd), (0x1c90, 0x1cba), (0x1cbd, 0x1cbf), (0x1d00, 0x1d2b),
    (0x1d6b, 0x1d77), (0x1d79, 0x1d9a), (0x1e00, 0x1f15), (0x1f18, 0x1f1d), (0x1f20, 0x1f45), (0x1f48, 0x1f4d),
    (0x1f50, 0x1f57), (0x1f59, 0x1f59), (0x1f5b, 0x1f5b), (0x1f5d, 0x1f5d), (0x1f5f, 0x1f7d), (0x1f80, 0x1fb4),
    (0x1fb6, 0x1fbc), (0x1fbe, 0x1fbe), (0x1fc2, 0x1fc4), (0x1fc6, 0x1fcc), (0x1fd0, 0x1fd3), (0x1fd6, 0x1fdb),
    (0x1fe0, 0x1fec), (0x1ff2, 0x1ff4), (0x1ff6, 0x1ffc), (0x2102, 0x2102), (0x2107, 0x2107), (0x210a, 0x2113),
    (0x2115, 0x2115), (0x2119, 0x211d), (0x2124, 0x2124), (0x2126, 0x2126), (0x2128, 0x2128), (0x212a, 0x212d),
    (0x212f, 0x2134), (0x2139, 0x2139), (0x213c, 0x213f), (0x2145, 0x2149), (0x214e, 0x214e), (0x2183, 0x2184),
    (0x2c00, 0x2c7b), (0x2c7e, 0x2ce4), (0x2ceb, 0x2cee), (0x2cf2, 0x2cf3), (0xa640, 0xa66d), (0xa680, 0xa69b),
    (0xa722, 0xa76f), (0xa771, 0xa787), (0xa78b, 0xa78e), (0xab70, 0xabbf), (0xfb00, 0xfb06), (0xfb13, 0xfb17),
    (0xff21, 0xff3a), (0xff41, 0xff5a), (0x10400, 0x1044f), (0x104b0, 0x104d3), (0x104d8, 0x104fb), (0x10c80, 0x10cb2),
    (0x10cc0, 0x10cf2), (0x118a0, 0x118df), (0x1e900, 0x1e943),
];
/// ASCII punctuation and its full-width and Chinese counterparts.
#[rustfmt::skip]
const PUNCTUATION: Ranges =
    &[(0x21, 0x2f), (0x3a, 0x7e), (0x2018, 0x201f), (0x3000, 0x3002), (0xff01, 0xff0f), (0xff1a, 0xff5e)];
/// Everything from U+0800 to the end of the common CJK characters, and Hangul.
const DEEPSEEK_CJK: Ranges = &[(0x800, 0x9fa5), (0xac00, 0xd7ff)];
const CJK_KANA: Ranges = &[(0x3040, 0x30ff), (0x4e00, 0x9fa5)];
const HANGUL: Ranges = &[(0x3131, 0x318e), (0xac00, 0xd7a3)];
const BOPOMOFO: Ranges = &[(0x3105, 0x312f)];
#[rustfmt::skip]
const CHINESE_PUNCTUATION: Ranges = &[
    (0x2014, 0x2014), (0x2018, 0x2019), (0x201c, 0x201d), (0x2026, 0x2026), (0x3001, 0x303f), (0xfe30, 0xfe4f),
    (0xff01, 0xff01), (0xff0c, 0xff0c), (0xff1a, 0xff1b),
];
/// Scripts of East and South-East Asia that are written without spaces.
#[rustfmt::skip]
const UNSPACED: Ranges = &[
    (0xe40, 0xe7f), (0xe80, 0xeff), (0x1000, 0x109f), (0x1100, 0x11ff), (0x1780, 0x17ff), (0x2f00, 0x2fdf),
    (0x3040, 0x30ff), (0x3400, 0x4dbf), (0x4e00, 0xfaff), (0xff65, 0xff9f),
];
/// What ends a word of BLOOM: brackets and the full stops and commas of several scripts.
#[rustfmt::skip]
const BLOOM_STOPS: Ranges = &[
    (0x21, 0x21), (0x28, 0x29), (0x2c, 0x2c), (0x2e, 0x2e), (0x3f, 0x3f), (0x7c, 0x7c), (0x60c, 0x60c), (0x6d4, 0x6d4),
    (0x964, 0x964), (0x2026, 0x2026), (0x3001, 0x3002), (0xff0c, 0xff0c),
];

const BLOOM: Step = Step::RunsOutside(Lead::Space, BLOOM_STOPS);

/// What an unknown or missing name falls back to.
pub(crate) const DEFAULT: &str = "default";

/// All pre-tokenizers.
#[rustfmt::skip]
pub(crate) const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &[DEFAULT],
        steps: &[
            Step::Pattern(r"[\pP$+<=>\^~|]+", Tail::None),
            Step::Gpt2,
            NUMBERS,
            ASCII_DIGITS_3,
        ],
        ..BASE
    },
    PreTokenizer {
        names: &[
            "gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "jina-v1-en",
            "jina-v2-code", "roberta-bpe", "a.x-4.0", "mellum", "modern-bert", "exaone4", "mpt", "olmo", "jais",
            "trillion", "granite-docling",
        ],
        steps: &[Step::Gpt2],
        ..BASE
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        steps: &[NUMBERS_1, Step::Gpt2],
        ..BASE
    },
    PreTokenizer {
        names: &[
            "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
        ],
        steps: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..BASE
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe"], steps: &[LLAMA3], ..BASE },
    PreTokenizer { names: &["chatglm-bpe"], steps: &[LLAMA3], default_bos: false, ..BASE },
    PreTokenizer {
        names: &["glm4", "glm5"],
        steps: &[LLAMA3],
        ignore_merges: true,
        default_bos: false,
        ..BASE
    },
    PreTokenizer { names: &["jais-2"], steps: &[JAIS_2], ..BASE },
    PreTokenizer {
        names: &[
            "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "hunyuan", "solar-open", "megrez", "grok-2",
        ],
        steps: &[QWEN2],
        ..BASE
    },
    PreTokenizer { names: &["qwen35"], steps: &[Step::Llama3(Llama3 { digits: 1, marks: true })], ..BASE },
    PreTokenizer { names: &["laguna"], steps: &[Step::Lines, QWEN2], ..BASE },
    PreTokenizer {
        names: &["minicpm5"],
        steps: &[NUMBERS_3, Step::Llama3(Llama3 { digits: usize::MAX, marks: false })],
        ignore_merges: true,
        ..BASE
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        steps: &[
            NEWLINE,
            Step::Runs(Lead::Whitespace, &[CASED_LETTERS]),
            Step::Runs(Lead::Whitespace, &[PUNCTUATION]),
            Step::Pattern(r"\s+$", Tail::None),
            Step::Runs(Lead::Nothing, &[DEEPSEEK_CJK]),
            NUMBERS,
        ],
        ..BASE
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        steps: &[
            NEWLINE,
            Step::Pattern(r"\s?[\pL]+", Tail::None),
            Step::Pattern(r"\s?[\pP]+", Tail::None),
            Step::Runs(Lead::Nothing, &[DEEPSEEK_CJK]),
            NUMBERS_1,
        ],
        ..BASE
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        steps: &[NUMBERS_3, Step::Runs(Lead::Nothing, &[CJK_KANA]), DEEPSEEK_V3],
        ..BASE
    },
    PreTokenizer {
        names: &["spark2_5"],
        steps: &[NUMBERS_3, Step::Runs(Lead::Nothing, &[CJK_KANA]), SPARK, NUMBERS_1],
        ..BASE
    },
    PreTokenizer {
        names: &["youtu"],
        steps: &[Step::Runs(Lead::Nothing, &[HANGUL, CHINESE_PUNCTUATION, BOPOMOFO, CJK_KANA]), YOUTU],
        ignore_merges: true,
        ..BASE
    },
    PreTokenizer {
        names: &["falcon"],
        steps: &[Step::Pattern(r"[\pP$+<=>\^~|`]+", Tail::None), Step::Gpt2, ASCII_DIGITS_3],
        ..BASE
    },
    PreTokenizer { names: &["bloom", "poro-chat", "gpt3-finnish"], steps: &[BLOOM], ..BASE },
    PreTokenizer { names: &["viking"], steps: &[BLOOM, NUMBERS_1], ..BASE },
    PreTokenizer {
        names: &["tekken"],
        steps: &[TEKKEN],
        ignore_merges: true,
        add_bos: true,
        ..BASE
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        steps: &[GPT_4O],
        ..BASE
    },
    PreTokenizer {
        names: &["granite-embed-multi-97m"],
        steps: &[GRANITE_MULTI],
        ignore_merges: true,
        ..BASE
    },
    PreTokenizer { names: &["tiny_aya", "cohere2moe"], steps: &[Step::DigitGroups, TINY_AYA], ..BASE },
    PreTokenizer {
        names: &["chameleon"],
        steps: &[
            Step::Pattern("<sentinel:[0-9]+>", Tail::None),
            Step::Pattern("IMGIMG[A-I]{1,4}Z", Tail::None),
            Step::Pattern(r"[\t\n]|    |  ", Tail::None),
            NUMBERS_1,
            Step::Pattern(r"[\pP!-/:-@\[-`{-~]", Tail::None),
            Step::Gpt2,
        ],
        add_bos: true,
        ..BASE
    },
    PreTokenizer { names: &["kimi-k2"], steps: &[Step::Kimi], ..BASE },
    PreTokenizer { names: &["superbpe"], steps: &[NUMBERS, Step::Thousands], ..BASE },
    PreTokenizer { names: &["bailingmoe", "bailingmoe2", "llada-moe"], steps: &[BAILING], ..BASE },
    PreTokenizer { names: &["seed-coder"], steps: &[SEED_CODER], ..BASE },
    PreTokenizer { names: &["ufakzeka"], steps: &[UFAKZEKA], ..BASE },
    PreTokenizer {
        names: &["afmoe"],
        steps: &[Step::DigitGroups, Step::Runs(Lead::Nothing, &[UNSPACED]), DEEPSEEK_V3],
        ..BASE
    },
    PreTokenizer { names: &["exaone-moe"], steps: &[EXAONE_MOE], ..BASE },
    PreTokenizer {
        names: &["gemma4", "granite-embed-multi-311m"],
        steps: &[Step::Lines],
        plain: Some(Plain { escape_spaces: true, whole_newlines: true, force_bos: true }),
        ..BASE
    },
    PreTokenizer {
        names: &["sarvam-moe"],
        steps: &[Step::Lines],
        plain: Some(Plain { escape_spaces: true, whole_newlines: false, force_bos: false }),
        ..BASE
    },
    PreTokenizer {
        names: &["whitespace"],
        steps: &[Step::Pattern(r"\S+", Tail::None)],
        plain: Some(Plain { escape_spaces: false, whole_newlines: false, force_bos: false }),
        ..BASE
    },
];

/// The pre-tokenizer of that name.
pub(crate) fn by_name(name: &str) -> Option<&'static PreTokenizer> {
    PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name))
}

/// The pre-tokenizer for files without a known name.
pub(crate) fn default() -> &'static PreTokenizer {
    &PRE_TOKENIZERS[0]
}
