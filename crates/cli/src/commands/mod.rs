//! One file a sub-command.

pub mod bench;
pub mod inspect;
pub mod score;
pub mod tokenize;

/// `-device list`: the GPUs, each with the number by which -device takes it.
pub fn devices() -> String {
    let all = modelembed::gpu_adapters();
    if all.is_empty() {
        return "no GPU found through Vulkan, Metal or Direct3D 12\n".to_string();
    }
    all.iter().map(|line| format!("{line}\n")).collect()
}
