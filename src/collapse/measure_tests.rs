//! Tests of NC1..NC5: against plain loops over the definitions, and against what a collapsed network must give.

use super::*;
use crate::features::Matrix;
use crate::rng::{Purpose, Stream};

/// Class clusters around random directions, `counts[c]` samples of class c, rows interleaved by class.
struct Clusters {
    dimension: usize,
    counts: Vec<usize>,
    noise: f64,
    offset: f64,
}

impl Clusters {
    fn samples(&self, seed: u64) -> (Vec<f32>, Vec<i64>) {
        let directions = Stream::for_purpose(seed, Purpose::Synthetic, &[1]);
        let noise = Stream::for_purpose(seed, Purpose::Synthetic, &[2]);
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        let longest = *self.counts.iter().max().unwrap();
        for i in 0..longest {
            for (class, _) in self.counts.iter().enumerate().filter(|(_, count)| i < **count) {
                for d in 0..self.dimension {
                    let mean = self.offset + directions.normal((class * self.dimension + d) as u64);
                    let index = features.len() as u64;
                    features.push((mean + self.noise * noise.normal(index)) as f32);
                }
                labels.push(class as i64);
            }
        }
        (features, labels)
    }

    fn subject(&self, seed: u64) -> Subject {
        let (features, labels) = self.samples(seed);
        let (ood, _) = Clusters { offset: self.offset + 0.3, ..*self.clone_shape() }.samples(seed + 100);
        let classes = self.counts.len();
        let weights = Stream::for_purpose(seed, Purpose::Synthetic, &[3]);
        let weight = (0..classes * self.dimension).map(|i| weights.normal(i as u64)).collect();
        let bias = (0..classes).map(|i| 0.1 * i as f64).collect();
        Subject {
            train: set("train", features.clone(), self.dimension, Some(labels.clone())),
            test: Some(set("test", features, self.dimension, Some(labels))),
            head: Head::new(weight, bias, self.dimension).unwrap(),
            ood: vec![("other".into(), set("ood", ood, self.dimension, None))],
            notes: Vec::new(),
        }
    }

    fn clone_shape(&self) -> Box<Clusters> {
        Box::new(Clusters { counts: self.counts.clone(), ..*self })
    }
}

fn set(name: &str, features: Vec<f32>, dimension: usize, labels: Option<Vec<i64>>) -> FeatureSet {
    let features = Matrix::from_f32(features, dimension, "features").unwrap();
    FeatureSet::from_parts(name, features, None, labels).unwrap()
}

fn shapes() -> Vec<Clusters> {
    let of = |dimension, counts: &[usize], noise, offset| Clusters {
        dimension,
        counts: counts.to_vec(),
        noise,
        offset,
    };
    vec![
        of(7, &[5, 9, 3], 0.5, 0.0),
        of(1, &[4, 6], 0.2, 1.0),
        of(3, &[4, 1, 7, 2, 5], 0.7, 0.5),
        of(33, &[6, 6, 6, 6], 0.3, 2.0),
    ]
}

/// Rows of a set as vectors of f64.
fn rows(set: &FeatureSet) -> Vec<Vec<f64>> {
    let mut values = Vec::new();
    set.features().read_f64(0..set.len(), &mut values);
    values.chunks(set.dimension()).map(<[f64]>::to_vec).collect()
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    (0..rows[0].len()).map(|d| rows.iter().map(|row| row[d]).sum::<f64>() / rows.len() as f64).collect()
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(x, y)| x - y).collect()
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    inner(a, b) / (inner(a, a) * inner(b, b)).sqrt()
}

/// Solves `a x = b` by Gauss-Jordan elimination with pivoting.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for k in 0..n {
        let pivot = (k..n).max_by(|&i, &j| a[i][k].abs().total_cmp(&a[j][k].abs())).unwrap();
        a.swap(k, pivot);
        b.swap(k, pivot);
        for i in (0..n).filter(|&i| i != k) {
            let factor = a[i][k] / a[k][k];
            let row = a[k].clone();
            a[i].iter_mut().zip(&row).for_each(|(x, y)| *x -= factor * y);
            b[i] -= factor * b[k];
        }
    }
    (0..n).map(|k| b[k] / a[k][k]).collect()
}

/// xᵀ Σ_B⁺ x for x in any direction, without eigenvectors: with M = [μ_c − μ_G] as rows, Σ_B = MᵀM/C, and for
/// C ≤ D and M of rank C−1 the pseudo-inverse is found by adding the null direction of M Mᵀ before solving.
fn pseudo_inverse_form(means: &[Vec<f64>], null: &[f64], x: &[f64]) -> f64 {
    let c = means.len();
    // Σ_B⁺ = C Mᵀ (M Mᵀ)⁺² M; y = (M Mᵀ)⁺ M x solves (M Mᵀ + n nᵀ) y = M x, since M x is orthogonal to n.
    let gram: Vec<Vec<f64>> =
        (0..c).map(|i| (0..c).map(|j| inner(&means[i], &means[j]) + null[i] * null[j]).collect()).collect();
    let y = solve(gram, means.iter().map(|m| inner(m, x)).collect());
    c as f64 * inner(&y, &y)
}

#[test]
fn every_metric_follows_its_definition() {
    for (case, clusters) in shapes().into_iter().enumerate() {
        let subject = clusters.subject(case as u64);
        let (c, d) = (clusters.counts.len(), clusters.dimension);
        let row = measure(&subject, &Options::default()).unwrap().row;
        let samples = rows(&subject.train);
        let labels = subject.train.labels().unwrap();
        let of_class = |class: usize| -> Vec<Vec<f64>> {
            samples.iter().zip(labels).filter(|(_, l)| **l == class as i64).map(|(s, _)| s.clone()).collect()
        };
        let means: Vec<Vec<f64>> = (0..c).map(|class| mean(&of_class(class))).collect();
        let origin = mean(&samples);
        let centred: Vec<Vec<f64>> = means.iter().map(|m| minus(m, &origin)).collect();
        let near = |got: f64, want: f64, what: &str| {
            assert!((got - want).abs() <= 1e-9 * (1.0 + want.abs()), "case {case} {what}: {got} {want}");
        };

        // NC1 where the class means are independent (C ≤ D + 1); its null direction is that of the counts.
        if c <= d {
            let null: Vec<f64> = clusters.counts.iter().map(|n| *n as f64).collect();
            let sum: f64 = samples
                .iter()
                .zip(labels)
                .map(|(s, l)| pseudo_inverse_form(&centred, &null, &minus(s, &means[*l as usize])))
                .sum();
            near(row.nc1, sum / samples.len() as f64 / c as f64, "nc1");
            assert_eq!(row.nc1_rank, c as u64 - 1);
        } else {
            assert_eq!(row.nc1_rank, d as u64);
        }
        let within: f64 = samples
            .iter()
            .zip(labels)
            .map(|(s, l)| minus(s, &means[*l as usize]))
            .map(|x| inner(&x, &x))
            .sum::<f64>()
            / samples.len() as f64;
        let between = centred.iter().map(|m| inner(m, m)).sum::<f64>() / c as f64;
        near(row.nc1_trace_ratio, within / between, "trace ratio");

        let variance = |class: usize| {
            let members = of_class(class);
            let spread = members.iter().map(|s| minus(s, &means[class])).map(|x| inner(&x, &x)).sum::<f64>();
            spread / members.len() as f64
        };
        let (mut cdnv, mut angle) = (0.0, 0.0);
        for i in 0..c {
            for j in (0..c).filter(|&j| j != i) {
                let between = minus(&means[i], &means[j]);
                cdnv += (variance(i) + variance(j)) / (2.0 * inner(&between, &between));
                angle += (cosine(&centred[i], &centred[j]) + 1.0 / (c as f64 - 1.0)).abs();
            }
        }
        let pairs = (c * (c - 1)) as f64;
        near(row.nc1_cdnv.unwrap(), cdnv / pairs, "cdnv");
        near(row.nc2_equiangular, angle / pairs, "equiangular");

        let weight: Vec<&[f64]> = subject.head.weight().chunks(d).collect();
        let one_minus = (0..c).map(|i| 1.0 - cosine(weight[i], &centred[i])).sum::<f64>() / c as f64;
        near(row.nc3_one_minus_cosine, one_minus, "1 - cos");
        let unit = |x: &[f64]| x.iter().map(|value| value / inner(x, x).sqrt()).collect::<Vec<f64>>();
        let apart = |i: usize| minus(&unit(weight[i]), &unit(&centred[i]));
        let distance = (0..c).map(apart).map(|x| inner(&x, &x).sqrt()).sum::<f64>() / c as f64;
        near(row.nc3, distance, "nc3");

        let decide = |score: &dyn Fn(usize) -> f64| {
            (0..c).fold(0, |best, i| if score(i) > score(best) { i } else { best })
        };
        let mut mismatches = 0.0;
        for s in &samples {
            let nearest = decide(&|i| -inner(&minus(s, &means[i]), &minus(s, &means[i])));
            let decided = decide(&|i| inner(weight[i], s) + subject.head.bias()[i]);
            mismatches += f64::from(u8::from(nearest != decided));
        }
        near(row.nc4, mismatches / samples.len() as f64, "nc4");
        assert_eq!((row.nc4_test, row.test_accuracy), (Some(row.nc4), Some(row.train_accuracy)));

        let ood = mean(&rows(&subject.ood[0].1));
        let direction = minus(&ood, &origin);
        let nc5 = centred.iter().map(|m| cosine(m, &direction).abs()).sum::<f64>() / c as f64;
        let raw = means.iter().map(|m| cosine(m, &ood).abs()).sum::<f64>() / c as f64;
        near(row.nc5.unwrap(), nc5, "nc5");
        near(row.nc5_uncentered_by_ood["other"], raw, "nc5 uncentred");
    }
}

#[test]
fn a_simplex_of_points_is_fully_collapsed() {
    // C = 4 corners in 4 dimensions, far from the origin, every sample exactly at its corner.
    let corner = |class: usize, d: usize| if class == d { 7.0 } else { 3.0 };
    let features: Vec<f32> = (0..40).flat_map(|i| (0..4).map(move |d| corner(i % 4, d))).collect();
    let labels: Vec<i64> = (0..40).map(|i| i % 4).collect();
    let weight: Vec<f64> = (0..16).map(|i| if i / 4 == i % 4 { 3.0 } else { -1.0 }).collect();
    let subject = Subject {
        train: set("train", features, 4, Some(labels)),
        test: None,
        head: Head::new(weight, vec![0.0; 4], 4).unwrap(),
        // The OOD mean lies straight above the global mean: orthogonal to the simplex.
        ood: vec![("above".into(), set("ood", vec![9.0; 8], 4, None))],
        notes: Vec::new(),
    };
    let row = measure(&subject, &Options::default()).unwrap().row;
    let zero =
        [row.nc1, row.nc2_equinorm, row.nc2_equiangular, row.nc2_etf_frobenius, row.nc3, row.nc3_frobenius];
    assert!(zero.iter().all(|value| value.abs() < 1e-7), "{row:?}");
    assert!(row.nc2_etf_frobenius_weights < 1e-7 && row.nc5.unwrap() < 1e-7);
    assert_eq!((row.nc4, row.train_accuracy, row.nc1_rank, row.nc1_cdnv), (0.0, 1.0, 3, Some(0.0)));
    // Uncentred, the same OOD mean looks anything but orthogonal.
    assert!(row.nc5_uncentered.unwrap() > 0.9);
}

#[test]
fn nc1_does_not_explode_when_features_sit_far_from_the_origin() {
    // Σ_B has rank C − 1; taking its rounding noise for a C-th direction multiplies NC1 by many orders of magnitude.
    let near = Clusters { dimension: 24, counts: vec![50; 6], noise: 0.05, offset: 0.0 };
    let far = Clusters { offset: 1000.0, ..*near.clone_shape() };
    let options = Options::default();
    let (near, far) =
        (measure(&near.subject(5), &options).unwrap(), measure(&far.subject(5), &options).unwrap());
    assert_eq!((near.row.nc1_rank, far.row.nc1_rank), (5, 5));
    // f32 features near 1000 carry a rounding error of 3e-5, against a noise of 0.05.
    assert!((far.row.nc1 / near.row.nc1 - 1.0).abs() < 1e-3, "{} {}", near.row.nc1, far.row.nc1);
}

#[test]
fn the_two_global_means_agree_only_for_balanced_classes() {
    let balanced = Clusters { dimension: 5, counts: vec![8; 3], noise: 0.4, offset: 0.0 }.subject(1);
    let skewed = Clusters { dimension: 5, counts: vec![20, 2, 5], noise: 0.4, offset: 0.0 }.subject(1);
    let nc2 = |subject: &Subject, global_mean| {
        let options = Options { global_mean, ..Options::default() };
        measure(subject, &options).unwrap().row.nc2_equinorm
    };
    let difference = |s: &Subject| nc2(s, GlobalMean::Samples) - nc2(s, GlobalMean::ClassMeans);
    assert!(difference(&balanced).abs() < 1e-12);
    assert!(difference(&skewed).abs() > 1e-3);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let subject = Clusters { dimension: 16, counts: vec![300, 2000, 50], noise: 0.5, offset: 0.1 }.subject(2);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| measure(&subject, &Options::default()).unwrap())
    };
    assert_eq!(with(1), with(3));
}

fn message(change: impl FnOnce(&mut Subject)) -> String {
    let mut subject = Clusters { dimension: 3, counts: vec![4, 4, 4], noise: 0.5, offset: 0.0 }.subject(3);
    change(&mut subject);
    measure(&subject, &Options::default()).unwrap_err().to_string()
}

#[test]
fn a_class_without_samples_is_named() {
    let text = message(|s| s.train = set("t", vec![1.0; 6], 3, Some(vec![0, 2])));
    assert!(text.contains("none of class 1"), "{text}");
}

#[test]
fn what_does_not_fit_together_is_refused_with_both_numbers() {
    let text = message(|s| s.ood[0].1 = set("far.npz", vec![1.0; 8], 4, None));
    assert!(text.contains("far.npz: expected 3 features per sample") && text.contains("found 4"), "{text}");
    let text = message(|s| s.head = Head::new(vec![1.0; 3], vec![0.0], 3).unwrap());
    assert!(text.contains("the head has 1 class"), "{text}");
    let text = message(|s| s.head = Head::new(vec![0.0; 9], vec![0.0; 3], 3).unwrap());
    assert!(text.contains("every weight of the head is zero"), "{text}");
    let text = message(|s| s.ood.push(s.ood[0].clone()));
    assert!(text.contains("two OOD sets are named `other`"), "{text}");
    let text = message(|s| s.ood[0].1 = set("none.npz", vec![], 3, None));
    assert!(text.contains("none.npz holds no samples"), "{text}");
    let text = message(|s| s.train = set("t", vec![1.0; 9], 3, Some(vec![0, 1, 2])));
    assert!(text.contains("class means coincide"), "{text}");
}
