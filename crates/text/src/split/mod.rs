//! Pre-tokenizers: cutting text into the words inside of which byte-pair encoding merges.

mod lexers;
mod names;
mod pattern;
mod unicode;

use std::sync::OnceLock;

pub(crate) use names::{DEFAULT, Plain, PreTokenizer, by_name, default};
pub(crate) use unicode::{char_len, repair};

use names::{Lead, Ranges, Step};
use pattern::Pattern;
use unicode::{SPACE, Text, is_space};

/// A pre-tokenizer with its patterns, which are compiled by the first text.
pub(crate) struct Splitter {
    pre: &'static PreTokenizer,
    patterns: OnceLock<Vec<Option<Pattern>>>, // one for each step
}

/// Buffers that are used again for the next text.
#[derive(Default)]
pub(crate) struct Scratch {
    text: Text,
    ends: Vec<usize>, // where words end, in characters
    next: Vec<usize>,
}

impl Splitter {
    pub(crate) fn new(pre: &'static PreTokenizer) -> Splitter {
        Splitter { pre, patterns: OnceLock::new() }
    }

    /// Calls `word` with each word of `text`, in order; together they are the text. `text` must be
    /// repaired.
    pub(crate) fn split<'t>(&self, text: &'t [u8], scratch: &mut Scratch, mut word: impl FnMut(&'t [u8])) {
        let with_chars = self.pre.steps.iter().any(needs_chars);
        scratch.text.read(text, with_chars);
        scratch.ends.clear();
        scratch.ends.push(scratch.text.classes.len());
        let patterns = self.patterns.get_or_init(|| self.pre.steps.iter().map(compile).collect());
        for (step, pattern) in self.pre.steps.iter().zip(patterns) {
            scratch.next.clear();
            let mut start = 0;
            for &end in &scratch.ends {
                let piece = Piece { text: &scratch.text, start, end };
                piece.apply(step, pattern.as_ref(), |at| scratch.next.push(start + at));
                scratch.next.push(end);
                start = end;
            }
            std::mem::swap(&mut scratch.ends, &mut scratch.next);
        }
        // From characters to bytes. Positions may repeat: empty words are left out.
        let (mut rest, mut chars) = (text, 0);
        for &end in &scratch.ends {
            let bytes = rest.iter().enumerate().filter(|(_, b)| **b & 0xc0 != 0x80).map(|(i, _)| i).nth(end - chars);
            let (now, later) = rest.split_at(bytes.unwrap_or(rest.len()));
            if !now.is_empty() {
                word(now);
            }
            (rest, chars) = (later, end);
        }
    }
}

fn needs_chars(step: &Step) -> bool {
    matches!(step, Step::Runs(..) | Step::RunsOutside(..) | Step::Kimi)
}

fn compile(step: &Step) -> Option<Pattern> {
    match step {
        Step::Pattern(source, tail) => Pattern::new(source, *tail),
        _ => None,
    }
}

/// Characters `start..end` of a text.
struct Piece<'t> {
    text: &'t Text,
    start: usize,
    end: usize,
}

impl Piece<'_> {
    fn classes(&self) -> &[u8] {
        &self.text.classes[self.start..self.end]
    }

    fn chars(&self) -> &[u32] {
        &self.text.chars[self.start..self.end]
    }

    /// Calls `cut` with the positions in the piece where a word ends, in order; its own end may be
    /// left out.
    fn apply(&self, step: &Step, pattern: Option<&Pattern>, cut: impl FnMut(usize)) {
        match *step {
            Step::Gpt2 => lexers::gpt2(self.classes(), cut),
            Step::Llama3(family) => lexers::llama3(self.classes(), family, cut),
            Step::Lines => lexers::lines(self.classes(), cut),
            Step::DigitGroups => lexers::digit_groups(self.classes(), cut),
            Step::Thousands => lexers::thousands(self.classes(), cut),
            Step::Kimi => lexers::kimi(self.classes(), self.chars(), cut),
            Step::Pattern(..) => {
                if let Some(pattern) = pattern {
                    pattern.split(self.classes(), cut);
                }
            }
            Step::Runs(lead, sets) => {
                runs(self.chars(), lead, &|char| sets.iter().position(|set| holds(set, char)), cut)
            }
            Step::RunsOutside(lead, set) => {
                let outside = |char: u32| (!is_ascii_space(char) && !holds(set, char)).then_some(0);
                runs(self.chars(), lead, &outside, cut);
            }
        }
    }
}

/// Cuts around runs of characters that are in the same set, each with the one character of `lead`
/// before it.
fn runs(chars: &[u32], lead: Lead, set_of: &dyn Fn(u32) -> Option<usize>, mut cut: impl FnMut(usize)) {
    let leads = |char: u32| match lead {
        Lead::Nothing => false,
        Lead::Space => char == u32::from(b' '),
        Lead::Whitespace => is_ascii_space(char),
    };
    let mut at = 0;
    while at < chars.len() {
        let prefix = usize::from(leads(chars[at]) && chars.get(at + 1).is_some_and(|&char| set_of(char).is_some()));
        let Some(set) = set_of(chars[at + prefix]) else {
            at += 1;
            continue;
        };
        cut(at);
        let first = at + prefix;
        let len = chars[first..].iter().position(|&char| set_of(char) != Some(set)).unwrap_or(chars.len() - first);
        at = first + len;
        cut(at);
    }
}

/// Whether a character is whitespace; what is not ASCII has become [`SPACE`] before.
fn is_ascii_space(char: u32) -> bool {
    debug_assert_eq!(SPACE, 0x0b);
    u8::try_from(char).is_ok_and(is_space)
}

fn holds(set: Ranges, char: u32) -> bool {
    let at = set.partition_point(|&(_, last)| last < char);
    set.get(at).is_some_and(|&(first, _)| first <= char)
}

#[cfg(test)]
mod tests;
