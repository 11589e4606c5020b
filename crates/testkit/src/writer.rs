//! Builds whole GGUF files in memory: any metadata, any tensors, either version. It checks nothing,
//! so that tests can write bad files too.

use modelembed_gguf::{GgufValue, HeaderWriter, TensorType};

/// Builds the bytes of one GGUF file: header, metadata, directory, then each tensor at a multiple
/// of the alignment.
///
/// ```
/// use modelembed_gguf::{Gguf, TensorType};
/// use modelembed_testkit::GgufWriter;
///
/// let bytes = GgufWriter::new()
///     .pair("general.architecture", "llama")
///     .tensor("token_embd.weight", TensorType::F32, &[2, 3], &[0; 24])
///     .build();
/// let gguf = Gguf::parse(&bytes, bytes.len() as u64).unwrap();
/// assert_eq!(gguf.tensor("token_embd.weight").unwrap().dims, [2, 3]);
/// ```
#[derive(Default)]
pub struct GgufWriter {
    header: HeaderWriter,
    data: Vec<Vec<u8>>, // one a tensor
}

impl GgufWriter {
    /// A version 3 file with the default alignment of 32 bytes and nothing in it.
    pub fn new() -> GgufWriter {
        GgufWriter::default()
    }

    /// Writes this version number; nothing else changes.
    pub fn version(mut self, version: u32) -> GgufWriter {
        self.header.version = version;
        self
    }

    /// Aligns tensors to this many bytes (not 0) and says so in `general.alignment`, which becomes
    /// the next pair.
    pub fn alignment(mut self, alignment: u32) -> GgufWriter {
        self.header.alignment(alignment);
        self
    }

    /// Appends a metadata pair. Keys are not checked: a key written twice stands in the file twice.
    pub fn pair(mut self, key: &str, value: impl Into<GgufValue>) -> GgufWriter {
        self.header.pair(key, value);
        self
    }

    /// Appends what a file of a split model says of itself: its number from 0, the number of files,
    /// and of all their tensors.
    pub fn split(self, index: u16, count: u16, n_tensors: i32) -> GgufWriter {
        self.pair("split.no", index).pair("split.count", count).pair("split.tensors.count", n_tensors)
    }

    /// Appends a tensor; `dims` has the row length first. Its bytes are written as they are,
    /// whatever the dimensions say.
    pub fn tensor(mut self, name: &str, ty: TensorType, dims: &[u64], data: &[u8]) -> GgufWriter {
        self.header.tensor(name, ty, dims, data.len() as u64);
        self.data.push(data.to_vec());
        self
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let mut out = self.header.build();
        for data in &self.data {
            out.extend_from_slice(data);
            out.resize(out.len() + self.header.padding(data.len() as u64), 0);
        }
        out
    }
}
