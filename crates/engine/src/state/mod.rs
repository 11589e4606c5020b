//! What a sequence leaves behind: keys and values of its positions, in pages, the states of
//! recurrences, in records, and the angles that positions have.

pub(crate) mod active;
pub(crate) mod layout;
pub(crate) mod pages;
pub(crate) mod records;
pub(crate) mod rope;
