//! The integration tests: one binary, so that everything is linked once.

#[allow(dead_code)]
mod gradients;
mod golden;
mod parity;
