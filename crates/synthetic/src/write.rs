//! A model's plan, and how its bytes are streamed: one run of rows at a time, so memory does not
//! grow with the model.

use std::io::{self, Write};

use modelembed_gguf::{Gguf, HeaderWriter, TensorType};
use modelembed_spec::{Role, Want};

use crate::vocab::fitted;
use crate::{Error, MIXES, Mix, Result, Rng, SHAPES, Shape, random_rows, wanted_tensors};

/// Seed of all weights. Each tensor has a generator of its own, from the seed and its name.
const SEED: u64 = 42;
/// Tokens of a mixture that are alike: neighbours by their ids.
pub const CLUSTER: usize = 64;
/// Of 256 blocks of a token's embedding those that its cluster has in common. So that of the experts
/// that a token of a walk through clusters uses two thirds are among the half of them that was used
/// last (OLMoE's shape, 0.65 +- 0.05).
const SHARED: usize = 64;
/// About what is made and written at a time.
const STEP_BYTES: usize = 1 << 20;

/// A model that can be written.
#[derive(Clone, Debug)]
pub struct Synthetic {
    header: HeaderWriter,
    tensors: Vec<(Want, TensorType, u64)>, // with length in bytes
}

impl Synthetic {
    /// Plans the model that `spec` names, with the vocabulary of the file that `vocab` and
    /// `vocab_header` were read from. With `layers` it has so many, for machines that are smaller
    /// than it.
    ///
    /// # Errors
    /// A spec that names nothing; a vocabulary that is missing, or whose special tokens lie beyond
    /// the model's number of tokens.
    pub fn new(spec: &str, layers: Option<usize>, vocab: &Gguf, vocab_header: &[u8]) -> Result<Synthetic> {
        let named = spec.split_once(':').and_then(|(s, m)| Some((Shape::from_name(s)?, Mix::from_name(m)?)));
        let (mut shape, mix) = named.ok_or_else(|| Error::Spec {
            seen: spec.to_owned(),
            shapes: SHAPES.map(|s| s.name).join(", "),
            formats: MIXES.map(|m| m.name).join(", "),
        })?;
        let whole = shape.n_layer;
        shape.n_layer = layers.unwrap_or(whole);
        if !(1..=whole).contains(&shape.n_layer) {
            return Err(Error::Layers { shape: shape.name, layers: shape.n_layer, most: whole });
        }
        let mut header = HeaderWriter::default();
        header.pair("general.architecture", shape.arch);
        header.pair("general.name", format!("synthetic {}:{}", shape.name, mix.name));
        header.pair("general.file_type", mix.file_type);
        header.pair("general.quantization_version", 2u32);
        shape.metadata(&mut header);
        let wants = wanted_tensors(&header, shape.n_vocab, &|tensor| shape.has(tensor))?;
        for (key, value) in fitted(vocab, vocab_header, shape.n_vocab)? {
            header.pair(&key, value);
        }
        let plan = |want: Want| {
            let ty = mix.ty(&want, shape.n_layer, shape.tied);
            // Every mix falls back on a type that divides every row of `SHAPES` (see the tests).
            let n_bytes = (want.rows() * ty.row_bytes(want.k()).unwrap_or(0)) as u64;
            header.tensor(&want.name, ty, &want.dims, n_bytes);
            (want, ty, n_bytes)
        };
        let tensors = wants.into_iter().map(plan).collect();
        Ok(Synthetic { header, tensors })
    }

    /// Length of the file.
    pub fn n_bytes(&self) -> u64 {
        let padded = |n: u64| n + self.header.padding(n) as u64;
        self.header.build().len() as u64 + self.tensors.iter().map(|t| padded(t.2)).sum::<u64>()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Whatever `out` refuses.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.header.build())?;
        for (want, ty, n_bytes) in &self.tensors {
            let (mut rng, n_rows) = (Rng::for_name(SEED, &want.name), want.rows());
            let step = (STEP_BYTES / (*n_bytes as usize / n_rows).max(1)).max(1);
            for first in (0..n_rows).step_by(step) {
                let mut rows = random_rows(want, *ty, step.min(n_rows - first), &mut rng);
                if want.role == Role::Embedding && self.is_mixture() {
                    share_blocks(want, *ty, first, &mut rows);
                }
                out.write_all(&rows)?;
            }
            out.write_all(&vec![0; self.header.padding(*n_bytes)])?;
        }
        out.flush()
    }

    fn is_mixture(&self) -> bool {
        self.tensors.iter().any(|(want, ..)| want.role == Role::Router)
    }
}

/// Gives rows of the embedding, from row `first` on, blocks in common with the others of their
/// clusters.
fn share_blocks(want: &Want, ty: TensorType, first: usize, rows: &mut [u8]) {
    let row_bytes = ty.row_bytes(want.k()).unwrap_or(rows.len());
    let block_bytes = ty.row_bytes(ty.block_len()).unwrap_or(row_bytes);
    let mut of_cluster = (usize::MAX, Vec::new());
    for (i, row) in rows.chunks_exact_mut(row_bytes).enumerate() {
        let (row_index, cluster) = (first + i, (first + i) / CLUSTER);
        if of_cluster.0 != cluster {
            let mut rng = Rng::for_name(SEED, &format!("{} cluster {cluster}", want.name));
            of_cluster = (cluster, random_rows(want, ty, 1, &mut rng));
        }
        let mut rng = Rng::for_name(SEED, &format!("{} row {row_index}", want.name));
        for (own, shared) in row.chunks_exact_mut(block_bytes).zip(of_cluster.1.chunks_exact(block_bytes)) {
            if rng.below(256) < SHARED {
                own.copy_from_slice(shared);
            }
        }
    }
}
