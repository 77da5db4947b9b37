//! Launches of `convolution/sm90/implicit_gemm.cu`, `convolution/sm90/halo_reuse.cu` and `convolution/sm90/streaming_wgrad.cu`: what their tensor maps describe, and
//! their grid.

use super::choice::Chosen;
use super::problem::WALKS;
use super::sm90_arguments::{Arguments, STEP, Walk};
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

/// Bytes of an element of every operand that is copied by a map.
const BYTES: u64 = 2;

/// An operand as a launch lists it.
type Operand = (&'static str, Span, Access);

/// Rows of a result that one slab of partials is of; the last of a walk has those that are left.
pub(super) fn slab_rows(kernel: &Kernel) -> usize {
    match kernel.form {
        Form::Sm90 { cooperate: true, .. } | Form::Sm90Rows { cooperate: true, .. } => kernel.tile[0] / 2,
        _ => kernel.tile[0],
    }
}

/// Slabs of the partials that a kernel leaves.
pub(super) fn slabs(kernel: &Kernel, conv: &Conv2d) -> usize {
    let of_rows = |rows: usize| rows.div_ceil(slab_rows(kernel));
    match kernel.pass {
        Pass::InputGradient => Walk::of_inputs(conv).iter().map(|walk| of_rows(walk.pixels as usize)).sum(),
        Pass::Forward | Pass::WeightGradient => of_rows(conv.out_pixels()),
    }
}

/// Numbers of those partials, f32.
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
    arguments.walks[0].patches = images.patches(cuda, kernel, conv, &arguments.walks[0])?;
    arguments.matrix = filters(cuda, conv, address(op.weight), kernel.tile[1] / kernel.cluster()[0])?;
    arguments.out = address(op.y);
    if let Some(FpropEpilogue::Bias(BiasEpilogue { bias, residual, relu })) = op.epilogue {
        arguments.bias = address(bias);
        arguments.addend = residual.map_or(0, address);
        arguments.relu = relu.into();
    }
    operands.extend(map_patches(cuda, &mut arguments, op.prologue));
    if let Some(partial) = partial {
        check_partial(kernel, conv, partial)?;
        arguments.partial = address(partial);
        arguments.slabs = slabs(kernel, conv) as u32;
        operands.push(("partial", partial, Access::Write));
    }
    launch(cuda, kernel, &arguments, &operands)
}

/// `partial` receives sums of d, and of d (x - mean), of each slab of d, which is dx as the epilogue masks it: f32 (2, [`slabs`], input
/// channels).
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
    common.matrix = filters(cuda, conv, address(op.weight), STEP)?;
    common.out = address(op.dx);
    common.addend = if op.accumulate { common.out } else { 0 };
    if let (Some(reduce), Some(partial)) = (&op.epilogue, partial) {
        check_partial(kernel, conv, partial)?;
        common.partial = address(partial);
        common.slabs = slabs(kernel, conv) as u32;
        common.mask = reduce.mask().map_or(0, address);
        common.norm_x = address(reduce.x);
        common.norm_scale = address(reduce.scale);
        common.norm_bias = address(reduce.bias);
        common.norm_mean = address(reduce.mean);
        common.norm_relu = matches!(reduce.relu, ReluBackward::OfAffine).into();
        operands.push(("partial", partial, Access::Write));
        operands.extend(reduce.mask().map(|mask| ("mask", mask, Access::Read)));
        for (name, span) in
            [("x", reduce.x), ("scale", reduce.scale), ("bias", reduce.bias), ("mean", reduce.mean)]
        {
            operands.push((name, span, Access::Read));
        }
    }
    let images = Images::outputs(conv, address(op.dy));
    let mut walks = Walk::of_inputs(conv);
    if op.accumulate && partial.is_none() {
        // Pixels that no output has seen keep what they hold.
        walks.retain(|walk| walk.taps() > 0);
    }
    let mut slab = 0;
    for walk in &mut walks {
        walk.patches = images.patches(cuda, kernel, conv, walk)?;
        walk.first_slab = slab;
        slab += (walk.pixels as usize).div_ceil(slab_rows(kernel)) as u32;
    }
    for walks in walks.chunks(WALKS) {
        let mut arguments = common;
        arguments.walk(walks, kernel);
        launch(cuda, kernel, &arguments, &operands)?;
    }
    Ok(())
}

/// The sums of each split go to `out`, one behind the other.
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
    arguments.walks[0].patches = images.patches(cuda, kernel, conv, &arguments.walks[0])?;
    arguments.matrix = Images::outputs(conv, cuda.pointer(op.dy)).matrix(cuda, STEP)?;
    arguments.out = cuda.pointer(out);
    operands.extend(map_patches(cuda, &mut arguments, op.prologue));
    launch(cuda, kernel, &arguments, &operands)
}

/// Has a prologue applied to patches, and gives what is read for it.
fn map_patches(cuda: &Cuda, arguments: &mut Arguments, prologue: Option<Affine<Span>>) -> Vec<Operand> {
    let Some(Affine { scale, bias, relu }) = prologue else { return Vec::new() };
    arguments.patch_scale = cuda.pointer(scale);
    arguments.patch_bias = cuda.pointer(bias);
    arguments.patch_relu = relu.into();
    vec![("input_scale", scale, Access::Read), ("input_bias", bias, Access::Read)]
}

/// Holds the place of partials to their number.
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

/// Pixels of a tile of forward or input gradient that one copy moves: blocks side by side share them out.
fn shared_pixels(kernel: &Kernel) -> usize {
    kernel.tile[0] / kernel.cluster()[1]
}

/// As many clusters as there are multiprocessors for, or as there is work for: each goes on with the next piece by itself. (Those of
/// two blocks leave no multiprocessor over, as these come in pairs; larger ones would, in every group that a cluster must lie in.)
fn launch(cuda: &Cuda, kernel: &Kernel, arguments: &Arguments, operands: &[Operand]) -> Result<()> {
    let cluster = kernel.blocks() as u32;
    let clusters = arguments.items.min((cuda.driver.properties().multiprocessors / cluster).max(1));
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

    /// A copy moves 64 channels of the rows that a kernel keeps, or of one tap of the patches of a tile's pixels.
    fn patches(&self, cuda: &Cuda, kernel: &Kernel, conv: &Conv2d, walk: &Walk) -> Result<TensorMap> {
        if let Some(layout) = Layout::of(kernel, conv) {
            return self.map(cuda, Piece::Tiled(&layout.box_extents()));
        }
        let (step, pixels) = match kernel.pass {
            Pass::Forward => (conv.stride, shared_pixels(kernel)),
            Pass::InputGradient => (1, shared_pixels(kernel)),
            Pass::WeightGradient => (conv.stride, STEP),
        };
        if conv.is_pointwise() { self.matrix(cuda, pixels) } else { self.taps(cuda, walk, step, pixels) }
    }

    /// A copy moves 64 channels of one tap of the patches of `pixels` pixels of a walk, which lie `step` rows (columns) apart.
    fn taps(&self, cuda: &Cuda, walk: &Walk, step: usize, pixels: usize) -> Result<TensorMap> {
        // Of the bases' box, counted from the last pixel of the image.
        let upper = |first: i32, bases: u32, extent: usize| {
            first + ((bases - 1) * step as u32) as i32 - (extent - 1) as i32
        };
        let piece = Piece::Im2col {
            lower: [walk.first_column, walk.first_row],
            upper: [
                upper(walk.first_column, walk.width.divisor, self.width),
                upper(walk.first_row, walk.height.divisor, self.height),
            ],
            channels: STEP as u32,
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

    /// All pixels as one matrix: a copy moves 64 channels of `pixels` of them.
    fn matrix(&self, cuda: &Cuda, pixels: usize) -> Result<TensorMap> {
        let rows = (self.batch * self.height * self.width) as u64;
        cuda.driver.tensor_map(&TensorMapRequest {
            address: self.address,
            extents: &[self.channels as u64, rows],
            strides: &[self.row_bytes()],
            piece: Piece::Tiled(&[STEP as u32, pixels as u32]),
        })
    }
}

/// A convolution's weights (KRSC): a copy moves 64 input channels of one tap of `filters` filters.
fn filters(cuda: &Cuda, conv: &Conv2d, address: u64, filters: usize) -> Result<TensorMap> {
    let taps = (conv.filter_height * conv.filter_width) as u64;
    let row = conv.in_channels as u64 * BYTES;
    cuda.driver.tensor_map(&TensorMapRequest {
        address,
        extents: &[conv.in_channels as u64, taps, conv.out_channels as u64],
        strides: &[row, row * taps],
        piece: Piece::Tiled(&[STEP as u32, 1, filters as u32]),
    })
}
