//! What a sequence leaves behind: keys and values of its positions, and the angles that positions
//! have.

pub(crate) mod kv;
pub(crate) mod rope;
