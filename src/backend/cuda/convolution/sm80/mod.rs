//! Implicit GEMMs by cp.async and `mma.sync` (bf16) or on CUDA cores (f32), on every GPU: `convolution/sm80/implicit_gemm.cu`.

mod arguments;

use super::kernel::{Family, Kernel, Operand, Units};
use super::problem::Pass;
use crate::backend::cuda::driver::{LaunchConfig, Properties};
use crate::backend::cuda::kernel_files::convolution::sm80::implicit_gemm::STAGES;
use crate::backend::cuda::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::{BiasEpilogue, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue};
use crate::tensor::{DType, Span};
use arguments::{Arguments, MAX_PHASES, Phase};

/// The part of a kernel's name that tells which operands it gathers element by element.
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
                Pass::Fprop => "conv2d_fprop_sm80",
                Pass::Dgrad => "conv2d_dgrad_sm80",
                Pass::Wgrad => "conv2d_wgrad_sm80",
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
            family: &ImplicitGemm { warps: [$down, $across] },
            vector: [$a, $b],
            module: Module {
                variant: Variant { file: "convolution/sm80/implicit_gemm.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// The kernels of this architecture, by family.
pub(super) static FAMILIES: [&[Kernel]; 1] = [&KERNELS];

/// The kernels, larger tiles before smaller.
static KERNELS: [Kernel; 23] = [
    kernel!(Fprop, Bf16, 128 x 128, warps 2 x 4, vector true true, registers 128),
    kernel!(Fprop, Bf16, 128 x 64, warps 4 x 2, vector true true, registers 85),
    kernel!(Fprop, Bf16, 64 x 64, warps 2 x 2, vector true true, registers 102),
    kernel!(Fprop, Bf16, 128 x 64, warps 4 x 2, vector false false, registers 128),
    kernel!(Dgrad, Bf16, 128 x 128, warps 2 x 4, vector true true, registers 128),
    kernel!(Dgrad, Bf16, 128 x 64, warps 4 x 2, vector true true, registers 85),
    kernel!(Dgrad, Bf16, 64 x 64, warps 2 x 2, vector true true, registers 102),
    kernel!(Dgrad, Bf16, 128 x 64, warps 4 x 2, vector false false, registers 128),
    kernel!(Wgrad, Bf16, 128 x 128, warps 2 x 4, vector true true, registers 128),
    kernel!(Wgrad, Bf16, 64 x 128, warps 2 x 4, vector true true, registers 85),
    kernel!(Wgrad, Bf16, 64 x 64, warps 2 x 2, vector true true, registers 102),
    kernel!(Wgrad, Bf16, 64 x 64, warps 2 x 2, vector true false, registers 168),
    kernel!(Wgrad, Bf16, 64 x 64, warps 2 x 2, vector false false, registers 168),
    kernel!(Fprop, F32, 128 x 64, warps 4 x 1, vector true true, registers 168),
    kernel!(Fprop, F32, 64 x 64, warps 2 x 2, vector true true, registers 128),
    kernel!(Fprop, F32, 64 x 64, warps 2 x 2, vector false false, registers 128),
    kernel!(Dgrad, F32, 128 x 64, warps 4 x 1, vector true true, registers 168),
    kernel!(Dgrad, F32, 64 x 64, warps 2 x 2, vector true true, registers 128),
    kernel!(Dgrad, F32, 64 x 64, warps 2 x 2, vector false false, registers 128),
    kernel!(Wgrad, F32, 128 x 64, warps 4 x 1, vector true true, registers 168),
    kernel!(Wgrad, F32, 64 x 64, warps 2 x 2, vector true true, registers 128),
    kernel!(Wgrad, F32, 64 x 64, warps 2 x 2, vector true false, registers 128),
    kernel!(Wgrad, F32, 64 x 64, warps 2 x 2, vector false false, registers 128),
];

/// The family, and the warps of a kernel along M and N.
#[derive(Debug)]
struct ImplicitGemm {
    warps: [usize; 2],
}

impl Family for ImplicitGemm {
    fn threads(&self) -> u32 {
        let [down, across] = self.warps;
        (32 * down * across) as u32
    }

    /// The pipeline stages or the epilogue tile, and the row positions.
    fn shared_bytes(&self, kernel: &Kernel) -> u32 {
        const PIXEL: usize = 16;
        let [rows, columns] = kernel.tile;
        let stages = STAGES * (rows + columns) * 64;
        let pixels = if kernel.pass != Pass::Wgrad && !kernel.vector[0] { rows } else { 1 };
        let looked_up = match kernel.pass {
            Pass::Fprop => kernel.block_k() * 4,
            Pass::Dgrad => STAGES * kernel.block_k() * 4,
            Pass::Wgrad => STAGES * kernel.block_k() * PIXEL,
        };
        (stages.max(rows * columns * 4) + PIXEL * pixels + looked_up).next_multiple_of(128) as u32
    }

    /// 64 bytes.
    fn block_k(&self, kernel: &Kernel) -> usize {
        64 / kernel.dtype.size()
    }

    fn padded(&self, _: &Kernel, channels: usize) -> usize {
        channels
    }

    fn runs_on(&self, _: &Properties) -> bool {
        true
    }

    fn fits(&self, kernel: &Kernel, conv: &Conv2d) -> bool {
        let aligned = |channels: usize| (channels * kernel.dtype.size()).is_multiple_of(16);
        let (input, output) = (aligned(conv.in_channels), aligned(conv.out_channels));
        let [left, right] = match kernel.pass {
            Pass::Fprop => [input, input],
            Pass::Dgrad | Pass::Wgrad => [output, input],
        };
        (left || !kernel.vector[0]) && (right || !kernel.vector[1])
    }

    /// An operand that is gathered element by element costs its stores to shared memory several times.
    fn loaded(&self, kernel: &Kernel, _: &Conv2d) -> [f64; 2] {
        /// Assumed: a warp stores 64 or 128 bytes at once instead of 512, and computes an address for each element.
        const GATHERED: f64 = 4.0;
        let bytes = kernel.tile.map(|extent| (extent * kernel.dtype.size()) as f64);
        let cost = |operand: usize| if kernel.vector[operand] { 1.0 } else { GATHERED };
        [bytes[0] * cost(0) + bytes[1] * cost(1), bytes[0] + bytes[1]]
    }

    fn units(&self, kernel: &Kernel) -> Units {
        if kernel.dtype == DType::F32 { Units::Scalar } else { Units::Warps(self.warps) }
    }

    fn blocks_per_sm(&self) -> usize {
        2
    }

    fn fprop(
        &self,
        cuda: &Cuda,
        kernel: &Kernel,
        op: &Conv2dFprop<Span>,
        _: Option<Span>,
        operands: Vec<Operand>,
    ) -> Result<()> {
        let conv = &op.conv;
        let address = |span| cuda.pointer(span);
        let mut arguments = Arguments::fprop(conv, kernel);
        arguments.image = address(op.x);
        arguments.matrix = address(op.weight);
        arguments.out = address(op.y);
        if let Some(FpropEpilogue::Bias(BiasEpilogue { bias, residual, relu })) = op.epilogue {
            arguments.bias = address(bias);
            arguments.addend = residual.map_or(0, address);
            arguments.relu = relu.into();
        }
        arguments.phases[0] = Phase::of_outputs(conv);
        let blocks = kernel.tiles(conv.out_pixels(), conv.out_channels);
        launch(cuda, kernel, [blocks, 1], &arguments, &operands)
    }

    fn dgrad(
        &self,
        cuda: &Cuda,
        kernel: &Kernel,
        op: &Conv2dDgrad<Span>,
        _: Option<Span>,
        operands: Vec<Operand>,
    ) -> Result<()> {
        let conv = &op.conv;
        let mut arguments = Arguments::dgrad(conv, kernel);
        arguments.image = cuda.pointer(op.dy);
        arguments.matrix = cuda.pointer(op.weight);
        arguments.out = cuda.pointer(op.dx);
        arguments.addend = if op.accumulate { arguments.out } else { 0 };
        for phases in Phase::of_inputs(conv).chunks(MAX_PHASES) {
            arguments.phases[..phases.len()].copy_from_slice(phases);
            let most = phases.iter().map(|phase| phase.pixels).max().unwrap_or(0) as usize;
            let blocks = kernel.tiles(most, conv.in_channels);
            launch(cuda, kernel, [blocks, phases.len()], &arguments, &operands)?;
        }
        Ok(())
    }

    fn wgrad(
        &self,
        cuda: &Cuda,
        kernel: &Kernel,
        op: &Conv2dWgrad<Span>,
        splits: usize,
        out: Span,
        operands: Vec<Operand>,
    ) -> Result<()> {
        let conv = &op.conv;
        let mut arguments = Arguments::wgrad(conv, kernel, splits);
        arguments.image = cuda.pointer(op.x);
        arguments.matrix = cuda.pointer(op.dy);
        arguments.out = cuda.pointer(out);
        arguments.phases[0] = Phase::of_outputs(conv);
        let blocks = kernel.tiles(conv.out_channels, conv.filter_elements());
        launch(cuda, kernel, [blocks, splits], &arguments, &operands)
    }
}

/// Launches a kernel on `[tiles, phases or split-K slices]` thread blocks.
fn launch(
    cuda: &Cuda,
    kernel: &Kernel,
    [blocks, layers]: [usize; 2],
    arguments: &Arguments,
    operands: &[Operand],
) -> Result<()> {
    let config = LaunchConfig {
        grid: [blocks as u32, 1, layers as u32],
        threads: kernel.family.threads(),
        shared_bytes: kernel.family.shared_bytes(kernel),
        cluster: 1,
    };
    cuda.launch((&kernel.module.variant, kernel.module.entries[0].name), config, arguments, operands)
}
