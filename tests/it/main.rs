//! The integration tests: one binary, so that everything is linked once.

#[allow(dead_code)]
mod gradients;
mod golden;
mod ops;
mod ops_passes;
mod parity;
mod reference;
