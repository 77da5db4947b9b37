//! What a call has to do: elements of its operands, bytes that must move, floating-point operations, and its shape in a word.

use crate::backend::cuda::Pass;
use crate::error::Result;
use crate::ops::{
    Access, Call, Content, Conv2d, Conv2dGradientReduce, Direction, HYPER_ROW, HYPER_ROWS, PoolHead, Rows,
    Segments, segment_elements,
};
use crate::tensor::DType;

/// Numbers an optimizer and the totals of a step read from memory.
const HYPER_NUMBERS: usize = HYPER_ROWS * HYPER_ROW;

/// What a call has to do at the least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Floating-point operations of matrix products, two per multiply-add; 0 for everything else.
    pub flop: f64,
    /// Bytes that must be read and written, each once.
    pub bytes: f64,
    /// Whether the products may run on matrix units: those of activations in bf16.
    pub matrix_units: bool,
}

/// Elements of a call's operands, in the order of [`Call::operands`].
///
/// # Errors
/// The call's extents make no sense.
pub fn elements<B: Copy>(call: &Call<B>) -> Result<Vec<usize>> {
    use Call::*;
    Ok(match call {
        Conv2dForward { attributes, .. } | Conv2dWeightGradient { attributes, .. } => {
            let [x, weight, y] = attributes.elements()?;
            if matches!(call, Conv2dForward { .. }) { vec![x, weight, y] } else { vec![x, y, weight] }
        }
        Conv2dBias { attributes, .. } => {
            let [x, weight, y] = attributes.conv.elements()?;
            vec![x, weight, attributes.conv.out_channels, y]
        }
        Conv2dBiasResidual { attributes, .. } => {
            let [x, weight, y] = attributes.conv.elements()?;
            vec![x, weight, attributes.conv.out_channels, y, y]
        }
        Conv2dInputGradient { attributes, .. } => {
            let [x, weight, y] = attributes.conv.elements()?;
            vec![y, weight, x]
        }
        Conv2dBatchNormStatistics { attributes, .. } => {
            let ([x, weight, y], channels) = (attributes.conv.elements()?, attributes.conv.out_channels);
            [vec![x, weight, y], vec![channels; 8]].concat()
        }
        Conv2dScaledForward { attributes, .. } => {
            let ([x, weight, y], c) = (attributes.conv.elements()?, attributes.conv.in_channels);
            vec![x, c, c, weight, y]
        }
        Conv2dScaledWeightGradient { attributes, .. } => {
            let ([x, weight, y], c) = (attributes.conv.elements()?, attributes.conv.in_channels);
            vec![x, c, c, y, weight]
        }
        Conv2dScaledBatchNormStatistics { attributes, .. } => {
            let conv = &attributes.behind.conv;
            let ([x, weight, y], c) = (conv.elements()?, conv.in_channels);
            [vec![x, c, c, weight, y], vec![conv.out_channels; 8]].concat()
        }
        Conv2dInputGradientReduce { attributes, .. } => {
            let conv = &attributes.gradient.conv;
            let ([x, weight, y], c) = (conv.elements()?, conv.in_channels);
            vec![y, weight, x, c, c, c, c, x, c, c]
        }
        Conv2dInputGradientMaskReduce { attributes, .. } => {
            let ([x, weight, y], c) = (attributes.conv.elements()?, attributes.conv.in_channels);
            vec![y, weight, x, x, c, c, c, c, x, c, c]
        }
        BatchNormStatistics { attributes, .. } => {
            let channels = attributes.extent.channels;
            [vec![attributes.extent.elements()?], vec![channels; 8]].concat()
        }
        BatchNormFrozen { attributes, .. } => vec![attributes.extent.channels; 7],
        BatchNormFold { attributes, .. } => {
            let (weight, channels) = (attributes.extent.elements()?, attributes.extent.rows);
            vec![weight, channels, channels, channels, channels, weight, channels]
        }
        ScaleBiasForward { attributes, .. } => {
            let (x, channels) = (attributes.extent.elements()?, attributes.extent.channels);
            vec![x, channels, channels, x]
        }
        ScaleBiasResidual { attributes, .. } => {
            let (x, channels) = (attributes.extent.elements()?, attributes.extent.channels);
            vec![x, channels, channels, x, x]
        }
        BatchNormReduce { attributes, .. } => {
            let (x, channels) = (attributes.extent.elements()?, attributes.extent.channels);
            [vec![x; 2], vec![channels; 6]].concat()
        }
        BatchNormInputGradient { attributes, .. } => {
            let (x, channels) = (attributes.extent.elements()?, attributes.extent.channels);
            [vec![x; 2], vec![channels; 6], vec![x]].concat()
        }
        Relu { attributes, .. } | Copy { attributes, .. } | Cast { attributes, .. } => {
            vec![attributes.elements()?; 2]
        }
        Accumulate { attributes, .. } => vec![attributes.elements()?; 2],
        ReluGradient { attributes, .. } | Add { attributes, .. } => vec![attributes.elements()?; 3],
        MaxPool { attributes, .. } => {
            let [x, y] = attributes.elements()?;
            vec![x, y, y]
        }
        MaxPoolGradient { attributes, .. } => {
            let [x, y] = attributes.elements()?;
            vec![y, y, x]
        }
        GlobalAveragePool { attributes, .. } => attributes.global_elements()?.to_vec(),
        GlobalAveragePoolGradient { attributes, .. } => {
            let [x, y] = attributes.global_elements()?;
            vec![y, x]
        }
        LinearForward { attributes, .. } => {
            let [x, weight, y] = attributes.elements()?;
            vec![x, weight, attributes.outputs, y]
        }
        PoolHeadForward { attributes, .. } => {
            let [x, weight, features, logits] = attributes.elements()?;
            vec![x, weight, attributes.outputs, features, logits]
        }
        LinearInputGradient { attributes, .. } => {
            let [x, weight, y] = attributes.elements()?;
            vec![y, weight, x]
        }
        LinearWeightGradient { attributes, .. } => {
            let [x, weight, y] = attributes.elements()?;
            vec![x, y, weight, attributes.outputs]
        }
        CosineForward { attributes, .. } => {
            let [x, weight, norms, y] = attributes.elements()?;
            vec![x, weight, 1, norms, y, y]
        }
        CosineInputGradient { attributes, .. } => {
            let [x, weight, norms, y] = attributes.elements()?;
            vec![x, weight, 1, norms, y, y, x]
        }
        CosineWeightGradient { attributes, .. } => {
            let [x, weight, norms, y] = attributes.elements()?;
            vec![x, weight, 1, norms, y, y, weight, 1]
        }
        SoftmaxDivergence { attributes, .. } => {
            let logits = attributes.elements()?;
            vec![logits, logits, attributes.batch, logits, logits]
        }
        LogSumGroups { attributes, .. } => attributes.elements()?.to_vec(),
        LogSumGroupsGradient { attributes, .. } => {
            let [x, classes, y] = attributes.elements()?;
            vec![x, classes, y, y, x]
        }
        EnergyMarginLoss { attributes, .. } => {
            let logits = attributes.elements()?;
            vec![logits, attributes.batch, attributes.batch, logits]
        }
        WeighRows { attributes, .. } => vec![attributes.rows, attributes.elements()?],
        SoftmaxCrossEntropy { attributes, .. } => {
            let (batch, logits) = (attributes.batch, attributes.batch * attributes.classes);
            vec![logits, batch, batch, batch, logits]
        }
        ShortcutAForward { attributes, .. } => attributes.elements()?.to_vec(),
        ShortcutAGradient { attributes, .. } => {
            let [x, y] = attributes.elements()?;
            vec![y, x]
        }
        SgdStep { attributes, .. } => {
            let [elements, _] = segment_elements(&attributes.segments)?;
            [vec![elements; 3], vec![HYPER_NUMBERS, if attributes.copy { elements } else { 0 }]].concat()
        }
        AdamStep { attributes, .. } => {
            let [elements, _] = segment_elements(&attributes.segments)?;
            [vec![elements; 4], vec![HYPER_NUMBERS, if attributes.copy { elements } else { 0 }]].concat()
        }
        LoadImages { attributes, .. } => attributes.elements()?.to_vec(),
        RecordTotals { attributes, .. } => {
            let batch = attributes.batch;
            vec![batch, batch, batch, HYPER_NUMBERS, attributes.elements()?]
        }
    })
}

/// The least a call has to do where activations have the type `working`.
///
/// # Errors
/// The call's extents make no sense.
pub fn work<B: Copy>(call: &Call<B>, working: DType) -> Result<Work> {
    let mut bytes = 0;
    for (((name, _, access), content), elements) in
        call.operands().into_iter().zip(call.contents()).zip(elements(call)?)
    {
        let times = if access == Access::Update && !replaces(call) { 2 } else { 1 };
        bytes += times * touched(call, name, elements) * content.dtype(working).size();
    }
    let convolution = convolution(call);
    let flop = convolution.map_or_else(|| linear_flop(call), |(_, conv)| conv.flop());
    let matrix_units = convolution.is_some() && Content::Activation.dtype(working) == DType::Bf16;
    Ok(Work { flop, bytes: bytes as f64, matrix_units })
}

/// Whether a call overwrites an operand that others of its kind add to.
fn replaces<B>(call: &Call<B>) -> bool {
    match call {
        Call::Conv2dInputGradient { attributes, .. }
        | Call::Conv2dInputGradientMaskReduce { attributes, .. } => !attributes.accumulate,
        Call::Conv2dInputGradientReduce { attributes, .. } => !attributes.gradient.accumulate,
        _ => false,
    }
}

/// Elements of an operand that the call cannot do without.
fn touched<B>(call: &Call<B>, operand: &str, elements: usize) -> usize {
    match (call, operand) {
        (Call::LoadImages { attributes, .. }, "pixels") => elements / attributes.images * attributes.batch,
        (Call::RecordTotals { .. }, "totals") => 2,
        (Call::Conv2dForward { attributes, .. } | Call::Conv2dWeightGradient { attributes, .. }, "x") => {
            seen(attributes)
        }
        (Call::Conv2dBias { attributes, .. } | Call::Conv2dBiasResidual { attributes, .. }, "x") => {
            seen(&attributes.conv)
        }
        (Call::Conv2dBatchNormStatistics { attributes, .. }, "x") => seen(&attributes.conv),
        (
            Call::Conv2dScaledForward { attributes, .. }
            | Call::Conv2dScaledWeightGradient { attributes, .. },
            "x",
        ) => seen(&attributes.conv),
        (Call::Conv2dScaledBatchNormStatistics { attributes, .. }, "x") => seen(&attributes.behind.conv),
        _ => elements,
    }
}

/// Elements of a convolution's input that some filter sees: with a stride beyond the filter, not all.
fn seen(conv: &Conv2d) -> usize {
    let rows = conv.height.min(conv.out_height() * conv.filter_height);
    let columns = conv.width.min(conv.out_width() * conv.filter_width);
    conv.batch * rows * columns * conv.in_channels
}

/// The convolution a call carries out, and in which direction.
pub(super) fn convolution<B>(call: &Call<B>) -> Option<(Pass, &Conv2d)> {
    match call {
        Call::Conv2dForward { attributes, .. } => Some((Pass::Forward, attributes)),
        Call::Conv2dWeightGradient { attributes, .. } => Some((Pass::WeightGradient, attributes)),
        Call::Conv2dBias { attributes, .. } | Call::Conv2dBiasResidual { attributes, .. } => {
            Some((Pass::Forward, &attributes.conv))
        }
        Call::Conv2dBatchNormStatistics { attributes, .. } => Some((Pass::Forward, &attributes.conv)),
        Call::Conv2dScaledForward { attributes, .. } => Some((Pass::Forward, &attributes.conv)),
        Call::Conv2dScaledWeightGradient { attributes, .. } => Some((Pass::WeightGradient, &attributes.conv)),
        Call::Conv2dScaledBatchNormStatistics { attributes, .. } => {
            Some((Pass::Forward, &attributes.behind.conv))
        }
        Call::Conv2dInputGradient { attributes, .. }
        | Call::Conv2dInputGradientMaskReduce { attributes, .. } => {
            Some((Pass::InputGradient, &attributes.conv))
        }
        Call::Conv2dInputGradientReduce { attributes, .. } => {
            Some((Pass::InputGradient, &attributes.gradient.conv))
        }
        _ => None,
    }
}

/// Whether that convolution reads its input through an affine map.
pub(super) fn reads_through_map<B>(call: &Call<B>) -> bool {
    matches!(
        call,
        Call::Conv2dScaledForward { .. }
            | Call::Conv2dScaledWeightGradient { .. }
            | Call::Conv2dScaledBatchNormStatistics { .. }
    )
}

fn linear_flop<B>(call: &Call<B>) -> f64 {
    match call {
        Call::LinearForward { attributes, .. }
        | Call::LinearInputGradient { attributes, .. }
        | Call::LinearWeightGradient { attributes, .. } => {
            2.0 * attributes.batch as f64 * attributes.inputs as f64 * attributes.outputs as f64
        }
        Call::PoolHeadForward { attributes, .. } => {
            let linear = attributes.linear();
            2.0 * linear.batch as f64 * linear.inputs as f64 * linear.outputs as f64
        }
        Call::CosineForward { attributes, .. }
        | Call::CosineInputGradient { attributes, .. }
        | Call::CosineWeightGradient { attributes, .. } => {
            2.0 * attributes.batch as f64 * attributes.inputs as f64 * attributes.outputs as f64
        }
        _ => 0.0,
    }
}

/// A call's extents in one word: `128x32x32x64-k64-3x3`, `131072x64-relu`.
pub fn shape<B>(call: &Call<B>) -> String {
    use Call::*;
    let flag = |set: bool, word: &str| if set { format!("-{word}") } else { String::new() };
    match call {
        Conv2dForward { attributes, .. } | Conv2dWeightGradient { attributes, .. } => conv_shape(attributes),
        Conv2dBias { attributes, .. } | Conv2dBiasResidual { attributes, .. } => {
            conv_shape(&attributes.conv) + &flag(attributes.relu, "relu")
        }
        Conv2dBatchNormStatistics { attributes, .. } => conv_shape(&attributes.conv),
        Conv2dScaledForward { attributes, .. } | Conv2dScaledWeightGradient { attributes, .. } => {
            conv_shape(&attributes.conv) + &flag(attributes.relu, "relu")
        }
        Conv2dScaledBatchNormStatistics { attributes, .. } => {
            conv_shape(&attributes.behind.conv) + &flag(attributes.relu, "relu")
        }
        Conv2dInputGradient { attributes, .. } | Conv2dInputGradientMaskReduce { attributes, .. } => {
            conv_shape(&attributes.conv) + &flag(attributes.accumulate, "add")
        }
        Conv2dInputGradientReduce { attributes: Conv2dGradientReduce { gradient, relu }, .. } => {
            conv_shape(&gradient.conv) + &flag(gradient.accumulate, "add") + &flag(*relu, "relu")
        }
        BatchNormStatistics { attributes, .. }
        | BatchNormFrozen { attributes, .. }
        | BatchNormFold { attributes, .. } => rows_shape(&attributes.extent),
        ScaleBiasForward { attributes, .. } | ScaleBiasResidual { attributes, .. } => {
            rows_shape(&attributes.extent) + &flag(attributes.relu, "relu")
        }
        BatchNormReduce { attributes, .. } | BatchNormInputGradient { attributes, .. } => {
            rows_shape(&attributes.extent)
                + &flag(attributes.relu, "relu")
                + &flag(attributes.frozen, "frozen")
        }
        Relu { attributes, .. }
        | ReluGradient { attributes, .. }
        | Add { attributes, .. }
        | Copy { attributes, .. }
        | Cast { attributes, .. }
        | WeighRows { attributes, .. }
        | Accumulate { attributes, .. } => rows_shape(attributes),
        MaxPool { attributes: pool, .. } | MaxPoolGradient { attributes: pool, .. } => format!(
            "{}x{}x{}x{}-{w}x{w}-s{}p{}",
            pool.batch,
            pool.height,
            pool.width,
            pool.channels,
            pool.stride,
            pool.padding,
            w = pool.window
        ),
        GlobalAveragePool { attributes: pool, .. } | GlobalAveragePoolGradient { attributes: pool, .. } => {
            format!("{}x{}x{}x{}", pool.batch, pool.height, pool.width, pool.channels)
        }
        PoolHeadForward { attributes: PoolHead { pool, outputs }, .. } => {
            format!("{}x{}x{}x{}-k{outputs}", pool.batch, pool.height, pool.width, pool.channels)
        }
        LinearForward { attributes, .. }
        | LinearInputGradient { attributes, .. }
        | LinearWeightGradient { attributes, .. } => {
            format!("{}x{}-k{}", attributes.batch, attributes.inputs, attributes.outputs)
        }
        CosineForward { attributes, .. }
        | CosineInputGradient { attributes, .. }
        | CosineWeightGradient { attributes, .. } => {
            format!("{}x{}-k{}", attributes.batch, attributes.inputs, attributes.outputs)
                + &flag(attributes.softplus, "softplus")
        }
        SoftmaxDivergence { attributes, .. } => {
            let direction = match attributes.direction {
                Direction::FirstToSecond => "forward",
                Direction::SecondToFirst => "backward",
                Direction::Both => "both",
            };
            format!("{}x{}-{direction}", attributes.batch, attributes.classes)
        }
        LogSumGroups { attributes, .. } | LogSumGroupsGradient { attributes, .. } => {
            format!("{}x{}-g{}", attributes.batch, attributes.classes, attributes.groups)
        }
        EnergyMarginLoss { attributes, .. } => format!("{}x{}", attributes.batch, attributes.classes),
        SoftmaxCrossEntropy { attributes, .. } => {
            format!("{}x{}", attributes.batch, attributes.classes)
                + &flag(attributes.smoothing > 0.0, "smooth")
        }
        ShortcutAForward { attributes: s, .. } | ShortcutAGradient { attributes: s, .. } => {
            format!(
                "{}x{}x{}x{}-k{}-s{}",
                s.batch, s.height, s.width, s.in_channels, s.out_channels, s.stride
            )
        }
        SgdStep { attributes, .. } => {
            segments_shape(&attributes.segments)
                + &flag(attributes.copy, "copy")
                + &flag(attributes.nesterov, "nesterov")
                + &flag(attributes.momentum == 0.0, "plain")
        }
        AdamStep { attributes, .. } => {
            segments_shape(&attributes.segments)
                + &flag(attributes.copy, "copy")
                + &flag(attributes.decoupled, "decoupled")
        }
        LoadImages { attributes, .. } => {
            format!("{}x{side}x{side}x{}", attributes.batch, attributes.channels, side = attributes.side)
        }
        RecordTotals { attributes, .. } => attributes.batch.to_string(),
    }
}

fn segments_shape(segments: &Segments) -> String {
    let used = segments.iter().filter(|segment| segment.elements > 0);
    used.map(|segment| segment.elements.to_string()).collect::<Vec<_>>().join("+")
}

fn rows_shape(extent: &Rows) -> String {
    format!("{}x{}", extent.rows, extent.channels)
}

pub(super) fn conv_shape(conv: &Conv2d) -> String {
    format!(
        "{}x{}x{}x{}-k{}-{}x{}-s{}p{}",
        conv.batch,
        conv.height,
        conv.width,
        conv.in_channels,
        conv.out_channels,
        conv.filter_height,
        conv.filter_width,
        conv.stride,
        conv.padding
    )
}
