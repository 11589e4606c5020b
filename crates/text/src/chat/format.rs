//! Texts with fields, as Python fills them: `'%s' % x` and `'%s'|format(x)`, and `'{}'.format(x)`.
//!
//! minijinja knows both (`%` for numbers alone), but counts widths in bytes, prints floats in lists in its own way, and panics at names
//! that are not ASCII and at precisions above 65,535. Here fields are read and padded; digits of floats come from minijinja. What Python knows beyond (`%r`, `{0.a}`, `{:{}}`,
//! `{:n}`) is an error that says so.

use std::iter::Peekable;
use std::str::Chars;

use minijinja::formatting::{FormatStyle, format as digits_by_minijinja};
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::printed;

/// The filter's name that stands for `%` behind a text; see `bounded.rs`.
pub(super) const PERCENT: &str = "percent";

/// Largest width and precision. Real templates have one digit.
const MAX_WIDTH: usize = 999;

fn refuse<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("format: {}", why.into())))
}

/// How a field is to be written.
#[derive(Clone, Copy, Debug, Default)]
struct Spec {
    fill: Option<char>,
    /// One of `<`, `>`, `^` and `=`.
    align: Option<char>,
    /// What stands before numbers that are not negative: `+`, a space, or nothing (`-`).
    sign: Option<char>,
    alternate: bool,
    zeros: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    conversion: Option<char>,
}

/// A number in three parts; a width is filled with zeros between the second and the last.
struct Number {
    sign: &'static str,
    prefix: &'static str,
    digits: String,
}

/// `text|format(...)`: as `%` with the arguments, positional or by name.
pub(super) fn filter(state: &State, text: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (positional, named) = from_args::<(&[Value], Kwargs)>(&args)?;
    let names: Vec<&str> = named.args().collect();
    if names.is_empty() {
        return fill_percents(state, text, positional, None);
    }
    if !positional.is_empty() {
        return refuse("positional arguments and names cannot be mixed");
    }
    let pairs = names.iter().map(|name| Ok((*name, named.get::<Value>(name)?)));
    let mapping = Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?);
    fill_percents(state, text, &[mapping.clone()], Some(&mapping))
}

/// `text % value`.
pub(super) fn percent(state: &State, text: &Value, value: &Value) -> Result<String, Error> {
    match value.downcast_object_ref::<Tuple>() {
        Some(_) => fill_percents(state, text, &value.try_iter()?.collect::<Vec<_>>(), None),
        None => {
            let mapping = matches!(value.kind(), ValueKind::Map | ValueKind::Seq).then_some(value);
            fill_percents(state, text, std::slice::from_ref(value), mapping)
        }
    }
}

fn fill_percents(state: &State, text: &Value, args: &[Value], mapping: Option<&Value>) -> Result<String, Error> {
    let Some(text) = text.as_str() else { return refuse("only a text has fields") };
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let mut args = args.iter();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let name = match chars.next_if_eq(&'(') {
            Some(_) => Some(until(&mut chars, ')')?),
            None => None,
        };
        let spec = percent_spec(&mut chars)?;
        let value = match (&name, mapping) {
            (Some(name), Some(mapping)) if mapping.kind() == ValueKind::Map => {
                let found = mapping.get_item(&Value::from(name.as_str()))?;
                if found.is_undefined() {
                    return refuse(format!("nothing is called {name:?}"));
                }
                found
            }
            (Some(_), _) => return refuse("a name needs a dictionary"),
            (None, _) => match args.next() {
                Some(value) => value.clone(),
                None => return refuse("not enough arguments"),
            },
        };
        push(state, &mut out, &percent_field(state, &value, spec)?)?;
    }
    // Python forgives what can be asked by name.
    if mapping.is_none() && args.next().is_some() {
        return refuse("not all arguments are used");
    }
    state.consume_fuel(text.len() as u64 / 64)?;
    Ok(out)
}

/// Appends a field and has it paid for: four times what minijinja takes for text, since the result is paid for again once it exists.
fn push(state: &State, out: &mut String, field: &str) -> Result<(), Error> {
    state.consume_fuel(1 + field.len() as u64 / 16)?;
    out.push_str(field);
    Ok(())
}

fn until(chars: &mut Peekable<Chars>, end: char) -> Result<String, Error> {
    let mut name = String::new();
    for c in chars {
        if c == end {
            return Ok(name);
        }
        name.push(c);
    }
    refuse(format!("{end} is missing"))
}

fn number(chars: &mut Peekable<Chars>) -> Result<Option<usize>, Error> {
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

/// `[flags][width][.precision][hlL]conversion`
fn percent_spec(chars: &mut Peekable<Chars>) -> Result<Spec, Error> {
    let mut spec = Spec::default();
    while let Some(flag) = chars.next_if(|c| "#0- +".contains(*c)) {
        match flag {
            '#' => spec.alternate = true,
            '0' => spec.zeros = true,
            '-' => spec.align = Some('<'),
            ' ' => spec.sign = spec.sign.or(Some(' ')),
            _ => spec.sign = Some('+'),
        }
    }
    spec.width = number(chars)?.unwrap_or(0);
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = Some(number(chars)?.unwrap_or(0));
    }
    chars.next_if(|c| "hlL".contains(*c));
    spec.conversion = chars.next();
    Ok(spec)
}

fn percent_field(state: &State, value: &Value, mut spec: Spec) -> Result<String, Error> {
    let conversion = match spec.conversion {
        Some('i' | 'u') => 'd',
        Some(c) => c,
        None => return refuse("a field has no end"),
    };
    if spec.align.is_some() {
        spec.zeros = false;
    }
    match conversion {
        's' => {
            let text = text_of(state, value)?;
            spec.zeros = false;
            Ok(pad(cut(&text, spec.precision), spec, '>'))
        }
        'c' => {
            spec.zeros = false;
            Ok(pad(&character(value)?, spec, '>'))
        }
        'd' | 'x' | 'X' | 'o' => {
            let (negative, size) = match (float_of(value), integer_of(value)) {
                (_, Some(integer)) => integer,
                (Some(x), None) if conversion == 'd' && x.is_finite() => {
                    return Ok(pad_number(
                        of_digits(x < 0.0 && x.trunc() != 0.0, format!("{:.0}", x.trunc().abs()), spec),
                        spec,
                    ));
                }
                _ => return refuse(format!("%{conversion} needs an integer")),
            };
            let mut number = of_digits(negative, in_base(size, conversion), spec);
            if spec.alternate {
                number.prefix = prefix(conversion);
            }
            Ok(pad_number(number, spec))
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let Some(x) = float_of(value) else { return refuse(format!("%{conversion} needs a number")) };
            Ok(pad_number(of_float(x, conversion, spec)?, spec))
        }
        other => refuse(format!("%{other} is not known here")),
    }
}

/// An integer's parts; `%.3d` is of three digits at least.
fn of_digits(negative: bool, digits: String, spec: Spec) -> Number {
    let least = spec.precision.unwrap_or(0);
    Number { sign: sign(negative, spec), prefix: "", digits: format!("{digits:0>least$}") }
}

fn sign(negative: bool, spec: Spec) -> &'static str {
    match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        (false, _) => "",
    }
}

fn prefix(conversion: char) -> &'static str {
    match conversion {
        'x' => "0x",
        'X' => "0X",
        'o' => "0o",
        'b' => "0b",
        _ => "",
    }
}

fn in_base(size: u128, conversion: char) -> String {
    match conversion {
        'x' => format!("{size:x}"),
        'X' => format!("{size:X}"),
        'o' => format!("{size:o}"),
        'b' => format!("{size:b}"),
        _ => size.to_string(),
    }
}

/// A float by `e`, `f` or `g`.
fn of_float(x: f64, conversion: char, spec: Spec) -> Result<Number, Error> {
    if spec.alternate || (spec.zeros && !x.is_finite()) {
        return refuse("'#' and zeros before what is not finite are not known here");
    }
    let pattern = format!("%.{}{conversion}", spec.precision.unwrap_or(6));
    let digits = digits_by_minijinja(FormatStyle::Printf, &pattern, &[Value::from(x.abs())])?;
    Ok(Number { sign: sign(x.is_sign_negative() && !x.is_nan(), spec), prefix: "", digits })
}

/// Sign and size of an integer or a bool.
fn integer_of(value: &Value) -> Option<(bool, u128)> {
    if value.kind() == ValueKind::Bool {
        return Some((false, value.is_true().into()));
    }
    if !value.is_integer() {
        return None;
    }
    let signed = i128::try_from(value.clone()).map(|i| (i < 0, i.unsigned_abs()));
    signed.or_else(|_| u128::try_from(value.clone()).map(|u| (false, u))).ok()
}

fn float_of(value: &Value) -> Option<f64> {
    match integer_of(value) {
        Some((negative, size)) => Some(if negative { -(size as f64) } else { size as f64 }),
        None if value.kind() == ValueKind::Number => f64::try_from(value.clone()).ok(),
        None => None,
    }
}

fn character(value: &Value) -> Result<String, Error> {
    let of_number = integer_of(value).filter(|(negative, _)| !negative).and_then(|(_, size)| u32::try_from(size).ok());
    match (value.as_str(), of_number.and_then(char::from_u32)) {
        (Some(text), _) if text.chars().count() == 1 => Ok(text.to_owned()),
        (None, Some(c)) => Ok(c.to_string()),
        _ => refuse("a character is a text or a number of one"),
    }
}

/// As Python's `str` writes it. Values are bounded when they are made, and printing one is paid for.
fn text_of(state: &State, value: &Value) -> Result<String, Error> {
    let text = printed::string(state, value)?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

fn cut(text: &str, chars: Option<usize>) -> &str {
    chars.and_then(|n| text.char_indices().nth(n)).map_or(text, |(end, _)| &text[..end])
}

fn pad(text: &str, spec: Spec, otherwise: char) -> String {
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

fn pad_number(number: Number, spec: Spec) -> String {
    let Number { sign, prefix, digits } = number;
    let within = spec.align == Some('=') || (spec.align.is_none() && spec.zeros);
    if !within {
        return pad(&format!("{sign}{prefix}{digits}"), spec, '>');
    }
    let left = spec.width.saturating_sub(sign.len() + prefix.len());
    format!("{sign}{prefix}{}", pad(&digits, Spec { width: left, align: Some('>'), ..spec }, '>'))
}

/// `text.format(...)`.
pub(super) fn method(state: &State, text: &str, args: &[Value]) -> Result<String, Error> {
    let (positional, named) = from_args::<(&[Value], Kwargs)>(args)?;
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let (mut next, mut by_number) = (0, false);
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.next_if_eq(&c).is_some() => out.push(c),
            '}' => return refuse("a single }"),
            '{' => {
                let field = until(&mut chars, '}')?;
                let (name, spec) = field.split_once(':').unwrap_or((&field, ""));
                let value = match (name, name.parse::<usize>()) {
                    ("", _) if !by_number => {
                        next += 1;
                        positional.get(next - 1).cloned()
                    }
                    (_, Ok(number)) if next == 0 && name.bytes().all(|b| b.is_ascii_digit()) => {
                        by_number = true;
                        positional.get(number).cloned()
                    }
                    ("", _) | (_, Ok(_)) => return refuse("fields with and without numbers cannot be mixed"),
                    (name, Err(_)) if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                        named.peek::<Value>(name).ok().filter(|_| named.has(name))
                    }
                    (name, Err(_)) => return refuse(format!("the field {name:?} is not known here")),
                };
                let Some(value) = value else { return refuse(format!("there is no argument for {{{field}}}")) };
                push(state, &mut out, &braced_field(state, &value, spec)?)?;
            }
            c => out.push(c),
        }
    }
    state.consume_fuel(text.len() as u64 / 64)?;
    Ok(out)
}

/// `[[fill]align][sign][#][0][width][grouping][.precision][type]`
fn braced_spec(text: &str) -> Result<Spec, Error> {
    let mut spec = Spec::default();
    let mut ahead = text.chars();
    let (first, second) = (ahead.next(), ahead.next());
    let mut chars = text.chars().peekable();
    let is_align = |c: Option<char>| c.filter(|c| "<>^=".contains(*c));
    if is_align(second).is_some() {
        (spec.fill, spec.align) = (first, second);
        chars = ahead.as_str().chars().peekable();
    } else if is_align(first).is_some() {
        spec.align = chars.next();
    }
    spec.sign = chars.next_if(|c| "+- ".contains(*c));
    spec.alternate = chars.next_if_eq(&'#').is_some();
    spec.zeros = chars.next_if_eq(&'0').is_some();
    spec.width = number(&mut chars)?.unwrap_or(0);
    spec.grouping = chars.next_if(|c| ",_".contains(*c));
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = number(&mut chars)?;
        if spec.precision.is_none() {
            return refuse("a precision is missing");
        }
    }
    spec.conversion = chars.next();
    match chars.next() {
        None => Ok(spec),
        Some(_) => refuse(format!("{text:?} is not known here")),
    }
}

fn braced_field(state: &State, value: &Value, text: &str) -> Result<String, Error> {
    if text.is_empty() {
        return text_of(state, value);
    }
    let spec = braced_spec(text)?;
    let unknown = || refuse(format!("{text:?} does not fit a value of type {}", value.kind()));
    if let Some(string) = value.as_str() {
        let numeric = spec.sign.is_some() || spec.alternate || spec.grouping.is_some() || spec.align == Some('=');
        return match spec.conversion {
            None | Some('s') if !numeric => Ok(pad(cut(string, spec.precision), spec, '<')),
            _ => unknown(),
        };
    }
    let number = match (spec.conversion, integer_of(value), float_of(value)) {
        (None | Some('d' | 'x' | 'X' | 'o' | 'b' | 'c'), Some(_), _) if spec.precision.is_some() => return unknown(),
        (Some('c'), Some(_), _) if spec.sign.is_none() && !spec.alternate && spec.grouping.is_none() => {
            Number { sign: "", prefix: "", digits: character(value)? }
        }
        (None | Some('d'), Some((negative, size)), _) => of_digits(negative, size.to_string(), spec),
        (Some(base @ ('x' | 'X' | 'o' | 'b')), Some((negative, size)), _) if spec.grouping.is_none() => {
            let prefix = if spec.alternate { prefix(base) } else { "" };
            Number { prefix, ..of_digits(negative, in_base(size, base), spec) }
        }
        (Some(conversion @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G')), _, Some(x)) => of_float(x, conversion, spec)?,
        (Some('%'), _, Some(x)) => {
            let mut number = of_float(x * 100.0, 'f', spec)?;
            number.digits.push('%');
            number
        }
        (None, None, Some(x)) if !spec.alternate => untyped(x, spec)?,
        _ => return unknown(),
    };
    Ok(pad_number(grouped(number, spec)?, spec))
}

/// A float without a type: as `repr` writes it, or with so many digits and a point at least.
fn untyped(x: f64, spec: Spec) -> Result<Number, Error> {
    if spec.zeros && !x.is_finite() {
        return refuse("zeros before what is not finite are not known here");
    }
    let digits = match spec.precision {
        Some(precision) if x.is_finite() => significant(x.abs(), precision.max(1)),
        _ => printed::float(x.abs()),
    };
    Ok(Number { sign: sign(x.is_sign_negative() && !x.is_nan(), spec), prefix: "", digits })
}

fn significant(x: f64, precision: usize) -> String {
    let trimmed = |text: &str| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    let scientific = format!("{x:.*e}", precision - 1);
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent + 1 > precision as i32 - 1 {
        let digits = if digits.contains('.') { trimmed(digits) } else { digits.to_owned() };
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let fixed = format!("{x:.*}", (precision as i32 - 1 - exponent).max(1) as usize);
    let fixed = trimmed(&fixed);
    if fixed.contains('.') { fixed } else { fixed + ".0" }
}

/// Thousands set apart.
fn grouped(number: Number, spec: Spec) -> Result<Number, Error> {
    let Some(separator) = spec.grouping else { return Ok(number) };
    if spec.zeros || spec.align == Some('=') {
        return refuse("zeros before thousands that are set apart are not known here");
    }
    let n_digits = number.digits.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = number.digits.split_at(n_digits);
    let mut digits = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (n_digits - i) % 3 == 0 {
            digits.push(separator);
        }
        digits.push(c);
    }
    Ok(Number { digits: digits + rest, ..number })
}
