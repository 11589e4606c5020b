//! Long options with one dash, which clap does not parse: `-model x`, `-mmap=false`, `-p=text`.
//!
//! Every option of this program is a long one for clap, even `-p`; this pass rewrites what was
//! typed to `--name=value`, driven by clap's own table of arguments. It must know which options
//! take a value, so as not to touch the value: in `-p -model`, `-model` is the prompt.

use clap::Command;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `-quiet`; `-quiet=true` and `-quiet=false` are understood too.
    Switch,
    /// `-mmap` or `-mmap=false`, but never `-mmap false`.
    OptionalValue,
    /// `-n 5` or `-n=5`.
    Value,
}

/// Rewrites `args` (the program's name first) for a built `command`.
pub fn expand(command: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut longs, mut shorts) = (BTreeMap::new(), Vec::new());
    collect(command, &mut longs, &mut shorts);
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        if arg == "--" {
            out.push(arg);
            out.extend(args);
            break;
        }
        let Some((name, value)) = option(&arg).filter(|(name, _)| !shorts.contains(name)) else {
            out.push(arg);
            continue;
        };
        match (longs.get(&name), value) {
            (Some(Kind::Value), None) => out.push(joined(&name, args.next())),
            (Some(Kind::Switch), Some(value)) if value == "true" || value == "1" => out.push(joined(&name, None)),
            (Some(Kind::Switch), Some(value)) if value == "false" || value == "0" => {}
            // Unknown names too: clap then suggests the nearest known one.
            (_, value) => out.push(joined(&name, value)),
        }
    }
    out
}

fn collect(command: &Command, longs: &mut BTreeMap<String, Kind>, shorts: &mut Vec<String>) {
    for arg in command.get_arguments() {
        let kind = match (arg.get_action().takes_values(), arg.is_require_equals_set()) {
            (false, _) => Kind::Switch,
            (true, true) => Kind::OptionalValue,
            (true, false) => Kind::Value,
        };
        for long in arg.get_long().into_iter().chain(arg.get_all_aliases().into_iter().flatten()) {
            let before = longs.insert(long.to_string(), kind);
            debug_assert!(before.is_none_or(|before| before == kind), "-{long} means different things");
        }
        shorts.extend(arg.get_short().map(String::from));
    }
    command.get_subcommands().for_each(|sub| collect(sub, longs, shorts));
}

/// The name and the value behind `=` of an option; nothing for other words (`text`, `-`, `-5`).
fn option(arg: &OsStr) -> Option<(String, Option<OsString>)> {
    let bytes = arg.as_encoded_bytes();
    let bytes = bytes.strip_prefix(b"--").or(bytes.strip_prefix(b"-"))?;
    let end = bytes.iter().position(|&byte| byte == b'=').unwrap_or(bytes.len());
    let name = std::str::from_utf8(&bytes[..end]).ok().filter(|name| name.starts_with(char::is_alphabetic))?;
    Some((name.to_string(), bytes.get(end + 1..).map(os_string)))
}

/// A value that was cut out of an argument at an ASCII character.
#[cfg(unix)]
fn os_string(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

/// Elsewhere arguments are UTF-16, and what is no Unicode in them is not kept.
#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

fn joined(name: &str, value: Option<OsString>) -> OsString {
    let mut arg = OsString::from(format!("--{name}"));
    if let Some(value) = value {
        arg.push("=");
        arg.push(value);
    }
    arg
}
