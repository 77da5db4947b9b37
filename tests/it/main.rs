//! The integration tests: one binary, so that everything is linked once.

mod golden;
mod gradients;
mod ops;
mod ops_passes;
mod parity;
mod reference;
