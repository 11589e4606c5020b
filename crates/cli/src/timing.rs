//! The table of `-timing`: where a token's time went, stage by stage.

use modelembed::{PhaseTiming, Stage, StageTime, Timing};
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
        // A column that says nothing is left out.
        let on_gpu = if total.on_gpu.is_zero() { "" } else { "    on GPU" };
        let _ = writeln!(out, "{name} timing, {} tokens:      us/token   share   waiting{on_gpu}", phase.tokens);
        let mut line = |label: &str, time: StageTime| {
            let us = |time: std::time::Duration| time.as_secs_f64() * 1e6 / phase.tokens as f64;
            let share = 100.0 * time.elapsed.as_secs_f64() / total.elapsed.as_secs_f64().max(1e-9);
            let _ = write!(out, "  {label:<20} {:>12.1} {share:>6.1}% {:>9.1}", us(time.elapsed), us(time.waited));
            let _ = if on_gpu.is_empty() { writeln!(out) } else { writeln!(out, " {:>9.1}", us(time.on_gpu)) };
        };
        let is_there = |stage: &Stage| *stage != Stage::Gpu || !phase.of(Stage::Gpu).elapsed.is_zero();
        for stage in Stage::ALL.into_iter().filter(is_there) {
            line(stage.name(), phase.of(stage));
        }
        line("all", total);
    }
    out
}

/// The same for programs: microseconds of the whole phase.
pub fn json(timing: &Timing) -> Value {
    let us = |time: StageTime| {
        let [elapsed, waited, on_gpu] = [time.elapsed, time.waited, time.on_gpu].map(|time| time.as_secs_f64() * 1e6);
        json!({"elapsed_us": elapsed, "waited_us": waited, "on_gpu_us": on_gpu})
    };
    let phase = |phase: &PhaseTiming| {
        let stages: serde_json::Map<String, Value> =
            Stage::ALL.iter().map(|&stage| (stage.name().to_string(), us(phase.of(stage)))).collect();
        json!({"tokens": phase.tokens, "jobs": stages, "all": us(phase.total())})
    };
    json!({"prompt": phase(&timing.prompt), "decode": phase(&timing.decode)})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_table_has_each_stage_and_only_phases_that_were() {
        let mut timing = Timing::default();
        timing.decode.tokens = 10;
        let time = |us| StageTime {
            elapsed: Duration::from_micros(us),
            waited: Duration::from_micros(us / 10),
            ..StageTime::default()
        };
        timing.decode.stages[Stage::Head as usize] = time(3000);
        timing.decode.stages[Stage::Qkv as usize] = time(1000);
        let text = text(&timing);
        assert!(!text.contains("Prompt") && text.contains("Decode timing, 10 tokens"), "{text}");
        let line = |label: &str| text.lines().find(|line| line.trim_start().starts_with(label)).map(str::to_string);
        assert_eq!(line("head").as_deref(), Some("  head                        300.0   75.0%      30.0"));
        assert_eq!(line("all").as_deref(), Some("  all                         400.0  100.0%      40.0"));
        assert!(Stage::ALL.iter().all(|stage| line(stage.name()).is_some() != (*stage == Stage::Gpu)), "{text}");
        assert!(!text.contains("on GPU"), "{text}");
        timing.decode.stages[Stage::Head as usize].on_gpu = Duration::from_micros(2500);
        let text = super::text(&timing);
        assert!(
            text.contains("on GPU\n")
                && text.contains("  head                        300.0   75.0%      30.0     250.0\n"),
            "{text}"
        );
        assert_eq!(json(&timing)["decode"]["jobs"]["qkv"]["elapsed_us"], 1000.0);
    }
}
