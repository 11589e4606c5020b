//! Values as Python prints them, where minijinja would print them otherwise: floats with an
//! exponent, NaN, and what is undefined.
//!
//! Python writes a float of 1e16 and more, or of less than 1e-4, with an exponent of a sign and at
//! least two digits. minijinja writes one such alone in full, and one in a list as Rust does
//! (`1e-5`). A value is copied with other objects in the place of such floats, and printing the
//! copy is left to minijinja. Values print where an expression is emitted, and in `~`, `string` and
//! `join`. What is undefined prints as nothing, and within a list or dictionary as `Undefined`.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, StringInput, Tuple, ValueKind};
use minijinja::{Error, Output, State, Value};

use super::python::key_of;

/// The filter's name; see [`printed`].
pub(super) const PRINTED: &str = "printed";

/// No value is deeper; see `weigh.rs`.
const MAX_DEPTH: usize = 128;

/// A float as Python's `repr` writes it: the shortest digits, with an exponent outside 1e-4 ..=
/// 1e16.
pub(super) fn float(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "nan"
        } else if x < 0.0 {
            "-inf"
        } else {
            "inf"
        }
        .to_string();
    }
    if !has_exponent(x) {
        let plain = x.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

fn has_exponent(x: f64) -> bool {
    x != 0.0 && !(1e-4..1e16).contains(&x.abs())
}

/// Prints as told, and does nothing else.
enum Printed {
    Float(f64),
    Undefined,
}

impl fmt::Debug for Printed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Printed::Float(x) => f.write_str(&float(*x)),
            Printed::Undefined => f.write_str("Undefined"),
        }
    }
}

impl Object for Printed {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// What is to be printed in a value's place; `None` if that is the value itself. What is undefined
/// has a name from the depth `named` on.
///
/// # Errors
/// The render's budget is used up: a list costs a step for each four of its items, as `bounded`
/// takes for it.
fn replaced(state: &State, value: &Value, named: usize) -> Result<Option<Value>, Error> {
    let mut items = 0;
    let copy = replaced_within(value, 0, named, &mut items);
    if value.as_object().is_some() {
        state.consume_fuel(items / 4)?;
    }
    Ok(copy)
}

fn replaced_within(value: &Value, depth: usize, named: usize, items: &mut u64) -> Option<Value> {
    *items += 1;
    if value.is_undefined() {
        return (depth >= named).then(|| Value::from_object(Printed::Undefined));
    }
    if value.kind() == ValueKind::Number && !value.is_integer() {
        let x = f64::try_from(value.clone()).ok()?;
        return (x.is_nan() || has_exponent(x)).then(|| Value::from_object(Printed::Float(x)));
    }
    let object = value.as_object().filter(|_| depth <= MAX_DEPTH)?;
    let mut is_other = false;
    let mut replace = |value: Value| match replaced_within(&value, depth + 1, named, items) {
        Some(copy) => {
            is_other = true;
            copy
        }
        None => value,
    };
    let copy = match object.repr() {
        // A namespace may hold anything, but prints as one only where it stands alone.
        ObjectRepr::Map => {
            let pairs = object.try_iter_pairs()?.map(|(key, item)| (replace(key), replace(item)));
            Value::from_pairs(pairs.collect::<Vec<_>>())
        }
        ObjectRepr::Seq | ObjectRepr::Iterable if object.enumerator_len().is_some() => {
            let items: Vec<Value> = object.try_iter()?.map(replace).collect();
            let is_tuple = object.is::<Tuple>() || object.type_name().ends_with("GroupTuple");
            if is_tuple { Value::from(Tuple::from(items)) } else { Value::from(items) }
        }
        _ => return None,
    };
    is_other.then_some(copy)
}

/// Writes what an expression is worth.
pub(super) fn emit(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let copy = replaced(state, value, 1)?;
    minijinja::escape_formatter(out, state, copy.as_ref().unwrap_or(value))
}

/// The filter for what `~` joins: the value, or what prints as it should.
pub(super) fn printed(state: &State, value: &Value) -> Result<Value, Error> {
    Ok(replaced(state, value, 1)?.unwrap_or_else(|| value.clone()))
}

/// `string`.
pub(super) fn string(state: &State, value: &Value) -> Result<Value, Error> {
    minijinja::filters::string(state, &printed(state, value)?)
}

/// `pprint`: as in a list. Python breaks lines of more than 80 characters, which is not done here.
pub(super) fn repr(state: &State, value: &Value) -> Result<String, Error> {
    let copy = replaced(state, value, 0)?;
    let text = format!("{:?}", copy.as_ref().unwrap_or(value));
    state.consume_fuel(text.len() as u64 / 64)?;
    Ok(text)
}

/// `join`.
pub(super) fn join(
    state: &mut State,
    value: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    // Its items, or what they have by the attribute's name, are printed by themselves.
    let named = if attribute.is_some() || kwargs.has("attribute") { 3 } else { 2 };
    if let Some(path) = attribute.or(kwargs.peek("attribute").ok()) {
        value.try_iter()?.try_for_each(|item| key_of(&item, Some(path)).map(drop))?;
    }
    let copy = replaced(state, value, named)?;
    minijinja::filters::join(state, copy.as_ref().unwrap_or(value), joiner, attribute, kwargs)
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let rows = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.5, "0.5"),
            (1.0, "1.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000.0"),
            (9999999999999998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (-1.25e22, "-1.25e+22"),
            (1e100, "1e+100"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (5e-324, "5e-324"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        let failed: Vec<_> = rows.iter().map(|&(x, to)| (x, to, float(x))).filter(|r| r.1 != r.2).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
