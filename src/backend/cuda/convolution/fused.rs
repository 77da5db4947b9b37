//! Convolutions together with the passes of batch normalisation over what they write.
//!
//! A kernel of sm_90a leaves the sums of slabs of its result, while it has it in registers; the last stages of batch
//! normalisation finish them. Behind other kernels the passes run as they would alone.

use super::super::batch_norm::{self, Partials};
use super::super::{Cuda, pointwise};
use super::choice::choose;
use super::scaled::Map;
use super::sm90::{self, Reduce};
use super::variants::{Kernel, Pass};
use super::{Extras, forward, input_gradient, launch_forward, launch_input_gradient};
use crate::error::Result;
use crate::ops::{Call, Conv2d, Conv2dBatchNorm, Conv2dGradient, Conv2dGradientReduce, Rows};
use crate::tensor::{DType, Span};

/// Scratch memory of the calls of this file; `None` for others.
pub(super) fn workspace_bytes(cuda: &Cuda, call: &Call<()>) -> Option<usize> {
    let (pass, conv) = match call {
        Call::Conv2dBatchNormStatistics { attributes, .. } => (Pass::Forward, &attributes.conv),
        Call::Conv2dInputGradientReduce { attributes, .. } => {
            (Pass::InputGradient, &attributes.gradient.conv)
        }
        Call::Conv2dInputGradientMaskReduce { attributes, .. } => (Pass::InputGradient, &attributes.conv),
        _ => return None,
    };
    sums_bytes(cuda, pass, conv)
}

/// What sums of what a pass writes take.
pub(super) fn sums_bytes(cuda: &Cuda, pass: Pass, conv: &Conv2d) -> Option<usize> {
    match kernel_with_sums(cuda, pass, conv) {
        Some(kernel) => {
            let elements = Partials::elements(sm90::slabs(kernel, conv), written(pass, conv).channels);
            Some(elements * DType::F32.size())
        }
        None => batch_norm::partial_bytes(cuda, &written(pass, conv)),
    }
}

/// The kernel of a pass, if it leaves sums of what it writes.
fn kernel_with_sums(cuda: &Cuda, pass: Pass, conv: &Conv2d) -> Option<&'static Kernel> {
    Some(choose(cuda, pass, conv).kernel).filter(|kernel| kernel.is_sm90())
}

/// What a pass writes, as a matrix.
fn written(pass: Pass, conv: &Conv2d) -> Rows {
    if pass == Pass::Forward { conv.outputs() } else { conv.inputs() }
}

/// Room for the sums that a kernel leaves.
fn room(kernel: &Kernel, conv: &Conv2d, workspace: Span) -> Result<Partials> {
    let slabs = sm90::slabs(kernel, conv);
    Partials::new(&written(kernel.pass, conv), sm90::slab_rows(kernel), slabs, workspace)
}

pub(in super::super) fn forward_statistics(
    cuda: &Cuda,
    attributes: &Conv2dBatchNorm,
    [x, weight, y, numbers @ ..]: [Span; 11],
    workspace: Span,
) -> Result<()> {
    statistics(cuda, attributes, None, ([x, weight, y], numbers), workspace)
}

/// A convolution, whose kernel applies a map to patches if one is given, and the statistics of its output. Operands: x, weight, y;
/// and those of the statistics but y.
pub(super) fn statistics(
    cuda: &Cuda,
    attributes: &Conv2dBatchNorm,
    map: Option<Map>,
    ([x, weight, y], numbers): ([Span; 3], [Span; 8]),
    workspace: Span,
) -> Result<()> {
    let conv = &attributes.conv;
    let Some(kernel) = kernel_with_sums(cuda, Pass::Forward, conv) else {
        forward(cuda, conv, [x, weight, y], workspace)?;
        let [gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance] = numbers;
        let operands = [y, gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance];
        return batch_norm::statistics(cuda, &attributes.norm(), operands, workspace);
    };
    let partials = room(kernel, conv, workspace)?;
    let extras = Extras { map, moments: Some(partials.span), ..Extras::default() };
    launch_forward(cuda, kernel, conv, [x, weight, y], &extras)?;
    partials.finish_statistics(cuda, &attributes.norm(), None, numbers)
}

pub(in super::super) fn input_gradient_reduce(
    cuda: &Cuda,
    attributes: &Conv2dGradientReduce,
    [dy, weight, x, scale, bias, mean, inverse_std, dx, dgamma, dbeta]: [Span; 10],
    workspace: Span,
) -> Result<()> {
    let Conv2dGradientReduce { gradient, relu } = *attributes;
    let below = Below { mask: None, x, scale, bias, mean, inverse_std, relu, dgamma, dbeta };
    below.run(cuda, &gradient, [dy, weight, dx], workspace)
}

pub(in super::super) fn input_gradient_mask_reduce(
    cuda: &Cuda,
    gradient: &Conv2dGradient,
    [dy, weight, y, x, scale, bias, mean, inverse_std, dx, dgamma, dbeta]: [Span; 11],
    workspace: Span,
) -> Result<()> {
    let below = Below { mask: Some(y), x, scale, bias, mean, inverse_std, relu: false, dgamma, dbeta };
    below.run(cuda, gradient, [dy, weight, dx], workspace)
}

/// The batch normalisation that an input gradient goes to.
struct Below {
    /// The rectified sum behind it and a residual, which masks the gradient where it stands.
    mask: Option<Span>,
    x: Span,
    scale: Span,
    bias: Span,
    mean: Span,
    inverse_std: Span,
    /// Whether a rectifier behind it masks the gradient in the sums alone.
    relu: bool,
    dgamma: Span,
    dbeta: Span,
}

impl Below {
    fn run(self, cuda: &Cuda, gradient: &Conv2dGradient, spans: [Span; 3], workspace: Span) -> Result<()> {
        let Below { mask, x, scale, bias, mean, inverse_std, relu, dgamma, dbeta } = self;
        let conv = &gradient.conv;
        if let Some(kernel) = kernel_with_sums(cuda, Pass::InputGradient, conv) {
            let partials = room(kernel, conv, workspace)?;
            let reduce = Reduce { partial: partials.span, mask, x, scale, bias, mean, relu };
            launch_input_gradient(cuda, kernel, gradient, spans, Some(&reduce))?;
            return partials.finish_reduce(cuda, [inverse_std, dgamma, dbeta]);
        }
        let [_, _, dx] = spans;
        input_gradient(cuda, gradient, spans, workspace)?;
        if let Some(y) = mask {
            pointwise::mask(cuda, &conv.inputs(), [y, dx])?;
        }
        let operands = [dx, x, scale, bias, mean, inverse_std, dgamma, dbeta];
        batch_norm::reduce(cuda, &gradient.reduce(relu), operands, workspace)
    }
}
