//! A plan's tensors are those of the real file of that shape and format, name by name, in type and
//! size.

use modelembed_gguf::Gguf;
use modelembed_synthetic::{MIXES, SHAPES, Synthetic};
use modelembed_testkit::{GEMMA3, GgufWriter, SMOLLM2, real_model, tiny, tiny_spec};

fn write(spec: &str, vocab: &[u8]) -> Vec<u8> {
    let gguf = Gguf::parse(vocab, vocab.len() as u64).unwrap();
    let model = Synthetic::new(spec, None, &gguf, vocab).unwrap();
    let mut out = Vec::new();
    model.write(&mut out).unwrap();
    assert_eq!(out.len() as u64, model.n_bytes(), "{spec}");
    out
}

fn directory(bytes: &[u8]) -> Vec<(String, String, Vec<u64>)> {
    let gguf = Gguf::parse(bytes, bytes.len() as u64).unwrap();
    let mut tensors: Vec<_> =
        gguf.tensors().iter().map(|t| (t.name.clone(), t.ty.to_string(), t.dims.clone())).collect();
    tensors.sort();
    tensors
}

#[test]
fn plans_are_the_real_files_directories() {
    for (spec, file) in [("smollm2-135m:q4_1", SMOLLM2), ("gemma3-270m:q4_k_m", GEMMA3)] {
        let Some(path) = real_model(file) else { return };
        let real = std::fs::read(path).unwrap();
        let made = write(spec, &real);
        assert_eq!(directory(&made), directory(&real), "{spec}");
        let off = made.len().abs_diff(real.len());
        assert!(off < 16 << 10, "{spec}: {off} bytes longer or shorter than {file}");
        // The shape has the real one's vocabulary, so nothing is cut or filled up.
        let (a, b) = (Gguf::parse(&made, made.len() as u64).unwrap(), Gguf::parse(&real, real.len() as u64).unwrap());
        for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.merges"] {
            if let Some(strings) = b.strings(key).unwrap() {
                assert!(a.strings(key).unwrap().unwrap().iter(&made).eq(strings.iter(&real)), "{spec}: {key}");
            }
        }
    }
}

#[test]
fn tinyllamas_size() {
    let Some(path) = real_model(SMOLLM2) else { return };
    let vocab = std::fs::read(path).unwrap();
    let gguf = Gguf::parse(&vocab, vocab.len() as u64).unwrap();
    let n_bytes = Synthetic::new("llama-1.1b:q4_k_m", None, &gguf, &vocab).unwrap().n_bytes();
    // The published TinyLlama-1.1B-Chat Q4_K_M file has 668,788,096 bytes, some of them another
    // vocabulary's.
    assert!(n_bytes.abs_diff(668_788_096) < 1 << 20, "{n_bytes}");
}

#[test]
fn every_shape_and_format_fits() {
    let vocab = tiny(&tiny_spec("llama"));
    let gguf = Gguf::parse(&vocab, vocab.len() as u64).unwrap();
    for shape in SHAPES {
        for mix in MIXES {
            let spec = format!("{}:{}", shape.name, mix.name);
            let model = Synthetic::new(&spec, None, &gguf, &vocab).unwrap();
            let bytes = model.n_bytes();
            assert!(bytes > 60 << 20, "{spec}: {bytes} bytes");
        }
    }
}

#[test]
fn a_model_has_as_many_layers_as_are_asked_for() {
    let vocab = tiny(&tiny_spec("llama"));
    let gguf = Gguf::parse(&vocab, vocab.len() as u64).unwrap();
    let of = |layers| Synthetic::new("qwen3-30b-a3b:iq4_xs", layers, &gguf, &vocab);
    let (none, two, three) =
        (of(None).unwrap().n_bytes(), of(Some(2)).unwrap().n_bytes(), of(Some(3)).unwrap().n_bytes());
    assert!(two < three && three < none / 8, "{two}, {three}, {none}");
    for wrong in [0, 49] {
        let error = of(Some(wrong)).unwrap_err().to_string();
        assert_eq!(error, format!("{wrong} layers are asked for, and qwen3-30b-a3b has 1 to 48"));
    }
}

#[test]
fn a_short_vocabulary_is_filled_up_and_a_long_one_cut() {
    let vocab = tiny(&tiny_spec("llama"));
    let bytes = write("smollm2-135m:q4_0", &vocab);
    assert_eq!(bytes, write("smollm2-135m:q4_0", &vocab), "same bytes every time");
    let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
    let tokens = gguf.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!(tokens.len(), 49152);
    assert_eq!(tokens.get(&bytes, 0), Some(&b"<unk>"[..]));
    assert_eq!(tokens.get(&bytes, 49151), Some(&b"<|synthetic 49151|>"[..]));
    assert_eq!(gguf.f32s("tokenizer.ggml.scores").unwrap().unwrap().len(), 49152);
    let types = gguf.i32s("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!((types.len(), types.get(&bytes, 49151)), (49152, Some(5)));

    let n = 49160usize;
    let mut names: Vec<String> = (0..n).map(|i| format!("t{i}")).collect();
    names[2] = "ab".into();
    names[n - 1] = "cd".into();
    let long = |eos: u32| {
        GgufWriter::new()
            .pair("tokenizer.ggml.model", "gpt2")
            .pair("tokenizer.ggml.tokens", names.clone())
            .pair("tokenizer.ggml.merges", vec!["a b", "c d"])
            .pair("tokenizer.ggml.eos_token_id", eos)
            .build()
    };
    let bytes = write("smollm2-135m:q4_0", &long(5));
    let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
    assert_eq!(gguf.strings("tokenizer.ggml.tokens").unwrap().unwrap().len(), 49152);
    let merges = gguf.strings("tokenizer.ggml.merges").unwrap().unwrap();
    assert_eq!(merges.iter(&bytes).collect::<Vec<_>>(), [b"a b"], "the merge of a token that is gone goes too");
    let beyond = long(n as u32 - 1);
    let error = Synthetic::new("smollm2-135m:q4_0", None, &Gguf::parse(&beyond, beyond.len() as u64).unwrap(), &beyond);
    assert!(error.unwrap_err().to_string().contains("eos_token_id is 49159"));
}

#[test]
fn unknown_names_and_missing_vocabularies_are_errors() {
    let empty = GgufWriter::new().build();
    let gguf = Gguf::parse(&empty, empty.len() as u64).unwrap();
    for spec in ["", "llama-1.1b", "llama-1.1b:q9", "lama:q8_0", "llama-1.1b:q8_0:x"] {
        let error = Synthetic::new(spec, None, &gguf, &empty).unwrap_err().to_string();
        assert!(error.contains("smollm2-135m") && error.contains("q4_k_m"), "{spec}: {error}");
    }
    let error = Synthetic::new("llama-1.1b:q8_0", None, &gguf, &empty).unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.tokens"), "{error}");
}
