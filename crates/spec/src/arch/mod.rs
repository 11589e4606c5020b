//! The list of architectures: one file each, which reads metadata into a [`ModelSpec`].

mod afmoe;
mod apertus;
mod bert;
mod cohere2;
mod command_r;
mod dbrx;
mod deci;
mod deepseek2;
mod deepseek4;
mod dense;
mod exaone4;
mod exaone_moe;
mod experts;
mod falcon_h1;
mod gemma2;
mod gemma3;
mod gemma3n;
mod gemma4;
mod glm4;
mod gpt_oss;
mod granite;
mod hunyuan;
mod laguna;
mod layer_norms;
mod lfm2;
mod like_llama;
mod llama;
mod llama4;
mod mamba;
mod mimo2;
mod minicpm3;
mod mistral3;
mod nemotron_h;
mod olmo2;
mod olmoe;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2moe;
mod qwen3;
mod qwen35;
mod qwen3moe;
mod qwen_vl;
mod scan;
mod sigmoid_moe;
mod smallthinker;
mod softmax_moe;
mod step35;
mod t5;

use std::collections::HashMap;

use modelembed_gguf::{Gguf, TensorInfo};

use crate::error::{Error, Result};
use crate::keys::{self, Keys};
use crate::model::{ModelSpec, Pooling};
use crate::program::Program;
use crate::want::Directory;

/// An architecture.
pub struct Architecture {
    /// Value of `general.architecture`, and prefix of the architecture's metadata keys.
    pub name: &'static str,
    /// Well-known models that have it, for people.
    pub models: &'static str,
    /// What of it does not run, for people; empty where all does.
    pub limit: &'static str,
    /// Whether all its parts have steps; the others are described only.
    pub runs: bool,
    pub(crate) read: Read,
}

type Read = fn(&'static Architecture, &Keys<'_>) -> Result<ModelSpec>;

impl Architecture {
    /// One whose parts all have steps.
    const fn new(name: &'static str, models: &'static str, read: Read) -> Architecture {
        Architecture { name, models, limit: "", runs: true, read }
    }

    /// Something of it is left out.
    const fn limit(self, limit: &'static str) -> Architecture {
        Architecture { limit, ..self }
    }

    /// A part of it has no steps: its files can be inspected, not run.
    const fn described(self, why: &'static str) -> Architecture {
        Architecture { limit: why, runs: false, ..self }
    }
}

/// Every architecture that is known.
pub static ARCHITECTURES: &[Architecture] = &[
    llama::ARCH,
    qwen2::ARCH,
    qwen3::ARCH,
    gemma3::ARCH,
    phi3::ARCH,
    olmo2::ARCH,
    command_r::ARCH,
    gemma2::ARCH,
    granite::DENSE,
    granite::MINICPM,
    cohere2::ARCH,
    glm4::GLM4,
    glm4::CHATGLM,
    exaone4::EXAONE4,
    exaone4::EXAONE,
    mistral3::ARCH,
    hunyuan::DENSE,
    like_llama::SMOLLM3,
    like_llama::ERNIE,
    like_llama::INTERNLM2,
    like_llama::XVERSE,
    like_llama::ARCEE,
    like_llama::SEED_OSS,
    like_llama::PLAMO,
    like_llama::QWEN,
    like_llama::OPENELM,
    like_llama::PANGU,
    like_llama::MAINCODER,
    like_llama::BAICHUAN,
    like_llama::REFACT,
    like_llama::GEMMA,
    like_llama::OLMO,
    like_llama::BITNET,
    deci::ARCH,
    apertus::ARCH,
    layer_norms::GPT2,
    layer_norms::GPTNEOX,
    layer_norms::STARCODER,
    layer_norms::STARCODER2,
    layer_norms::CODESHELL,
    layer_norms::PHI2,
    layer_norms::FALCON,
    layer_norms::ORION,
    layer_norms::STABLELM,
    layer_norms::BLOOM,
    layer_norms::MPT,
    layer_norms::JAIS,
    layer_norms::NEMOTRON,
    layer_norms::JAIS2,
    granite::MOE,
    hunyuan::MOE,
    dbrx::ARCH,
    phimoe::ARCH,
    qwen3moe::ARCH,
    qwen2moe::ARCH,
    olmoe::ARCH,
    qwen_vl::QWEN2,
    qwen_vl::QWEN3,
    qwen_vl::QWEN3_MOE,
    sigmoid_moe::MINIMAX_M2,
    sigmoid_moe::DOTS1,
    sigmoid_moe::BAILING2,
    llama4::ARCH,
    softmax_moe::MELLUM,
    softmax_moe::DEEPSEEK,
    softmax_moe::ERNIE,
    softmax_moe::BAILING,
    sigmoid_moe::GLM4,
    sigmoid_moe::HY_V3,
    afmoe::ARCH,
    step35::ARCH,
    mimo2::ARCH,
    laguna::ARCH,
    exaone_moe::ARCH,
    smallthinker::ARCH,
    qwen35::NEXT,
    qwen35::DENSE,
    qwen35::MOE,
    gpt_oss::ARCH,
    granite::HYBRID,
    mamba::MAMBA,
    mamba::MAMBA2,
    mamba::JAMBA,
    falcon_h1::ARCH,
    lfm2::DENSE,
    lfm2::MOE,
    gemma3n::ARCH,
    gemma4::ARCH,
    minicpm3::ARCH,
    deepseek2::ARCH,
    deepseek4::ARCH,
    nemotron_h::DENSE,
    nemotron_h::MOE,
    bert::ARCH,
    t5::ARCH,
];

impl std::fmt::Debug for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl ModelSpec {
    /// Reads and checks the metadata. `header` is what `gguf` was parsed from: arrays are read
    /// there.
    ///
    /// # Errors
    /// An unknown architecture, a missing key, a value of the wrong type or out of bounds, or one
    /// that asks for other mathematics than is known; each names the key.
    pub fn from_gguf(gguf: &Gguf, header: &[u8]) -> Result<ModelSpec> {
        let key = "general.architecture";
        let name = keys::string(gguf, key)?.ok_or_else(|| Error::Metadata {
            key: key.to_owned(),
            problem: "is missing; it names the kind of model".to_owned(),
        })?;
        let arch = ARCHITECTURES.iter().find(|a| a.name == name).ok_or_else(|| Error::UnknownArchitecture {
            name: keys::clean(&name),
            resembles: resembled(gguf, header, &name),
            known: ARCHITECTURES.iter().filter(|a| a.runs).map(|a| a.name).collect::<Vec<_>>().join(", "),
        })?;
        read_as(arch, gguf, header, arch.name)
    }
}

/// Reads the metadata as those of an architecture, whose keys begin with `prefix`.
fn read_as(arch: &'static Architecture, gguf: &Gguf, header: &[u8], prefix: &str) -> Result<ModelSpec> {
    let keys = Keys::new(gguf, header, arch.name, prefix)?;
    let mut spec = (arch.read)(arch, &keys)?;
    // Any model may be one of embeddings.
    spec.output.pooling = pooling(&keys)?;
    keys.refuse_other_mathematics()?;
    Ok(ModelSpec { name: keys::string(gguf, "general.name")?, ..spec })
}

/// The architecture that would run with a file's keys and tensors, but for the name that they have
/// there.
fn resembled(gguf: &Gguf, header: &[u8], name: &str) -> Option<&'static str> {
    let by_name: HashMap<&str, &TensorInfo> = gguf.tensors().iter().map(|t| (t.name.as_str(), t)).collect();
    let fits = |arch: &&'static Architecture| {
        let spec = read_as(arch, gguf, header, name).ok()?;
        let program = Program::new(&spec, Directory::Of(&by_name)).ok()?;
        program.check_leftovers(gguf.tensors().iter()).ok()
    };
    ARCHITECTURES.iter().filter(|arch| arch.runs).find(|arch| fits(arch).is_some()).map(|arch| arch.name)
}

/// What of a text's positions becomes its vector.
fn pooling(keys: &Keys<'_>) -> Result<Pooling> {
    let key = "pooling_type";
    Ok(match keys.stored_u32(key)? {
        None | Some(0 | u32::MAX) => Pooling::None,
        Some(1) => Pooling::Mean,
        Some(2) => Pooling::First,
        Some(3) => Pooling::Last,
        Some(4) => Pooling::Rank,
        Some(id) => return Err(keys.unsupported(key, id, "0 to 4: none, mean, first, last, rank")),
    })
}
