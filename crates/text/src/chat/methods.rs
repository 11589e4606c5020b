//! Python methods that templates call on texts, lists and dictionaries.
//!
//! minijinja-contrib knows most of them; what real templates use beyond it is here.

use super::format;
use super::python::{is_hashable, kind_of, refuse};
use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Calls `value.method(args)` for a method that the value itself does not have.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), method) {
        (Some(text), "format") => return format::method(state, text, args).map(Value::from),
        (Some(_), "join") => pay_for_copies(state, args)?,
        _ => {}
    }
    let ours = match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => string_method(text, method, args)?,
        (ValueKind::Seq, _) => list_method(value, method, args)?,
        (ValueKind::Map, _) if method == "get" => Some(get(value, args)?),
        _ => None,
    };
    match ours {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// `join` takes texts only. minijinja charges for the result only once it exists.
fn pay_for_copies(state: &State, args: &[Value]) -> Result<(), Error> {
    let mut len_bytes = 0usize;
    for list in args {
        if list.is_none() {
            return refuse("join: wanted a list, not None");
        }
        for item in list.try_iter()? {
            match item.as_str() {
                Some(text) => len_bytes += text.len(),
                None => return refuse(format!("join: the list may hold only texts, not {}", kind_of(&item))),
            }
        }
    }
    state.consume_fuel(len_bytes as u64 / 64)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let one = || from_args::<(&str,)>(args).map(|(x,)| x);
    match (method, args.first()) {
        ("split" | "rsplit" | "strip" | "lstrip" | "rstrip", Some(what))
            if what.as_str().is_none() && !what.is_none() =>
        {
            return refuse(format!("{method}: wanted a text, not {}", kind_of(what)));
        }
        ("split", Some(separator)) if separator.as_str() == Some("") => return refuse("the separator is empty"),
        ("startswith" | "endswith", Some(what)) if what.as_str().is_none() && kind_of(what) != "tuple" => {
            return refuse(format!("{method}: wanted a text or a tuple of texts, not {}", kind_of(what)));
        }
        _ => {}
    }
    Ok(Some(match method {
        "removeprefix" => Value::from(text.strip_prefix(one()?).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(one()?).unwrap_or(text)),
        "partition" => parts(text.split_once(nonempty(one()?)?), one()?, [text, "", ""]),
        "rpartition" => parts(text.rsplit_once(nonempty(one()?)?), one()?, ["", "", text]),
        "split" if args.is_empty() => text.split_whitespace().map(Value::from).collect::<Vec<_>>().into(),
        "rsplit" => rsplit(text, args)?,
        "index" => match text.find(one()?) {
            Some(at) => Value::from(text[..at].chars().count()),
            None => return Err(Error::new(ErrorKind::InvalidOperation, "index: substring not found")),
        },
        _ => return Ok(None),
    }))
}

fn nonempty(separator: &str) -> Result<&str, Error> {
    if separator.is_empty() { refuse("the separator is empty") } else { Ok(separator) }
}

/// `dict.get(key, default=None)`
fn get(dict: &Value, args: &[Value]) -> Result<Value, Error> {
    let (key, default): (&Value, Option<Value>) = match args {
        [key] => (key, None),
        [key, default] => (key, Some(default.clone())),
        _ => return refuse("get: wanted a key, and perhaps a default"),
    };
    if !is_hashable(key) {
        return refuse(format!("get: {} cannot be a dictionary's key", kind_of(key)));
    }
    let found = dict.as_object().and_then(|object| object.get_value(key));
    Ok(found.or(default).unwrap_or_else(|| Value::from(())))
}

fn parts(found: Option<(&str, &str)>, separator: &str, otherwise: [&str; 3]) -> Value {
    let parts = found.map_or(otherwise, |(before, after)| [before, separator, after]);
    Value::from(Tuple::from(parts.map(Value::from)))
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, max): (Option<&str>, Option<i64>) = from_args(args)?;
    let Some(separator) = separator else {
        return Err(Error::new(ErrorKind::InvalidOperation, "rsplit needs a separator"));
    };
    let separator = nonempty(separator)?;
    let mut pieces: Vec<&str> = match max.and_then(|max| usize::try_from(max).ok()) {
        Some(max) => text.rsplitn(max.saturating_add(1), separator).collect(),
        None => text.rsplit(separator).collect(),
    };
    pieces.reverse();
    Ok(pieces.into_iter().map(Value::from).collect::<Vec<_>>().into())
}

fn list_method(list: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            match list.try_iter()?.position(|item| item == *wanted) {
                Some(at) => Ok(Some(Value::from(at))),
                None => Err(Error::new(ErrorKind::InvalidOperation, "index: value is not in the list")),
            }
        }
        // Jinja runs sandboxed there too: a template must not change what it was given.
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
            let message = format!("{method}: lists cannot be changed in a chat template");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
        _ => Ok(None),
    }
}
