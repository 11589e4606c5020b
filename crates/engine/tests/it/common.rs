//! What the engine's tests share: goldens, tiny models on disk, and sessions over them.
#![allow(dead_code, reason = "binaries beside this one use a part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelembed::{GpuLayers, LoadOptions, Model, Session, SessionOptions, TokenId, gpu_adapters};
use modelembed_testkit::{
    GgufValue, GgufWriter, TinySpec, TinyTensor, sha256_hex, tiny, tiny_metadata, tiny_spec, tiny_tensors,
};
use serde_json::Value;
use tempfile::TempDir;

/// The folder of goldens.
pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// A JSON golden.
pub fn golden_json(name: &str) -> Value {
    let path = goldens().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Token ids of a JSON array.
pub fn ids(value: &Value) -> Vec<TokenId> {
    value.as_array().expect("an array of ids").iter().map(|v| TokenId(v.as_u64().expect("an id") as u32)).collect()
}

/// The logits that a tiny model must give.
pub struct TinyGolden {
    /// The golden's name.
    pub name: String,
    /// The model's name.
    pub model: String,
    /// The prompt.
    pub ids: Vec<TokenId>,
    /// Positions whose logits are known.
    pub positions: Vec<usize>,
    /// (positions, n_vocab).
    pub logits: Vec<f32>,
    /// What computed them: `llama.cpp`, or `reference` where llama.cpp rounds what it need not.
    pub from: String,
    /// Root of the mean squared distance of llama.cpp's default run from these.
    pub llama_cpp_rms: f64,
    sha256: String,
}

/// The goldens of all tiny models: one of 40 tokens for each, one of 600 for some.
pub fn tiny_goldens() -> Vec<TinyGolden> {
    let all = golden_json("tiny/tiny.json");
    let golden = |(name, facts): (&String, &Value)| {
        let bytes = std::fs::read(goldens().join(format!("tiny/{name}.f32"))).expect("logits");
        let text = |field: &str| facts[field].as_str().expect("a text").to_owned();
        let prompt = &all["prompts"][text("prompt")];
        TinyGolden {
            name: name.clone(),
            model: text("model"),
            from: text("from"),
            ids: ids(&prompt["ids"]),
            positions: ids(&prompt["positions"]).iter().map(|id| id.0 as usize).collect(),
            logits: bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            llama_cpp_rms: facts["llama_cpp_default_rms"].as_f64().expect("a distance"),
            sha256: text("sha256"),
        }
    };
    all["models"].as_object().expect("models").iter().map(golden).collect()
}

/// Tiny models in a temporary folder.
pub struct TinyModels(TempDir);

impl TinyModels {
    pub fn new() -> TinyModels {
        TinyModels(TempDir::new().expect("a temporary folder"))
    }

    /// Writes bytes as `NAME.gguf`.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(format!("{name}.gguf"));
        std::fs::write(&path, bytes).expect("a writable temporary folder");
        path
    }

    /// Writes the model that a golden was made from.
    ///
    /// # Panics
    /// When testkit no longer makes that file.
    pub fn of(&self, golden: &TinyGolden) -> PathBuf {
        let bytes = tiny(&tiny_spec(&golden.model));
        assert_eq!(
            sha256_hex(&bytes),
            golden.sha256,
            "testkit makes another {} than the goldens are from: run tools/tiny_goldens.py again",
            golden.model
        );
        self.write(&golden.model, &bytes)
    }
}

/// A tiny model whose parts can be changed before it is written.
#[derive(Clone)]
pub struct Parts {
    pub metadata: Vec<(String, GgufValue)>,
    pub tensors: Vec<TinyTensor>,
}

impl Parts {
    pub fn of(spec: &TinySpec) -> Parts {
        Parts { metadata: tiny_metadata(spec), tensors: tiny_tensors(spec) }
    }

    pub fn set(&mut self, key: &str, value: impl Into<GgufValue>) {
        self.unset(key);
        self.metadata.push((key.to_owned(), value.into()));
    }

    pub fn unset(&mut self, key: &str) {
        self.metadata.retain(|(k, _)| k != key);
    }

    pub fn tensor(&mut self, name: &str) -> &mut TinyTensor {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn build(&self) -> Vec<u8> {
        let writer = self.metadata.iter().fold(GgufWriter::new(), |w, (key, value)| w.pair(key, value.clone()));
        self.tensors.iter().fold(writer, |w, t| w.tensor(&t.name, t.ty, &t.dims, &t.data)).build()
    }

    /// What loading says: the error, or "loaded".
    pub fn outcome(&self, dir: &TinyModels) -> String {
        let path = dir.write("changed", &self.build());
        let loaded = Model::load(&path, &LoadOptions::default());
        loaded.map_or_else(|e| e.to_string(), |_| "loaded".to_owned())
    }
}

/// Loads a model without showing progress.
pub fn load(path: &Path, options: &LoadOptions) -> Arc<Model> {
    Model::load(path, options).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A session that holds `ctx_tokens`.
pub fn session(model: &Arc<Model>, ctx_tokens: usize) -> Session {
    let options = SessionOptions::default().ctx_tokens(ctx_tokens);
    Session::new(model, options).expect("a session")
}

/// Logits of every position, evaluated in chunks of `chunk` tokens: (ids, n_vocab).
pub fn all_logits(model: &Arc<Model>, ids: &[TokenId], chunk: usize) -> Vec<f32> {
    let mut session = session(model, ids.len());
    let mut out = Vec::new();
    for part in ids.chunks(chunk) {
        session.eval_each(part, |_, logits| out.extend_from_slice(logits)).expect("evaluates");
    }
    out
}

/// The rows of `logits` (positions, n_vocab) that a golden knows.
pub fn known(golden: &TinyGolden, logits: &[f32]) -> Vec<f32> {
    let n_vocab = golden.logits.len() / golden.positions.len();
    golden.positions.iter().flat_map(|&p| &logits[p * n_vocab..][..n_vocab]).copied().collect()
}

/// Fails with every row that a table test collected.
pub fn report(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
}

/// The first adapter, software or not. `None` where there is none.
///
/// # Panics
/// Where there is none and `MODELEMBED_REQUIRE_GPU` is set.
pub fn gpu_device() -> Option<String> {
    if let Ok(name) = std::env::var("MODELEMBED_TEST_GPU") {
        return Some(name);
    }
    if !gpu_adapters().is_empty() {
        return Some("0".to_owned());
    }
    assert!(std::env::var_os("MODELEMBED_REQUIRE_GPU").is_none(), "no GPU adapter, and MODELEMBED_REQUIRE_GPU is set");
    eprintln!("skipped: no GPU adapter");
    None
}

/// Exact runs with some layers there.
pub fn gpu_options(device: &str, gpu_layers: GpuLayers) -> LoadOptions {
    LoadOptions::default().exact(true).threads(2).gpu_layers(gpu_layers).gpu_device(device.to_owned())
}
