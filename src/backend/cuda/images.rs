//! From bytes to network inputs: launches of `images.cu`.

use super::Cuda;
use super::driver::Driver;
use crate::error::Result;
use crate::ops::ImageBatch;
use crate::tensor::Span;

pub(super) fn load_images<D: Driver>(
    cuda: &Cuda<D>,
    memory: &mut D::Memory,
    attributes: &ImageBatch,
    [pixels, table, placement, y]: [Span; 4],
    workspace: Span,
) -> Result<()> {
    let _ = (cuda, memory, attributes, pixels, table, placement, y, workspace);
    todo!()
}
