//! What a file is, by its first bytes: so that a wrong file gets an error that names it.

/// Kinds of files that are mistaken for models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// Begins with `GGUF`.
    Gguf,
    /// A GGUF file in big-endian byte order.
    GgufBigEndian,
    /// No bytes at all.
    Empty,
    /// A pointer that git-lfs left in place of the file.
    GitLfsPointer,
    /// A page, most likely one that says why a download failed.
    Html,
    /// JSON text, such as a configuration or a tokenizer.
    Json,
    /// Hugging Face's safetensors.
    Safetensors,
    /// A zip archive, such as PyTorch checkpoints are.
    Zip,
    /// A gzip, zstd, xz or bzip2 archive.
    Compressed,
    /// HDF5, as Keras writes it.
    Hdf5,
    /// TensorFlow Lite.
    TfLite,
    /// A Python pickle.
    Pickle,
    /// llama.cpp's formats before GGUF (ggml, ggmf, ggjt, ggla).
    OldGgml,
    /// An executable program.
    Executable,
    /// Short lines of plain text, such as a server's "Entry not found".
    Text,
    /// All bytes seen are zero, as in a download that never began.
    Zeros,
    /// None of these.
    Unknown,
}

impl FileKind {
    /// What to tell a user, to follow "is not a GGUF file: ".
    pub fn description(self) -> &'static str {
        match self {
            FileKind::Gguf => "it is a GGUF file",
            FileKind::GgufBigEndian => "it is in big-endian byte order; get the little-endian version of the model",
            FileKind::Empty => "it is empty; was the download interrupted?",
            FileKind::GitLfsPointer => "it is a git-lfs pointer; fetch the file itself with `git lfs pull`",
            FileKind::Html => "it is an HTML page; the download gave a web page in place of the file",
            FileKind::Json => "it is JSON text",
            FileKind::Safetensors => "it is a safetensors file; convert it to GGUF first",
            FileKind::Zip => "it is a zip archive (or a PyTorch checkpoint); unpack it or convert it to GGUF first",
            FileKind::Compressed => "it is a compressed archive; unpack it first",
            FileKind::Hdf5 => "it is an HDF5 file; convert it to GGUF first",
            FileKind::TfLite => "it is a TensorFlow Lite model; get a GGUF version of the model",
            FileKind::Pickle => "it is a Python pickle; convert it to GGUF first",
            FileKind::OldGgml => "it is in one of the ggml formats from before GGUF; get a GGUF version of the model",
            FileKind::Executable => "it is an executable program",
            FileKind::Text => "it is plain text; did a download save an error message in place of the file?",
            FileKind::Zeros => "it begins with zeros only; was the download interrupted?",
            FileKind::Unknown => "its first bytes are those of no known format",
        }
    }
}

/// Names the kind of a file from its first bytes; some hundred are enough.
pub fn identify(prefix: &[u8]) -> FileKind {
    let begins = |magic: &[u8]| prefix.starts_with(magic);
    let text = prefix.trim_ascii_start();
    let text_begins = |word: &[u8]| text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word);
    match prefix {
        [] => FileKind::Empty,
        // The version follows as a small u32.
        [b'G', b'G', b'U', b'F', 0, 0, _, 1..=255, ..] => FileKind::GgufBigEndian,
        _ if begins(b"GGUF") => FileKind::Gguf,
        _ if begins(b"version https://git-lfs") => FileKind::GitLfsPointer,
        _ if text_begins(b"<!doctype html") || text_begins(b"<html") || text_begins(b"<?xml") => FileKind::Html,
        _ if is_safetensors(prefix) => FileKind::Safetensors,
        _ if begins(b"PK\x03\x04") || begins(b"PK\x05\x06") => FileKind::Zip,
        _ if [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"].into_iter().any(begins) => {
            FileKind::Compressed
        }
        _ if [&b"tjgg"[..], b"fmgg", b"lmgg", b"algg"].into_iter().any(begins) => FileKind::OldGgml,
        _ if [&b"\x7fELF"[..], b"MZ", b"\xcf\xfa\xed\xfe"].into_iter().any(begins) => FileKind::Executable,
        _ if begins(b"\x89HDF\r\n\x1a\n") => FileKind::Hdf5,
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => FileKind::TfLite,
        [0x80, 2..=5, ..] => FileKind::Pickle,
        _ if text_begins(b"{") || text_begins(b"[") => FileKind::Json,
        _ if prefix.len() >= 4 && prefix.iter().all(|&b| b == 0) => FileKind::Zeros,
        _ if is_text(prefix) => FileKind::Text,
        _ => FileKind::Unknown,
    }
}

/// A u64 length of a JSON header, then the header.
fn is_safetensors(prefix: &[u8]) -> bool {
    let Some((length, rest)) = prefix.split_first_chunk::<8>() else { return false };
    (2..1 << 32).contains(&u64::from_le_bytes(*length)) && rest.first() == Some(&b'{')
}

/// Printable characters, as far as a cut at the end of the prefix lets one see.
fn is_text(prefix: &[u8]) -> bool {
    let start = &prefix[..prefix.len().min(256)];
    let whole = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() => std::str::from_utf8(&start[..e.valid_up_to()]).unwrap_or_default(),
        Err(_) => return false,
    };
    !whole.is_empty() && whole.chars().all(|c| !c.is_control() || c.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_their_first_bytes() {
        let cases: &[(&[u8], FileKind)] = &[
            (b"", FileKind::Empty),
            (b"GGUF\x03\0\0\0", FileKind::Gguf),
            (b"version https://git-lfs.github.com/spec/v1\noid", FileKind::GitLfsPointer),
            (b"\n <!DOCTYPE html><html>", FileKind::Html),
            (b"<HTML>", FileKind::Html),
            (b"\x40\0\0\0\0\0\0\0{\"__metadata__\"", FileKind::Safetensors),
            (b"PK\x03\x04rest", FileKind::Zip),
            (b"\x1f\x8b\x08", FileKind::Compressed),
            (b"tjgg\x03", FileKind::OldGgml),
            (b"\x7fELF\x02", FileKind::Executable),
            (b"\x80\x04\x95", FileKind::Pickle),
            (b"{\"a\":1}", FileKind::Json),
            (b"\0\0\0\0\0\0", FileKind::Zeros),
            (b"GGUF\0\0\0\x03", FileKind::GgufBigEndian),
            (b"GGUF", FileKind::Gguf),
            (b"GGU", FileKind::Text),
            (b"\x89HDF\r\n\x1a\n\0", FileKind::Hdf5),
            (b"\x1c\0\0\0TFL3", FileKind::TfLite),
            (b"Entry not found", FileKind::Text),
            (b"caf\xc3", FileKind::Text),
            (b"caf\xc3\x28", FileKind::Unknown),
            (b"\0", FileKind::Unknown),
            (b"ab\0\x01", FileKind::Unknown),
        ];
        let wrong: Vec<_> = cases.iter().filter(|(b, kind)| identify(b) != *kind).map(|c| (c, identify(c.0))).collect();
        assert!(wrong.is_empty(), "(case, seen) {wrong:?}");
    }
}
