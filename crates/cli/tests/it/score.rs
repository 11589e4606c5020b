//! score: token ids in place of a text, all logits as a file, and models without a vocabulary.

use crate::util::*;
use modelembed_testkit::{GgufValue, GgufWriter, tiny_metadata, tiny_spec, tiny_tensors};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The numbers of a .npy file and its shape, by NumPy's description of version 1.0.
fn npy(path: &Path) -> ((usize, usize), Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(end % 64, 0);
    let header = std::str::from_utf8(&bytes[10..end]).unwrap();
    assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (") && header.ends_with('\n'));
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let (rows, cols) = shape.split_once(", ").unwrap();
    let shape = (rows.parse().unwrap(), cols.parse().unwrap());
    let numbers: Vec<f32> =
        bytes[end..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!((numbers.len(), (bytes.len() - end) % 4), (shape.0 * shape.1, 0));
    (shape, numbers)
}

/// The tiny llama with another kind of vocabulary.
fn without_vocabulary(folder: &Path, kind: Option<&str>) -> PathBuf {
    let spec = tiny_spec("llama");
    let rest = tiny_metadata(&spec).into_iter().filter(|(key, _)| !key.starts_with("tokenizer."));
    let entry = kind.map(|kind| ("tokenizer.ggml.model".to_string(), GgufValue::from(kind)));
    let writer = rest.chain(entry).fold(GgufWriter::new(), |w, (key, value)| w.pair(&key, value));
    let file = tiny_tensors(&spec).iter().fold(writer, |w, t| w.tensor(&t.name, t.ty, &t.dims, &t.data)).build();
    let path = folder.join(format!("{}.gguf", kind.unwrap_or("absent")));
    std::fs::write(&path, file).unwrap();
    path
}

/// The prompt of the tiny models' goldens, and the logits (positions, 320) of the tiny llama at
/// some positions of it.
fn golden() -> (Vec<u64>, Vec<usize>, Vec<f32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/goldens/tiny");
    let facts: Value = serde_json::from_slice(&std::fs::read(folder.join("tiny.json")).unwrap()).unwrap();
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect::<Vec<_>>();
    let prompt = &facts["prompts"][facts["models"]["llama"]["prompt"].as_str().unwrap()];
    let bytes = std::fs::read(folder.join("llama.f32")).unwrap();
    let logits = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (numbers(&prompt["ids"]), numbers(&prompt["positions"]).iter().map(|&p| p as usize).collect(), logits)
}

#[test]
fn ids_are_scored_as_the_text_they_stand_for() {
    let tiny = tiny_model();
    let score = ["score", "-model", &tiny.model];
    let of_text = run(&[&score[..], &["-p", "the cat sat"]].concat()).ok();
    let lines: Vec<Value> = of_text.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<String> = lines.iter().map(|line| line["id"].to_string()).collect();
    for list in [ids.join(","), format!("[{}]", ids.join(", "))] {
        assert_eq!(run(&[&score[..], &["-ids", &list]].concat()).ok().stdout, of_text.stdout, "{list}");
        let piped = run_in(Path::new("."), &[&score[..], &["-ids", "-"]].concat(), Some(list.as_bytes())).ok();
        assert_eq!(piped.stdout, of_text.stdout, "{list} on standard input");
    }
    let outside = run(&[&score[..], &["-ids", "1,2,320"]].concat());
    assert_eq!(outside.code, 1);
    assert!(outside.stderr.contains("token 320 is outside the vocabulary of 320 tokens"), "{}", outside.stderr);
    let typo = run(&[&score[..], &["-ids", "1,x"]].concat());
    assert_eq!(typo.code, 2);
    assert!(typo.stderr.contains("-ids: \"x\" is no token id"), "{}", typo.stderr);
}

#[test]
fn all_logits_are_written_as_numpy_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let (ids, positions, wanted) = golden();
    let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
    let list = ids.join(",");
    let tiny = tiny_model();
    let score = |model: &str, name: &str| {
        let out = folder.path().join(name);
        let path = out.to_str().unwrap();
        let run = run(&["score", "-model", model, "-ids", &list, "-activations", "f32", "-logits", path]).ok();
        (run.stdout, npy(&out))
    };
    let (lines, (shape, logits)) = score(&tiny.model, "all.npy");
    assert_eq!(shape, (ids.len(), 320));
    // llama.cpp's logits.
    let worst = positions
        .iter()
        .zip(wanted.chunks(320))
        .flat_map(|(&p, row)| logits[p * 320..][..320].iter().zip(row).map(|(a, b)| (a - b).abs()))
        .fold(0f32, f32::max);
    assert!(positions.len() > 10 && worst < 1e-4, "{worst}");
    // They are those that the lines are about.
    for (i, line) in lines.lines().enumerate().skip(1) {
        let line: Value = serde_json::from_str(line).unwrap();
        let row = &logits[(i - 1) * 320..][..320];
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        let logprob = f64::from(row[line["id"].as_u64().unwrap() as usize]) - sum.ln();
        assert!((logprob - line["logprob"].as_f64().unwrap()).abs() < 1e-6, "{line}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left in the folder");
    // Files that hold no vocabulary are scored alike.
    for kind in [Some("none"), Some("no_vocab"), None] {
        let model = without_vocabulary(folder.path(), kind);
        assert_eq!(score(model.to_str().unwrap(), "none.npy"), (lines.clone(), (shape, logits.clone())), "{kind:?}");
    }
    // A folder cannot be written to, and says so.
    let refused = run(&["score", "-model", &tiny.model, "-ids", "1,5", "-logits", folder.path().to_str().unwrap()]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("it is a folder"), "{}", refused.stderr);
}

#[test]
fn text_of_a_model_without_a_vocabulary_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, word) in [(Some("none"), "\"none\""), (Some("no_vocab"), "\"no_vocab\""), (None, "missing")] {
        let model = without_vocabulary(folder.path(), kind);
        let model = model.to_str().unwrap();
        let wanted = format!(
            "error: the model has no vocabulary (metadata tokenizer.ggml.model is {word}): it takes token ids and no text\n"
        );
        for args in [&["-p", "x"][..], &["-p", "x", "-raw"], &["-i"], &["score", "-p", "x"], &["tokenize", "-p", "x"]] {
            let run = run(&[args, &["-model", model]].concat());
            assert_eq!(run.code, 1, "{args:?}");
            assert!(run.stderr.ends_with(&wanted), "{args:?}: {}", run.stderr);
            assert_eq!(run.stderr.matches("error").count(), 1, "{args:?}: {}", run.stderr);
        }
        assert!(run(&["inspect", "-model", model]).ok().stdout.contains("general.architecture"));
    }
}
