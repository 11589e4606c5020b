//! The tokens that a benchmark evaluates.

use anyhow::{Context, Result, ensure};
use modelembed::TokenId;
use std::path::Path;

/// Ids that look random, but are the same each time. What they say does not matter to speed.
pub fn tokens(n: usize, n_vocab: usize) -> Vec<TokenId> {
    let mut state = 42u64;
    let mut next = || {
        // Knuth's MMIX generator; its upper bits are the good ones.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        TokenId(((state >> 33) % n_vocab as u64) as u32)
    };
    (0..n).map(|_| next()).collect()
}

/// Ids that stay in a neighbourhood for a while, as the words of a text stay with its subject: 16
/// neighbours of a cluster of 64, then another cluster. Which experts a token uses depends on the
/// ones before it then, as in real texts.
pub fn walk(n: usize, n_vocab: usize) -> Vec<TokenId> {
    const STEPS: usize = 16;
    let size = modelembed_synthetic::CLUSTER.min(n_vocab);
    let starts = tokens(n.div_ceil(STEPS), n_vocab);
    let id = |i: usize| {
        let start = starts[i / STEPS].0 as usize;
        let first = (start / size * size).min(n_vocab - size);
        TokenId((first + (start + i % STEPS) % size) as u32)
    };
    (0..n).map(id).collect()
}

/// Ids of a file, with anything but digits between them.
pub fn read_ids(path: &Path, wanted: usize, n_vocab: usize) -> Result<Vec<TokenId>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let words = text.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
    let mut ids = Vec::new();
    for word in words {
        let id = word.parse::<u32>().ok().filter(|id| (*id as usize) < n_vocab);
        ids.push(TokenId(id.with_context(|| {
            format!("{}: {word} is no token; the vocabulary has {n_vocab}, from 0 on", path.display())
        })?));
    }
    ensure!(
        ids.len() >= wanted,
        "{} has {} ids; the prompt, or the tokens generated, behind those before them take {wanted}",
        path.display(),
        ids.len()
    );
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_stay_in_a_cluster_for_16_steps() {
        let ids = walk(100, 1000);
        for part in ids.chunks(16) {
            assert!(part.iter().all(|id| id.0 < 1000 && id.0 / 64 == part[0].0 / 64 || id.0 >= 936), "{part:?}");
        }
        assert!(ids.chunks(16).map(|part| part[0].0 / 64).collect::<std::collections::HashSet<_>>().len() > 3);
        assert!(walk(40, 5).iter().all(|id| id.0 < 5));
    }

    #[test]
    fn ids_are_read_and_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids");
        std::fs::write(&path, "[1, 2,\n3]\n").unwrap();
        assert_eq!(read_ids(&path, 3, 4).unwrap(), [1, 2, 3].map(TokenId));
        let message = |wanted, n_vocab| read_ids(&path, wanted, n_vocab).unwrap_err().to_string();
        assert!(message(4, 4).contains("has 3 ids") && message(3, 3).contains("3 is no token"));
    }

    #[test]
    fn tokens_stay_in_the_vocabulary() {
        assert!(tokens(1000, 7).iter().all(|id| id.0 < 7));
        assert_eq!(tokens(5, 100), tokens(5, 100));
    }
}
