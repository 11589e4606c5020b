//! One of the candidates, by their probabilities.

use super::candidate::Candidate;
use crate::TokenId;

/// The candidate at a random place of the unit interval that the probabilities fill one after the
/// other.
pub(super) fn draw(candidates: &[Candidate], random: u64) -> Option<TokenId> {
    let total: f64 = candidates.iter().map(|c| f64::from(c.p)).sum();
    let place = unit(random) * total;
    let mut sum = 0.0;
    let hit = candidates.iter().find(|c| {
        sum += f64::from(c.p);
        sum > place
    });
    // Rounding could leave the place at the very end: then it is the last one that has a
    // probability at all.
    hit.or_else(|| candidates.iter().rfind(|c| c.p > 0.0)).map(|c| c.id)
}

/// A number from 0 to less than 1: 53 bits make every multiple of 2^-53 equally likely.
pub(super) fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let candidates: Vec<Candidate> =
            [0.5, 0.0, 0.25, 0.25].iter().zip(0..).map(|(&p, i)| Candidate { id: TokenId(i), p, logit: 0.0 }).collect();
        let at = |fraction: f64| draw(&candidates, (fraction * 2f64.powi(64)) as u64).map(|id| id.0);
        let rows = [(0.0, 0), (0.49, 0), (0.5, 2), (0.74, 2), (0.76, 3), (1.0, 3)];
        let wrong: Vec<_> = rows.iter().map(|&(x, want)| (x, at(x), want)).filter(|r| r.1 != Some(r.2)).collect();
        assert!(wrong.is_empty(), "place, seen, wanted: {wrong:?}");
        assert_eq!(draw(&[], 7), None);
    }
}
