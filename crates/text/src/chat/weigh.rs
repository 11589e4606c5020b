//! The filter that looks at a new value as a whole: how deep it is, and how much it would print.

use minijinja::value::ObjectRepr;
use minijinja::{Error, ErrorKind, State, Value};

/// Deepest nesting of values, as for JSON.
const MAX_DEPTH: usize = 128;

pub(super) fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// The filter: the value itself.
///
/// # Errors
/// A list, dictionary or tuple that is nested too deeply, holds a namespace, or would be very long
/// if it were printed (as a share of the render's budget, which grows with the messages).
pub(super) fn bounded(state: &State, value: &Value) -> Result<Value, Error> {
    if value.as_object().is_some() {
        let (used, left) = state.fuel_levels().unwrap_or((0, u64::MAX));
        let most = used.saturating_add(left) / 16;
        let mut left = most;
        weigh(value, 0, &mut left)?;
        state.consume_fuel((most - left) / 4)?;
    }
    Ok(value.clone())
}

/// Takes what a value holds, counted as often as it would be printed, from `left`.
fn weigh(value: &Value, depth: usize, left: &mut u64) -> Result<(), Error> {
    let too_large = || refuse("a list is too large, counting what it holds as often as it holds it");
    let text_cost = value.as_str().map_or(0, |text| text.len() as u64 / 256);
    *left = left.checked_sub(1 + text_cost).ok_or_else(too_large)?;
    let Some(object) = value.as_object() else { return Ok(()) };
    if object.type_name().ends_with("::Namespace") {
        return Err(refuse("a namespace cannot be held by a list or by another namespace"));
    }
    if depth > MAX_DEPTH {
        return Err(refuse(format!("lists are nested more than {MAX_DEPTH} deep")));
    }
    match object.repr() {
        ObjectRepr::Map => {
            for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                weigh(&key, depth + 1, left)?;
                weigh(&item, depth + 1, left)?;
            }
        }
        // One without a length is printed by name, and may not be gone through twice.
        ObjectRepr::Seq | ObjectRepr::Iterable if object.enumerator_len().is_some() => {
            for item in object.try_iter().into_iter().flatten() {
                weigh(&item, depth + 1, left)?;
            }
        }
        _ => {}
    }
    Ok(())
}
