//! `'{}'.format(x)`.

use minijinja::value::{Kwargs, from_args};
use minijinja::{Error, State, Value};

use super::field::{
    Number, Spec, character, cut, float_of, in_base, integer_of, number, of_digits, of_float, pad, pad_number, prefix,
    push, refuse, sign, text_of, until,
};
use crate::chat::printed;

/// `text.format(...)`.
pub(in crate::chat) fn method(state: &State, text: &str, args: &[Value]) -> Result<String, Error> {
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
