//! The kernels and the device from outside, against the CPU and plain arithmetic.

mod common;
mod device;
mod products;
mod translate;
mod vectors;
