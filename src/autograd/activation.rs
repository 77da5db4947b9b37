//! Activations: the rectifier.

use super::{Tape, Var};
use crate::ops::{Relu, ReluGradient, Rows};
use crate::plan::Storage;
use crate::tensor::DType;

impl Tape {
    /// Records `y = max(x, 0)` of activations.
    pub fn relu(&mut self, x: Var) -> Var {
        self.rectifier(x, self.dtype)
    }

    /// Records `y = max(x, 0)` of numbers of the accumulator's type, such as the outputs of a linear layer.
    pub fn relu_number(&mut self, x: Var) -> Var {
        self.rectifier(x, self.dtype.accumulator())
    }

    fn rectifier(&mut self, x: Var, dtype: DType) -> Var {
        let attributes = Rows { rows: x.shape.rows(), channels: x.shape.channels() };
        let y = self.plan.buffer("rectified", x.shape, dtype, Storage::Transient);
        self.plan.push(Relu { attributes, x: x.buffer, y });
        self.record(y, x.shape, &[x], false, move |backward, dy| {
            let dx = backward.plan.buffer("rectifier gradient", x.shape, dtype, Storage::Transient);
            backward.plan.push(ReluGradient { attributes, y, dy, dx });
            backward.give(x, dx);
        })
    }
}
