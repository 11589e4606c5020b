//! Which GPU to use.

use crate::adapter_info::{AdapterInfo, AdapterKind};
use crate::error::{Error, Result};

/// Which adapter is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best one; none that is software.
    #[default]
    Best,
    /// By its place in the list, or else by a part of its name, in any case.
    Named(String),
}

/// All adapters of this machine.
pub fn adapters() -> Vec<AdapterInfo> {
    found().into_iter().map(|(info, _)| info).collect()
}

fn found() -> Vec<(AdapterInfo, wgpu::Adapter)> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    // No debug markers and no validation layer: both are for whoever debugs this crate.
    descriptor.flags = wgpu::InstanceFlags::empty();
    // Beyond what the driver calls free, memory would be the host's, at a tenth of the speed.
    descriptor.memory_budget_thresholds =
        wgpu::MemoryBudgetThresholds { for_resource_creation: Some(95), for_device_loss: None };
    let instance = wgpu::Instance::new(descriptor);
    let all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    all.into_iter()
        .enumerate()
        .map(|(index, adapter)| {
            let info = adapter.get_info();
            let kind = match info.device_type {
                wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
                wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
                wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
                wgpu::DeviceType::Other => AdapterKind::Other,
                wgpu::DeviceType::Cpu => AdapterKind::Software,
            };
            let backend = format!("{:?}", info.backend);
            (AdapterInfo { index, name: info.name, backend, kind }, adapter)
        })
        .collect()
}

pub(crate) fn find(choice: &Choice) -> Result<(AdapterInfo, wgpu::Adapter)> {
    let mut all = found();
    let infos: Vec<_> = all.iter().map(|(info, _)| info.clone()).collect();
    match choose(choice, &infos) {
        Some(at) => Ok(all.swap_remove(at)),
        None => Err(nothing(choice, infos)),
    }
}

/// Whether every kernel can run within an adapter's limits, those of bytes that steps are fitted to
/// not counted.
///
/// # Errors
/// The first that is too small.
pub(crate) fn check_limits(adapter: &AdapterInfo, has: &wgpu::Limits) -> Result<()> {
    let needs = [
        ("number of storage buffers a shader", has.max_storage_buffers_per_shader_stage, 4),
        ("bytes of a uniform buffer", has.max_uniform_buffer_binding_size.min(u64::from(u32::MAX)) as u32, 64),
        // The search for the best logits has 256 threads and 1024 pairs of words.
        ("threads of a workgroup", has.max_compute_invocations_per_workgroup, 256),
        ("threads of a workgroup in a row", has.max_compute_workgroup_size_x, 256),
        ("bytes that a workgroup shares", has.max_compute_workgroup_storage_size, 9 << 10),
        ("number of workgroups in a row", has.max_compute_workgroups_per_dimension, 65535),
    ];
    match needs.into_iter().find(|(_, has, wanted)| has < wanted) {
        None => Ok(()),
        Some((limit, has, wanted)) => {
            let (has, wanted) = (u64::from(has), u64::from(wanted));
            Err(Error::Lacks { adapter: adapter.to_string(), limit, has, wanted })
        }
    }
}

/// The place of the adapter to take.
fn choose(choice: &Choice, infos: &[AdapterInfo]) -> Option<usize> {
    // One device shows up once an interface; Direct3D is the one whose compiler has no subgroups.
    let rank = |info: &AdapterInfo| (info.kind, info.backend == "Dx12", info.index);
    match choice {
        Choice::Best => {
            (0..infos.len()).filter(|&i| infos[i].kind != AdapterKind::Software).min_by_key(|&i| rank(&infos[i]))
        }
        Choice::Named(name) => {
            let by_index = name.parse().ok().filter(|&i: &usize| i < infos.len());
            by_index.or_else(|| {
                let name = name.to_lowercase();
                let matching = (0..infos.len()).filter(|&i| infos[i].name.to_lowercase().contains(&name));
                matching.min_by_key(|&i| rank(&infos[i]))
            })
        }
    }
}

/// What to say where [`choose`] finds none.
fn nothing(choice: &Choice, found: Vec<AdapterInfo>) -> Error {
    match choice {
        _ if found.is_empty() => Error::NoAdapter,
        Choice::Best => Error::OnlySoftware { found },
        Choice::Named(name) => Error::NotNamed { name: name.clone(), found },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(index: usize, name: &str, backend: &str, kind: AdapterKind) -> AdapterInfo {
        AdapterInfo { index, name: name.into(), backend: backend.into(), kind }
    }

    #[test]
    fn the_card_is_preferred_and_software_must_be_named() {
        let soft = info(0, "llvmpipe", "Vulkan", AdapterKind::Software);
        let part = info(1, "UHD Graphics", "Vulkan", AdapterKind::Integrated);
        let dx = info(2, "RTX 4090", "Dx12", AdapterKind::Discrete);
        let card = info(3, "RTX 4090", "Vulkan", AdapterKind::Discrete);
        let all = [soft, part, dx, card];
        let named = |name: &str| Choice::Named(name.into());
        let rows = [
            (Choice::Best, &all[..], Some(3)),
            (Choice::Best, &all[..2], Some(1)),
            (Choice::Best, &all[..1], None),
            (named("LLVM"), &all[..], Some(0)),
            (named("rtx"), &all[..], Some(3)),
            (named("1"), &all[..], Some(1)),
            (named("4090"), &all[..], Some(3)),
            (named("radeon"), &all[..], None),
            (Choice::Best, &[], None),
        ];
        let failed: Vec<_> = rows.iter().filter(|(choice, all, want)| choose(choice, all) != *want).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn without_a_usable_adapter_the_error_lists_what_there_is() {
        let soft = || vec![info(0, "llvmpipe", "Vulkan", AdapterKind::Software)];
        let named = Choice::Named("radeon".into());
        let rows = [
            (
                nothing(&Choice::Best, soft()),
                "looked for a GPU through Vulkan, Metal and Direct3D 12 and found only software on the CPU, which is \
                 slower than CPU layers and is taken only by its name:\n  0: llvmpipe (Vulkan, software)",
            ),
            (
                nothing(&named, soft()),
                "looked for a GPU through Vulkan, Metal and Direct3D 12 and found none that \"radeon\" names:\n  \
                 0: llvmpipe (Vulkan, software)",
            ),
            (
                nothing(&named, Vec::new()),
                "looked for a GPU through Vulkan, Metal and Direct3D 12 and found none: no driver, or none that this \
                 program can load",
            ),
        ];
        let failed: Vec<_> = rows.iter().filter(|(error, text)| error.to_string() != *text).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}
