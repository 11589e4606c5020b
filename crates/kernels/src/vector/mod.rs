//! f32 vector maths: the second section of each table.

/// The vector functions of one instruction set.
pub(crate) struct VectorFns {}

/// The reference.
pub(crate) static SCALAR: VectorFns = VectorFns {};
