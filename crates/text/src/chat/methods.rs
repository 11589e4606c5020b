//! Python methods that templates call on texts, lists and dictionaries.
//!
//! minijinja-contrib knows most of them; what real templates use beyond it is here.

use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Calls `value.method(args)` for a method that the value itself does not have.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), "format" | "join") = (value.as_str(), method) {
        pay_for_copies(state, text, method, args)?;
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

/// `format` and `join` can make much more text than they are given: the arguments any number of times, padded to any width,
/// and lists that hold one another print exponentially. minijinja charges for the result only once it exists.
fn pay_for_copies(state: &State, text: &str, method: &str, args: &[Value]) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::InvalidOperation, format!("{method}: {why}")));
    let mut len_bytes = 0usize;
    let mut pay = |value: &Value| {
        len_bytes += value.as_str().map_or(32, str::len);
        !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Plain)
    };
    if method == "join" {
        for list in args {
            if !list.try_iter()?.all(|item| pay(&item)) {
                return refuse("the list may hold only texts and numbers");
            }
        }
        return state.consume_fuel(len_bytes as u64 / 64);
    }
    if !args.iter().all(&mut pay) {
        return refuse("only texts and numbers can be formatted");
    }
    let longest_number = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    if longest_number > 3 {
        return refuse("a width or position above 999");
    }
    let fields = text.bytes().filter(|&byte| byte == b'{').count();
    state.consume_fuel((fields.saturating_mul(len_bytes + 1000) / 64) as u64)
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
