//! What statistics and benchmarks say of a mixture's experts that do not all stay in memory.

use crate::report::megabytes;
use modelembed::{Model, SlotStats};
use serde_json::{Value, json};

/// How experts were had while tokens were decoded.
#[derive(Debug, Clone, Copy)]
pub struct ExpertReads {
    /// Of the time that counts.
    pub stats: SlotStats,
    /// Experts that a token uses, over all layers.
    pub used_per_token: u64,
    /// Bytes a second that the disk gives if nothing is computed meanwhile.
    pub disk_bytes_per_second: Option<f64>,
    /// Tokens a second.
    pub pace: f64,
}

/// Tokens a second that there could be at most, and which share of it there was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    pub tokens_per_second: f64,
    pub share: f64,
}

impl ExpertReads {
    /// `None` where a model's experts are not kept one by one. `disk`: what the disk was measured
    /// to give; what it gave while tokens were computed counts if it is more.
    pub fn new(model: &Model, stats: SlotStats, disk: Option<f64>, pace: f64) -> Option<ExpertReads> {
        let experts = model.plan().experts?;
        let seen = (!stats.read_time.is_zero()).then(|| stats.read_bytes as f64 / stats.read_time.as_secs_f64());
        let disk_bytes_per_second = disk.into_iter().chain(seen).reduce(f64::max);
        Some(ExpertReads { stats, used_per_token: experts.n_used.max(1), disk_bytes_per_second, pace })
    }

    fn used(&self) -> u64 {
        self.stats.hits + self.stats.misses
    }

    fn tokens(&self) -> f64 {
        self.used() as f64 / self.used_per_token as f64
    }

    /// The share of used experts that were in memory when their layer came, without those that were
    /// read since the layer before it.
    pub fn hit_rate(&self) -> f64 {
        self.stats.hits.saturating_sub(self.stats.came_true) as f64 / self.used().max(1) as f64
    }

    /// The share of those that were guessed and read ahead.
    pub fn ahead_rate(&self) -> f64 {
        self.stats.came_true as f64 / self.used().max(1) as f64
    }

    /// Bytes of experts that a token uses and that are not in memory.
    pub fn missed_bytes_per_token(&self) -> f64 {
        (self.stats.missed_bytes + self.stats.came_true_bytes) as f64 / self.tokens().max(1e-9)
    }

    /// 1 / max(computing, reading) and 1 / (computing + reading): if both are done at the same time,
    /// and one after the other. Computing is the time in which nothing was waited for.
    pub fn bounds(&self) -> Option<[Bound; 2]> {
        let disk = self.disk_bytes_per_second.filter(|speed| *speed > 0.0)?;
        if self.used() == 0 || self.pace <= 0.0 {
            return None;
        }
        let reading = self.missed_bytes_per_token() / disk;
        let computing = (1.0 / self.pace - self.stats.wait_time.as_secs_f64() / self.tokens()).max(1e-9);
        let bound = |seconds: f64| Bound { tokens_per_second: 1.0 / seconds, share: self.pace * seconds };
        Some([bound(computing.max(reading)), bound(computing + reading)])
    }

    /// One line.
    pub fn text(&self) -> String {
        let percent = |share: f64| format!("{:.0}%", 100.0 * share);
        let SlotStats { used_bytes, budget_bytes, is_direct, reader, .. } = self.stats;
        let mut out = format!(
            "{} of {} in memory, {} read ahead; {} a token from the disk",
            percent(self.hit_rate()),
            self.used(),
            percent(self.ahead_rate()),
            megabytes(self.missed_bytes_per_token() as u64)
        );
        if let Some(disk) = self.disk_bytes_per_second {
            let way = if is_direct { "past" } else { "through" };
            let reader = reader.name();
            out += &format!(", which gives {}/s by {reader} {way} the page cache", megabytes(disk as u64));
        }
        if let Some([both, _]) = self.bounds() {
            out += &format!("; {} of what disk and processor allow", percent(both.share));
        }
        out + &format!("; {} of {} of memory for experts in use", megabytes(used_bytes), megabytes(budget_bytes))
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let SlotStats { hits, misses, passed, passed_misses, expected, came_true, .. } = self.stats;
        let bound = |bound: &Bound| json!({ "tokens_per_second": bound.tokens_per_second, "share": bound.share });
        json!({
            "used": hits + misses,
            "in_memory": hits - came_true.min(hits),
            "guessed": expected,
            "guessed_right": came_true,
            "missed": misses,
            "hit_rate": self.hit_rate(),
            "missed_bytes_per_token": self.missed_bytes_per_token(),
            "of_prompts": passed,
            "of_prompts_missed": passed_misses,
            "read_bytes": self.stats.read_bytes,
            "read_ms": self.stats.read_time.as_secs_f64() * 1e3,
            "wait_ms": self.stats.wait_time.as_secs_f64() * 1e3,
            "disk_bytes_per_second": self.disk_bytes_per_second,
            "bounds": self.bounds().map(|bounds| bounds.iter().map(bound).collect::<Vec<_>>()),
            "slot_bytes": self.stats.used_bytes,
            "budget_bytes": self.stats.budget_bytes,
            "direct": self.stats.is_direct,
            "reader": self.stats.reader.name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn bounds_follow_from_what_was_waited_for_and_read() {
        let stats = SlotStats {
            hits: 150,
            came_true: 10,
            misses: 50,
            missed_bytes: 50 << 20,
            came_true_bytes: 10 << 20,
            wait_time: Duration::from_millis(600),
            ..SlotStats::default()
        };
        // 200 experts are 20 tokens of 10; 3 MB a token of a disk of 60 MB/s are 50 ms, and of the
        // 80 ms that a token took 30 were waited for.
        let disk = Some(60.0 * f64::from(1 << 20));
        let reads = ExpertReads { stats, used_per_token: 10, disk_bytes_per_second: disk, pace: 12.5 };
        assert_eq!((reads.hit_rate(), reads.ahead_rate()), (0.7, 0.05));
        assert!((reads.missed_bytes_per_token() - f64::from(3 << 20)).abs() < 1e-6);
        let [both, one] = reads.bounds().unwrap();
        assert!((both.tokens_per_second - 20.0).abs() < 1e-6 && (both.share - 0.625).abs() < 1e-9, "{both:?}");
        assert!((one.tokens_per_second - 10.0).abs() < 1e-6 && (one.share - 1.25).abs() < 1e-9, "{one:?}");
        let text = reads.text();
        assert!(text.starts_with("70% of 200 in memory, 5% read ahead; 3.00 MB a token from the disk"), "{text}");
        assert!(text.contains("62% of what disk and processor allow"), "{text}");
        let nothing = ExpertReads { stats: SlotStats::default(), ..reads };
        assert!(nothing.bounds().is_none() && !nothing.text().contains("NaN"), "{}", nothing.text());
    }
}
