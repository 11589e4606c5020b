//! Small files that must be refused with an error that says why: `tests/hostile/*.gguf`, described
//! in the README there.
//!
//! The files are written from the table below by
//! `MODELEMBED_WRITE_HOSTILE=1 cargo test -p modelembed-gguf --test it hostile`; without that
//! variable the test checks that the stored files are those of the table.

use std::fmt::Write;
use std::path::Path;

use modelembed_gguf::{Error, Gguf};

use crate::raw::{Raw, file, two_tensors, types};

/// A file, which rule it breaks, and what the error must say.
struct Case {
    name: &'static str,
    rule: &'static str,
    bytes: Vec<u8>,
    wanted: &'static str,
}

fn case(name: &'static str, rule: &'static str, raw: Raw, wanted: &'static str) -> Case {
    Case { name, rule, bytes: raw.0, wanted }
}

/// 2^60: times any element size it still fits into 64 bits, or just not.
const HUGE: u64 = 1 << 60;

/// The longest tensor that the format's signed sizes can tell.
const MAX_BYTES: u64 = i64::MAX as u64;

fn counts_and_lengths() -> Vec<Case> {
    let count = "counts are bounded by the rest of the file";
    let length = "lengths of strings are bounded by the rest of the file";
    vec![
        case("count-tensors", count, file(HUGE, 0), "the number of tensors is 1152921504606846976 (byte 8)"),
        case("count-tensors-fits-without-bytes", count, file(2, 0).zeros(64), "the number of tensors is 2 (byte 8)"),
        case("count-pairs", count, file(0, HUGE), "the number of metadata pairs is 1152921504606846976 (byte 16)"),
        case("count-pairs-max", count, file(0, u64::MAX).zeros(100), "the number of metadata pairs is 1844674407"),
        case("key-length-max", length, file(0, 1).u64(u64::MAX).zeros(20), "needs 18446744073709551615 bytes"),
        case("key-length-top-bit", length, file(0, 1).u64(1 << 63).zeros(20), "needs 9223372036854775808 bytes"),
        case("key-length-by-one", length, file(0, 1).u64(7).zeros(6), "a metadata key at byte 32 needs 7 bytes"),
        case("value-length-max", length, file(0, 1).key("k", types::STRING).u64(u64::MAX), "k at byte 45"),
        case("value-length-by-one", length, file(0, 1).key("k", types::STRING).u64(4).bytes(b"abc"), "k at byte 45"),
        case(
            "name-length-max",
            length,
            file(1, 0).u64(u64::MAX).zeros(40),
            "a tensor's name at byte 32 needs 18446744073709551615 bytes",
        ),
        case(
            "array-string-length-max",
            length,
            file(0, 1).array("k", types::STRING, 2).string(b"a").u64(u64::MAX).zeros(8),
            "k at byte 66 needs 18446744073709551615 bytes",
        ),
        case(
            "array-string-length-by-one",
            length,
            file(0, 1).array("k", types::STRING, 2).string(b"a").u64(4).bytes(b"abc"),
            "k at byte 66 needs 4 bytes",
        ),
    ]
}

fn versions() -> Vec<Case> {
    let rule = "versions 2 and 3, little-endian";
    let version = |v: u32| Raw(b"GGUF".to_vec()).u32(v).u64(0).u64(0);
    vec![
        case("version-0", rule, version(0), "GGUF version 0; versions 2 and 3"),
        case("version-1", rule, version(1), "GGUF version 1 (an early draft with 32-bit lengths)"),
        case("version-4", rule, version(4), "GGUF version 4;"),
        case("version-max", rule, version(u32::MAX), "GGUF version 4294967295;"),
        case("version-big-endian", rule, version(3u32.swap_bytes()), "GGUF version 3 in big-endian byte order"),
        case(
            "version-1-empty-string",
            rule,
            Raw(b"GGUF".to_vec()).u32(1).u32(0).u32(1).u32(0).u32(types::STRING).u32(0),
            "GGUF version 1",
        ),
        case(
            "magic",
            "the magic number",
            Raw(b"GGML".to_vec()).u32(3).u64(0).u64(0),
            "it begins with [47, 47, 4d, 4c]",
        ),
        case("magic-short", "the magic number", Raw(b"hi".to_vec()), "it begins with [68, 69]"),
    ]
}

fn values() -> Vec<Case> {
    let ids = "value types are looked up";
    let size = "sizes of arrays do not overflow";
    let text = "keys and strings are UTF-8, keys unique and not empty";
    vec![
        case("value-type-13", ids, file(0, 1).key("k", 13).zeros(8), "metadata k: has the unknown type 13 (byte 33)"),
        case("value-type-max", ids, file(0, 1).key("k", u32::MAX).zeros(8), "has the unknown type 4294967295"),
        case("array-type-13", ids, file(0, 1).array("k", 13, 1).zeros(8), "k: is an array of the unknown type 13"),
        case("array-of-arrays", ids, file(0, 1).array("k", types::ARRAY, 1).zeros(32), "k: is an array of arrays"),
        case(
            "bool-2",
            "a bool is 0 or 1",
            file(0, 1).key("k", types::BOOL).bytes(&[2]),
            "k: is the bool 2, wanted 0 or 1",
        ),
        case(
            "array-length-top-bit",
            size,
            file(0, 1).array("k", types::U8, 1 << 63),
            "k is 9223372036854775808 (byte 41)",
        ),
        case("array-size-wraps", size, file(0, 1).array("k", types::U64, 1 << 61).zeros(8), "k is 2305843009213693952"),
        case(
            "array-of-empty-strings",
            size,
            file(0, 1).array("k", types::STRING, HUGE).zeros(80),
            "than the 10 that can",
        ),
        case("array-by-one", size, file(0, 1).array("k", types::F32, 3).zeros(11), "k is 3 (byte 41), more than the 2"),
        case(
            "key-twice",
            text,
            file(0, 3).pair("k", 1).pair("j", 1).pair("k", 2),
            "k: stands in the file twice (byte 58)",
        ),
        case("key-empty", text, file(0, 1).pair("", 1), "metadata number 0: the key is empty (byte 24)"),
        case(
            "key-not-utf-8",
            text,
            file(0, 1).string(&[0xff, b'k']).u32(types::U32).u32(1),
            "number 0: the key is not UTF-8",
        ),
        case(
            "string-not-utf-8",
            text,
            file(0, 1).key("general.name", types::STRING).string(&[b'a', 0xc0, 0x80]),
            "metadata general.name: is a string that is not UTF-8",
        ),
        case(
            "key-steers-terminal",
            "names in messages are escaped",
            file(0, 1).key("k\u{1b}]0;owned\u{7}\u{202e}", 99).zeros(8),
            r"metadata k\u{1b}]0;owned\u{7}\u{202e}: has the unknown type 99",
        ),
    ]
}

fn alignments() -> Vec<Case> {
    let rule = "the alignment is a u32, a power of two up to 65536";
    let key = "general.alignment";
    let wanted = "metadata general.alignment is";
    let u64_value = file(0, 1).key(key, types::U64).u64(32);
    vec![
        case("alignment-0", rule, file(0, 1).pair(key, 0), "is 0 of type u32, wanted a power of two up to 65536"),
        case("alignment-3", rule, file(0, 1).pair(key, 3), "is 3 of type u32, wanted"),
        case("alignment-2-17", rule, file(0, 1).pair(key, 1 << 17), "is 131072 of type u32, wanted"),
        case("alignment-2-31", rule, file(0, 1).pair(key, 1 << 31), wanted),
        case("alignment-u64", rule, u64_value, "is 32 of type u64, wanted"),
        case(
            "alignment-string",
            rule,
            file(0, 1).key(key, types::STRING).string(b"32"),
            "is the string \"32\", wanted",
        ),
        case("alignment-array", rule, file(0, 1).array(key, types::U32, 1).u32(32), "is an array of 1 u32, wanted"),
    ]
}

fn shapes() -> Vec<Case> {
    let n_dims = "one to four dimensions, none of them 0";
    let product = "the product of dimensions does not overflow";
    let ty = "tensor types are looked up, rows are whole blocks";
    let f32s = |dims: &[u64]| file(1, 0).tensor("t", dims, 0, 0).zeros(256);
    let typed = |k: u64, id: u32| file(1, 0).tensor("t", &[k], id, 0).zeros(256);
    vec![
        case("dims-0", n_dims, f32s(&[]), "tensor t: has 0 dimensions, wanted 1 to 4"),
        case("dims-5", n_dims, f32s(&[1; 5]), "tensor t: has 5 dimensions, wanted 1 to 4"),
        case("dims-max", n_dims, file(1, 0).string(b"t").u32(u32::MAX).zeros(99), "has 4294967295 dimensions"),
        case("dim-zero", n_dims, f32s(&[4, 0]), "tensor t: dimension 1 is 0, wanted at least 1"),
        case("dim-negative", n_dims, f32s(&[u64::MAX, 4]), "tensor t: dimension 0 is -1, wanted at least 1"),
        case(
            "dims-wrap-to-0",
            product,
            f32s(&[1 << 32, 1 << 32]),
            "its dimensions [4294967296, 4294967296] are too large",
        ),
        // Modulo 2^64 the first product is 2^34, the second 2.
        case("dims-wrap-to-small", product, f32s(&[(1 << 33) + 8, 1 << 31, 1]), "are too large"),
        case("dims-wrap-to-2", product, f32s(&[3, 0x2aaa_aaaa_aaaa_aaab, 2]), "are too large"),
        case("dims-sign-bit", product, f32s(&[1 << 31, 1 << 32]), "are too large"),
        case("bytes-wrap", product, f32s(&[1 << 62]), "its dimensions [4611686018427387904] are too large"),
        // Few enough bytes, but 2^63 elements of Q1_0 in the second.
        case(
            "bytes-wrap-blocks",
            product,
            file(1, 0).tensor("t", &[1 << 31, 1 << 31], 6, 0).zeros(99),
            "go beyond the file",
        ),
        case(
            "elements-wrap-blocks",
            product,
            file(1, 0).tensor("t", &[1 << 32, 1 << 31], 41, 0).zeros(99),
            "too large",
        ),
        case("type-unknown", ty, typed(4, 99), "tensor t: has the unknown type 99"),
        case("type-max", ty, typed(4, u32::MAX), "tensor t: has the unknown type 4294967295"),
        case("type-removed", ty, typed(32, 31), "tensor t: has type 31 (Q4_0_4_4), which was removed from the format"),
        case(
            "row-no-whole-block",
            ty,
            typed(33, 8),
            "its rows have 33 elements, no multiple of the 32 in a block of Q8_0",
        ),
        case(
            "row-no-whole-k-block",
            ty,
            typed(640, 12),
            "have 640 elements, no multiple of the 256 in a block of Q4_K",
        ),
    ]
}

fn names() -> Vec<Case> {
    let rule = "tensor names are UTF-8, unique, of 1 to 63 bytes";
    let named = |name: &[u8]| file(1, 0).string(name).u32(1).u64(8).u32(0).u64(0).zeros(99);
    vec![
        case("name-empty", rule, named(b""), "tensor number 0: its name is empty"),
        case("name-64", rule, named(&[b'n'; 64]), "tensor number 0: its name has 64 bytes, wanted at most 63"),
        case("name-not-utf-8", rule, named(&[b'n', 0x80]), "tensor number 0: its name is not UTF-8"),
        case(
            "name-twice",
            rule,
            two_tensors(file(2, 0), ("t", 0), ("t", 32)),
            "tensor t: stands in the directory twice",
        ),
    ]
}

fn extents() -> Vec<Case> {
    let inside = "tensors lie within the file";
    let order = "tensors are aligned, in the directory's order, without overlap";
    let at = |offset: u64| file(1, 0).tensor("t", &[8], 0, offset);
    vec![
        // The directory ends at byte 57, so that data begins at 64 and a tensor at offset 0 ends
        // at 96.
        case(
            "data-missing",
            inside,
            at(0),
            "tensor t: its 32 bytes at offset 0 of the data (which begins at byte 64) go beyond",
        ),
        case(
            "data-short-by-one",
            inside,
            at(0).zeros(38),
            "go beyond the file's end at 95; the file may have been cut off",
        ),
        case("offset-beyond", inside, at(1 << 20).zeros(99), "its 32 bytes at offset 1048576 of the data"),
        case(
            "offset-wraps",
            inside,
            at(u64::MAX - 31).zeros(99),
            "its 32 bytes at offset 18446744073709551584 of the data",
        ),
        // Start of data plus offset is 0 modulo 2^64: inside the file again.
        case("offset-wraps-to-start", inside, at(u64::MAX - 63).zeros(99), "go beyond the file's end"),
        case(
            "extent-huge",
            inside,
            file(1, 0).tensor("t", &[1 << 40], 0, 0).zeros(99),
            "its 4398046511104 bytes at offset 0",
        ),
        // Each is one byte short of 2^63 bytes; the sum of their padded sizes is 0 modulo 2^64.
        case(
            "padded-sizes-wrap",
            inside,
            file(2, 0).tensor("a", &[MAX_BYTES], 24, 0).tensor("b", &[MAX_BYTES], 24, 1 << 63).zeros(99),
            "tensor a: its 9223372036854775807 bytes at offset 0",
        ),
        case("offset-unaligned", order, at(4).zeros(99), "tensor t: its offset 4 is no multiple of the alignment 32"),
        case(
            "tensors-overlap",
            order,
            two_tensors(file(2, 0), ("a", 0), ("b", 0)),
            "tensor b: begins at byte 96, but tensor a",
        ),
        case(
            "tensors-out-of-order",
            order,
            two_tensors(file(2, 0), ("a", 32), ("b", 0)),
            "tensor b: begins at byte 96, but tensor a",
        ),
    ]
}

fn cut_off() -> Vec<Case> {
    let rule = "the file holds its whole header";
    vec![
        case("cut-empty", rule, Raw(vec![]), "the file ends at byte 0, but the magic number at byte 0 needs 4 bytes"),
        case("cut-in-magic", rule, Raw(b"GGU".to_vec()), "the file ends at byte 3, but the magic number at byte 0"),
        case("cut-after-magic", rule, Raw(b"GGUF".to_vec()), "but the version at byte 4 needs 4 bytes"),
        case("cut-in-counts", rule, Raw(b"GGUF".to_vec()).u32(3).u64(0), "but the number of metadata pairs at byte 16"),
        case("cut-in-value", rule, file(0, 1).key("key", types::U64).zeros(7), "but key at byte 39 needs 8 bytes"),
        case(
            "cut-in-directory",
            rule,
            file(1, 0).string(b"tensor").u32(1).u64(8).u32(0).u32(0),
            "but tensor at byte 54 needs 8 bytes",
        ),
    ]
}

fn all() -> Vec<Case> {
    let parts = [counts_and_lengths, versions, values, alignments, shapes, names, extents, cut_off];
    parts.iter().flat_map(|part| part()).collect()
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile"))
}

fn readme(cases: &[Case]) -> String {
    let mut out = String::from(
        "# Hostile GGUF files\n\n\
         Each of these files breaks one rule and must be refused, with an error that says which. They are free to use for testing\n\
         other parsers, and are seeds for the fuzz target `parse`. `tests/it/hostile.rs` makes them and this page.\n\n\
         | file | rule that it breaks | the error holds |\n|---|---|---|\n",
    );
    for c in cases {
        writeln!(out, "| `{}.gguf` | {} | `{}` |", c.name, c.rule, c.wanted).unwrap();
    }
    out
}

#[test]
fn each_is_refused_with_its_reason() {
    let mut wrong = Vec::new();
    for Case { name, bytes, wanted, .. } in all() {
        let seen = match Gguf::parse(&bytes, bytes.len() as u64) {
            Ok(_) => "accepted".to_owned(),
            Err(Error::HeaderTruncated { .. }) => "asks for more of a file that was given whole".to_owned(),
            Err(e) => e.to_string(),
        };
        if !seen.contains(wanted) || seen.contains(|c: char| c.is_control()) || seen.len() > 400 {
            wrong.push((name, seen, wanted));
        }
    }
    assert!(wrong.is_empty(), "(file, seen, wanted) {wrong:#?}");
}

/// A caller that reads a file piece by piece ends with the same error, and never needs more than
/// the file.
#[test]
fn each_is_refused_when_read_piece_by_piece() {
    let mut wrong = Vec::new();
    for Case { name, bytes, wanted, .. } in all() {
        let mut have = 0;
        let seen = loop {
            match Gguf::parse(&bytes[..have], bytes.len() as u64) {
                Ok(_) => break "accepted".to_owned(),
                Err(Error::HeaderTruncated { have_bytes, needed_bytes }) => {
                    assert_eq!(have_bytes, have as u64, "{name}");
                    assert!(needed_bytes > have_bytes && needed_bytes <= bytes.len() as u64, "{name}: {needed_bytes}");
                    have = needed_bytes as usize;
                }
                Err(e) => break e.to_string(),
            }
        };
        if !seen.contains(wanted) {
            wrong.push((name, have, seen, wanted));
        }
    }
    assert!(wrong.is_empty(), "(file, bytes given, seen, wanted) {wrong:#?}");
}

#[test]
fn stored_files_are_those_of_the_table() {
    let cases = all();
    let write = std::env::var_os("MODELEMBED_WRITE_HOSTILE").is_some();
    let mut files: Vec<(String, Vec<u8>)> =
        cases.iter().map(|c| (format!("{}.gguf", c.name), c.bytes.clone())).collect();
    files.push(("README.md".into(), readme(&cases).into_bytes()));
    for (name, bytes) in &files {
        if write {
            std::fs::write(folder().join(name), bytes).unwrap();
        }
        assert!(bytes.len() < 1024 || name == "README.md", "{name} is small");
        assert!(std::fs::read(folder().join(name)).is_ok_and(|b| b == *bytes), "{name} differs from the table");
    }
    let stored = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let unknown: Vec<String> = stored.filter(|s| !files.iter().any(|(name, _)| name == s)).collect();
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
}

/// `docs/hostile-files.md` says which test holds which rule: each is there.
#[test]
fn the_page_of_rules_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/hostile-files.md")).unwrap();
    let quoted: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let pairs = quoted
        .windows(2)
        .filter(|w| w[0].ends_with(".rs") && w[1].bytes().all(|b| b == b'_' || b.is_ascii_lowercase()));
    let missing: Vec<_> = pairs
        .clone()
        .filter(|w| {
            let source = std::fs::read_to_string(root.join(w[0])).unwrap_or_default();
            ["", "    "].iter().all(|indent| !source.contains(&format!("#[test]\n{indent}fn {}()", w[1])))
        })
        .collect();
    assert!(missing.is_empty(), "(file, test) {missing:?}");
    assert!(pairs.count() > 20, "the page names its tests");
    for rule in 1..=21 {
        assert!(page.contains(&format!("\n| {rule} ")), "rule {rule}");
    }
}

/// Files too large to store: names that fit the file but not the format.
#[test]
fn limits_that_take_a_large_file_to_pass() {
    let parse = |raw: Raw| Gguf::parse(&raw.0, raw.0.len() as u64).map(|_| ()).map_err(|e| e.to_string());
    let key = |n: usize| file(0, 1).pair(&"k".repeat(n), 1);
    assert_eq!(parse(key(65_535)), Ok(()));
    let seen = parse(key(65_536)).unwrap_err();
    assert_eq!(seen, "metadata number 0: the key has 65536 bytes, wanted at most 65535 (byte 24)");

    let pairs = |n: u64| (0..n).fold(file(0, n), |raw, i| raw.pair(&i.to_string(), 1));
    assert_eq!(parse(pairs(65_536)), Ok(()));
    let seen = parse(pairs(65_537)).unwrap_err();
    assert_eq!(seen, "the number of metadata pairs is 65537 (byte 16), more than the 65536 that can be in this file");

    // A prefix is not asked to grow for a key, a string or a name that is refused anyway.
    let long =
        [file(0, 1).u64(1 << 40), file(0, 1).key("general.name", types::STRING).u64(1 << 40), file(1, 0).u64(1 << 40)];
    for raw in long {
        let seen = Gguf::parse(&raw.0, 1 << 50).unwrap_err().to_string();
        assert!(seen.contains("has 1099511627776 bytes") || seen.contains("of 1099511627776 bytes, wanted"), "{seen}");
    }
}
