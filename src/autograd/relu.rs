//! The rectifier.

use super::{Tape, Var};
use crate::ops::{Call, Rows};

impl Tape {
    /// Records `y = max(x, 0)`.
    pub fn relu(&mut self, x: Var) -> Var {
        let attributes = Rows { rows: x.shape.rows(), channels: x.shape.channels() };
        let y = self.transient("rectified", x.shape);
        self.plan.push(Call::Relu { attributes, x: x.buffer, y });
        self.record(y, x.shape, &[x], false, move |backward, dy| {
            let dx = backward.transient("rectifier gradient", x.shape);
            backward.plan.push(Call::ReluGradient { attributes, y, dy, dx });
            backward.give(x, dx);
        })
    }
}
