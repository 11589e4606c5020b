//! Models in several files: any of them opens the model, and a set that is none is refused by name.

use std::path::{Path, PathBuf};

use modelembed::{LoadMode, LoadOptions, Model, TokenId};
use modelembed_testkit::{GgufWriter, first_bit_difference, tiny, tiny_prompt, tiny_spec};

use crate::common::{Parts, TinyModels, all_logits, load};

/// A tiny model in three files: metadata alone, and two halves of the tensors. `change` may spoil
/// the file of a number.
fn write(dir: &TinyModels, change: impl Fn(usize, GgufWriter) -> GgufWriter) -> Vec<PathBuf> {
    let parts = Parts::of(&tiny_spec("llama"));
    let n = parts.tensors.len();
    let of_file = [&parts.tensors[..0], &parts.tensors[..n / 2], &parts.tensors[n / 2..]];
    let file = |(i, tensors): (usize, &[_])| {
        let metadata = if i == 0 { &parts.metadata[..] } else { &[] };
        let writer = metadata.iter().fold(GgufWriter::new(), |w, (key, value)| w.pair(key, value.clone()));
        let writer = writer.split(i as u16, 3, n as i32);
        let writer = tensors
            .iter()
            .fold(writer, |w, t: &modelembed_testkit::TinyTensor| w.tensor(&t.name, t.ty, &t.dims, &t.data));
        dir.write(&format!("tiny-{:05}-of-00003", i + 1), &change(i, writer).build())
    };
    of_file.into_iter().enumerate().map(file).collect()
}

fn error(path: &Path) -> String {
    let loaded = Model::load(path, &LoadOptions::default());
    loaded.map_or_else(|e| e.to_string(), |_| "loaded".to_owned())
}

#[test]
fn any_file_opens_the_model() {
    let dir = TinyModels::new();
    let ids: Vec<TokenId> = tiny_prompt(12).into_iter().map(TokenId).collect();
    let whole = dir.write("whole", &tiny(&tiny_spec("llama")));
    let want = all_logits(&load(&whole, &LoadOptions::default()), &ids, 12);
    for path in write(&dir, |_, writer| writer) {
        for mode in [LoadMode::Map, LoadMode::Buffer, LoadMode::File] {
            let model = load(&path, &LoadOptions::default().mode(mode));
            assert_eq!(first_bit_difference(&all_logits(&model, &ids, 12), &want), None, "{} {mode:?}", path.display());
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    for missing in 0..3 {
        let dir = TinyModels::new();
        let paths = write(&dir, |_, writer| writer);
        std::fs::remove_file(&paths[missing]).unwrap();
        let message = error(&paths[(missing + 1) % 3]);
        assert!(message.contains(&format!("tiny-{:05}-of-00003.gguf", missing + 1)), "{message}");
    }
}

#[test]
fn a_file_under_another_name_is_refused() {
    let dir = TinyModels::new();
    let paths = write(&dir, |_, writer| writer);
    for (from, to, wanted) in [
        (1, "renamed.gguf", "it is file 2 of 3 by its metadata, wanted the name ...-00002-of-00003.gguf"),
        (2, "tiny-00001-of-00003.gguf", "it is file 3 of 3 by its metadata"),
        (0, "tiny-00001-of-00002.gguf", "it is file 1 of 3 by its metadata"),
    ] {
        let bytes = std::fs::read(&paths[from]).unwrap();
        let to = paths[from].with_file_name(to);
        let before = std::fs::read(&to).ok();
        std::fs::write(&to, bytes).unwrap();
        let message = error(&to);
        assert!(message.contains(wanted), "{message}");
        before.into_iter().for_each(|bytes| std::fs::write(&to, bytes).unwrap());
    }
}

/// Names of siblings are made from the name that was given, never from what a file says.
#[test]
fn metadata_leads_nowhere_else() {
    let outside = TinyModels::new();
    let elsewhere = outside.write("x-00002-of-00003", b"not a model");
    let dir = TinyModels::new();
    let prefix = elsewhere.with_file_name("x").display().to_string();
    let paths = write(&dir, |_, writer| {
        ["split.prefix", "split.path", "general.basename"].iter().fold(writer, |w, key| w.pair(key, &*prefix))
    });
    assert_eq!(error(&paths[0]), "loaded");
    std::fs::remove_file(&paths[1]).unwrap();
    let message = error(&paths[0]);
    assert!(message.contains("tiny-00002-of-00003.gguf") && !message.contains(&prefix), "{message}");
}

#[test]
fn sets_that_do_not_belong_together_are_refused() {
    type Change = fn(usize, GgufWriter) -> GgufWriter;
    let rows: [(&str, Change, &str); 3] = [
        ("another model's", |i, w| w.pair("general.uuid", format!("model {}", i / 2)), "general.uuid is"),
        (
            "another architecture",
            |i, w| if i == 2 { w.pair("general.architecture", "qwen2") } else { w },
            "architecture",
        ),
        (
            "a tensor twice",
            |i, w| if i > 0 { w.tensor("twice", modelembed_gguf::TensorType::F32, &[8], &[0; 32]) } else { w },
            "split.tensors.count is",
        ),
    ];
    for (what, change, wanted) in rows {
        let dir = TinyModels::new();
        let message = error(&write(&dir, change)[0]);
        assert!(message.contains(wanted), "{what}: {message}");
    }
}
