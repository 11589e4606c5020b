//! Reading fields of a JSON body: unknown ones are left alone, malformed ones named.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// Characters of a value that an error repeats.
const MOST_SHOWN_CHARS: usize = 60;
/// Messages, tools, stop texts and the like: more of them are a mistake.
pub(crate) const MOST_ITEMS: usize = 16_384;

/// The fields of an object, and where it lies in the body.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Fields<'a> {
    /// Those of a body.
    pub fn of_body(body: &'a Value) -> Result<Fields<'a>, ApiError> {
        match body {
            Value::Object(map) => Ok(Fields { map, path: "" }),
            other => Err(ApiError::bad(format!("the body is {}, wanted a JSON object", shown(other)))),
        }
    }

    /// Those of an object that lies at `path`.
    pub fn of(map: &'a Map<String, Value>, path: &'a str) -> Fields<'a> {
        Fields { map, path }
    }

    /// The path of a field.
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The error about a field.
    pub fn error(&self, name: &str, wanted: &str) -> ApiError {
        let path = self.path(name);
        let seen = self.map.get(name).map_or_else(|| "missing".to_owned(), |value| format!("is {}", shown(value)));
        ApiError::invalid(&path, format!("{path} {seen}, wanted {wanted}"))
    }

    /// A field that is there and not null.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        name: &str,
        wanted: &str,
        of: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        self.value(name).map(|value| of(value).ok_or_else(|| self.error(name, wanted))).transpose()
    }

    pub fn bool(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub fn str(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.read(name, "a text", Value::as_str)
    }

    pub fn list(&self, name: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.read(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, ApiError> {
        self.read(name, "an object", Value::as_object)
    }

    /// A finite number.
    pub fn number(&self, name: &str) -> Result<Option<f32>, ApiError> {
        self.read(name, "a number", |value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite()))
    }

    /// A whole number; 3.0 is one too.
    pub fn whole(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
        let wanted = match most {
            i64::MAX => format!("a whole number from {least}"),
            _ => format!("a whole number from {least} to {most}"),
        };
        self.read(name, &wanted, |value| whole(value).filter(|n| (least..=most).contains(n)))
    }

    /// A count, where null and -1 stand for no limit.
    pub fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let n = self.whole(name, -1, i64::MAX)?;
        Ok(n.and_then(|n| usize::try_from(n).ok()))
    }
}

/// A whole number, also where it is written with a point.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    let exact = |x: &f64| x.fract() == 0.0 && x.abs() < 9e15;
    value.as_i64().or_else(|| value.as_f64().filter(exact).map(|x| x as i64))
}

/// A value as an error shows it: its beginning.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => return format!("a list of {}", items.len()),
        Value::Object(_) => return "an object".to_owned(),
        _ => {}
    }
    let text = value.to_string();
    match text.char_indices().nth(MOST_SHOWN_CHARS) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn malformed_fields_are_named_with_what_was_seen_and_wanted() {
        let body = json!({"a": "x", "n": 3.0, "m": 3.5, "big": 1e300, "none": null, "deep": {"b": []}, "long": "é".repeat(100)});
        let fields = Fields::of_body(&body).unwrap();
        assert_eq!(fields.whole("n", 0, 5).unwrap(), Some(3));
        assert_eq!(fields.number("none").unwrap(), None);
        assert_eq!(fields.bool("unknown").unwrap(), None);
        let error = |result: Result<(), ApiError>| {
            let error = result.unwrap_err();
            (error.param.clone().unwrap_or_default(), error.message)
        };
        let rows = [
            (fields.number("a").map(drop), "a", "a is \"x\", wanted a number"),
            (fields.whole("m", 0, 5).map(drop), "m", "m is 3.5, wanted a whole number from 0 to 5"),
            (fields.whole("n", 0, 2).map(drop), "n", "n is 3.0, wanted a whole number from 0 to 2"),
            (fields.number("big").map(drop), "big", "big is 1e+300, wanted a number"),
            (fields.str("deep").map(drop), "deep", "deep is an object, wanted a text"),
        ];
        for (result, param, message) in rows {
            assert_eq!(error(result), (param.to_owned(), message.to_owned()));
        }
        let deep = Fields::of(fields.object("deep").unwrap().unwrap(), "deep");
        assert_eq!(error(deep.bool("b").map(drop)).1, "deep.b is a list of 0, wanted true or false");
        assert!(error(fields.bool("long").map(drop)).1.len() < 200);
        assert!(Fields::of_body(&json!([])).is_err());
    }
}
