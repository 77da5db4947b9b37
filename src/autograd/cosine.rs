//! The cosine classifier.

use super::{Parameter, Tape, Var};
use crate::ops::{Cosine, CosineForward, CosineInputGradient, CosineWeightGradient};
use crate::tensor::Shape;

/// The smallest norm that vectors are divided by, as in PyTorch's `normalize`.
pub const SHORTEST_VECTOR: f64 = 1e-12;

impl Tape {
    /// Records `y[n, o] = s cos(x[n], weight[o])`; `s = softplus(scale)`, or the scale itself.
    pub fn cosine(&mut self, x: Var, weight: &Parameter, scale: &Parameter, softplus: bool) -> Var {
        let (batch, inputs) = (x.shape.rows(), x.shape.channels());
        let outputs = weight.shape.rows();
        assert_eq!(weight.shape, Shape::from([outputs, inputs]), "a cosine classifier of {inputs} features");
        assert_eq!(scale.shape.elements(), 1, "one scale for all classes");
        let attributes = Cosine { batch, inputs, outputs, epsilon: SHORTEST_VECTOR, softplus };
        let shape = Shape::from([batch, outputs]);
        let w = self.parameter("weight", weight);
        let s = self.parameter("scale", scale);
        let inverse_norms = self.transient_number("inverse norms", Shape::from([batch + outputs]));
        let cosines = self.transient_number("cosines", shape);
        let y = self.transient_number("logits", shape);
        self.plan.push(CosineForward {
            attributes,
            x: x.buffer,
            weight: w,
            scale: s,
            inverse_norms,
            cosines,
            y,
        });
        let (weight, scale) = (*weight, *scale);
        let has_parameters = weight.gradient.is_some() || scale.gradient.is_some();
        self.record(y, shape, &[x], has_parameters, move |backward, dy| {
            let dweight = backward.parameter_gradient("weight gradient", &weight);
            let dscale = backward.parameter_gradient("scale gradient", &scale);
            backward.plan.push(CosineWeightGradient {
                attributes,
                x: x.buffer,
                weight: w,
                scale: s,
                inverse_norms,
                cosines,
                dy,
                dweight,
                dscale,
            });
            if x.differentiable {
                let dx = backward.transient_number("cosine gradient", x.shape);
                backward.plan.push(CosineInputGradient {
                    attributes,
                    x: x.buffer,
                    weight: w,
                    scale: s,
                    inverse_norms,
                    cosines,
                    dy,
                    dx,
                });
                backward.give(x, dx);
            }
        })
    }
}
