//! The tokenizer of a model file.

use std::ops::Range;
use std::sync::OnceLock;

use modelembed_gguf::{Gguf, SharedBytes, Value};

use crate::bpe::{Bpe, unescape_spaces_to};
use crate::bytemap;
use crate::chat::Rendered;
use crate::edges::Edges;
use crate::error::TextError;
use crate::partition::{Fragment, Partition};
use crate::special::{Facts, Specials};
use crate::split::{self, PreTokenizer};
use crate::spm;
use crate::token::TokenId;
use crate::vocab::{Vocab, attr, byte_of};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";
const SUPPRESSED: &str = "tokenizer.ggml.suppress_tokens";

/// Kinds whose texts are plain text unless control tokens are asked for.
const HIDDEN: u8 = attr::CONTROL | attr::UNKNOWN;

/// Texts up to this length can be encoded: positions are 32-bit numbers, and a space may become
/// three bytes.
const MOST_TEXT_BYTES: usize = (u32::MAX / 4) as usize;

/// Which tokens [`Tokenizer::encode`] may produce besides those of plain text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// Put BOS before and EOS after the text where the model asks for it.
    pub add_special: bool,
    /// Read the text of control tokens (`<|im_start|>`) as those tokens. Without this it is plain
    /// text, as text from outside must be. User-defined tokens, which stand for ordinary text, are
    /// recognised always.
    pub parse_special: bool,
}

impl EncodeOptions {
    /// Nothing but the tokens of plain text: the default.
    pub const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

    /// These options with BOS and EOS where the model asks for them, or without.
    #[must_use]
    pub const fn add_special(mut self, add_special: bool) -> EncodeOptions {
        self.add_special = add_special;
        self
    }

    /// These options with the texts of control tokens read as those tokens, or as plain text.
    #[must_use]
    pub const fn parse_special(mut self, parse_special: bool) -> EncodeOptions {
        self.parse_special = parse_special;
        self
    }
}

/// The kinds of vocabulary, by `tokenizer.ggml.model`.
enum Model {
    Bpe(Bpe),
    Spm,
    /// No vocabulary; the name that the file gives that.
    None(Option<String>),
}

/// Names of no vocabulary.
const NO_VOCABULARY: [&str; 2] = ["none", "no_vocab"];

const KNOWN_MODELS: &str = "gpt2 (byte-level BPE), gemma4 (BPE over characters), llama (SentencePiece BPE)";

/// Text to token ids and back, by the vocabulary in a model file.
///
/// Loading it reads a handful of numbers: the tokens stay where they are in the file, and look-up
/// tables are built by the first text that is encoded. It is immutable and can be shared between
/// threads. Ids equal llama.cpp's.
pub struct Tokenizer {
    vocab: Vocab,
    model: Model,
    model_name: String,
    pre_name: String,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    unk: Option<TokenId>,
    pad: Option<TokenId>,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    suppressed: Vec<TokenId>,
    warnings: Vec<String>,
    facts: Facts,
    special: OnceLock<SpecialIndex>,
}

/// Special tokens and the index to find them in texts.
struct SpecialIndex {
    specials: Specials,
    partition: Partition,
    /// Of control tokens; made when messages are guarded.
    edges: OnceLock<Edges>,
}

impl Tokenizer {
    /// Takes the vocabulary of a model. `header` holds the bytes that `gguf` was parsed from.
    ///
    /// # Errors
    /// If the file's vocabulary is of an unknown kind, or its parts do not fit together. What can
    /// be repaired is reported by [`Tokenizer::warnings`]. A file that holds none gives a tokenizer
    /// of 0 tokens: see [`Tokenizer::require_vocabulary`].
    pub fn from_gguf(gguf: &Gguf, header: SharedBytes) -> Result<Tokenizer, TextError> {
        let mut warnings = Vec::new();
        let model_name = match gguf.str(MODEL)? {
            Some(name) if !NO_VOCABULARY.contains(&name) => name.to_string(),
            none => return Tokenizer::without_vocabulary(gguf, header, none),
        };
        let stored_pre = gguf.str(PRE)?;
        let pre = match model_name.as_str() {
            "llama" => None,
            "gpt2" => Some(pre_tokenizer(stored_pre, &mut warnings)),
            "gemma4" => Some(pre_tokenizer(Some("gemma4"), &mut warnings)),
            _ => return Err(TextError::UnknownModel { seen: model_name, known: KNOWN_MODELS.to_string() }),
        };
        let suppressed = suppressed(gguf, (*header).as_ref());
        let vocab = Vocab::from_gguf(gguf, header)?;
        let mut ids = Ids { gguf, n_vocab: vocab.len(), warnings: &mut warnings };
        // Ids of files that do not name them: SentencePiece's, and for BPE those of Falcon's
        // vocabulary.
        let (bos, eos, unk) = match pre {
            None => (Some(1), Some(2), Some(0)),
            Some(_) if model_name == "gemma4" => (None, None, None),
            Some(pre) => (Some(11).filter(|_| pre.default_bos), Some(11), None),
        };
        let bos = ids.get("tokenizer.ggml.bos_token_id")?.or(ids.default(bos));
        let eos = ids.get("tokenizer.ggml.eos_token_id")?.or(ids.default(eos));
        let unk = ids.get("tokenizer.ggml.unknown_token_id")?.or(ids.default(unk));
        let pad = ids.get("tokenizer.ggml.padding_token_id")?;
        let facts = Facts::new(gguf, eos, |key| ids.get(key))?;

        let force_bos = pre.and_then(|pre| pre.plain).is_some_and(|plain| plain.force_bos);
        let default_add_bos = pre.is_none_or(|pre| pre.add_bos);
        let mut add_bos = gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(default_add_bos) || force_bos;
        let mut add_eos = gguf.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        let add_space_prefix = gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(pre.is_none());
        for (add, id, name) in [(&mut add_bos, bos, "BOS"), (&mut add_eos, eos, "EOS")] {
            if *add && id.is_none() {
                *add = false;
                warnings.push(format!("the model asks for a {name} token but names none: none is added"));
            }
        }
        let model = match pre {
            None => Model::Spm,
            Some(pre) => {
                let merges = gguf.strings(MERGES)?;
                if merges.is_none() && !pre.names.contains(&"kimi-k2") {
                    return Err(TextError::MissingKey { key: MERGES });
                }
                Model::Bpe(Bpe::new(merges, pre))
            }
        };
        Ok(Tokenizer {
            vocab,
            model,
            model_name,
            pre_name: stored_pre.filter(|name| !name.is_empty()).unwrap_or(split::DEFAULT).to_string(),
            bos: bos.map(TokenId),
            eos: eos.map(TokenId),
            unk: unk.map(TokenId),
            pad: pad.map(TokenId),
            add_bos,
            add_eos,
            add_space_prefix,
            suppressed,
            warnings,
            facts,
            special: OnceLock::new(),
        })
    }

    fn without_vocabulary(gguf: &Gguf, header: SharedBytes, name: Option<&str>) -> Result<Tokenizer, TextError> {
        Ok(Tokenizer {
            vocab: Vocab::none(header),
            model: Model::None(name.map(str::to_string)),
            model_name: name.unwrap_or(NO_VOCABULARY[0]).to_string(),
            pre_name: split::DEFAULT.to_string(),
            bos: None,
            eos: None,
            unk: None,
            pad: None,
            add_bos: false,
            add_eos: false,
            add_space_prefix: false,
            suppressed: Vec::new(),
            warnings: Vec::new(),
            facts: Facts::new(gguf, None, |_| Ok::<_, TextError>(None))?,
            special: OnceLock::new(),
        })
    }

    /// # Errors
    /// If the model takes token ids only: every text that is to be encoded has this error, and no
    /// token has a text.
    pub fn require_vocabulary(&self) -> Result<(), TextError> {
        match &self.model {
            Model::None(seen) => Err(TextError::NoVocabulary { seen: seen.clone() }),
            _ => Ok(()),
        }
    }

    /// Number of tokens.
    pub fn n_vocab(&self) -> usize {
        self.vocab.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<TokenId> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<TokenId> {
        self.eos
    }

    /// The token that ends a turn of a chat: from the file, else the first known one in the
    /// vocabulary.
    pub fn eot(&self) -> Option<TokenId> {
        self.special().specials.eot.map(TokenId)
    }

    /// The token for what has none.
    pub fn unk(&self) -> Option<TokenId> {
        self.unk
    }

    /// The token that fills up batches.
    pub fn pad(&self) -> Option<TokenId> {
        self.pad
    }

    /// Whether a model that produces this token has ended its answer.
    pub fn is_eog(&self, id: TokenId) -> bool {
        self.special().specials.is_eog(id.0)
    }

    /// All tokens that end an answer, ascending.
    pub fn eog_tokens(&self) -> impl Iterator<Item = TokenId> {
        self.special().specials.eog().iter().map(|&id| TokenId(id))
    }

    /// Tokens that the model must not produce, ascending: Gemma 4 begins images and sounds otherwise.
    pub fn suppressed(&self) -> &[TokenId] {
        &self.suppressed
    }

    /// Whether this is a control token: no text, but a mark like the beginning of a turn.
    pub fn is_control(&self, id: TokenId) -> bool {
        self.attr(id) & attr::CONTROL != 0
    }

    /// Whether texts begin with [`Tokenizer::bos`].
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether texts end with [`Tokenizer::eos`].
    pub fn adds_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether a space is put before a text (SentencePiece models, mostly).
    pub fn adds_space_prefix(&self) -> bool {
        self.add_space_prefix && matches!(self.model, Model::Spm)
    }

    /// Kind of the vocabulary: `tokenizer.ggml.model`.
    pub fn model_name(&self) -> &str {
        &self.model_name
    }

    /// Name of the pre-tokenizer: `tokenizer.ggml.pre`, or `default`.
    pub fn pre_name(&self) -> &str {
        &self.pre_name
    }

    /// What was odd about the file's vocabulary and what was done about it.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The token's bytes as stored in the file (with GPT-2's alphabet or ▁); empty if there is no
    /// such token.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.vocab.token(id.0)
    }

    /// The token that is stored as exactly these bytes.
    pub fn find(&self, stored: &[u8]) -> Option<TokenId> {
        self.vocab.find(stored).map(TokenId)
    }

    /// Token ids of a text, which need not be valid UTF-8.
    ///
    /// # Errors
    /// If the text is longer than 1 GiB, or the model has [no
    /// vocabulary](Self::require_vocabulary).
    pub fn encode(&self, text: &[u8], options: EncodeOptions) -> Result<Vec<TokenId>, TextError> {
        self.encode_fragments(text, options, true, None)
    }

    /// As [`Tokenizer::encode`], for text that goes on behind the token `before`: without the blank
    /// that SentencePiece puts before a beginning, unless control tokens or user-defined ones are
    /// beginnings too.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_after(
        &self,
        before: TokenId,
        text: &[u8],
        options: EncodeOptions,
    ) -> Result<Vec<TokenId>, TextError> {
        self.encode_fragments(text, options, self.is_special(before), None)
    }

    /// A rendered chat, or a part of one that goes on behind the token `before`: control tokens are
    /// read, but none that holds a character which is to be plain text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_rendered(&self, before: Option<TokenId>, rendered: &Rendered) -> Result<Vec<TokenId>, TextError> {
        let after_special = before.is_none_or(|before| self.is_special(before));
        let options = EncodeOptions::PLAIN.parse_special(true);
        self.encode_fragments(rendered.text().as_bytes(), options, after_special, rendered.plain())
    }

    fn is_special(&self, id: TokenId) -> bool {
        self.special().specials.tokens.iter().any(|(special, _)| *special == id.0)
    }

    /// Without `plain`, text may become control tokens by being merged, as in llama.cpp.
    fn encode_fragments(
        &self,
        text: &[u8],
        options: EncodeOptions,
        mut after_special: bool,
        plain: Option<&[Range<usize>]>,
    ) -> Result<Vec<TokenId>, TextError> {
        self.require_vocabulary()?;
        if text.len() > MOST_TEXT_BYTES {
            return Err(TextError::TextTooLong { seen: text.len(), most: MOST_TEXT_BYTES });
        }
        let mut ids: Vec<u32> = Vec::with_capacity(text.len() / 3 + 2);
        let wrap = |add: bool, id: Option<TokenId>| id.filter(|_| add && options.add_special).map(|id| id.0);
        ids.extend(wrap(self.add_bos, self.bos));
        for fragment in self.partition(text, options.parse_special, plain.unwrap_or_default()) {
            match fragment {
                Fragment::Token(id) => {
                    ids.push(id);
                    after_special = true;
                }
                Fragment::Text(range) => {
                    let n = ids.len();
                    let prefix = self.add_space_prefix && after_special;
                    self.encode_plain(&text[range.clone()], prefix, None, &mut ids);
                    let is_control = |id: u32| self.is_hidden(id);
                    if plain.is_some() && ids[n..].iter().any(|&id| is_control(id)) {
                        ids.truncate(n);
                        self.encode_plain(&text[range], prefix, Some(&is_control), &mut ids);
                    }
                    after_special = !matches!(self.model, Model::Spm);
                }
            }
        }
        ids.extend(wrap(self.add_eos, self.eos));
        Ok(ids.into_iter().map(TokenId).collect())
    }

    /// Appends the ids of text in which no special token is looked for. Merging makes none that is
    /// `forbidden`.
    fn encode_plain(&self, text: &[u8], prefix: bool, forbidden: Option<&dyn Fn(u32) -> bool>, ids: &mut Vec<u32>) {
        match &self.model {
            Model::Bpe(bpe) => bpe.encode(&self.vocab, text, forbidden, ids),
            Model::None(_) => {}
            Model::Spm => {
                // There is always one: where the file names none it is token 0.
                let unk = self.unk.map_or(0, |id| id.0);
                spm::encode(&self.vocab, unk, text, prefix, forbidden, ids);
            }
        }
    }

    /// Whether the token's text is plain text where texts of control tokens are.
    fn is_hidden(&self, id: u32) -> bool {
        self.attr(TokenId(id)) & HIDDEN != 0
    }

    /// Every place in `text` where the text of a control token is, also where they overlap, with
    /// that text.
    pub(crate) fn for_each_control_in(&self, text: &[u8], each: &mut dyn FnMut(Range<usize>, &[u8])) {
        let SpecialIndex { specials, partition, .. } = self.special();
        let token = |i: usize| self.vocab.token(specials.tokens[i].0);
        for at in partition.occurring(text, &token) {
            let needle = token(at as usize);
            if needle.is_empty() || !self.is_hidden(specials.tokens[at as usize].0) {
                continue;
            }
            let finder = memchr::memmem::Finder::new(needle);
            let mut from = 0;
            while let Some(found) = text.get(from..).and_then(|rest| finder.find(rest)) {
                let start = from + found;
                each(start..start + needle.len(), needle);
                from = start + 1;
            }
        }
    }

    /// Whether `text` begins as the text of a control token ends, and whether it ends as one
    /// begins.
    pub(crate) fn control_edges(&self, text: &[u8]) -> (bool, bool) {
        let edges = self.special().edges.get_or_init(|| {
            let hidden = self.special().specials.tokens.iter().filter(|(id, _)| self.is_hidden(*id));
            Edges::new(hidden.map(|(id, _)| self.vocab.token(*id)))
        });
        (edges.can_end_with(text), edges.can_begin_with(text))
    }

    /// Builds the look-up tables that the first text would build: a few milliseconds, which a
    /// caller with something else to do meanwhile can spend on another thread.
    pub fn prepare(&self) {
        self.special();
        if let Model::Bpe(bpe) = &self.model {
            bpe.prepare(&self.vocab);
        }
    }

    /// `plain`: where no control token may be.
    fn partition(&self, text: &[u8], parse_special: bool, plain: &[Range<usize>]) -> Vec<Fragment> {
        let SpecialIndex { specials, partition, .. } = self.special();
        let token = |i: usize| self.vocab.token(specials.tokens[i].0);
        let wanted = |id, range: Range<usize>| {
            !self.is_hidden(id)
                || parse_special && {
                    let at = plain.partition_point(|plain| plain.end <= range.start);
                    plain.get(at).is_none_or(|plain| plain.start >= range.end)
                }
        };
        partition.split(text, &specials.tokens, token, wanted)
    }

    /// Appends the text of a token to `out`: bytes, which may be a part of a character only.
    ///
    /// Control and unknown tokens have text only with `render_special`.
    pub fn piece(&self, id: TokenId, render_special: bool, out: &mut Vec<u8>) {
        let (kind, token) = (self.attr(id), self.vocab.token(id.0));
        let special = kind & (attr::CONTROL | attr::UNKNOWN) != 0;
        if special && !render_special {
            return;
        }
        if special || kind & attr::USER_DEFINED != 0 {
            out.extend_from_slice(token);
        } else if kind & attr::BYTE != 0 {
            out.extend(byte_of(token));
        } else if kind & attr::NORMAL != 0 {
            match &self.model {
                Model::Bpe(bpe) => match bpe.plain() {
                    None => bytemap::decode(token, out),
                    Some(plain) if plain.escape_spaces => unescape_spaces_to(token, out),
                    Some(_) => out.extend_from_slice(token),
                },
                Model::Spm => unescape_spaces_to(token, out),
                Model::None(_) => {}
            }
        }
    }

    fn attr(&self, id: TokenId) -> u8 {
        self.special().specials.attr(&self.vocab, id.0)
    }

    fn special(&self) -> &SpecialIndex {
        self.special.get_or_init(|| {
            let specials = Specials::new(&self.vocab, &self.facts);
            let partition = Partition::new(specials.tokens.len(), |i| self.vocab.token(specials.tokens[i].0));
            SpecialIndex { specials, partition, edges: OnceLock::new() }
        })
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("model", &self.model_name)
            .field("pre", &self.pre_name)
            .field("n_vocab", &self.n_vocab())
            .finish_non_exhaustive()
    }
}

/// The ids in a list of those that must not be produced; negative ones stand for none.
fn suppressed(gguf: &Gguf, header: &[u8]) -> Vec<TokenId> {
    let Some(Value::Array(array)) = gguf.get(SUPPRESSED) else { return Vec::new() };
    let signed = array.numbers::<i32>().map(|ids| ids.to_vec(header));
    let ids = signed.map(|ids| ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect());
    let mut ids: Vec<u32> = ids.or_else(|| Some(array.numbers::<u32>()?.to_vec(header))).unwrap_or_default();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(TokenId).collect()
}

fn pre_tokenizer(name: Option<&str>, warnings: &mut Vec<String>) -> &'static PreTokenizer {
    let name = name.filter(|name| !name.is_empty());
    if let Some(pre) = name.and_then(split::by_name) {
        return pre;
    }
    warnings.push(match name {
        None => format!("{PRE} is missing: the pre-tokenizer {:?} is used, answers may be worse", split::DEFAULT),
        Some(name) => {
            format!("{PRE} {name:?} is unknown: the pre-tokenizer {:?} is used, answers may be worse", split::DEFAULT)
        }
    });
    split::default()
}

/// Reads ids of special tokens.
struct Ids<'a> {
    gguf: &'a Gguf,
    n_vocab: usize,
    warnings: &'a mut Vec<String>,
}

impl Ids<'_> {
    /// The id that the file gives; one that is no token is left out with a warning. -1, which
    /// llama.cpp writes for a token that a model does not have, is no id.
    fn get(&mut self, key: &str) -> Result<Option<u32>, TextError> {
        if self.gguf.get(key).and_then(Value::as_int).is_some_and(|id| id == -1 || id == u32::MAX.into()) {
            return Ok(None);
        }
        let Some(id) = self.gguf.u32(key)? else { return Ok(None) };
        if (id as usize) < self.n_vocab {
            return Ok(Some(id));
        }
        self.warnings.push(format!("metadata {key} is {id}, but there are {} tokens: it is left out", self.n_vocab));
        Ok(None)
    }

    fn default(&self, id: Option<u32>) -> Option<u32> {
        id.filter(|&id| (id as usize) < self.n_vocab)
    }
}
