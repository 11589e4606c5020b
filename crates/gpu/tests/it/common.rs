//! The device that tests run on, opened in each of the ways that weak devices impose.

use modelembed_gpu::{Backend, Buffer, Choice, Columns, Gpu, GpuOptions, adapters};

/// The first adapter, software or not, or the one that `$MODELEMBED_TEST_GPU` names. `None`, with
/// the reason on standard error, where there is none.
///
/// # Panics
/// Where there is none and `MODELEMBED_REQUIRE_GPU` is set.
pub fn choice() -> Option<Choice> {
    if let Ok(name) = std::env::var("MODELEMBED_TEST_GPU") {
        return Some(Choice::Named(name));
    }
    if !adapters().is_empty() {
        return Some(Choice::Named("0".into()));
    }
    assert!(std::env::var_os("MODELEMBED_REQUIRE_GPU").is_none(), "no GPU adapter, and MODELEMBED_REQUIRE_GPU is set");
    eprintln!("skipped: no GPU adapter (Debian's mesa-vulkan-drivers and libvulkan1 give one in software)");
    None
}

/// The device in every variant: as it is, with threads that share rows, with subgroups where it has
/// them, with small bindings.
pub fn variants() -> Vec<(&'static str, Gpu)> {
    let Some(choice) = choice() else { return Vec::new() };
    let plain = GpuOptions { choice, subgroups: Some(false), ..GpuOptions::default() };
    [
        ("default", GpuOptions { subgroups: None, ..plain.clone() }),
        ("plain, 16 lanes", GpuOptions { lanes: Some(16), ..plain.clone() }),
        (
            "plain, 64 lanes, 16 MiB bindings",
            GpuOptions { lanes: Some(64), max_binding_bytes: Some(16 << 20), ..plain.clone() },
        ),
        ("subgroups", GpuOptions { subgroups: Some(true), ..plain.clone() }),
        ("plain, 256 KiB bindings", GpuOptions { max_binding_bytes: Some(256 << 10), ..plain }),
    ]
    .into_iter()
    .map(|(name, options)| (name, Gpu::open(&options).unwrap_or_else(|e| panic!("{name}: {e}"))))
    .collect()
}

/// The device as it is.
pub fn gpu() -> Option<Gpu> {
    let options = GpuOptions { choice: choice()?, ..GpuOptions::default() };
    Some(Gpu::open(&options).unwrap_or_else(|e| panic!("{e}")))
}

pub fn bytes_of(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub fn upload(gpu: &Gpu, bytes: &[u8]) -> Buffer {
    let buffer = gpu.alloc("a test", bytes.len() as u64 + 8).expect("memory");
    gpu.write(&buffer, 0, bytes).expect("a write");
    buffer
}

pub fn floats(gpu: &Gpu, buffer: &Buffer, n: usize) -> Vec<f32> {
    let mut bytes = vec![0; n * 4];
    gpu.read(buffer, 0, &mut bytes).expect("a read");
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

pub fn columns(buffer: &Buffer, first: usize, stride: usize) -> Columns<Buffer> {
    Columns { buffer: buffer.clone(), first, stride }
}
