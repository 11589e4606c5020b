//! How long steps take, learned from those that were measured, and how much of a prompt fits.

use std::time::Duration;

use modelembed::SealedPage;

/// Rows of a prompt that a step has at least.
pub(crate) const FEWEST_ROWS: usize = 8;
/// Rows of one prompt that a step has at most: layers with a window keep pages of so many tokens
/// behind it, which are to be shared before they are given back.
pub(crate) const MOST_ROWS: usize = 1024;
/// Rows of the first slice, of which nothing is known yet.
const FIRST_ROWS: usize = 32;
/// A slice has at most so many times the rows of the largest one that was measured: what is
/// known of few rows says little of many.
const MOST_GROWTH: usize = 4;
/// The part of a step's bound that a slice is made for.
const MARGIN: f64 = 0.9;
/// What a new measurement counts beside all earlier ones.
const WEIGHT: f64 = 0.3;

/// What is known of some milliseconds that were measured.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Their average.
    ms: f64,
    /// How far they are from it on average: steps are planned for a machine that is as slow again,
    /// since others may be busy on it.
    spread: f64,
}

/// Milliseconds that were measured.
pub(crate) struct Pace {
    /// The option.
    step_ms: f64,
    /// Of a step with so many rows of answers and nothing else.
    decode: Vec<Option<Measured>>,
    /// Of a row of a prompt, by how far behind the beginning it is: attention looks at all before.
    row: [Option<Measured>; DEPTHS],
    /// Rows of the largest slice that was measured.
    most_rows: usize,
}

/// Depths that are told apart: up to 1, 2, 4, .. pages.
const DEPTHS: usize = 16;

fn depth(position: usize) -> usize {
    ((position / SealedPage::TOKENS + 1).ilog2() as usize).min(DEPTHS - 1)
}

/// The nearest measurement, the later one of two.
fn nearest(measured: &[Option<Measured>], at: usize) -> Option<Measured> {
    let after = measured.iter().skip(at).position(Option::is_some).map(|n| at + n);
    let before = measured.iter().take(at).rposition(Option::is_some);
    let nearer = match (before, after) {
        (Some(before), Some(after)) if at - before < after - at => Some(before),
        (before, after) => after.or(before),
    };
    measured[nearer?]
}

fn learn(known: &mut Option<Measured>, ms: f64) {
    let learned = known.map_or(Measured { ms, spread: 0.0 }, |known| Measured {
        ms: known.ms + WEIGHT * (ms - known.ms),
        spread: known.spread + WEIGHT * ((ms - known.ms).abs() - known.spread),
    });
    *known = Some(learned);
}

impl Pace {
    pub(crate) fn new(step: Duration, sequences: usize) -> Pace {
        let decode = vec![None; sequences + 1];
        Pace { step_ms: step.as_secs_f64() * 1e3, decode, row: [None; DEPTHS], most_rows: 0 }
    }

    fn decode_ms(&self, rows: usize) -> f64 {
        if rows == 0 { 0.0 } else { nearest(&self.decode, rows).map_or(0.0, |known| known.ms) }
    }

    /// A row's milliseconds at a position of its prompt.
    pub(crate) fn row_ms(&self, position: usize) -> Option<f64> {
        nearest(&self.row, depth(position)).map(|known| known.ms)
    }

    /// Milliseconds that a step with so many rows of answers has for prompts.
    pub(crate) fn left_ms(&self, answers: usize) -> f64 {
        let alone = self.decode_ms(answers);
        (self.step_ms.max(1.5 * alone) * MARGIN - alone).max(0.0)
    }

    /// Rows of a prompt from `position` on that fit into `left_ms`.
    pub(crate) fn rows(&self, left_ms: f64, position: usize) -> usize {
        let Some(known) = nearest(&self.row, depth(position)) else { return FIRST_ROWS };
        let rows = (left_ms / (known.ms + known.spread).max(1e-6)) as usize;
        // Kernels take several at a time.
        let rows = rows.min(MOST_GROWTH * self.most_rows.max(FEWEST_ROWS)).min(MOST_ROWS);
        rows / FEWEST_ROWS * FEWEST_ROWS
    }

    /// A step was measured: rows of answers, rows of prompts, the position that most of these
    /// were at.
    pub(crate) fn learn(&mut self, took: Duration, answers: usize, rows: usize, position: usize) {
        let ms = took.as_secs_f64() * 1e3;
        if rows == 0 {
            learn(&mut self.decode[answers], ms);
            return;
        }
        self.most_rows = self.most_rows.max(rows);
        // A rest of a few rows says what a step costs rather than what a row does.
        if rows >= FEWEST_ROWS || self.row_ms(position).is_none() {
            let of_rows = (ms - self.decode_ms(answers)).max(0.05 * ms);
            learn(&mut self.row[depth(position)], of_rows / rows as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a step takes this long.
    fn took(answers: usize, rows: usize) -> Duration {
        Duration::from_secs_f64((10.0 + answers as f64 + 2.0 * rows as f64) / 1e3)
    }

    #[test]
    fn slices_fill_steps_up_to_their_bound() {
        let mut pace = Pace::new(Duration::from_millis(150), 16);
        assert_eq!(pace.rows(pace.left_ms(0), 0), FIRST_ROWS, "nothing is known");
        for _ in 0..20 {
            pace.learn(took(4, 0), 4, 0, 0);
            let rows = pace.rows(pace.left_ms(4), 0);
            assert!(took(4, rows) <= Duration::from_millis(150), "{rows} rows");
            pace.learn(took(4, rows), 4, rows, 0);
        }
        let rows = pace.rows(pace.left_ms(4), 0);
        assert!((48..=64).contains(&rows), "{rows} rows of 2 ms fill 90 % of 150 ms beside 14 ms");
    }

    #[test]
    fn answers_that_take_long_leave_half_of_their_time() {
        let mut pace = Pace::new(Duration::from_millis(150), 16);
        pace.learn(Duration::from_millis(400), 16, 0, 0);
        assert!((pace.left_ms(16) - (600.0 * MARGIN - 400.0)).abs() < 1e-6);
        pace.learn(Duration::from_millis(420), 16, 10, 0);
        assert_eq!(pace.rows(pace.left_ms(16), 0), 40, "four times what was measured");
        // Of another number of rows the nearest is taken.
        assert!(pace.left_ms(3) > 0.0);
    }

    #[test]
    fn a_machine_whose_times_differ_gets_shorter_slices() {
        let rows = |times: [u64; 2]| {
            let mut pace = Pace::new(Duration::from_millis(150), 1);
            for i in 0..40 {
                pace.learn(Duration::from_millis(times[i % 2]), 0, 100, 0);
            }
            pace.rows(150.0, 0)
        };
        assert_eq!(rows([100, 100]), 144);
        assert!((88..=112).contains(&rows([60, 140])), "{} rows", rows([60, 140]));
    }

    #[test]
    fn rows_far_behind_the_beginning_are_learned_apart() {
        let mut pace = Pace::new(Duration::from_millis(100), 1);
        pace.learn(Duration::from_millis(100), 0, 100, 0);
        pace.learn(Duration::from_millis(500), 0, 100, 20_000);
        assert_eq!(pace.row_ms(0), Some(1.0));
        assert_eq!(pace.row_ms(20_000), Some(5.0));
        assert_eq!(pace.row_ms(9_000), Some(5.0));
        assert_eq!(pace.row_ms(600), Some(1.0));
    }
}
