//! Comparing, containing, going through and testing values as Python does, above all none and what
//! is undefined.
//!
//! minijinja orders values of any kinds, finds nothing in none, and goes through none as through an
//! empty list. Python refuses all three, and a template that was tried out with Python relies on
//! its tests (`tools is iterable` is false for none). The source gets a filter of this file in the
//! place of `<`, `<=`, `>`, `>=`, `in` and `not in`, and behind what a loop or a filter goes
//! through; see `bounded.rs`.

use std::cmp::Ordering;

use minijinja::value::{ObjectRepr, Rest, Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value, tests};

use super::weigh::bounded;

/// The filters that stand in the places of operators, in the form in which they are inserted:
/// alone, first in a chain such as `0 < x < 3`, and later in a chain. Signs stand before those that
/// they contain.
pub(super) const OPERATORS: [(&str, [&str; 3]); 8] = [
    ("==", ["==", ")|is_chain('==', ", ", '==', "]),
    ("!=", ["!=", ")|is_chain('!=', ", ", '!=', "]),
    ("<=", [")|is_at_most(", ")|is_chain('<=', ", ", '<=', "]),
    ("<", [")|is_less(", ")|is_chain('<', ", ", '<', "]),
    (">=", [")|is_at_least(", ")|is_chain('>=', ", ", '>=', "]),
    (">", [")|is_greater(", ")|is_chain('>', ", ", '>', "]),
    ("not in", [")|is_not_in(", ")|is_chain('not in', ", ", 'not in', "]),
    ("in", [")|is_in(", ")|is_chain('in', ", ", 'in', "]),
];
/// Behind what is gone through.
pub(super) const ITERATED: &str = "|iterated";
/// Behind what a slice is taken of.
pub(super) const SLICED: &str = "|sliced";

/// Filters that go through what they are given as soon as they are called.
pub(super) const ITERATING: [&str; 10] =
    ["batch", "groupby", "join", "list", "max", "min", "slice", "sort", "sum", "unique"];

/// Filters of minijinja's that print what they are given; `printed` is put before them.
pub(super) const PRINTING: [&str; 7] = ["capitalize", "lower", "replace", "safe", "title", "trim", "upper"];

/// Adds the filters and tests of this file.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    let compares: [(&'static str, &'static str, &'static [&'static str]); 4] = [
        ("is_less", "<", &["lt", "lessthan", "<"]),
        ("is_at_most", "<=", &["le", "<="]),
        ("is_greater", ">", &["gt", "greaterthan", ">"]),
        ("is_at_least", ">=", &["ge", ">="]),
    ];
    for (filter, sign, names) in compares {
        let compare = move |state: &State, a: &Value, b: &Value| compare(state, a, b, sign);
        environment.add_filter(filter, compare);
        for name in names {
            environment.add_test(*name, compare);
        }
    }
    environment.add_filter("is_in", is_in);
    environment.add_test("in", is_in);
    environment.add_filter("is_not_in", |state: &State, a: &Value, b: &Value| is_in(state, a, b).map(|found| !found));
    environment.add_filter("is_chain", is_chain);
    environment.add_filter("iterated", iterated);
    environment.add_filter("sliced", sliced);
    environment.add_test("iterable", |value: &Value| iterated(value).is_ok_and(|value| value.try_iter().is_ok()));
    environment.add_test("sequence", |value: &Value| {
        value.is_undefined() || matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
    // Python's undefined can be called, only to say that it is undefined.
    environment.add_test("callable", |value: &Value| value.is_undefined() || value.kind() == ValueKind::Plain);
    environment.add_test("even", |value: &Value| number(value, "even").map(|_| tests::is_even(value.clone())));
    environment.add_test("odd", |value: &Value| number(value, "odd").map(|_| tests::is_odd(value.clone())));
    environment.add_test("divisibleby", |value: &Value, by: &Value| {
        number(value, "divisibleby")?;
        number(by, "divisibleby")?;
        if by.is_true() { Ok(tests::is_divisibleby(value, by)) } else { refuse("divisibleby: division by zero") }
    });
    // Each look-up of what is undefined makes another undefined.
    environment.add_test("sameas", |a: &Value, b: &Value| !a.is_undefined() && tests::is_sameas(a, b));
    environment.add_test("filter", |state: &State, name: &Value| {
        name.as_str().is_some_and(|name| tests::is_filter(state, name))
    });
    environment
        .add_test("test", |state: &State, name: &Value| name.as_str().is_some_and(|name| tests::is_test(state, name)));
}

pub(super) fn refuse<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.into()))
}

/// What Python calls a value of this kind.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "undefined",
        ValueKind::None => "None",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Seq if is_tuple(value) => "tuple",
        ValueKind::Seq => "list",
        ValueKind::Map => "dict",
        _ => "object",
    }
}

fn is_tuple(value: &Value) -> bool {
    value.downcast_object_ref::<Tuple>().is_some()
}

fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

fn number(value: &Value, test: &str) -> Result<(), Error> {
    if is_number(value) { Ok(()) } else { refuse(format!("{test}: wanted a number, not {}", kind_of(value))) }
}

/// The items of a list or tuple.
fn items(value: &Value) -> Option<Vec<Value>> {
    value.try_iter().ok().filter(|_| value.kind() == ValueKind::Seq).map(Iterator::collect)
}

/// How two values are ordered; `None` if one of them is not a number (NaN).
///
/// # Errors
/// Values of kinds that Python does not order.
pub(super) fn order(state: &State, a: &Value, b: &Value, sign: &str) -> Result<Option<Ordering>, Error> {
    let refused = || refuse(format!("{sign} between {} and {}: these have no order", kind_of(a), kind_of(b)));
    if is_number(a) && is_number(b) {
        let is_nan = |x: &Value| !x.is_integer() && f64::try_from(x.clone()).is_ok_and(f64::is_nan);
        return Ok((!is_nan(a) && !is_nan(b)).then(|| a.cmp(b)));
    }
    if let (Some(x), Some(y)) = (a.as_str(), b.as_str()) {
        state.consume_fuel(x.len().min(y.len()) as u64 / 64)?;
        return Ok(Some(x.cmp(y)));
    }
    if is_tuple(a) != is_tuple(b) {
        return refused();
    }
    let (Some(x), Some(y)) = (items(a), items(b)) else { return refused() };
    // What is compared is looked at as a whole: items may be lists too.
    bounded(state, a)?;
    bounded(state, b)?;
    match x.iter().zip(&y).find(|(x, y)| x != y) {
        Some((x, y)) => order(state, x, y, sign),
        None => Ok(Some(x.len().cmp(&y.len()))),
    }
}

/// `a sign b`, for all that compare.
fn compare(state: &State, a: &Value, b: &Value, sign: &str) -> Result<bool, Error> {
    let is_ordered = |wanted: fn(Ordering) -> bool| Ok(order(state, a, b, sign)?.is_some_and(wanted));
    match sign {
        "<" => is_ordered(Ordering::is_lt),
        "<=" => is_ordered(Ordering::is_le),
        ">" => is_ordered(Ordering::is_gt),
        ">=" => is_ordered(Ordering::is_ge),
        "in" => is_in(state, a, b),
        "not in" => is_in(state, a, b).map(|found| !found),
        _ => {
            bounded(state, a)?;
            bounded(state, b)?;
            Ok((a == b) == (sign == "=="))
        }
    }
}

/// `first sign value sign value ...`: ends with the first that does not hold.
fn is_chain(state: &State, first: &Value, rest: Rest<Value>) -> Result<bool, Error> {
    let mut before = first;
    for pair in rest.chunks_exact(2) {
        if !compare(state, before, &pair[1], pair[0].as_str().unwrap_or_default())? {
            return Ok(false);
        }
        before = &pair[1];
    }
    Ok(true)
}

fn iterated(value: &Value) -> Result<Value, Error> {
    if value.is_none() { refuse("None is not iterable") } else { Ok(value.clone()) }
}

fn sliced(value: &Value) -> Result<Value, Error> {
    if value.is_none() || value.is_undefined() {
        return refuse(format!("{} cannot be sliced", kind_of(value)));
    }
    Ok(value.clone())
}

/// Whether a value can be a dictionary's key.
pub(super) fn is_hashable(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Map => false,
        ValueKind::Seq => is_tuple(value),
        _ => true,
    }
}

/// `value in container`
fn is_in(state: &State, value: &Value, container: &Value) -> Result<bool, Error> {
    if container.is_undefined() {
        return Ok(false);
    }
    if let Some(text) = container.as_str() {
        state.consume_fuel(text.len() as u64 / 16)?;
        return match value.as_str() {
            Some(part) => Ok(text.contains(part)),
            None => refuse(format!("in: a text holds texts, not {}", kind_of(value))),
        };
    }
    let Some(object) = container.as_object() else {
        return refuse(format!("in: {} holds nothing", kind_of(container)));
    };
    match object.repr() {
        ObjectRepr::Map if !is_hashable(value) => {
            refuse(format!("in: {} cannot be a dictionary's key", kind_of(value)))
        }
        ObjectRepr::Map => Ok(object.get_value(value).is_some()),
        ObjectRepr::Seq | ObjectRepr::Iterable => {
            if value.as_object().is_some() {
                bounded(state, value)?;
                bounded(state, container)?;
            }
            for item in container.try_iter()? {
                state.consume_fuel(1)?;
                if item == *value {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => refuse(format!("in: {} holds nothing", kind_of(container))),
    }
}

/// What an item is sorted by.
pub(super) fn key_of(item: &Value, attribute: Option<&str>) -> Result<Value, Error> {
    let parts = attribute.into_iter().flat_map(|path| path.split('.'));
    parts.into_iter().try_fold(item.clone(), |value, part| match part.parse::<usize>() {
        Ok(index) => value.get_item_by_index(index),
        Err(_) => value.get_attr(part),
    })
}
