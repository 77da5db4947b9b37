//! Logits of superclasses (class groups), from the logits of a head over subclasses.

use super::{Tape, Var};
use crate::ops::{ClassGroups, LogSumGroups, LogSumGroupsGradient};
use crate::plan::BufferId;
use crate::tensor::Shape;

impl Tape {
    /// Records `y[n, g] = T log(sum over the classes c of group g of exp(x[n, c] / T))`: logits whose softmax at
    /// `temperature` T is that of x, summed within `count` groups. `groups` (classes, i32) holds the group of each class;
    /// every group has one at least.
    pub fn log_sum_groups(&mut self, x: Var, groups: BufferId, count: usize, temperature: f64) -> Var {
        let (batch, classes) = (x.shape.rows(), x.shape.channels());
        let attributes = ClassGroups { batch, classes, groups: count, temperature };
        let shape = Shape::from([batch, count]);
        let y = self.transient_number("logits of groups", shape);
        self.plan.push(LogSumGroups { attributes, x: x.buffer, group_of: groups, y });
        self.record(y, shape, &[x], false, move |backward, dy| {
            let dx = backward.transient_number("gradient through groups", x.shape);
            backward.plan.push(LogSumGroupsGradient { attributes, x: x.buffer, group_of: groups, y, dy, dx });
            backward.give(x, dx);
        })
    }
}
