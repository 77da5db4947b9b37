//! Residua trains ResNets with its own kernels and says what the trained network does not know.
//!
//! The layers, from the top down; a module uses only modules below it (`tests/it/architecture.rs` holds it so):
//!
//! | layer | modules |
//! |---|---|
//! | command line | [`cli`] |
//! | whole experiments, measurements | [`recipe`], [`mod@bench`] |
//! | tasks of a user | [`train`], [`features`], [`ood`], [`novelty`], [`collapse`], [`report`] |
//! | data and weights on disk | [`data`], [`checkpoint`] |
//! | networks | [`nn`] |
//! | gradients | [`autograd`] |
//! | execution of operations | [`plan`] |
//! | operations | [`ops`] |
//! | hardware | [`backend`] |
//! | common ground | [`archive`], [`error`], [`files`], [`linalg`], [`pickle`], [`rng`], [`tensor`], [`threads`], [`values`] |

pub mod archive;
pub mod autograd;
pub mod backend;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod collapse;
pub mod data;
pub mod error;
pub mod features;
pub mod files;
pub mod linalg;
pub mod nn;
pub mod novelty;
pub mod ood;
pub mod ops;
pub mod pickle;
pub mod plan;
pub mod recipe;
pub mod report;
pub mod rng;
pub mod tensor;
pub mod threads;
pub mod train;
pub mod values;

pub use error::{Error, Result};
