//! JSON for templates: `tojson` as transformers overrides it (Python's `json.dumps` with
//! `ensure_ascii=False`, not the HTML-safe filter of Jinja), and values from JSON.

use super::printed;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Deepest nesting that is written or read.
const MAX_DEPTH: usize = 64;

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`
pub(super) fn tojson(state: &State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (positional, kwargs) = from_args::<(&[Value], Kwargs)>(&args)?;
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let found = match positional.get(at) {
            Some(value) => Some(value.clone()),
            None => kwargs.get::<Option<Value>>(name)?,
        };
        Ok(found.filter(|value| !value.is_none()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = argument(1, "indent")?;
    let separators = argument(2, "separators")?;
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    kwargs.assert_all_used()?;

    let indent = indent.map(|indent| indent_of(&indent)).transpose()?;
    let (item, key) = match separators {
        Some(pair) => (separator(&pair, 0)?, separator(&pair, 1)?),
        // json.dumps drops the blank after the comma as soon as every item has its own line.
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
    };
    let mut writer = Writer { state, out: String::new(), charged_bytes: 0, indent, item, key, ensure_ascii, sort_keys };
    writer.value(value, 0)?;
    Ok(writer.out)
}

fn indent_of(indent: &Value) -> Result<String, Error> {
    match (indent.as_str(), indent.as_usize()) {
        (Some(text), _) if text.len() <= 16 => Ok(text.to_string()),
        (None, Some(width)) if width <= 16 => Ok(" ".repeat(width)),
        _ => Err(Error::new(ErrorKind::InvalidOperation, "tojson: indent must be a text or width of at most 16")),
    }
}

fn separator(pair: &Value, index: usize) -> Result<String, Error> {
    let item = pair.get_item_by_index(index)?;
    let text = item.as_str().filter(|text| text.len() <= 16);
    text.map(str::to_string)
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "tojson: separators must be two short texts"))
}

struct Writer<'a> {
    state: &'a State<'a, 'a>,
    out: String,
    /// How much of `out` the render's budget has paid for.
    charged_bytes: usize,
    indent: Option<String>,
    item: String,
    key: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deeply"));
        }
        // One step a value, and one for every 64 bytes.
        self.state.consume_fuel(1 + ((self.out.len() - self.charged_bytes) / 64) as u64)?;
        self.charged_bytes = self.out.len();
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => self.out.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list('[', ']', items.len(), depth, |writer, i| writer.value(&items[i], depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.list('{', '}', keys.len(), depth, |writer, i| {
                    writer.map_key(&keys[i])?;
                    writer.out.push_str(&writer.key.clone());
                    writer.value(&value.get_item(&keys[i])?, depth + 1)
                })?;
            }
            other => {
                let message = format!("tojson: a value of type {other} is not JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        open: char,
        close: char,
        len: usize,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for i in 0..len {
            if i > 0 {
                self.out.push_str(&self.item.clone());
            }
            self.line(depth + 1);
            item(self, i)?;
        }
        if len > 0 {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    /// Keys are texts in JSON; Python writes other plain ones as their JSON form in quotes.
    fn map_key(&mut self, key: &Value) -> Result<(), Error> {
        match key.as_str() {
            Some(text) => self.string(text),
            None => {
                self.out.push('"');
                self.value(key, MAX_DEPTH)?;
                self.out.push('"');
            }
        }
        Ok(())
    }

    fn string(&mut self, text: &str) {
        use std::fmt::Write;
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A float as Python's `json.dumps` writes it: as `repr` does, except for what JSON has no numbers
/// for.
fn float(x: f64) -> String {
    if x.is_finite() {
        return printed::float(x);
    }
    let text = if x.is_nan() { "NaN" } else { "Infinity" };
    if x < 0.0 { format!("-{text}") } else { text.to_string() }
}

/// A template value from JSON, keys in their order.
pub(super) fn from_json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::from(()),
        Json::Bool(x) => Value::from(*x),
        Json::Number(x) => match (x.as_i64(), x.as_u64()) {
            (Some(x), _) => Value::from(x),
            (None, Some(x)) => Value::from(x),
            (None, None) => Value::from(x.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(x) => Value::from(x.as_str()),
        Json::Array(x) => Value::from(x.iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(x) => Value::from_pairs(x.iter().map(|(key, value)| (key.as_str(), from_json(value)))),
    }
}

/// About how many bytes of text `value` holds: what the budget of a render grows with.
pub(super) fn approximate_len(value: &serde_json::Value) -> usize {
    use serde_json::Value as Json;
    match value {
        Json::String(x) => x.len(),
        Json::Array(x) => 8 + x.iter().map(approximate_len).sum::<usize>(),
        Json::Object(x) => 8 + x.iter().map(|(key, value)| key.len() + 8 + approximate_len(value)).sum::<usize>(),
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // From Python 3: json.dumps(x).
        let rows = [
            (0.5, "0.5"),
            (1e16, "1e+16"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        let failed: Vec<_> = rows.iter().map(|&(x, to)| (x, to, float(x))).filter(|r| r.1 != r.2).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
