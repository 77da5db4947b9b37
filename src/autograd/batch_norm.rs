//! Batch normalisation with the residual addition and the rectifier behind it, as one node.
//!
//! Forward: statistics give a per-channel scale and bias; one pass applies them, adds the residual, rectifies.
//! Backward: where there is a residual the masked gradient is made once, because it is the residual's gradient too;
//! otherwise the mask is recomputed from `scale * x + bias`, which saves reading the output.

use super::{Parameter, Tape, Var};
use crate::ops::{
    BatchNorm, BatchNormFrozen, BatchNormGradient, BatchNormInputGradient, BatchNormReduce,
    BatchNormStatistics, Call, ReluGradient, Rows, ScaleBias, ScaleBiasForward, ScaleBiasResidual,
};
use crate::tensor::Shape;

/// The parameters of one batch normalisation, all of shape (channels).
#[derive(Debug, Clone, Copy)]
pub struct BatchNormParameters {
    /// Scale.
    pub gamma: Parameter,
    /// Shift.
    pub beta: Parameter,
    /// Running mean; a parameter without gradient.
    pub running_mean: Parameter,
    /// Running unbiased variance.
    pub running_variance: Parameter,
    /// Added to the variance.
    pub epsilon: f64,
    /// Weight of a new batch in the running statistics.
    pub momentum: f64,
}

/// Which statistics normalise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// The batch's own; running statistics move.
    Batch,
    /// The running ones, as constants.
    Frozen,
}

/// The statistics of a batch normalisation, and the operations behind it.
#[derive(Debug, Clone, Copy)]
pub struct BatchNormOptions {
    /// Which statistics normalise.
    pub statistics: Statistics,
    /// Added to the normalised values.
    pub residual: Option<Var>,
    /// Whether a rectifier follows.
    pub relu: bool,
}

impl Tape {
    /// Records `y = act(batch_norm(x) + residual)`.
    pub fn batch_norm(&mut self, x: Var, norm: &BatchNormParameters, options: BatchNormOptions) -> Var {
        let extent = Rows { rows: x.shape.rows(), channels: x.shape.channels() };
        let attributes = BatchNorm { extent, epsilon: norm.epsilon, momentum: norm.momentum };
        let channels = Shape::from([extent.channels]);
        let [mean, inverse_std, scale, bias] =
            ["mean", "inverse std", "scale", "bias"].map(|name| self.transient_number(name, channels));
        let gamma = self.parameter("gamma", &norm.gamma);
        let beta = self.parameter("beta", &norm.beta);
        let running_mean = self.parameter("running mean", &norm.running_mean);
        let running_variance = self.parameter("running variance", &norm.running_variance);
        let frozen = options.statistics == Statistics::Frozen;
        let mean = if frozen { running_mean } else { mean };
        self.plan.push(if frozen {
            Call::BatchNormFrozen(BatchNormFrozen {
                attributes,
                gamma,
                beta,
                running_mean,
                running_variance,
                inverse_std,
                scale,
                bias,
            })
        } else {
            Call::BatchNormStatistics(BatchNormStatistics {
                attributes,
                x: x.buffer,
                gamma,
                beta,
                mean,
                inverse_std,
                scale,
                bias,
                running_mean,
                running_variance,
            })
        });

        let y = self.transient("normalised", x.shape);
        let apply = ScaleBias { extent, relu: options.relu };
        self.plan.push(match options.residual {
            None => {
                Call::ScaleBiasForward(ScaleBiasForward { attributes: apply, x: x.buffer, scale, bias, y })
            }
            Some(residual) => {
                assert_eq!(residual.shape, x.shape, "a residual has the shape of what it is added to");
                Call::ScaleBiasResidual(ScaleBiasResidual {
                    attributes: apply,
                    x: x.buffer,
                    scale,
                    bias,
                    residual: residual.buffer,
                    y,
                })
            }
        });

        let norm = *norm;
        let inputs: Vec<Var> = std::iter::once(x).chain(options.residual).collect();
        self.record(y, x.shape, &inputs, norm.gamma.gradient.is_some(), move |backward, dy| {
            let masked = if options.relu && options.residual.is_some() {
                let masked = backward.transient("masked gradient", x.shape);
                backward.plan.push(ReluGradient { attributes: extent, y, dy, dx: masked });
                masked
            } else {
                dy
            };
            let relu = options.relu && options.residual.is_none();
            let attributes = BatchNormGradient { extent, relu, frozen };
            let dgamma = backward.parameter_gradient("gamma gradient", &norm.gamma);
            let dbeta = backward.parameter_gradient("beta gradient", &norm.beta);
            backward.plan.push(BatchNormReduce {
                attributes,
                dy: masked,
                x: x.buffer,
                scale,
                bias,
                mean,
                inverse_std,
                dgamma,
                dbeta,
            });
            if x.differentiable {
                let dx = backward.transient("normalisation gradient", x.shape);
                backward.plan.push(BatchNormInputGradient {
                    attributes,
                    dy: masked,
                    x: x.buffer,
                    scale,
                    bias,
                    mean,
                    inverse_std,
                    dgamma,
                    dbeta,
                    dx,
                });
                backward.give(x, dx);
            }
            if let Some(residual) = options.residual {
                backward.give(residual, masked);
            }
        })
    }
}
