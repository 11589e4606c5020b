//! Metadata of real models, as llama.cpp's converter writes it, read into descriptions and compiled
//! into programs.

mod described;
mod families;
mod mixtures;
mod models;
mod programs;
mod refused;
mod saved;

use std::fs;
use std::path::Path;

/// Compares with a file that was written by hand from what is known of the models.
fn assert_golden(name: &str, seen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(format!("{name}.txt"));
    let wanted = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let differs = |(i, (seen, wanted)): (usize, (&str, &str))| {
        (seen != wanted).then(|| format!("line {}:\n  seen   {seen:?}\n  wanted {wanted:?}", i + 1))
    };
    let difference = seen.lines().zip(wanted.lines()).enumerate().find_map(differs);
    assert!(seen == wanted, "{name}: {}\n{seen}", difference.unwrap_or("another number of lines".to_owned()));
}
