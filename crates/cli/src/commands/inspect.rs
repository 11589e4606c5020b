//! `inspect`: what a model file says about itself. Reads no tensor.

use super::plan;
use crate::args::InspectArgs;
use crate::report::{megabytes, without_controls};
use crate::resolve::{Format, Setting};
use crate::terminal::Answer;
use anyhow::Result;
use modelembed::ModelFiles;
use modelembed_gguf::{Array, TensorInfo, Value, ValueType, escaped, shown_path};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Items of an array that are shown.
const SHOWN_ITEMS: usize = 8;
/// Characters of a text that are shown to people.
const SHOWN_CHARS: usize = 120;

/// Prints metadata, the histogram of tensor types, the tensor table and sizes.
///
/// With a plan: what running it here will be like, too, which takes a second to measure. A model
/// that cannot run is no failure here: why is told.
pub fn inspect(setting: &Setting, args: &InspectArgs) -> Result<ExitCode> {
    if let Some(note) = &setting.model_note {
        setting.notes().line(note);
    }
    let files = ModelFiles::open(&setting.model)?;
    let mut out = Answer::new();
    let text = match (setting.format, args.program) {
        (Format::Json, false) => json_of(setting, &files, args.plan),
        (Format::Text, false) => text_of(setting, &files, args.plan),
        (format, true) => program_of(&files, format)?,
    };
    out.bytes(text.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What the model is, and the steps that compute it; or why there are none.
fn program_of(files: &ModelFiles, format: Format) -> Result<String> {
    let description = files.spec()?.to_string();
    let program = files.describe_program();
    Ok(match format {
        Format::Json => {
            let (program, problem) = match program {
                Ok(text) => (Some(text), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let object = json!({"description": description, "program": program, "problem": problem});
            without_controls(&format!("{object:#}\n"))
        }
        Format::Text => match program {
            Ok(text) => format!("{description}\nProgram:\n{text}"),
            Err(error) => format!("{description}\nProgram: none: {}\n", escaped(&error.to_string())),
        },
    })
}

/// Number and bytes of the tensors of each type.
fn histogram(tensors: &[&TensorInfo]) -> BTreeMap<&'static str, (usize, u64)> {
    let mut types = BTreeMap::new();
    for tensor in tensors {
        let entry = types.entry(tensor.ty.name()).or_insert((0, 0));
        entry.0 += 1;
        entry.1 += tensor.n_bytes;
    }
    types
}

fn parameters(tensors: &[&TensorInfo]) -> u64 {
    tensors
        .iter()
        .map(|tensor| tensor.dims.iter().fold(1u64, |n, &dim| n.saturating_mul(dim)))
        .fold(0, u64::saturating_add)
}

fn text_of(setting: &Setting, files: &ModelFiles, with_plan: bool) -> String {
    let (gguf, tensors): (_, Vec<&TensorInfo>) = (files.gguf(), files.tensors().collect());
    let tensor_bytes: u64 = tensors.iter().map(|tensor| tensor.n_bytes).sum();
    let mut out = format!(
        "File: {}\nFormat: GGUF v{}, alignment {}\nSize: {} in {} file(s)\nTensors: {}, {}\nParameters: {}\n\nMetadata:\n",
        shown_path(&setting.model),
        gguf.version(),
        gguf.alignment(),
        megabytes(files.n_bytes()),
        files.storages().count(),
        tensors.len(),
        megabytes(tensor_bytes),
        parameters(&tensors),
    );
    if with_plan {
        let plan = match plan::forecast(setting, files, None) {
            Ok(forecast) => forecast.to_string(),
            Err(error) => format!("Plan: none: {error}"),
        };
        out = out.replacen("\n\nMetadata:\n", &format!("\n\n{plan}\n\nMetadata:\n"), 1);
    }
    let width = gguf.metadata().map(|(key, _)| escaped(key).chars().count()).max().unwrap_or(0);
    for (key, value) in gguf.metadata() {
        out += &format!("  {:<width$}  {}\n", escaped(key), shown(value, (**files.header()).as_ref()));
    }
    out += "\nTensor types:\n";
    for (name, (count, bytes)) in histogram(&tensors) {
        let share = 100.0 * bytes as f64 / tensor_bytes.max(1) as f64;
        out += &format!("  {name:<8} {count:>6} tensors  {:>12}  {share:>5.1}%\n", megabytes(bytes));
    }
    out += "\nTensors:\n";
    let width = tensors.iter().map(|tensor| escaped(&tensor.name).chars().count()).max().unwrap_or(0);
    for tensor in &tensors {
        let shape = tensor.dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
        out += &format!(
            "  {:<width$}  {:<8} {shape:<20} {:>12}  at {:#x}\n",
            escaped(&tensor.name),
            tensor.ty.name(),
            megabytes(tensor.n_bytes),
            tensor.offset
        );
    }
    out
}

fn json_of(setting: &Setting, files: &ModelFiles, with_plan: bool) -> String {
    let (gguf, tensors): (_, Vec<&TensorInfo>) = (files.gguf(), files.tensors().collect());
    let metadata: Map<_, _> =
        gguf.metadata().map(|(key, value)| (key.to_string(), json_value(value, (**files.header()).as_ref()))).collect();
    let types: Map<_, _> = histogram(&tensors)
        .into_iter()
        .map(|(name, (count, bytes))| (name.to_string(), json!({"tensors": count, "bytes": bytes})))
        .collect();
    let table: Vec<_> = tensors
        .iter()
        .map(|tensor| {
            json!({
                "name": tensor.name,
                "type": tensor.ty.name(),
                "shape": tensor.dims,
                "file": tensor.shard,
                "offset": tensor.offset,
                "bytes": tensor.n_bytes,
            })
        })
        .collect();
    let object = json!({
        "path": setting.model.to_string_lossy(),
        "version": gguf.version(),
        "alignment": gguf.alignment(),
        "data_offset": gguf.data_offset(),
        "files": files.storages().count(),
        "bytes": files.n_bytes(),
        "parameters": parameters(&tensors),
        "metadata": metadata,
        "types": types,
        "tensors": table,
        "plan": with_plan.then(|| match plan::forecast(setting, files, None) {
            Ok(forecast) => plan::json_of(&forecast),
            Err(error) => json!({"error": error.to_string()}),
        }),
    });
    without_controls(&format!("{object:#}\n"))
}

/// A value for people: one line, of bounded length.
fn shown(value: &Value, header: &[u8]) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(array) => {
            let items = items(array, header).into_iter().map(|item| match item {
                serde_json::Value::String(text) => quoted(&text),
                other => other.to_string(),
            });
            let more = if array.len() > SHOWN_ITEMS { ", ..." } else { "" };
            format!("{} {}s [{}{more}]", array.len(), array.item().name(), items.collect::<Vec<_>>().join(", "))
        }
        // The shortest digits that are this f32, not those of the f64 nearest to it.
        Value::F32(x) => x.to_string(),
        other => json_value(other, header).to_string(),
    }
}

fn quoted(text: &str) -> String {
    let cut = text.char_indices().nth(SHOWN_CHARS).map(|(at, _)| at);
    let shown = format!("{:?}", &text[..cut.unwrap_or(text.len())]);
    match cut {
        Some(_) => format!("{shown}... ({} bytes)", text.len()),
        None => shown,
    }
}

/// A value for programs. Of a long array (a vocabulary) only the beginning is given, with its
/// length.
fn json_value(value: &Value, header: &[u8]) -> serde_json::Value {
    match value {
        Value::U8(x) => json!(x),
        Value::I8(x) => json!(x),
        Value::U16(x) => json!(x),
        Value::I16(x) => json!(x),
        Value::U32(x) => json!(x),
        Value::I32(x) => json!(x),
        Value::U64(x) => json!(x),
        Value::I64(x) => json!(x),
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Bool(x) => json!(x),
        Value::String(x) => json!(x),
        Value::Array(array) if array.len() <= SHOWN_ITEMS => json!(items(array, header)),
        Value::Array(array) => {
            json!({"type": array.item().name(), "length": array.len(), "first": items(array, header)})
        }
    }
}

/// The first items of an array; none of an array of arrays.
fn items(array: &Array, header: &[u8]) -> Vec<serde_json::Value> {
    let n = array.len().min(SHOWN_ITEMS);
    if let Some(list) = array.strings() {
        return (0..n).map(|i| json!(list.get(header, i).map(String::from_utf8_lossy))).collect();
    }
    let (Some(size), Some(bytes)) = (array.item().size_bytes(), header.get(array.byte_range())) else {
        return Vec::new();
    };
    bytes.chunks_exact(size).take(n).map(|bytes| number(array.item(), bytes)).collect()
}

/// A number from its little-endian bytes.
fn number(ty: ValueType, bytes: &[u8]) -> serde_json::Value {
    macro_rules! read {
        ($ty:ty) => {
            json!(bytes.try_into().map(<$ty>::from_le_bytes).ok())
        };
    }
    match ty {
        ValueType::U8 => read!(u8),
        ValueType::I8 => read!(i8),
        ValueType::U16 => read!(u16),
        ValueType::I16 => read!(i16),
        ValueType::U32 => read!(u32),
        ValueType::I32 => read!(i32),
        ValueType::U64 => read!(u64),
        ValueType::I64 => read!(i64),
        ValueType::F32 => read!(f32),
        ValueType::F64 => read!(f64),
        ValueType::Bool => json!(bytes.first().is_some_and(|&byte| byte != 0)),
        ValueType::String | ValueType::Array => json!(null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_short_and_without_control_characters() {
        assert_eq!(quoted("a\n\u{1b}[2J\"b"), r#""a\n\u{1b}[2J\"b""#);
        let long = "é".repeat(500);
        assert_eq!(quoted(&long), format!("\"{}\"... (1000 bytes)", "é".repeat(SHOWN_CHARS)));
    }

    #[test]
    fn numbers_are_read_by_their_type() {
        assert_eq!(number(ValueType::U16, &[1, 2]), json!(513));
        assert_eq!(number(ValueType::I8, &[255]), json!(-1));
        assert_eq!(number(ValueType::F32, &1.5f32.to_le_bytes()), json!(1.5));
        assert_eq!(number(ValueType::F64, &f64::NAN.to_le_bytes()), json!(null));
        assert_eq!(number(ValueType::Bool, &[1]), json!(true));
        assert_eq!(number(ValueType::U64, &[1]), json!(null));
    }
}
