//! What running a model here will be like: from sizes, and from how fast the disk and the memory
//! are.

use std::fmt;

use modelembed_storage::LoadMode;

use crate::residency::devices::DeviceShare;
use crate::residency::plan::{Plan, Verdict};

/// A forecast; pure arithmetic on what was measured.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// What of the CPU's part stays in memory. Its speeds are those that were measured.
    pub plan: Plan,
    /// What each device computes, the CPU first.
    pub devices: Vec<DeviceShare>,
    /// How the model would be loaded.
    pub mode: LoadMode,
    /// Bytes of the model that the page cache holds, where that is known.
    pub cached_bytes: Option<u64>,
}

impl Forecast {
    /// Whether the model can run this way. A private copy must fit as a whole.
    pub fn verdict(&self) -> Verdict {
        let for_copy = self.plan.budget_bytes.saturating_sub(self.plan.other_bytes);
        match (self.mode, self.plan.verdict) {
            (LoadMode::Buffer | LoadMode::File, Verdict::Streams) => Verdict::Impossible,
            (LoadMode::Buffer | LoadMode::File, Verdict::Fits) if self.all_bytes() > for_copy => Verdict::Impossible,
            (_, verdict) => verdict,
        }
    }

    /// Bytes of weights of all devices.
    fn all_bytes(&self) -> u64 {
        self.plan.weight_bytes + self.gpu_bytes()
    }

    /// Bytes of weights in the memory of a GPU.
    fn gpu_bytes(&self) -> u64 {
        self.devices.iter().filter(|share| share.backend.is_some()).map(|share| share.weight_bytes).sum()
    }

    /// Bytes that the disk has to give before the first token is complete: all weights once,
    /// without those that are in memory and will stay there or go from there to a GPU. `None` if
    /// that is unknown.
    pub fn first_read_bytes(&self) -> Option<u64> {
        let stays = self.cached_bytes?.min(self.plan.resident_bytes() + self.gpu_bytes());
        Some(self.all_bytes() - stays.min(self.all_bytes()))
    }

    /// How long that takes; `None` where the disk's speed is unknown and something is to be read.
    pub fn first_read_seconds(&self) -> Option<f64> {
        match self.first_read_bytes()? {
            0 => Some(0.0),
            bytes => self.plan.disk_bytes_per_second.filter(|speed| *speed > 0.0).map(|speed| bytes as f64 / speed),
        }
    }

    /// An upper bound, from the slower of memory and disk; arithmetic comes on top, and the time of
    /// a GPU. `None` where either is unknown, or all layers are on a GPU.
    pub fn tokens_per_second(&self) -> Option<f64> {
        match self.verdict() {
            Verdict::Impossible => None,
            _ => self.plan.tokens_per_second(),
        }
    }
}

/// Some lines: the plan, which device computes what if the CPU does not do all, what it takes to
/// load, how fast it can be, and what that rests on.
impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / f64::from(1 << 20));
        let gb = |speed: f64| format!("{:.2} GB/s", speed / 1e9);
        match (self.verdict(), self.plan.verdict) {
            (Verdict::Impossible, Verdict::Streams | Verdict::Fits) => write!(
                f,
                "Plan: impossible: a private copy of {} does not fit into {} of memory; a mapped model needs no copy",
                mb(self.all_bytes()),
                mb(self.plan.budget_bytes)
            )?,
            _ => write!(f, "Plan: {}", self.plan)?,
        }
        if self.verdict() == Verdict::Impossible {
            return Ok(());
        }
        if self.gpu_bytes() > 0 {
            self.devices.iter().try_for_each(|share| write!(f, "\nDevice: {share}"))?;
        }
        match (self.first_read_bytes(), self.first_read_seconds()) {
            (Some(0), _) => write!(f, "\nLoad: nothing to read, all of it is in memory")?,
            (Some(bytes), Some(seconds)) => {
                write!(f, "\nLoad: {} to read before the first token is complete, about {seconds:.2} s", mb(bytes))?;
            }
            (Some(bytes), None) => write!(f, "\nLoad: {} to read before the first token is complete", mb(bytes))?,
            (None, _) => write!(f, "\nLoad: the system does not tell what is in memory")?,
        }
        match self.tokens_per_second() {
            Some(speed) if self.gpu_bytes() > 0 => {
                write!(f, "\nSpeed: up to about {speed:.1} tokens/s, of the CPU's part alone")?;
            }
            Some(speed) => write!(f, "\nSpeed: up to about {speed:.1} tokens/s")?,
            None => write!(f, "\nSpeed: unknown")?,
        }
        let known = |speed: Option<f64>| speed.map_or("unknown".into(), gb);
        let (memory, disk) = (self.plan.memory_bytes_per_second, self.plan.disk_bytes_per_second);
        write!(f, " (memory reads {}, the disk {})", known(memory), known(disk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::residency::plan::{PlanInput, RamBudget};

    const MB: u64 = 1 << 20;

    /// A model of 20 blocks of 50 MB on a machine that may use `ram_mb`, with a memory of 10 GB/s
    /// and a disk of `disk` bytes a second.
    fn machine(ram_mb: u64, disk: Option<f64>, cached_mb: Option<u64>, mode: LoadMode) -> Forecast {
        let mut plan = Plan::new(&PlanInput {
            unit_bytes: vec![50 * MB; 20],
            streamable_bytes: vec![50 * MB; 20],
            budget: RamBudget::Bytes(ram_mb * MB),
            n_windows: 3,
            memory_bytes_per_second: Some(1e10),
            ..PlanInput::default()
        });
        plan.disk_bytes_per_second = disk;
        Forecast { plan, devices: Vec::new(), mode, cached_bytes: cached_mb.map(|n| n * MB) }
    }

    #[test]
    fn a_model_that_fits_is_bound_by_memory() {
        let cold = machine(2000, Some(5e8), Some(0), LoadMode::Map);
        assert_eq!((cold.verdict(), cold.first_read_bytes()), (Verdict::Fits, Some(1000 * MB)));
        assert!((cold.first_read_seconds().unwrap() - 1000.0 * MB as f64 / 5e8).abs() < 1e-9);
        assert!((cold.tokens_per_second().unwrap() - 1e10 / (1000.0 * MB as f64)).abs() < 1e-9);
        let warm = machine(2000, None, Some(1000), LoadMode::Map);
        assert_eq!(warm.first_read_seconds(), Some(0.0));
        assert!(warm.to_string().contains("Load: nothing to read"), "{warm}");
        // The cache may hold the header too.
        assert_eq!(machine(2000, None, Some(1001), LoadMode::Map).first_read_bytes(), Some(0));
        assert_eq!(machine(2000, None, Some(10), LoadMode::Map).first_read_seconds(), None);
        assert_eq!(machine(2000, Some(1e9), None, LoadMode::Map).first_read_seconds(), None);
    }

    #[test]
    fn a_model_that_streams_is_bound_by_the_disk_and_reads_all_once() {
        let f = machine(800, Some(1e9), Some(1000), LoadMode::Map);
        let streamed = f.plan.streamed_per_token();
        assert!(f.verdict() == Verdict::Streams && streamed > 200 * MB);
        assert_eq!(f.first_read_bytes(), Some(streamed));
        assert!((f.tokens_per_second().unwrap() - 1e9 / streamed as f64).abs() < 1e-9);
        let text = f.to_string();
        assert!(
            text.starts_with("Plan: streams ") && text.contains("\nSpeed: up to about ") && text.lines().count() == 3
        );
        assert_eq!(machine(800, None, None, LoadMode::Map).tokens_per_second(), None);
    }

    #[test]
    fn a_private_copy_does_not_stream() {
        for mode in [LoadMode::Buffer, LoadMode::File] {
            assert_eq!(machine(2000, None, None, mode).verdict(), Verdict::Fits);
            let f = machine(800, Some(1e9), Some(0), mode);
            assert_eq!((f.verdict(), f.tokens_per_second()), (Verdict::Impossible, None));
            assert!(f.to_string().contains("a mapped model needs no copy"), "{f}");
        }
        let f = machine(1, Some(1e9), Some(0), LoadMode::Map);
        assert!(f.verdict() == Verdict::Impossible && f.to_string().lines().count() == 1);
    }

    #[test]
    fn layers_on_a_gpu_are_read_once_and_need_no_memory_here_unless_they_are_copied() {
        let with_gpu = |ram_mb, cached_mb, mode| {
            let mut f = machine(ram_mb, Some(5e8), Some(cached_mb), mode);
            let share = |device: &str, backend: Option<&str>, layers, mb: u64| DeviceShare {
                device: device.into(),
                backend: backend.map(Into::into),
                layers,
                has_head: backend.is_some(),
                weight_bytes: mb * MB,
                kv_bytes: 0,
            };
            f.devices = vec![share("CPU", None, 0..20, 1000), share("Card", Some("Metal"), 20..24, 300)];
            f
        };
        let cold = with_gpu(1200, 0, LoadMode::Map);
        assert_eq!((cold.verdict(), cold.first_read_bytes()), (Verdict::Fits, Some(1300 * MB)));
        assert_eq!(with_gpu(1200, 1300, LoadMode::Map).first_read_bytes(), Some(0));
        let text = cold.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("Device: layers 0 to 19 on CPU: ") && lines[2].contains(" on Card (Metal): "),
            "{text}"
        );
        assert!(lines[4].contains(" tokens/s, of the CPU's part alone (memory reads "), "{text}");
        // A private copy is of the whole model.
        assert_eq!(with_gpu(1200, 0, LoadMode::Buffer).verdict(), Verdict::Impossible);
        assert!(
            with_gpu(1200, 0, LoadMode::File).to_string().contains("copy of 1300.0 MB does not fit into 1200.0 MB")
        );
        assert_eq!(with_gpu(1400, 0, LoadMode::File).verdict(), Verdict::Fits);
    }
}
