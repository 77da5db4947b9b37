//! Mahalanobis scores of 100,000 samples, D = 512, C = 100: whitening and products against a loop over samples.
//!
//! The loop is the one notebooks write: for every sample the C x D differences to the class means, times the precision
//! matrix, times the differences again, of which only the diagonal is used. It is timed on `SUBSET` samples; its
//! figures are per sample (criterion's throughput), to be compared per sample with those of the whole set.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use residua::features::{FeatureSet, Head, Matrix, Moments};
use residua::linalg::{PseudoInverseFactor, View, matmul};
use residua::ood::{Detectors, Method, Options};
use residua::rng::{Purpose, Stream};

const SAMPLES: usize = 100_000;
const SUBSET: usize = 100;
const TRAIN: usize = 5_000;
const D: usize = 512;
const C: usize = 100;

fn clustered(samples: usize, seed: u64) -> FeatureSet {
    let noise = Stream::for_purpose(seed, Purpose::Synthetic, &[]);
    let centres = Stream::for_purpose(7, Purpose::Synthetic, &[]);
    let mut values = Vec::with_capacity(samples * D);
    for i in 0..samples {
        let class = i % C;
        // Uniform noise: a hundred thousand samples of Box-Muller would take longer than the benchmark.
        values.extend((0..D).map(|j| {
            (centres.uniform((class * D + j) as u64) * 3.0 + noise.uniform((i * D + j) as u64)) as f32
        }));
    }
    let labels = (0..samples).map(|i| (i % C) as i64).collect();
    let features = Matrix::from_f32(values, D, "features").expect("finite");
    FeatureSet::from_parts("synthetic", features, None, Some(labels)).expect("as many labels as rows")
}

/// The loop over samples.
fn one_by_one(features: &[f64], means: &[f64], precision: &[f64]) -> Vec<f64> {
    let (mut differences, mut left, mut squares) = (vec![0.0; C * D], vec![0.0; C * D], vec![0.0; C * C]);
    features
        .chunks_exact(D)
        .map(|sample| {
            for (row, mean) in differences.chunks_exact_mut(D).zip(means.chunks_exact(D)) {
                row.iter_mut().zip(mean.iter().zip(sample)).for_each(|(d, (m, x))| *d = m - x);
            }
            matmul(View::new(&differences, C, D), View::new(precision, D, D), &mut left);
            matmul(View::new(&left, C, D), View::new(&differences, C, D).transposed(), &mut squares);
            -(0..C).map(|c| squares[c * C + c]).fold(f64::INFINITY, f64::min)
        })
        .collect()
}

fn mahalanobis(criterion: &mut Criterion) {
    let (train, test) = (clustered(TRAIN, 1), clustered(SAMPLES, 2));
    let head = Head::new(vec![0.0; C * D], vec![0.0; C], D).expect("C x D weights");
    let options = Options::of(&[Method::Mahalanobis]);
    let detectors = Detectors::fit(&train, &head, &options).expect("every class has samples");
    let moments = Moments::accumulate(train.features(), &train.training_labels(C).expect("labels"), C);
    let covariance: Vec<f64> = moments.within_scatter().iter().map(|x| x / TRAIN as f64).collect();
    let factor = PseudoInverseFactor::new(&covariance, D, D).expect("finite");
    let view = View::new(&factor.factor, D, factor.rank);
    let mut precision = vec![0.0; D * D];
    matmul(view, view.transposed(), &mut precision);
    let mut features = Vec::new();
    test.features().read_f64(0..SUBSET, &mut features);

    // Both must compute the same before their times mean anything.
    let fast = detectors.score(&test).expect("finite scores");
    let slow = one_by_one(&features, moments.means(), &precision);
    for (fast, slow) in fast["mahalanobis"].iter().zip(&slow) {
        assert!((fast - slow).abs() <= 1e-6 * slow.abs(), "{fast} against {slow}");
    }

    let mut group = criterion.benchmark_group("mahalanobis");
    group.sample_size(10);
    group.throughput(Throughput::Elements(SAMPLES as u64));
    group.bench_function("whitened, 100000 samples", |b| {
        b.iter(|| detectors.score(&test).expect("finite scores"))
    });
    group.throughput(Throughput::Elements(SUBSET as u64));
    group.bench_function("loop over samples, 100 of them", |b| {
        b.iter(|| one_by_one(&features, moments.means(), &precision));
    });
    group.finish();
}

criterion_group!(benches, mahalanobis);
criterion_main!(benches);
