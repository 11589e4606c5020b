//! Programs of the architectures that run, and which part of the others does not.

use std::collections::{HashMap, HashSet};

use modelembed_gguf::{Gguf, TensorInfo};
use modelembed_spec::{ARCHITECTURES, Directory, Error, Planned, Program, Step, TensorId};

use crate::families;
use crate::mixtures;
use crate::models::{self, Model, shapes};

fn planned(model: &Model, n_vocab: usize, has: &dyn Fn(&str) -> bool) -> Result<Program, Error> {
    Program::new(&model.read().unwrap(), Directory::Planned(Planned { n_vocab, has }))
}

fn of_file(model: &Model, gguf: &Gguf) -> Result<Program, Error> {
    let by_name: HashMap<&str, &TensorInfo> = gguf.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
    Program::new(&model.read().unwrap(), Directory::Of(&by_name))
}

/// Whether a model's architecture runs.
fn runs(model: &Model) -> bool {
    ARCHITECTURES.iter().any(|arch| arch.name == model.arch && arch.runs)
}

/// Names of the tensors of layer 1, without the layer.
fn of_layer_1(program: &Program) -> Vec<&str> {
    program.tensors().iter().filter(|want| want.layer == Some(1)).map(|want| want.part()).collect()
}

#[test]
fn programs_are_as_the_models_compute() {
    let tied: fn(&str) -> bool = |_| false;
    let cases = [
        ("program-llama", models::llama(), 128_256, tied),
        ("program-qwen2", models::qwen2(), 151_936, tied),
        ("program-qwen3", models::qwen3(), 151_936, tied),
        ("program-gemma3", models::gemma3(), 262_144, tied),
        ("program-phi3", models::phi3(), 200_064, |name| name.ends_with("attn_qkv.weight")),
        ("program-olmo2", models::olmo2(), 100_278, |name| name == "output.weight"),
        ("program-command-r", models::command_r(), 256_000, tied),
        ("program-gemma2", models::gemma2(), 256_000, tied),
        ("program-falcon-h1", models::falcon_h1(), 32_784, |name| name.ends_with("ssm_conv1d.bias")),
        ("program-nemotron_h", models::nemotron_h(), 131_072, |name| {
            name == "output.weight" || name.ends_with("ssm_conv1d.bias")
        }),
        ("program-nemotron_h_moe", models::nemotron_h_moe(), 131_072, |name| {
            name == "output.weight" || name.ends_with("ssm_conv1d.bias")
        }),
        ("program-gemma4", models::gemma4(), 262_144, |name| {
            name.ends_with("attn_v.weight") || name.ends_with("layer_output_scale.weight")
        }),
        ("program-gemma4-moe", models::gemma4_moe(), 262_144, |name| {
            let of_layer = |il: usize| name.starts_with(&format!("blk.{il}."));
            let is_value = name.ends_with("attn_v.weight") && !(0..30).filter(|il| il % 6 == 5).any(of_layer);
            is_value || ["scale.weight", "gate_up_exps.weight", "exps.scale"].iter().any(|end| name.ends_with(end))
        }),
        ("program-qwen35moe", models::qwen35moe(), 248_320, |name| name == "output.weight"),
        ("program-lfm2moe", models::lfm2moe(), 65_536, tied),
        ("program-qwen3moe", models::qwen3moe(), 151_936, |name| name == "output.weight"),
        ("program-granite", families::granite(), 49_159, tied),
        ("program-cohere2", families::cohere2(), 256_000, tied),
        ("program-glm4", families::glm4(), 151_552, |name| name == "output.weight"),
        ("program-mistral3", families::mistral3(), 131_072, |name| name == "output.weight"),
        ("program-hunyuan-dense", families::hunyuan_dense(), 120_818, tied),
        ("program-olmo", families::olmo(), 50_304, |name| name == "output.weight"),
        ("program-gpt2", families::gpt2(), 50_257, |name| name.ends_with("attn_qkv.weight")),
        ("program-falcon", families::falcon(), 65_024, |name| {
            name == "output.weight" || name.ends_with("attn_qkv.weight") || name.ends_with("attn_norm_2.weight")
        }),
        ("program-stablelm", families::stablelm(), 100_352, |name| {
            name == "output.weight" || name.ends_with("attn_q_norm.weight")
        }),
        ("program-apertus", families::apertus(), 131_072, |name| name == "output.weight"),
        ("program-bloom", families::bloom(), 250_880, |name| name.ends_with("attn_qkv.weight")),
        ("program-dbrx", families::dbrx(), 100_352, |name| {
            name == "output.weight" || name.ends_with("attn_qkv.weight")
        }),
        ("program-qwen3next", mixtures::qwen3next(), 151_936, |name| name == "output.weight"),
        ("program-granitehybrid", mixtures::granitehybrid(), 100_352, |name| name.ends_with("ssm_conv1d.bias")),
        ("program-mamba", mixtures::mamba(), 50_280, tied),
        ("program-jamba", mixtures::jamba(), 65_536, |name| {
            let has_experts =
                (0..32).filter(|il| il % 2 == 1).any(|il| name == format!("blk.{il}.ffn_gate_inp.weight"));
            name == "output.weight" || has_experts
        }),
        ("program-afmoe", mixtures::afmoe(), 200_192, |name| name == "output.weight"),
        ("program-smallthinker", mixtures::smallthinker(), 151_936, tied),
        ("program-gemma3n", models::gemma3n(), 262_144, tied),
        ("program-llama4", mixtures::llama4(), 202_048, |name| name == "output.weight"),
        ("program-step35", mixtures::step35(), 128_896, |name| {
            let is_dense = (0..3).any(|il| name == format!("blk.{il}.ffn_gate_inp.weight"));
            let ends = ["ffn_gate_inp.weight", "attn_q_norm.weight", "exp_probs_b.bias"];
            name == "output.weight" || ends.iter().any(|end| name.ends_with(end)) && !is_dense
        }),
        ("program-minicpm3", mixtures::minicpm3(), 73_448, tied),
        ("program-gpt-oss", models::gpt_oss(), 201_088, |name| name == "output.weight"),
    ];
    for (name, model, n_vocab, has) in cases {
        let program = planned(&model, n_vocab, &has).unwrap();
        assert_eq!(program.has_tied_head(), !has("output.weight"), "{name}");
        crate::assert_golden(name, &program.describe(&model.read().unwrap()));
    }
}

#[test]
fn every_architecture_that_runs_compiles_and_every_other_names_its_part() {
    for (name, model) in models::all() {
        let arch = ARCHITECTURES.iter().find(|arch| arch.name == model.arch).unwrap();
        match planned(&model, 1000, &|_| false) {
            Ok(program) => assert!(arch.runs && program.n_layer() > 0, "{name}"),
            Err(Error::NotRun { arch: of, .. }) => assert!(!arch.runs && of == arch.name, "{name}"),
            Err(other) => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn the_part_that_does_not_run_is_named() {
    let cases = [
        (models::deepseek2(), "latent attention"),
        (models::deepseek4(), "several residual streams"),
        (models::bert(), "learned embeddings of segments"),
        (models::t5(), "an encoder"),
    ];
    for (model, part) in cases {
        let error = planned(&model, 1000, &|_| false).unwrap_err();
        assert_eq!(error.to_string(), format!("unsupported: {part} (architecture {})", model.arch));
    }
}

#[test]
fn a_planned_file_has_what_it_must_and_what_it_is_to_have() {
    let bare = planned(&models::llama(), 1000, &|_| false).unwrap();
    assert_eq!(
        of_layer_1(&bare),
        [
            "attn_q.weight",
            "attn_k.weight",
            "attn_v.weight",
            "attn_output.weight",
            "attn_norm.weight",
            "ffn_gate.weight",
            "ffn_up.weight",
            "ffn_down.weight",
            "ffn_norm.weight"
        ]
    );
    let with = planned(&models::llama(), 1000, &|name| {
        name.ends_with(".bias") || matches!(name, "output.weight" | "rope_freqs.weight")
    })
    .unwrap();
    assert!(!with.has_tied_head() && bare.has_tied_head());
    let shape = |program: &Program, name: &str| {
        program.tensors().iter().find(|want| want.name == name).map(|want| want.dims.clone())
    };
    assert_eq!(shape(&with, "output.weight"), Some(vec![2048, 1000]));
    assert_eq!(shape(&with, "rope_freqs.weight"), Some(vec![32]));
    assert_eq!(shape(&with, "blk.0.attn_k.bias"), Some(vec![512]));
    assert_eq!(shape(&bare, "blk.0.attn_k.bias"), None);
    // Qwen 2 must have these.
    let qwen2 = planned(&models::qwen2(), 1000, &|_| false).unwrap();
    assert_eq!(shape(&qwen2, "blk.0.attn_k.bias"), Some(vec![128]));
}

#[test]
fn a_layer_that_shares_keys_and_values_may_hold_the_matrices_of_its_own() {
    let model = models::gemma4();
    let program = planned(&model, 1000, &|_| false).unwrap();
    let leftovers = |il: usize| {
        let mut tensors = shapes(program.tensors());
        tensors.push((format!("blk.{il}.attn_v.weight"), vec![1536, 512]));
        program.check_leftovers(model.gguf(&tensors).tensors().iter())
    };
    assert_eq!(leftovers(19), Ok(()));
    let name = "blk.14.attn_v.weight".to_owned();
    assert_eq!(leftovers(14), Err(Error::UnusedTensor { name, arch: "gemma4" }));
}

#[test]
fn a_segment_reads_each_of_its_tensors_once() {
    let fused: fn(&str) -> bool = |name| name.ends_with("attn_qkv.weight") || name.ends_with("gate_up_exps.weight");
    // The gate and the up projection of one matrix, keys and values, and those of experts.
    for model in [models::phi3(), models::gemma4(), models::gemma4_moe()] {
        let program = planned(&model, 1000, &fused).unwrap();
        for segment in program.segments() {
            let (mut seen, ids) = (HashSet::new(), segment.tensors().collect::<Vec<_>>());
            let twice: Vec<&str> =
                ids.iter().filter(|id| !seen.insert(**id)).map(|id| &*program.tensor(*id).name).collect();
            assert!(twice.is_empty(), "{twice:?}");
        }
    }
}

#[test]
fn tables_are_looked_up_unless_they_are_the_head() {
    let looked_up = |model: &Model, has: &dyn Fn(&str) -> bool| {
        let program = planned(model, 1000, has).unwrap();
        let names = |id: TensorId| program.tensor(id).name.clone();
        program.tables().filter(|id| program.is_looked_up(*id)).map(names).collect::<Vec<_>>()
    };
    assert_eq!(looked_up(&models::gemma4(), &|_| false), ["per_layer_token_embd.weight"]);
    assert_eq!(looked_up(&models::llama(), &|_| false), [""; 0]);
    assert_eq!(looked_up(&models::llama(), &|name| name == "output.weight"), ["token_embd.weight"]);
}

#[test]
fn contexts_of_two_lengths_have_divisors_of_their_own() {
    let program = planned(&models::phi3(), 1000, &|name| name.starts_with("rope_factors")).unwrap();
    let [factors] = program.rope_factors() else { panic!("{:?}", program.rope_factors()) };
    let of = |id: Option<TensorId>| id.map(|id| (program.tensor(id).name.as_str(), program.tensor(id).dims[0]));
    assert_eq!(of(factors.long), Some(("rope_factors_long.weight", 48)));
    assert_eq!(of(factors.short), Some(("rope_factors_short.weight", 48)));
    assert_eq!(factors.fixed, None);
}

#[test]
fn a_large_command_r_has_norms_of_each_head() {
    let plus = models::command_r().with("block_count", 64u32).with("attention.head_count_kv", 8u32);
    let program = planned(&plus, 1000, &|_| false).unwrap();
    let dims = |name: &str| program.tensors().iter().find(|want| want.name == name).map(|want| want.dims.clone());
    assert_eq!(dims("blk.63.attn_q_norm.weight"), Some(vec![128, 64]));
    assert_eq!(dims("blk.63.attn_k_norm.weight"), Some(vec![128, 8]));
}

/// Kinds of the steps of layer 1, and the norms that its joins take.
fn joins_of_layer_1(model: &Model, has: &dyn Fn(&str) -> bool) -> Vec<String> {
    let program = planned(model, 1000, has).unwrap();
    let described = program.describe(&model.read().unwrap());
    described.lines().map(str::trim).filter(|line| line.starts_with("join-norm")).map(str::to_owned).collect()
}

#[test]
fn a_half_beside_the_other_has_its_own_norm_where_the_file_does() {
    let norms = |model: Model, has: &dyn Fn(&str) -> bool| {
        let joins = joins_of_layer_1(&model, has);
        joins.iter().map(|join| join.rsplit_once("; ").unwrap_or(("", join)).1.replace(')', "")).collect::<Vec<_>>()
    };
    assert_eq!(norms(families::falcon(), &|_| false), ["attn_norm", "output_norm"]);
    let own = norms(families::falcon(), &|name| name.ends_with("attn_norm_2.weight"));
    assert_eq!(own, ["attn_norm_2", "attn_norm", "output_norm"]);
    let neox = families::gptneox();
    assert_eq!(norms(neox.clone(), &|_| false), ["attn_norm", "ffn_norm", "output_norm"]);
    // One after the other, the second join adds what the first half made.
    let second = |model: &Model| joins_of_layer_1(model, &|name| name.ends_with("ffn_norm.weight")).swap_remove(1);
    assert_eq!(second(&neox), "join-norm  y = layer_norm(x; ffn_norm)");
    for model in [neox.with("use_parallel_residual", false), families::stablelm()] {
        assert_eq!(second(&model), "join-norm  x += delta; y = layer_norm(x; ffn_norm)");
    }
}

#[test]
fn tensors_of_blocks_that_predict_further_tokens_are_left_alone() {
    let model = families::glm4moe();
    let program = planned(&model, 1000, &|_| false).unwrap();
    let with = |name: &str| {
        let mut tensors = shapes(program.tensors());
        tensors.push((name.to_owned(), vec![4]));
        program.check_leftovers(model.gguf(&tensors).tensors().iter())
    };
    assert_eq!((program.n_layer(), with("blk.46.nextn.eh_proj.weight")), (46, Ok(())));
    for name in ["blk.47.attn_q.weight", "blk.45.nextn.eh_proj.weight", "blk.x.attn_q.weight"] {
        assert_eq!(with(name), Err(Error::UnusedTensor { name: name.to_owned(), arch: "glm4moe" }));
    }
}

#[test]
fn a_table_of_positions_is_as_long_as_the_context() {
    let program = planned(&families::gpt2(), 1000, &|_| false).unwrap();
    let table = program.tensor(program.positions().unwrap());
    assert_eq!((table.name.as_str(), &*table.dims), ("position_embd.weight", &[768, 1024][..]));
    assert_eq!(planned(&models::llama(), 1000, &|_| false).unwrap().positions(), None);
}

#[test]
fn queries_keys_and_values_may_be_one_matrix() {
    let program = planned(&models::llama(), 1000, &|name| name.ends_with("attn_qkv.weight")).unwrap();
    let names = of_layer_1(&program);
    assert!(names.contains(&"attn_qkv.weight") && !names.contains(&"attn_q.weight"), "{names:?}");
    let qkv = program.tensors().iter().find(|want| want.name == "blk.1.attn_qkv.weight").unwrap();
    assert_eq!(qkv.dims, [2048, 2048 + 512 + 512]);
    let parts = program.segments()[0].steps.iter().find_map(|step| match step {
        Step::Project { parts, .. } => Some(parts.len()),
        _ => None,
    });
    assert_eq!(parts, Some(1));
}

#[test]
fn a_file_of_the_wanted_tensors_gives_the_planned_program() {
    for (_, model) in models::all().into_iter().filter(|(_, model)| runs(model)) {
        let program = planned(&model, 1000, &|name| name.starts_with("rope_f")).unwrap();
        let gguf = model.gguf(&shapes(program.tensors()));
        assert_eq!(of_file(&model, &gguf).unwrap(), program, "{}", model.arch);
        program.check_leftovers(gguf.tensors().iter()).unwrap();
    }
}

#[test]
fn leftovers_are_refused_unless_they_follow_from_the_metadata() {
    let model = models::llama();
    let program = planned(&model, 1000, &|_| false).unwrap();
    let with = |name: &str| {
        let mut tensors = shapes(program.tensors());
        tensors.push((name.to_owned(), vec![4]));
        program.check_leftovers(model.gguf(&tensors).tensors().iter())
    };
    for name in ["blk.3.ffn_gate_exps.weight", "blk.16.attn_q.weight", "blk.0.attn_q.biases"] {
        assert_eq!(with(name), Err(Error::UnusedTensor { name: name.to_owned(), arch: "llama" }));
    }
    assert_eq!(with("blk.0.attn_rot_embd.weight"), Ok(()));
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let model = models::llama();
    let tensors = shapes(planned(&model, 1000, &|_| false).unwrap().tensors());
    for name in ["token_embd.weight", "blk.1.ffn_up.weight", "blk.15.attn_norm.weight", "output_norm.weight"] {
        let others: Vec<_> = tensors.iter().filter(|(other, _)| other != name).cloned().collect();
        let error = of_file(&model, &model.gguf(&others)).unwrap_err();
        assert_eq!(error, Error::MissingTensor { name: name.to_owned(), arch: "llama" });
    }
    let reshaped = |name: &str, dims: &[u64]| {
        let mut tensors = tensors.clone();
        tensors.iter_mut().find(|(other, _)| other == name).unwrap().1 = dims.to_vec();
        of_file(&model, &model.gguf(&tensors)).map(|_| ())
    };
    let cases: &[(&str, &[u64], &[u64])] = &[
        ("blk.1.ffn_up.weight", &[8192, 2048], &[2048, 8192]),
        ("blk.0.attn_k.weight", &[2048, 256], &[2048, 512]),
        ("blk.0.attn_norm.weight", &[2048, 2], &[2048]),
        ("token_embd.weight", &[1024, 1000], &[2048, 1000]),
    ];
    for (name, seen, wanted) in cases {
        let (seen_dims, wanted) = (seen.to_vec(), wanted.to_vec());
        assert_eq!(reshaped(name, seen), Err(Error::TensorShape { name: name.to_string(), seen: seen_dims, wanted }));
    }
    assert_eq!(reshaped("blk.0.attn_norm.weight", &[2048, 1]), Ok(()));
}
