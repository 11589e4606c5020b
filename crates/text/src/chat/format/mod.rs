//! Texts with fields, as Python fills them: `'%s' % x` and `'%s'|format(x)`, and `'{}'.format(x)`.
//!
//! minijinja knows both (`%` for numbers alone), but counts widths in bytes, prints floats in lists
//! in its own way, and panics at names that are not ASCII and at precisions above 65,535. Here
//! fields are read and padded; digits of floats come from minijinja. What Python knows beyond
//! (`%r`, `{0.a}`, `{:{}}`, `{:n}`) is an error that says so.

mod braces;
mod field;
mod percent;

pub(super) use braces::method;
pub(super) use percent::{filter, percent};

/// The filter's name that stands for `%` behind a text; see `bounded.rs`.
pub(super) const PERCENT: &str = "percent";
