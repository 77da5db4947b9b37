//! The geometry of class means and classifier rows: norms, angles, alignment, distance to a simplex.
//!
//! Matrices are row-major, a row per class. Rows are normalised with 1e-12 added to their norm, so that a class mean
//! that coincides with the global mean counts as orthogonal to everything instead of poisoning an average.

use serde::{Deserialize, Serialize};

use crate::linalg::{self, View};

const EPSILON: f64 = 1e-12;

/// A row per class, with norms and unit vectors.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub classes: usize,
    pub dimension: usize,
    pub values: Vec<f64>,
    pub norms: Vec<f64>,
    pub units: Vec<f64>,
}

/// NC2: how far vectors are from equal lengths and equal angles. All zero for a centred simplex of C corners.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SimplexDistance {
    /// Standard deviation of the lengths (dividing by C) over their mean.
    pub equinorm: f64,
    /// The same, dividing by C − 1 (the code of Papyan, Han, Donoho, 2020).
    pub equinorm_ddof1: f64,
    /// Mean over pairs of |cosine + 1/(C−1)|.
    pub equiangular: f64,
    /// Mean of the cosines over pairs; −1/(C−1) for a simplex.
    pub cosine_mean: f64,
    /// Standard deviation of the cosines over pairs.
    pub cosine_std: f64,
    /// ‖A Aᵀ/‖A Aᵀ‖ − (I − 11ᵀ/C)/√(C−1)‖, Frobenius norms (Zhu et al., 2021).
    pub etf_frobenius: f64,
}

/// NC3: how far classifier rows w and centred class means m are from being parallel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Alignment {
    /// Mean over classes of ‖w/‖w‖ − m/‖m‖‖, 0..=2.
    pub distance: f64,
    /// ‖W/‖W‖ − M/‖M‖‖, Frobenius norms, 0..=2.
    pub frobenius: f64,
    /// Mean over classes of 1 − cos(w, m), 0..=2.
    pub one_minus_cosine: f64,
}

impl Rows {
    pub fn new(values: Vec<f64>, dimension: usize) -> Rows {
        let norms: Vec<f64> =
            values.chunks_exact(dimension).map(|row| linalg::squared_norm(row).sqrt()).collect();
        let units = values
            .chunks_exact(dimension)
            .zip(&norms)
            .flat_map(|(row, norm)| row.iter().map(move |value| value / (norm + EPSILON)))
            .collect();
        Rows { classes: norms.len(), dimension, values, norms, units }
    }

    /// Each row less `origin`.
    pub fn centred(values: &[f64], origin: &[f64]) -> Rows {
        let centred = values
            .chunks_exact(origin.len())
            .flat_map(|row| row.iter().zip(origin).map(|(value, origin)| value - origin))
            .collect();
        Rows::new(centred, origin.len())
    }

    /// Cosines between all rows, C x C.
    pub fn cosines(&self) -> Vec<f64> {
        products(&self.units, self.classes, self.dimension)
    }

    pub fn simplex_distance(&self, cosines: &[f64]) -> SimplexDistance {
        let classes = self.classes as f64;
        let length = mean(self.norms.iter().copied());
        let variance = mean(self.norms.iter().map(|norm| (norm - length).powi(2)));
        let pairs = || {
            cosines
                .iter()
                .enumerate()
                .filter(|(i, _)| i / self.classes != i % self.classes)
                .map(|(_, cos)| *cos)
        };
        let ideal = -1.0 / (classes - 1.0);
        let cosine_mean = mean(pairs());
        SimplexDistance {
            equinorm: variance.sqrt() / length,
            equinorm_ddof1: (variance * classes / (classes - 1.0)).sqrt() / length,
            equiangular: mean(pairs().map(|cos| (cos - ideal).abs())),
            cosine_mean,
            cosine_std: mean(pairs().map(|cos| (cos - cosine_mean).powi(2))).sqrt(),
            etf_frobenius: self.etf_frobenius(),
        }
    }

    fn etf_frobenius(&self) -> f64 {
        let gram = products(&self.values, self.classes, self.dimension);
        let norm = linalg::squared_norm(&gram).sqrt();
        let classes = self.classes as f64;
        let difference = gram.iter().enumerate().map(|(i, value)| {
            let diagonal = if i / self.classes == i % self.classes { 1.0 } else { 0.0 };
            value / norm - (diagonal - 1.0 / classes) / (classes - 1.0).sqrt()
        });
        difference.map(|d| d * d).sum::<f64>().sqrt()
    }

    /// NC3 of classifier rows (`self`) and centred class means.
    pub fn alignment(&self, means: &Rows) -> Alignment {
        let pairs = || self.units.chunks_exact(self.dimension).zip(means.units.chunks_exact(self.dimension));
        let whole = |rows: &Rows| linalg::squared_norm(&rows.norms).sqrt();
        let (norm, means_norm) = (whole(self), whole(means));
        let frobenius = self
            .values
            .iter()
            .zip(&means.values)
            .map(|(w, m)| (w / norm - m / means_norm).powi(2))
            .sum::<f64>()
            .sqrt();
        Alignment {
            distance: mean(pairs().map(|(w, m)| linalg::squared_distance(w, m).sqrt())),
            frobenius,
            one_minus_cosine: mean(pairs().map(|(w, m)| 1.0 - linalg::dot(w, m))),
        }
    }

    /// NC5: mean over classes of |cos(row, direction)|.
    pub fn mean_absolute_cosine(&self, direction: &[f64]) -> f64 {
        let norm = linalg::squared_norm(direction).sqrt() + EPSILON;
        mean(self.units.chunks_exact(self.dimension).map(|unit| linalg::dot(unit, direction).abs() / norm))
    }

    /// Class-distance normalised variance: mean over pairs of (v_c + v_c') / (2 ‖μ_c − μ_c'‖²), where v_c is the mean
    /// squared distance of class c's samples to their mean (Galanti, György, Hutter, 2022). `None` where two class
    /// means coincide.
    pub fn class_distance_normalised_variance(&self, variances: &[f64]) -> Option<f64> {
        let rows: Vec<&[f64]> = self.values.chunks_exact(self.dimension).collect();
        let mut sum = 0.0;
        for (i, a) in rows.iter().enumerate() {
            for (j, b) in rows.iter().enumerate().skip(i + 1) {
                sum += (variances[i] + variances[j]) / (2.0 * linalg::squared_distance(a, b));
            }
        }
        let pairs = self.classes * (self.classes - 1) / 2;
        Some(sum / pairs as f64).filter(|value| value.is_finite())
    }
}

/// `A Aᵀ` of a row-major matrix.
pub(super) fn products(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    let mut out = vec![0.0; rows * rows];
    let a = View::new(values, rows, columns);
    linalg::matmul(a, a.transposed(), &mut out);
    out
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C corners of a centred simplex in C dimensions, of a given length.
    fn simplex(classes: usize, length: f64) -> Rows {
        let c = classes as f64;
        let scale = length / (1.0 - 1.0 / c).sqrt();
        let corner = |i: usize| scale * (f64::from(u8::from(i / classes == i % classes)) - 1.0 / c);
        Rows::new((0..classes * classes).map(corner).collect(), classes)
    }

    #[test]
    fn a_simplex_has_no_distance_to_a_simplex() {
        for classes in [2, 3, 7, 20] {
            let rows = simplex(classes, 3.5);
            let cosines = rows.cosines();
            let nc2 = rows.simplex_distance(&cosines);
            for value in
                [nc2.equinorm, nc2.equinorm_ddof1, nc2.equiangular, nc2.cosine_std, nc2.etf_frobenius]
            {
                assert!(value.abs() < 1e-7, "{classes}: {nc2:?}");
            }
            assert!((nc2.cosine_mean + 1.0 / (classes as f64 - 1.0)).abs() < 1e-12);
        }
    }

    #[test]
    fn equinorm_measures_the_spread_of_lengths() {
        let rows = Rows::new(vec![1.0, 0.0, 0.0, 2.0, -3.0, 0.0], 2);
        let nc2 = rows.simplex_distance(&rows.cosines());
        // Lengths 1, 2, 3: population deviation √(2/3), sample deviation 1, mean 2.
        assert!((nc2.equinorm - (2.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-12);
        assert!((nc2.equinorm_ddof1 - 0.5).abs() < 1e-12);
        // Cosines 0, -1, 0 against the ideal -1/2.
        assert!((nc2.equiangular - 0.5).abs() < 1e-9);
        assert!((nc2.cosine_std - (2.0f64 / 9.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn alignment_is_zero_for_parallel_rows_and_two_for_opposite_ones() {
        let means = simplex(4, 2.0);
        let scaled = |factor: f64| Rows::new(means.values.iter().map(|value| value * factor).collect(), 4);
        let same = scaled(0.1).alignment(&means);
        assert!(same.distance < 1e-11 && same.frobenius < 1e-12 && same.one_minus_cosine.abs() < 1e-11);
        let opposite = scaled(-7.0).alignment(&means);
        for value in [opposite.distance, opposite.frobenius, opposite.one_minus_cosine] {
            assert!((value - 2.0).abs() < 1e-11, "{opposite:?}");
        }
    }

    #[test]
    fn a_mean_at_the_origin_does_not_poison_the_averages() {
        let rows = Rows::new(vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0], 2);
        let nc2 = rows.simplex_distance(&rows.cosines());
        assert!(nc2.equiangular.is_finite() && nc2.cosine_mean == 0.0);
        assert!((rows.mean_absolute_cosine(&[1.0, 0.0]) - 1.0 / 3.0).abs() < 1e-11);
        assert_eq!(rows.mean_absolute_cosine(&[0.0, 0.0]), 0.0);
    }

    #[test]
    fn coinciding_means_have_no_normalised_variance() {
        let apart = Rows::new(vec![0.0, 0.0, 3.0, 4.0], 2);
        assert_eq!(apart.class_distance_normalised_variance(&[10.0, 40.0]), Some(1.0));
        let same = Rows::new(vec![1.0, 2.0, 1.0, 2.0], 2);
        assert_eq!(same.class_distance_normalised_variance(&[1.0, 1.0]), None);
        assert_eq!(same.class_distance_normalised_variance(&[0.0, 0.0]), None);
    }
}
