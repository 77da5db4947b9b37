//! Calls of awkward extents: channels that fill no vector, batches that fill no block, windows that hang over every edge; and
//! the operations that no plan of the standard networks has.

use crate::ops::{
    Adam, BatchNorm, BatchNormGradient, Call, ClassGroups, Conv2d, Conv2dBatchNorm, Conv2dGradient,
    Conv2dGradientReduce, Conv2dInference, Conv2dScaled, Conv2dScaledBatchNorm, Cosine, CrossEntropy,
    Direction, EnergyMargin, ImageBatch, KlDivergence, Linear, Pool, PoolHead, Rows, ScaleBias, Segment, Sgd,
    ShortcutA, StepTotals,
};

/// Batch, height, width, input and output channels, filter rows and columns, stride, padding.
const CONVOLUTIONS: [[usize; 9]; 13] = [
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
];

/// Rows and channels.
const ROWS: [[usize; 2]; 6] = [[1, 1], [7, 3], [65, 8], [300, 65], [33, 512], [1030, 40]];

/// Batch, height, width, channels, window, stride, padding.
const POOLS: [[usize; 7]; 4] =
    [[1, 3, 3, 1, 3, 2, 1], [2, 7, 5, 17, 3, 2, 1], [2, 8, 8, 64, 3, 2, 1], [3, 6, 9, 8, 2, 2, 0]];

/// Samples, inputs, outputs.
const LINEAR: [[usize; 3]; 4] = [[1, 1, 1], [5, 64, 10], [33, 65, 100], [4, 512, 7]];

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
    let (x, weight, bias, residual, y, dy, dx) = ((), (), (), (), (), (), ());
    let with = |relu| Conv2dInference { conv, relu };
    let gradient = |accumulate| Conv2dGradient { conv, accumulate };
    calls.extend([
        Call::Conv2dForward { attributes: conv, x, weight, y },
        Call::Conv2dBias { attributes: with(false), x, weight, bias, y },
        Call::Conv2dBiasResidual { attributes: with(true), x, weight, bias, residual, y },
        Call::Conv2dInputGradient { attributes: gradient(false), dy, weight, dx },
        Call::Conv2dInputGradient { attributes: gradient(true), dy, weight, dx },
        Call::Conv2dWeightGradient { attributes: conv, x, dy, dweight: () },
    ]);
    let (gamma, beta, mean, inverse_std, running_mean, running_variance) = ((), (), (), (), (), ());
    let (scale, dgamma, dbeta, input_scale, input_bias) = ((), (), (), (), ());
    for relu in [false, true] {
        let attributes = Conv2dScaled { conv, relu };
        calls.extend([
            Call::Conv2dScaledForward { attributes, x, scale, bias, weight, y },
            Call::Conv2dScaledWeightGradient { attributes, x, scale, bias, dy, dweight: () },
        ]);
    }
    // A single row has no unbiased variance.
    if conv.out_pixels() > 1 {
        let behind = Conv2dBatchNorm { conv, epsilon: 1e-5, momentum: 0.1 };
        calls.push(Call::Conv2dScaledBatchNormStatistics {
            attributes: Conv2dScaledBatchNorm { behind, relu: true },
            x,
            input_scale,
            input_bias,
            weight,
            y,
            gamma,
            beta,
            mean,
            inverse_std,
            scale,
            bias,
            running_mean,
            running_variance,
        });
        calls.push(Call::Conv2dBatchNormStatistics {
            attributes: behind,
            x,
            weight,
            y,
            gamma,
            beta,
            mean,
            inverse_std,
            scale,
            bias,
            running_mean,
            running_variance,
        });
    }
    for accumulate in [false, true] {
        calls.push(Call::Conv2dInputGradientMaskReduce {
            attributes: gradient(accumulate),
            dy,
            weight,
            y,
            x,
            scale,
            bias,
            mean,
            inverse_std,
            dx,
            dgamma,
            dbeta,
        });
        for relu in [false, true] {
            calls.push(Call::Conv2dInputGradientReduce {
                attributes: Conv2dGradientReduce { gradient: gradient(accumulate), relu },
                dy,
                weight,
                x,
                scale,
                bias,
                mean,
                inverse_std,
                dx,
                dgamma,
                dbeta,
            });
        }
    }
}

fn rows(&[rows, channels]: &[usize; 2], calls: &mut Vec<Call<()>>) {
    let extent = Rows { rows, channels };
    let norm = BatchNorm { extent, epsilon: 1e-5, momentum: 0.1 };
    let (x, y, dy, dx, a, b, residual) = ((), (), (), (), (), (), ());
    let (scale, bias, gamma, beta, mean, inverse_std, dgamma, dbeta) = ((), (), (), (), (), (), (), ());
    let (weight, weights, folded, running_mean, running_variance) = ((), (), (), (), ());
    // A single row has no unbiased variance.
    if rows > 1 {
        calls.push(Call::BatchNormStatistics {
            attributes: norm,
            x,
            gamma,
            beta,
            mean,
            inverse_std,
            scale,
            bias,
            running_mean,
            running_variance,
        });
    }
    for (relu, frozen) in [(true, false), (false, false), (true, true)] {
        let attributes = BatchNormGradient { extent, relu, frozen };
        calls.extend([
            Call::BatchNormReduce { attributes, dy, x, scale, bias, mean, inverse_std, dgamma, dbeta },
            Call::BatchNormInputGradient {
                attributes,
                dy,
                x,
                scale,
                bias,
                mean,
                inverse_std,
                dgamma,
                dbeta,
                dx,
            },
        ]);
    }
    for relu in [false, true] {
        let attributes = ScaleBias { extent, relu };
        calls.extend([
            Call::ScaleBiasForward { attributes, x, scale, bias, y },
            Call::ScaleBiasResidual { attributes, x, scale, bias, residual, y },
        ]);
    }
    calls.extend([
        Call::BatchNormFrozen {
            attributes: norm,
            gamma,
            beta,
            running_mean,
            running_variance,
            inverse_std,
            scale,
            bias,
        },
        Call::BatchNormFold {
            attributes: norm,
            weight,
            gamma,
            beta,
            running_mean,
            running_variance,
            folded,
            bias,
        },
        Call::Relu { attributes: extent, x, y },
        Call::ReluGradient { attributes: extent, y, dy, dx },
        Call::Add { attributes: extent, a, b, y },
        Call::Copy { attributes: extent, x, y },
        Call::Cast { attributes: extent, x, y },
        Call::Accumulate { attributes: extent, x, y },
        Call::WeighRows { attributes: extent, weights, x },
    ]);
}

fn pools(&[batch, height, width, channels, window, stride, padding]: &[usize; 7], calls: &mut Vec<Call<()>>) {
    let attributes = Pool { batch, height, width, channels, window, stride, padding };
    let shortcut =
        ShortcutA { batch, height, width, in_channels: channels, out_channels: 2 * channels, stride };
    let (x, y, dy, dx, argmax) = ((), (), (), (), ());
    calls.extend([
        Call::MaxPool { attributes, x, y, argmax },
        Call::MaxPoolGradient { attributes, dy, argmax, dx },
        Call::GlobalAveragePool { attributes, x, y },
        Call::GlobalAveragePoolGradient { attributes, dy, dx },
        Call::ShortcutAForward { attributes: shortcut, x, y },
        Call::ShortcutAGradient { attributes: shortcut, dy, dx },
    ]);
}

fn linear(&[batch, inputs, outputs]: &[usize; 3], calls: &mut Vec<Call<()>>) {
    let attributes = Linear { batch, inputs, outputs };
    let (x, weight, bias, y, dy, dx, dweight, dbias) = ((), (), (), (), (), (), (), ());
    let (logits, labels, loss, prediction, dlogits) = ((), (), (), (), ());
    calls.extend([
        Call::LinearForward { attributes, x, weight, bias, y },
        Call::LinearInputGradient { attributes, dy, weight, dx },
        Call::LinearWeightGradient { attributes, x, dy, dweight, dbias },
    ]);
    for side in [1, 7] {
        let pool =
            Pool { batch, height: side, width: side, channels: inputs, window: 1, stride: 1, padding: 0 };
        let (features, logits) = ((), ());
        let attributes = PoolHead { pool, outputs };
        calls.push(Call::PoolHeadForward { attributes, x, weight, bias, features, logits });
    }
    // One class is no question.
    for smoothing in if outputs > 1 { &[0.0, 0.1][..] } else { &[] } {
        let attributes = CrossEntropy { batch, classes: outputs, smoothing: *smoothing };
        calls.push(Call::SoftmaxCrossEntropy { attributes, logits, labels, loss, prediction, dlogits });
    }
}

fn heads(&[batch, inputs, outputs]: &[usize; 3], calls: &mut Vec<Call<()>>) {
    let (x, weight, scale, inverse_norms, cosines, y, dy, dx) = ((), (), (), (), (), (), (), ());
    let (first, second, loss, dfirst, dsecond, dweight, dscale) = ((), (), (), (), (), (), ());
    // One feature has no direction, and one class no distribution.
    if inputs == 1 || outputs == 1 {
        return;
    }
    for softplus in [false, true] {
        let attributes = Cosine { batch, inputs, outputs, epsilon: 1e-12, softplus };
        calls.extend([
            Call::CosineForward { attributes, x, weight, scale, inverse_norms, cosines, y },
            Call::CosineInputGradient { attributes, x, weight, scale, inverse_norms, cosines, dy, dx },
            Call::CosineWeightGradient {
                attributes,
                x,
                weight,
                scale,
                inverse_norms,
                cosines,
                dy,
                dweight,
                dscale,
            },
        ]);
    }
    for direction in [Direction::FirstToSecond, Direction::SecondToFirst, Direction::Both] {
        let attributes =
            KlDivergence { batch, classes: outputs, temperature: 2.0, direction, detached: None };
        calls.push(Call::SoftmaxDivergence { attributes, first, second, loss, dfirst, dsecond });
    }
    let (group_of, logits, outlier, dlogits) = ((), (), (), ());
    for groups in [1, outputs.div_ceil(3), outputs] {
        let attributes = ClassGroups { batch, classes: outputs, groups, temperature: 2.0 };
        calls.extend([
            Call::LogSumGroups { attributes, x, group_of, y },
            Call::LogSumGroupsGradient { attributes, x, group_of, y, dy, dx },
        ]);
    }
    // Energies of random logits lie between: every sample is on the wrong side.
    let energy = -(outputs as f64).ln();
    let attributes = EnergyMargin { batch, classes: outputs, inside: energy - 1.0, outside: energy + 1.0 };
    calls.push(Call::EnergyMarginLoss { attributes, logits, outlier, loss, dlogits });
}

fn optimizers(calls: &mut Vec<Call<()>>) {
    let (parameters, gradients, velocity, first, second, hyper, copies) = ((), (), (), (), (), (), ());
    let segment = |elements, weight_decay, row| Segment { elements, weight_decay, row };
    let all = [
        Segment::alone(1, 5e-4),
        Segment::alone(1000, 5e-4),
        [segment(2048, 5e-4, 0), segment(2044, 5e-4, 1), segment(7, 0.0, 1)],
        [segment(0, 5e-4, 0), segment(1028, 5e-4, 1), segment(0, 0.0, 1)],
    ];
    for segments in all {
        for (momentum, nesterov, copy) in [(0.9, false, true), (0.9, true, false), (0.0, false, true)] {
            let attributes = Sgd { segments, momentum, nesterov, copy };
            calls.push(Call::SgdStep { attributes, parameters, gradients, velocity, hyper, copies });
        }
        for (decoupled, copy) in [(false, true), (true, true), (true, false)] {
            let attributes = Adam { segments, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decoupled, copy };
            calls.push(Call::AdamStep { attributes, parameters, gradients, first, second, hyper, copies });
        }
    }
}

fn images(calls: &mut Vec<Call<()>>) {
    let (pixels, table, placement, y) = ((), (), (), ());
    for (images, batch, side, channels) in [(1, 1, 1, 1), (5, 3, 9, 3), (7, 16, 12, 3)] {
        let attributes = ImageBatch { images, batch, side, channels };
        calls.push(Call::LoadImages { attributes, pixels, table, placement, y });
    }
    let (loss, prediction, labels, hyper, totals) = ((), (), (), (), ());
    for (batch, slots, columns, column) in [(1, 1, 1, 0), (130, 2, 3, 1)] {
        let attributes = StepTotals { batch, slots, columns, column };
        calls.push(Call::RecordTotals { attributes, loss, prediction, labels, hyper, totals });
    }
}
