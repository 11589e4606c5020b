//! Which tensor gets which type: the choices of llama.cpp's quantiser, so that a file has the real
//! one's size and mix of kernels.

use modelembed_gguf::TensorType::{
    self, BF16, F16, F32, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4_NL, IQ4_XS, MXFP4, Q2_K, Q4_0, Q4_1, Q4_K, Q5_0,
    Q5_1, Q5_K, Q6_K, Q8_0,
};
use modelembed_spec::{Role, Want};

/// A quantisation format of whole files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// The name in lower case.
    pub name: &'static str,
    /// Type of most matrices.
    pub base: TensorType,
    /// Type of `attn_v` and `ffn_down` in the layers that get more bits.
    pub finer: TensorType,
    /// Type of the matrices that experts have each their part of, where it is another.
    pub experts: Option<TensorType>,
    /// Type of the output head, which is the embedding in models that tie the two.
    pub output: TensorType,
    /// The number that `general.file_type` has.
    pub file_type: u32,
}

const fn mix(name: &'static str, file_type: u32, base: TensorType, finer: TensorType, output: TensorType) -> Mix {
    Mix { name, base, finer, experts: None, output, file_type }
}

/// All formats.
pub const MIXES: [Mix; 18] = [
    mix("f32", 0, F32, F32, F32),
    mix("f16", 1, F16, F16, F16),
    mix("bf16", 32, BF16, BF16, BF16),
    mix("q4_0", 2, Q4_0, Q4_0, Q6_K),
    mix("q4_1", 3, Q4_1, Q4_1, Q6_K),
    mix("q5_0", 8, Q5_0, Q5_0, Q6_K),
    mix("q5_1", 9, Q5_1, Q5_1, Q6_K),
    mix("q8_0", 7, Q8_0, Q8_0, Q8_0),
    mix("q4_k_m", 15, Q4_K, Q6_K, Q6_K),
    mix("q5_k_m", 17, Q5_K, Q6_K, Q6_K),
    mix("q6_k", 18, Q6_K, Q6_K, Q6_K),
    Mix { experts: Some(MXFP4), ..mix("mxfp4", 38, Q8_0, Q8_0, Q8_0) },
    mix("iq4_xs", 30, IQ4_XS, Q5_K, Q6_K),
    mix("iq3_s", 26, IQ3_S, IQ3_S, Q6_K),
    mix("iq3_xxs", 23, IQ3_XXS, Q4_K, Q5_K),
    mix("iq2_m", 29, IQ2_S, IQ3_S, Q5_K),
    mix("iq2_xs", 20, IQ2_XS, Q2_K, Q5_K),
    mix("iq2_xxs", 19, IQ2_XXS, Q2_K, Q5_K),
];

impl Mix {
    /// The format with this name, in any case.
    pub fn from_name(name: &str) -> Option<Mix> {
        MIXES.iter().find(|m| m.name.eq_ignore_ascii_case(name)).copied()
    }

    /// Type of a tensor in a model of `n_layer` layers, whose head may be the embedding.
    pub fn ty(&self, want: &Want, n_layer: usize, tied: bool) -> TensorType {
        let more_bits = want.layer.is_some_and(|layer| gets_more_bits(layer, n_layer));
        let wanted = match want.role {
            role if !role.is_matrix() || role == Role::Router => F32,
            // Which the quantiser leaves as it is.
            Role::LayerProjection if want.layer.is_none() && self.base != F32 => BF16,
            Role::Head => self.output,
            Role::Embedding if tied => self.output,
            _ if want.dims.len() == 3 && self.experts.is_some() => self.experts.unwrap_or(self.base),
            Role::Value | Role::Down if more_bits => self.finer,
            _ => self.base,
        };
        fitting(wanted, want.k())
    }
}

/// The first and last eighth of the layers, and every third in between.
fn gets_more_bits(layer: usize, n_layer: usize) -> bool {
    let eighth = n_layer / 8;
    layer < eighth || layer >= 7 * n_layer / 8 || (layer - eighth) % 3 == 2
}

/// The type itself, or the 32-block one that stands in for it where rows are no multiple of 256.
fn fitting(ty: TensorType, k: usize) -> TensorType {
    match ty {
        _ if ty.row_bytes(k).is_some() => ty,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        IQ4_XS | IQ3_S | IQ3_XXS | IQ2_S | IQ2_XS | IQ2_XXS | Q2_K => IQ4_NL,
        _ => F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for m in MIXES {
            assert_eq!(Mix::from_name(&m.name.to_uppercase()), Some(m));
        }
        assert_eq!(Mix::from_name("q3_x"), None);
    }

    #[test]
    fn layers_with_more_bits() {
        let of = |n: usize| (0..n).filter(|&i| gets_more_bits(i, n)).collect::<Vec<_>>();
        assert_eq!(of(22), [0, 1, 4, 7, 10, 13, 16, 19, 20, 21]);
        assert_eq!(of(3), [2]);
    }
}
