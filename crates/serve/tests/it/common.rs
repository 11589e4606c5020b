//! What the tests share: tiny models, requests, and answers read to their ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelembed::{
    Engine, EngineOptions, LoadMode, LoadOptions, Model, Run, Runtime, RuntimeOptions, SamplerOptions, SequenceId,
    TokenId,
};
use modelembed_serve::{Answer, End, Event, Handle, Options, Request, Status, start};
use modelembed_testkit::{GgufWriter, TinySpec, tiny_metadata, tiny_prompt, tiny_spec, tiny_tensors};
use tempfile::TempDir;

/// A tiny model by its name, on one thread: of so little work others get nothing.
pub fn model(name: &str) -> Arc<Model> {
    model_of(&tiny_spec(name), |_, _| {})
}

/// A tiny model whose tensors were changed, each given with its name.
pub fn model_of(spec: &TinySpec, change: impl Fn(&str, &mut [u8])) -> Arc<Model> {
    let (_dir, path) = file_of(spec, change);
    // The file may go.
    load(&path, LoadMode::Buffer, RuntimeOptions::default().threads(1))
}

/// The file of a tiny model by its name, and its folder.
pub fn tiny_file(name: &str) -> (TempDir, PathBuf) {
    file_of(&tiny_spec(name), |_, _| {})
}

fn file_of(spec: &TinySpec, change: impl Fn(&str, &mut [u8])) -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("model.gguf");
    let writer = tiny_metadata(spec).into_iter().fold(GgufWriter::new(), |w, (key, value)| w.pair(&key, value));
    let mut tensors = tiny_tensors(spec);
    tensors.iter_mut().for_each(|tensor| change(&tensor.name, &mut tensor.data));
    let bytes = tensors.iter().fold(writer, |w, t| w.tensor(&t.name, t.ty, &t.dims, &t.data)).build();
    std::fs::write(&path, bytes).expect("a writable folder");
    (dir, path)
}

/// A model of a file, with a runtime of its own.
pub fn load(path: &Path, mode: LoadMode, runtime: RuntimeOptions) -> Arc<Model> {
    let runtime = Runtime::new(&runtime).expect("a runtime");
    let options = LoadOptions::default().runtime(runtime).mode(mode);
    Model::load(path, &options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Serving with some options.
pub fn serve(model: &Arc<Model>, options: Options) -> Handle {
    start(Arc::clone(model), options).expect("it starts")
}

/// Some options for tiny models.
pub fn options() -> Options {
    Options::default().ctx_tokens(1024)
}

/// Tokens of a prompt that begins as no other seed's does.
pub fn prompt(n: usize, seed: u32) -> Vec<TokenId> {
    let ids = tiny_prompt(n).into_iter().enumerate();
    ids.map(|(i, id)| TokenId(3 + (id + seed * 31 + (i as u32 % 7) * seed) % 310)).collect()
}

/// A greedy answer of `n` tokens with its log-probabilities, whatever the model makes of it.
pub fn greedy(prompt: Vec<TokenId>, n: usize) -> Request {
    let mut request = Request::new(prompt);
    request.sampling = SamplerOptions::default().temp(0.0);
    request.logprobs = Some(3);
    request.max_tokens = Some(n);
    request.ignore_eos = true;
    request
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Tokens, and the bits of their log-probabilities and of those beside them.
    pub tokens: Vec<(TokenId, Option<u32>)>,
    pub tops: Vec<Vec<(TokenId, u32)>>,
    pub prompt: Vec<(TokenId, Option<f32>)>,
    pub text: String,
    pub end: End,
}

impl Read {
    pub fn ids(&self) -> Vec<TokenId> {
        self.tokens.iter().map(|(id, _)| *id).collect()
    }

    /// Without what depends on company: how much was there.
    pub fn without_usage(mut self) -> Read {
        self.end.usage.cached = 0;
        self
    }
}

/// Reads an answer to its end.
pub fn read(mut answer: Answer) -> Read {
    let end = End { reason: modelembed_serve::EndReason::Stop, text: String::new(), usage: Default::default() };
    let mut read = Read { tokens: Vec::new(), tops: Vec::new(), prompt: Vec::new(), text: String::new(), end };
    let mut is_over = false;
    let mut told = None;
    while let Some(event) = answer.blocking_next() {
        assert!(!is_over, "nothing follows the end");
        match event {
            Event::PromptToken { id, logprob, .. } => {
                assert!(told.is_none(), "tokens of the prompt come first");
                read.prompt.push((id, logprob));
            }
            Event::Prompt { tokens, cached_tokens } => {
                assert!(told.is_none(), "told once");
                told = Some((tokens, cached_tokens));
            }
            Event::Token { id, text, logprob, top, .. } => {
                assert!(told.is_some(), "the prompt comes before the answer");
                read.tokens.push((id, logprob.map(f32::to_bits)));
                read.tops.push(top.into_iter().map(|(id, p)| (id, p.to_bits())).collect());
                read.text.push_str(&text);
            }
            Event::End(end) => {
                read.text.push_str(&end.text);
                if let Some(told) = told {
                    assert_eq!(told, (end.usage.prompt, end.usage.cached));
                }
                read.end = end;
                is_over = true;
            }
            event => panic!("{event:?}"),
        }
    }
    assert!(is_over, "an answer has an end");
    read
}

/// The greedy answer of an engine that has nothing else to do, and its log-probabilities in f64.
pub fn alone(model: &Arc<Model>, prompt: &[TokenId], n: usize) -> Vec<(TokenId, f64)> {
    let options = EngineOptions::default().ctx_tokens(prompt.len() + n);
    let mut engine = Engine::new(model, &options).expect("an engine");
    let id = engine.add().expect("a sequence");
    let mut next = prompt.to_vec();
    (0..n)
        .map(|_| {
            let (token, p) = step(&mut engine, id, &next);
            next = vec![token];
            (token, p)
        })
        .collect()
}

fn step(engine: &mut Engine, id: SequenceId, tokens: &[TokenId]) -> (TokenId, f64) {
    let eog: Vec<TokenId> = engine.model().tokenizer().eog_tokens().collect();
    let mut chosen = (TokenId(0), 0.0);
    let each = &mut |row: modelembed::Row<'_>| {
        let all = row.logits.to_vec();
        eog.iter().for_each(|id| row.logits[id.index()] = f32::NEG_INFINITY);
        let best = modelembed_testkit::argmax(row.logits).expect("a number");
        chosen = (TokenId(best as u32), modelembed_testkit::log_prob(&all, best));
    };
    engine.step(&[Run::new(id, tokens)], each).expect("evaluates");
    chosen
}

/// Waits until something is so.
///
/// # Panics
/// When it is not for ten minutes.
pub fn until(handle: &Handle, is_so: impl Fn(&Status) -> bool) -> Status {
    let start = std::time::Instant::now();
    loop {
        let status = handle.status();
        if is_so(&status) {
            return status;
        }
        assert!(start.elapsed().as_secs() < 600, "it did not come: {status:?}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Waits until nothing is left to do, and looks whether everything came back.
pub fn check_idle(handle: &Handle) {
    let status = until(handle, |status| status.queued + status.prompts + status.running == 0);
    assert_eq!(status.pages_used, status.pages_cached, "pages are the tree's alone: {status:?}");
    handle.forget_prefixes();
    let status = until(handle, |status| status.pages_cached == 0);
    assert_eq!(status.pages_used, 0, "{status:?}");
    let totals = status.totals;
    let ended = totals.finished + totals.cancelled + totals.slow + totals.failed;
    assert_eq!(totals.accepted, ended, "{totals:?}");
}

/// Stops it, and looks whether all memory came back.
pub fn stop(handle: &Handle) {
    handle.stop();
    assert_eq!(handle.model().runtime().kv_bytes(), 0, "every page came back");
}
