//! Options that are packed into a program: defaults that what is typed overrides.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// Options of `pack` that speak of the packing itself.
const OWN: [&str; 4] = ["o", "force", "model", "help"];

/// What is typed on the left takes the place of the packed options on the right, which would
/// contradict it.
const INSTEAD_OF: [(&str, &[&str]); 6] = [
    ("mmap", &["memory"]),
    ("memory", &["mmap"]),
    ("raw", &["system", "template"]),
    ("system", &["raw"]),
    ("template", &["raw"]),
    ("i", &["raw"]),
];

/// Whether every value counts that an option is given.
fn takes_several(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

fn was_typed(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// The options of a `pack` command line that the new program is to have, as `--name=value`.
/// `command` is built.
pub fn to_store(command: &Command, of_pack: &ArgMatches) -> Result<Vec<String>, String> {
    let mut flags = Vec::new();
    for arg in command.find_subcommand("pack").into_iter().flat_map(Command::get_arguments) {
        let (id, Some(long)) = (arg.get_id().as_str(), arg.get_long()) else { continue };
        if OWN.contains(&long) || !was_typed(of_pack, id) {
            continue;
        }
        if !arg.get_action().takes_values() {
            flags.push(format!("--{long}"));
            continue;
        }
        let given = of_pack.get_raw(id).map(|values| values.collect::<Vec<_>>()).unwrap_or_default();
        // The last word counts, unless all do.
        let first = if takes_several(arg) { 0 } else { given.len().saturating_sub(1) };
        for value in &given[first..] {
            let value =
                value.to_str().ok_or_else(|| format!("the value of --{long} is not UTF-8: it cannot be packed\n"))?;
            flags.push(format!("--{long}={value}"));
        }
    }
    Ok(flags)
}

/// Those of the packed options that go with what was typed: for a sub-command only those that every
/// one takes.
pub fn applicable(flags: &[String], command: &Command, typed: &ArgMatches) -> Vec<String> {
    let arg = |long: &str| command.get_arguments().find(|arg| arg.get_long() == Some(long));
    let is_typed = |long: &str| arg(long).is_some_and(|arg| was_typed(typed, arg.get_id().as_str()));
    let applies = |flag: &&String| {
        let name = flag.trim_start_matches('-');
        let name = name.split_once('=').map_or(name, |(name, _)| name);
        let global = arg(name).is_some_and(|arg| arg.is_global_set());
        // Values that are typed take the place of all that are packed.
        let has_others = arg(name).is_some_and(takes_several) && is_typed(name);
        let replaced = has_others || INSTEAD_OF.iter().any(|(typed, packed)| packed.contains(&name) && is_typed(typed));
        (typed.subcommand().is_none() || global) && !replaced
    };
    flags.iter().filter(applies).cloned().collect()
}
