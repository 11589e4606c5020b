//! Split models: what their files say of themselves, and how their directories are joined.

use modelembed_gguf::split::{SplitInfo, SplitName, join, open_all};
use modelembed_gguf::{Error, Gguf, TensorInfo, TensorType};
use modelembed_testkit::GgufWriter;

fn parse(writer: &GgufWriter) -> Gguf {
    let bytes = writer.build();
    Gguf::parse(&bytes, bytes.len() as u64).unwrap()
}

/// File `index` of `count` with these tensors; the first file alone names the architecture.
fn file(index: u16, count: u16, n_tensors: i32, names: &[&str]) -> GgufWriter {
    let writer = GgufWriter::new();
    let writer = if index == 0 { writer.pair("general.architecture", "llama") } else { writer };
    let writer = writer.split(index, count, n_tensors);
    names.iter().fold(writer, |w, name| w.tensor(name, TensorType::F32, &[8], &[0; 32]))
}

fn error(files: &[GgufWriter]) -> String {
    let mut files: Vec<Gguf> = files.iter().map(parse).collect();
    join(&mut files.iter_mut().collect::<Vec<_>>()).expect_err("a bad set of files").to_string()
}

#[test]
fn tensors_keep_their_order_and_know_their_file() {
    let mut files = [file(0, 3, 4, &[]), file(1, 3, 4, &["a", "b", "c"]), file(2, 3, 4, &["d"])].map(|w| parse(&w));
    let info = SplitInfo { index: 1, count: 3, n_tensors: Some(4) };
    assert_eq!(files[1].split(), Ok(Some(info)));
    join(&mut files.each_mut()).unwrap();
    let all: Vec<&TensorInfo> = files.iter().flat_map(Gguf::tensors).collect();
    let seen: Vec<_> = all.iter().map(|t| (t.name.as_str(), t.shard)).collect();
    assert_eq!(seen, [("a", 1), ("b", 1), ("c", 1), ("d", 2)]);
    assert_eq!(all[3].offset, files[2].data_offset(), "offsets stay those of the tensor's own file");
}

#[test]
fn one_file_is_a_model_of_its_own() {
    let mut whole = parse(&GgufWriter::new().tensor("a", TensorType::F32, &[8], &[0; 32]));
    assert_eq!(whole.split(), Ok(None));
    assert_eq!(join(&mut [&mut whole]), Ok(()));
    assert_eq!(whole.tensors()[0].shard, 0);
    // Tools write these keys into files that were never split, too.
    let mut single = parse(&file(0, 1, 1, &["a"]));
    assert_eq!(single.split(), Ok(None));
    assert_eq!(join(&mut [&mut single]), Ok(()));
}

#[test]
fn sets_that_do_not_belong_together() {
    let renamed = |key: &str, first: &str, second: &str| {
        [file(0, 2, 2, &["a"]).pair(key, first), file(1, 2, 2, &["b"]).pair(key, second)]
    };
    let (first, second) = (|| file(0, 2, 2, &["a"]), || file(1, 2, 2, &["b"]));
    let cases: Vec<(Vec<GgufWriter>, &str)> = vec![
        (vec![], "0 files were given, wanted 1 to 9999"),
        (vec![first()], "file 1 of 1 says in its metadata that it is file 1 of 2"),
        (vec![second()], "file 1 of 1 says in its metadata that it is file 2 of 2"),
        (vec![second(), first()], "file 1 of 2 says in its metadata that it is file 2 of 2"),
        (vec![first(), first()], "file 2 of 2 says in its metadata that it is file 1 of 2"),
        (vec![first(), file(1, 3, 2, &["b"])], "file 2 of 2 says in its metadata that it is file 2 of 3"),
        (vec![first(), GgufWriter::new()], "file 2 of 2 says in its metadata that it is file 1 of 1"),
        (vec![first(), file(1, 2, 9, &["b"])], "split.tensors.count is 9 in file 2, but 2 in a file before it"),
        (vec![file(0, 2, 3, &["a"]), file(1, 2, 3, &["b"])], "the files hold 2 tensors, but split.tensors.count is 3"),
        // The second file does not say the total; the first one's holds.
        (
            vec![file(0, 2, 3, &["a"]), GgufWriter::new().pair("split.no", 1u16).pair("split.count", 2u16)],
            "the files hold 1 tensors, but split.tensors.count is 3",
        ),
        (vec![first(), file(1, 2, 2, &["a"])], "tensor a stands in two files"),
        (
            renamed("general.name", "one", "other\u{1b}[2J").into(),
            "general.name is the string \"other\\u{1b}[2J\" in file 2, but the string \"one\" in file 1",
        ),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .map(|(files, wanted)| (error(files), format!("split model: {wanted}")))
        .filter(|(seen, wanted)| seen != wanted)
        .collect();
    assert!(wrong.is_empty(), "(seen, wanted) {wrong:#?}");
}

/// The first file need not say whose it is; those that do must agree.
#[test]
fn files_that_contradict_each_other_where_the_first_is_silent() {
    for key in ["general.architecture", "general.name", "general.uuid", "general.size_label"] {
        let part = |i: u16| GgufWriter::new().split(i, 3, 0);
        let seen = error(&[part(0), part(1).pair(key, "x"), part(2).pair(key, 1u8)]);
        assert_eq!(seen, format!("split model: {key} is 1 of type u8 in file 3, but the string \"x\" in file 2"));
    }
}

/// From whichever file, under the names that follow from its own.
#[test]
fn all_files_are_opened_in_order() {
    let open = |number: u16, file_name: &str| {
        let mut asked = Vec::new();
        let named = (u32::from(number), parse(&file(number - 1, 3, 0, &[])));
        let opened = open_all(
            named,
            Some(file_name),
            |f| &f.1,
            |number, name| {
                asked.push(name.to_owned());
                Ok::<_, Error>((number, parse(&file(number as u16 - 1, 3, 0, &[]))))
            },
        );
        opened.map(|files| (files.iter().map(|f| f.0).collect::<Vec<_>>(), asked.join(" "))).map_err(|e| e.to_string())
    };
    let (one, two, three) = ("m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf");
    assert_eq!(open(1, one), Ok((vec![1, 2, 3], format!("{two} {three}"))));
    assert_eq!(open(2, two), Ok((vec![1, 2, 3], format!("{one} {three}"))));
    assert_eq!(open(3, three), Ok((vec![1, 2, 3], format!("{one} {two}"))));
    let wanted = "split model: it is file 2 of 3 by its metadata, wanted the name ...-00002-of-00003.gguf";
    for name in [one, "m.gguf", "m-00002-of-00004.gguf", "x/m-00002-of-00003.gguf"] {
        assert_eq!(open(2, name).unwrap_err(), wanted, "{name}");
    }
}

#[test]
fn keys_that_contradict_themselves() {
    let pairs = |no: Option<u32>, count: u32| {
        let w = GgufWriter::new().pair("split.count", count);
        parse(&if let Some(no) = no { w.pair("split.no", no) } else { w }).split().map_err(|e| e.to_string())
    };
    assert_eq!(pairs(Some(2), 2).unwrap_err(), "split model: split.no is 2, but split.count is 2");
    assert_eq!(pairs(None, 2).unwrap_err(), "metadata split.no is missing");
    assert_eq!(pairs(Some(0), 10_000).unwrap_err(), "split model: split.count is 10000, wanted at most 9999");
    let words = parse(&GgufWriter::new().pair("split.count", "two"));
    assert_eq!(
        words.split().unwrap_err().to_string(),
        "metadata split.count is the string \"two\", wanted an integer of 32 bits, not negative"
    );
    let negative =
        parse(&GgufWriter::new().pair("split.no", 0u16).pair("split.count", 2u16).pair("split.tensors.count", -1i32));
    assert!(negative.split().unwrap_err().to_string().starts_with("metadata split.tensors.count is -1 of type i32"));
}

#[test]
fn siblings_of_a_name() {
    let name = SplitName::parse("a-00001-of-00002-00003-of-00012.gguf").unwrap();
    assert_eq!((name.prefix.as_str(), name.number, name.count), ("a-00001-of-00002", 3, 12));
    let siblings: Vec<_> = (1..=name.count).map(|n| name.sibling(n)).collect();
    for (sibling, number) in siblings.iter().zip(1..) {
        assert_eq!(SplitName::parse(sibling), Some(SplitName { number, ..name.clone() }));
    }
}
