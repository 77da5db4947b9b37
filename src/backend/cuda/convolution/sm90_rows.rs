//! Convolutions without stride whose image rows lie in shared memory as they do in global memory: the layout of the rows for
//! `convolution/sm90/halo_reuse.cu` and `convolution/sm90/streaming_wgrad.cu`, and the convolutions that these can compute.

use bytemuck::{Pod, Zeroable};

use super::sm90_arguments::BLOCK_K;
use super::variants::{Form, Kernel, Pass};
use crate::ops::Conv2d;

/// Bytes of a pixel in shared memory: 64 channels.
const PIXEL_BYTES: usize = 2 * BLOCK_K;
/// Pixels (and channels) of a panel. The period of the swizzle is an eighth of a panel.
const BLOCK: usize = 64;
/// Stages of patches, and of rows, for which the kernels have barriers.
const MAX_PATCH_STAGES: usize = 4;
const MAX_ROW_STAGES: usize = 8;
/// Bytes of each row buffer of `convolution/sm90/streaming_wgrad.cu`.
const ROW_BUFFER_BYTES: usize = 60 << 10;
/// Shared memory of that kernel, but for barriers: three row buffers, and five stages of dy.
pub(super) const STREAM_BYTES: usize = 3 * ROW_BUFFER_BYTES + 5 * BLOCK * PIXEL_BYTES;
/// Most pixels of a TMA load into such a buffer: finer loads fill it better.
const MOST_STREAMED: usize = 96;

/// Layout of image rows in shared memory, field by field as in `convolution/sm90/arguments.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct RowLayout {
    /// Of 64 channels of a row of pixels.
    row_bytes: u32,
    /// Of one TMA load: a pipeline stage.
    stage_bytes: u32,
    /// Stages that fit into shared memory.
    stages: u32,
    /// Rows in a stage of `streaming_wgrad.cu`.
    stage_rows: u32,
    /// Panels of 64 pixels of a tile that lie in one image.
    image_panels: u32,
    /// From one image of a tile to the next.
    image_bytes: u32,
    unused: [u32; 2],
}

/// Layout of a convolution's images in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Pixels in a row, rows and images of one TMA load.
    copied: [usize; 3],
    row_layout: RowLayout,
}

impl Layout {
    /// `None` where a kernel that keeps rows cannot compute the convolution, and for every other kernel.
    pub fn of(kernel: &Kernel, conv: &Conv2d) -> Option<Layout> {
        let [width, height] = match kernel.pass {
            Pass::Forward | Pass::WeightGradient => [conv.out_width(), conv.out_height()],
            Pass::InputGradient => [conv.width, conv.height],
        };
        let taps = [conv.filter_height, conv.filter_width];
        // With one row of taps there is no halo to reuse.
        if conv.stride != 1 || taps[0] == 1 {
            return None;
        }
        match kernel.form {
            Form::Sm80 { .. } | Form::Sm90 { .. } => None,
            Form::Sm90HaloReuse { cooperative, patch_bytes, filter_stages } => {
                let stay = !cooperative;
                let steps = taps.iter().product::<usize>() * kernel.channels(conv).div_ceil(BLOCK_K);
                let all_stay = kernel.extents(conv)[1] <= kernel.tile[1] && steps <= filter_stages;
                let layout = Layout::of_tile([width, height], kernel.tile[0], taps[0], patch_bytes)?;
                // With A and B swapped, the pixels of a tile are one operand.
                let one_piece = layout.row_layout.image_panels as usize * BLOCK >= kernel.tile[0];
                (!stay || all_stay && one_piece).then_some(layout)
            }
            Form::Sm90StreamingWgrad if taps == [3, 3] => Layout::of_stream([width, height]),
            Form::Sm90StreamingWgrad => None,
        }
    }

    /// A tile of `pixels` pixels with its halo: the rows above and below that `taps` rows of taps see.
    fn of_tile([width, height]: [usize; 2], pixels: usize, taps: usize, room: usize) -> Option<Layout> {
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
    fn of_stream([width, height]: [usize; 2]) -> Option<Layout> {
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

    /// Bytes that an output tile loads from L2, for each element of its K.
    pub fn fetched(&self, kernel: &Kernel, conv: &Conv2d) -> f64 {
        let stage = f64::from(self.row_layout.stage_bytes);
        match kernel.form {
            Form::Sm90HaloReuse { cooperative, .. } => {
                // One load serves a column of taps; resident filters count as free.
                let filters = if cooperative { (kernel.tile[1] * PIXEL_BYTES) as f64 } else { 0.0 };
                (stage / conv.filter_height as f64 + filters) / BLOCK_K as f64
            }
            _ => {
                let rows = conv.out_height() as f64;
                PIXEL_BYTES as f64 * (1.0 + conv.filter_width as f64 * (rows + 2.0) / rows)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::KERNELS;
    use super::*;

    fn conv(side: usize, channels: usize) -> Conv2d {
        Conv2d {
            batch: 4,
            height: side,
            width: side,
            in_channels: channels,
            out_channels: channels,
            filter_height: 3,
            filter_width: 3,
            stride: 1,
            padding: 1,
        }
    }

    fn layout(name: &str, pass: Pass, conv: &Conv2d) -> Option<Layout> {
        let kernel = KERNELS.iter().find(|kernel| kernel.name == name && kernel.pass == pass).unwrap();
        Layout::of(kernel, conv)
    }

    #[test]
    fn a_tile_is_part_of_an_image_or_whole_images() {
        let copied = |side, channels| {
            let layout = layout("sm90-rows-256x128", Pass::Forward, &conv(side, channels));
            layout.map(|layout| (layout.copied, layout.row_layout.image_panels))
        };
        assert_eq!(copied(64, 128), Some(([64, 6, 1], 4)));
        assert_eq!(copied(32, 128), Some(([32, 10, 1], 4)));
        assert_eq!(copied(16, 128), Some(([16, 18, 1], 4)));
        assert_eq!(copied(8, 128), Some(([8, 10, 4], 1)));
        // Rows that are no multiples of the swizzle's period; rows of which no whole number makes a tile.
        assert_eq!(copied(4, 128), None);
        assert_eq!(copied(56, 128), None);
        assert_eq!(layout("sm90-rows-256x128", Pass::Forward, &Conv2d { stride: 2, ..conv(32, 128) }), None);
    }

    #[test]
    fn filters_stay_where_there_is_one_column_of_tiles_and_room_for_all() {
        let fits =
            |side, channels| layout("sm90-rows-256x64", Pass::Forward, &conv(side, channels)).is_some();
        assert!(fits(32, 64) && fits(64, 40) && fits(16, 8));
        assert!(!fits(32, 128) && !fits(32, 72));
        // The pixels of a tile must be contiguous.
        assert!(!fits(8, 64));
    }

    #[test]
    fn a_stream_is_copied_in_pieces_of_an_image_and_its_two_rows_of_zeros() {
        let stream = |side| {
            let layout = layout("sm90-stream-64x576", Pass::WeightGradient, &conv(side, 64));
            layout.map(|layout| [layout.row_layout.stage_rows, layout.row_layout.stages])
        };
        assert_eq!(stream(64), Some([1, 7]));
        assert_eq!(stream(32), Some([2, 7]));
        assert_eq!(stream(16), Some([6, 5]));
        assert_eq!(stream(8), Some([10, 6]));
        assert_eq!(stream(24), None);
        assert_eq!(stream(4), None);
    }
}
