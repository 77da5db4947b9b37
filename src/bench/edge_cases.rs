//! Calls of awkward extents: channels that fill no vector, batches that fill no block, windows that hang over every edge; and
//! the operations that no plan of the standard networks has.

use super::row_scores::passes;
use crate::ops::*;

/// Batch, height, width, input and output channels, filter rows and columns, stride, padding.
const CONVOLUTIONS: [[usize; 9]; 16] = [
    [1, 1, 1, 1, 1, 1, 1, 1, 0],
    [2, 5, 7, 3, 5, 1, 1, 1, 0],
    [3, 8, 6, 16, 17, 1, 1, 2, 0],
    [2, 9, 9, 3, 64, 7, 7, 2, 3],
    [1, 8, 7, 5, 3, 7, 7, 3, 2],
    [2, 12, 12, 3, 24, 3, 3, 1, 1],
    [3, 7, 5, 8, 72, 3, 3, 2, 1],
    [2, 2, 2, 40, 8, 3, 3, 1, 1],
    [1, 3, 4, 3, 5, 1, 1, 1, 3],
    [2, 6, 5, 3, 8, 3, 1, 1, 1],
    [3, 4, 4, 64, 80, 3, 3, 2, 1],
    [1, 2, 3, 300, 100, 1, 1, 1, 0],
    [2, 9, 7, 120, 136, 1, 1, 1, 0],
    // Rows of eight pixels and more, as kernels with halo reuse and streaming wgrads want them.
    [5, 8, 8, 72, 136, 3, 3, 1, 1],
    [1, 24, 16, 8, 56, 3, 3, 1, 1],
    [3, 16, 32, 40, 24, 3, 3, 1, 1],
];

/// Rows and channels.
const ROWS: [[usize; 2]; 6] = [[1, 1], [7, 3], [65, 8], [300, 65], [33, 512], [1030, 40]];

/// Batch, height, width, channels, window, stride, padding.
const POOLS: [[usize; 7]; 4] =
    [[1, 3, 3, 1, 3, 2, 1], [2, 7, 5, 17, 3, 2, 1], [2, 8, 8, 64, 3, 2, 1], [3, 6, 9, 8, 2, 2, 0]];

/// Samples, inputs, outputs.
const LINEAR: [[usize; 3]; 4] = [[1, 1, 1], [5, 64, 10], [33, 65, 100], [4, 512, 7]];

/// Rows and columns of features; classes, points or coordinates.
const FEATURES: [[usize; 3]; 4] = [[1, 1, 1], [5, 7, 3], [67, 65, 70], [130, 33, 9]];

/// One of every operation, most at several extents.
pub fn edge_cases() -> Vec<Call<()>> {
    let mut calls = Vec::new();
    CONVOLUTIONS.iter().for_each(|extents| convolutions(extents, &mut calls));
    ROWS.iter().for_each(|extents| rows(extents, &mut calls));
    POOLS.iter().for_each(|extents| pools(extents, &mut calls));
    LINEAR.iter().for_each(|extents| linear(extents, &mut calls));
    LINEAR.iter().for_each(|extents| heads(extents, &mut calls));
    optimizers(&mut calls);
    images(&mut calls);
    calls.extend(FEATURES.iter().flat_map(|&[rows, columns, others]| passes(rows, columns, others)));
    calls
}

fn convolutions(extents: &[usize; 9], calls: &mut Vec<Call<()>>) {
    let &[batch, height, width, in_channels, out_channels, filter_height, filter_width, stride, padding] =
        extents;
    let conv = Conv2d {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        filter_height,
        filter_width,
        stride,
        padding,
    };
    let (fprop, dgrad, wgrad) =
        (Conv2dFprop::new(conv, [(); 3]), Conv2dDgrad::new(conv, [(); 3]), Conv2dWgrad::new(conv, [(); 3]));
    let bias = |residual, relu| Some(FpropEpilogue::Bias(BiasEpilogue { bias: (), residual, relu }));
    calls.extend::<[Call<()>; 2]>([fprop.into(), wgrad.into()]);
    for (residual, relu) in [(None, false), (None, true), (Some(()), false), (Some(()), true)] {
        calls.push(Conv2dFprop { epilogue: bias(residual, relu), ..fprop }.into());
    }
    let prologue = |relu| Some(Affine { scale: (), bias: (), relu });
    for relu in [false, true] {
        calls.push(Conv2dFprop { prologue: prologue(relu), ..fprop }.into());
        calls.push(Conv2dWgrad { prologue: prologue(relu), ..wgrad }.into());
    }
    // A single row has no unbiased variance.
    if conv.out_pixels() > 1 {
        let statistics = StatisticsEpilogue {
            epsilon: 1e-5,
            momentum: 0.1,
            gamma: (),
            beta: (),
            mean: (),
            inverse_std: (),
            scale: (),
            bias: (),
            running_mean: (),
            running_variance: (),
        };
        let fprop = Conv2dFprop { epilogue: Some(FpropEpilogue::Statistics(statistics)), ..fprop };
        calls.push(fprop.into());
        calls.push(Conv2dFprop { prologue: prologue(true), ..fprop }.into());
    }
    let reduce = |relu| {
        let (x, scale, bias, mean, inverse_std, dgamma, dbeta) = ((), (), (), (), (), (), ());
        ReduceEpilogue { relu, x, scale, bias, mean, inverse_std, dgamma, dbeta }
    };
    for accumulate in [false, true] {
        calls.push(Conv2dDgrad { accumulate, ..dgrad }.into());
        for relu in [ReluBackward::None, ReluBackward::OfAffine, ReluBackward::OfOutput(())] {
            calls.push(Conv2dDgrad { accumulate, epilogue: Some(reduce(relu)), ..dgrad }.into());
        }
    }
}

fn rows(&[rows, channels]: &[usize; 2], calls: &mut Vec<Call<()>>) {
    let extent = Rows { rows, channels };
    let norm = BatchNorm { extent, epsilon: 1e-5, momentum: 0.1 };
    // A single row has no unbiased variance.
    if rows > 1 {
        calls.push(BatchNormStatistics::alone(norm));
    }
    for (relu, frozen) in [(true, false), (false, false), (true, true)] {
        let attributes = BatchNormGradient { extent, relu, frozen };
        calls.extend([BatchNormReduce::alone(attributes), BatchNormInputGradient::alone(attributes)]);
    }
    for relu in [false, true] {
        let attributes = ScaleBias { extent, relu };
        calls.extend([ScaleBiasForward::alone(attributes), ScaleBiasResidual::alone(attributes)]);
    }
    calls.extend([BatchNormFrozen::alone(norm), BatchNormFold::alone(norm)]);
    calls.extend(
        [
            Relu::alone,
            ReluGradient::alone,
            ReluGradientInPlace::alone,
            Add::alone,
            CopyRows::alone,
            Cast::alone,
            Accumulate::alone,
            ScaleRows::alone,
        ]
        .map(|alone| alone(extent)),
    );
}

fn pools(&[batch, height, width, channels, window, stride, padding]: &[usize; 7], calls: &mut Vec<Call<()>>) {
    let pool = Pool { batch, height, width, channels, window, stride, padding };
    let global = GlobalPool { batch, height, width, channels };
    let shortcut =
        ShortcutA { batch, height, width, in_channels: channels, out_channels: 2 * channels, stride };
    calls.extend([
        MaxPool::alone(pool),
        MaxPoolGradient::alone(pool),
        GlobalAveragePool::alone(global),
        GlobalAveragePoolGradient::alone(global),
        ShortcutAForward::alone(shortcut),
        ShortcutAGradient::alone(shortcut),
    ]);
}

fn linear(&[batch, inputs, outputs]: &[usize; 3], calls: &mut Vec<Call<()>>) {
    let linear = Linear { batch, inputs, outputs };
    calls.extend([
        LinearForward::alone(linear),
        LinearInputGradient::alone(linear),
        LinearWeightGradient::alone(linear),
    ]);
    for side in [1, 7] {
        let pool = GlobalPool { batch, height: side, width: side, channels: inputs };
        calls.push(PoolHeadForward::alone(PoolHead { pool, outputs }));
    }
    // One class is no question.
    for smoothing in if outputs > 1 { &[0.0, 0.1][..] } else { &[] } {
        let attributes = CrossEntropy { batch, classes: outputs, smoothing: *smoothing };
        calls.push(SoftmaxCrossEntropy::alone(attributes));
    }
}

fn heads(&[batch, inputs, outputs]: &[usize; 3], calls: &mut Vec<Call<()>>) {
    // One feature has no direction, and one class no distribution.
    if inputs == 1 || outputs == 1 {
        return;
    }
    for softplus in [false, true] {
        let attributes = Cosine { batch, inputs, outputs, epsilon: 1e-12, softplus };
        calls.extend([
            CosineForward::alone(attributes),
            CosineInputGradient::alone(attributes),
            CosineWeightGradient::alone(attributes),
        ]);
    }
    for direction in [Direction::FirstToSecond, Direction::SecondToFirst, Direction::Both] {
        let attributes =
            KlDivergence { batch, classes: outputs, temperature: 2.0, direction, detached: None };
        calls.push(SoftmaxDivergence::alone(attributes));
    }
    for groups in [1, outputs.div_ceil(3), outputs] {
        let attributes = ClassGroups { batch, classes: outputs, groups, temperature: 2.0 };
        calls.extend([LogSumGroups::alone(attributes), LogSumGroupsGradient::alone(attributes)]);
    }
    // Energies of random logits lie between: every sample is on the wrong side.
    let energy = -(outputs as f64).ln();
    let attributes = EnergyMargin { batch, classes: outputs, inside: energy - 1.0, outside: energy + 1.0 };
    calls.push(EnergyMarginLoss::alone(attributes));
}

fn optimizers(calls: &mut Vec<Call<()>>) {
    let segment = |elements, weight_decay, row| Segment { elements, weight_decay, row };
    let all = [
        Segment::alone(1, 5e-4),
        Segment::alone(1000, 5e-4),
        [segment(2048, 5e-4, 0), segment(2044, 5e-4, 1), segment(7, 0.0, 1)],
        [segment(0, 5e-4, 0), segment(1028, 5e-4, 1), segment(0, 0.0, 1)],
    ];
    for segments in all {
        for (momentum, nesterov, copy) in [(0.9, false, true), (0.9, true, false), (0.0, false, true)] {
            calls.push(SgdStep::alone(Sgd { segments, momentum, nesterov, copy }));
        }
        for (decoupled, copy) in [(false, true), (true, true), (true, false)] {
            let attributes = Adam { segments, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decoupled, copy };
            calls.push(AdamStep::alone(attributes));
        }
    }
}

fn images(calls: &mut Vec<Call<()>>) {
    for (images, batch, side, channels) in [(1, 1, 1, 1), (5, 3, 9, 3), (7, 16, 12, 3)] {
        calls.push(LoadImages::alone(ImageBatch { images, batch, side, channels }));
    }
    for (batch, slots, columns, column) in [(1, 1, 1, 0), (130, 2, 3, 1)] {
        calls.push(RecordTotals::alone(StepTotals { batch, slots, columns, column }));
    }
}
