//! One file a sub-command; `parts` and `scan` are what some of them share.

pub mod bench;
mod chart;
pub mod compare;
mod cost;
mod ids;
pub mod inspect;
pub mod pack;
mod parts;
pub mod plan;
mod scan;
pub mod score;
pub mod serve;
pub mod status;
pub mod synthetic;
pub mod tokenize;
pub mod verify;
pub mod warm;

use crate::resolve::Format;
use serde_json::json;

/// `-device list`: the GPUs, each with the number by which -device takes it.
pub fn devices(format: Format) -> String {
    let all = modelembed::gpu_adapters();
    if format == Format::Json {
        let object = |a: &modelembed::GpuAdapter| json!({"index": a.index, "name": a.name, "backend": a.backend, "kind": a.kind});
        let objects: Vec<_> = all.iter().map(object).collect();
        return format!("{}\n", json!({"devices": objects}));
    }
    if all.is_empty() {
        return "no GPU found through Vulkan, Metal or Direct3D 12\n".to_string();
    }
    all.iter().map(|adapter| format!("{adapter}\n")).collect()
}
