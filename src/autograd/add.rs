//! Addition of two values of one shape.

use super::{Tape, Var};
use crate::ops::{Add, CopyRows, Rows};

impl Tape {
    /// Records `y = a + b`.
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        assert_eq!(a.shape, b.shape, "only values of one shape can be added");
        let attributes = Rows { rows: a.shape.rows(), channels: a.shape.channels() };
        let y = self.transient("sum", a.shape);
        self.plan.push(Add { attributes, a: a.buffer, b: b.buffer, y });
        self.record(y, a.shape, &[a, b], false, move |backward, dy| {
            // Both summands have the gradient dy. One may keep the buffer; the other needs a copy, because either may
            // later have more added to it.
            if b.differentiable {
                let copy = backward.transient("gradient of a summand", b.shape);
                backward.plan.push(CopyRows { attributes, x: dy, y: copy });
                backward.give(b, copy);
            }
            backward.give(a, dy);
        })
    }
}
