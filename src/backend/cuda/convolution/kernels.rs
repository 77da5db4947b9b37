//! The list of compiled convolution kernels. They are specialised on tile and alignment only.

use super::variants::{Form, Kernel, Pass};
use crate::backend::cuda::{Entry, Module, Variant};
use crate::tensor::DType;

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
                Pass::Forward => "conv2d_fprop_sm80",
                Pass::InputGradient => "conv2d_dgrad_sm80",
                Pass::WeightGradient => "conv2d_wgrad_sm80",
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
                variant: Variant { file: "convolution/sm80/implicit_gemm.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// A kernel of sm_90a. Its registers are those that a thread starts with; setmaxnreg raises those of its consumers.
macro_rules! kernel_sm90 {
    ($pass:ident, $m:literal x $n:literal, cooperative $cooperative:literal, swap_ab $swap_ab:literal, stages $stages:literal,
     registers $registers:literal) => {
        kernel_sm90!(@ [], $pass, $m x $n, cluster 1 x 1, cooperative $cooperative, swap_ab $swap_ab, stages $stages,
                     registers $registers)
    };
    ($pass:ident, $m:literal x $n:literal, cluster $down:literal x $across:literal, cooperative $cooperative:literal, swap_ab $swap_ab:literal,
     stages $stages:literal, registers $registers:literal) => {
        kernel_sm90!(@ ["-cluster-" $down "x" $across], $pass, $m x $n, cluster $down x $across, cooperative $cooperative,
                     swap_ab $swap_ab, stages $stages, registers $registers)
    };
    (@ [$($suffix:tt)*], $pass:ident, $m:literal x $n:literal, cluster $down:literal x $across:literal,
     cooperative $cooperative:literal, swap_ab $swap_ab:literal, stages $stages:literal, registers $registers:literal) => {{
        const CONSTANTS: [(&str, i64); 9] = [
            ("BF16", 1),
            ("PASS", Pass::$pass as i64),
            ("TILE_M", $m),
            ("TILE_N", $n),
            ("COOPERATIVE", $cooperative as i64),
            ("SWAP_AB", $swap_ab as i64),
            ("STAGES", $stages),
            ("CLUSTER_M", $down),
            ("CLUSTER_N", $across),
        ];
        const ENTRIES: [Entry; 1] = [Entry {
            name: match Pass::$pass {
                Pass::Forward => "conv2d_fprop_sm90",
                Pass::InputGradient => "conv2d_dgrad_sm90",
                Pass::WeightGradient => "conv2d_wgrad_sm90",
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
            form: Form::Sm90 { cooperative: $cooperative, swap_ab: $swap_ab, stages: $stages, cluster: [$down, $across] },
            vector: [true, true],
            module: Module {
                variant: Variant { file: "convolution/sm90/implicit_gemm.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// A halo-reuse kernel of sm_90a.
macro_rules! kernel_halo_reuse_sm90 {
    ($pass:ident, $m:literal x $n:literal, cooperative $cooperative:literal, patch bytes $patches:expr, filter stages $filter_stages:literal) => {{
        const CONSTANTS: [(&str, i64); 8] = [
            ("BF16", 1),
            ("PASS", Pass::$pass as i64),
            ("TILE_M", $m),
            ("TILE_N", $n),
            ("COOPERATIVE", $cooperative as i64),
            ("SWAP_AB", !$cooperative as i64),
            ("PATCH_BYTES", $patches),
            ("FILTER_STAGES", $filter_stages),
        ];
        const ENTRIES: [Entry; 1] = [Entry {
            name: match Pass::$pass {
                Pass::Forward => "conv2d_fprop_halo_reuse_sm90",
                _ => "conv2d_dgrad_halo_reuse_sm90",
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
            form: Form::Sm90HaloReuse {
                cooperative: $cooperative,
                patch_bytes: $patches,
                filter_stages: $filter_stages,
            },
            vector: [true, true],
            module: Module {
                variant: Variant { file: "convolution/sm90/halo_reuse.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// The streaming wgrad kernel of sm_90a.
const STREAMING_WGRAD_SM90: Kernel = Kernel {
    name: "sm90-stream-64x576",
    pass: Pass::WeightGradient,
    dtype: DType::Bf16,
    tile: [64, 576],
    form: Form::Sm90StreamingWgrad,
    vector: [true, true],
    module: Module {
        variant: Variant {
            file: "convolution/sm90/streaming_wgrad.cu",
            constants: &[("BF16", 1), ("PASS", Pass::WeightGradient as i64), ("TILE_M", 64), ("TILE_N", 576)],
        },
        entries: &[Entry {
            name: "conv2d_wgrad_streaming_sm90",
            registers: 128,
            tensor_cores: true,
            wide_loads: false,
        }],
    },
};

/// Every kernel. Of those with the same estimated time the first is chosen: halo reuse, then larger tiles before smaller, then
/// clusters, then the kernels of sm_80.
pub(super) static KERNELS: [Kernel; 54] = [
    kernel_halo_reuse_sm90!(Forward, 256 x 128, cooperative true, patch bytes 96 << 10, filter stages 6),
    kernel_halo_reuse_sm90!(Forward, 128 x 128, cooperative true, patch bytes 96 << 10, filter stages 6),
    kernel_halo_reuse_sm90!(Forward, 256 x 64, cooperative false, patch bytes 120 << 10, filter stages 9),
    kernel_halo_reuse_sm90!(InputGradient, 256 x 128, cooperative true, patch bytes 96 << 10, filter stages 6),
    kernel_halo_reuse_sm90!(InputGradient, 128 x 128, cooperative true, patch bytes 96 << 10, filter stages 6),
    kernel_halo_reuse_sm90!(InputGradient, 256 x 64, cooperative false, patch bytes 120 << 10, filter stages 9),
    STREAMING_WGRAD_SM90,
    kernel_sm90!(Forward, 256 x 128, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(Forward, 128 x 256, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(Forward, 128 x 128, cooperative false, swap_ab false, stages 6, registers 168),
    kernel_sm90!(Forward, 256 x 64, cooperative false, swap_ab true, stages 4, registers 168),
    kernel_sm90!(Forward, 64 x 64, cooperative false, swap_ab false, stages 8, registers 112),
    kernel_sm90!(InputGradient, 256 x 128, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(InputGradient, 128 x 256, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(InputGradient, 128 x 128, cooperative false, swap_ab false, stages 6, registers 168),
    kernel_sm90!(InputGradient, 256 x 64, cooperative false, swap_ab true, stages 4, registers 168),
    kernel_sm90!(InputGradient, 64 x 64, cooperative false, swap_ab false, stages 8, registers 104),
    kernel_sm90!(WeightGradient, 128 x 256, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(WeightGradient, 128 x 128, cooperative false, swap_ab false, stages 6, registers 168),
    kernel_sm90!(WeightGradient, 64 x 192, cooperative false, swap_ab false, stages 6, registers 168),
    kernel_sm90!(WeightGradient, 64 x 64, cooperative false, swap_ab false, stages 8, registers 104),
    kernel_sm90!(Forward, 128 x 256, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(Forward, 256 x 128, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(Forward, 128 x 128, cluster 1 x 2, cooperative false, swap_ab false, stages 6, registers 168),
    kernel_sm90!(Forward, 128 x 64, cluster 1 x 2, cooperative false, swap_ab true, stages 8, registers 168),
    kernel_sm90!(InputGradient, 128 x 256, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(InputGradient, 256 x 128, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(InputGradient, 128 x 128, cluster 1 x 2, cooperative false, swap_ab false, stages 6, registers 168),
    kernel_sm90!(InputGradient, 128 x 64, cluster 1 x 2, cooperative false, swap_ab true, stages 8, registers 168),
    kernel_sm90!(WeightGradient, 128 x 256, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel_sm90!(WeightGradient, 128 x 192, cluster 1 x 2, cooperative true, swap_ab false, stages 4, registers 168),
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

/// Adds the split-K slices of a wgrad.
pub(super) const SPLIT_K_REDUCE: Module = Module {
    variant: Variant { file: "convolution/split_k_reduce.cu", constants: &[] },
    entries: &[Entry { name: "split_k_reduce", registers: 64, tensor_cores: false, wide_loads: true }],
};

/// All modules of convolutions.
pub(super) fn modules() -> impl Iterator<Item = Module> {
    KERNELS.iter().map(|kernel| kernel.module).chain([SPLIT_K_REDUCE])
}
