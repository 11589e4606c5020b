//! How long steps take, learned from those that were measured, and how much of a prompt fits.

use std::time::Duration;

use modelembed::SealedPage;

/// Rows of a prompt that a step has at least.
pub(crate) const FEWEST_ROWS: usize = 8;
/// Rows by which slices grow: kernels take several at a time.
const GRAIN_ROWS: usize = 4;
/// Rows of one prompt that a step has at most: layers with a window keep pages of so many tokens
/// behind it, which are to be shared before they are given back.
pub(crate) const MOST_ROWS: usize = 1024;
/// Rows of the first slice, of which nothing is known yet.
const FIRST_ROWS: usize = 32;
/// A step has at most so many times the rows of the largest one that was measured: what is known
/// of few rows says little of many.
const MOST_GROWTH: usize = 4;
/// The part of a step's bound that a slice is made for.
const MARGIN: f64 = 0.95;
/// What a new measurement counts beside all earlier ones: a step that took longer than was believed
/// counts more, since the next one would, too.
const WEIGHTS: [f64; 2] = [0.3, 0.8];
/// How much longer a step with [`MOST_GROWTH`] times the rows of the largest one is believed to take
/// until it is measured: of few rows most is the reading of weights, of many it is their own.
const GROWTH: [f64; 2] = [2.5, MOST_GROWTH as f64];
/// Rows that are many.
const MANY_ROWS: usize = 32;
/// What is left of a larger step's milliseconds, each time that a smaller one was measured: so what
/// was slow once is tried again.
const FADE: f64 = 0.998;

/// What is known of some steps that were measured, on average.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// How often; 0 is a guess.
    times: u32,
    rows: f64,
    ms: f64,
    /// How far their milliseconds are from these: steps are planned for a machine that is twice as
    /// far from them, since others may be busy on it.
    spread: f64,
}

impl Measured {
    fn cautious_ms(&self) -> f64 {
        self.ms + 2.0 * self.spread
    }
}

fn learn(known: &mut Option<Measured>, rows: usize, ms: f64) {
    let rows = rows as f64;
    let first = Measured { times: 1, rows, ms, spread: 0.0 };
    let learned = known.filter(|known| known.times > 0).map_or(first, |known| {
        // A step of more rows may take longer.
        let weight = WEIGHTS[usize::from(ms * known.rows > known.ms * rows)];
        Measured {
            times: known.times.saturating_add(1),
            rows: known.rows + weight * (rows - known.rows),
            ms: known.ms + weight * (ms - known.ms),
            spread: known.spread + WEIGHTS[0] * ((ms - known.ms).abs() - known.spread),
        }
    });
    *known = Some(learned);
}

/// Numbers of rows that are told apart: two for each power of two.
const SIZES: usize = 24;

fn size(rows: usize) -> usize {
    let log = rows.max(1).ilog2() as usize;
    let upper_half = if log == 0 { 0 } else { rows >> (log - 1) & 1 };
    (2 * log + upper_half).min(SIZES - 1)
}

/// Depths that are told apart: up to 1, 2, 4, .. pages behind the beginning.
const DEPTHS: usize = 16;

fn depth(position: usize) -> usize {
    ((position / SealedPage::TOKENS + 1).ilog2() as usize).min(DEPTHS - 1)
}

/// The nearest one that is something, the later one of two.
fn nearest<T>(known: &[T], at: usize, is_something: impl Fn(&T) -> bool) -> Option<&T> {
    let after = known.iter().skip(at).position(&is_something).map(|n| at + n);
    let before = known.iter().take(at).rposition(&is_something);
    let nearer = match (before, after) {
        (Some(before), Some(after)) if at - before < after - at => Some(before),
        (before, after) => after.or(before),
    };
    Some(&known[nearer?])
}

/// How long steps with a slice of prompt take, by their rows, those of answers included: a step
/// reads all weights, whatever it has, so that rows cost the less the more there are.
type Curve = [Option<Measured>; SIZES];

/// Milliseconds of a step with so many rows.
fn step_ms(curve: &Curve, rows: usize) -> Option<f64> {
    let rows = rows as f64;
    let known = || curve.iter().flatten();
    let in_proportion = |to: &Measured| to.cautious_ms() * rows / to.rows;
    let below = known().rfind(|known| known.rows <= rows);
    let above = known().find(|known| known.rows > rows);
    let (Some(below), Some(above)) = (below, above) else { return below.or(above).map(in_proportion) };
    let between = (rows - below.rows) / (above.rows - below.rows);
    let ms = below.cautious_ms() + between * (above.cautious_ms() - below.cautious_ms());
    // What was measured long ago may have become less.
    Some(ms.min(in_proportion(below)))
}

/// What is known of how long steps take.
pub(crate) struct Pace {
    /// The option.
    step_ms: f64,
    /// Of steps with so many rows of answers and nothing else.
    answers: Vec<Option<Measured>>,
    /// Of the others, by how far behind the beginning their longest slice is: attention looks at
    /// all before.
    mixed: [Curve; DEPTHS],
    /// Rows of the largest step that was measured.
    most_rows: usize,
}

impl Pace {
    pub(crate) fn new(step: Duration, sequences: usize) -> Pace {
        Pace {
            step_ms: step.as_secs_f64() * 1e3,
            answers: vec![None; sequences + 1],
            mixed: [[None; SIZES]; DEPTHS],
            most_rows: 0,
        }
    }

    fn answers_ms(&self, n: usize) -> f64 {
        if n == 0 { 0.0 } else { nearest(&self.answers, n, Option::is_some).copied().flatten().map_or(0.0, |of| of.ms) }
    }

    fn curve(&self, position: usize) -> Option<&Curve> {
        nearest(&self.mixed, depth(position), |curve| curve.iter().any(Option::is_some))
    }

    /// A row's milliseconds at a position of its prompt, in a step with many.
    pub(crate) fn row_ms(&self, position: usize) -> Option<f64> {
        let measured = |known: &&Measured| known.times > 0;
        self.curve(position)?.iter().flatten().filter(measured).map(|known| known.ms / known.rows).reduce(f64::min)
    }

    /// Rows of a prompt from `position` on that a step with so many answers has time for, those of
    /// other prompts included.
    pub(crate) fn rows(&self, answers: usize, position: usize) -> usize {
        let Some(curve) = self.curve(position) else { return FIRST_ROWS };
        let bound_ms = MARGIN * self.step_ms.max(1.5 * self.answers_ms(answers));
        let most = MOST_ROWS.min((MOST_GROWTH * self.most_rows).saturating_sub(answers).max(FEWEST_ROWS));
        let fits = |n: &usize| step_ms(curve, answers + n * GRAIN_ROWS).is_none_or(|ms| ms <= bound_ms);
        (FEWEST_ROWS / GRAIN_ROWS..=most / GRAIN_ROWS).rev().find(fits).unwrap_or(0) * GRAIN_ROWS
    }

    /// A step was measured: rows of answers, rows of prompts, the position that most of these
    /// were at.
    pub(crate) fn learn(&mut self, took: Duration, answers: usize, rows: usize, position: usize) {
        let ms = took.as_secs_f64() * 1e3;
        if rows == 0 {
            return learn(&mut self.answers[answers], answers, ms);
        }
        let all = answers + rows;
        self.most_rows = self.most_rows.max(all);
        let (smaller, larger) = self.mixed[depth(position)].split_at_mut(size(all) + 1);
        learn(&mut smaller[size(all)], all, ms);
        for known in larger.iter_mut().flatten() {
            known.ms = (FADE * known.ms).min(ms * known.rows / all as f64);
            known.spread *= FADE;
        }
        let guessed = MOST_GROWTH * all;
        if larger.iter().all(Option::is_none)
            && let Some(unknown) = larger.get_mut(size(guessed) - size(all) - 1)
        {
            *unknown = Some(Measured {
                times: 0,
                rows: guessed as f64,
                ms: GROWTH[usize::from(all >= MANY_ROWS)] * ms,
                spread: 0.0,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a step takes this long.
    fn took(answers: usize, rows: usize) -> Duration {
        Duration::from_secs_f64((50.0 + 2.0 * (answers + rows) as f64) / 1e3)
    }

    #[test]
    fn slices_fill_steps_up_to_their_bound() {
        let mut pace = Pace::new(Duration::from_millis(150), 16);
        assert_eq!(pace.rows(0, 0), FIRST_ROWS, "nothing is known");
        pace.learn(took(4, 0), 4, 0, 0);
        for _ in 0..20 {
            let rows = pace.rows(4, 0);
            assert!(took(4, rows) <= Duration::from_millis(150), "{rows} rows");
            pace.learn(took(4, rows), 4, rows, 0);
            // What is left of a prompt may be few rows: such a step tells nothing of others.
            pace.learn(took(4, 3), 4, 3, 0);
        }
        let rows = pace.rows(4, 0);
        assert!((32..=40).contains(&rows), "{rows} rows: 4 + 40 take 138 of 142.5 ms");
        assert_eq!(pace.rows(12, 0), rows - 8, "the others are answers'");
        let row_ms = pace.row_ms(0).unwrap();
        assert!((3.0..3.5).contains(&row_ms), "a row costs {row_ms} ms, what it does among many");
    }

    #[test]
    fn answers_that_take_long_leave_half_of_their_time() {
        let mut pace = Pace::new(Duration::from_millis(150), 16);
        pace.learn(Duration::from_millis(400), 16, 0, 0);
        pace.learn(Duration::from_millis(420), 16, 8, 0);
        // Four times 24 rows are believed to take 1050 ms, so 570 have time for a few more than 24.
        assert_eq!(pace.rows(16, 0), 24);
        pace.learn(Duration::from_millis(430), 16, 12, 0);
        pace.learn(Duration::from_millis(440), 16, 40, 0);
        assert_eq!(pace.rows(16, 0), 56, "72 rows in 570 ms, of 600 for 400 of answers");
    }

    #[test]
    fn steps_grow_no_faster_than_what_is_known() {
        let mut pace = Pace::new(Duration::from_millis(150), 16);
        pace.learn(Duration::from_millis(1), 0, 10, 0);
        assert_eq!(pace.rows(0, 0), 40, "four times what was measured");
        pace.learn(Duration::from_millis(1), 0, 1000, 0);
        assert_eq!(pace.rows(0, 0), MOST_ROWS);
    }

    #[test]
    fn what_was_slow_once_is_tried_again() {
        let mut pace = Pace::new(Duration::from_millis(150), 1);
        pace.learn(Duration::from_millis(900), 0, 64, 0);
        assert_eq!(pace.rows(0, 0), 8);
        for _ in 0..100 {
            let rows = pace.rows(0, 0);
            pace.learn(took(0, rows), 0, rows, 0);
        }
        assert!(pace.rows(0, 0) >= 32, "{} rows", pace.rows(0, 0));
    }

    #[test]
    fn a_machine_whose_times_differ_gets_shorter_slices() {
        let rows = |times: [u64; 2]| {
            let mut pace = Pace::new(Duration::from_millis(150), 1);
            for i in 0..40 {
                pace.learn(Duration::from_millis(times[i % 2]), 0, 100, 0);
            }
            pace.rows(0, 0)
        };
        let (steady, uneven) = (rows([100, 100]), rows([60, 140]));
        assert!(steady >= 120 && (40..=steady - 24).contains(&uneven), "{steady} and {uneven} rows");
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

    #[test]
    fn sizes_are_two_for_each_power_of_two() {
        let sizes: Vec<usize> = [1, 2, 3, 4, 5, 6, 8, 11, 12, 16, 2047].into_iter().map(size).collect();
        assert_eq!(sizes, [0, 2, 3, 4, 4, 5, 6, 6, 7, 8, 21]);
    }
}
