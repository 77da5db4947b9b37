//! Initial values, drawn from PyTorch's default distributions.
//!
//! `nn.Conv2d` and `nn.Linear` draw weights by `kaiming_uniform_(a=sqrt(5))`, which is uniform in ±1/sqrt(fan_in), and
//! biases in the same range; batch normalisation starts with γ = 1, β = 0, mean 0, variance 1. The class vectors of a cosine
//! classifier are `xavier_uniform_`, in ±sqrt(6 / (inputs + classes)), and its cosines begin multiplied by 30. Element i of
//! parameter p is the i-th number of its own stream, in KRSC order, so values do not depend on the element type or the device.

use super::parameters::{Entry, Kind};
use crate::rng::{Purpose, Stream};

/// Initial factor on cosines.
const COSINE_SCALE: f64 = 30.0;

/// The initial values of the `index`-th parameter of a network.
pub(super) fn values(entry: &Entry, index: usize, seed: u64) -> Vec<f64> {
    let shape = &entry.parameter.shape;
    let elements = shape.elements();
    let uniform = |bound: f64| {
        let stream = Stream::for_purpose(seed, Purpose::Initialise, &[index as u64]);
        (0..elements as u64).map(|i| (2.0 * stream.uniform(i) - 1.0) * bound).collect()
    };
    let by_inputs = |fan_in: usize| uniform(1.0 / (fan_in as f64).sqrt());
    match entry.kind {
        Kind::ConvWeight | Kind::LinearWeight => by_inputs(elements / shape.extents()[0]),
        Kind::LinearBias { inputs } => by_inputs(inputs),
        Kind::CosineWeight => uniform((6.0 / (shape.rows() + shape.channels()) as f64).sqrt()),
        // softplus of it is the scale: log(e^s - 1), written so that e^s does not overflow.
        Kind::SoftplusScale => vec![COSINE_SCALE + (-(-COSINE_SCALE).exp()).ln_1p()],
        Kind::Scale => vec![COSINE_SCALE],
        Kind::Gamma | Kind::RunningVariance => vec![1.0; elements],
        Kind::Beta | Kind::RunningMean => vec![0.0; elements],
    }
}
