//! What a field is, and how one is written: the same for `%` and for braces.

use std::iter::Peekable;
use std::str::Chars;

use minijinja::formatting::{FormatStyle, format as digits_by_minijinja};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use crate::chat::printed;

/// Largest width and precision. Real templates have one digit.
pub(super) const MAX_WIDTH: usize = 999;

pub(super) fn refuse<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("format: {}", why.into())))
}

/// How a field is to be written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spec {
    pub(super) fill: Option<char>,
    /// One of `<`, `>`, `^` and `=`.
    pub(super) align: Option<char>,
    /// What stands before numbers that are not negative: `+`, a space, or nothing (`-`).
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) zeros: bool,
    pub(super) width: usize,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) conversion: Option<char>,
}

/// A number in three parts; a width is filled with zeros between the second and the last.
pub(super) struct Number {
    pub(super) sign: &'static str,
    pub(super) prefix: &'static str,
    pub(super) digits: String,
}

/// Appends a field and has it paid for: four times what minijinja takes for text, since the result
/// is paid for again once it exists.
pub(super) fn push(state: &State, out: &mut String, field: &str) -> Result<(), Error> {
    state.consume_fuel(1 + field.len() as u64 / 16)?;
    out.push_str(field);
    Ok(())
}

pub(super) fn until(chars: &mut Peekable<Chars>, end: char) -> Result<String, Error> {
    let mut name = String::new();
    for c in chars {
        if c == end {
            return Ok(name);
        }
        name.push(c);
    }
    refuse(format!("{end} is missing"))
}

pub(super) fn number(chars: &mut Peekable<Chars>) -> Result<Option<usize>, Error> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = Some(number.unwrap_or(0) * 10 + digit as usize);
        if number > Some(MAX_WIDTH) {
            return refuse(format!("a width or precision above {MAX_WIDTH}"));
        }
    }
    Ok(number)
}

/// An integer's parts; `%.3d` is of three digits at least.
pub(super) fn of_digits(negative: bool, digits: String, spec: Spec) -> Number {
    let least = spec.precision.unwrap_or(0);
    Number { sign: sign(negative, spec), prefix: "", digits: format!("{digits:0>least$}") }
}

pub(super) fn sign(negative: bool, spec: Spec) -> &'static str {
    match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        (false, _) => "",
    }
}

pub(super) fn prefix(conversion: char) -> &'static str {
    match conversion {
        'x' => "0x",
        'X' => "0X",
        'o' => "0o",
        'b' => "0b",
        _ => "",
    }
}

pub(super) fn in_base(size: u128, conversion: char) -> String {
    match conversion {
        'x' => format!("{size:x}"),
        'X' => format!("{size:X}"),
        'o' => format!("{size:o}"),
        'b' => format!("{size:b}"),
        _ => size.to_string(),
    }
}

/// A float by `e`, `f` or `g`.
pub(super) fn of_float(x: f64, conversion: char, spec: Spec) -> Result<Number, Error> {
    if spec.alternate || (spec.zeros && !x.is_finite()) {
        return refuse("'#' and zeros before what is not finite are not known here");
    }
    let pattern = format!("%.{}{conversion}", spec.precision.unwrap_or(6));
    let digits = digits_by_minijinja(FormatStyle::Printf, &pattern, &[Value::from(x.abs())])?;
    Ok(Number { sign: sign(x.is_sign_negative() && !x.is_nan(), spec), prefix: "", digits })
}

/// Sign and size of an integer or a bool.
pub(super) fn integer_of(value: &Value) -> Option<(bool, u128)> {
    if value.kind() == ValueKind::Bool {
        return Some((false, value.is_true().into()));
    }
    if !value.is_integer() {
        return None;
    }
    let signed = i128::try_from(value.clone()).map(|i| (i < 0, i.unsigned_abs()));
    signed.or_else(|_| u128::try_from(value.clone()).map(|u| (false, u))).ok()
}

pub(super) fn float_of(value: &Value) -> Option<f64> {
    match integer_of(value) {
        Some((negative, size)) => Some(if negative { -(size as f64) } else { size as f64 }),
        None if value.kind() == ValueKind::Number => f64::try_from(value.clone()).ok(),
        None => None,
    }
}

pub(super) fn character(value: &Value) -> Result<String, Error> {
    let of_number = integer_of(value).filter(|(negative, _)| !negative).and_then(|(_, size)| u32::try_from(size).ok());
    match (value.as_str(), of_number.and_then(char::from_u32)) {
        (Some(text), _) if text.chars().count() == 1 => Ok(text.to_owned()),
        (None, Some(c)) => Ok(c.to_string()),
        _ => refuse("a character is a text or a number of one"),
    }
}

/// As Python's `str` writes it. Values are bounded when they are made, and printing one is paid
/// for.
pub(super) fn text_of(state: &State, value: &Value) -> Result<String, Error> {
    let text = printed::string(state, value)?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

pub(super) fn cut(text: &str, chars: Option<usize>) -> &str {
    chars.and_then(|n| text.char_indices().nth(n)).map_or(text, |(end, _)| &text[..end])
}

pub(super) fn pad(text: &str, spec: Spec, otherwise: char) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    let before = match spec.align.unwrap_or(otherwise) {
        '<' => 0,
        '^' => missing / 2,
        _ => missing,
    };
    let fill = spec.fill.unwrap_or(if spec.zeros { '0' } else { ' ' });
    let fills = |n| std::iter::repeat_n(fill, n);
    fills(before).chain(text.chars()).chain(fills(missing - before)).collect()
}

pub(super) fn pad_number(number: Number, spec: Spec) -> String {
    let Number { sign, prefix, digits } = number;
    let within = spec.align == Some('=') || (spec.align.is_none() && spec.zeros);
    if !within {
        return pad(&format!("{sign}{prefix}{digits}"), spec, '>');
    }
    let left = spec.width.saturating_sub(sign.len() + prefix.len());
    format!("{sign}{prefix}{}", pad(&digits, Spec { width: left, align: Some('>'), ..spec }, '>'))
}
