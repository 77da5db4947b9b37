//! Launches of the kernels in `convolution/sm90/`: their tensor maps and their grid.

use super::choice::Chosen;
use super::problem::MAX_PHASES;
use super::sm90_arguments::{Arguments, BLOCK_K, Phase};
use super::sm90_rows::Layout;
use super::variants::{Form, Kernel, Pass};
use crate::backend::cuda::Cuda;
use crate::backend::cuda::driver::Geometry;
use crate::backend::cuda::driver::tensor_map::{Piece, TensorMap, TensorMapRequest};
use crate::error::{Error, Result};
use crate::ops::{
    Access, Affine, BiasEpilogue, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue, ReluBackward,
};
use crate::tensor::{DType, Span};

/// Bytes of an element of every operand that TMA loads.
const BYTES: u64 = 2;

/// An operand as a launch lists it.
type Operand = (&'static str, Span, Access);

/// Rows of a result that one BN partial sum covers; the last of a phase may cover fewer.
pub(super) fn slab_rows(kernel: &Kernel) -> usize {
    match kernel.form {
        Form::Sm90 { cooperative: true, .. } | Form::Sm90HaloReuse { cooperative: true, .. } => {
            kernel.tile[0] / 2
        }
        _ => kernel.tile[0],
    }
}

/// BN partial sums that a kernel leaves.
pub(super) fn slabs(kernel: &Kernel, conv: &Conv2d) -> usize {
    let of_rows = |rows: usize| rows.div_ceil(slab_rows(kernel));
    match kernel.pass {
        Pass::InputGradient => {
            Phase::of_inputs(conv).iter().map(|phase| of_rows(phase.pixels as usize)).sum()
        }
        Pass::Forward | Pass::WeightGradient => of_rows(conv.out_pixels()),
    }
}

/// Elements of those partial sums, f32.
pub(super) fn partial_elements(kernel: &Kernel, conv: &Conv2d) -> usize {
    2 * slabs(kernel, conv) * kernel.extents(conv)[1]
}

pub(super) fn launch_fprop(
    cuda: &Cuda,
    kernel: &Kernel,
    op: &Conv2dFprop<Span>,
    partial: Option<Span>,
    mut operands: Vec<Operand>,
) -> Result<()> {
    let conv = &op.conv;
    let address = |span| cuda.pointer(span);
    let mut arguments = Arguments::forward(conv, kernel);
    let images = Images::inputs(conv, address(op.x));
    arguments.phases[0].patches = images.patches(cuda, kernel, conv, &arguments.phases[0])?;
    arguments.matrix = filters(cuda, conv, address(op.weight), kernel.tile[1] / kernel.cluster()[0])?;
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
        arguments.bn_partials = slabs(kernel, conv) as u32;
        operands.push(("partial", partial, Access::Write));
    }
    launch(cuda, kernel, &arguments, &operands)
}

/// `partial` receives the BN partial sums: sums of d, and of d (x - mean), over each slab of d, which is dx after the ReLU backward of
/// the epilogue: f32 (2, [`slabs`], input channels).
pub(super) fn launch_dgrad(
    cuda: &Cuda,
    kernel: &Kernel,
    op: &Conv2dDgrad<Span>,
    partial: Option<Span>,
    mut operands: Vec<Operand>,
) -> Result<()> {
    let conv = &op.conv;
    let address = |span| cuda.pointer(span);
    let mut common = Arguments::input_gradient(conv, kernel);
    common.matrix = filters(cuda, conv, address(op.weight), BLOCK_K)?;
    common.out = address(op.dx);
    common.addend = if op.accumulate { common.out } else { 0 };
    if let (Some(reduce), Some(partial)) = (&op.epilogue, partial) {
        check_partial(kernel, conv, partial)?;
        common.bn_partial = address(partial);
        common.bn_partials = slabs(kernel, conv) as u32;
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
    let mut slab = 0;
    for phase in &mut phases {
        phase.patches = images.patches(cuda, kernel, conv, phase)?;
        phase.first_partial = slab;
        slab += (phase.pixels as usize).div_ceil(slab_rows(kernel)) as u32;
    }
    for phases in phases.chunks(MAX_PHASES) {
        let mut arguments = common;
        arguments.add_phases(phases, kernel);
        launch(cuda, kernel, &arguments, &operands)?;
    }
    Ok(())
}

/// The result of each split-K slice goes to `out`, one behind the other.
pub(super) fn launch_wgrad(
    cuda: &Cuda,
    Chosen { kernel, splits }: Chosen,
    op: &Conv2dWgrad<Span>,
    out: Span,
    mut operands: Vec<Operand>,
) -> Result<()> {
    let conv = &op.conv;
    let mut arguments = Arguments::weight_gradient(conv, kernel, splits);
    let images = Images::inputs(conv, cuda.pointer(op.x));
    arguments.phases[0].patches = images.patches(cuda, kernel, conv, &arguments.phases[0])?;
    arguments.matrix = Images::outputs(conv, cuda.pointer(op.dy)).matrix(cuda, BLOCK_K)?;
    arguments.out = cuda.pointer(out);
    operands.extend(apply_prologue(cuda, &mut arguments, op.prologue));
    launch(cuda, kernel, &arguments, &operands)
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
    let elements = partial_elements(kernel, conv);
    if (partial.elements, partial.dtype) == (elements, DType::F32) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the partials of a convolution have {} elements of {:?}, its extents ask for {elements} of F32",
        partial.elements, partial.dtype
    )))
}

/// Pixels of a tile of fprop or dgrad that one TMA load brings: the thread blocks of a cluster along N load equal parts.
fn shared_pixels(kernel: &Kernel) -> usize {
    kernel.tile[0] / kernel.cluster()[1]
}

/// A persistent grid: a cluster for each group of SMs of its size, or for each output tile if there are fewer; each goes on with the
/// next tile by itself. (Clusters of two leave no SM idle, as SMs come in pairs; larger ones would, in every GPC that a cluster must
/// lie in.)
fn launch(cuda: &Cuda, kernel: &Kernel, arguments: &Arguments, operands: &[Operand]) -> Result<()> {
    let cluster = kernel.blocks() as u32;
    let clusters = arguments.tile_count.min((cuda.driver.properties().multiprocessors / cluster).max(1));
    let geometry = Geometry {
        grid: [clusters * cluster, 1, 1],
        threads: kernel.threads(),
        shared_bytes: kernel.shared_bytes(),
        cluster,
    };
    let entry = kernel.module.entries[0].name;
    cuda.launch((&kernel.module.variant, entry), geometry, arguments, operands)
}

/// Images in device memory (NHWC).
struct Images {
    address: u64,
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
}

impl Images {
    /// The input of a convolution.
    fn inputs(conv: &Conv2d, address: u64) -> Images {
        let Conv2d { batch, height, width, in_channels: channels, .. } = *conv;
        Images { address, batch, height, width, channels }
    }

    /// The output.
    fn outputs(conv: &Conv2d, address: u64) -> Images {
        let (height, width) = (conv.out_height(), conv.out_width());
        Images { address, batch: conv.batch, height, width, channels: conv.out_channels }
    }

    fn row_bytes(&self) -> u64 {
        self.channels as u64 * BYTES
    }

    /// One TMA load brings 64 channels of the rows that a kernel keeps, or of one tap of the patches of a tile's pixels.
    fn patches(&self, cuda: &Cuda, kernel: &Kernel, conv: &Conv2d, phase: &Phase) -> Result<TensorMap> {
        if let Some(layout) = Layout::of(kernel, conv) {
            return self.map(cuda, Piece::Tiled(&layout.box_extents()));
        }
        let (step, pixels) = match kernel.pass {
            Pass::Forward => (conv.stride, shared_pixels(kernel)),
            Pass::InputGradient => (1, shared_pixels(kernel)),
            Pass::WeightGradient => (conv.stride, BLOCK_K),
        };
        if conv.is_pointwise() { self.matrix(cuda, pixels) } else { self.taps(cuda, phase, step, pixels) }
    }

    /// One TMA load brings 64 channels of one tap of the patches of `pixels` pixels of a phase, which lie `step` rows (columns) apart.
    fn taps(&self, cuda: &Cuda, phase: &Phase, step: usize, pixels: usize) -> Result<TensorMap> {
        // The bounding box of the base pixels, counted from the last pixel of the image.
        let upper = |first: i32, bases: u32, extent: usize| {
            first + ((bases - 1) * step as u32) as i32 - (extent - 1) as i32
        };
        let piece = Piece::Im2col {
            lower: [phase.first_column, phase.first_row],
            upper: [
                upper(phase.first_column, phase.width.divisor, self.width),
                upper(phase.first_row, phase.height.divisor, self.height),
            ],
            channels: BLOCK_K as u32,
            pixels: pixels as u32,
            strides: [step as u32; 2],
        };
        self.map(cuda, piece)
    }

    fn map(&self, cuda: &Cuda, piece: Piece<'_>) -> Result<TensorMap> {
        let [width, height, batch] = [self.width, self.height, self.batch].map(|extent| extent as u64);
        let row = self.row_bytes();
        cuda.driver.tensor_map(&TensorMapRequest {
            address: self.address,
            extents: &[self.channels as u64, width, height, batch],
            strides: &[row, row * width, row * width * height],
            piece,
        })
    }

    /// All pixels as one matrix: one TMA load brings 64 channels of `pixels` of them.
    fn matrix(&self, cuda: &Cuda, pixels: usize) -> Result<TensorMap> {
        let rows = (self.batch * self.height * self.width) as u64;
        cuda.driver.tensor_map(&TensorMapRequest {
            address: self.address,
            extents: &[self.channels as u64, rows],
            strides: &[self.row_bytes()],
            piece: Piece::Tiled(&[BLOCK_K as u32, pixels as u32]),
        })
    }
}

/// A convolution's weights (KRSC): one TMA load brings 64 input channels of one tap of `filters` filters.
fn filters(cuda: &Cuda, conv: &Conv2d, address: u64, filters: usize) -> Result<TensorMap> {
    let taps = (conv.filter_height * conv.filter_width) as u64;
    let row = conv.in_channels as u64 * BYTES;
    cuda.driver.tensor_map(&TensorMapRequest {
        address,
        extents: &[conv.in_channels as u64, taps, conv.out_channels as u64],
        strides: &[row, row * taps],
        piece: Piece::Tiled(&[BLOCK_K as u32, 1, filters as u32]),
    })
}
