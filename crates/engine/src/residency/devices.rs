//! Which device computes what of a model, as far as it can be told before anything is loaded.

use std::fmt;
use std::ops::Range;

use crate::gpu::GpuPlacement;
use crate::residency::plan::Plan;

/// What one device computes of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceShare {
    /// Its name: the driver's, or CPU.
    pub device: String,
    /// The interface that a GPU is reached by: Vulkan, Metal, Dx12. `None` for the CPU.
    pub backend: Option<String>,
    /// Its layers, counted from 0.
    pub layers: Range<usize>,
    /// Whether it computes the output head.
    pub has_head: bool,
    /// Bytes of weights that it reads for each token.
    pub weight_bytes: u64,
    /// Bytes that keys and values of a full context take there.
    pub kv_bytes: u64,
}

/// What of a model runs where, and what of the CPU's part stays in memory.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// Of the part that the CPU computes.
    pub plan: Plan,
    /// The CPU's share, then that of a GPU where it has one.
    pub devices: Vec<DeviceShare>,
    /// Whatever a user should know, one sentence each.
    pub warnings: Vec<String>,
}

/// The shares of a model of `n_layer` layers, of which a token reads `bytes_per_token`.
pub(crate) fn shares(
    n_layer: usize,
    bytes_per_token: u64,
    cpu_kv_bytes: u64,
    gpu: Option<GpuPlacement>,
) -> Vec<DeviceShare> {
    let (first_on_gpu, has_head, gpu_bytes) =
        gpu.as_ref().map_or((n_layer, true, 0), |gpu| (n_layer - gpu.n_layers, !gpu.has_head, gpu.weight_bytes));
    let cpu = DeviceShare {
        device: "CPU".into(),
        backend: None,
        layers: 0..first_on_gpu,
        has_head,
        weight_bytes: bytes_per_token.saturating_sub(gpu_bytes),
        kv_bytes: cpu_kv_bytes,
    };
    let gpu = gpu.map(|gpu| DeviceShare {
        device: gpu.adapter,
        backend: Some(gpu.backend),
        layers: first_on_gpu..n_layer,
        has_head: gpu.has_head,
        weight_bytes: gpu.weight_bytes,
        kv_bytes: gpu.kv_bytes,
    });
    [Some(cpu), gpu].into_iter().flatten().collect()
}

/// One line.
impl fmt::Display for DeviceShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / f64::from(1 << 20));
        match (self.layers.len(), self.has_head) {
            (0, true) => write!(f, "the output head")?,
            (0, false) => write!(f, "the token embedding")?,
            (1, _) => write!(f, "layer {}", self.layers.start)?,
            (_, _) => write!(f, "layers {} to {}", self.layers.start, self.layers.end - 1)?,
        }
        if self.has_head && !self.layers.is_empty() {
            write!(f, " and the output head")?;
        }
        write!(f, " on {}", self.device)?;
        if let Some(backend) = &self.backend {
            write!(f, " ({backend})")?;
        }
        write!(f, ": {} of weights, {} of keys and values", mb(self.weight_bytes), mb(self.kv_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn gpu(n_layers: usize, has_head: bool) -> Option<GpuPlacement> {
        Some(GpuPlacement {
            adapter: "Card".into(),
            backend: "Vulkan".into(),
            n_layers,
            has_head,
            weight_bytes: 10 * MB * n_layers as u64 + if has_head { 7 * MB } else { 0 },
            kv_bytes: 2 * MB * n_layers as u64,
        })
    }

    #[test]
    fn every_layer_and_the_head_are_somewhere_and_once() {
        let on_cpu = " on CPU: ";
        let rows = [
            (None, vec!["layers 0 to 5 and the output head on CPU: 68.0 MB of weights, 12.0 MB of keys and values"]),
            (
                gpu(1, false),
                vec!["layers 0 to 4 and the output head on CPU: 58.0 MB", "layer 5 on Card (Vulkan): 10.0 MB"],
            ),
            (
                gpu(5, false),
                vec!["layer 0 and the output head on CPU: 18.0 MB", "layers 1 to 5 on Card (Vulkan): 50.0 MB"],
            ),
            (gpu(6, false), vec!["the output head on CPU: 8.0 MB", "layers 0 to 5 on Card (Vulkan): 60.0 MB"]),
            (
                gpu(6, true),
                vec![
                    "the token embedding on CPU: 1.0 MB",
                    "layers 0 to 5 and the output head on Card (Vulkan): 67.0 MB of weights, 12.0 MB of keys and values",
                ],
            ),
        ];
        for (gpu, want) in rows {
            let n_on_cpu = 6 - gpu.as_ref().map_or(0, |gpu| gpu.n_layers) as u64;
            let shares = shares(6, 68 * MB, 2 * MB * n_on_cpu, gpu);
            let lines: Vec<String> = shares.iter().map(ToString::to_string).collect();
            assert!(lines.len() == want.len() && lines.iter().zip(&want).all(|(l, w)| l.starts_with(w)), "{lines:?}");
            assert!(lines[0].contains(on_cpu));
            assert_eq!(shares.iter().map(|s| s.weight_bytes).sum::<u64>(), 68 * MB);
            assert_eq!(shares.iter().map(|s| s.kv_bytes).sum::<u64>(), 12 * MB);
            assert_eq!(shares.iter().filter(|s| s.has_head).count(), 1);
        }
    }
}
