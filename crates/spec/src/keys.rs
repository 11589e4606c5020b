//! Reading an architecture's metadata.
//!
//! 0, an empty text and 4294967295 (-1) stand for a key that is absent, as llama.cpp writes every
//! key that it has, unless 0 means something of its own. Keys that may be arrays have one number
//! for all layers or one a layer.

use std::cell::RefCell;
use std::collections::HashSet;

use modelembed_gguf::{Array, Gguf, Number, Value};
use modelembed_terms::RopeStyle;

use crate::error::{Error, Result};
use crate::model::{RopeFactors, RopeScaling, RopeSections, RopeSpec, Temperature};
use crate::unread;

/// Bounds that no real model reaches; they keep products of sizes far from overflow.
pub(crate) const MAX_LAYERS: u32 = 4096;
/// See [`MAX_LAYERS`].
pub(crate) const MAX_LENGTH: u32 = 1 << 24;
/// See [`MAX_LAYERS`].
pub(crate) const MAX_HEADS: u32 = 1 << 16;

/// The metadata of one architecture.
pub(crate) struct Keys<'a> {
    gguf: &'a Gguf,
    header: &'a [u8],
    pub(crate) arch: &'static str,
    /// What keys begin with: the name in the file.
    prefix: &'a str,
    pub(crate) n_layer: usize,
    /// Keys that were asked for, whether they are there or not.
    read: RefCell<HashSet<&'static str>>,
}

impl<'a> Keys<'a> {
    /// The keys of an architecture, which begin with `prefix`; its number of layers is read first.
    pub(crate) fn new(gguf: &'a Gguf, header: &'a [u8], arch: &'static str, prefix: &'a str) -> Result<Keys<'a>> {
        let mut keys = Keys { gguf, header, arch, prefix, n_layer: 0, read: RefCell::default() };
        keys.n_layer = keys.size("block_count", MAX_LAYERS)?;
        Ok(keys)
    }

    /// An error about a key.
    pub(crate) fn bad(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::Metadata { key: self.full(key), problem: problem.into() }
    }

    /// A way of computing that is not known.
    pub(crate) fn unsupported(&self, key: &str, seen: impl ToString, wanted: impl ToString) -> Error {
        Error::Unsupported { key: self.full(key), seen: seen.to_string(), wanted: wanted.to_string() }
    }

    /// Notes that this architecture reads a key; the rest of [`unread`]'s list is refused unless it
    /// changes nothing.
    pub(crate) fn note(&self, key: &'static str) {
        self.read.borrow_mut().insert(key);
    }

    /// A text; an empty one means that it is not given.
    pub(crate) fn text(&self, key: &'static str) -> Result<Option<String>> {
        self.note(key);
        string(self.gguf, &self.full(key))
    }

    /// A flag.
    pub(crate) fn flag(&self, key: &'static str) -> Result<Option<bool>> {
        self.note(key);
        let key = self.full(key);
        self.gguf.bool(&key).map_err(|e| unusable(&key, e))
    }

    /// The number as it stands in the file.
    pub(crate) fn stored_u32(&self, key: &'static str) -> Result<Option<u32>> {
        self.note(key);
        let key = self.full(key);
        self.gguf.u32(&key).map_err(|e| unusable(&key, e))
    }

    /// A number for which 0 and -1 mean that it is not given.
    pub(crate) fn u32(&self, key: &'static str) -> Result<Option<u32>> {
        Ok(self.stored_u32(key)?.filter(|n| !matches!(*n, 0 | u32::MAX)))
    }

    /// The same, as a size of at most `max`.
    pub(crate) fn optional_size(&self, key: &'static str, max: u32) -> Result<Option<usize>> {
        self.u32(key)?.map(|n| self.bounded(key, n, max)).transpose()
    }

    /// The number as it stands in the file; it is finite.
    pub(crate) fn stored_f32(&self, key: &'static str) -> Result<Option<f32>> {
        self.note(key);
        let full = self.full(key);
        match self.gguf.f32(&full).map_err(|e| unusable(&full, e))? {
            Some(x) if !x.is_finite() => Err(self.bad(key, format!("is {x}, wanted a finite number"))),
            other => Ok(other),
        }
    }

    /// A number for which 0 means that it is not given.
    pub(crate) fn f32(&self, key: &'static str) -> Result<Option<f32>> {
        Ok(self.stored_f32(key)?.filter(|x| *x != 0.0))
    }

    /// The same; a negative one is an error.
    pub(crate) fn positive_f32(&self, key: &'static str) -> Result<Option<f32>> {
        match self.f32(key)? {
            Some(x) if x < 0.0 => Err(self.bad(key, format!("is {x}, wanted a number above 0"))),
            other => Ok(other),
        }
    }

    /// A number that must be there.
    pub(crate) fn size(&self, key: &'static str, max: u32) -> Result<usize> {
        let n = self.stored_u32(key)?.ok_or_else(|| self.bad(key, "is missing"))?;
        self.bounded(key, n, max)
    }

    /// A number that must be there, as one a layer.
    pub(crate) fn sizes_of_layers(&self, key: &'static str, max: u32) -> Result<Vec<usize>> {
        let sizes = self.per_layer(key)?.ok_or_else(|| self.bad(key, "is missing"))?;
        sizes.into_iter().map(|n| self.bounded(key, n, max)).collect()
    }

    /// One number a layer, from a number for all or an array; 0 is 0.
    pub(crate) fn per_layer(&self, key: &'static str) -> Result<Option<Vec<u32>>> {
        self.note(key);
        let Some(Value::Array(array)) = self.gguf.get(&self.full(key)) else {
            return Ok(self.stored_u32(key)?.map(|n| vec![n; self.n_layer]));
        };
        self.one_a_layer(key, array)?;
        match whole_numbers(array, self.header) {
            Some(numbers) => Ok(Some(numbers)),
            // The accessor that wants a number names the type of the elements.
            None => Ok(self.stored_u32(key)?.map(|n| vec![n; self.n_layer])),
        }
    }

    /// The same for fractions, which need not be finite.
    pub(crate) fn fractions_of_layers(&self, key: &'static str) -> Result<Option<Vec<f32>>> {
        self.note(key);
        let Some(Value::Array(array)) = self.gguf.get(&self.full(key)) else {
            return Ok(self.stored_f32(key)?.map(|x| vec![x; self.n_layer]));
        };
        self.one_a_layer(key, array)?;
        match array_numbers(array, self.header) {
            Some(numbers) => Ok(Some(numbers.into_iter().map(|x| x as f32).collect())),
            None => Ok(self.stored_f32(key)?.map(|x| vec![x; self.n_layer])),
        }
    }

    /// One number a layer from a key that has no architecture's prefix.
    pub(crate) fn fractions_without_prefix(&self, key: &str) -> Result<Vec<f32>> {
        let wanted = format!("wanted a number or an array of {}, one a layer", self.n_layer);
        let bad = |problem: String| Error::Metadata { key: key.to_owned(), problem };
        let value = self.gguf.get(key).ok_or_else(|| bad("is missing".to_owned()))?;
        let numbers = numbers_of(value, self.header).ok_or_else(|| bad(format!("holds no numbers, {wanted}")))?;
        let numbers: Vec<f32> = numbers.into_iter().map(|x| x as f32).collect();
        match (value, numbers.len()) {
            _ if numbers.iter().any(|x| !x.is_finite()) => Err(bad("holds a number that is not finite".to_owned())),
            (Value::Array(_), n) if n == self.n_layer => Ok(numbers),
            (Value::Array(_), n) => Err(bad(format!("is an array of {n}, {wanted}"))),
            _ => Ok(vec![numbers[0]; self.n_layer]),
        }
    }

    /// One number a layer from an array that must be there and may go on behind the layers.
    pub(crate) fn first_of_array(&self, key: &'static str) -> Result<Vec<u32>> {
        self.note(key);
        let wanted = format!("wanted an array of at least {} numbers, one a layer", self.n_layer);
        match self.gguf.get(&self.full(key)) {
            Some(Value::Array(array)) if array.len() < self.n_layer => {
                Err(self.bad(key, format!("is an array of {}, {wanted}", array.len())))
            }
            Some(Value::Array(array)) => match whole_numbers(array, self.header) {
                Some(numbers) => Ok(numbers.into_iter().take(self.n_layer).collect()),
                None => Err(self.bad(key, format!("has elements that are no whole numbers, {wanted}"))),
            },
            Some(other) => Err(self.bad(key, format!("is of type {}, {wanted}", other.ty().name()))),
            None => Err(self.bad(key, "is missing")),
        }
    }

    /// How many of the blocks are layers, and how many behind them predict further tokens.
    pub(crate) fn layers_and_nextn(&self) -> Result<(usize, usize)> {
        let key = "nextn_predict_layers";
        match self.u32(key)?.map_or(0, |n| n as usize) {
            n if n < self.n_layer => Ok((self.n_layer - n, n)),
            n => Err(self.bad(key, format!("is {n}, wanted less than the {} blocks", self.n_layer))),
        }
    }

    /// Whether a key is an array.
    pub(crate) fn is_array(&self, key: &'static str) -> bool {
        matches!(self.gguf.get(&self.full(key)), Some(Value::Array(_)))
    }

    /// Epsilon of the RMS norms.
    pub(crate) fn rms_eps(&self) -> Result<f32> {
        self.epsilon("attention.layer_norm_rms_epsilon")
    }

    /// Epsilon of the layer norms.
    pub(crate) fn layer_norm_eps(&self) -> Result<f32> {
        self.epsilon("attention.layer_norm_epsilon")
    }

    fn epsilon(&self, key: &'static str) -> Result<f32> {
        match self.stored_f32(key)? {
            Some(eps) if eps >= 0.0 => Ok(eps),
            Some(eps) => Err(self.bad(key, format!("is {eps}, wanted a number of at least 0"))),
            None => Err(self.bad(key, "is missing")),
        }
    }

    /// RoPE of heads of `head_dim` elements.
    pub(crate) fn rope(&self, style: RopeStyle, head_dim: usize) -> Result<RopeSpec> {
        // 0 is not "absent" here: it means that nothing is rotated.
        let n_rot = match self.stored_u32("rope.dimension_count")? {
            Some(n) => self.bounded("rope.dimension_count", n, MAX_LENGTH)?,
            None => head_dim,
        };
        if n_rot > head_dim || n_rot % 2 != 0 {
            let problem = format!("is {n_rot}, wanted an even number up to the head's {head_dim} elements");
            return Err(self.bad("rope.dimension_count", problem));
        }
        let base = self.positive_f32("rope.freq_base")?.unwrap_or(10_000.0);
        let scaling = self.rope_scaling()?;
        let factors = match self.text("rope.scaling.type")?.as_deref() {
            Some("longrope") => {
                let original = self.optional_size("rope.scaling.original_context_length", u32::MAX)?;
                let trained = || self.size("context_length", u32::MAX);
                RopeFactors::LongOrShort { original_ctx_tokens: original.map_or_else(trained, Ok)? }
            }
            _ => RopeFactors::Fixed,
        };
        // YaRN makes up for attention that spreads over more tokens.
        let of_scaling = match scaling {
            RopeScaling::Yarn { factor, .. } => 1.0 + 0.1 * f64::from(factor).ln() as f32,
            RopeScaling::None | RopeScaling::Linear { .. } => 1.0,
        };
        let magnitude = self.rope_magnitude()? * of_scaling;
        Ok(RopeSpec { style, n_rot, base, scaling, magnitude, factors, first: 0, sections: None })
    }

    /// The pairs that turn with each of a position's numbers; the key must be there.
    pub(crate) fn rope_sections(&self, is_interleaved: bool) -> Result<RopeSections> {
        let key = "rope.dimension_sections";
        self.note(key);
        let numbers = match self.gguf.get(&self.full(key)) {
            Some(Value::Array(array)) => whole_numbers(array, self.header),
            Some(_) => None,
            None => return Err(self.bad(key, "is missing")),
        };
        match numbers.as_deref() {
            Some(&[time, height, width, other]) if [time, height, width, other].iter().all(|n| *n <= MAX_LENGTH) => {
                let pairs = [time, height, width, other].map(|n| n as usize);
                Ok(RopeSections { pairs, is_interleaved })
            }
            _ => Err(self.bad(key, format!("wanted an array of 4 numbers of pairs, each at most {MAX_LENGTH}"))),
        }
    }

    /// Factor on queries that grows with the position.
    pub(crate) fn temperature(&self) -> Result<Option<Temperature>> {
        let length_key = "attention.temperature_length";
        let length = self.optional_size(length_key, u32::MAX)?;
        match (self.f32("attention.temperature_scale")?, length) {
            (None, _) => Ok(None),
            (Some(_), None) => Err(self.bad(length_key, "is missing beside attention.temperature_scale")),
            (Some(scale), Some(length_tokens)) => Ok(Some(Temperature { scale, length_tokens, offset: 0 })),
        }
    }

    fn rope_scaling(&self) -> Result<RopeScaling> {
        let kind = self.text("rope.scaling.type")?;
        let factor = match self.positive_f32("rope.scaling.factor")? {
            Some(f) => Some(f),
            None => self.positive_f32("rope.scale_linear")?,
        };
        // A factor without a type means linear; a type without a factor means no change.
        match (kind.as_deref(), factor) {
            // LongRoPE has divisors in the place of a factor.
            (Some("none" | "longrope"), _) | (_, None) | (_, Some(1.0)) => Ok(RopeScaling::None),
            (None | Some("linear"), Some(factor)) => Ok(RopeScaling::Linear { factor }),
            (Some("yarn"), Some(factor)) => {
                let original = match self.u32("rope.scaling.original_context_length")? {
                    Some(n) => n,
                    None => self.stored_u32("context_length")?.unwrap_or(0),
                };
                Ok(RopeScaling::Yarn {
                    factor,
                    original_ctx_tokens: self.bounded("rope.scaling.original_context_length", original, u32::MAX)?
                        as u32,
                    beta_fast: self.positive_f32("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.positive_f32("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                })
            }
            (Some(other), Some(_)) => {
                Err(self.unsupported("rope.scaling.type", format!("\"{}\"", clean(other)), "none, linear or yarn"))
            }
        }
    }

    /// Factor on cosines and sines, beside that of YaRN.
    pub(crate) fn rope_magnitude(&self) -> Result<f32> {
        Ok(self.positive_f32("rope.scaling.attn_factor")?.unwrap_or(1.0))
    }

    /// For each layer whether it sees a window only. A number is the period of the layers that see
    /// everything, the last of each period (`full_is_first` says: the first); 0 means that no layer
    /// does. An array has a 1 for each layer with a window.
    pub(crate) fn windowed_layers(&self, usual_period: usize, full_is_first: bool) -> Result<Vec<bool>> {
        let key = "attention.sliding_window_pattern";
        let by_period = |period: usize| {
            let is_full = |il: usize| match (period, full_is_first) {
                (0, _) => false,
                (period, true) => il.is_multiple_of(period),
                (period, false) => (il + 1).is_multiple_of(period),
            };
            (0..self.n_layer).map(|il| !is_full(il)).collect()
        };
        if self.is_array(key) {
            let flags = self.per_layer(key)?.unwrap_or_default();
            return Ok(flags.into_iter().map(|flag| flag != 0).collect());
        }
        match self.stored_u32(key)? {
            None => Ok(by_period(usual_period)),
            Some(0) => Ok(by_period(0)),
            Some(n) => Ok(by_period(self.bounded(key, n, MAX_LAYERS)?)),
        }
    }

    /// The same where the key must be an array.
    pub(crate) fn array_of_windows(&self) -> Result<Vec<bool>> {
        let key = "attention.sliding_window_pattern";
        if !self.is_array(key) {
            return Err(self.bad(key, "is missing, wanted an array with 1 for each layer with a window"));
        }
        self.windowed_layers(0, false)
    }

    /// Refuses values of keys that would change what is computed and that this architecture does
    /// not read: a model that runs with other mathematics than its own answers wrongly without a
    /// word.
    pub(crate) fn refuse_other_mathematics(&self) -> Result<()> {
        let read = self.read.borrow();
        for &(key, usual, what) in unread::NUMBERS.iter().filter(|(key, ..)| !read.contains(key)) {
            let Some(value) = self.gguf.get(&self.full(key)) else { continue };
            if !is_usual(value, usual, self.header) {
                let wanted = usual.iter().fold("0".to_owned(), |text, x| format!("{text} or {x}"));
                return Err(self.unlike(key, value, &wanted, what));
            }
        }
        for &(key, usual, what) in unread::FLAGS.iter().filter(|(key, ..)| !read.contains(key)) {
            let Some(value) = self.gguf.get(&self.full(key)) else { continue };
            if !matches!(value, Value::Bool(seen) if *seen == usual) {
                return Err(self.unlike(key, value, if usual { "true" } else { "false" }, what));
            }
        }
        Ok(())
    }

    /// Refuses a number that is there, changes the mathematics, and differs from what this model
    /// implies.
    pub(crate) fn refuse_unless(&self, key: &'static str, usual: &[f64], what: &str) -> Result<()> {
        self.note(key);
        let Some(value) = self.gguf.get(&self.full(key)) else { return Ok(()) };
        if is_usual(value, usual, self.header) {
            return Ok(());
        }
        let wanted = usual.iter().fold("0".to_owned(), |text, x| format!("{text} or {x}"));
        Err(self.unlike(key, value, &wanted, what))
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    pub(crate) fn bounded(&self, key: &str, n: u32, max: u32) -> Result<usize> {
        match n {
            0 => Err(self.bad(key, "is 0")),
            n if n > max => Err(self.bad(key, format!("is {n}, wanted at most {max}"))),
            n => Ok(n as usize),
        }
    }

    fn one_a_layer(&self, key: &str, array: &Array) -> Result<()> {
        let wanted = format!("wanted one number or an array of {}, one a layer", self.n_layer);
        match array.len() {
            0 => Err(self.bad(key, format!("is an empty array, {wanted}"))),
            seen if seen != self.n_layer => Err(self.bad(key, format!("is an array of {seen}, {wanted}"))),
            _ => Ok(()),
        }
    }

    fn unlike(&self, key: &str, value: &Value, wanted: &str, what: &str) -> Error {
        let seen = match (value, numbers_of(value, self.header)) {
            (Value::Bool(b), _) => b.to_string(),
            (Value::Array(_), Some(numbers)) => format!("{:?}", &numbers[..numbers.len().min(8)]),
            (_, Some(numbers)) => numbers.iter().map(|x| short(*x)).collect(),
            (Value::String(text), None) => format!("\"{}\"", clean(text)),
            (other, None) => format!("of type {}", other.ty().name()),
        };
        self.bad(key, format!("is {seen}, wanted {wanted}: architecture {} runs here without {what}", self.arch))
    }
}

/// A text of the metadata, whatever the architecture; an empty one means that it is not given.
pub(crate) fn string(gguf: &Gguf, key: &str) -> Result<Option<String>> {
    Ok(gguf.str(key).map_err(|e| unusable(key, e))?.filter(|text| !text.is_empty()).map(str::to_owned))
}

/// Text out of a file, fit for a terminal: control characters become spaces, at most 80 characters.
pub(crate) fn clean(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A number as text that stays short.
fn short(x: f64) -> String {
    if x.abs() < 1e15 { x.to_string() } else { format!("{x:e}") }
}

/// What reading a value says, as an error of this crate that names the key once.
fn unusable(key: &str, error: modelembed_gguf::Error) -> Error {
    let problem = match error {
        modelembed_gguf::Error::WrongType { seen, wanted, .. } => format!("is {seen}, wanted {wanted}"),
        other => other.to_string(),
    };
    Error::Metadata { key: key.to_owned(), problem }
}

/// Whether a value changes nothing: it means "absent", or is one of `usual`; of an array each
/// element.
fn is_usual(value: &Value, usual: &[f64], header: &[u8]) -> bool {
    let is_float = matches!(value, Value::F32(_) | Value::F64(_));
    let is_absent = |x: f64| x == 0.0 || (!is_float && (x == -1.0 || x == f64::from(u32::MAX)));
    match (value, numbers_of(value, header)) {
        (Value::String(text), _) => text.is_empty(),
        (_, Some(numbers)) => numbers.iter().all(|x| is_absent(*x) || usual.contains(x)),
        (_, None) => false,
    }
}

/// The number, or those of an array.
fn numbers_of(value: &Value, header: &[u8]) -> Option<Vec<f64>> {
    match value {
        Value::Array(array) => array_numbers(array, header),
        Value::Bool(b) => Some(vec![f64::from(u8::from(*b))]),
        Value::F32(x) => Some(vec![f64::from(*x)]),
        Value::F64(x) => Some(vec![*x]),
        other => Some(vec![other.as_int()? as f64]),
    }
}

/// Those of an array, if all are whole; -1 stands for "absent" in arrays of signed numbers, as the
/// greatest number elsewhere.
fn whole_numbers(array: &Array, header: &[u8]) -> Option<Vec<u32>> {
    let numbers = array_numbers(array, header)?;
    let is_whole = |x: &f64| x.fract() == 0.0 && (-1.0..=f64::from(u32::MAX)).contains(x);
    let whole = |x: &f64| if *x < 0.0 { u32::MAX } else { *x as u32 };
    numbers.iter().all(is_whole).then(|| numbers.iter().map(whole).collect())
}

/// The numbers of an array of the types that files have: floats, 32-bit integers, bytes, bools.
fn array_numbers(array: &Array, header: &[u8]) -> Option<Vec<f64>> {
    fn read<T: Number + Into<f64>>(array: &Array, header: &[u8]) -> Option<Vec<f64>> {
        Some(array.numbers::<T>()?.to_vec(header).into_iter().map(T::into).collect())
    }
    let bools = || Some(array.numbers::<bool>()?.to_vec(header).into_iter().map(|b| f64::from(u8::from(b))).collect());
    read::<f32>(array, header)
        .or_else(|| read::<u32>(array, header))
        .or_else(|| read::<i32>(array, header))
        .or_else(|| read::<u8>(array, header))
        .or_else(bools)
}
