//! Filters as Jinja has them, where minijinja has none or makes something else of none and of what
//! is undefined.

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, State, Value, filters};

use super::printed;
use super::python::{self, key_of, kind_of, refuse};

/// Adds the filters of this file.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", |state: &State, value: &Value, args: Rest<ValueOrKwargs>| {
        number(value, "int", Value::from(0), args, |value, base| {
            filters::int(state, value, None, base, Kwargs::from_iter(std::iter::empty::<(&str, Value)>()))
        })
    });
    environment.add_filter("float", |state: &State, value: &Value, args: Rest<ValueOrKwargs>| {
        number(value, "float", Value::from(0.0), args, |value, _| {
            filters::float(state, value, None, Kwargs::from_iter(std::iter::empty::<(&str, Value)>()))
        })
    });
    environment.add_filter("indent", indent);
    environment.add_filter("center", center);
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("escape", escape);
    environment.add_filter("e", escape);
    environment.add_filter("forceescape", forceescape);
    environment.add_filter("pprint", printed::repr);
    environment.add_filter("sort", sort);
    environment.add_filter("min", min);
    environment.add_filter("max", max);
    environment.add_filter("dictsort", dictsort);
    environment.add_filter("groupby", groupby);
    environment.add_filter("sum", sum);
    environment.add_filter("unique", unique);
}

/// Arguments that may be given in order or by name.
struct Args<'a> {
    positional: Vec<Value>,
    named: Kwargs,
    names: &'a [&'a str],
}

impl<'a> Args<'a> {
    fn new(args: Rest<ValueOrKwargs>, names: &'a [&'a str]) -> Result<Args<'a>, Error> {
        let values = args.into_values();
        let (positional, named) = from_args::<(&[Value], Kwargs)>(&values)?;
        let args = Args { positional: positional.to_vec(), named, names };
        if let Some(name) = args.named.args().find(|name| !names.contains(name)) {
            return refuse(format!("no argument is called {name:?}"));
        }
        if args.positional.len() > names.len() {
            return refuse(format!("at most {} arguments are taken", names.len()));
        }
        Ok(args)
    }

    /// The argument, even if it is none or undefined.
    fn value(&self, name: &str) -> Option<Value> {
        let at = self.names.iter().position(|known| *known == name)?;
        let by_name = || self.named.has(name).then(|| self.named.peek::<Value>(name).unwrap_or(Value::UNDEFINED));
        self.positional.get(at).cloned().or_else(by_name)
    }

    fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value.is_true())
    }

    /// A number of characters.
    fn size(&self, name: &str, otherwise: usize) -> Result<usize, Error> {
        match self.value(name) {
            None => Ok(otherwise),
            Some(value) => match value.as_usize().filter(|size| value.is_integer() && *size <= MAX_SIZE) {
                Some(size) => Ok(size),
                None => refuse(format!("{name}: wanted a number from 0 to {MAX_SIZE}")),
            },
        }
    }
}

/// Longest width that a filter takes. Real templates have two digits.
const MAX_SIZE: usize = 65_535;

/// `value | default(default_value='', boolean=false)`
fn default(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Args::new(args, &["default_value", "boolean"])?;
    let is_replaced = value.is_undefined() || (args.flag("boolean") && !value.is_true());
    Ok(if is_replaced { args.value("default_value").unwrap_or_else(|| Value::from("")) } else { value.clone() })
}

/// `int` and `float`: the default for whatever is no number, but what is undefined is refused.
fn number(
    value: &Value,
    filter: &str,
    zero: Value,
    args: Rest<ValueOrKwargs>,
    convert: impl Fn(&Value, Option<u32>) -> Result<Value, Error>,
) -> Result<Value, Error> {
    let args = Args::new(args, if filter == "int" { &["default", "base"] } else { &["default"] })?;
    let default = args.value("default").unwrap_or(zero);
    let base = args.value("base").map(u32::try_from).transpose()?;
    match value.kind() {
        ValueKind::Undefined => refuse(format!("{filter}: the value is undefined")),
        ValueKind::None => Ok(default),
        _ => Ok(convert(value, base).unwrap_or(default)),
    }
}

/// A text, for filters that take nothing else.
fn text_only<'a>(filter: &str, value: &'a Value) -> Result<&'a str, Error> {
    match value.as_str() {
        Some(text) => Ok(text),
        None => refuse(format!("{filter}: wanted a text, not {}", kind_of(value))),
    }
}

/// A text, or what prints in the place of another value.
fn text_of(state: &State, value: &Value) -> Result<String, Error> {
    let text = printed::string(state, value)?;
    Ok(text.as_str().unwrap_or_default().to_owned())
}

/// `value | indent(width=4, first=false, blank=false)`
fn indent(state: &State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = Args::new(args, &["width", "first", "blank"])?;
    let text = text_only("indent", value)?;
    let width = args.value("width");
    let indention = match width.as_ref().and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => " ".repeat(args.size("width", 4)?),
    };
    let lines = lines(text);
    state.consume_fuel((text.len() + lines.len() * (indention.len() + 1)) as u64 / 64)?;
    let mut out = String::new();
    if args.flag("first") {
        out.push_str(&indention);
    }
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
            if args.flag("blank") || !line.is_empty() {
                out.push_str(&indention);
            }
        }
        out.push_str(line);
    }
    Ok(out)
}

/// The lines of a text with a line feed behind it, where Python's `splitlines` splits.
fn lines(text: &str) -> Vec<&str> {
    const ENDS: [char; 9] = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}'];
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c| ENDS.contains(&c) || c == '\u{2029}') {
        lines.push(&rest[..at]);
        let end = rest[at..].strip_prefix("\r\n");
        rest = end.unwrap_or_else(|| rest[at..].chars().next().map_or("", |c| &rest[at + c.len_utf8()..]));
        // A carriage return at the end makes one line end with the line feed.
        if rest.is_empty() && text.ends_with('\r') {
            return lines;
        }
    }
    lines.push(rest);
    lines
}

/// `value | center(width=80)`
fn center(state: &State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let width = Args::new(args, &["width"])?.size("width", 80)?;
    let text = text_of(state, value)?;
    let missing = width.saturating_sub(text.chars().count());
    state.consume_fuel((text.len() + missing) as u64 / 64)?;
    // As Python puts the odd blank.
    let left = missing / 2 + (missing & width & 1);
    Ok(format!("{}{text}{}", " ".repeat(left), " ".repeat(missing - left)))
}

/// `value | truncate(length=255, killwords=false, end='...', leeway=5)`
fn truncate(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = Args::new(args, &["length", "killwords", "end", "leeway"])?;
    let (length, leeway) = (args.size("length", 255)?, args.size("leeway", 5)?);
    let end = args.value("end").unwrap_or_else(|| Value::from("..."));
    let end = text_only("truncate", &end)?;
    let is_short = |n: usize| n <= length.saturating_add(leeway);
    let Some(text) = value.as_str() else {
        // Python asks for the length first, and texts are not the only ones that have one.
        let len = if value.is_undefined() { Some(0) } else { value.len() };
        return match len {
            Some(len) if is_short(len) => Ok(value.clone()),
            _ => refuse(format!("truncate: wanted a text, not {}", kind_of(value))),
        };
    };
    if is_short(text.chars().count()) {
        return Ok(value.clone());
    }
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return refuse("truncate: the end is longer than the length");
    };
    let cut = text.char_indices().nth(kept).map_or(text, |(at, _)| &text[..at]);
    let cut = if args.flag("killwords") { cut } else { cut.rsplit_once(' ').map_or(cut, |(words, _)| words) };
    Ok(Value::from(format!("{cut}{end}")))
}

fn wordcount(state: &State, value: &Value) -> Result<usize, Error> {
    let text = text_of(state, value)?;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    Ok(text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count())
}

fn escape(state: &State, value: &Value) -> Result<Value, Error> {
    if value.is_safe() { Ok(value.clone()) } else { forceescape(state, value) }
}

/// With the references that MarkupSafe writes.
fn forceescape(state: &State, value: &Value) -> Result<Value, Error> {
    let text = text_of(state, value)?;
    state.consume_fuel(text.len() as u64 / 16)?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    Ok(Value::from_safe_string(out))
}

/// Refuses what Python cannot sort. `equals_pass` where it sorts by lists of keys, which compare
/// equal keys first.
fn check_order(state: &State, keys: &[Value], equals_pass: bool) -> Result<(), Error> {
    let Some((first, others)) = keys.split_first() else { return Ok(()) };
    for key in others.iter().filter(|key| !(equals_pass && *key == first)) {
        state.consume_fuel(1)?;
        python::order(state, key, first, "<")?;
    }
    Ok(())
}

/// The items, and what each is sorted by.
fn keyed(value: &Value, attribute: Option<&str>) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let items: Vec<Value> = value.try_iter()?.collect();
    let keys = items.iter().map(|item| key_of(item, attribute)).collect::<Result<_, _>>()?;
    Ok((items, keys))
}

fn sort(state: &State, value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let attribute = kwargs.get::<Option<&str>>("attribute")?;
    let mut items: Vec<Value> = value.try_iter()?.collect();
    let paths = attribute.map_or(vec![None], |all| all.split(',').map(|path| Some(path.trim())).collect());
    for path in paths {
        let (all, keys) = keyed(&Value::from(items), path)?;
        check_order(state, &keys, true)?;
        items = all;
    }
    filters::sort(state, Value::from(items), kwargs)
}

fn min(state: &State, value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let (items, keys) = keyed(&value, kwargs.get::<Option<&str>>("attribute")?)?;
    check_order(state, &keys, false)?;
    filters::min(state, Value::from(items), kwargs)
}

fn max(state: &State, value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let (items, keys) = keyed(&value, kwargs.get::<Option<&str>>("attribute")?)?;
    check_order(state, &keys, false)?;
    filters::max(state, Value::from(items), kwargs)
}

fn dictsort(state: &State, value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    if value.kind() != ValueKind::Map {
        return refuse(format!("dictsort: wanted a dictionary, not {}", kind_of(value)));
    }
    let by_value = kwargs.get::<Option<&str>>("by")? == Some("value");
    let keys: Vec<Value> = value.try_iter()?.collect();
    pay_for_sort(state, keys.len())?;
    let keys = if by_value { keys.iter().map(|key| value.get_item(key)).collect::<Result<_, _>>()? } else { keys };
    check_order(state, &keys, false)?;
    filters::dictsort(value, kwargs)
}

fn groupby(state: &State, value: Value, attribute: Option<&str>, kwargs: Kwargs) -> Result<Value, Error> {
    let named = kwargs.get::<Option<&str>>("attribute")?;
    let (items, keys) = keyed(&value, attribute.or(named))?;
    if !kwargs.has("default") {
        check_order(state, &keys, false)?;
    }
    pay_for_sort(state, items.len())?;
    filters::groupby(Value::from(items), attribute, kwargs)
}

fn sum(
    state: &State,
    value: Value,
    attribute: Option<&str>,
    start: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let named = kwargs.get::<Option<&str>>("attribute")?;
    let (items, keys) = keyed(&value, attribute.or(named))?;
    if keys.iter().any(Value::is_undefined) {
        return refuse("sum: an item is undefined");
    }
    filters::sum(state, Value::from(items), attribute, start, kwargs)
}

fn unique(state: &State, value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let (items, _) = keyed(&value, kwargs.get::<Option<&str>>("attribute")?)?;
    filters::unique(state, Value::from(items), kwargs)
}

/// Each item is compared with as many others as there are levels of halves, and costs as much as a
/// step.
fn pay_for_sort(state: &State, n: usize) -> Result<(), Error> {
    state.consume_fuel(n as u64 * u64::from(n.max(1).ilog2() + 1))
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn lines_end_where_python_ends_them() {
        // From Python 3: (text + "\n").splitlines().
        let rows: [(&str, &[&str]); 8] = [
            ("", &[""]),
            ("a", &["a"]),
            ("a\n", &["a", ""]),
            ("a\nb\r\nc", &["a", "b", "c"]),
            ("a\r\rb", &["a", "", "b"]),
            ("a\r", &["a"]),
            ("\n\n", &["", "", ""]),
            ("ä\u{2028}b\u{2029}\u{85}c", &["ä", "b", "", "c"]),
        ];
        let failed: Vec<_> = rows.iter().map(|(text, to)| (text, to, lines(text))).filter(|r| *r.1 != r.2).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
