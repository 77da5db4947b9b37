//! The compiled convolution kernels: their names, tiles and needs. They are specialised on tile and alignment only.

use serde::{Deserialize, Serialize};

use super::sm90_arguments;
use super::sm90_rows::{self, Layout};
use crate::backend::cuda::driver::Properties;
use crate::backend::cuda::{Entry, Module, Variant};
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
    /// `convolution_sm80.cu`: so many warps down and across.
    Sm80 { warps: [usize; 2] },
    /// `convolution_sm90.cu`: whether both consumers share a tile, whether it is computed transposed, stages of the ring, and blocks
    /// of a cluster, which work on tiles one below the other and side by side.
    Sm90 { cooperate: bool, swap: bool, stages: usize, cluster: [usize; 2] },
    /// `convolution_rows_sm90.cu`: whether both consumers share a tile (else each has its own, computed transposed, and all
    /// filters stay), bytes of room for patches, and places for a tap's filters.
    Sm90Rows { cooperate: bool, patch_bytes: usize, filters: usize },
    /// `convolution_stream_sm90.cu`.
    Sm90Stream,
}

/// A compiled kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    /// The family and the tile, `-cluster` and the blocks of one where there are several, and `-gather` where operands are read one
    /// element at a time. One name is one kernel
    /// within a pass and a type.
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

/// What a kernel's name says of the operands that it gathers.
macro_rules! gathered {
    (true true) => {
        ""
    };
    (true false) => {
        "-gather-right"
    };
    (false false) => {
        "-gather"
    };
}

macro_rules! kernel {
    ($pass:ident, $dtype:ident, $m:literal x $n:literal, warps $down:literal x $across:literal,
     vector $a:tt $b:tt, registers $registers:literal) => {{
        const CONSTANTS: [(&str, i64); 8] = [
            ("BF16", matches!(DType::$dtype, DType::Bf16) as i64),
            ("PASS", Pass::$pass as i64),
            ("TILE_M", $m),
            ("TILE_N", $n),
            ("WARPS_M", $down),
            ("WARPS_N", $across),
            ("VECTOR_A", $a as i64),
            ("VECTOR_B", $b as i64),
        ];
        const ENTRIES: [Entry; 1] = [Entry {
            name: match Pass::$pass {
                Pass::Forward => "convolution_forward",
                Pass::InputGradient => "convolution_input_gradient",
                Pass::WeightGradient => "convolution_weight_gradient",
            },
            registers: $registers,
            tensor_cores: matches!(DType::$dtype, DType::Bf16),
            wide_loads: false,
        }];
        Kernel {
            name: concat!("sm80-", $m, "x", $n, gathered!($a $b)),
            pass: Pass::$pass,
            dtype: DType::$dtype,
            tile: [$m, $n],
            form: Form::Sm80 { warps: [$down, $across] },
            vector: [$a, $b],
            module: Module {
                variant: Variant { file: "convolution_sm80.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// A kernel of sm_90a. Its registers are those that a thread starts with; its consumers take more.
macro_rules! kernel_sm90 {
    ($pass:ident, $m:literal x $n:literal, cooperate $cooperate:literal, swap $swap:literal, stages $stages:literal,
     registers $registers:literal) => {
        kernel_sm90!(@ [], $pass, $m x $n, cluster 1 x 1, cooperate $cooperate, swap $swap, stages $stages,
                     registers $registers)
    };
    ($pass:ident, $m:literal x $n:literal, cluster $down:literal x $across:literal, cooperate $cooperate:literal, swap $swap:literal,
     stages $stages:literal, registers $registers:literal) => {
        kernel_sm90!(@ ["-cluster-" $down "x" $across], $pass, $m x $n, cluster $down x $across, cooperate $cooperate,
                     swap $swap, stages $stages, registers $registers)
    };
    (@ [$($suffix:tt)*], $pass:ident, $m:literal x $n:literal, cluster $down:literal x $across:literal,
     cooperate $cooperate:literal, swap $swap:literal, stages $stages:literal, registers $registers:literal) => {{
        const CONSTANTS: [(&str, i64); 9] = [
            ("BF16", 1),
            ("PASS", Pass::$pass as i64),
            ("TILE_M", $m),
            ("TILE_N", $n),
            ("COOPERATE", $cooperate as i64),
            ("SWAP", $swap as i64),
            ("STAGES", $stages),
            ("CLUSTER_DOWN", $down),
            ("CLUSTER_ACROSS", $across),
        ];
        const ENTRIES: [Entry; 1] = [Entry {
            name: match Pass::$pass {
                Pass::Forward => "convolution_forward_sm90",
                Pass::InputGradient => "convolution_input_gradient_sm90",
                Pass::WeightGradient => "convolution_weight_gradient_sm90",
            },
            registers: $registers,
            tensor_cores: true,
            wide_loads: false,
        }];
        Kernel {
            name: concat!("sm90-", $m, "x", $n $(, $suffix)*),
            pass: Pass::$pass,
            dtype: DType::Bf16,
            tile: [$m, $n],
            form: Form::Sm90 { cooperate: $cooperate, swap: $swap, stages: $stages, cluster: [$down, $across] },
            vector: [true, true],
            module: Module {
                variant: Variant { file: "convolution_sm90.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// A kernel of sm_90a that keeps rows of images for all taps which read them.
macro_rules! kernel_rows_sm90 {
    ($pass:ident, $m:literal x $n:literal, cooperate $cooperate:literal, patch bytes $patches:expr, filters $filters:literal) => {{
        const CONSTANTS: [(&str, i64); 8] = [
            ("BF16", 1),
            ("PASS", Pass::$pass as i64),
            ("TILE_M", $m),
            ("TILE_N", $n),
            ("COOPERATE", $cooperate as i64),
            ("SWAP", !$cooperate as i64),
            ("PATCH_BYTES", $patches),
            ("FILTERS", $filters),
        ];
        const ENTRIES: [Entry; 1] = [Entry {
            name: match Pass::$pass {
                Pass::Forward => "convolution_forward_rows_sm90",
                _ => "convolution_input_gradient_rows_sm90",
            },
            registers: 168,
            tensor_cores: true,
            wide_loads: false,
        }];
        Kernel {
            name: concat!("sm90-rows-", $m, "x", $n),
            pass: Pass::$pass,
            dtype: DType::Bf16,
            tile: [$m, $n],
            form: Form::Sm90Rows { cooperate: $cooperate, patch_bytes: $patches, filters: $filters },
            vector: [true, true],
            module: Module {
                variant: Variant { file: "convolution_rows_sm90.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// The kernel through which images stream.
const STREAM_SM90: Kernel = Kernel {
    name: "sm90-stream-64x576",
    pass: Pass::WeightGradient,
    dtype: DType::Bf16,
    tile: [64, 576],
    form: Form::Sm90Stream,
    vector: [true, true],
    module: Module {
        variant: Variant {
            file: "convolution_stream_sm90.cu",
            constants: &[("BF16", 1), ("PASS", Pass::WeightGradient as i64), ("TILE_M", 64), ("TILE_N", 576)],
        },
        entries: &[Entry {
            name: "convolution_weight_gradient_stream_sm90",
            registers: 128,
            tensor_cores: true,
            wide_loads: false,
        }],
    },
};

/// Every kernel; the smaller tiles of equals last, so that ties go to the larger.
pub(super) static KERNELS: [Kernel; 54] = [
    kernel_rows_sm90!(Forward, 256 x 128, cooperate true, patch bytes 96 << 10, filters 6),
    kernel_rows_sm90!(Forward, 128 x 128, cooperate true, patch bytes 96 << 10, filters 6),
    kernel_rows_sm90!(Forward, 256 x 64, cooperate false, patch bytes 120 << 10, filters 9),
    kernel_rows_sm90!(InputGradient, 256 x 128, cooperate true, patch bytes 96 << 10, filters 6),
    kernel_rows_sm90!(InputGradient, 128 x 128, cooperate true, patch bytes 96 << 10, filters 6),
    kernel_rows_sm90!(InputGradient, 256 x 64, cooperate false, patch bytes 120 << 10, filters 9),
    STREAM_SM90,
    kernel_sm90!(Forward, 256 x 128, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(Forward, 128 x 256, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(Forward, 128 x 128, cooperate false, swap false, stages 6, registers 168),
    kernel_sm90!(Forward, 256 x 64, cooperate false, swap true, stages 4, registers 168),
    kernel_sm90!(Forward, 64 x 64, cooperate false, swap false, stages 8, registers 104),
    kernel_sm90!(InputGradient, 256 x 128, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(InputGradient, 128 x 256, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(InputGradient, 128 x 128, cooperate false, swap false, stages 6, registers 168),
    kernel_sm90!(InputGradient, 256 x 64, cooperate false, swap true, stages 4, registers 168),
    kernel_sm90!(InputGradient, 64 x 64, cooperate false, swap false, stages 8, registers 104),
    kernel_sm90!(WeightGradient, 128 x 256, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(WeightGradient, 128 x 128, cooperate false, swap false, stages 6, registers 168),
    kernel_sm90!(WeightGradient, 64 x 192, cooperate false, swap false, stages 6, registers 168),
    kernel_sm90!(WeightGradient, 64 x 64, cooperate false, swap false, stages 8, registers 104),
    kernel_sm90!(Forward, 128 x 256, cluster 2 x 1, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(Forward, 256 x 128, cluster 2 x 1, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(Forward, 128 x 128, cluster 1 x 2, cooperate false, swap false, stages 6, registers 168),
    kernel_sm90!(Forward, 128 x 64, cluster 1 x 2, cooperate false, swap true, stages 8, registers 168),
    kernel_sm90!(InputGradient, 128 x 256, cluster 2 x 1, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(InputGradient, 256 x 128, cluster 2 x 1, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(InputGradient, 128 x 128, cluster 1 x 2, cooperate false, swap false, stages 6, registers 168),
    kernel_sm90!(InputGradient, 128 x 64, cluster 1 x 2, cooperate false, swap true, stages 8, registers 168),
    kernel_sm90!(WeightGradient, 128 x 256, cluster 2 x 1, cooperate true, swap false, stages 4, registers 168),
    kernel_sm90!(WeightGradient, 128 x 192, cluster 1 x 2, cooperate true, swap false, stages 4, registers 168),
    kernel!(Forward, Bf16, 128 x 128, warps 2 x 4, vector true true, registers 128),
    kernel!(Forward, Bf16, 128 x 64, warps 4 x 2, vector true true, registers 85),
    kernel!(Forward, Bf16, 64 x 64, warps 2 x 2, vector true true, registers 102),
    kernel!(Forward, Bf16, 128 x 64, warps 4 x 2, vector false false, registers 128),
    kernel!(InputGradient, Bf16, 128 x 128, warps 2 x 4, vector true true, registers 128),
    kernel!(InputGradient, Bf16, 128 x 64, warps 4 x 2, vector true true, registers 85),
    kernel!(InputGradient, Bf16, 64 x 64, warps 2 x 2, vector true true, registers 102),
    kernel!(InputGradient, Bf16, 128 x 64, warps 4 x 2, vector false false, registers 128),
    kernel!(WeightGradient, Bf16, 128 x 128, warps 2 x 4, vector true true, registers 128),
    kernel!(WeightGradient, Bf16, 64 x 128, warps 2 x 4, vector true true, registers 85),
    kernel!(WeightGradient, Bf16, 64 x 64, warps 2 x 2, vector true true, registers 102),
    kernel!(WeightGradient, Bf16, 64 x 64, warps 2 x 2, vector true false, registers 168),
    kernel!(WeightGradient, Bf16, 64 x 64, warps 2 x 2, vector false false, registers 168),
    kernel!(Forward, F32, 128 x 64, warps 4 x 1, vector true true, registers 168),
    kernel!(Forward, F32, 64 x 64, warps 2 x 2, vector true true, registers 128),
    kernel!(Forward, F32, 64 x 64, warps 2 x 2, vector false false, registers 128),
    kernel!(InputGradient, F32, 128 x 64, warps 4 x 1, vector true true, registers 168),
    kernel!(InputGradient, F32, 64 x 64, warps 2 x 2, vector true true, registers 128),
    kernel!(InputGradient, F32, 64 x 64, warps 2 x 2, vector false false, registers 128),
    kernel!(WeightGradient, F32, 128 x 64, warps 4 x 1, vector true true, registers 168),
    kernel!(WeightGradient, F32, 64 x 64, warps 2 x 2, vector true true, registers 128),
    kernel!(WeightGradient, F32, 64 x 64, warps 2 x 2, vector true false, registers 128),
    kernel!(WeightGradient, F32, 64 x 64, warps 2 x 2, vector false false, registers 128),
];

/// Adds the splits of a weight gradient.
pub(super) const SUM: Module = Module {
    variant: Variant { file: "convolution_sum.cu", constants: &[] },
    entries: &[Entry { name: "convolution_sum", registers: 64, tensor_cores: false, wide_loads: true }],
};

/// Everything that is compiled.
pub(super) fn modules() -> impl Iterator<Item = Module> {
    KERNELS.iter().map(|kernel| kernel.module).chain([SUM])
}

/// Stages of the pipeline, as `convolution_sm80.cu` has them.
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
    pub fn piece(&self) -> [usize; 2] {
        let [down, across] = self.cluster();
        [down * self.tile[0], across * self.tile[1]]
    }

    /// Tiles of a result of `rows` x `columns`, and those beyond it that fill up clusters.
    pub fn tiles(&self, rows: usize, columns: usize) -> usize {
        let piece = self.piece();
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

    /// The same of so many taps.
    pub fn sum_of_taps(&self, taps: usize, channels: usize) -> usize {
        (taps * self.padded(channels)).next_multiple_of(self.step())
    }

    /// Channels of a tap with the zeros that the kernel puts behind them.
    fn padded(&self, channels: usize) -> usize {
        match self.form {
            Form::Sm80 { .. } => channels,
            _ => channels.next_multiple_of(self.step()),
        }
    }
}
