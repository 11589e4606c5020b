//! Every kernel can be written in the languages of the devices that tests do not have.

use modelembed_gpu::all_sources;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

#[test]
fn every_kernel_can_be_written_in_metals_and_direct3ds_language() {
    let sources = all_sources();
    assert!(sources.len() > 100 && sources.iter().any(|s| s.uses_matrix));
    let mut failures = Vec::new();
    for source in sources {
        let mut fail = |what: &str, why: String| failures.push(format!("{}: {what}: {why}", source.name));
        let module = match naga::front::wgsl::parse_str(&source.text) {
            Ok(module) => module,
            Err(e) => {
                fail("WGSL", e.emit_to_string(&source.text));
                continue;
            }
        };
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        validator.subgroup_stages(naga::valid::ShaderStages::COMPUTE);
        validator.subgroup_operations(naga::valid::SubgroupOperationSet::all());
        let info = match validator.validate(&module) {
            Ok(info) => info,
            Err(e) => {
                fail("validation", e.emit_to_string(&source.text));
                continue;
            }
        };
        let options = msl::Options { lang_version: (3, 0), fake_missing_bindings: true, ..Default::default() };
        if let Err(e) = msl::write_string(&module, &info, &options, &Default::default()) {
            fail("MSL 3.0", e.to_string());
        }
        // What Vulkan takes: that no driver at hand may have what a kernel needs is no reason not
        // to know.
        if let Err(e) = spv::write_vec(&module, &info, &spv::Options::default(), None) {
            fail("SPIR-V", e.to_string());
        }
        let mut versions = vec![hlsl::ShaderModel::V6_4];
        if source.uses_matrix {
            versions.clear();
        } else if !source.uses_subgroups && !source.uses_f16 {
            versions.push(hlsl::ShaderModel::V5_1);
        }
        for shader_model in versions {
            let options = hlsl::Options { shader_model, fake_missing_bindings: true, ..Default::default() };
            let mut text = String::new();
            let pipeline = hlsl::PipelineOptions::default();
            if let Err(e) = hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None) {
                fail("HLSL", format!("{shader_model:?}: {e}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}
