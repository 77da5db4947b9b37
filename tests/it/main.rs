//! The integration tests: one binary, so that everything is linked once.

mod architecture;
mod collapse;
mod data;
mod emulator;
mod eval;
mod examples;
mod features;
mod kernels;
mod monitor;
mod novelty;
mod ood;
mod ops;
mod parity;
mod support;
mod training;
mod verbs;
mod weights;
