//! The functions of an instruction set's section, and how they are made from the algorithms.

use super::input::{AttnInput, AttnPart, AttnState};
use super::kv::Element;

/// The attention function of a table for one kind of element.
pub(crate) type AttendFn<T> = unsafe fn(&AttnInput<'_, T>, &mut AttnState<'_>);

/// An element of cached keys and values: `u16` holding the bits of half precision, `u8` holding
/// bytes of Q8_0 blocks, or `f32` where nothing may be rounded.
#[allow(private_bounds, reason = "sealed: the kernels know these three")]
pub trait KvElement: InTable {}

impl KvElement for u16 {}
impl KvElement for u8 {}
impl KvElement for f32 {}

/// An element that tables have an attention function for.
pub(crate) trait InTable: Element {
    /// The function of a table that takes this element.
    fn attend(table: &VectorFns) -> AttendFn<Self>;
}

impl InTable for u16 {
    fn attend(table: &VectorFns) -> AttendFn<u16> {
        table.attend_f16
    }
}

impl InTable for u8 {
    fn attend(table: &VectorFns) -> AttendFn<u8> {
        table.attend_q8_0
    }
}

impl InTable for f32 {
    fn attend(table: &VectorFns) -> AttendFn<f32> {
        table.attend_f32
    }
}

/// What a norm multiplies or adds, if it does: f32, little endian, at any address.
pub(crate) type Parameters<'a> = Option<&'a [u8]>;

/// The vector functions of one instruction set.
///
/// All are `unsafe`: the CPU must have it, and slices must have the lengths that the methods of
/// [`Kernels`](crate::Kernels) check.
pub(crate) struct VectorFns {
    pub rms_norm: unsafe fn(&[f32], Parameters<'_>, f32, &mut [f32]),
    pub layer_norm: unsafe fn(&[f32], [Parameters<'_>; 2], f32, &mut [f32]),
    pub add: unsafe fn(&mut [f32], &[f32]),
    pub scale: unsafe fn(&mut [f32], f32),
    pub soft_cap: unsafe fn(&mut [f32], f32),
    pub silu: unsafe fn(&mut [f32]),
    pub gelu: unsafe fn(&mut [f32]),
    pub relu: unsafe fn(&mut [f32]),
    pub relu_squared: unsafe fn(&mut [f32]),
    pub silu_mul: unsafe fn(&mut [f32], &[f32]),
    pub gelu_mul: unsafe fn(&mut [f32], &[f32]),
    pub relu_mul: unsafe fn(&mut [f32], &[f32]),
    pub rope_adjacent: unsafe fn(&mut [f32], &[f32], &[f32]),
    pub rope_halves: unsafe fn(&mut [f32], &[f32], &[f32]),
    pub to_f16: unsafe fn(&[f32], &mut [u16]),
    pub from_f16: unsafe fn(&[u16], &mut [f32]),
    pub add_rows: unsafe fn(&mut [f32], &[f32], &[f32], usize),
    pub dot_rows: unsafe fn(&[f32], &[f32], usize, &mut [f32]),
    pub mul_add: unsafe fn(&mut [f32], &[f32], &[f32]),
    pub exp: unsafe fn(&mut [f32]),
    pub argmax: unsafe fn(&[f32]) -> usize,
    pub log_sum_exp: unsafe fn(&[f32]) -> f32,
    pub softmax: unsafe fn(&mut [f32]),
    pub attend_f16: AttendFn<u16>,
    pub attend_i16: unsafe fn(&AttnInput<'_, i16>, [&[f32]; 2], &mut AttnState<'_>),
    pub attend_q8_0: AttendFn<u8>,
    pub attend_f32: AttendFn<f32>,
    pub to_i16: unsafe fn(&[f32], &mut [i16]) -> f32,
    pub from_i16: unsafe fn(&[i16], f32, &mut [f32]),
    pub to_q8_0: unsafe fn(&[f32], &mut [u8]),
    pub from_q8_0: unsafe fn(&[u8], &mut [f32]),
    pub merge: unsafe fn(usize, &mut AttnState<'_>, &AttnPart<'_>),
    pub finish: unsafe fn(usize, &[f32], &mut [f32]),
}

/// Defines `VECTOR`, the functions over `$lanes`, each compiled with the attribute.
macro_rules! functions {
    ($lanes:ty, #[$attribute:meta]) => {
        $crate::vector::fns::functions! { @ $lanes, #[$attribute],
            elementwise::rms_norm(x: &[f32], weight: $crate::vector::fns::Parameters<'_>, eps: f32, out: &mut [f32]);
            elementwise::layer_norm(
                x: &[f32],
                weight_and_bias: [$crate::vector::fns::Parameters<'_>; 2],
                eps: f32,
                out: &mut [f32]
            );
            elementwise::add(acc: &mut [f32], x: &[f32]);
            elementwise::scale(x: &mut [f32], by: f32);
            elementwise::soft_cap(x: &mut [f32], cap: f32);
            elementwise::silu(x: &mut [f32]);
            elementwise::gelu(x: &mut [f32]);
            elementwise::relu(x: &mut [f32]);
            elementwise::relu_squared(x: &mut [f32]);
            elementwise::silu_mul(gate: &mut [f32], up: &[f32]);
            elementwise::gelu_mul(gate: &mut [f32], up: &[f32]);
            elementwise::relu_mul(gate: &mut [f32], up: &[f32]);
            elementwise::rope_adjacent(x: &mut [f32], cos: &[f32], sin: &[f32]);
            elementwise::rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]);
            elementwise::to_f16(x: &[f32], out: &mut [u16]);
            elementwise::from_f16(x: &[u16], out: &mut [f32]);
            rows::add_rows(acc: &mut [f32], w: &[f32], rows: &[f32], stride: usize);
            rows::dot_rows(x: &[f32], rows: &[f32], stride: usize, out: &mut [f32]);
            rows::mul_add(acc: &mut [f32], x: &[f32], w: &[f32]);
            rows::exp(x: &mut [f32]);
            reduce::argmax(x: &[f32]) -> usize;
            reduce::log_sum_exp(x: &[f32]) -> f32;
            reduce::softmax(x: &mut [f32]);
            attend::attend_f16(input: &$crate::vector::input::AttnInput<'_, u16>, state: &mut $crate::vector::input::AttnState<'_>);
            attend_int::attend_i16(
                input: &$crate::vector::input::AttnInput<'_, i16>,
                scales: [&[f32]; 2],
                state: &mut $crate::vector::input::AttnState<'_>
            );
            attend_int::to_i16(x: &[f32], row: &mut [i16]) -> f32;
            attend_int::from_i16(row: &[i16], scale: f32, out: &mut [f32]);
            attend::attend_q8_0(input: &$crate::vector::input::AttnInput<'_, u8>, state: &mut $crate::vector::input::AttnState<'_>);
            kv::to_q8_0(x: &[f32], out: &mut [u8]);
            kv::from_q8_0(x: &[u8], out: &mut [f32]);
            attend::attend_f32(input: &$crate::vector::input::AttnInput<'_, f32>, state: &mut $crate::vector::input::AttnState<'_>);
            attend::merge(value_dim: usize, into: &mut $crate::vector::input::AttnState<'_>, part: &$crate::vector::input::AttnPart<'_>);
            attend::finish(value_dim: usize, sum: &[f32], acc: &mut [f32]);
        }
    };
    (@ $lanes:ty, #[$attribute:meta], $($module:ident::$name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)?;)*) => {
        $(
            /// # Safety
            /// The CPU has this module's features; the slices are as long as the generic function
            /// documents.
            #[$attribute]
            unsafe fn $name($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promise.
                unsafe { $crate::vector::$module::$name::<$lanes>($($arg),*) }
            }
        )*

        /// This instruction set's section of the table.
        pub(crate) static VECTOR: $crate::vector::fns::VectorFns = $crate::vector::fns::VectorFns { $($name),* };
    };
}
pub(super) use functions;
