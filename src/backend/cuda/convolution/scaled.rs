//! Convolutions of what the map of a batch normalisation makes of their input.
//!
//! Kernels of `convolution_sm90.cu` apply it to the patches of 1x1 convolutions in shared memory. Before others it runs as it would
//! alone, into the front of scratch memory.

use super::super::{Cuda, batch_norm};
use super::choice::choose;
use super::fused::{statistics, sums_bytes};
use super::variants::{Form, Kernel, Pass};
use super::{Extras, launch_forward, launch_weight_gradient, parts_bytes};
use crate::error::Result;
use crate::ops::{Call, Conv2d, Conv2dScaled, Conv2dScaledBatchNorm};
use crate::tensor::Span;

/// The map that a kernel applies to patches.
#[derive(Clone, Copy)]
pub(super) struct Map {
    /// Per channel of the input.
    pub scale: Span,
    /// Per channel of the input.
    pub bias: Span,
    /// Whether a rectifier comes behind.
    pub relu: bool,
}

impl Kernel {
    /// Whether it applies a map to the patches of a convolution.
    pub fn maps_patches(&self, conv: &Conv2d) -> bool {
        matches!(self.form, Form::Sm90 { .. }) && self.pass != Pass::InputGradient && conv.is_pointwise()
    }
}

/// Whether neither pass over a convolution's input needs the map's result in memory, and it is better not to have it there.
///
/// Every tile that multiplies a patch rewrites it in shared memory, which is about seven times as fast as memory: beyond about so many
/// tiles in a row of both products that takes longer than the pass it saves. Chosen by prediction, until a GPU tells.
pub(in super::super) fn scales_operands(cuda: &Cuda, conv: &Conv2d) -> bool {
    const MOST_REWRITES: usize = 8;
    let [forward, gradient] =
        [Pass::Forward, Pass::WeightGradient].map(|pass| choose(cuda, pass, conv).kernel);
    let rewrites = conv.out_channels.div_ceil(forward.tile[1]) + conv.out_channels.div_ceil(gradient.tile[0]);
    forward.maps_patches(conv) && gradient.maps_patches(conv) && rewrites <= MOST_REWRITES
}

/// Scratch memory of the calls of this file; `None` for others.
pub(super) fn workspace_bytes(cuda: &Cuda, call: &Call<()>) -> Option<usize> {
    let (pass, scaled, behind) = match call {
        Call::Conv2dScaledForward { attributes, .. } => (Pass::Forward, *attributes, 0),
        Call::Conv2dScaledWeightGradient { attributes, .. } => {
            let splits = choose(cuda, Pass::WeightGradient, &attributes.conv).splits;
            (Pass::WeightGradient, *attributes, parts_bytes(&attributes.conv, splits))
        }
        Call::Conv2dScaledBatchNormStatistics { attributes, .. } => {
            let scaled = attributes.scaled();
            (Pass::Forward, scaled, sums_bytes(cuda, Pass::Forward, &scaled.conv)?)
        }
        _ => return None,
    };
    let kernel = choose(cuda, pass, &scaled.conv).kernel;
    let front = if kernel.maps_patches(&scaled.conv) { 0 } else { scaled.room_bytes(cuda.dtype) };
    Some(front + behind)
}

/// What a convolution is given to read, and the scratch memory that is left to it.
struct Input {
    x: Span,
    map: Option<Map>,
    workspace: Span,
}

impl Input {
    /// Leaves the map to the kernel of a pass, or carries it out.
    fn prepare(
        cuda: &Cuda,
        pass: Pass,
        scaled: &Conv2dScaled,
        [x, scale, bias]: [Span; 3],
        workspace: Span,
    ) -> Result<Input> {
        if choose(cuda, pass, &scaled.conv).kernel.maps_patches(&scaled.conv) {
            return Ok(Input { x, map: Some(Map { scale, bias, relu: scaled.relu }), workspace });
        }
        let [z, workspace] = scaled.room(cuda.dtype, workspace)?;
        batch_norm::scale_bias(cuda, &scaled.map(), [x, scale, bias, z])?;
        Ok(Input { x: z, map: None, workspace })
    }
}

pub(in super::super) fn forward(
    cuda: &Cuda,
    scaled: &Conv2dScaled,
    [x, scale, bias, weight, y]: [Span; 5],
    workspace: Span,
) -> Result<()> {
    let input = Input::prepare(cuda, Pass::Forward, scaled, [x, scale, bias], workspace)?;
    let kernel = choose(cuda, Pass::Forward, &scaled.conv).kernel;
    let extras = Extras { map: input.map, ..Extras::default() };
    launch_forward(cuda, kernel, &scaled.conv, [input.x, weight, y], &extras)
}

pub(in super::super) fn weight_gradient(
    cuda: &Cuda,
    scaled: &Conv2dScaled,
    [x, scale, bias, dy, dweight]: [Span; 5],
    workspace: Span,
) -> Result<()> {
    let input = Input::prepare(cuda, Pass::WeightGradient, scaled, [x, scale, bias], workspace)?;
    let chosen = choose(cuda, Pass::WeightGradient, &scaled.conv);
    let spans = [input.x, dy, dweight];
    launch_weight_gradient(cuda, chosen, &scaled.conv, spans, input.map, input.workspace)
}

pub(in super::super) fn forward_statistics(
    cuda: &Cuda,
    attributes: &Conv2dScaledBatchNorm,
    [x, input_scale, input_bias, weight, y, numbers @ ..]: [Span; 13],
    workspace: Span,
) -> Result<()> {
    let map = [x, input_scale, input_bias];
    let input = Input::prepare(cuda, Pass::Forward, &attributes.scaled(), map, workspace)?;
    let spans = ([input.x, weight, y], numbers);
    statistics(cuda, &attributes.behind, input.map, spans, input.workspace)
}
