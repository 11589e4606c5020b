//! The table of `-timing`: where a token's time went, job by job.

use modelembed::{Job, JobTime, PhaseTiming, Timing};
use serde_json::{Value, json};
use std::fmt::Write;

fn phases(timing: &Timing) -> [(&'static str, &PhaseTiming); 2] {
    [("Prompt", &timing.prompt), ("Decode", &timing.decode)]
}

/// One table for each phase in which something was evaluated.
pub fn text(timing: &Timing) -> String {
    let mut out = String::new();
    for (name, phase) in phases(timing).into_iter().filter(|(_, phase)| phase.tokens > 0) {
        let total = phase.total();
        let _ = writeln!(out, "{name} timing, {} tokens:      us/token   share   waiting", phase.tokens);
        let mut line = |label: &str, time: JobTime| {
            let us = |time: std::time::Duration| time.as_secs_f64() * 1e6 / phase.tokens as f64;
            let share = 100.0 * time.elapsed.as_secs_f64() / total.elapsed.as_secs_f64().max(1e-9);
            let _ = writeln!(out, "  {label:<20} {:>12.1} {share:>6.1}% {:>9.1}", us(time.elapsed), us(time.waited));
        };
        for job in Job::ALL {
            line(job.name(), phase.of(job));
        }
        line("all", total);
    }
    out
}

/// The same for programs: microseconds of the whole phase.
pub fn json(timing: &Timing) -> Value {
    let us = |time: JobTime| json!({"elapsed_us": time.elapsed.as_secs_f64() * 1e6, "waited_us": time.waited.as_secs_f64() * 1e6});
    let phase = |phase: &PhaseTiming| {
        let jobs: serde_json::Map<String, Value> =
            Job::ALL.iter().map(|&job| (job.name().to_string(), us(phase.of(job)))).collect();
        json!({"tokens": phase.tokens, "jobs": jobs, "all": us(phase.total())})
    };
    json!({"prompt": phase(&timing.prompt), "decode": phase(&timing.decode)})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_table_has_each_job_and_only_phases_that_were() {
        let mut timing = Timing::default();
        timing.decode.tokens = 10;
        let time = |us| JobTime { elapsed: Duration::from_micros(us), waited: Duration::from_micros(us / 10) };
        timing.decode.jobs[Job::Head as usize] = time(3000);
        timing.decode.jobs[Job::Qkv as usize] = time(1000);
        let text = text(&timing);
        assert!(!text.contains("Prompt") && text.contains("Decode timing, 10 tokens"), "{text}");
        let line = |label: &str| text.lines().find(|line| line.trim_start().starts_with(label)).map(str::to_string);
        assert_eq!(line("head").as_deref(), Some("  head                        300.0   75.0%      30.0"));
        assert_eq!(line("all").as_deref(), Some("  all                         400.0  100.0%      40.0"));
        assert!(Job::ALL.iter().all(|job| line(job.name()).is_some()), "{text}");
        assert_eq!(json(&timing)["decode"]["jobs"]["qkv"]["elapsed_us"], 1000.0);
    }
}
