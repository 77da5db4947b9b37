//! The wgrad of 3 x 3 filters without stride, for which images stream through shared memory row by row:
//! `convolution/sm90/streaming_wgrad.cu`.

use super::family::Sm90;
use super::row_layout::{Layout, PIXEL_BYTES, STREAM_BYTES};
use crate::backend::cuda::convolution::kernel::Kernel;
use crate::backend::cuda::convolution::problem::Pass;
use crate::backend::cuda::kernel_files::convolution::sm90::streaming_wgrad;
use crate::backend::cuda::{Entry, Module, Variant};
use crate::ops::Conv2d;
use crate::tensor::DType;

/// The kernel.
pub(super) static KERNELS: [Kernel; 1] = [Kernel {
    name: "sm90-stream-64x576",
    pass: Pass::Wgrad,
    dtype: DType::Bf16,
    tile: [64, 576],
    family: &StreamingWgrad,
    vector: [true, true],
    module: Module {
        variant: Variant {
            file: "convolution/sm90/streaming_wgrad.cu",
            constants: &[("BF16", 1), ("PASS", Pass::Wgrad as i64), ("TILE_M", 64), ("TILE_N", 576)],
        },
        entries: &[Entry {
            name: "conv2d_wgrad_streaming_sm90",
            registers: 128,
            tensor_cores: true,
            wide_loads: false,
        }],
    },
}];

/// The family.
#[derive(Debug)]
struct StreamingWgrad;

impl Sm90 for StreamingWgrad {
    fn threads(&self) -> u32 {
        streaming_wgrad::THREADS as u32
    }

    fn stage_bytes(&self, _: &Kernel) -> usize {
        STREAM_BYTES
    }

    fn cooperative(&self) -> bool {
        true
    }

    fn wide(&self, kernel: &Kernel) -> usize {
        kernel.tile[1] / streaming_wgrad::TAPS
    }

    fn layout(&self, _: &Kernel, conv: &Conv2d) -> Option<Layout> {
        let fits = conv.stride == 1 && [conv.filter_height, conv.filter_width] == [streaming_wgrad::TAPS; 2];
        if fits { Layout::of_stream([conv.out_width(), conv.out_height()]) } else { None }
    }

    /// Splits lie between images.
    fn longest_split(&self, kernel: &Kernel, conv: &Conv2d, splits: usize) -> usize {
        conv.batch.div_ceil(splits) * (conv.out_pixels() / conv.batch / kernel.block_k())
    }

    fn most_splits(&self, _: &Kernel, conv: &Conv2d) -> usize {
        conv.batch
    }

    fn loaded(&self, _: &Kernel, conv: &Conv2d) -> [f64; 2] {
        let rows = conv.out_height() as f64;
        [PIXEL_BYTES as f64 * (1.0 + conv.filter_width as f64 * (rows + 2.0) / rows); 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_copied_in_pieces_of_an_image_and_its_two_rows_of_zeros() {
        let stream = |side| {
            let conv = Conv2d {
                batch: 4,
                height: side,
                width: side,
                in_channels: 64,
                out_channels: 64,
                filter_height: 3,
                filter_width: 3,
                stride: 1,
                padding: 1,
            };
            let layout = StreamingWgrad.layout(&KERNELS[0], &conv);
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
