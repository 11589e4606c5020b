//! `'%s' % x` and `'%s'|format(x)`.

use std::iter::Peekable;
use std::str::Chars;

use minijinja::value::{Kwargs, Rest, Tuple, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, State, Value};

use super::field::{
    Spec, character, cut, float_of, in_base, integer_of, number, of_digits, of_float, pad, pad_number, prefix, push,
    refuse, text_of, until,
};

/// `text|format(...)`: as `%` with the arguments, positional or by name.
pub(in crate::chat) fn filter(state: &State, text: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
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
    fill_percents(state, text, std::slice::from_ref(&mapping), Some(&mapping))
}

/// `text % value`.
pub(in crate::chat) fn percent(state: &State, text: &Value, value: &Value) -> Result<String, Error> {
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
