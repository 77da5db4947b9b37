//! The last stages of sums over rows, on what a convolution may leave: any number of chunks, and no pivot.

use std::sync::Arc;

use super::super::Cuda;
use super::super::driver::emulator::{Emulator, Options};
use super::super::source::Sources;
use super::sums::Partials;
use crate::ops::{Device, Rows, StatisticsEpilogue};
use crate::rng::{Purpose, Stream};
use crate::tensor::{ALIGNMENT, DType, HostValues, Span, aligned};

const CHANNELS: usize = 37;
const ROWS_PER_CHUNK: usize = 3;

/// Few chunks and very many, with a last one that is not full, and a last run that is not full.
const ROWS: [usize; 3] = [2 * ROWS_PER_CHUNK, 512 * ROWS_PER_CHUNK - 1, 1090 * ROWS_PER_CHUNK + 1];

fn device() -> Cuda {
    let emulator = Emulator::new(Options::default()).expect("a C++ compiler");
    Cuda::new(Arc::new(emulator), DType::F32, Sources::default()).expect("f32")
}

/// Vectors of numbers behind each other, and scratch memory behind them.
fn places(channels: usize, count: usize) -> (Vec<Span>, usize) {
    let step = aligned(channels * DType::F32.size());
    let spans = (0..count)
        .map(|index| Span { offset: ALIGNMENT + index * step, elements: channels, dtype: DType::F32 })
        .collect();
    (spans, ALIGNMENT + count * step)
}

fn random(elements: usize, key: u64) -> Vec<f64> {
    let stream = Stream::for_purpose(17, Purpose::Synthetic, &[key]);
    (0..elements as u64).map(|i| f64::from(stream.normal(i) as f32)).collect()
}

/// Runs `finish` on scratch memory that begins with the partials, after `inputs` went to the first vectors; gives all vectors.
fn finished(
    rows: usize,
    partial: &[f64],
    inputs: &[Vec<f64>],
    outputs: usize,
    finish: impl Fn(&Cuda, Partials, &[Span]),
) -> Vec<Vec<f64>> {
    let mut cuda = device();
    let chunks = rows.div_ceil(ROWS_PER_CHUNK);
    let (spans, offset) = places(CHANNELS, inputs.len() + outputs);
    let elements = Partials::elements(chunks, CHANNELS);
    let workspace = Span { offset, elements, dtype: DType::F32 };
    cuda.allocate(offset + workspace.bytes()).unwrap();
    cuda.write(workspace, HostValues::F64(&vec![f64::NAN; elements])).unwrap();
    let partials =
        Partials::new(&Rows { rows, channels: CHANNELS }, ROWS_PER_CHUNK, chunks, workspace).unwrap();
    cuda.write(partials.span, HostValues::F64(partial)).unwrap();
    for (span, values) in spans.iter().zip(inputs) {
        cuda.write(*span, HostValues::F64(values)).unwrap();
    }
    finish(&cuda, partials, &spans);
    let read = |span: &Span| {
        let mut values = vec![0.0; CHANNELS];
        cuda.read_f64(*span, &mut values).unwrap();
        values
    };
    spans.iter().map(read).collect()
}

fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    let norm = expected.iter().map(|e| e * e).sum::<f64>().sqrt();
    let error = found.iter().zip(expected).map(|(f, e)| (f - e).powi(2)).sum::<f64>().sqrt() / norm;
    assert!(error < 1e-5, "{what} is off by {error:.1e}");
}

#[test]
fn statistics_are_those_of_all_rows_however_many_chunks_there_are() {
    for rows in ROWS {
        // A mean far from zero, which a sum of squares would not survive.
        let x: Vec<f64> = random(rows * CHANNELS, 1).iter().map(|x| 100.0 + x).collect();
        let moments = |rows: &[f64], channel: usize| {
            let column = || rows.iter().skip(channel).step_by(CHANNELS);
            let count = column().count() as f64;
            let mean = column().sum::<f64>() / count;
            (mean, column().map(|x| (x - mean).powi(2)).sum::<f64>())
        };
        let chunks =
            || x.chunks(ROWS_PER_CHUNK * CHANNELS).flat_map(|chunk| (0..CHANNELS).map(move |c| (chunk, c)));
        let means = chunks().map(|(chunk, c)| moments(chunk, c).0);
        let partial: Vec<f64> = means.chain(chunks().map(|(chunk, c)| moments(chunk, c).1)).collect();
        let [gamma, beta, mean, variance] = [2, 3, 4, 5].map(|key| random(CHANNELS, key));
        let inputs = [gamma.clone(), beta, mean.clone(), variance.clone()];
        let found = finished(rows, &partial, &inputs, 4, |cuda, partials, spans| {
            let [gamma, beta, running_mean, running_variance, mean, inverse_std, scale, bias] = *spans else {
                panic!("eight vectors")
            };
            let (epsilon, momentum) = (1e-5, 0.1);
            let statistics = StatisticsEpilogue {
                epsilon,
                momentum,
                gamma,
                beta,
                mean,
                inverse_std,
                scale,
                bias,
                running_mean,
                running_variance,
            };
            partials.finish_statistics(cuda, &statistics, None).unwrap();
        });
        let of = |f: &dyn Fn(usize, f64, f64) -> f64| -> Vec<f64> {
            let one = |c| {
                let (mean, deviations) = moments(&x, c);
                f(c, mean, deviations)
            };
            (0..CHANNELS).map(one).collect()
        };
        let inverse_std = |deviations: f64| 1.0 / (deviations / rows as f64 + 1e-5).sqrt();
        assert_close("the running mean", &found[2], &of(&|c, m, _| 0.9 * mean[c] + 0.1 * m));
        let unbiased = |d: f64| d / (rows as f64 - 1.0);
        assert_close(
            "the running variance",
            &found[3],
            &of(&|c, _, d| 0.9 * variance[c] + 0.1 * unbiased(d)),
        );
        assert_close("the mean", &found[4], &of(&|_, m, _| m));
        assert_close("the inverse deviation", &found[5], &of(&|_, _, d| inverse_std(d)));
        assert_close("the scale", &found[6], &of(&|c, _, d| gamma[c] * inverse_std(d)));
    }
}

#[test]
fn gradients_of_gamma_and_beta_are_sums_over_all_chunks() {
    for rows in ROWS {
        let chunks = rows.div_ceil(ROWS_PER_CHUNK);
        let partial = random(2 * chunks * CHANNELS, 6);
        let inverse_std = random(CHANNELS, 7);
        let found =
            finished(rows, &partial, std::slice::from_ref(&inverse_std), 2, |cuda, partials, spans| {
                let [inverse_std, dgamma, dbeta] = *spans else { panic!("three vectors") };
                partials.finish_reduce(cuda, inverse_std, [dgamma, dbeta]).unwrap();
            });
        let sum = |from: &[f64], c: usize| from.iter().skip(c).step_by(CHANNELS).sum::<f64>();
        let (first, second) = partial.split_at(chunks * CHANNELS);
        let dgamma: Vec<f64> = (0..CHANNELS).map(|c| sum(second, c) * inverse_std[c]).collect();
        let dbeta: Vec<f64> = (0..CHANNELS).map(|c| sum(first, c)).collect();
        assert_close("dgamma", &found[1], &dgamma);
        assert_close("dbeta", &found[2], &dbeta);
    }
}
