//! Launches of `convolution_sm90.cu`, `convolution_rows_sm90.cu` and `convolution_stream_sm90.cu`: what their tensor maps describe, and
//! their grid.

use super::choice::Chosen;
use super::problem::WALKS;
use super::scaled::Map;
use super::sm90_arguments::{Arguments, STEP, Walk};
use super::sm90_rows::Layout;
use super::variants::{Form, Kernel, Pass};
use super::{Extras, expect};
use crate::backend::cuda::Cuda;
use crate::backend::cuda::driver::Geometry;
use crate::backend::cuda::driver::tensor_map::{Piece, TensorMap, TensorMapRequest};
use crate::error::Result;
use crate::ops::{Access, Conv2d, Conv2dGradient};
use crate::tensor::{DType, Span};

/// Bytes of an element of every operand that is copied by a map.
const BYTES: u64 = 2;

/// An operand as a launch lists it.
type Operand = (&'static str, Span, Access);

/// What is done with an input gradient while the kernel has it in registers: it is masked, and reduced as the batch
/// normalisation that it goes to wants it.
pub(super) struct Reduce {
    /// f32 (2, [`slabs`], input channels): sums of d, and of d (x - mean), as the second stage of the reduction reads them.
    pub partial: Span,
    /// Activations above zero where dx is not masked.
    pub mask: Option<Span>,
    /// What the normalisation has read, its map and its mean.
    pub x: Span,
    /// Per channel.
    pub scale: Span,
    /// Per channel.
    pub bias: Span,
    /// Per channel.
    pub mean: Span,
    /// Whether it has a rectifier, which dx passes in the sums alone.
    pub relu: bool,
}

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

pub(super) fn launch_forward(
    cuda: &Cuda,
    kernel: &Kernel,
    conv: &Conv2d,
    [x, weight, y]: [Span; 3],
    extras: &Extras,
    mut operands: Vec<Operand>,
) -> Result<()> {
    let address = |span| cuda.pointer(span);
    let mut arguments = Arguments::forward(conv, kernel);
    let images = Images::inputs(conv, address(x));
    arguments.walks[0].patches = images.patches(cuda, kernel, conv, &arguments.walks[0])?;
    arguments.matrix = filters(cuda, conv, address(weight), kernel.tile[1] / kernel.cluster()[0])?;
    arguments.out = address(y);
    arguments.bias = extras.bias.map_or(0, address);
    arguments.addend = extras.residual.map_or(0, address);
    arguments.relu = extras.relu.into();
    operands.extend(map_patches(cuda, &mut arguments, extras.map));
    if let Some(partial) = extras.moments {
        expect("partial", partial, partial_elements(kernel, conv), DType::F32)?;
        arguments.partial = address(partial);
        arguments.slabs = slabs(kernel, conv) as u32;
        operands.push(("partial", partial, Access::Write));
    }
    launch(cuda, kernel, &arguments, &operands)
}

pub(super) fn launch_input_gradient(
    cuda: &Cuda,
    kernel: &Kernel,
    attributes: &Conv2dGradient,
    [dy, weight, dx]: [Span; 3],
    reduce: Option<&Reduce>,
    mut operands: Vec<Operand>,
) -> Result<()> {
    let conv = &attributes.conv;
    let address = |span| cuda.pointer(span);
    let mut common = Arguments::input_gradient(conv, kernel);
    common.matrix = filters(cuda, conv, address(weight), STEP)?;
    common.out = address(dx);
    common.addend = if attributes.accumulate { common.out } else { 0 };
    if let Some(reduce) = reduce {
        expect("partial", reduce.partial, partial_elements(kernel, conv), DType::F32)?;
        common.partial = address(reduce.partial);
        common.slabs = slabs(kernel, conv) as u32;
        common.mask = reduce.mask.map_or(0, address);
        common.norm_x = address(reduce.x);
        common.norm_scale = address(reduce.scale);
        common.norm_bias = address(reduce.bias);
        common.norm_mean = address(reduce.mean);
        common.norm_relu = reduce.relu.into();
        operands.push(("partial", reduce.partial, Access::Write));
        operands.extend(reduce.mask.map(|mask| ("mask", mask, Access::Read)));
        for (name, span) in
            [("x", reduce.x), ("scale", reduce.scale), ("bias", reduce.bias), ("mean", reduce.mean)]
        {
            operands.push((name, span, Access::Read));
        }
    }
    let images = Images::outputs(conv, address(dy));
    let mut walks = Walk::of_inputs(conv);
    if attributes.accumulate && reduce.is_none() {
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
pub(super) fn launch_weight_gradient(
    cuda: &Cuda,
    Chosen { kernel, splits }: Chosen,
    conv: &Conv2d,
    [x, dy, out]: [Span; 3],
    map: Option<Map>,
    mut operands: Vec<Operand>,
) -> Result<()> {
    let mut arguments = Arguments::weight_gradient(conv, kernel, splits);
    let images = Images::inputs(conv, cuda.pointer(x));
    arguments.walks[0].patches = images.patches(cuda, kernel, conv, &arguments.walks[0])?;
    arguments.matrix = Images::outputs(conv, cuda.pointer(dy)).matrix(cuda, STEP)?;
    arguments.out = cuda.pointer(out);
    operands.extend(map_patches(cuda, &mut arguments, map));
    launch(cuda, kernel, &arguments, &operands)
}

/// Has patches mapped, and gives what is read for it.
fn map_patches(cuda: &Cuda, arguments: &mut Arguments, map: Option<Map>) -> Vec<Operand> {
    let Some(map) = map else { return Vec::new() };
    arguments.patch_scale = cuda.pointer(map.scale);
    arguments.patch_bias = cuda.pointer(map.bias);
    arguments.patch_relu = map.relu.into();
    vec![("scale of the input", map.scale, Access::Read), ("bias of the input", map.bias, Access::Read)]
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
