//! Synthetic models beside real ones.

mod real;
