//! He et al.'s parameter-free shortcut: subsampling and zero channels.

use super::{Tape, Var};
use crate::ops::{ShortcutA, ShortcutAForward, ShortcutAGradient};
use crate::tensor::Shape;

impl Tape {
    /// Records the option A shortcut to `out_channels` channels.
    pub fn shortcut_a(&mut self, x: Var, out_channels: usize, stride: usize) -> Var {
        let [batch, height, width, in_channels] = x.shape.nhwc();
        let attributes = ShortcutA { batch, height, width, in_channels, out_channels, stride };
        let shape = Shape::from([batch, attributes.out_height(), attributes.out_width(), out_channels]);
        let y = self.transient("shortcut", shape);
        self.plan.push(ShortcutAForward { attributes, x: x.buffer, y });
        self.record(y, shape, &[x], false, move |backward, dy| {
            let dx = backward.transient("shortcut gradient", x.shape);
            backward.plan.push(ShortcutAGradient { attributes, dy, dx });
            backward.give(x, dx);
        })
    }
}
