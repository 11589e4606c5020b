//! Which model file is meant when none, or not quite the right one, was named.

use anyhow::{Result, bail};
use modelembed_gguf::shown_path;
use std::path::{Path, PathBuf};

/// The default of `-model`.
const DEFAULT: &str = "models/tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf";

/// A model that exists.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    /// How it was found, if it is not the one asked for.
    pub note: Option<String>,
}

/// The model that was named; else the default one; else the only one in its folder.
pub fn find(named: Option<&Path>) -> Result<Found> {
    find_in(Path::new("."), named)
}

/// `folder` stands for the working directory.
fn find_in(folder: &Path, named: Option<&Path>) -> Result<Found> {
    if let Some(path) = named {
        if !folder.join(path).try_exists().unwrap_or(true) {
            bail!("Model file not found: {}\n{}", shown_path(path), advice(folder, path));
        }
        return Ok(Found { path: path.to_path_buf(), note: None });
    }
    let default = Path::new(DEFAULT);
    if folder.join(default).exists() {
        return Ok(Found { path: default.to_path_buf(), note: None });
    }
    let models = default.parent().unwrap_or(default);
    match &models_in(folder, models)[..] {
        [only] => {
            let note =
                format!("{DEFAULT} is not there: using {}, the only model in {}", shown_path(only), shown_path(models));
            Ok(Found { path: only.clone(), note: Some(note) })
        }
        _ => bail!("Model file not found: {DEFAULT}\n{}", advice(folder, default)),
    }
}

/// What to do about a missing model.
fn advice(folder: &Path, path: &Path) -> String {
    let beside = models_in(folder, path.parent().unwrap_or(Path::new("")));
    if beside.is_empty() {
        return "Give the path of a GGUF file with -model PATH, or fetch a small model with scripts/fetch-model.sh"
            .to_string();
    }
    let names: Vec<String> = beside.iter().map(|path| format!("  -model {}", shown_path(path))).collect();
    format!("These models are there:\n{}", names.join("\n"))
}

/// The models in a folder, by name. Of a split model only the first file counts.
fn models_in(folder: &Path, models: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join(models)) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.to_ascii_lowercase().ends_with(".gguf") && !name.starts_with('.') && !is_later_shard(name))
        .collect();
    names.sort();
    names.into_iter().map(|name| models.join(name)).collect()
}

/// Whether a name ends as `-00002-of-00003.gguf` does, with a number other than the first.
fn is_later_shard(name: &str) -> bool {
    let stem = &name[..name.len() - ".gguf".len()];
    let mut parts = stem.rsplit('-');
    let (Some(count), Some("of"), Some(number)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number(count) && is_number(number) && number != "00001"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model of a folder as messages name it: with the system's own separator.
    fn named(name: &str) -> String {
        Path::new("models").join(name).display().to_string()
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("models/sub.gguf")).unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        folder
    }

    #[test]
    fn the_default_then_the_only_model_then_an_error() {
        let other = folder(&["models/a.gguf", "models/readme.txt", "models/.b.gguf"]);
        let found = find_in(other.path(), None).unwrap();
        assert_eq!(found.path, Path::new("models/a.gguf"));
        assert!(found.note.unwrap().contains(&named("a.gguf")));

        let both = folder(&["models/a.gguf", DEFAULT]);
        assert_eq!(find_in(both.path(), None).unwrap(), Found { path: DEFAULT.into(), note: None });

        let split = folder(&["models/m-00001-of-00002.gguf", "models/m-00002-of-00002.gguf"]);
        assert_eq!(find_in(split.path(), None).unwrap().path, Path::new("models/m-00001-of-00002.gguf"));

        let two = folder(&["models/a.gguf", "models/b.gguf"]);
        let error = find_in(two.path(), None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("Model file not found: {DEFAULT}")), "{error}");
        for name in ["a.gguf", "b.gguf"] {
            assert!(error.contains(&format!("-model {}", named(name))), "{error}");
        }

        let none = folder(&[]);
        assert!(find_in(none.path(), None).unwrap_err().to_string().contains("fetch-model.sh"));
    }

    #[test]
    fn a_model_that_was_named_is_never_replaced() {
        let folder = folder(&["models/a.gguf"]);
        let error = find_in(folder.path(), Some("models/x.gguf".as_ref())).unwrap_err().to_string();
        assert!(error.starts_with("Model file not found: models/x.gguf"), "{error}");
        assert!(error.contains(&format!("-model {}", named("a.gguf"))), "{error}");
    }
}
