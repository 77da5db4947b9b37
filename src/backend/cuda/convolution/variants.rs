//! The compiled convolution kernels: their names, tiles and needs. They are specialised on tile and alignment only.

use serde::{Deserialize, Serialize};

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

/// A compiled kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    /// The family and the tile, and `-gather` where operands are read one element at a time. One name is one kernel
    /// within a pass and a type.
    pub name: &'static str,
    pub pass: Pass,
    pub dtype: DType,
    /// Rows and columns of the result that a block computes.
    pub tile: [usize; 2],
    /// Warps of a block, down and across.
    pub warps: [usize; 2],
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
            warps: [$down, $across],
            vector: [$a, $b],
            module: Module {
                variant: Variant { file: "convolution_sm80.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// Every kernel; the smaller tiles of equals last, so that ties go to the larger.
pub(super) static KERNELS: [Kernel; 23] = [
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

/// Elements of the sum in one step of a kernel's pipeline: 64 bytes.
pub(super) fn step(dtype: DType) -> usize {
    64 / dtype.size()
}

/// Stages of the pipeline, as `convolution_sm80.cu` has them.
const STAGES: usize = 4;

impl Kernel {
    pub fn threads(&self) -> u32 {
        (32 * self.warps[0] * self.warps[1]) as u32
    }

    /// The size of `Memory` in `convolution_sm80.cu`: the ring of stages or the result, and what is looked up.
    pub fn shared_bytes(&self) -> u32 {
        const PIXEL: usize = 16;
        let [rows, columns] = self.tile;
        let ring = STAGES * (rows + columns) * 64;
        let pixels = if self.pass != Pass::WeightGradient && !self.vector[0] { rows } else { 1 };
        let looked_up = match self.pass {
            Pass::Forward => step(self.dtype) * 4,
            Pass::InputGradient => STAGES * step(self.dtype) * 4,
            Pass::WeightGradient => STAGES * step(self.dtype) * PIXEL,
        };
        (ring.max(rows * columns * 4) + PIXEL * pixels + looked_up).next_multiple_of(128) as u32
    }

    /// Tiles of a result of `rows` x `columns`.
    pub fn tiles(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.tile[0]) * columns.div_ceil(self.tile[1])
    }

    /// Whether a convolution's rows are aligned as the kernel wants them.
    pub fn fits(&self, conv: &Conv2d) -> bool {
        let aligned = |channels: usize| (channels * self.dtype.size()).is_multiple_of(16);
        let (input, output) = (aligned(conv.in_channels), aligned(conv.out_channels));
        let [left, right] = match self.pass {
            Pass::Forward => [input, input],
            Pass::InputGradient | Pass::WeightGradient => [output, input],
        };
        (left || !self.vector[0]) && (right || !self.vector[1])
    }

    /// Rows and columns of the product.
    pub fn extents(&self, conv: &Conv2d) -> [usize; 2] {
        match self.pass {
            Pass::Forward => [conv.out_pixels(), conv.out_channels],
            Pass::InputGradient => [conv.batch * conv.height * conv.width, conv.in_channels],
            Pass::WeightGradient => [conv.out_channels, conv.filter_elements()],
        }
    }
}
