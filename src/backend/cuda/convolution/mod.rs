//! Convolutions as implicit matrix products: launches of the files `convolution_*.cu`.
//!
//! | file | holds |
//! |---|---|
//! | `fused` | convolutions with the passes of batch normalisation behind them |
//! | `scaled` | convolutions with the map of a batch normalisation in front of them |
//! | `problem` | a convolution as a product of elements at addresses: the arguments of `convolution_sm80.cu` |
//! | `sm90`, `sm90_arguments` | a convolution as boxes of tensors: launches of `convolution_*_sm90.cu`, and their arguments |
//! | `sm90_rows` | how two of them keep rows of images |
//! | `variants` | what a compiled kernel is and can do |
//! | `kernels` | the list of them |
//! | `choice` | which one a product gets |
//! | `products` | what the kernel then multiplies, for predictions |
//! | `table` | a file that says which kernel a product gets, from measurements |

mod choice;
mod fused;
mod kernels;
mod problem;
mod products;
mod scaled;
#[cfg(test)]
mod scaled_tests;
mod sm90;
mod sm90_arguments;
mod sm90_rows;
#[cfg(test)]
mod sm90_tests;
mod table;
mod variants;
#[cfg(test)]
mod variants_tests;

use super::driver::Geometry;
use super::{Cuda, Module};
use crate::error::{Error, Result};
use crate::ops::{Access, Call, Conv2d, Conv2dGradient, Conv2dInference};
use crate::tensor::{DType, Span};
use choice::{Chosen, choose};
pub(super) use fused::{forward_statistics, input_gradient_mask_reduce, input_gradient_reduce};
use problem::{Arguments, SumArguments, WALKS, Walk};
pub use products::{Items, Products, Units};
use scaled::Map;
pub(super) use scaled::{
    forward as scaled_forward, forward_statistics as scaled_forward_statistics, scales_operands,
    weight_gradient as scaled_weight_gradient,
};
use sm90::Reduce;
pub use table::{KernelTable, MeasuredOn, TableRow};
use variants::Kernel;
pub use variants::Pass;

/// What the engine can ask for.
pub(super) fn modules() -> impl Iterator<Item = Module> {
    kernels::modules()
}

/// Scratch memory of the calls of this family; `None` for others.
pub(super) fn workspace_bytes(cuda: &Cuda, call: &Call<()>) -> Option<usize> {
    match call {
        Call::Conv2dWeightGradient { attributes, .. } => {
            let chosen = choose(cuda, Pass::WeightGradient, attributes);
            Some(parts_bytes(attributes, chosen.splits))
        }
        Call::Conv2dForward { .. }
        | Call::Conv2dBias { .. }
        | Call::Conv2dBiasResidual { .. }
        | Call::Conv2dInputGradient { .. } => Some(0),
        _ => fused::workspace_bytes(cuda, call).or_else(|| scaled::workspace_bytes(cuda, call)),
    }
}

pub(super) fn forward(cuda: &Cuda, attributes: &Conv2d, [x, weight, y]: [Span; 3], _: Span) -> Result<()> {
    let kernel = choose(cuda, Pass::Forward, attributes).kernel;
    launch_forward(cuda, kernel, attributes, [x, weight, y], &Extras::default())
}

pub(super) fn bias(
    cuda: &Cuda,
    attributes: &Conv2dInference,
    [x, weight, bias, y]: [Span; 4],
    _: Span,
) -> Result<()> {
    let extras = Extras { bias: Some(bias), relu: attributes.relu, ..Extras::default() };
    let kernel = choose(cuda, Pass::Forward, &attributes.conv).kernel;
    launch_forward(cuda, kernel, &attributes.conv, [x, weight, y], &extras)
}

pub(super) fn bias_residual(
    cuda: &Cuda,
    attributes: &Conv2dInference,
    [x, weight, bias, residual, y]: [Span; 5],
    _: Span,
) -> Result<()> {
    let extras =
        Extras { bias: Some(bias), residual: Some(residual), relu: attributes.relu, ..Extras::default() };
    let kernel = choose(cuda, Pass::Forward, &attributes.conv).kernel;
    launch_forward(cuda, kernel, &attributes.conv, [x, weight, y], &extras)
}

pub(super) fn input_gradient(
    cuda: &Cuda,
    attributes: &Conv2dGradient,
    operands: [Span; 3],
    _: Span,
) -> Result<()> {
    let kernel = choose(cuda, Pass::InputGradient, &attributes.conv).kernel;
    launch_input_gradient(cuda, kernel, attributes, operands, None)
}

pub(super) fn weight_gradient(
    cuda: &Cuda,
    attributes: &Conv2d,
    operands: [Span; 3],
    workspace: Span,
) -> Result<()> {
    let chosen = choose(cuda, Pass::WeightGradient, attributes);
    launch_weight_gradient(cuda, chosen, attributes, operands, None, workspace)
}

/// What a forward convolution does besides its products: to the patches before, to the sums before they are rounded.
#[derive(Default)]
struct Extras {
    /// What becomes of patches, by a kernel that [maps](Kernel::maps_patches) them.
    map: Option<Map>,
    bias: Option<Span>,
    residual: Option<Span>,
    relu: bool,
    /// Where a kernel of sm_90a leaves the moments of slabs of the rounded result.
    moments: Option<Span>,
}

fn launch_forward(
    cuda: &Cuda,
    kernel: &Kernel,
    conv: &Conv2d,
    [x, weight, y]: [Span; 3],
    extras: &Extras,
) -> Result<()> {
    check(cuda, conv, x, weight, y, cuda.dtype)?;
    check_map(kernel, conv, extras.map)?;
    let mut operands =
        vec![("x", x, Access::Read), ("weight", weight, Access::Read), ("y", y, Access::Write)];
    if let Some(bias) = extras.bias {
        expect("bias", bias, conv.out_channels, DType::F32)?;
        operands.push(("bias", bias, Access::Read));
    }
    if let Some(residual) = extras.residual {
        expect("residual", residual, y.elements, y.dtype)?;
        operands.push(("residual", residual, Access::Read));
    }
    if kernel.is_sm90() {
        return sm90::launch_forward(cuda, kernel, conv, [x, weight, y], extras, operands);
    }
    if extras.moments.is_some() {
        return Err(no_partials(kernel));
    }
    let address = |span| cuda.pointer(span);
    let mut arguments = Arguments::forward(conv, kernel);
    arguments.image = address(x);
    arguments.matrix = address(weight);
    arguments.out = address(y);
    arguments.bias = extras.bias.map_or(0, address);
    arguments.addend = extras.residual.map_or(0, address);
    arguments.relu = extras.relu.into();
    arguments.walks[0] = Walk::of_outputs(conv);
    let blocks = kernel.tiles(conv.out_pixels(), conv.out_channels);
    launch(cuda, kernel, [blocks, 1], &arguments, &operands)
}

fn launch_input_gradient(
    cuda: &Cuda,
    kernel: &Kernel,
    attributes: &Conv2dGradient,
    [dy, weight, dx]: [Span; 3],
    reduce: Option<&Reduce>,
) -> Result<()> {
    let conv = &attributes.conv;
    check(cuda, conv, dx, weight, dy, cuda.dtype)?;
    let access = if attributes.accumulate { Access::Update } else { Access::Write };
    let operands = vec![("dy", dy, Access::Read), ("weight", weight, Access::Read), ("dx", dx, access)];
    if kernel.is_sm90() {
        let spans = [dy, weight, dx];
        return sm90::launch_input_gradient(cuda, kernel, attributes, spans, reduce, operands);
    }
    if reduce.is_some() {
        return Err(no_partials(kernel));
    }
    let mut arguments = Arguments::input_gradient(conv, kernel);
    arguments.image = cuda.pointer(dy);
    arguments.matrix = cuda.pointer(weight);
    arguments.out = cuda.pointer(dx);
    arguments.addend = if attributes.accumulate { arguments.out } else { 0 };
    for walks in Walk::of_inputs(conv).chunks(WALKS) {
        arguments.walks[..walks.len()].copy_from_slice(walks);
        let most = walks.iter().map(|walk| walk.pixels).max().unwrap_or(0) as usize;
        let blocks = kernel.tiles(most, conv.in_channels);
        launch(cuda, kernel, [blocks, walks.len()], &arguments, &operands)?;
    }
    Ok(())
}

fn launch_weight_gradient(
    cuda: &Cuda,
    Chosen { kernel, splits }: Chosen,
    conv: &Conv2d,
    [x, dy, dweight]: [Span; 3],
    map: Option<Map>,
    workspace: Span,
) -> Result<()> {
    check(cuda, conv, x, dweight, dy, DType::F32)?;
    check_map(kernel, conv, map)?;
    let bytes = parts_bytes(conv, splits);
    if workspace.bytes() < bytes {
        return Err(Error::invalid(format!(
            "a weight gradient needs {bytes} bytes of workspace and was given {}; ask workspace_bytes for the size",
            workspace.bytes()
        )));
    }
    let parts = Span { elements: bytes / 4, dtype: DType::F32, ..workspace };
    let (to, name) = if splits > 1 { (parts, "workspace") } else { (dweight, "dweight") };
    let operands = vec![("x", x, Access::Read), ("dy", dy, Access::Read), (name, to, Access::Write)];
    if kernel.is_sm90() {
        let chosen = Chosen { kernel, splits };
        sm90::launch_weight_gradient(cuda, chosen, conv, [x, dy, to], map, operands)?;
    } else {
        let mut arguments = Arguments::weight_gradient(conv, kernel, splits);
        arguments.image = cuda.pointer(x);
        arguments.matrix = cuda.pointer(dy);
        arguments.out = cuda.pointer(to);
        arguments.walks[0] = Walk::of_outputs(conv);
        let blocks = kernel.tiles(conv.out_channels, conv.filter_elements());
        launch(cuda, kernel, [blocks, splits], &arguments, &operands)?;
    }
    if splits > 1 { sum_parts(cuda, parts, dweight, splits) } else { Ok(()) }
}

/// What only kernels of sm_90a do was asked of another.
fn no_partials(kernel: &Kernel) -> Error {
    Error::invalid(format!(
        "the convolution kernel {} leaves nothing for batch normalisation; run its passes after it",
        kernel.name
    ))
}

/// Holds a map to the channels it is of, and the kernel to what it can do.
fn check_map(kernel: &Kernel, conv: &Conv2d, map: Option<Map>) -> Result<()> {
    let Some(map) = map else { return Ok(()) };
    expect("scale of the input", map.scale, conv.in_channels, DType::F32)?;
    expect("bias of the input", map.bias, conv.in_channels, DType::F32)?;
    if kernel.maps_patches(conv) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the convolution kernel {} applies no map to the input of {conv:?}; run scale_bias before it",
        kernel.name
    )))
}

/// Adds the splits of a weight gradient in their order.
fn sum_parts(cuda: &Cuda, parts: Span, dweight: Span, splits: usize) -> Result<()> {
    const THREADS: u32 = 256;
    /// Threads of a block that lie along the elements; the others share out the splits.
    const ALONG: usize = 32;
    let wide = dweight.elements.is_multiple_of(4);
    let arguments = SumArguments {
        parts: cuda.pointer(parts),
        out: cuda.pointer(dweight),
        elements: dweight.elements as i64,
        splits: splits as u32,
        wide: wide.into(),
    };
    let threads = if wide { dweight.elements / 4 } else { dweight.elements };
    let geometry = Geometry {
        grid: [threads.div_ceil(ALONG) as u32, 1, 1],
        threads: THREADS,
        shared_bytes: 0,
        cluster: 1,
    };
    let operands = [("workspace", parts, Access::Read), ("dweight", dweight, Access::Write)];
    cuda.launch((&kernels::SUM.variant, kernels::SUM.entries[0].name), geometry, &arguments, &operands)
}

/// Launches a kernel on `[tiles, walks or splits]` blocks.
fn launch(
    cuda: &Cuda,
    kernel: &Kernel,
    [blocks, layers]: [usize; 2],
    arguments: &Arguments,
    operands: &[(&'static str, Span, Access)],
) -> Result<()> {
    let geometry = Geometry {
        grid: [blocks as u32, 1, layers as u32],
        threads: kernel.threads(),
        shared_bytes: kernel.shared_bytes(),
        cluster: 1,
    };
    cuda.launch((&kernel.module.variant, kernel.module.entries[0].name), geometry, arguments, operands)
}

/// Bytes of the parts of a weight gradient that is summed in so many splits.
fn parts_bytes(conv: &Conv2d, splits: usize) -> usize {
    if splits > 1 { splits * conv.out_channels * conv.filter_elements() * size_of::<f32>() } else { 0 }
}

/// Holds the operands of a convolution (or what has their shapes) to its extents, and those to what kernels can count.
fn check(cuda: &Cuda, conv: &Conv2d, x: Span, weight: Span, y: Span, weight_type: DType) -> Result<()> {
    let [n_x, n_weight, n_y] = conv.elements()?;
    expect("input", x, n_x, cuda.dtype)?;
    expect("weight", weight, n_weight, weight_type)?;
    expect("output", y, n_y, cuda.dtype)?;
    // Pixels, taps and the elements of one image are counted in 31 bits, with room for one tile more.
    const MOST: usize = (1 << 31) - (1 << 16);
    let counted = [
        ("input pixels", conv.batch * conv.height * conv.width),
        ("output pixels", conv.out_pixels()),
        ("elements of an input image", n_x / conv.batch),
        ("elements of an output image", n_y / conv.batch),
        ("weights", n_weight),
    ];
    for (what, count) in counted {
        if count > MOST {
            return Err(Error::invalid(format!(
                "a convolution has {count} {what}; the kernels count up to {MOST}: make the batch or the images smaller"
            )));
        }
    }
    Ok(())
}

fn expect(name: &str, span: Span, elements: usize, dtype: DType) -> Result<()> {
    if span.elements == elements && span.dtype == dtype {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the {name} of a convolution has {} elements of {:?}, its extents ask for {elements} of {dtype:?}",
        span.elements, span.dtype
    )))
}
