//! Copying a model to a GPU leaves no pages of its file in the process. A binary of its own, since
//! other tests would map files meanwhile.
#![cfg(all(feature = "gpu", target_os = "linux"))]

#[path = "it/common.rs"]
mod common;

use common::{gpu_device, gpu_options};
use modelembed::{GpuLayers, Model};
use modelembed_testkit::{SMOLLM2, real_model};

#[test]
fn pages_of_the_file_are_given_back_behind_the_copy() {
    let (Some(device), Some(path)) = (gpu_device(), real_model(SMOLLM2)) else { return };
    // Pages of files in the process, in bytes.
    let resident = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("a status");
        let line = status.lines().find(|line| line.starts_with("RssFile:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") << 10
    };
    let (mut at_first, mut most, mut total_bytes) = (None, 0, 0);
    let mut progress = |p: modelembed_storage::Progress| {
        at_first.get_or_insert_with(resident);
        most = most.max(resident());
        total_bytes = p.total_bytes;
        std::ops::ControlFlow::Continue(())
    };
    Model::load_with_progress(&path, &gpu_options(&device, GpuLayers::All), &mut progress).expect("loads");
    let grown = most.saturating_sub(at_first.expect("progress"));
    assert!(total_bytes > 64 << 20 && grown < total_bytes / 3, "{grown} bytes more while copying {total_bytes}");
}
