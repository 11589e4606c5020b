//! Any bytes as a GGUF file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modelembed_gguf::{Error, Gguf, Value, identify, split};

fuzz_target!(|bytes: &[u8]| {
    let _ = identify(bytes).description();
    let len = bytes.len() as u64;
    let whole = Gguf::parse(bytes, len);
    match &whole {
        Ok(gguf) => read_everything(gguf, bytes),
        Err(Error::HeaderTruncated { .. }) => panic!("asks for more of a whole file"),
        Err(e) => assert!(!e.to_string().contains(|c: char| c.is_control()), "{e:?}"),
    }
    // Read piece by piece, as a caller without the whole file at hand does: the outcome must be the
    // same.
    let mut have = bytes.len().min(64);
    let pieces = loop {
        match Gguf::parse(&bytes[..have], len) {
            Err(Error::HeaderTruncated { needed_bytes, .. }) => {
                assert!(needed_bytes > have as u64 && needed_bytes <= len);
                have = (needed_bytes as usize).max(2 * have).min(bytes.len());
            }
            other => break other,
        }
    };
    match (&whole, &pieces) {
        (Ok(a), Ok(b)) => assert_eq!(a.tensors(), b.tensors()),
        (Err(a), Err(b)) => assert_eq!(a, b),
        _ => panic!("{whole:?} as a whole, {pieces:?} piece by piece"),
    }
    // The same bytes in front of a file that is longer than any disk.
    let _ = Gguf::parse(bytes, u64::MAX);
});

fn read_everything(gguf: &Gguf, bytes: &[u8]) {
    for t in gguf.tensors() {
        assert!(t.offset >= gguf.data_offset() && t.offset + t.n_bytes <= bytes.len() as u64);
        assert_eq!(gguf.tensor(&t.name), Some(t));
    }
    for (key, value) in gguf.metadata() {
        assert!(gguf.get(key).is_some());
        let Value::Array(a) = value else { continue };
        // The file may have become shorter since.
        for now in [bytes, &bytes[..bytes.len() / 2]] {
            let n = a.strings().map(|s| s.iter(now).map(<[u8]>::len).sum::<usize>());
            assert!(n.unwrap_or(0) <= bytes.len());
            let _ = a.numbers::<f32>().map(|n| n.to_vec(now));
            let _ = a.numbers::<bool>().map(|n| n.to_vec(now));
        }
    }
    let _ = gguf.split();
    if let Ok(mut alone) = Gguf::parse(bytes, bytes.len() as u64) {
        let _ = split::join(&mut [&mut alone]);
        assert_eq!(alone.tensors(), gguf.tensors());
    }
}
