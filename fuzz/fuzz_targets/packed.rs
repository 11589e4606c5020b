//! Any bytes as a program with a model: what is found lies within the file; a manifest with a right
//! hash, but any numbers, too.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use modelembed_packed::{Packed, sha256_hex, unpack_names};

fn check(bytes: &[u8]) {
    let Ok(Some(packed)) = Packed::find_in(&mut Cursor::new(bytes), Path::new("x")) else { return };
    let mut end = packed.program_range().end;
    for part in &packed.manifest().parts {
        let range = part.range();
        assert!(range.start >= end && range.start % 65536 == 0 && range.end <= bytes.len() as u64 && !range.is_empty());
        end = range.end;
        let _ = part.check_header(&bytes[range.start as usize..range.end as usize]);
    }
    for name in unpack_names(&packed, Path::new("/nonexistent/out")).into_iter().flatten() {
        assert!(!name.components().any(|c| c.as_os_str() == ".."));
    }
}

/// A mark of 64 bytes: what `crates/packed/src/mark.rs` describes.
fn mark(described: &[u8], number: u64, kind: u32) -> Vec<u8> {
    let mut fields = number.to_le_bytes().to_vec();
    fields.extend(1u32.to_le_bytes());
    fields.extend(kind.to_le_bytes());
    fields.extend(b"modelembedPACKED");
    let hash = sha256_hex(&[described, &fields].concat());
    let hash = (0..32).map(|i| u8::from_str_radix(&hash[2 * i..2 * i + 2], 16).unwrap_or(0));
    hash.chain(fields.iter().copied()).collect()
}

/// The smallest program and model that there are, with any description and marks that fit it.
fn sealed(json: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 65536 - 64];
    out.extend(mark(&[], 65536, 0));
    out.extend([0; 10]);
    out.extend(json);
    out.extend(mark(json, json.len() as u64, 1));
    out
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&sealed(bytes));
});
