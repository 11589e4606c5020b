//! Typed access to metadata: what fits is given, what does not is an error that names the key, what
//! is there and what was wanted.

use std::fmt::Debug;

use modelembed_gguf::{Gguf, Result, ValueType};
use modelembed_testkit::{GgufValue, GgufWriter};

fn with(value: impl Into<GgufValue>) -> (Gguf, Vec<u8>) {
    let bytes = GgufWriter::new().pair("k", value).build();
    (Gguf::parse(&bytes, bytes.len() as u64).unwrap(), bytes)
}

/// An accessor under test.
type Access = fn(&Gguf) -> String;

/// What an accessor gives, as text.
fn show<T: Debug>(seen: Result<Option<T>>) -> String {
    match seen {
        Ok(Some(value)) => format!("{value:?}"),
        Ok(None) => "absent".into(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn scalars() {
    let u32: Access = |g| show(g.u32("k"));
    let u64: Access = |g| show(g.u64("k"));
    let f32: Access = |g| show(g.f32("k"));
    let bool: Access = |g| show(g.bool("k"));
    let str: Access = |g| show(g.str("k"));
    let int = "wanted an integer of 32 bits, not negative";
    let cases: Vec<(GgufValue, Access, String)> = vec![
        // Any integer type will do where the value fits.
        (200u8.into(), u32, "200".into()),
        (7i8.into(), u32, "7".into()),
        (60_000u16.into(), u32, "60000".into()),
        (7i16.into(), u32, "7".into()),
        (u32::MAX.into(), u32, "4294967295".into()),
        (7i32.into(), u32, "7".into()),
        (7u64.into(), u32, "7".into()),
        (7i64.into(), u32, "7".into()),
        (u64::MAX.into(), u64, "18446744073709551615".into()),
        (0i64.into(), u64, "0".into()),
        (0.5f32.into(), f32, "0.5".into()),
        (0.1f64.into(), f32, "0.1".into()),
        (true.into(), bool, "true".into()),
        ("text".into(), str, "\"text\"".into()),
        // What does not fit, and other types.
        ((-1i32).into(), u32, format!("metadata k is -1 of type i32, {int}")),
        ((1u64 << 32).into(), u32, format!("metadata k is 4294967296 of type u64, {int}")),
        ((-1i64).into(), u64, "metadata k is -1 of type i64, wanted an integer, not negative".into()),
        (1.5f32.into(), u32, format!("metadata k is 1.5 of type f32, {int}")),
        (f64::MAX.into(), u32, format!("metadata k is 1.7976931348623157e308 of type f64, {int}")),
        (true.into(), u32, format!("metadata k is true of type bool, {int}")),
        ("12".into(), u32, format!("metadata k is the string \"12\", {int}")),
        (vec![1u32, 2].into(), u32, format!("metadata k is an array of 2 u32, {int}")),
        (1u32.into(), f32, "metadata k is 1 of type u32, wanted a floating-point number".into()),
        (1u8.into(), bool, "metadata k is 1 of type u8, wanted a bool".into()),
        (1u8.into(), str, "metadata k is 1 of type u8, wanted a string".into()),
        ("a\u{1b}[2J".into(), u32, format!("metadata k is the string \"a\\u{{1b}}[2J\", {int}")),
    ];
    let wrong: Vec<_> = cases
        .into_iter()
        .map(|(value, access, wanted)| (access(&with(value).0), wanted))
        .filter(|(seen, wanted)| seen != wanted)
        .collect();
    assert!(wrong.is_empty(), "(seen, wanted) {wrong:#?}");
}

#[test]
fn absent_keys_are_no_error() {
    let (gguf, _) = with(1u32);
    let seen = [
        show(gguf.u32("no")),
        show(gguf.u64("no")),
        show(gguf.f32("no")),
        show(gguf.bool("no")),
        show(gguf.str("no")),
        show(gguf.strings("no")),
        show(gguf.f32s("no")),
        show(gguf.i32s("no")),
        show(gguf.u32s("no")),
        show(gguf.u8s("no")),
        show(gguf.bools("no")),
    ];
    assert!(seen.iter().all(|s| s == "absent"), "{seen:?}");
    assert!(gguf.get("no").is_none() && gguf.tensor("no").is_none());
}

#[test]
fn arrays_of_the_right_type_are_read() {
    let (gguf, header) = with(vec!["a", "", "\u{2581}the"]);
    let strings = gguf.strings("k").unwrap().unwrap();
    let all: Vec<&[u8]> = strings.iter(&header).collect();
    assert_eq!(all, [&b"a"[..], b"", "\u{2581}the".as_bytes()]);
    assert_eq!((strings.len(), strings.get(&header, 2), strings.get(&header, 3)), (3, Some(all[2]), None));

    let bytes = GgufValue::Array(ValueType::String, vec![GgufValue::String(vec![0xff, 0xfe])]);
    let (gguf, header) = with(bytes);
    let strings = gguf.strings("k").unwrap().unwrap();
    assert_eq!(strings.get(&header, 0), Some(&[0xff, 0xfe][..]), "tokens need not be UTF-8");

    let (gguf, header) = with(vec![0.5f32, -2.0]);
    let scores = gguf.f32s("k").unwrap().unwrap();
    assert_eq!(
        (scores.to_vec(&header), scores.get(&header, 1), scores.get(&header, 2)),
        (vec![0.5, -2.0], Some(-2.0), None)
    );

    let (gguf, header) = with(vec![1i32, -1]);
    assert_eq!(gguf.i32s("k").unwrap().unwrap().to_vec(&header), [1, -1]);
    assert_eq!(gguf.u32s("k").unwrap().unwrap().to_vec(&header), [1, u32::MAX]);
    let (gguf, header) = with(vec![1u32, 5]);
    assert_eq!(gguf.i32s("k").unwrap().unwrap().to_vec(&header), [1, 5]);

    let (gguf, header) = with(vec![1u8, 255]);
    assert_eq!(gguf.u8s("k").unwrap().unwrap().to_vec(&header), [1, 255]);
    let (gguf, header) = with(vec![true, false]);
    assert_eq!(gguf.bools("k").unwrap().unwrap().to_vec(&header), [true, false]);
}

#[test]
fn arrays_of_another_type_are_refused() {
    let cases: Vec<(GgufValue, Access, &str)> = vec![
        // Files exist whose scores or token types are of a narrower type: reading them as wider
        // ones runs off their end.
        (vec![1u8, 2].into(), |g| show(g.f32s("k")), "metadata k is an array of 2 u8, wanted an array of f32"),
        (vec![1u8, 2].into(), |g| show(g.i32s("k")), "metadata k is an array of 2 u8, wanted an array of i32"),
        (vec![1i64].into(), |g| show(g.u32s("k")), "metadata k is an array of 1 i64, wanted an array of u32"),
        (vec![1f32].into(), |g| show(g.strings("k")), "metadata k is an array of 1 f32, wanted an array of strings"),
        (vec!["a"].into(), |g| show(g.u8s("k")), "metadata k is an array of 1 string, wanted an array of bytes"),
        (vec![1u8].into(), |g| show(g.bools("k")), "metadata k is an array of 1 u8, wanted an array of bools"),
        (1f32.into(), |g| show(g.f32s("k")), "metadata k is 1.0 of type f32, wanted an array of f32"),
        ("a".into(), |g| show(g.strings("k")), "metadata k is the string \"a\", wanted an array of strings"),
    ];
    let wrong: Vec<_> = cases
        .into_iter()
        .map(|(value, access, wanted)| (access(&with(value).0), wanted))
        .filter(|(seen, wanted)| seen != wanted)
        .collect();
    assert!(wrong.is_empty(), "(seen, wanted) {wrong:#?}");
}

#[test]
fn facts_of_the_header() {
    use modelembed_gguf::TensorType;
    for (version, alignment) in [(2, 32), (3, 1), (3, 65_536)] {
        let writer = GgufWriter::new().version(version).alignment(alignment);
        let bytes = writer
            .tensor("a", TensorType::F32, &[3], &[1; 12])
            .tensor("b", TensorType::Q8_0, &[32, 2], &[2; 68])
            .build();
        let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
        assert_eq!((gguf.version(), gguf.alignment()), (version, alignment.into()));
        assert!(gguf.data_offset().is_multiple_of(alignment.into()));
        let keys: Vec<&str> = gguf.metadata().map(|(k, _)| k).collect();
        assert_eq!(keys, ["general.alignment"]);
        for (name, byte) in [("a", 1), ("b", 2)] {
            let t = gguf.tensor(name).unwrap();
            let data = &bytes[t.offset as usize..][..t.n_bytes as usize];
            assert!(data.iter().all(|b| *b == byte), "{name} at alignment {alignment}");
        }
    }
}
