//! The fully connected layer.

use super::{Parameter, Tape, Var};
use crate::ops::{Linear, LinearForward, LinearInputGradient, LinearWeightGradient};
use crate::tensor::Shape;

impl Tape {
    /// Records `y = x weightᵀ + bias`.
    pub fn linear(&mut self, x: Var, weight: &Parameter, bias: &Parameter) -> Var {
        let (batch, inputs) = (x.shape.rows(), x.shape.channels());
        let outputs = bias.shape.elements();
        assert_eq!(weight.shape, Shape::from([outputs, inputs]), "a linear layer from {inputs} to {outputs}");
        let attributes = Linear { batch, inputs, outputs };
        let shape = Shape::from([batch, outputs]);
        let w = self.parameter("weight", weight);
        let b = self.parameter("bias", bias);
        let y = self.transient_number("logits", shape);
        self.plan.push(LinearForward { attributes, x: x.buffer, weight: w, bias: b, y });
        let (weight, bias) = (*weight, *bias);
        self.record(y, shape, &[x], weight.gradient.is_some(), move |backward, dy| {
            let dweight = backward.parameter_gradient("weight gradient", &weight);
            let dbias = backward.parameter_gradient("bias gradient", &bias);
            backward.plan.push(LinearWeightGradient { attributes, x: x.buffer, dy, dweight, dbias });
            if x.differentiable {
                let dx = backward.transient_number("linear gradient", x.shape);
                backward.plan.push(LinearInputGradient { attributes, dy, weight: w, dx });
                backward.give(x, dx);
            }
        })
    }
}
