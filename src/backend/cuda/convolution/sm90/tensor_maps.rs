//! Tensor maps: the boxes of images and filters that TMA loads.

use super::arguments::{BLOCK_K, Phase};
use super::row_layout::Layout;
use crate::backend::cuda::Cuda;
use crate::backend::cuda::convolution::kernel::Kernel;
use crate::backend::cuda::convolution::problem::Pass;
use crate::backend::cuda::driver::tensor_map::{TensorMap, TensorMapRequest, TmaMode};
use crate::error::Result;
use crate::ops::Conv2d;

/// Bytes of an element of every operand that TMA loads.
const BYTES: u64 = 2;

/// Pixels of a tile of fprop or dgrad that one TMA load brings: the thread blocks of a cluster along N load equal parts.
fn shared_pixels(kernel: &Kernel) -> usize {
    kernel.tile[0] / kernel.family.cluster()[1]
}

/// Images in device memory (NHWC).
pub(super) struct Images {
    address: u64,
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
}

impl Images {
    /// The input of a convolution.
    pub fn inputs(conv: &Conv2d, address: u64) -> Images {
        let Conv2d { batch, height, width, in_channels: channels, .. } = *conv;
        Images { address, batch, height, width, channels }
    }

    /// The output.
    pub fn outputs(conv: &Conv2d, address: u64) -> Images {
        let (height, width) = (conv.out_height(), conv.out_width());
        Images { address, batch: conv.batch, height, width, channels: conv.out_channels }
    }

    fn row_bytes(&self) -> u64 {
        self.channels as u64 * BYTES
    }

    /// One TMA load brings 64 channels of the rows that a kernel keeps, or of one tap of the patches of a tile's pixels.
    pub fn patches(
        &self,
        cuda: &Cuda,
        kernel: &Kernel,
        layout: Option<Layout>,
        conv: &Conv2d,
        phase: &Phase,
    ) -> Result<TensorMap> {
        if let Some(layout) = layout {
            return self.map(cuda, TmaMode::Tiled(&layout.box_extents()));
        }
        let (step, pixels) = match kernel.pass {
            Pass::Fprop => (conv.stride, shared_pixels(kernel)),
            Pass::Dgrad => (1, shared_pixels(kernel)),
            Pass::Wgrad => (conv.stride, BLOCK_K),
        };
        if conv.is_pointwise() { self.matrix(cuda, pixels) } else { self.taps(cuda, phase, step, pixels) }
    }

    /// One TMA load brings 64 channels of one tap of the patches of `pixels` pixels of a phase, which lie `step` rows (columns) apart.
    fn taps(&self, cuda: &Cuda, phase: &Phase, step: usize, pixels: usize) -> Result<TensorMap> {
        // The bounding box of the base pixels, counted from the last pixel of the image.
        let upper = |first: i32, bases: u32, extent: usize| {
            first + ((bases - 1) * step as u32) as i32 - (extent - 1) as i32
        };
        let mode = TmaMode::Im2col {
            lower: [phase.first_column, phase.first_row],
            upper: [
                upper(phase.first_column, phase.width.divisor, self.width),
                upper(phase.first_row, phase.height.divisor, self.height),
            ],
            channels: BLOCK_K as u32,
            pixels: pixels as u32,
            strides: [step as u32; 2],
        };
        self.map(cuda, mode)
    }

    fn map(&self, cuda: &Cuda, mode: TmaMode<'_>) -> Result<TensorMap> {
        let [width, height, batch] = [self.width, self.height, self.batch].map(|extent| extent as u64);
        let row = self.row_bytes();
        cuda.driver.tensor_map(&TensorMapRequest {
            address: self.address,
            extents: &[self.channels as u64, width, height, batch],
            strides: &[row, row * width, row * width * height],
            mode,
        })
    }

    /// All pixels as one matrix: one TMA load brings 64 channels of `pixels` of them.
    pub fn matrix(&self, cuda: &Cuda, pixels: usize) -> Result<TensorMap> {
        let rows = (self.batch * self.height * self.width) as u64;
        cuda.driver.tensor_map(&TensorMapRequest {
            address: self.address,
            extents: &[self.channels as u64, rows],
            strides: &[self.row_bytes()],
            mode: TmaMode::Tiled(&[BLOCK_K as u32, pixels as u32]),
        })
    }
}

/// A convolution's weights (KRSC): one TMA load brings 64 input channels of one tap of `filters` filters.
pub(super) fn filters(cuda: &Cuda, conv: &Conv2d, address: u64, filters: usize) -> Result<TensorMap> {
    let taps = (conv.filter_height * conv.filter_width) as u64;
    let row = conv.in_channels as u64 * BYTES;
    cuda.driver.tensor_map(&TensorMapRequest {
        address,
        extents: &[conv.in_channels as u64, taps, conv.out_channels as u64],
        strides: &[row, row * taps],
        mode: TmaMode::Tiled(&[BLOCK_K as u32, 1, filters as u32]),
    })
}
