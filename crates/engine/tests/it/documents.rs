//! docs/models.md is what the list of architectures and the goldens say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use modelembed::{Gguf, ModelSpec, Program, TensorType};
use modelembed_spec::{ARCHITECTURES, Directory};
use modelembed_testkit::{TinySpec, tiny, tiny_spec};

use crate::common::{TinyGolden, tiny_goldens};

const HEAD: &str = "\
# Models
Made from the list of architectures in `crates/spec/src/arch` and from the goldens of the engine's
tests; `MODELEMBED_WRITE_DOCUMENTS=1 cargo test -p modelembed documents` writes it again, and
`scripts/test.sh` fails while it differs.

";

const EXPLANATIONS: &str = "
**Kind.** *Dense*: every token uses all weights. *Mixture*: a router picks experts for each token.
*Hybrid*: some layers keep a state of fixed size instead of keys and values; such a layer can return
to positions that were kept only, so a chat that is full is evaluated again without its oldest turns
instead of being shifted. A kind with a * is evaluated again for other reasons: its keys cannot be
turned to another position.

**Compared.** Random models of three or more layers with odd sizes, whose logits (scaled to a standard
deviation of 3) llama.cpp computed too. With exact activations (`-activations f32`) each logit is
within 0.0001 of llama.cpp's for F32 and within 0.0003 for other types; with the default ones the
distance is at most 1.1 times llama.cpp's own distance from its exact run. The number says how many
models there are, the types which ones they hold beside F32. Where it says *(GELU)*, llama.cpp looks
GELU up in a table of 16-bit floats: there the logits are those of a reference in Python
(`tools/reference.py`), which is compared with llama.cpp with that rounding and computes exactly for
the comparison with modelembed. Prompts whole, token by token and split, several sequences, threads
and load modes give the same bits for all of them. SmolLM2-135M (llama) and Gemma-3-270M (gemma3) are
compared as real models.

A file that has another architecture is refused; the message names the known one that its keys and
tensors would fit, if there is one. Vision and audio parts come in files of their own and are not
read. GPU layers: [gpu.md](gpu.md). Tensor types and tokenizers: the README's \"What runs\".
";

fn kind(spec: &TinySpec) -> String {
    let file = tiny(spec);
    let gguf = Gguf::parse(&file, file.len() as u64).unwrap();
    let by_name = gguf.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let model = ModelSpec::from_gguf(&gguf, &file).unwrap();
    let program = Program::new(&model, Directory::Of(&by_name)).unwrap();
    let is_mixture = !program.expert_shares().is_empty();
    let base = match (program.records().is_empty(), program.caches().is_empty()) {
        (true, _) if is_mixture => "mixture",
        (true, _) => "dense",
        (false, false) if is_mixture => "hybrid mixture",
        (false, false) => "hybrid",
        (false, true) => "recurrent",
    };
    let is_bound = program.records().is_empty() && !program.can_move_keys();
    format!("{base}{}", if is_bound { "*" } else { "" })
}

/// What of an architecture was compared.
fn compared(goldens: &[&TinyGolden]) -> String {
    let mut types: Vec<&str> = goldens
        .iter()
        .map(|golden| tiny_spec(&golden.model).ty)
        .filter(|&ty| ty != TensorType::F32)
        .map(TensorType::name)
        .collect();
    types.sort_unstable();
    types.dedup();
    let types = if types.is_empty() { String::new() } else { format!(": {}", types.join(", ")) };
    let is_exact = goldens.iter().any(|golden| golden.model == golden.name && golden.from != "llama.cpp");
    let models = goldens.iter().map(|golden| &golden.model).collect::<BTreeSet<_>>().len();
    format!("{models}{types}{}", if is_exact { " (GELU)" } else { "" })
}

fn document() -> String {
    let goldens = tiny_goldens();
    let mut of_arch: BTreeMap<&str, Vec<&TinyGolden>> = BTreeMap::new();
    for golden in &goldens {
        of_arch.entry(tiny_spec(&golden.model).arch.name()).or_default().push(golden);
    }
    let n_run = ARCHITECTURES.iter().filter(|arch| arch.runs).count();
    let mut out = format!("{HEAD}{n_run} architectures run:\n\n");
    out += "| `general.architecture` | models | kind | compared | limits |\n|---|---|---|---|---|\n";
    let mut runs: Vec<_> = ARCHITECTURES.iter().filter(|arch| arch.runs).collect();
    runs.sort_by_key(|arch| arch.name);
    for arch in runs {
        let goldens =
            of_arch.get(arch.name).unwrap_or_else(|| panic!("{} runs, and was compared with nothing", arch.name));
        let mut kinds: Vec<String> = goldens.iter().map(|golden| kind(&tiny_spec(&golden.model))).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let (name, models, limit) = (arch.name, arch.models, arch.limit);
        out += &format!("| {name} | {models} | {} | {} | {limit} |\n", kinds.join(", "), compared(goldens));
    }
    out += "\nThese are described only: `inspect` reads their files, and running one is refused.\n\n";
    out += "| `general.architecture` | models | why |\n|---|---|---|\n";
    for arch in ARCHITECTURES.iter().filter(|arch| !arch.runs) {
        out += &format!("| {} | {} | {} |\n", arch.name, arch.models, arch.limit);
    }
    out + EXPLANATIONS
}

#[test]
fn the_document_of_models_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let document = document();
    if std::env::var_os("MODELEMBED_WRITE_DOCUMENTS").is_some() {
        fs::write(&path, &document).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == document, "docs/models.md is not current: its head says how to write it again");
}
