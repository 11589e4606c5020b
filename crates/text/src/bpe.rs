//! Byte-level byte-pair encoding (GPT-2 and nearly all models since), over the merges as the file
//! stores them.

use std::sync::OnceLock;

use modelembed_gguf::StrArray;

use crate::bytemap;
use crate::merge::Merger;
use crate::split::{Plain, PreTokenizer, Scratch, Splitter, char_len, repair};
use crate::table::{Hash, IdTable, Keep};
use crate::vocab::{Vocab, byte_token};

/// U+2581, which stands for a space in tokens that are plain text.
pub(crate) const SPACE_MARK: &[u8] = "▁".as_bytes();

/// The merges of a vocabulary, and how text is cut before them.
pub(crate) struct Bpe {
    merges: Option<StrArray>,
    pre: &'static PreTokenizer,
    splitter: Splitter,
    ranks: OnceLock<Ranks>,
}

/// From a pair of neighbours to its rank, which is its position among the merges.
pub(crate) struct Ranks {
    hash: Hash,
    table: IdTable,
    longest_bytes: usize,
}

/// Buffers of one text.
#[derive(Default)]
struct Work {
    merger: Merger,
    word: Vec<u8>,
}

/// A vocabulary without the tokens that merging may not make.
#[derive(Clone, Copy)]
struct Allowed<'a> {
    vocab: &'a Vocab,
    forbidden: Option<&'a dyn Fn(u32) -> bool>,
}

impl Allowed<'_> {
    fn find(&self, text: &[u8]) -> Option<u32> {
        self.vocab.find(text).filter(|&id| self.forbidden.is_none_or(|forbidden| !forbidden(id)))
    }

    /// Whether this is the text of a token, and that one forbidden.
    fn refuses(&self, text: &[u8]) -> bool {
        self.forbidden.is_some_and(|forbidden| self.vocab.find(text).is_some_and(forbidden))
    }
}

impl Bpe {
    /// `merges`: "left right", best first. Files of Kimi K2 have none.
    pub(crate) fn new(merges: Option<StrArray>, pre: &'static PreTokenizer) -> Bpe {
        Bpe { merges, pre, splitter: Splitter::new(pre), ranks: OnceLock::new() }
    }

    /// How tokens are written, where that is not GPT-2's alphabet.
    pub(crate) fn plain(&self) -> Option<Plain> {
        self.pre.plain
    }

    /// Builds the table of ranks, unless it is there.
    pub(crate) fn prepare(&self, vocab: &Vocab) -> &Ranks {
        self.ranks.get_or_init(|| self.build_ranks(vocab.bytes()))
    }

    /// Appends the ids of `text` to `out`. Merging makes no token that is `forbidden`.
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        text: &[u8],
        forbidden: Option<&dyn Fn(u32) -> bool>,
        out: &mut Vec<u32>,
    ) {
        let ranks = self.prepare(vocab);
        let escaped;
        let text = if self.pre.plain.is_some_and(|plain| plain.escape_spaces) {
            escaped = escape_spaces(text);
            &escaped
        } else {
            text
        };
        let mut work = Work::default();
        self.splitter.split(&repair(text), &mut Scratch::default(), |word| {
            self.encode_word(Allowed { vocab, forbidden }, ranks, word, &mut work, out);
        });
    }

    fn encode_word(&self, allowed: Allowed<'_>, ranks: &Ranks, text: &[u8], work: &mut Work, out: &mut Vec<u32>) {
        let Work { merger, word } = work;
        word.clear();
        match self.pre.plain {
            None => bytemap::encode(text, word),
            Some(_) => word.extend_from_slice(text),
        }
        let whole = self.pre.ignore_merges
            || self.pre.plain.is_some_and(|plain| plain.whole_newlines && word.iter().all(|&b| b == b'\n'));
        if whole && let Some(id) = allowed.find(word) {
            return out.push(id);
        }
        merger.clear();
        let mut rest: &[u8] = word;
        while let Some(&lead) = rest.first() {
            let len = char_len(lead).min(rest.len());
            merger.push(len);
            rest = &rest[len..];
        }
        let header = allowed.vocab.bytes();
        merger.run(|left, right| {
            if right.end - left.start > ranks.longest_bytes || allowed.refuses(&word[left.start..right.end]) {
                return None;
            }
            let (left, right) = (&word[left], &word[right]);
            ranks.table.find(ranks.hash.of_pair(left, right), |rank| self.pair(header, rank) == Some((left, right)))
        });
        for range in merger.ranges() {
            self.push_symbol(allowed, &word[range], out);
        }
    }

    /// Appends the token of a symbol; without one, the tokens of its bytes as far as there are any
    /// (as llama.cpp does).
    fn push_symbol(&self, allowed: Allowed<'_>, symbol: &[u8], out: &mut Vec<u32>) {
        if let Some(id) = allowed.find(symbol) {
            return out.push(id);
        }
        out.extend(symbol.iter().filter_map(|&byte| match self.pre.plain {
            None => allowed.vocab.find(&[byte]),
            Some(_) => allowed.vocab.find(&byte_token(byte)),
        }));
    }

    /// The two sides of a merge.
    fn pair<'b>(&self, header: &'b [u8], rank: u32) -> Option<(&'b [u8], &'b [u8])> {
        split_merge(self.merges.as_ref()?.get(header, rank as usize)?)
    }

    fn build_ranks(&self, header: &[u8]) -> Ranks {
        let n = self.merges.as_ref().map_or(0, StrArray::len);
        let (hash, mut table) = (Hash::new(), IdTable::new(n));
        let mut longest_bytes = 0;
        for rank in 0..n as u32 {
            if let Some((left, right)) = self.pair(header, rank) {
                longest_bytes = longest_bytes.max(left.len() + right.len());
                let same = |other| self.pair(header, other) == Some((left, right));
                table.insert(hash.of_pair(left, right), rank, Keep::First, same);
            }
        }
        Ranks { hash, table, longest_bytes }
    }
}

/// Splits at the first space that is not the first byte.
fn split_merge(merge: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr::memchr(b' ', merge.get(1..)?)? + 1;
    Some((&merge[..space], &merge[space + 1..]))
}

/// The text with ▁ for each space.
pub(crate) fn escape_spaces(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 2);
    escape_spaces_to(text, &mut out);
    out
}

/// Appends `text` with ▁ for each space.
pub(crate) fn escape_spaces_to(text: &[u8], out: &mut Vec<u8>) {
    for (i, part) in text.split(|&b| b == b' ').enumerate() {
        if i > 0 {
            out.extend_from_slice(SPACE_MARK);
        }
        out.extend_from_slice(part);
    }
}

/// Appends `token` with a space for each ▁.
pub(crate) fn unescape_spaces_to(token: &[u8], out: &mut Vec<u8>) {
    let mut rest = token;
    while let Some(at) = memchr::memmem::find(rest, SPACE_MARK) {
        out.extend_from_slice(&rest[..at]);
        out.push(b' ');
        rest = &rest[at + SPACE_MARK.len()..];
    }
    out.extend_from_slice(rest);
}
