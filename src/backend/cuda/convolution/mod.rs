//! Convolutions as implicit GEMMs: launches of the kernels in `convolution/`.
//!
//! Kernels of sm_90a apply a prologue to the patches of 1x1 convolutions in shared memory, and their epilogues reduce the result to
//! partial sums over runs of rows, which the last stages of batch normalisation finalize. What a kernel cannot do runs as it would
//! alone ([`crate::ops::Call::expand`]).
//!
//! | file | holds |
//! |---|---|
//! | `problem` | a convolution as an implicit GEMM, on any architecture |
//! | `kernel` | a compiled kernel, and the interface of its family |
//! | `kernels` | the list of kernels |
//! | `sm80`, `sm90`, `sm100`, `sm120` | the families of an architecture: configuration, limits, arguments, launches |
//! | `products` | the work of a kernel in numbers |
//! | `cost` | the cost model: the time that such work takes on a card |
//! | `heuristics` | the kernel for a convolution, by the cost model |
//! | `exclusions` | kernels and mechanisms that are not used on a card |
//! | `tuned`, `tuned_file` | a table of measured kernels, in its place; its file |

pub mod cost;
pub(super) mod exclusions;
mod heuristics;
mod kernel;
#[cfg(test)]
mod kernel_tests;
mod kernels;
mod problem;
mod products;
#[cfg(test)]
mod prologue_tests;
mod sm100;
mod sm120;
mod sm80;
mod sm90;
pub(super) mod tuned;
mod tuned_file;

use super::batch_norm::Partials;
use super::driver::LaunchConfig;
use super::kernel_files::convolution::split_k_reduce as split_k;
use super::{Cuda, Module};
use crate::error::{Error, Result};
use crate::ops::{
    Access, BiasEpilogue, Call, CallConfig, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, Expansion,
    FpropEpilogue, KernelConfig, Parts, Rows,
};
use crate::tensor::{DType, Span};
pub use heuristics::ConvolutionKernel;
use heuristics::{Chosen, choose};
use kernel::Kernel;
pub use problem::Pass;
pub use products::Products;

/// The modules of this family.
pub(super) fn modules() -> impl Iterator<Item = Module> {
    kernels::modules()
}

/// How a convolution is carried out: the kernel chosen for it, or the parts of what its kernel cannot do; `None` for other calls.
pub(super) fn prepare(cuda: &Cuda, call: &Call<()>) -> Option<CallConfig> {
    let (chosen, parts, workspace_bytes) = match call.numbered() {
        Call::Conv2dFprop(op) => {
            let chosen = choose(cuda, Pass::Fprop, &op.conv);
            let statistics = matches!(op.epilogue, Some(FpropEpilogue::Statistics(_)));
            let bytes = if statistics { sums_bytes(chosen.kernel, &op.conv) } else { 0 };
            (chosen, fprop_parts(chosen.kernel, &op), bytes)
        }
        Call::Conv2dDgrad(op) => {
            let chosen = choose(cuda, Pass::Dgrad, &op.conv);
            let bytes = if op.epilogue.is_some() { sums_bytes(chosen.kernel, &op.conv) } else { 0 };
            (chosen, dgrad_parts(chosen.kernel, &op), bytes)
        }
        Call::Conv2dWgrad(op) => {
            let chosen = choose(cuda, Pass::Wgrad, &op.conv);
            (chosen, wgrad_parts(chosen.kernel, &op), parts_bytes(&op.conv, chosen.splits))
        }
        _ => return None,
    };
    Some(match parts {
        Some(parts) => Expansion::on(cuda, parts),
        None => CallConfig { workspace_bytes, kernel: Some(KernelConfig::new(chosen)), expansion: None },
    })
}

/// Whether a convolution and its wgrad apply a BN-ReLU prologue in their kernels, and that is better than a pass before both.
///
/// Every tile that multiplies a patch rewrites it in shared memory, which is about seven times as fast as memory: beyond `MOST_REWRITES`
/// tiles in a row of both GEMMs that takes longer than the pass it saves. Chosen by prediction, until a GPU tells.
pub(super) fn fuses_prologue(cuda: &Cuda, conv: &Conv2d) -> bool {
    const MOST_REWRITES: usize = 8;
    let [forward, gradient] = [Pass::Fprop, Pass::Wgrad].map(|pass| choose(cuda, pass, conv).kernel);
    let rewrites = conv.out_channels.div_ceil(forward.tile[1]) + conv.out_channels.div_ceil(gradient.tile[0]);
    forward.applies_prologue(conv) && gradient.applies_prologue(conv) && rewrites <= MOST_REWRITES
}

/// The calls that an fprop becomes where its kernel cannot do all of it.
fn fprop_parts<B: Copy>(kernel: &Kernel, op: &Conv2dFprop<B>) -> Option<Parts<B>> {
    if op.prologue.is_some() && !kernel.applies_prologue(&op.conv) {
        return op.without_prologue();
    }
    if kernel.reduces_in_epilogue() { None } else { op.without_epilogue() }
}

/// The same for a dgrad.
fn dgrad_parts<B: Copy>(kernel: &Kernel, op: &Conv2dDgrad<B>) -> Option<Parts<B>> {
    if kernel.reduces_in_epilogue() { None } else { op.without_epilogue() }
}

/// The same for a wgrad.
fn wgrad_parts<B: Copy>(kernel: &Kernel, op: &Conv2dWgrad<B>) -> Option<Parts<B>> {
    if kernel.applies_prologue(&op.conv) { None } else { op.without_prologue() }
}

/// The result of a pass, as a matrix.
fn written(kernel: &Kernel, conv: &Conv2d) -> Rows {
    if kernel.pass == Pass::Fprop { conv.outputs() } else { conv.inputs() }
}

/// Bytes of the BN partial sums that a kernel leaves of its result; none without a reduction epilogue.
fn sums_bytes(kernel: &Kernel, conv: &Conv2d) -> usize {
    if !kernel.reduces_in_epilogue() {
        return 0;
    }
    let [_, runs] = kernel.partial_runs(conv);
    Partials::elements(runs, written(kernel, conv).channels) * DType::F32.size()
}

/// Room for them.
fn sums(kernel: &Kernel, conv: &Conv2d, workspace: Span) -> Result<Partials> {
    let [rows, runs] = kernel.partial_runs(conv);
    Partials::new(&written(kernel, conv), rows, runs, workspace)
}

/// The kernel that was chosen for a call of a pass when it was prepared.
fn chosen(config: Option<&KernelConfig>, pass: Pass) -> Result<Chosen> {
    let chosen = config.and_then(KernelConfig::inner::<Chosen>).filter(|chosen| chosen.kernel.pass == pass);
    chosen.copied().ok_or_else(|| {
        Error::invalid("a convolution runs as it was prepared, and this one was not prepared by this device")
    })
}

pub(super) fn conv2d_fprop(
    cuda: &mut Cuda,
    op: &Conv2dFprop<Span>,
    workspace: Span,
    config: Option<&KernelConfig>,
) -> Result<()> {
    let Chosen { kernel, .. } = chosen(config, Pass::Fprop)?;
    let Some(FpropEpilogue::Statistics(statistics)) = &op.epilogue else {
        return launch_fprop(cuda, kernel, op, None);
    };
    let sums = sums(kernel, &op.conv, workspace)?;
    launch_fprop(cuda, kernel, op, Some(sums.span))?;
    sums.finish_statistics(cuda, statistics, None)
}

pub(super) fn conv2d_dgrad(
    cuda: &mut Cuda,
    op: &Conv2dDgrad<Span>,
    workspace: Span,
    config: Option<&KernelConfig>,
) -> Result<()> {
    let Chosen { kernel, .. } = chosen(config, Pass::Dgrad)?;
    let Some(reduce) = &op.epilogue else { return launch_dgrad(cuda, kernel, op, None) };
    let sums = sums(kernel, &op.conv, workspace)?;
    launch_dgrad(cuda, kernel, op, Some(sums.span))?;
    sums.finish_reduce(cuda, reduce.inverse_std, [reduce.dgamma, reduce.dbeta])
}

pub(super) fn conv2d_wgrad(
    cuda: &mut Cuda,
    op: &Conv2dWgrad<Span>,
    workspace: Span,
    config: Option<&KernelConfig>,
) -> Result<()> {
    launch_wgrad(cuda, chosen(config, Pass::Wgrad)?, op, workspace)
}

/// Launches an fprop with its prologue and its epilogue; `partial` is where the kernel leaves the moments of runs of rows of
/// its result.
fn launch_fprop(cuda: &Cuda, kernel: &Kernel, op: &Conv2dFprop<Span>, partial: Option<Span>) -> Result<()> {
    let conv = &op.conv;
    check_counts(conv)?;
    check_fits(kernel, conv, op.prologue.is_some(), partial.is_some())?;
    let mut operands =
        vec![("x", op.x, Access::Read), ("weight", op.weight, Access::Read), ("y", op.y, Access::Write)];
    if let Some(FpropEpilogue::Bias(BiasEpilogue { bias, residual, .. })) = op.epilogue {
        operands.push(("bias", bias, Access::Read));
        operands.extend(residual.map(|residual| ("residual", residual, Access::Read)));
    }
    kernel.family.fprop(cuda, kernel, op, partial, operands)
}

/// Launches a dgrad; `partial` is where the kernel leaves the partial sums of its reduction epilogue.
fn launch_dgrad(cuda: &Cuda, kernel: &Kernel, op: &Conv2dDgrad<Span>, partial: Option<Span>) -> Result<()> {
    let conv = &op.conv;
    check_counts(conv)?;
    check_fits(kernel, conv, false, partial.is_some())?;
    let access = if op.accumulate { Access::Update } else { Access::Write };
    let operands =
        vec![("dy", op.dy, Access::Read), ("weight", op.weight, Access::Read), ("dx", op.dx, access)];
    kernel.family.dgrad(cuda, kernel, op, partial, operands)
}

/// Launches a wgrad with its prologue.
fn launch_wgrad(
    cuda: &Cuda,
    Chosen { kernel, splits }: Chosen,
    op: &Conv2dWgrad<Span>,
    workspace: Span,
) -> Result<()> {
    let conv = &op.conv;
    check_counts(conv)?;
    check_fits(kernel, conv, op.prologue.is_some(), false)?;
    let bytes = parts_bytes(conv, splits);
    if workspace.bytes() < bytes {
        return Err(Error::invalid(format!(
            "a wgrad needs {bytes} bytes of workspace and was given {}; ask workspace_bytes for the size",
            workspace.bytes()
        )));
    }
    let parts = Span { elements: bytes / 4, dtype: DType::F32, ..workspace };
    let (to, name) = if splits > 1 { (parts, "workspace") } else { (op.dweight, "dweight") };
    let operands = vec![("x", op.x, Access::Read), ("dy", op.dy, Access::Read), (name, to, Access::Write)];
    kernel.family.wgrad(cuda, kernel, op, splits, to, operands)?;
    if splits > 1 { sum_parts(cuda, parts, op.dweight, splits) } else { Ok(()) }
}

/// Refuses to ask a kernel for what it does not do.
fn check_fits(kernel: &Kernel, conv: &Conv2d, prologue: bool, sums: bool) -> Result<()> {
    if prologue && !kernel.applies_prologue(conv) {
        return Err(Error::invalid(format!(
            "the convolution kernel {} applies no prologue to the input of {conv:?}; run scale_bias before it",
            kernel.name
        )));
    }
    if sums && !kernel.reduces_in_epilogue() {
        return Err(Error::invalid(format!(
            "the convolution kernel {} has no epilogue for batch normalisation; run its passes after it",
            kernel.name
        )));
    }
    Ok(())
}

/// Adds the split-K slices of a wgrad in their order.
fn sum_parts(cuda: &Cuda, parts: Span, dweight: Span, splits: usize) -> Result<()> {
    let (vectorized, blocks) = split_k_grid(dweight.elements);
    let arguments = split_k::Arguments {
        slices: cuda.pointer(parts),
        out: cuda.pointer(dweight),
        elements: dweight.elements as i64,
        split_k: splits as u32,
        vectorized: vectorized.into(),
    };
    let config = LaunchConfig {
        grid: [blocks as u32, 1, 1],
        threads: (split_k::WARP * split_k::WARPS) as u32,
        shared_bytes: 0,
        cluster: 1,
    };
    let operands = [("workspace", parts, Access::Read), ("dweight", dweight, Access::Write)];
    cuda.launch(
        (&kernels::SPLIT_K_REDUCE.variant, kernels::SPLIT_K_REDUCE.entries[0].name),
        config,
        &arguments,
        &operands,
    )
}

/// Whether a thread of the reduction of split-K slices has four weights, or one, and its thread blocks.
fn split_k_grid(weights: usize) -> (bool, usize) {
    let vectorized = weights.is_multiple_of(4);
    (vectorized, (if vectorized { weights / 4 } else { weights }).div_ceil(split_k::WARP))
}

/// Bytes of the split-K slices of a wgrad.
fn parts_bytes(conv: &Conv2d, splits: usize) -> usize {
    if splits > 1 { splits * conv.out_channels * conv.filter_elements() * size_of::<f32>() } else { 0 }
}

/// Checks that kernels can count the extents.
fn check_counts(conv: &Conv2d) -> Result<()> {
    // Pixels, taps and the elements of one image are counted in 31 bits, with room for one tile more.
    const MOST: usize = (1 << 31) - (1 << 16);
    let counted = [
        ("input pixels", conv.inputs().rows),
        ("output pixels", conv.out_pixels()),
        ("elements of an input image", conv.height * conv.width * conv.in_channels),
        ("elements of an output image", conv.out_height() * conv.out_width() * conv.out_channels),
        ("weights", conv.weights()),
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
