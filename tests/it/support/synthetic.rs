//! Synthetic cases with known answers: drawn here and by `tests/fixtures/reference/make_expected.py` from the same
//! counter-based generator, so that only the expected numbers are stored.

use residua::features::{FeatureSet, Head, Matrix};
use residua::rng::Stream;

/// Clusters like those of a trained classifier, ID test samples around them, OOD samples between them.
pub struct Case {
    pub name: &'static str,
    pub classes: usize,
    pub dimension: usize,
    pub train: Samples,
    pub id: Samples,
    pub ood: Samples,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Features (N, D) and logits (N, C), row-major.
pub struct Samples {
    pub features: Vec<f32>,
    pub logits: Vec<f32>,
    pub labels: Vec<i64>,
}

#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    seed: u64,
    classes: usize,
    dimension: usize,
    per_class: usize,
    n_id: usize,
    n_ood: usize,
    noise: f64,
    separation: f64,
    rectified: bool,
    ood_mix: f64,
    imbalance: f64,
    test_noise: f64,
}

const USUAL: Shape = Shape {
    name: "small",
    seed: 1,
    classes: 10,
    dimension: 64,
    per_class: 40,
    n_id: 400,
    n_ood: 300,
    noise: 0.35,
    separation: 3.0,
    rectified: true,
    ood_mix: 0.35,
    imbalance: 0.0,
    test_noise: 1.6,
};

#[rustfmt::skip]
const SHAPES: [Shape; 9] = [
    USUAL,
    Shape { name: "tiny", seed: 7, classes: 5, dimension: 16, per_class: 20, n_id: 80, n_ood: 60, ..USUAL },
    Shape { name: "more_classes_than_dim", seed: 3, classes: 24, dimension: 16, per_class: 15, n_id: 200, n_ood: 150, noise: 0.2, ..USUAL },
    Shape { name: "imbalanced", seed: 5, classes: 8, dimension: 32, per_class: 60, n_id: 200, n_ood: 200, imbalance: 0.35, ..USUAL },
    Shape { name: "rank_deficient", seed: 9, classes: 6, dimension: 96, per_class: 12, n_id: 120, n_ood: 120, ..USUAL },
    Shape { name: "collapsed", seed: 11, dimension: 48, per_class: 30, n_id: 300, n_ood: 300, noise: 0.01, test_noise: 30.0, ..USUAL },
    Shape { name: "gauss", seed: 13, classes: 20, per_class: 30, n_id: 500, n_ood: 500, rectified: false, ..USUAL },
    Shape { name: "saturated", seed: 15, dimension: 40, per_class: 30, n_id: 300, n_ood: 300, separation: 75.0, noise: 5.0, ood_mix: 0.7, ..USUAL },
    Shape { name: "c100_d512", seed: 17, classes: 100, dimension: 512, per_class: 20, n_id: 600, n_ood: 500, ..USUAL },
];

/// All cases, one after the other.
pub fn cases() -> impl Iterator<Item = Case> {
    SHAPES.iter().map(Shape::draw)
}

/// The smallest case.
pub fn tiny() -> Case {
    SHAPES[1].draw()
}

/// The numbers expected of a case.
pub fn expected(case: &Case) -> serde_json::Value {
    let all: serde_json::Value =
        serde_json::from_str(include_str!("../../fixtures/reference/expected.json")).unwrap();
    all[case.name].clone()
}

impl Case {
    pub fn set(&self, samples: &Samples) -> FeatureSet {
        let features = Matrix::from_f32(samples.features.clone(), self.dimension, "features").unwrap();
        let logits = Matrix::from_f32(samples.logits.clone(), self.classes, "logits").unwrap();
        FeatureSet::from_parts(self.name, features, Some(logits), Some(samples.labels.clone())).unwrap()
    }

    pub fn head(&self) -> Head {
        let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect();
        Head::new(wide(&self.weight), wide(&self.bias), self.dimension).unwrap()
    }
}

impl Shape {
    fn uniform(&self, stream: u64, count: usize) -> Vec<f64> {
        let stream = Stream::new(self.seed, &[stream]);
        (0..count as u64).map(|i| stream.uniform(i)).collect()
    }

    fn normal(&self, stream: u64, count: usize) -> Vec<f64> {
        let stream = Stream::new(self.seed, &[stream]);
        (0..count as u64).map(|i| stream.normal(i)).collect()
    }

    /// Centre plus noise, rectified, rounded to f32; `centre(i)` is that of row i.
    fn noisy<'a>(
        &self,
        rows: usize,
        stream: u64,
        spread: f64,
        centre: impl Fn(usize) -> &'a [f64],
    ) -> Vec<f32> {
        let d = self.dimension;
        let noise = self.normal(stream, rows * d);
        let value = |i: usize| centre(i / d)[i % d] + spread * noise[i];
        (0..rows * d).map(|i| if self.rectified { value(i).max(0.0) } else { value(i) } as f32).collect()
    }

    fn train_labels(&self) -> Vec<i64> {
        let count = |class: usize| {
            let share = (1.0 - self.imbalance).powi(class as i32);
            ((self.per_class as f64 * share).round() as usize).max(2)
        };
        let sorted: Vec<i64> =
            (0..self.classes).flat_map(|class| std::iter::repeat_n(class as i64, count(class))).collect();
        let keys = self.uniform(3, sorted.len());
        let mut order: Vec<usize> = (0..sorted.len()).collect();
        order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
        order.into_iter().map(|i| sorted[i]).collect()
    }

    /// Weights along the centred class directions, with some noise.
    fn weight(&self, means: &[f64]) -> Vec<f32> {
        let (c, d) = (self.classes, self.dimension);
        let column_mean = |j: usize| (0..c).map(|i| means[i * d + j]).sum::<f64>() / c as f64;
        let origin: Vec<f64> = (0..d).map(column_mean).collect();
        let noise = self.normal(10, c * d);
        let mut weight = Vec::new();
        for (i, row) in means.chunks(d).enumerate() {
            let centred: Vec<f64> = row.iter().zip(&origin).map(|(a, b)| a - b).collect();
            let norm = centred.iter().map(|x| x * x).sum::<f64>().sqrt();
            let value = |j: usize| 1.5 * (centred[j] / norm + 0.3 * noise[i * d + j] / (d as f64).sqrt());
            weight.extend((0..d).map(|j| value(j) as f32));
        }
        weight
    }

    fn draw(&self) -> Case {
        let (c, d) = (self.classes, self.dimension);
        let base: Vec<f64> = self.normal(2, d).iter().map(|x| 0.5 * x.abs()).collect();
        let mut means = self.normal(1, c * d);
        for row in means.chunks_mut(d) {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter_mut().zip(&base).for_each(|(x, base)| *x = self.separation * (*x / norm) + base);
        }
        let mean = |label: i64| &means[label as usize * d..(label as usize + 1) * d];
        let labels = self.train_labels();
        let id_labels: Vec<i64> = self.uniform(5, self.n_id).iter().map(|u| (u * c as f64) as i64).collect();
        let spread = self.noise * self.test_noise;
        let centres = self.ood_centres(&base, &means);
        let train = self.noisy(labels.len(), 4, self.noise, |i| mean(labels[i]));
        let id = self.noisy(self.n_id, 6, spread, |i| mean(id_labels[i]));
        let ood = self.noisy(self.n_ood, 9, 1.2 * spread, |i| &centres[i * d..(i + 1) * d]);
        let weight = self.weight(&means);
        let bias: Vec<f32> = self.normal(11, c).iter().map(|x| (0.1 * x) as f32).collect();
        let samples = |features: Vec<f32>, labels: Vec<i64>| {
            let logits = logits(&features, &weight, &bias);
            Samples { features, logits, labels }
        };
        let (train, id) = (samples(train, labels), samples(id, id_labels));
        let ood = samples(ood, vec![-1; self.n_ood]);
        Case { name: self.name, classes: c, dimension: d, train, id, ood, weight, bias }
    }

    /// Between the origin of the clusters and random mixtures of the class means, all moved by one offset.
    fn ood_centres(&self, base: &[f64], means: &[f64]) -> Vec<f64> {
        let (c, d) = (self.classes, self.dimension);
        let offset = self.normal(8, d);
        let mut centres = Vec::with_capacity(self.n_ood * d);
        for share in self.uniform(7, self.n_ood * c).chunks(c) {
            let share: Vec<f64> = share.iter().map(|u| u.powi(4)).collect();
            let total: f64 = share.iter().sum();
            for j in 0..d {
                let mixture: f64 = (0..c).map(|i| share[i] / total * means[i * d + j]).sum();
                centres.push((1.0 - self.ood_mix) * base[j] + self.ood_mix * mixture + 0.25 * offset[j]);
            }
        }
        centres
    }
}

fn logits(features: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let dimension = weight.len() / bias.len();
    let mut out = Vec::new();
    for row in features.chunks(dimension) {
        for (weight, bias) in weight.chunks(dimension).zip(bias) {
            let sum: f64 = row.iter().zip(weight).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            out.push((sum + f64::from(*bias)) as f32);
        }
    }
    out
}
