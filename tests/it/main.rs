//! The integration tests: one binary, so that everything is linked once.

#[allow(dead_code)]
mod golden;
mod parity;
