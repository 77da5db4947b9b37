//! Convolutions without stride whose image rows lie in shared memory as they do in global memory: the layout of the rows for
//! `convolution/sm90/halo_reuse.cu` and `convolution/sm90/streaming_wgrad.cu`, and the convolutions that these can compute.

use bytemuck::Zeroable;

use super::arguments::BLOCK_K;
pub(super) use crate::backend::cuda::kernel_files::convolution::sm90::arguments::RowLayout;
use crate::backend::cuda::kernel_files::convolution::sm90::halo_reuse::MAX_PATCH_STAGES;
use crate::backend::cuda::kernel_files::convolution::sm90::streaming_wgrad::{
    DY_STAGES, MAX_ROW_STAGES, ROW_BUFFER_BYTES, TAPS,
};

/// Bytes of a pixel in shared memory: 64 channels.
pub(super) const PIXEL_BYTES: usize = 2 * BLOCK_K;
/// Pixels (and channels) of a panel. The period of the swizzle is an eighth of a panel.
const BLOCK: usize = 64;
/// Shared memory of `convolution/sm90/streaming_wgrad.cu`, but for barriers: row buffers, and stages of dy.
pub(super) const STREAM_BYTES: usize = TAPS * ROW_BUFFER_BYTES + DY_STAGES * BLOCK_K * PIXEL_BYTES;
/// Most pixels of a TMA load into such a buffer: finer loads fill it better.
const MOST_STREAMED: usize = 96;

/// Layout of a convolution's images in shared memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Pixels in a row, rows and images of one TMA load.
    pub(super) copied: [usize; 3],
    pub(super) row_layout: RowLayout,
}

impl Layout {
    /// A tile of `pixels` pixels with its halo: the rows above and below that `taps` rows of taps see.
    pub fn of_tile([width, height]: [usize; 2], pixels: usize, taps: usize, room: usize) -> Option<Layout> {
        if !width.is_multiple_of(8) || !pixels.is_multiple_of(width) {
            return None;
        }
        // A part of one image, or some whole ones.
        let rows = (pixels / width).min(height);
        let images = pixels / width / rows;
        let whole = height.is_multiple_of(rows) && rows * width * images == pixels;
        if !whole || !(rows * width).is_multiple_of(BLOCK) {
            return None;
        }
        let row_bytes = width * PIXEL_BYTES;
        let image_bytes = (rows + taps - 1) * row_bytes;
        let stage_bytes = images * image_bytes;
        let stages = (room / stage_bytes).min(MAX_PATCH_STAGES);
        let row_layout = RowLayout {
            row_bytes: row_bytes as u32,
            stage_bytes: stage_bytes as u32,
            stages: stages as u32,
            image_panels: (rows * width / BLOCK) as u32,
            image_bytes: image_bytes as u32,
            ..RowLayout::zeroed()
        };
        // One stage alone would not overlap loads with WGMMA.
        (stages >= 2).then_some(Layout { copied: [width, rows + taps - 1, images], row_layout })
    }

    /// Whole images, one after another, two rows of zeros more than each has.
    pub fn of_stream([width, height]: [usize; 2]) -> Option<Layout> {
        if ![8, 16, 32, 64].contains(&width) || !(width * height).is_multiple_of(BLOCK) {
            return None;
        }
        let image_rows = height + 2;
        // Sixteen pixels of a K block lie in one row, or in two which are neighbours in the buffer as well: it ends with an image.
        let fine = |rows: &usize| image_rows.is_multiple_of(*rows) && rows * width <= MOST_STREAMED;
        let stage_rows = if width < 16 { image_rows } else { (1..=image_rows).rev().find(fine)? };
        let row_bytes = width * PIXEL_BYTES;
        let stages = (ROW_BUFFER_BYTES / (stage_rows * row_bytes)).min(MAX_ROW_STAGES);
        let row_layout = RowLayout {
            row_bytes: row_bytes as u32,
            stage_bytes: (stage_rows * row_bytes) as u32,
            stages: stages as u32,
            stage_rows: stage_rows as u32,
            ..RowLayout::zeroed()
        };
        // A K block begins while the one before is in flight: both need their rows, and the two that they see beyond. Within an image
        // they follow each other, anywhere in a stage; where the next image begins, each begins or ends a stage.
        let step_rows = BLOCK / width;
        let seen = step_rows + 2;
        let needed = ((step_rows + seen).div_ceil(stage_rows) + 1).max(2 * seen.div_ceil(stage_rows));
        (stages >= needed).then_some(Layout { copied: [width, stage_rows, 1], row_layout })
    }

    /// The layout as kernels take it.
    pub fn row_layout(&self) -> RowLayout {
        self.row_layout
    }

    /// The box of a tensor (channels, width, height, images) of one TMA load.
    pub fn box_extents(&self) -> [u32; 4] {
        let [width, rows, images] = self.copied.map(|extent| extent as u32);
        [BLOCK_K as u32, width, rows, images]
    }

    /// Pixels of a tile that lie in one image.
    pub fn pixels_of_an_image(&self) -> usize {
        self.row_layout.image_panels as usize * BLOCK
    }

    /// Bytes of a pipeline stage.
    pub fn stage_bytes(&self) -> f64 {
        f64::from(self.row_layout.stage_bytes)
    }
}
