//! Initial values, drawn from PyTorch's default distributions.
//!
//! `nn.Conv2d` and `nn.Linear` draw weights by `kaiming_uniform_(a=sqrt(5))`, which is uniform in ±1/sqrt(fan_in), and
//! biases in the same range; batch normalisation starts with γ = 1, β = 0, mean 0, variance 1. Element i of parameter p is
//! the i-th number of its own stream, in KRSC order, so values do not depend on the element type or the device.

use super::parameters::{Entry, Kind};
use crate::rng::{Purpose, Stream};

/// The initial values of the `index`-th parameter of a network.
pub(super) fn values(entry: &Entry, index: usize, seed: u64) -> Vec<f64> {
    let elements = entry.parameter.shape.elements();
    let uniform = |fan_in: usize| {
        let bound = 1.0 / (fan_in as f64).sqrt();
        let stream = Stream::for_purpose(seed, Purpose::Initialise, &[index as u64]);
        (0..elements as u64).map(|i| (2.0 * stream.uniform(i) - 1.0) * bound).collect()
    };
    match entry.kind {
        Kind::ConvWeight | Kind::LinearWeight => uniform(elements / entry.parameter.shape.extents()[0]),
        Kind::LinearBias { inputs } => uniform(inputs),
        Kind::Gamma | Kind::RunningVariance => vec![1.0; elements],
        Kind::Beta | Kind::RunningMean => vec![0.0; elements],
    }
}
