//! The most likely tokens, with their log-probabilities.

use modelembed::TokenId;

/// The `n` most likely tokens of some logits, most likely first, of equal ones the lower id first;
/// `total` is what makes a logit a log-probability.
pub(crate) fn most_likely(logits: &[f32], n: usize, total: f64) -> Vec<(TokenId, f32)> {
    if n == 0 {
        return Vec::new();
    }
    // In their order, greatest first; few enough that an insertion is a short move.
    let mut best: Vec<(usize, f32)> = Vec::with_capacity(n.min(logits.len()) + 1);
    let mut lowest = f32::NEG_INFINITY;
    for (i, &logit) in logits.iter().enumerate() {
        // What is no number is no candidate.
        if logit > lowest {
            let at = best.partition_point(|&(_, other)| other >= logit);
            best.insert(at, (i, logit));
            if best.len() > n {
                best.pop();
            }
            if best.len() == n {
                lowest = best[n - 1].1;
            }
        }
    }
    best.into_iter().map(|(i, logit)| (TokenId(i as u32), (f64::from(logit) - total) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_come_first_and_equals_by_their_ids() {
        let logits = [1.0, 3.0, f32::NAN, 3.0, f32::NEG_INFINITY, 2.0, 1.0];
        let ids = |n| most_likely(&logits, n, 1.0).into_iter().map(|(id, p)| (id.0, p)).collect::<Vec<_>>();
        assert_eq!(ids(0), []);
        assert_eq!(ids(1), [(1, 2.0)]);
        assert_eq!(ids(4), [(1, 2.0), (3, 2.0), (5, 1.0), (0, 0.0)]);
        assert_eq!(ids(20).len(), 5, "what cannot come is not told");
    }
}
