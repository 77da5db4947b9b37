//! A compiled convolution kernel: its tile, its needs, and the convolutions it can compute.

use serde::{Deserialize, Serialize};

use super::sm90_arguments;
use super::sm90_rows::{self, Layout};
use crate::backend::cuda::Module;
use crate::backend::cuda::driver::Properties;
use crate::ops::Conv2d;
use crate::tensor::DType;

/// The three passes of a convolution: fprop, dgrad and wgrad.
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
    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::InputGradient => "input-gradient",
            Pass::WeightGradient => "weight-gradient",
        }
    }
}

/// The file that a kernel is a variant of, and its thread block's work on a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `convolution/sm80/implicit_gemm.cu`: warps along M and N.
    Sm80 { warps: [usize; 2] },
    /// `convolution/sm90/implicit_gemm.cu`: cooperative or ping-pong consumers, whether A and B are swapped, pipeline stages, and the
    /// thread blocks of a cluster along M and N.
    Sm90 { cooperative: bool, swap_ab: bool, stages: usize, cluster: [usize; 2] },
    /// `convolution/sm90/halo_reuse.cu`: cooperative consumers (else ping-pong with A and B swapped and resident filters), bytes
    /// for stages of patches, and stages of one tap's filters.
    Sm90HaloReuse { cooperative: bool, patch_bytes: usize, filter_stages: usize },
    /// `convolution/sm90/streaming_wgrad.cu`.
    Sm90StreamingWgrad,
}

/// A compiled kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    /// The family (`-rows`: halo reuse; `-stream`: streaming wgrad) and the tile, `-cluster` and its thread blocks where there are
    /// several, and `-gather` where operands are read one element at a time. One name is one kernel within a pass and a type.
    pub name: &'static str,
    pub pass: Pass,
    pub dtype: DType,
    /// Rows and columns of the tile that a thread block computes.
    pub tile: [usize; 2],
    pub form: Form,
    /// Whether rows of operands A and B are copied in vectors of 16 bytes.
    pub vector: [bool; 2],
    pub module: Module,
}

/// Pipeline stages of `convolution/sm80/implicit_gemm.cu`.
const STAGES: usize = 4;

impl Kernel {
    pub fn threads(&self) -> u32 {
        match self.form {
            Form::Sm80 { warps: [down, across] } => (32 * down * across) as u32,
            Form::Sm90 { .. } | Form::Sm90HaloReuse { .. } => 384,
            Form::Sm90StreamingWgrad => 512,
        }
    }

    /// Whether it uses TMA and WGMMA.
    pub fn is_sm90(&self) -> bool {
        !matches!(self.form, Form::Sm80 { .. })
    }

    /// Whether it has a reduction epilogue that leaves partial sums for batch normalisation.
    pub fn reduces_in_epilogue(&self) -> bool {
        self.is_sm90()
    }

    /// Whether it applies a prologue to the patches of a convolution.
    pub fn applies_prologue(&self, conv: &Conv2d) -> bool {
        matches!(self.form, Form::Sm90 { .. }) && self.pass != Pass::InputGradient && conv.is_pointwise()
    }

    /// The size of `SharedStorage` in the kernel's file.
    pub fn shared_bytes(&self) -> u32 {
        // On sm_90a: pipeline stages, an epilogue tile for each consumer, barriers; all in multiples of the swizzle's period.
        const SLABS: usize = 2 * 64 * 64 * 4;
        const BARRIERS: usize = 1024;
        let bytes = match self.form {
            Form::Sm80 { .. } => return self.shared_bytes_sm80(),
            Form::Sm90 { stages, .. } => stages * (self.tile[0] + self.tile[1]) * 128 + SLABS,
            Form::Sm90HaloReuse { patch_bytes, filter_stages, .. } => {
                patch_bytes + filter_stages * self.tile[1] * 128 + SLABS
            }
            Form::Sm90StreamingWgrad => sm90_rows::STREAM_BYTES,
        };
        (bytes + BARRIERS) as u32
    }

    /// The pipeline stages or the epilogue tile, and the row positions.
    fn shared_bytes_sm80(&self) -> u32 {
        const PIXEL: usize = 16;
        let [rows, columns] = self.tile;
        let ring = STAGES * (rows + columns) * 64;
        let pixels = if self.pass != Pass::WeightGradient && !self.vector[0] { rows } else { 1 };
        let looked_up = match self.pass {
            Pass::Forward => self.block_k() * 4,
            Pass::InputGradient => STAGES * self.block_k() * 4,
            Pass::WeightGradient => STAGES * self.block_k() * PIXEL,
        };
        (ring.max(rows * columns * 4) + PIXEL * pixels + looked_up).next_multiple_of(128) as u32
    }

    /// BLOCK_K, the elements of GEMM K in a pipeline stage: 64 bytes, on sm_90a 128.
    pub fn block_k(&self) -> usize {
        match self.form {
            Form::Sm80 { .. } => 64 / self.dtype.size(),
            Form::Sm90 { .. } | Form::Sm90HaloReuse { .. } | Form::Sm90StreamingWgrad => {
                sm90_arguments::BLOCK_K
            }
        }
    }

    /// Thread blocks of a cluster along M and N.
    pub fn cluster(&self) -> [usize; 2] {
        match self.form {
            Form::Sm90 { cluster, .. } => cluster,
            _ => [1, 1],
        }
    }

    /// Thread blocks of a cluster.
    pub fn blocks(&self) -> usize {
        self.cluster().iter().product()
    }

    /// Rows and columns of the result that a cluster computes.
    pub fn cluster_tile(&self) -> [usize; 2] {
        let [down, across] = self.cluster();
        [down * self.tile[0], across * self.tile[1]]
    }

    /// Tiles of a result of `rows` x `columns`, and those outside it that fill up clusters.
    pub fn tiles(&self, rows: usize, columns: usize) -> usize {
        let piece = self.cluster_tile();
        rows.div_ceil(piece[0]) * columns.div_ceil(piece[1]) * self.blocks()
    }

    /// Whether it runs on a device.
    pub fn runs_on(&self, device: &Properties) -> bool {
        !self.is_sm90()
            || device.capability == (9, 0) && matches!(device.architecture.as_str(), "sm_90a" | "host")
    }

    /// Whether it can compute a convolution: rows are aligned as it needs, and extents within its limits.
    pub fn fits(&self, conv: &Conv2d) -> bool {
        if self.is_sm90() {
            // TMA steps over at most 8 pixels, and its bounding boxes begin and end at most 128 pixels from the image's.
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

    /// M and N of the GEMM. N of a wgrad of sm_90a is whole panels of a tap's channels.
    pub fn extents(&self, conv: &Conv2d) -> [usize; 2] {
        let patch = conv.filter_height * conv.filter_width * self.padded(conv.in_channels);
        match self.pass {
            Pass::Forward => [conv.out_pixels(), conv.out_channels],
            Pass::InputGradient => [conv.batch * conv.height * conv.width, conv.in_channels],
            Pass::WeightGradient => [conv.out_channels, patch],
        }
    }

    /// K of the GEMM, padded to whole K blocks. In a dgrad as if every pixel saw every tap.
    pub fn gemm_k(&self, conv: &Conv2d) -> usize {
        let taps = conv.filter_height * conv.filter_width;
        match self.pass {
            Pass::Forward | Pass::InputGradient => self.k_of_taps(taps, self.channels(conv)),
            Pass::WeightGradient => conv.out_pixels().next_multiple_of(self.block_k()),
        }
    }

    /// The same with `taps` taps.
    pub fn k_of_taps(&self, taps: usize, channels: usize) -> usize {
        (taps * self.padded(channels)).next_multiple_of(self.block_k())
    }

    /// Channels of the image whose patches are read.
    pub fn channels(&self, conv: &Conv2d) -> usize {
        match self.pass {
            Pass::Forward | Pass::WeightGradient => conv.in_channels,
            Pass::InputGradient => conv.out_channels,
        }
    }

    /// K blocks of a wgrad in the longest split-K slice. The streaming kernel splits between images.
    pub fn longest_split(&self, conv: &Conv2d, splits: usize) -> usize {
        match self.form {
            Form::Sm90StreamingWgrad => {
                conv.batch.div_ceil(splits) * (conv.out_pixels() / conv.batch / self.block_k())
            }
            _ => conv.out_pixels().div_ceil(self.block_k()).div_ceil(splits),
        }
    }

    /// Bytes that loads write to shared memory for each element of K of a tile, and the part of them that is loaded from L2: a
    /// cluster multicasts rows along N, and columns along M.
    pub fn copied(&self, conv: &Conv2d) -> [f64; 2] {
        if let Some(layout) = Layout::of(self, conv) {
            return [layout.fetched(self, conv); 2];
        }
        let size = self.dtype.size() as f64;
        let ([rows, columns], [down, across]) =
            (self.tile.map(|n| n as f64), self.cluster().map(|n| n as f64));
        [(rows + columns) * size, (rows / across + columns / down) * size]
    }

    /// Channels of a tap, padded as in the kernel.
    fn padded(&self, channels: usize) -> usize {
        match self.form {
            Form::Sm80 { .. } => channels,
            _ => channels.next_multiple_of(self.block_k()),
        }
    }
}
