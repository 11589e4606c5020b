//! The tensors that a model's metadata implies, and how the values of each are drawn.

use modelembed_gguf::{Gguf, HeaderWriter, TensorType};
use modelembed_spec::{Directory, ModelSpec, Planned, Program, Role, Want};

use crate::{Result, Rng, random_tensor};

/// Every tensor of the model that `metadata` describes, in the order of llama.cpp's quantiser:
/// those of no layer, then layer by layer, by name. `has` decides about tensors that a file may
/// have.
///
/// # Errors
/// Metadata that describes no model that is known.
pub fn wanted_tensors(metadata: &HeaderWriter, n_vocab: usize, has: &dyn Fn(&str) -> bool) -> Result<Vec<Want>> {
    let header = metadata.build();
    let spec = ModelSpec::from_gguf(&Gguf::parse(&header, header.len() as u64)?, &header)?;
    let program = Program::new(&spec, Directory::Planned(Planned { n_vocab, has }))?;
    let mut wants = program.tensors().to_vec();
    wants.sort_by(|a, b| (a.layer, &a.name).cmp(&(b.layer, &b.name)));
    Ok(wants)
}

/// How the values of a tensor are drawn.
enum Values {
    /// A matrix that at gain 1 keeps the size of a random input.
    Matrix { gain: f32 },
    /// Normal values.
    Vector { centre: f32, deviation: f32 },
    /// Negative, most of them small.
    Negative,
    /// 1 for the fast half of the pairs, then rising to `last`, as Llama 3.1's divisors do.
    Divisors { last: f32 },
}

impl Values {
    fn of(want: &Want) -> Values {
        match want.role {
            // Tied embeddings are the output matrix as well: a gain of 3 spreads the logits over a
            // few units.
            Role::Embedding | Role::LayerEmbedding | Role::Positions | Role::Head => Values::Matrix { gain: 3.0 },
            // Queries and keys of more than unit size: attention that is far from uniform shows a
            // wrong position.
            Role::Query | Role::Key | Role::QueryKeyValue => Values::Matrix { gain: 1.5 },
            Role::Value | Role::AttentionOutput | Role::Gate | Role::Up | Role::GateUp => Values::Matrix { gain: 1.0 },
            Role::RecurrenceInput | Role::RecurrenceOutput | Role::LayerProjection => Values::Matrix { gain: 1.0 },
            // Experts whose probabilities are well apart.
            Role::Router => Values::Matrix { gain: 3.0 },
            Role::Down => Values::Matrix { gain: 2.0 },
            // Makes up for the root of the embedding's length, which the router's numbers are divided by.
            Role::Norm if want.name.ends_with("ffn_gate_inp.scale") => Values::Vector { centre: 8.0, deviation: 1.6 },
            Role::Norm | Role::Scale => Values::Vector { centre: 1.0, deviation: 0.2 },
            Role::Bias => Values::Vector { centre: 0.0, deviation: 0.5 },
            Role::Convolution => Values::Vector { centre: 0.3, deviation: 0.5 },
            // Some heads remember a few positions, some a few hundred.
            Role::Decay => Values::Negative,
            Role::RopeFactors if want.name == "rope_factors_short.weight" => Values::Divisors { last: 2.0 },
            Role::RopeFactors => Values::Divisors { last: 8.0 },
        }
    }
}

/// The next `rows` rows of a tensor as they are stored, drawn from `rng`. Vectors must be F32.
///
/// # Panics
/// When a row is no whole number of blocks.
pub fn random_rows(want: &Want, ty: TensorType, rows: usize, rng: &mut Rng) -> Vec<u8> {
    let k = want.k();
    match Values::of(want) {
        Values::Matrix { gain } => random_tensor(ty, rows, k, gain / (k as f32).sqrt(), rng),
        Values::Vector { centre, deviation } => {
            (0..rows * k).flat_map(|_| (centre + deviation * rng.normal()).to_le_bytes()).collect()
        }
        Values::Negative => (0..rows * k).flat_map(|_| (-(1.5 * rng.normal() - 3.0).exp()).to_le_bytes()).collect(),
        Values::Divisors { last } => {
            let slow = k - k / 2;
            let rise = |i: usize| if i < k / 2 { 0.0 } else { (i - k / 2 + 1) as f32 };
            (0..k).flat_map(|i| (1.0 + (last - 1.0) * rise(i) / slow as f32).to_le_bytes()).collect()
        }
    }
}
