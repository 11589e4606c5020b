//! Keeping weights in memory by lock, as much of them as the system allows, first layers first.

use std::io;
use std::ops::Range;

/// How much of a model is to be locked in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lock {
    /// Nothing.
    #[default]
    No,
    /// What the system allows.
    Allowed,
    /// At most so many bytes of what the system allows.
    Bytes(u64),
    /// All of it; loading fails otherwise.
    Require,
}

/// What was locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockStats {
    /// Bytes that are locked.
    pub locked_bytes: u64,
    /// Bytes that would be locked if nothing limited it.
    pub wanted_bytes: u64,
    /// What ended the locking, if it did not reach the end.
    pub reason: Option<String>,
}

/// What may be locked, and who says so.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pub(crate) bytes: u64,
    pub(crate) name: String,
}

/// The smallest of the budgets that are there.
pub(crate) fn least(budgets: impl IntoIterator<Item = Option<Budget>>) -> Option<Budget> {
    budgets.into_iter().flatten().min_by_key(|budget| budget.bytes)
}

/// Locks unit by unit (a layer, the head) until the budget or the system ends it. A unit is parts
/// of files: (shard, bytes). A unit for which the budget is too small is not begun: half a layer in
/// memory helps no token.
pub(crate) fn lock_units(
    units: &[Vec<(usize, Range<u64>)>],
    budget: Option<&Budget>,
    mut lock: impl FnMut(usize, Range<u64>) -> io::Result<()>,
) -> LockStats {
    // Whole pages are locked, which a part shares with its neighbours at both ends.
    const EDGES_BYTES: u64 = 8192;
    let len = |part: &(usize, Range<u64>)| part.1.end - part.1.start;
    let wanted_bytes = units.iter().flatten().map(len).sum();
    let mut stats = LockStats { locked_bytes: 0, wanted_bytes, reason: None };
    let mut charged = 0;
    for unit in units {
        charged += unit.iter().map(|part| len(part) + EDGES_BYTES).sum::<u64>();
        if let Some(budget) = budget.filter(|budget| budget.bytes < charged) {
            stats.reason = Some(format!("{} allows {} bytes", budget.name, budget.bytes));
            return stats;
        }
        for part in unit {
            if let Err(error) = lock(part.0, part.1.clone()) {
                stats.reason = Some(format!("the system refused more: {error}"));
                return stats;
            }
            stats.locked_bytes += len(part);
        }
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn units() -> Vec<Vec<(usize, Range<u64>)>> {
        vec![vec![(0, 0..MB)], vec![(0, MB..2 * MB), (1, 0..MB)], vec![(1, MB..2 * MB)]]
    }

    fn budget(bytes: u64) -> Budget {
        Budget { bytes, name: "the limit".into() }
    }

    #[test]
    fn whole_units_are_locked_in_order_as_far_as_the_budget_goes() {
        let rows = [(0, 0), (MB, 0), (MB + 8192, 1), (3 * MB, 1), (3 * MB + 24576, 3), (4 * MB, 3), (5 * MB, 4)];
        for (bytes, locked_mb) in rows {
            let mut order = Vec::new();
            let stats = lock_units(&units(), Some(&budget(bytes)), |shard, range| {
                order.push((shard, range.start));
                Ok(())
            });
            assert_eq!(stats.locked_bytes, locked_mb * MB, "{bytes}");
            assert_eq!(stats.wanted_bytes, 4 * MB);
            assert_eq!(stats.reason.is_some(), locked_mb < 4, "{bytes}: {stats:?}");
            assert_eq!(order, [(0, 0), (0, MB), (1, 0), (1, MB)][..order.len()], "{bytes}");
        }
    }

    #[test]
    fn a_refusal_ends_it_and_is_told() {
        let mut left = 2;
        let stats = lock_units(&units(), None, |_, _| {
            left -= 1;
            if left < 0 { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
        });
        assert_eq!(stats.locked_bytes, 2 * MB);
        assert!(stats.reason.unwrap().starts_with("the system refused more: "));
    }

    #[test]
    fn the_smallest_budget_counts() {
        assert!(least([None, None]).is_none());
        assert_eq!(least([Some(budget(7)), None, Some(budget(5))]).unwrap().bytes, 5);
    }
}
