//! Python methods that templates call on texts, lists and dictionaries.
//!
//! minijinja-contrib knows most of them; what real templates use beyond it is here.

use super::format;
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
        _ => None,
    };
    match ours {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// `join` can make much more text than it is given: lists that hold one another print exponentially. minijinja charges for the
/// result only once it exists.
fn pay_for_copies(state: &State, args: &[Value]) -> Result<(), Error> {
    let mut len_bytes = 0usize;
    for list in args {
        for item in list.try_iter()? {
            len_bytes += item.as_str().map_or(32, str::len);
            if matches!(item.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain) {
                let message = "join: the list may hold only texts and numbers";
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
    }
    state.consume_fuel(len_bytes as u64 / 64)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let one = || from_args::<(&str,)>(args).map(|(x,)| x);
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
    let empty = || Error::new(ErrorKind::InvalidOperation, "the separator is empty");
    if separator.is_empty() { Err(empty()) } else { Ok(separator) }
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
