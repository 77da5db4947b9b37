//! What a compiled convolution kernel is: its tile, its needs, and what it can do.

use serde::{Deserialize, Serialize};

use super::sm90_arguments;
use super::sm90_rows::{self, Layout};
use crate::backend::cuda::Module;
use crate::backend::cuda::driver::Properties;
use crate::ops::Conv2d;
use crate::tensor::DType;

/// Which of the three products of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pass {
    /// The output, in training and in inference.
    Forward,
    /// The gradient with respect to the input.
    InputGradient,
    /// The gradient with respect to the weights.
    WeightGradient,
}

impl Pass {
    /// As tables and files call it.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::InputGradient => "input-gradient",
            Pass::WeightGradient => "weight-gradient",
        }
    }
}

/// Which file a kernel is a variant of, and how its block works on a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `convolution/sm80/implicit_gemm.cu`: so many warps down and across.
    Sm80 { warps: [usize; 2] },
    /// `convolution/sm90/implicit_gemm.cu`: whether both consumers share a tile, whether it is computed transposed, stages of the ring, and blocks
    /// of a cluster, which work on tiles one below the other and side by side.
    Sm90 { cooperate: bool, swap: bool, stages: usize, cluster: [usize; 2] },
    /// `convolution/sm90/halo_reuse.cu`: whether both consumers share a tile (else each has its own, computed transposed, and all
    /// filters stay), bytes of room for patches, and places for a tap's filters.
    Sm90Rows { cooperate: bool, patch_bytes: usize, filters: usize },
    /// `convolution/sm90/streaming_wgrad.cu`.
    Sm90Stream,
}

/// A compiled kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    /// The family (`-rows` and `-stream` keep rows of images) and the tile, `-cluster` and the blocks of one where there are
    /// several, and `-gather` where operands are read one element at a time. One name is one kernel within a pass and a type.
    pub name: &'static str,
    pub pass: Pass,
    pub dtype: DType,
    /// Rows and columns of the result that a block computes.
    pub tile: [usize; 2],
    pub form: Form,
    /// Whether rows of the left and of the right operand are copied 16 bytes at a time.
    pub vector: [bool; 2],
    pub module: Module,
}

/// Stages of the pipeline, as `convolution/sm80/implicit_gemm.cu` has them.
const STAGES: usize = 4;

impl Kernel {
    pub fn threads(&self) -> u32 {
        match self.form {
            Form::Sm80 { warps: [down, across] } => (32 * down * across) as u32,
            Form::Sm90 { .. } | Form::Sm90Rows { .. } => 384,
            Form::Sm90Stream => 512,
        }
    }

    /// Whether it has tensors copied and warpgroups multiply them.
    pub fn is_sm90(&self) -> bool {
        !matches!(self.form, Form::Sm80 { .. })
    }

    /// Whether it leaves sums of slabs of its result for batch normalisation.
    pub fn leaves_sums(&self) -> bool {
        self.is_sm90()
    }

    /// Whether it applies a prologue to the patches of a convolution.
    pub fn maps_patches(&self, conv: &Conv2d) -> bool {
        matches!(self.form, Form::Sm90 { .. }) && self.pass != Pass::InputGradient && conv.is_pointwise()
    }

    /// The size of `Memory` in the kernel's file.
    pub fn shared_bytes(&self) -> u32 {
        // Of sm_90a's: rings, a slab for each consumer, barriers; all in pieces of the swizzle's period.
        const SLABS: usize = 2 * 64 * 64 * 4;
        const BARRIERS: usize = 1024;
        let bytes = match self.form {
            Form::Sm80 { .. } => return self.shared_bytes_sm80(),
            Form::Sm90 { stages, .. } => stages * (self.tile[0] + self.tile[1]) * 128 + SLABS,
            Form::Sm90Rows { patch_bytes, filters, .. } => patch_bytes + filters * self.tile[1] * 128 + SLABS,
            Form::Sm90Stream => sm90_rows::STREAM_BYTES,
        };
        (bytes + BARRIERS) as u32
    }

    /// The ring of stages or the result, and what is looked up.
    fn shared_bytes_sm80(&self) -> u32 {
        const PIXEL: usize = 16;
        let [rows, columns] = self.tile;
        let ring = STAGES * (rows + columns) * 64;
        let pixels = if self.pass != Pass::WeightGradient && !self.vector[0] { rows } else { 1 };
        let looked_up = match self.pass {
            Pass::Forward => self.step() * 4,
            Pass::InputGradient => STAGES * self.step() * 4,
            Pass::WeightGradient => STAGES * self.step() * PIXEL,
        };
        (ring.max(rows * columns * 4) + PIXEL * pixels + looked_up).next_multiple_of(128) as u32
    }

    /// Elements of the sum in one step of the pipeline: 64 bytes, on sm_90a 128.
    pub fn step(&self) -> usize {
        match self.form {
            Form::Sm80 { .. } => 64 / self.dtype.size(),
            Form::Sm90 { .. } | Form::Sm90Rows { .. } | Form::Sm90Stream => sm90_arguments::STEP,
        }
    }

    /// Blocks that work on neighbouring tiles together: one below the other, and side by side.
    pub fn cluster(&self) -> [usize; 2] {
        match self.form {
            Form::Sm90 { cluster, .. } => cluster,
            _ => [1, 1],
        }
    }

    /// Blocks of a cluster.
    pub fn blocks(&self) -> usize {
        self.cluster().iter().product()
    }

    /// Rows and columns of the result that a cluster computes.
    pub fn cluster_tile(&self) -> [usize; 2] {
        let [down, across] = self.cluster();
        [down * self.tile[0], across * self.tile[1]]
    }

    /// Tiles of a result of `rows` x `columns`, and those beyond it that fill up clusters.
    pub fn tiles(&self, rows: usize, columns: usize) -> usize {
        let piece = self.cluster_tile();
        rows.div_ceil(piece[0]) * columns.div_ceil(piece[1]) * self.blocks()
    }

    /// Whether it runs on a device.
    pub fn runs_on(&self, device: &Properties) -> bool {
        !self.is_sm90()
            || device.capability == (9, 0) && matches!(device.architecture.as_str(), "sm_90a" | "host")
    }

    /// Whether a convolution's rows are aligned as the kernel wants them, and its extents what the kernel can do.
    pub fn fits(&self, conv: &Conv2d) -> bool {
        if self.is_sm90() {
            // The copy engine steps over at most 8 pixels, and its boxes begin and end at most 128 pixels from the image's.
            let near = conv.filter_height.max(conv.filter_width).max(conv.padding) <= 32;
            let aligned = [conv.in_channels, conv.out_channels].iter().all(|n| n.is_multiple_of(8));
            let has_layout = matches!(self.form, Form::Sm90 { .. }) || Layout::of(self, conv).is_some();
            return aligned && conv.stride <= 8 && near && has_layout;
        }
        let aligned = |channels: usize| (channels * self.dtype.size()).is_multiple_of(16);
        let (input, output) = (aligned(conv.in_channels), aligned(conv.out_channels));
        let [left, right] = match self.pass {
            Pass::Forward => [input, input],
            Pass::InputGradient | Pass::WeightGradient => [output, input],
        };
        (left || !self.vector[0]) && (right || !self.vector[1])
    }

    /// Rows and columns of the product. The columns of a weight gradient of sm_90a are whole blocks of a tap's channels.
    pub fn extents(&self, conv: &Conv2d) -> [usize; 2] {
        let patch = conv.filter_height * conv.filter_width * self.padded(conv.in_channels);
        match self.pass {
            Pass::Forward => [conv.out_pixels(), conv.out_channels],
            Pass::InputGradient => [conv.batch * conv.height * conv.width, conv.in_channels],
            Pass::WeightGradient => [conv.out_channels, patch],
        }
    }

    /// Products that are added up for an element of the result, and zeros that fill up the last step. In an input gradient as if
    /// every pixel saw every tap.
    pub fn sum(&self, conv: &Conv2d) -> usize {
        let taps = conv.filter_height * conv.filter_width;
        match self.pass {
            Pass::Forward | Pass::InputGradient => self.sum_of_taps(taps, self.channels(conv)),
            Pass::WeightGradient => conv.out_pixels().next_multiple_of(self.step()),
        }
    }

    /// The same of so many taps.
    pub fn sum_of_taps(&self, taps: usize, channels: usize) -> usize {
        (taps * self.padded(channels)).next_multiple_of(self.step())
    }

    /// Channels of the image whose patches are read.
    pub fn channels(&self, conv: &Conv2d) -> usize {
        match self.pass {
            Pass::Forward | Pass::WeightGradient => conv.in_channels,
            Pass::InputGradient => conv.out_channels,
        }
    }

    /// Steps of the sum of a weight gradient in the longest of so many parts. A stream is cut between images.
    pub fn longest_part(&self, conv: &Conv2d, splits: usize) -> usize {
        match self.form {
            Form::Sm90Stream => conv.batch.div_ceil(splits) * (conv.out_pixels() / conv.batch / self.step()),
            _ => conv.out_pixels().div_ceil(self.step()).div_ceil(splits),
        }
    }

    /// Bytes that copies write to shared memory for each element of a tile's sum, and those of them that are asked of the
    /// second-level cache: blocks side by side share rows, those one below the other columns.
    pub fn copied(&self, conv: &Conv2d) -> [f64; 2] {
        if let Some(layout) = Layout::of(self, conv) {
            return [layout.fetched(self, conv); 2];
        }
        let size = self.dtype.size() as f64;
        let ([rows, columns], [down, across]) =
            (self.tile.map(|n| n as f64), self.cluster().map(|n| n as f64));
        [(rows + columns) * size, (rows / across + columns / down) * size]
    }

    /// Channels of a tap with the zeros that the kernel puts behind them.
    fn padded(&self, channels: usize) -> usize {
        match self.form {
            Form::Sm80 { .. } => channels,
            _ => channels.next_multiple_of(self.step()),
        }
    }
}
