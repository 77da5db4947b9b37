//! Operations that are several others in one, taken apart.

use crate::ops::{Call, Conv2dGradientReduce};

/// The plain calls that a call stands for, in their order; by far the most stand for themselves.
///
/// Where there are several, the last reads what those before it stored, rounded as the device rounds: a reference in double
/// precision must be given the device's own, or a spread of two rows would be judged by their roundings.
pub(super) fn parts<B: Copy>(call: &Call<B>) -> Vec<Call<B>> {
    match *call {
        Call::Conv2dBatchNormStatistics {
            attributes,
            x,
            weight,
            y,
            gamma,
            beta,
            mean,
            inverse_std,
            scale,
            bias,
            running_mean,
            running_variance,
        } => vec![
            Call::Conv2dForward { attributes: attributes.conv, x, weight, y },
            Call::BatchNormStatistics {
                attributes: attributes.norm(),
                x: y,
                gamma,
                beta,
                mean,
                inverse_std,
                scale,
                bias,
                running_mean,
                running_variance,
            },
        ],
        Call::Conv2dInputGradientReduce {
            attributes: Conv2dGradientReduce { gradient, relu },
            dy,
            weight,
            x,
            scale,
            bias,
            mean,
            inverse_std,
            dx,
            dgamma,
            dbeta,
        } => vec![
            Call::Conv2dInputGradient { attributes: gradient, dy, weight, dx },
            Call::BatchNormReduce {
                attributes: gradient.reduce(relu),
                dy: dx,
                x,
                scale,
                bias,
                mean,
                inverse_std,
                dgamma,
                dbeta,
            },
        ],
        Call::Conv2dInputGradientMaskReduce {
            attributes: gradient,
            dy,
            weight,
            y,
            x,
            scale,
            bias,
            mean,
            inverse_std,
            dx,
            dgamma,
            dbeta,
        } => vec![
            Call::Conv2dInputGradient { attributes: gradient, dy, weight, dx },
            Call::ReluGradient { attributes: gradient.conv.inputs(), y, dy: dx, dx },
            Call::BatchNormReduce {
                attributes: gradient.reduce(false),
                dy: dx,
                x,
                scale,
                bias,
                mean,
                inverse_std,
                dgamma,
                dbeta,
            },
        ],
        whole => vec![whole],
    }
}
