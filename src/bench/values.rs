//! Values to measure and check with: random, never zeros, and such as the operation can meet.

use half::bf16;
use rayon::prelude::*;

use crate::ops::*;
use crate::rng::{Purpose, Stream};
use crate::tensor::DType;

/// The values that fill a span.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Numbers(Vec<f64>),
    Integers(Vec<i32>),
    Bytes(Vec<u8>),
}

/// The first `elements` values of an operand of a call, all of which a device whose activations have the type `working`
/// holds exactly.
pub(super) fn values<B: Copy + Sync>(
    call: &Call<B>,
    (operand, element): (&'static str, ElementType),
    elements: usize,
    working: DType,
) -> Values {
    let position = call.operands().iter().position(|other| other.name == operand).unwrap_or(0);
    let stream = Stream::for_purpose(0, Purpose::Synthetic, &[position as u64]);
    match element {
        ElementType::I32 => Values::Integers(integers(call, operand, &stream, elements)),
        ElementType::U8 => Values::Bytes((0..elements as u64).map(|i| stream.bits(i) as u8).collect()),
        _ => {
            let dtype = element.dtype(working);
            let number = |i| rounded(number(call, operand, &stream, i), dtype);
            let numbers = (0..elements as u64).into_par_iter().map(number);
            Values::Numbers(numbers.collect())
        }
    }
}

fn rounded(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => bf16::from_f64(value).to_f64(),
        DType::F32 => f64::from(value as f32),
        DType::F64 | DType::I32 | DType::U8 => value,
    }
}

fn number<B: Sync>(call: &Call<B>, operand: &str, stream: &Stream, i: u64) -> f64 {
    // Whether a rectifier lets a gradient pass hangs on the sign of `scale * x + bias`. On these grids every precision
    // computes that sum exactly, and it is never zero: products are multiples of 2^-13, biases odd multiples of 2^-14.
    if matches!(call, Call::BatchNormReduce(_) | Call::BatchNormInputGradient(_) | Call::Conv2dDgrad(_)) {
        match operand {
            "x" => return stream.below(i, 256) as f64 / 128.0 - 1.0,
            "scale" => return (1 + stream.below(i, 64)) as f64 / 64.0,
            "bias" => return (2 * stream.below(i, 1 << 14) + 1) as f64 / 16384.0 - 1.0,
            _ => {}
        }
    }
    match operand {
        "running_variance" | "inverse_std" | "second" | "divisor" | "bank_scale" | "shares" => {
            0.5 + stream.uniform(i)
        }
        // Ascending.
        "edges" if matches!(call, Call::RowCoverage(_)) => (i as f64 - 23.0) * 0.5,
        "edges" => i as f64 / 50.0 - 1.0,
        // The learning rate, Adam's two corrections, the slot of the step's totals.
        "hyper" => [1.0 / 64.0, 0.5, 0.75, 0.0, 1.0 / 32.0, 0.25, 0.875, 0.0][i as usize % 8],
        _ => 2.0 * stream.uniform(i) - 1.0,
    }
}

fn integers<B>(call: &Call<B>, operand: &str, stream: &Stream, elements: usize) -> Vec<i32> {
    let below = |n: usize| (0..elements as u64).map(move |i| stream.below(i, n as u64) as i32).collect();
    match (call, operand) {
        (Call::SoftmaxCrossEntropy(SoftmaxCrossEntropy { attributes, .. }), "labels") => {
            below(attributes.classes)
        }
        (
            Call::LogSumGroups(LogSumGroups { attributes, .. })
            | Call::LogSumGroupsGradient(LogSumGroupsGradient { attributes, .. }),
            _,
        ) => {
            // No group is left without a class.
            let groups = attributes.groups as u64;
            (0..elements as u64)
                .map(|c| if c < groups { c } else { stream.below(c, groups) } as i32)
                .collect()
        }
        (
            Call::RowClassSums(RowClassSums { attributes: labelled, .. })
            | Call::RowClassDeviations(RowClassDeviations { attributes: labelled, .. })
            | Call::RowWithinScatter(RowWithinScatter { attributes: Scatter { labelled, .. }, .. }),
            _,
        ) => below(labelled.classes),
        (Call::RowMarginSums(RowMarginSums { attributes: LogitRows { classes, .. }, .. }), _)
        | (Call::RowClassProducts(RowClassProducts { attributes: ClassProducts { classes, .. }, .. }), _)
        | (Call::RowMagnitudes(RowMagnitudes { attributes: Magnitudes { classes, .. }, .. }), _) => {
            below(*classes)
        }
        (Call::EnergyMarginLoss(_), _) => below(2),
        (Call::RecordTotals(_), _) => below(3),
        (Call::MaxPoolGradient(MaxPoolGradient { attributes, .. }), "argmax") => {
            (0..elements).map(|i| position_in_window(attributes, i, stream)).collect()
        }
        (Call::LoadImages(LoadImages { attributes, .. }), "placement") => {
            (0..elements).map(|i| placement(attributes.images, stream, i)).collect()
        }
        _ => vec![0; elements],
    }
}

/// A position inside the window of an output of max pooling.
fn position_in_window(pool: &Pool, output: usize, stream: &Stream) -> i32 {
    let pixel = output / pool.channels;
    let (row, column) = (pixel / pool.out_width() % pool.out_height(), pixel % pool.out_width());
    let inside = |start: usize, extent: usize, key: u64| {
        let first = (start * pool.stride).saturating_sub(pool.padding);
        let end = (start * pool.stride + pool.window - pool.padding).min(extent);
        first + stream.below(key, (end - first) as u64) as usize
    };
    let row = inside(row, pool.height, 2 * output as u64);
    let column = inside(column, pool.width, 2 * output as u64 + 1);
    (row * pool.width + column) as i32
}

/// A number of a placement: a random image, moved by up to four pixels, as a padded crop does, sometimes mirrored or turned.
fn placement(images: usize, stream: &Stream, i: usize) -> i32 {
    const ONE: i32 = 1 << 16;
    let (image, field) = ((i / PLACEMENT_NUMBERS) as u64, i % PLACEMENT_NUMBERS);
    let shift = |key: u64| (stream.below(8 * image + key, 9) as i32 - 4) * ONE;
    let mirrored = stream.below(8 * image + 3, 2) == 1;
    let turned = stream.below(8 * image + 4, 4) == 0;
    match field {
        0 => stream.below(8 * image, images as u64) as i32,
        1 => shift(1),
        2 if mirrored => -ONE,
        2 => ONE,
        3 | 5 if turned => ONE / 8,
        4 => shift(2),
        6 => ONE,
        _ => 0,
    }
}
