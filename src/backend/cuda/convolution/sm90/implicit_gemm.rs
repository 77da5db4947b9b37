//! The implicit GEMM of any pass: `convolution/sm90/implicit_gemm.cu`.

use super::arguments::EPILOGUE_TILES;
use super::family::Sm90;
use crate::backend::cuda::convolution::kernel::Kernel;
use crate::backend::cuda::convolution::problem::Pass;
use crate::backend::cuda::{Entry, Module, Variant};
use crate::ops::Conv2d;
use crate::tensor::DType;

/// A kernel of sm_90a. Its registers are the number that a thread starts with; setmaxnreg raises those of its consumers.
macro_rules! kernel {
    ($pass:ident, $m:literal x $n:literal, cooperative $cooperative:literal, swap_ab $swap_ab:literal, stages $stages:literal,
     registers $registers:literal) => {
        kernel!(@ [], $pass, $m x $n, cluster 1 x 1, cooperative $cooperative, swap_ab $swap_ab, stages $stages,
                     registers $registers)
    };
    ($pass:ident, $m:literal x $n:literal, cluster $down:literal x $across:literal, cooperative $cooperative:literal, swap_ab $swap_ab:literal,
     stages $stages:literal, registers $registers:literal) => {
        kernel!(@ ["-cluster-" $down "x" $across], $pass, $m x $n, cluster $down x $across, cooperative $cooperative,
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
                Pass::Fprop => "conv2d_fprop_sm90",
                Pass::Dgrad => "conv2d_dgrad_sm90",
                Pass::Wgrad => "conv2d_wgrad_sm90",
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
            family: &ImplicitGemm {
                cooperative: $cooperative,
                swap_ab: $swap_ab,
                stages: $stages,
                cluster: [$down, $across],
            },
            vector: [true, true],
            module: Module {
                variant: Variant { file: "convolution/sm90/implicit_gemm.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// The kernels, larger tiles before smaller, then clusters.
pub(super) static KERNELS: [Kernel; 24] = [
    kernel!(Fprop, 256 x 128, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Fprop, 128 x 256, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Fprop, 128 x 128, cooperative false, swap_ab false, stages 6, registers 168),
    kernel!(Fprop, 256 x 64, cooperative false, swap_ab true, stages 4, registers 168),
    kernel!(Fprop, 64 x 64, cooperative false, swap_ab false, stages 8, registers 128),
    kernel!(Dgrad, 256 x 128, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Dgrad, 128 x 256, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Dgrad, 128 x 128, cooperative false, swap_ab false, stages 6, registers 168),
    kernel!(Dgrad, 256 x 64, cooperative false, swap_ab true, stages 4, registers 168),
    kernel!(Dgrad, 64 x 64, cooperative false, swap_ab false, stages 8, registers 120),
    kernel!(Wgrad, 128 x 256, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Wgrad, 128 x 128, cooperative false, swap_ab false, stages 6, registers 168),
    kernel!(Wgrad, 64 x 192, cooperative false, swap_ab false, stages 6, registers 168),
    kernel!(Wgrad, 64 x 64, cooperative false, swap_ab false, stages 8, registers 104),
    kernel!(Fprop, 128 x 256, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Fprop, 256 x 128, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Fprop, 128 x 128, cluster 1 x 2, cooperative false, swap_ab false, stages 6, registers 168),
    kernel!(Fprop, 128 x 64, cluster 1 x 2, cooperative false, swap_ab true, stages 8, registers 168),
    kernel!(Dgrad, 128 x 256, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Dgrad, 256 x 128, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Dgrad, 128 x 128, cluster 1 x 2, cooperative false, swap_ab false, stages 6, registers 168),
    kernel!(Dgrad, 128 x 64, cluster 1 x 2, cooperative false, swap_ab true, stages 8, registers 168),
    kernel!(Wgrad, 128 x 256, cluster 2 x 1, cooperative true, swap_ab false, stages 4, registers 168),
    kernel!(Wgrad, 128 x 192, cluster 1 x 2, cooperative true, swap_ab false, stages 4, registers 168),
];

/// The family: cooperative or ping-pong consumers, whether A and B are swapped, pipeline stages, and the thread blocks of a cluster
/// along M and N.
#[derive(Debug)]
struct ImplicitGemm {
    cooperative: bool,
    swap_ab: bool,
    stages: usize,
    cluster: [usize; 2],
}

impl Sm90 for ImplicitGemm {
    fn cluster(&self) -> [usize; 2] {
        self.cluster
    }

    fn stage_bytes(&self, kernel: &Kernel) -> usize {
        self.stages * (kernel.tile[0] + kernel.tile[1]) * 128 + EPILOGUE_TILES
    }

    fn cooperative(&self) -> bool {
        self.cooperative
    }

    fn wide(&self, kernel: &Kernel) -> usize {
        kernel.tile[usize::from(!self.swap_ab)]
    }

    fn keeps_rows(&self) -> bool {
        false
    }

    fn applies_prologue(&self, kernel: &Kernel, conv: &Conv2d) -> bool {
        kernel.pass != Pass::Dgrad && conv.is_pointwise()
    }

    /// A cluster multicasts rows along N, and columns along M.
    fn loaded(&self, kernel: &Kernel, _: &Conv2d) -> [f64; 2] {
        let size = kernel.dtype.size() as f64;
        let ([rows, columns], [down, across]) =
            (kernel.tile.map(|n| n as f64), self.cluster.map(|n| n as f64));
        [(rows + columns) * size, (rows / across + columns / down) * size]
    }
}
