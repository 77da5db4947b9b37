//! Network inputs from pixels in memory. No gradient flows to bytes.

use super::{Tape, Var};
use crate::ops::{ImageBatch, LoadImages};
use crate::plan::BufferId;
use crate::tensor::Shape;

impl Tape {
    /// Records the images of a batch, (batch, side, side, channels).
    pub fn load_images(
        &mut self,
        attributes: ImageBatch,
        pixels: BufferId,
        table: BufferId,
        placement: BufferId,
    ) -> Var {
        let ImageBatch { batch, side, channels, .. } = attributes;
        let shape = Shape::from([batch, side, side, channels]);
        let y = self.transient("images", shape);
        self.plan.push(LoadImages { attributes, pixels, table, placement, y });
        Var { buffer: y, shape, differentiable: false }
    }
}
