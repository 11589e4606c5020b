//! `/metrics`: the text format of Prometheus, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use modelembed_serve::{Limits, Status};

/// Bounds of the buckets of times, in seconds: from a token of a small model to a long answer.
const BOUNDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// What the server counts itself; the scheduler has its own counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// From a request to its first token.
    pub first_token: Histogram,
    /// From a token to the next one.
    pub next_token: Histogram,
    /// From a request to the end of its answer.
    pub whole: Histogram,
    /// Requests by endpoint and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

impl Metrics {
    /// Counts an answer of this status by this endpoint.
    pub fn request(&self, endpoint: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((endpoint, status)).or_insert(0) += 1;
    }

    /// All figures, by our own names and by those that routers of vLLM servers read.
    pub fn text(&self, status: &Status, limits: Limits, model: &str) -> String {
        let mut text = Text { out: String::with_capacity(8192), model: label(model) };
        let totals = status.totals;
        text.gauge("modelembed_requests_running", "Answers that are being written.", status.running as f64);
        text.gauge("modelembed_requests_prompt", "Requests whose prompts are computed.", status.prompts as f64);
        text.gauge("modelembed_requests_queued", "Requests that wait.", status.queued as f64);
        text.gauge("modelembed_kv_pages_used", "Pages of keys and values in use.", status.pages_used as f64);
        text.gauge("modelembed_kv_pages_cached", "Pages of kept prefixes.", status.pages_cached as f64);
        text.gauge("modelembed_kv_pages", "Pages of keys and values there are.", status.pages_total as f64);
        text.gauge("modelembed_step_seconds", "How long the last step took.", status.step.as_secs_f64());
        text.gauge("modelembed_since_step_seconds", "Since the last step.", status.since_step.as_secs_f64());
        for (name, help, n) in [
            ("requests_accepted", "Requests that became answers.", totals.accepted),
            ("requests_refused", "Requests that were refused.", totals.refused),
            ("requests_finished", "Answers that ended by themselves.", totals.finished),
            ("requests_cancelled", "Answers whose clients left.", totals.cancelled),
            ("requests_slow", "Answers whose clients did not read.", totals.slow),
            ("requests_failed", "Answers that failed.", totals.failed),
            ("requests_preempted", "Answers that went back to the queue.", totals.preempted),
            ("prompt_tokens", "Tokens of prompts.", totals.prompt_tokens),
            ("cached_tokens", "Tokens of prompts that were there.", totals.cached_tokens),
            ("computed_tokens", "Rows of prompts that were computed.", totals.computed_tokens),
            ("completion_tokens", "Tokens of answers.", totals.completion_tokens),
            ("steps", "Steps.", totals.steps),
            ("evicted_pages", "Pages that left the tree of prefixes.", totals.evicted_pages),
        ] {
            text.counter(&format!("modelembed_{name}_total"), help, n);
        }
        text.histogram("modelembed_first_token_seconds", "From a request to its first token.", &self.first_token);
        text.histogram("modelembed_next_token_seconds", "From a token to the next.", &self.next_token);
        text.histogram("modelembed_request_seconds", "From a request to the answer's end.", &self.whole);
        text.head("modelembed_http_requests_total", "Requests by endpoint and status.", "counter");
        for ((endpoint, status), n) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            text.line(
                "modelembed_http_requests_total",
                &format!("endpoint=\"{endpoint}\",status=\"{status}\""),
                *n as f64,
            );
        }
        let used = status.pages_used as f64 / (status.pages_total as f64).max(1.0);
        text.gauge(
            "vllm:num_requests_running",
            "Requests that are computed.",
            (status.running + status.prompts) as f64,
        );
        text.gauge("vllm:num_requests_waiting", "Requests that wait.", status.queued as f64);
        text.gauge("vllm:kv_cache_usage_perc", "Share of pages in use, 0 to 1.", used);
        text.gauge("vllm:gpu_cache_usage_perc", "Share of pages in use, 0 to 1.", used);
        text.counter("vllm:gpu_prefix_cache_queries_total", "Tokens of prompts.", totals.prompt_tokens);
        text.counter("vllm:gpu_prefix_cache_hits_total", "Tokens of prompts that were there.", totals.cached_tokens);
        text.head("vllm:cache_config_info", "Size of a page in tokens, and pages.", "gauge");
        let config = format!("block_size=\"{}\",num_gpu_blocks=\"{}\"", limits.page_tokens, status.pages_total);
        text.line("vllm:cache_config_info", &config, 1.0);
        text.out
    }
}

/// A value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct Text {
    out: String,
    model: String,
}

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: f64) {
        let comma = if labels.is_empty() { "" } else { "," };
        let _ = writeln!(self.out, "{name}{{model_name=\"{}\"{comma}{labels}}} {value}", self.model);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.line(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, n: u64) {
        self.head(name, help, "counter");
        self.line(name, "", n as f64);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let mut sum = 0;
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bucket, bound) in histogram.buckets.iter().zip(bounds) {
            sum += bucket.load(Ordering::Relaxed);
            self.line(&format!("{name}_bucket"), &format!("le=\"{bound}\""), sum as f64);
        }
        let micros = histogram.micros.load(Ordering::Relaxed);
        self.line(&format!("{name}_sum"), "", micros as f64 / 1e6);
        self.line(&format!("{name}_count"), "", sum as f64);
    }
}

/// Counts of times by how long they were.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_up_to_each_bound() {
        let histogram = Histogram::default();
        for millis in [1, 2, 400_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut text = Text { out: String::new(), model: label("a\"b") };
        text.histogram("h", "Help.", &histogram);
        for line in [
            "h_bucket{model_name=\"a\\\"b\",le=\"0.001\"} 1",
            "h_bucket{model_name=\"a\\\"b\",le=\"0.0025\"} 2",
            "h_bucket{model_name=\"a\\\"b\",le=\"300\"} 2",
            "h_bucket{model_name=\"a\\\"b\",le=\"+Inf\"} 3",
            "h_count{model_name=\"a\\\"b\"} 3",
            "h_sum{model_name=\"a\\\"b\"} 400.003",
        ] {
            assert!(text.out.lines().any(|seen| seen == line), "{line} in {}", text.out);
        }
    }
}
