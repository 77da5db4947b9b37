//! A compiled convolution kernel, and the interface of the families that kernels are of.

use std::fmt::Debug;

use super::problem::{DgradPhase, Pass};
use crate::backend::cuda::driver::Properties;
use crate::backend::cuda::{Cuda, Module};
use crate::error::Result;
use crate::ops::{Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad};
use crate::tensor::{DType, Span};

/// The units that multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// CUDA cores, in f32.
    Scalar,
    /// Tensor cores by `mma.sync`: warps along M and N of the tile.
    Warps([usize; 2]),
    /// Tensor cores by WGMMA, 64 x `wide`, or with A and B swapped.
    Warpgroups {
        /// N of an instruction.
        wide: usize,
        /// Cooperative consumers: both work on one tile, so that neither multiplies while it is stored.
        cooperate: bool,
    },
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
    /// The family, with this kernel's configuration.
    pub family: &'static dyn Family,
    /// Whether rows of operands A and B are copied in vectors of 16 bytes.
    pub vector: [bool; 2],
    pub module: Module,
}

/// An operand as a launch lists it.
pub(super) type Operand = crate::backend::cuda::call::Operand;

/// A family of kernels: all that the rest of the engine asks of them. A family lies in the folder of its architecture.
pub(super) trait Family: Debug + Sync {
    /// Threads of a thread block.
    fn threads(&self) -> u32;

    /// Thread blocks of a cluster along M and N.
    fn cluster(&self) -> [usize; 2] {
        [1, 1]
    }

    /// The size of `SharedStorage` in the kernel's file.
    fn shared_bytes(&self, kernel: &Kernel) -> u32;

    /// BLOCK_K, the elements of GEMM K in a pipeline stage.
    fn block_k(&self, kernel: &Kernel) -> usize;

    /// Channels of a tap, padded as in the kernel.
    fn padded(&self, kernel: &Kernel, channels: usize) -> usize;

    /// Whether its kernels run on a device.
    fn runs_on(&self, device: &Properties) -> bool;

    /// Whether a kernel can compute a convolution: rows are aligned as it needs, and extents within its limits.
    fn fits(&self, kernel: &Kernel, conv: &Conv2d) -> bool;

    /// Whether a kernel applies a prologue to the patches of a convolution.
    fn applies_prologue(&self, _: &Kernel, _: &Conv2d) -> bool {
        false
    }

    /// Rows of the result that one BN partial sum of a kernel's reduction epilogue covers; `None` where it has no such epilogue.
    fn partial_rows(&self, _: &Kernel) -> Option<usize> {
        None
    }

    /// K blocks of a wgrad in the longest of `splits` split-K slices.
    fn longest_split(&self, kernel: &Kernel, conv: &Conv2d, splits: usize) -> usize {
        conv.out_pixels().div_ceil(self.block_k(kernel)).div_ceil(splits)
    }

    /// The most split-K slices of a wgrad that are worth it.
    fn most_splits(&self, kernel: &Kernel, conv: &Conv2d) -> usize {
        /// K blocks that a slice has at least.
        const LEAST_BLOCKS: usize = 4;
        conv.out_pixels().div_ceil(LEAST_BLOCKS * self.block_k(kernel))
    }

    /// Bytes that loads write to shared memory for each element of K of a tile, and the part of them that is loaded from L2: a
    /// cluster multicasts rows along N, and columns along M.
    fn loaded(&self, kernel: &Kernel, _: &Conv2d) -> [f64; 2] {
        let size = kernel.dtype.size() as f64;
        let ([rows, columns], [down, across]) =
            (kernel.tile.map(|n| n as f64), self.cluster().map(|n| n as f64));
        [(rows + columns) * size, (rows / across + columns / down) * size]
    }

    /// Whether TMA loads the patches of a convolution in im2col mode.
    fn loads_im2col(&self, _: &Conv2d) -> bool {
        false
    }

    /// The units that multiply.
    fn units(&self, kernel: &Kernel) -> Units;

    /// Thread blocks that share an SM.
    fn blocks_per_sm(&self) -> usize;

    /// Launches a kernel; `partial` is where its reduction epilogue leaves the moments of the result.
    ///
    /// # Errors
    /// The device failed.
    fn fprop(
        &self,
        cuda: &Cuda,
        kernel: &Kernel,
        op: &Conv2dFprop<Span>,
        partial: Option<Span>,
        operands: Vec<Operand>,
    ) -> Result<()>;

    /// Launches a kernel; `partial` is where its reduction epilogue leaves the sums that the operation's epilogue asks for.
    ///
    /// # Errors
    /// The device failed.
    fn dgrad(
        &self,
        cuda: &Cuda,
        kernel: &Kernel,
        op: &Conv2dDgrad<Span>,
        partial: Option<Span>,
        operands: Vec<Operand>,
    ) -> Result<()>;

    /// Launches a kernel. The result of each of `splits` split-K slices goes to `out`, one behind the other.
    ///
    /// # Errors
    /// The device failed.
    fn wgrad(
        &self,
        cuda: &Cuda,
        kernel: &Kernel,
        op: &Conv2dWgrad<Span>,
        splits: usize,
        out: Span,
        operands: Vec<Operand>,
    ) -> Result<()>;
}

impl Kernel {
    /// Whether its reduction epilogue leaves partial sums for batch normalisation.
    pub fn reduces_in_epilogue(&self) -> bool {
        self.family.partial_rows(self).is_some()
    }

    /// The BN partial sums that its reduction epilogue leaves: each of a run of this number of rows, and the number of runs.
    pub fn partial_runs(&self, conv: &Conv2d) -> [usize; 2] {
        let rows = self.family.partial_rows(self).expect("a kernel with a reduction epilogue");
        let runs = match self.pass {
            Pass::Dgrad => DgradPhase::all(conv).iter().map(|phase| phase.pixels.div_ceil(rows)).sum(),
            Pass::Fprop | Pass::Wgrad => conv.out_pixels().div_ceil(rows),
        };
        [rows, runs]
    }

    /// Elements of those sums, f32: (2, runs, columns of the result).
    pub fn partial_elements(&self, conv: &Conv2d) -> usize {
        let [_, runs] = self.partial_runs(conv);
        2 * runs * self.extents(conv)[1]
    }

    /// Whether it applies a prologue to the patches of a convolution.
    pub fn applies_prologue(&self, conv: &Conv2d) -> bool {
        self.family.applies_prologue(self, conv)
    }

    /// BLOCK_K, the elements of GEMM K in a pipeline stage.
    pub fn block_k(&self) -> usize {
        self.family.block_k(self)
    }

    /// Thread blocks of a cluster.
    pub fn blocks(&self) -> usize {
        self.family.cluster().iter().product()
    }

    /// Rows and columns of the result that a cluster computes.
    pub fn cluster_tile(&self) -> [usize; 2] {
        let [down, across] = self.family.cluster();
        [down * self.tile[0], across * self.tile[1]]
    }

    /// Tiles of a result of `rows` x `columns`, and those outside it that fill up clusters.
    pub fn tiles(&self, rows: usize, columns: usize) -> usize {
        let piece = self.cluster_tile();
        rows.div_ceil(piece[0]) * columns.div_ceil(piece[1]) * self.blocks()
    }

    /// Whether it runs on a device: written in its instructions, and within its shared memory.
    pub fn runs_on(&self, device: &Properties) -> bool {
        let bytes = self.family.shared_bytes(self) as usize;
        bytes <= device.shared_bytes_per_block && self.family.runs_on(device)
    }

    /// Whether it can compute a convolution.
    pub fn fits(&self, conv: &Conv2d) -> bool {
        self.family.fits(self, conv)
    }

    /// M and N of the GEMM. N of a wgrad may be whole panels of a tap's channels.
    pub fn extents(&self, conv: &Conv2d) -> [usize; 2] {
        let patch = conv.filter_height * conv.filter_width * self.family.padded(self, conv.in_channels);
        match self.pass {
            Pass::Fprop => [conv.out_pixels(), conv.out_channels],
            Pass::Dgrad => [conv.batch * conv.height * conv.width, conv.in_channels],
            Pass::Wgrad => [conv.out_channels, patch],
        }
    }

    /// K of the GEMM, padded to whole K blocks. In a dgrad as if every pixel saw every tap.
    pub fn gemm_k(&self, conv: &Conv2d) -> usize {
        let taps = conv.filter_height * conv.filter_width;
        match self.pass {
            Pass::Fprop | Pass::Dgrad => self.k_of_taps(taps, self.channels(conv)),
            Pass::Wgrad => conv.out_pixels().next_multiple_of(self.block_k()),
        }
    }

    /// The same with `taps` taps.
    pub fn k_of_taps(&self, taps: usize, channels: usize) -> usize {
        (taps * self.family.padded(self, channels)).next_multiple_of(self.block_k())
    }

    /// Channels of the image whose patches are read.
    pub fn channels(&self, conv: &Conv2d) -> usize {
        match self.pass {
            Pass::Fprop | Pass::Wgrad => conv.in_channels,
            Pass::Dgrad => conv.out_channels,
        }
    }
}
