//! Max pooling and global average pooling.

use super::{Tape, Var};
use crate::ops::{GlobalAveragePool, GlobalAveragePoolGradient, GlobalPool, MaxPool, MaxPoolGradient, Pool};
use crate::plan::Storage;
use crate::tensor::{DType, Shape};

impl Tape {
    /// Records a max pooling with a square window.
    pub fn max_pool(&mut self, x: Var, window: usize, stride: usize, padding: usize) -> Var {
        let [batch, height, width, channels] = x.shape.nhwc();
        let attributes = Pool { batch, height, width, channels, window, stride, padding };
        let shape = Shape::from([batch, attributes.out_height(), attributes.out_width(), channels]);
        let y = self.transient("maxima", shape);
        let argmax = self.plan.buffer("positions of maxima", shape, DType::I32, Storage::Transient);
        self.plan.push(MaxPool { attributes, x: x.buffer, y, argmax });
        self.record(y, shape, &[x], false, move |backward, dy| {
            let dx = backward.transient("max pool gradient", x.shape);
            backward.plan.push(MaxPoolGradient { attributes, dy, argmax, dx });
            backward.give(x, dx);
        })
    }

    /// Records the mean over all pixels: (batch, height, width, channels) to (batch, channels).
    pub fn global_average_pool(&mut self, x: Var) -> Var {
        let [batch, height, width, channels] = x.shape.nhwc();
        let attributes = GlobalPool { batch, height, width, channels };
        let shape = Shape::from([batch, channels]);
        let y = self.transient_number("features", shape);
        self.plan.push(GlobalAveragePool { attributes, x: x.buffer, y });
        self.record(y, shape, &[x], false, move |backward, dy| {
            let dx = backward.transient("average pool gradient", x.shape);
            backward.plan.push(GlobalAveragePoolGradient { attributes, dy, dx });
            backward.give(x, dx);
        })
    }
}
