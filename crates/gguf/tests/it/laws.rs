//! Laws of the parser: whatever the bytes are, it answers, and what it accepts can be used.

use modelembed_gguf::{Error, Gguf, TensorType, Value};
use modelembed_testkit::{GgufValue, GgufWriter, Rng};

use crate::raw::types;

/// A file with every type of value, arrays of all kinds, and tensors of several types.
fn valid() -> Vec<u8> {
    let zeros = [0; 256];
    GgufWriter::new()
        .pair("general.architecture", "test")
        .alignment(64)
        .pair("u8", 1u8)
        .pair("i8", -1i8)
        .pair("u16", 1u16)
        .pair("i16", -1i16)
        .pair("u32", 1u32)
        .pair("i32", -1i32)
        .pair("f32", 1f32)
        .pair("bool", true)
        .pair("u64", 1u64)
        .pair("i64", -1i64)
        .pair("f64", 1f64)
        .pair("strings", vec!["one", "", "three"])
        .pair("f32s", vec![1f32, 2.0, 3.0])
        .pair("bools", GgufValue::from(vec![true, false]))
        .pair("none", Vec::<u64>::new())
        .pair("no-strings", Vec::<&str>::new())
        .tensor("vector", TensorType::F32, &[3], &zeros[..12])
        .tensor("matrix", TensorType::Q4_0, &[32, 5], &zeros[..90])
        .tensor("cube", TensorType::I8, &[3, 2, 4], &zeros[..24])
        .build()
}

/// Parses, and reads everything that an accepted file offers, out of `now`: the same file, or what
/// became of it.
fn exercise_with(bytes: &[u8], file_bytes: u64, now: &[u8]) -> Result<Gguf, Error> {
    let gguf = Gguf::parse(bytes, file_bytes)?;
    for (key, value) in gguf.metadata() {
        assert_eq!(gguf.get(key).map(Value::ty), Some(value.ty()));
        let Value::Array(a) = value else { continue };
        assert!(a.byte_range().end <= bytes.len());
        if let Some(strings) = a.strings() {
            assert_eq!(strings.iter(now).count(), a.len());
            assert_eq!(strings.get(now, a.len()), None);
        }
        if let Some(numbers) = a.numbers::<f32>() {
            assert!(numbers.to_vec(now).len() <= a.len());
            assert_eq!(numbers.get(now, a.len()), None);
            let last = a.len().checked_sub(1).and_then(|i| numbers.get(now, i));
            assert!(last.is_none() || numbers.to_vec(now).last().map(|v| v.to_bits()) == last.map(f32::to_bits));
        }
    }
    for t in gguf.tensors() {
        assert!(t.offset >= gguf.data_offset() && t.offset + t.n_bytes <= file_bytes);
        assert!(t.offset.is_multiple_of(gguf.alignment()));
        assert!(!t.dims.is_empty() && t.dims.iter().product::<u64>() > 0);
        assert_eq!(gguf.tensor(&t.name), Some(t));
    }
    let _ = gguf.split();
    Ok(gguf)
}

fn exercise(bytes: &[u8]) -> Result<Gguf, Error> {
    exercise_with(bytes, bytes.len() as u64, bytes)
}

#[test]
fn every_truncation_of_a_file_is_an_error() {
    let bytes = valid();
    let gguf = exercise(&bytes).expect("the whole file is good");
    let data_end = gguf.tensors().iter().map(|t| t.offset + t.n_bytes).max().unwrap() as usize;
    for n in 0..bytes.len() {
        match exercise(&bytes[..n]) {
            // Only the padding behind the last tensor may be missing.
            Ok(_) => assert!(n >= data_end, "{n} of {} bytes were accepted", bytes.len()),
            Err(Error::HeaderTruncated { .. }) => panic!("{n} bytes: asks for more of a whole file"),
            Err(Error::Magic { .. } | Error::Version(_)) => panic!("{n} bytes: not a matter of the magic number"),
            Err(e) => {
                let text = e.to_string();
                assert!(n < data_end, "{n} bytes: {text}");
                assert!(n < gguf.data_offset() as usize || text.contains("cut off"), "{n} bytes: {text}");
            }
        }
    }
}

/// The prefix of a longer file is never blamed on the file, and asking for what is needed leads to
/// the end.
#[test]
fn every_prefix_of_a_header_asks_for_more() {
    let bytes = valid();
    let len = bytes.len() as u64;
    let whole = exercise(&bytes).unwrap();
    for n in 0..bytes.len() {
        match Gguf::parse(&bytes[..n], len) {
            Ok(gguf) => assert_eq!(gguf.tensors(), whole.tensors(), "{n} bytes"),
            Err(Error::HeaderTruncated { have_bytes, needed_bytes }) => {
                assert!(have_bytes == n as u64 && needed_bytes > have_bytes && needed_bytes <= len, "{n} bytes");
                assert!(needed_bytes <= whole.data_offset(), "{n} bytes: wants {needed_bytes}, tensor data among them");
            }
            Err(e) => panic!("{n} bytes: {e}"),
        }
    }
}

/// Values that lengths, counts, ids and offsets go wrong with.
const NASTY: [u64; 14] = [
    0,
    1,
    7,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 60,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Every field of the header stands somewhere: so each byte position gets each nasty value, as u32
/// and as u64.
#[test]
fn nasty_numbers_at_every_position() {
    let bytes = valid();
    let header = exercise(&bytes).unwrap().data_offset() as usize;
    let (mut accepted, mut refused) = (0, 0);
    for at in 0..header {
        for value in NASTY {
            for width in [4, 8] {
                let mut bad = bytes.clone();
                bad[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                match exercise(&bad) {
                    Ok(_) => accepted += 1,
                    Err(Error::HeaderTruncated { .. }) => panic!("{value:#x} at {at}: asks for more of a whole file"),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(accepted > 0 && refused > accepted, "{accepted} accepted, {refused} refused: the loop reaches nothing");
}

#[test]
fn every_flipped_bit() {
    let bytes = valid();
    let header = exercise(&bytes).unwrap().data_offset() as usize;
    for at in 0..header {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            let _ = exercise(&bad);
            // The same header in front of a file that is longer than any disk.
            let _ = exercise_with(&bad, 1 << 62, &bad);
        }
    }
}

#[test]
fn random_files() {
    let bytes = valid();
    let mut rng = Rng::new(7);
    for round in 0..20_000 {
        let mut bad = Vec::new();
        if round % 2 == 0 {
            // Several spans of a good file, some copied, some random.
            while bad.len() < bytes.len() && rng.below(12) > 0 {
                let (start, n) = (rng.below(bytes.len()), rng.below(200));
                let start = if rng.below(3) > 0 { bad.len().min(bytes.len()) } else { start };
                bad.extend_from_slice(&bytes[start..bytes.len().min(start + n)]);
                let noise = rng.below(3);
                rng.bytes(noise, &mut bad);
            }
        } else {
            bad.extend_from_slice(&bytes[..8]);
            bad.extend((rng.below(4) as u64).to_le_bytes());
            bad.extend((rng.below(9) as u64).to_le_bytes());
            // Small numbers make lengths and ids that are often good.
            let n = rng.below(300);
            (0..n).for_each(|_| bad.push(if rng.below(3) == 0 { rng.below(14) as u8 } else { 0 }));
        }
        let _ = exercise(&bad);
    }
}

/// A mapped file can change after it was parsed: reads are checked against what is there then.
#[test]
fn a_file_that_changes_underneath() {
    let bytes = valid();
    let len = bytes.len() as u64;
    for n in 0..bytes.len() {
        exercise_with(&bytes, len, &bytes[..n]).expect("the file was good when it was parsed");
    }
    let ones = vec![0xff; bytes.len()];
    let gguf = exercise_with(&bytes, len, &ones).unwrap();
    let strings = gguf.strings("strings").unwrap().unwrap();
    assert_eq!(strings.get(&ones, 0), Some(&[0xff; 3][..]), "lengths are those of the time of parsing");
    assert_eq!(gguf.bools("bools").unwrap().unwrap().to_vec(&ones), [true, true]);
}

/// Promises of a file that may hold them are not believed before the bytes are there.
#[test]
fn a_header_larger_than_its_bytes_is_not_read_ahead_of_them() {
    let head = crate::raw::file(1 << 40, 1).array("tokens", types::STRING, 1 << 40);
    match Gguf::parse(&head.0, 1 << 62) {
        Err(Error::HeaderTruncated { have_bytes, needed_bytes }) => assert_eq!(needed_bytes, have_bytes + 8),
        other => panic!("{other:?}"),
    }
}
