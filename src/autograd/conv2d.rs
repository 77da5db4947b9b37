//! Convolution. Backward: the weight's gradient always, the input's where one is wanted, added in place to what came
//! along a shortcut.

use super::{Parameter, Tape, Var};
use crate::ops::{Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad};
use crate::tensor::Shape;

/// The convolution of an NHWC tensor with a KRSC weight.
pub(super) fn attributes(x: Shape, weight: Shape, stride: usize, padding: usize) -> Conv2d {
    let [batch, height, width, in_channels] = x.nhwc();
    let [out_channels, filter_height, filter_width, weight_channels] = weight.nhwc();
    assert_eq!(in_channels, weight_channels, "a convolution of {x} with a weight of {weight}");
    Conv2d { batch, height, width, in_channels, out_channels, filter_height, filter_width, stride, padding }
}

pub(super) fn output_shape(conv: &Conv2d) -> Shape {
    Shape::from([conv.batch, conv.out_height(), conv.out_width(), conv.out_channels])
}

impl Tape {
    /// Records `y = conv(x, weight)`.
    pub fn conv2d(&mut self, x: Var, weight: &Parameter, stride: usize, padding: usize) -> Var {
        let conv = attributes(x.shape, weight.shape, stride, padding);
        let shape = output_shape(&conv);
        let w = self.narrow_parameter("weight", weight);
        let y = self.transient("convolution", shape);
        self.plan.push(Conv2dFprop::new(conv, [x.buffer, w, y]));
        let weight = *weight;
        self.record(y, shape, &[x], weight.gradient.is_some(), move |backward, dy| {
            if weight.gradient.is_some() {
                let dweight = backward.parameter_gradient("wgrad", &weight);
                backward.plan.push(Conv2dWgrad::new(conv, [x.buffer, dy, dweight]));
            }
            if x.differentiable {
                let dx = backward.transient("gradient", x.shape);
                backward.plan.push(Conv2dDgrad::new(conv, [dy, w, dx]));
                backward.give(x, dx);
            }
        })
    }
}
