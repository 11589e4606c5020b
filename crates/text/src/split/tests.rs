//! Our splitters against the published patterns, run by an engine with look-ahead.

use proptest::prelude::*;

use super::names::PRE_TOKENIZERS;
use super::*;

/// Name of a pre-tokenizer and the patterns that it applies one after the other.
const PUBLISHED: &[(&str, &[&str])] = &[
    ("gpt-2", &[GPT2]),
    ("smollm", &[r"\p{N}", GPT2]),
    ("falcon", &[r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"]),
    (
        "llama-bpe",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        "qwen2",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        "qwen35",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        "deepseek-v3",
        &[
            r"\p{N}{1,3}",
            r"[一-龥぀-ゟ゠-ヿ]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ],
    ),
    (
        "jais-2",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        ],
    ),
    (
        "seed-coder",
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    ("superbpe", &[r"\p{N}+", r"(?=([0-9]{3})+(?![0-9]))"]),
    ("bloom", &[r" ?[^(\s|.,!?…。，、।۔،)]+"]),
];

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Words by a pattern: its matches and what lies between them.
fn cut(pattern: &fancy_regex::Regex, pieces: &[&str]) -> Vec<String> {
    let mut words = Vec::new();
    for piece in pieces {
        let mut at = 0;
        for found in pattern.find_iter(piece) {
            let found = found.expect("short texts stay within the engine's limits");
            words.push(&piece[at..found.start()]);
            words.push(found.as_str());
            at = found.end();
        }
        words.push(&piece[at..]);
    }
    words.into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn ours(name: &str, text: &str) -> Vec<String> {
    let pre = by_name(name).expect("the name is in the table");
    let mut words = Vec::new();
    let word = |word: &[u8]| {
        words.push(String::from_utf8(word.to_vec()).expect("words of a valid text are valid"));
    };
    Splitter::new(pre).split(text.as_bytes(), &mut Scratch::default(), word);
    words
}

/// Texts of what patterns distinguish; all characters are in every version of Unicode that an
/// engine may have.
fn texts() -> impl Strategy<Value = String> {
    let pieces =
        "a B z É ñ 語 か ｱ к ʰ ٣ ９ 0 7 ½ Ⅷ \u{301} \u{302} . , ! ' ' \" - / $ + < > | ~ ^ ` € 。 😀 \u{200d} \0";
    let pieces: Vec<String> = pieces.split(' ').map(str::to_owned).collect();
    let spaces = [" ", " ", "  ", "     ", "\t", "\n", "\r\n", "\u{a0}", "\u{3000}", "'s", "'LL", "'re", "1234"];
    let all: Vec<String> = pieces.into_iter().chain(spaces.map(str::to_owned)).collect();
    prop::collection::vec(prop::sample::select(all), 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn cuts_where_the_published_patterns_do(text in texts()) {
        thread_local! {
            static COMPILED: Vec<(&'static str, Vec<fancy_regex::Regex>)> = PUBLISHED
                .iter()
                .map(|(name, steps)| (*name, steps.iter().map(|p| fancy_regex::Regex::new(p).unwrap()).collect()))
                .collect();
        }
        COMPILED.with(|compiled| {
            for (name, steps) in compiled {
                let mut words = vec![text.clone()];
                for step in steps {
                    words = cut(step, &words.iter().map(String::as_str).collect::<Vec<_>>());
                }
                words.retain(|word| !word.is_empty());
                prop_assert_eq!(ours(name, &text), words, "{} on {:?}", name, &text);
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_byte_is_lost(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        thread_local! {
            static ALL: Vec<Splitter> = PRE_TOKENIZERS.iter().map(Splitter::new).collect();
        }
        let text = repair(&bytes);
        ALL.with(|splitters| {
            for splitter in splitters {
                let mut all = Vec::new();
                splitter.split(&text, &mut Scratch::default(), |word| all.extend_from_slice(word));
                prop_assert_eq!(&all, &*text, "{}", splitter.pre.names[0]);
            }
            Ok(())
        })?;
    }
}

#[test]
fn every_pattern_compiles_and_every_name_is_there_once() {
    let mut names = Vec::new();
    for pre in PRE_TOKENIZERS {
        names.extend(pre.names);
        for step in pre.steps {
            assert!(!matches!(step, Step::Pattern(..)) || compile(step).is_some(), "{}", pre.names[0]);
        }
    }
    let n = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), n);
    assert!(names.contains(&DEFAULT) && default().names.contains(&DEFAULT));
}

#[test]
fn ranges_are_in_order() {
    for pre in PRE_TOKENIZERS {
        for step in pre.steps {
            let sets: &[Ranges] = match step {
                Step::Runs(_, sets) => sets,
                Step::RunsOutside(_, set) => std::slice::from_ref(set),
                _ => continue,
            };
            for set in sets {
                assert!(set.iter().all(|(first, last)| first <= last), "{}", pre.names[0]);
                assert!(set.windows(2).all(|pair| pair[0].1 < pair[1].0), "{}: {set:x?}", pre.names[0]);
            }
        }
    }
}

/// Quadratic time would take hours here.
#[test]
fn long_runs_of_anything_are_cut_in_linear_time() {
    for pre in PRE_TOKENIZERS {
        for unit in ["a", "A", " ", "\n", " \n", "1", ".", "语", "\u{301}", "'", "\u{1}", "a ", "aA"] {
            let text = unit.repeat(200_000);
            let mut total = 0;
            let word = |word: &[u8]| total += word.len();
            Splitter::new(pre).split(text.as_bytes(), &mut Scratch::default(), word);
            assert_eq!(total, text.len(), "{} on {unit:?}", pre.names[0]);
        }
    }
}
