//! The compiled convolution kernels, and which one a convolution gets.
//!
//! Kernels are specialised on tile and alignment only. A convolution gets the tile that the busiest multiprocessor is done
//! with first, by a rule of thumb that knows areas and nothing of clocks; measured times can replace [`Kernel::cost`].

use crate::backend::cuda::{Entry, Module, Variant};
use crate::ops::Conv2d;
use crate::tensor::DType;

/// Which of the three products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

/// A compiled kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    pub pass: Pass,
    pub dtype: DType,
    /// Rows and columns of the result that a block computes.
    pub tile: [usize; 2],
    /// Warps of a block, down and across.
    warps: [usize; 2],
    /// Whether rows of the left and of the right operand are copied 16 bytes at a time.
    pub vector: [bool; 2],
    pub module: Module,
}

macro_rules! kernel {
    ($pass:ident, $dtype:ident, $m:literal x $n:literal, warps $down:literal x $across:literal,
     vector $a:literal $b:literal, registers $registers:literal) => {{
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
fn step(dtype: DType) -> usize {
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
    fn extents(&self, conv: &Conv2d) -> [usize; 2] {
        match self.pass {
            Pass::Forward => [conv.out_pixels(), conv.out_channels],
            Pass::InputGradient => [conv.batch * conv.height * conv.width, conv.in_channels],
            Pass::WeightGradient => [conv.out_channels, conv.filter_elements()],
        }
    }

    /// Estimated time, in any unit: how much of the result the busiest multiprocessor computes (in a weight gradient, whose
    /// sum can be split, an even share), over the share of the arithmetic units that a tile keeps busy, which grows with the
    /// products made of each number that is brought in. A gather of single elements costs more than any shape of tile.
    fn cost(&self, conv: &Conv2d, multiprocessors: usize) -> f64 {
        let ([rows, columns], [height, width]) = (self.extents(conv), self.tile);
        let tiles = self.tiles(rows, columns);
        let share = match self.pass {
            Pass::WeightGradient => tiles as f64 / multiprocessors as f64,
            Pass::Forward | Pass::InputGradient => tiles.div_ceil(multiprocessors) as f64,
        };
        let reuse = (height * width) as f64 / (height + width) as f64;
        let busy = reuse / (reuse + 24.0);
        let gather: usize = self.vector.iter().map(|&vector| if vector { 1 } else { 4 }).product();
        share * (height * width * gather) as f64 / busy
    }

    /// Into how many parts a weight gradient's sum over pixels is cut: those that make the estimated time least, in steps of a
    /// 128 x 128 tile. Two blocks share a multiprocessor; a block begins and ends in the time of some steps; parts are
    /// written and read again.
    pub fn splits(&self, conv: &Conv2d, multiprocessors: usize) -> usize {
        const ENDS: f64 = 8.0;
        const BYTES_PER_STEP: f64 = 1.6e6;
        let [rows, columns] = self.extents(conv);
        let (tiles, area) = (self.tiles(rows, columns), (self.tile[0] * self.tile[1]) as f64 / 16384.0);
        let steps = conv.out_pixels().div_ceil(step(self.dtype));
        let time = |splits: usize| {
            let turns = (tiles * splits).div_ceil(2 * multiprocessors) as f64;
            let traffic =
                if splits > 1 { (splits * rows * columns * 8) as f64 / BYTES_PER_STEP } else { 0.0 };
            turns * (steps.div_ceil(splits) as f64 + ENDS) * area + traffic
        };
        let most = (2 * multiprocessors).min(steps.div_ceil(4)).min(65_535);
        (1..=most).min_by(|&a, &b| time(a).total_cmp(&time(b))).unwrap_or(1)
    }
}

/// The kernel of a convolution.
pub(super) fn choose(pass: Pass, dtype: DType, conv: &Conv2d, multiprocessors: usize) -> &'static Kernel {
    KERNELS
        .iter()
        .filter(|kernel| kernel.pass == pass && kernel.dtype == dtype && kernel.fits(conv))
        .min_by(|a, b| a.cost(conv, multiprocessors).total_cmp(&b.cost(conv, multiprocessors)))
        .expect("every pass has a kernel for any alignment, in both types a backend may have")
}
