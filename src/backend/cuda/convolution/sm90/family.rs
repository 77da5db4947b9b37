//! The interface of the families of sm_90a, and their launches.

use std::fmt::Debug;

use super::super::kernel::{Family, Kernel, Operand, Units};
use super::super::problem::Pass;
use super::arguments::{Arguments, BLOCK_K, MAX_PHASES, Phase};
use super::row_layout::Layout;
use super::tensor_maps::{Images, filters};
use crate::backend::cuda::Cuda;
use crate::backend::cuda::driver::{LaunchConfig, Properties};
use crate::backend::cuda::kernel_files::convolution::sm90::mainloop;
use crate::error::{Error, Result};
use crate::ops::{
    Access, Affine, BiasEpilogue, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue, ReluBackward,
};
use crate::tensor::{DType, Span};

/// The differences between the families of this architecture.
pub(super) trait Sm90: Debug + Sync {
    /// Threads of a thread block: a producer warpgroup and consumer warpgroups.
    fn threads(&self) -> u32 {
        mainloop::THREADS as u32
    }

    fn cluster(&self) -> [usize; 2] {
        [1, 1]
    }

    /// Bytes of shared memory for pipeline stages, and an epilogue tile for each consumer where it has one.
    fn stage_bytes(&self, kernel: &Kernel) -> usize;

    /// Whether both consumers work on one tile.
    fn cooperative(&self) -> bool;

    /// N of a WGMMA instruction, or with A and B swapped its M.
    fn wide(&self, kernel: &Kernel) -> usize;

    /// The layout of image rows in shared memory; `None` where a family keeps none, or cannot compute the convolution.
    fn layout(&self, _: &Kernel, _: &Conv2d) -> Option<Layout> {
        None
    }

    /// Whether a convolution needs such a layout.
    fn keeps_rows(&self) -> bool {
        true
    }

    fn applies_prologue(&self, _: &Kernel, _: &Conv2d) -> bool {
        false
    }

    fn longest_split(&self, kernel: &Kernel, conv: &Conv2d, splits: usize) -> usize {
        conv.out_pixels().div_ceil(kernel.block_k()).div_ceil(splits)
    }

    fn most_splits(&self, kernel: &Kernel, conv: &Conv2d) -> usize {
        /// K blocks that a slice has at least.
        const LEAST_BLOCKS: usize = 4;
        conv.out_pixels().div_ceil(LEAST_BLOCKS * kernel.block_k())
    }

    /// Bytes that loads write to shared memory for each element of K of a tile, and those of them that are loaded from L2.
    fn loaded(&self, kernel: &Kernel, conv: &Conv2d) -> [f64; 2];
}

impl<F: Sm90> Family for F {
    fn threads(&self) -> u32 {
        Sm90::threads(self)
    }

    fn cluster(&self) -> [usize; 2] {
        Sm90::cluster(self)
    }

    /// Pipeline stages, an epilogue tile for each consumer, barriers; all in multiples of the swizzle's period.
    fn shared_bytes(&self, kernel: &Kernel) -> u32 {
        const BARRIERS: usize = 1024;
        (self.stage_bytes(kernel) + BARRIERS) as u32
    }

    /// 128 bytes.
    fn block_k(&self, _: &Kernel) -> usize {
        BLOCK_K
    }

    fn padded(&self, kernel: &Kernel, channels: usize) -> usize {
        channels.next_multiple_of(kernel.block_k())
    }

    fn runs_on(&self, device: &Properties) -> bool {
        device.capability == (9, 0) && matches!(device.architecture.as_str(), "sm_90a" | "host")
    }

    /// TMA steps over at most 8 pixels, and its bounding boxes begin and end at most 128 pixels from the image's.
    fn fits(&self, kernel: &Kernel, conv: &Conv2d) -> bool {
        let near = conv.filter_height.max(conv.filter_width).max(conv.padding) <= 32;
        let aligned = [conv.in_channels, conv.out_channels].iter().all(|n| n.is_multiple_of(8));
        let has_layout = !self.keeps_rows() || self.layout(kernel, conv).is_some();
        aligned && conv.stride <= 8 && near && has_layout
    }

    fn applies_prologue(&self, kernel: &Kernel, conv: &Conv2d) -> bool {
        Sm90::applies_prologue(self, kernel, conv)
    }

    /// Each consumer reduces the rows that it has; the last of a phase may be fewer.
    fn partial_rows(&self, kernel: &Kernel) -> Option<usize> {
        let shared = self.cooperative() && kernel.pass != Pass::Wgrad;
        Some(if shared { kernel.tile[0] / 2 } else { kernel.tile[0] })
    }

    fn longest_split(&self, kernel: &Kernel, conv: &Conv2d, splits: usize) -> usize {
        Sm90::longest_split(self, kernel, conv, splits)
    }

    fn most_splits(&self, kernel: &Kernel, conv: &Conv2d) -> usize {
        Sm90::most_splits(self, kernel, conv)
    }

    fn loaded(&self, kernel: &Kernel, conv: &Conv2d) -> [f64; 2] {
        Sm90::loaded(self, kernel, conv)
    }

    /// A family that keeps rows of images loads boxes of them.
    fn loads_im2col(&self, conv: &Conv2d) -> bool {
        !self.keeps_rows() && !conv.is_pointwise()
    }

    fn units(&self, kernel: &Kernel) -> Units {
        Units::Warpgroups { wide: self.wide(kernel), cooperate: self.cooperative() }
    }

    fn blocks_per_sm(&self) -> usize {
        1
    }

    fn fprop(
        &self,
        cuda: &Cuda,
        kernel: &Kernel,
        op: &Conv2dFprop<Span>,
        partial: Option<Span>,
        mut operands: Vec<Operand>,
    ) -> Result<()> {
        let (conv, layout) = (&op.conv, self.layout(kernel, &op.conv));
        let address = |span| cuda.pointer(span);
        let mut arguments = Arguments::fprop(conv, kernel, layout);
        let images = Images::inputs(conv, address(op.x));
        arguments.phases[0].patches = images.patches(cuda, kernel, layout, conv, &arguments.phases[0])?;
        arguments.matrix =
            filters(cuda, conv, address(op.weight), kernel.tile[1] / kernel.family.cluster()[0])?;
        arguments.out = address(op.y);
        if let Some(FpropEpilogue::Bias(BiasEpilogue { bias, residual, relu })) = op.epilogue {
            arguments.bias = address(bias);
            arguments.addend = residual.map_or(0, address);
            arguments.relu = relu.into();
        }
        operands.extend(apply_prologue(cuda, &mut arguments, op.prologue));
        if let Some(partial) = partial {
            check_partial(kernel, conv, partial)?;
            arguments.bn_partial = address(partial);
            arguments.bn_partials = kernel.partial_runs(conv)[1] as u32;
            operands.push(("partial", partial, Access::Write));
        }
        launch(cuda, kernel, &arguments, &operands)
    }

    /// `partial` receives the BN partial sums: sums of d, and of d (x - mean), over each run of rows of d, which is dx after the ReLU
    /// backward of the epilogue: f32 (2, [`Kernel::partial_runs`], input channels).
    fn dgrad(
        &self,
        cuda: &Cuda,
        kernel: &Kernel,
        op: &Conv2dDgrad<Span>,
        partial: Option<Span>,
        mut operands: Vec<Operand>,
    ) -> Result<()> {
        let (conv, layout) = (&op.conv, self.layout(kernel, &op.conv));
        let address = |span| cuda.pointer(span);
        let mut common = Arguments::dgrad(conv, kernel, layout);
        common.matrix = filters(cuda, conv, address(op.weight), BLOCK_K)?;
        common.out = address(op.dx);
        common.addend = if op.accumulate { common.out } else { 0 };
        if let (Some(reduce), Some(partial)) = (&op.epilogue, partial) {
            check_partial(kernel, conv, partial)?;
            common.bn_partial = address(partial);
            common.bn_partials = kernel.partial_runs(conv)[1] as u32;
            common.relu_y = reduce.mask().map_or(0, address);
            common.bn_x = address(reduce.x);
            common.bn_scale = address(reduce.scale);
            common.bn_bias = address(reduce.bias);
            common.bn_mean = address(reduce.mean);
            common.bn_relu = matches!(reduce.relu, ReluBackward::OfAffine).into();
            operands.push(("partial", partial, Access::Write));
            operands.extend(reduce.mask().map(|mask| ("mask", mask, Access::Read)));
            for (name, span) in
                [("x", reduce.x), ("scale", reduce.scale), ("bias", reduce.bias), ("mean", reduce.mean)]
            {
                operands.push((name, span, Access::Read));
            }
        }
        let images = Images::outputs(conv, address(op.dy));
        let mut phases = Phase::of_inputs(conv);
        if op.accumulate && partial.is_none() {
            // Pixels that no output has seen keep their gradient.
            phases.retain(|phase| phase.taps() > 0);
        }
        let ([rows, _], mut run) = (kernel.partial_runs(conv), 0);
        for phase in &mut phases {
            phase.patches = images.patches(cuda, kernel, layout, conv, phase)?;
            phase.first_partial = run;
            run += (phase.pixels as usize).div_ceil(rows) as u32;
        }
        for phases in phases.chunks(MAX_PHASES) {
            let mut arguments = common;
            arguments.add_phases(phases, kernel);
            launch(cuda, kernel, &arguments, &operands)?;
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
        mut operands: Vec<Operand>,
    ) -> Result<()> {
        let (conv, layout) = (&op.conv, self.layout(kernel, &op.conv));
        let mut arguments = Arguments::wgrad(conv, kernel, layout, splits);
        let images = Images::inputs(conv, cuda.pointer(op.x));
        arguments.phases[0].patches = images.patches(cuda, kernel, layout, conv, &arguments.phases[0])?;
        arguments.matrix = Images::outputs(conv, cuda.pointer(op.dy)).matrix(cuda, BLOCK_K)?;
        arguments.out = cuda.pointer(out);
        operands.extend(apply_prologue(cuda, &mut arguments, op.prologue));
        launch(cuda, kernel, &arguments, &operands)
    }
}

/// Has the kernel apply a prologue to patches; returns the operands that it reads for it.
fn apply_prologue(cuda: &Cuda, arguments: &mut Arguments, prologue: Option<Affine<Span>>) -> Vec<Operand> {
    let Some(Affine { scale, bias, relu }) = prologue else { return Vec::new() };
    arguments.prologue_scale = cuda.pointer(scale);
    arguments.prologue_bias = cuda.pointer(bias);
    arguments.prologue_relu = relu.into();
    vec![("input_scale", scale, Access::Read), ("input_bias", bias, Access::Read)]
}

/// Checks the number of elements of the partial sums.
fn check_partial(kernel: &Kernel, conv: &Conv2d, partial: Span) -> Result<()> {
    let elements = kernel.partial_elements(conv);
    if (partial.elements, partial.dtype) == (elements, DType::F32) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the partials of a convolution have {} elements of {:?}, its extents ask for {elements} of F32",
        partial.elements, partial.dtype
    )))
}

/// A persistent grid: a cluster for each group of SMs of its size, or for each output tile if there are fewer; each goes on with the
/// next tile by itself. (Clusters of two leave no SM idle, as SMs come in pairs; larger ones would, in every GPC that a cluster must
/// lie in.)
fn launch(cuda: &Cuda, kernel: &Kernel, arguments: &Arguments, operands: &[Operand]) -> Result<()> {
    let cluster = kernel.blocks() as u32;
    let clusters = arguments.tile_count.min((cuda.driver.properties().sms / cluster).max(1));
    let config = LaunchConfig {
        grid: [clusters * cluster, 1, 1],
        threads: kernel.family.threads(),
        shared_bytes: kernel.family.shared_bytes(kernel),
        cluster,
    };
    let entry = kernel.module.entries[0].name;
    cuda.launch((&kernel.module.variant, entry), config, arguments, operands)
}
