//! Mahalanobis scores: class-conditional Gaussians with one tied covariance, and one background Gaussian.
//!
//! With `A Aᵀ = pinv(Σ)` the distance `(h - μ)ᵀ pinv(Σ) (h - μ)` is `|hA - μA|²`: features are whitened once by a
//! product, then compared with the whitened class means by another.

use super::compute::Projector;
use super::method::Method;
use super::rows::Rows;
use super::saved::{Reader, Writer};
use super::table::FitSummary;
use crate::error::Result;
use crate::features::Moments;
use crate::linalg::{PseudoInverseFactor, View, matmul, squared_distance, squared_norm};

/// A whitening map `h -> (h - origin) A` onto `rank` coordinates.
#[derive(Debug, Clone, PartialEq)]
struct Whitening {
    origin: Vec<f64>,
    /// Row-major, D x rank.
    factor: Vec<f64>,
    rank: usize,
}

impl Whitening {
    fn fit(covariance: &[f64], origin: Vec<f64>) -> Result<(Whitening, FitSummary)> {
        let dimension = origin.len();
        let pinv = PseudoInverseFactor::new(covariance, dimension, dimension)?;
        let condition = pinv.condition();
        let summary = FitSummary {
            rank: Some(pinv.rank),
            condition: condition.is_finite().then_some(condition),
            ..FitSummary::default()
        };
        Ok((Whitening { origin, rank: pinv.rank, factor: pinv.factor }, summary))
    }

    /// Whitens `count` rows: row-major, count x rank.
    fn apply(&self, features: &[f64], count: usize) -> Vec<f64> {
        let dimension = self.origin.len();
        let mut centred = features.to_vec();
        for row in centred.chunks_exact_mut(dimension) {
            row.iter_mut().zip(&self.origin).for_each(|(x, origin)| *x -= origin);
        }
        let mut whitened = vec![0.0; count * self.rank];
        let factor = View::new(&self.factor, dimension, self.rank);
        matmul(View::new(&centred, count, dimension), factor, &mut whitened);
        whitened
    }

    /// The map as devices apply it.
    fn projector(&self) -> Projector<'_> {
        Projector { shift: Some(&self.origin), divisor: None, basis: &self.factor, outputs: self.rank }
    }

    fn save(&self, name: &str, out: &mut Writer) {
        out.put(&format!("{name}.origin"), &[self.origin.len()], &self.origin);
        out.put(&format!("{name}.whitening"), &[self.origin.len(), self.rank], &self.factor);
    }

    fn load(name: &str, dimension: usize, file: &Reader) -> Result<Whitening> {
        let origin = file.get(&format!("{name}.origin"), &[Some(dimension)])?.1;
        let (shape, factor) = file.get(&format!("{name}.whitening"), &[Some(dimension), None])?;
        Ok(Whitening { origin, factor, rank: shape[1] })
    }
}

/// The fitted Gaussians.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gaussians {
    tied: Whitening,
    /// Whitened class means, row-major, C x rank.
    means: Vec<f64>,
    /// For `rmds` only.
    background: Option<Whitening>,
}

impl Gaussians {
    /// Fits the tied covariance Σ (h - μ_y)(h - μ_y)ᵀ / N and, where `rmds` is wanted, the covariance about the
    /// global mean.
    pub fn fit(moments: &Moments, rmds: bool) -> Result<(Gaussians, Vec<(Method, FitSummary)>)> {
        let samples = moments.samples() as f64;
        let per_sample = |mut scatter: Vec<f64>| {
            scatter.iter_mut().for_each(|x| *x /= samples);
            scatter
        };
        let centre = moments.global_mean();
        let (tied, summary) = Whitening::fit(&per_sample(moments.within_scatter()), centre.clone())?;
        let means = tied.apply(moments.means(), moments.classes());
        let mut summaries = vec![(Method::Mahalanobis, summary)];
        let background = if rmds {
            let (whitening, summary) = Whitening::fit(&per_sample(moments.global_scatter()), centre)?;
            summaries.push((Method::Rmds, summary));
            Some(whitening)
        } else {
            None
        };
        Ok((Gaussians { tied, means, background }, summaries))
    }

    /// Squared distance of each sample to the nearest class mean.
    fn nearest(&self, rows: &Rows) -> Vec<f64> {
        let rank = self.tied.rank;
        let classes = rows.classes;
        let whitened = self.tied.apply(&rows.features, rows.count);
        let means = View::new(&self.means, classes, rank);
        let mut products = vec![0.0; rows.count * classes];
        matmul(View::new(&whitened, rows.count, rank), means.transposed(), &mut products);
        if rank == 0 {
            return vec![0.0; rows.count];
        }
        let squares: Vec<f64> = self.means.chunks_exact(rank).map(squared_norm).collect();
        whitened
            .chunks_exact(rank)
            .zip(products.chunks_exact(classes))
            .map(|(sample, products)| {
                // |z - m|² = |z|² - 2zm + |m|² finds the class; its distance is taken again by differences, so
                // that no digit is lost to cancellation.
                let mut best = (0, f64::INFINITY);
                for (class, (product, square)) in products.iter().zip(&squares).enumerate() {
                    let relative = square - 2.0 * product;
                    if relative < best.1 {
                        best = (class, relative);
                    }
                }
                squared_distance(sample, &self.means[best.0 * rank..(best.0 + 1) * rank])
            })
            .collect()
    }

    /// `mahalanobis` and, if fitted, `rmds` of each sample.
    pub fn score(&self, rows: &Rows) -> Vec<(Method, Vec<f64>)> {
        let background = self.background.as_ref().map(|background| {
            let whitened = background.apply(&rows.features, rows.count);
            (0..rows.count)
                .map(|row| squared_norm(&whitened[row * background.rank..(row + 1) * background.rank]))
                .collect()
        });
        Gaussians::combine(self.nearest(rows), background)
    }

    /// The scores from squared distances to the nearest class mean and, for `rmds`, to the background's mean.
    pub fn combine(nearest: Vec<f64>, background: Option<Vec<f64>>) -> Vec<(Method, Vec<f64>)> {
        let mut scores = Vec::new();
        if let Some(background) = background {
            let relative = background.iter().zip(&nearest).map(|(background, nearest)| background - nearest);
            scores.push((Method::Rmds, relative.collect()));
        }
        scores.push((Method::Mahalanobis, nearest.into_iter().map(|distance| -distance).collect()));
        scores
    }

    /// The class Gaussians' whitening, and the whitened class means, row-major.
    pub fn tied(&self) -> (Projector<'_>, &[f64]) {
        (self.tied.projector(), &self.means)
    }

    /// The background's whitening, where `rmds` was fitted.
    pub fn background(&self) -> Option<Projector<'_>> {
        self.background.as_ref().map(Whitening::projector)
    }

    pub fn save(&self, out: &mut Writer) {
        self.tied.save("mahalanobis", out);
        let classes = self.means.len().checked_div(self.tied.rank).unwrap_or(0);
        out.put("mahalanobis.means", &[classes, self.tied.rank], &self.means);
        if let Some(background) = &self.background {
            background.save("rmds", out);
        }
    }

    pub fn load(file: &Reader, dimension: usize, classes: usize, rmds: bool) -> Result<Gaussians> {
        let tied = Whitening::load("mahalanobis", dimension, file)?;
        let rows = if tied.rank == 0 { 0 } else { classes };
        let means = file.get("mahalanobis.means", &[Some(rows), Some(tied.rank)])?.1;
        let background = if rmds { Some(Whitening::load("rmds", dimension, file)?) } else { None };
        Ok(Gaussians { tied, means, background })
    }
}
