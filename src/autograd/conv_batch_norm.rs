//! Convolution, batch normalisation, residual and rectifier in one: the unit ResNets are made of.
//!
//! Training records the two operations; inference folds the normalisation into the weights once per set of parameters
//! and leaves a convolution with a bias.

use super::conv2d::{attributes, output_shape};
use super::{BatchNormOptions, BatchNormParameters, Mode, Parameter, Statistics, Tape, Var};
use crate::ops::{BatchNorm, BatchNormFold, BiasEpilogue, Conv2dFprop, FpropEpilogue, Rows};
use crate::tensor::Shape;

impl Tape {
    /// Records `act(batch_norm(conv(x, weight)) + residual)` for training or inference, as the tape's mode asks.
    pub fn conv_batch_norm(
        &mut self,
        x: Var,
        weight: &Parameter,
        norm: &BatchNormParameters,
        (stride, padding): (usize, usize),
        residual: Option<Var>,
        relu: bool,
    ) -> Var {
        match self.mode {
            Mode::Train => {
                let y = self.conv2d(x, weight, stride, padding);
                self.batch_norm(y, norm, BatchNormOptions { statistics: Statistics::Batch, residual, relu })
            }
            Mode::Inference => self.folded(x, weight, norm, (stride, padding), residual, relu),
        }
    }

    fn folded(
        &mut self,
        x: Var,
        weight: &Parameter,
        norm: &BatchNormParameters,
        (stride, padding): (usize, usize),
        residual: Option<Var>,
        relu: bool,
    ) -> Var {
        let conv = attributes(x.shape, weight.shape, stride, padding);
        let filters = Rows { rows: conv.out_channels, channels: conv.filter_elements() };
        let w = self.parameter("weight", weight);
        let gamma = self.parameter("gamma", &norm.gamma);
        let beta = self.parameter("beta", &norm.beta);
        let running_mean = self.parameter("running mean", &norm.running_mean);
        let running_variance = self.parameter("running variance", &norm.running_variance);
        let folded = self.transient("folded weight", weight.shape);
        let bias = self.transient_number("folded bias", Shape::from([conv.out_channels]));
        self.plan.push_setup(BatchNormFold {
            attributes: BatchNorm { extent: filters, epsilon: norm.epsilon, momentum: norm.momentum },
            weight: w,
            gamma,
            beta,
            running_mean,
            running_variance,
            folded,
            bias,
        });
        let shape = output_shape(&conv);
        let y = self.transient("convolution", shape);
        let epilogue = BiasEpilogue { bias, residual: residual.map(|r| r.buffer), relu };
        self.plan.push(Conv2dFprop {
            epilogue: Some(FpropEpilogue::Bias(epilogue)),
            ..Conv2dFprop::new(conv, [x.buffer, folded, y])
        });
        Var { buffer: y, shape, differentiable: false }
    }
}
