//! The Jinja environment that templates run in: Hugging Face's settings, plus limits.
//!
//! The limits bound steps, memory, depth and output. What values may hold is bounded when they are
//! made (see `bounded.rs`); whatever is ours (`tojson`, `format`, ...) is charged as it goes.

use super::error::{RaisedByTemplate, TemplateError};
use super::{bounded, filters, format, generation, json, methods, printed, python, weigh};
use jiff::{Timestamp, ZonedDateTime, tz::TimeZone};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use std::io;

/// What `strftime_now` reads.
#[derive(Clone, Copy)]
pub(super) enum Clock {
    /// The system's clock in the local time zone.
    Local,
    /// Always this moment (seconds since 1970), in UTC.
    Fixed(i64),
}

/// How much a render may cost. One step is about one instruction, or 64 bytes of text made
/// (minijinja's fuel).
#[derive(Clone, Copy)]
pub(super) struct Budget {
    steps: u64,
    output_bytes: usize,
}

impl Budget {
    /// Real templates spend some hundreds of steps a message, those that look at every other
    /// message a few thousand: 20,000 a message is far away from them, and the base lets a
    /// malicious template run for well under a second.
    pub fn new(messages: usize, len_bytes: usize) -> Budget {
        let (messages, bytes) = (messages as u64, len_bytes as u64);
        Budget {
            steps: 2_000_000u64.saturating_add(messages.saturating_mul(20_000)).saturating_add(bytes),
            output_bytes: (1usize << 20).saturating_add(len_bytes.saturating_mul(4)),
        }
    }
}

/// Depth of nested calls. Templates do not recurse; minijinja proved 500 safe on a thread's
/// ordinary stack.
const MAX_DEPTH: usize = 200;

/// An environment set up as `transformers.utils.chat_template_utils` sets up Jinja2.
pub(super) fn new(clock: Clock) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(syntax());
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(methods::call);
    environment.set_recursion_limit(MAX_DEPTH);
    environment.remove_global("debug");
    environment.set_formatter(printed::emit);
    python::add_to(&mut environment);
    filters::add_to(&mut environment);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("format", format::filter);
    environment.add_filter(format::PERCENT, format::percent);
    environment.add_filter("string", printed::string);
    environment.add_filter("join", printed::join);
    environment.add_filter(printed::PRINTED, printed::printed);
    environment.add_filter(bounded::BOUNDED, weigh::bounded);
    environment.add_function("dict", bounded::dict);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| strftime_now(clock, format));
    environment
}

/// Hugging Face's.
fn syntax() -> SyntaxConfig {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(false).build();
    syntax.unwrap_or_default()
}

/// The source as Jinja2 sees it: line ends are line feeds, and `{% generation %}` blocks are plain
/// scopes; and with what bounds the values that it makes, and what prints the numbers that it
/// joins.
///
/// # Errors
/// A syntax error, and a template that could not be compiled safely.
pub(super) fn prepare(source: &str) -> Result<String, TemplateError> {
    let source =
        if source.contains('\r') { source.replace("\r\n", "\n").replace('\r', "\n") } else { source.to_string() };
    let source = generation::rewrite(source);
    bounded::check_shape(&source, &syntax()).map_err(TemplateError::Shape)?;
    bounded::rewrite(&source, &syntax()).map_err(|error| TemplateError::compiling(&error))
}

/// Renders the template `name` within `budget`.
pub(super) fn render(
    environment: &Environment<'static>,
    name: &str,
    context: Value,
    budget: Budget,
) -> Result<String, TemplateError> {
    // Cloning shares the compiled template; the fuel is a setting of the environment.
    let mut environment = environment.clone();
    environment.set_fuel(Some(budget.steps));
    let mut output = Limited { bytes: Vec::new(), limit_bytes: budget.output_bytes, exceeded: false };
    let template = environment.get_template(name).map_err(|error| TemplateError::compiling(&error))?;
    let result = template.render_captured_to(context, &mut output).map(drop);
    if output.exceeded {
        return Err(TemplateError::Output { limit_bytes: budget.output_bytes });
    }
    result.map_err(|error| TemplateError::rendering(&error, budget.steps))?;
    // The engine writes whole `str`s, so nothing is lost here.
    Ok(String::from_utf8_lossy(&output.bytes).into_owned())
}

/// Collects the output and refuses to grow past the limit.
struct Limited {
    bytes: Vec<u8>,
    limit_bytes: usize,
    exceeded: bool,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit_bytes - self.bytes.len() {
            self.exceeded = true;
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    // Printing anything else could be endless work: lists may hold one another.
    let message = message.as_str().unwrap_or("(no text given)").to_string();
    Err(Error::new(ErrorKind::InvalidOperation, message).with_source(RaisedByTemplate))
}

/// Longest `strftime_now` format: the widths in it are the template's to choose.
const MAX_FORMAT_BYTES: usize = 256;

fn strftime_now(clock: Clock, format: &str) -> Result<String, Error> {
    let failed = |why: String| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {why}"));
    if format.len() > MAX_FORMAT_BYTES {
        return Err(Error::new(ErrorKind::InvalidOperation, "strftime_now: the format is too long"));
    }
    let now = match clock {
        Clock::Local => ZonedDateTime::now(),
        Clock::Fixed(seconds) => {
            let moment = Timestamp::from_second(seconds).map_err(|error| failed(error.to_string()))?;
            moment.to_zoned_datetime(TimeZone::UTC)
        }
    };
    jiff::fmt::strtime::format(format, &now).map_err(|error| failed(error.to_string()))
}
