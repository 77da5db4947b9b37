//! Mahalanobis scores: class-conditional Gaussians with one tied covariance, and one background Gaussian.
//!
//! With `A Aᵀ = pinv(Σ)` the distance `(h - μ)ᵀ pinv(Σ) (h - μ)` is `|hA - μA|²`: features are whitened once by a
//! product, then compared with the whitened class means by another.

use std::sync::Arc;

use crate::error::Result;
use crate::features::{Head, Moments};
use crate::linalg::{PseudoInverseFactor, View, matmul, squared_distance, squared_norm};
use crate::ood::compute::{BlockScores, Projector};
use crate::ood::device::{FromNumbers, Steps};
use crate::ood::family::{Family, Fits, Fitted, named};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::Wanted;
use crate::ood::rows::Rows;
use crate::ood::saved::{Reader, Writer};
use crate::ood::table::FitSummary;
use crate::ood::training::Training;

/// The family.
pub(super) struct GaussianFamily;

const fn gaussian(method: Method, explanation: &'static str) -> About {
    About { method, explanation, needs: Needs::LABELS, cost: Cost::Square, parameters: &[] }
}

const MEMBERS: &[About] = &[
    gaussian(
        Method::Mahalanobis,
        "Score: minus the squared Mahalanobis distance to the nearest class mean, with one covariance for all classes (Lee et al., \
         2018).",
    ),
    gaussian(
        Method::Rmds,
        "Score: relative Mahalanobis distance, that to the nearest class less that to one Gaussian of all training features (Ren et \
         al., 2021).",
    ),
    gaussian(Method::MdsPp, "Score: mahalanobis of features divided by their norm (Mueller and Hein, 2025)."),
    gaussian(Method::RmdsPp, "Score: rmds of features divided by their norm (Mueller and Hein, 2025)."),
    gaussian(
        Method::Ssd,
        "Score: minus the squared Mahalanobis distance of normalised, standardised features to one Gaussian (Sehwag et al., 2021).",
    ),
];

/// The scores of raw features and of normalised ones: the distance to the nearest class, and the relative one.
const PAIRS: [(Method, Method); 2] = [(Method::Mahalanobis, Method::Rmds), (Method::MdsPp, Method::RmdsPp)];

impl Family for GaussianFamily {
    fn members(&self) -> &'static [About] {
        MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        let mut fits = Fits::new();
        for pair in PAIRS {
            let names = Names::of(pair, wanted);
            if names.is_none() {
                continue;
            }
            let normalised = pair.0 == Method::MdsPp;
            let moments = if normalised { training.normalised_moments()? } else { training.moments()? };
            let (gaussians, [own, background]) = Gaussians::fit(moments, names, normalised)?;
            if let Some(name) = &gaussians.names.nearest {
                training.summarise(name, own);
            }
            if let (Some(name), Some(background)) =
                (&gaussians.names.relative, background.rank.map(|_| background))
            {
                training.summarise(name, background);
            }
            fits.push(Arc::new(gaussians));
        }
        for Wanted { name, .. } in named(wanted, Method::Ssd) {
            fits.push(Arc::new(Ssd::fit(name, training)?));
        }
        Ok(fits)
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        let (d, classes) = (head.dimension(), head.classes());
        let mut fits = Fits::new();
        for pair in PAIRS {
            let names = Names::of(pair, wanted);
            if !names.is_none() {
                fits.push(Arc::new(Gaussians::load(file, pair, names, d, classes)?));
            }
        }
        for Wanted { name, .. } in named(wanted, Method::Ssd) {
            let divisor = file.get(&format!("{name}.divisor"), &[Some(d)])?.1;
            fits.push(Arc::new(Ssd { whitening: Whitening::load(&name, d, file)?, name, divisor }));
        }
        Ok(fits)
    }
}

/// The names of a pair of scores, where they are wanted.
#[derive(Debug, Clone, Default)]
struct Names {
    nearest: Option<String>,
    relative: Option<String>,
}

impl Names {
    fn of((nearest, relative): (Method, Method), wanted: &[Wanted]) -> Names {
        let name = |method| named(wanted, method).into_iter().next().map(|wanted| wanted.name);
        Names { nearest: name(nearest), relative: name(relative) }
    }

    fn is_none(&self) -> bool {
        self.nearest.is_none() && self.relative.is_none()
    }
}

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

    /// Squared norm of each whitened row.
    fn distances(&self, features: &[f64], count: usize) -> Vec<f64> {
        let whitened = self.apply(features, count);
        (0..count).map(|row| squared_norm(&whitened[row * self.rank..(row + 1) * self.rank])).collect()
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

/// One Gaussian for each class, all of one covariance; and one for all samples.
#[derive(Debug)]
struct Gaussians {
    names: Names,
    /// Whether features are divided by their norms first.
    normalised: bool,
    tied: Whitening,
    /// Whitened class means, row-major, C x rank.
    means: Vec<f64>,
    /// Where the relative distance is wanted.
    background: Option<Whitening>,
}

impl Gaussians {
    /// Fits the tied covariance Σ (h - μ_y)(h - μ_y)ᵀ / N and, where it is wanted, the covariance about the global mean.
    fn fit(moments: &Moments, names: Names, normalised: bool) -> Result<(Gaussians, [FitSummary; 2])> {
        let samples = moments.samples() as f64;
        let per_sample = |mut scatter: Vec<f64>| {
            scatter.iter_mut().for_each(|x| *x /= samples);
            scatter
        };
        let centre = moments.global_mean();
        let (tied, own) = Whitening::fit(&per_sample(moments.within_scatter()), centre.clone())?;
        let means = tied.apply(moments.means(), moments.classes());
        let (background, other) = match names.relative {
            None => (None, FitSummary::default()),
            Some(_) => {
                let (whitening, summary) = Whitening::fit(&per_sample(moments.global_scatter()), centre)?;
                (Some(whitening), summary)
            }
        };
        Ok((Gaussians { names, normalised, tied, means, background }, [own, other]))
    }

    /// Squared distance of each sample to the nearest class mean.
    fn nearest(&self, features: &[f64], count: usize) -> Vec<f64> {
        let rank = self.tied.rank;
        if rank == 0 {
            return vec![0.0; count];
        }
        let classes = self.means.len() / rank;
        let whitened = self.tied.apply(features, count);
        let means = View::new(&self.means, classes, rank);
        let mut products = vec![0.0; count * classes];
        matmul(View::new(&whitened, count, rank), means.transposed(), &mut products);
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

    /// The scores from squared distances to the nearest class mean and to the mean of all.
    fn combine(&self, nearest: Vec<f64>, background: Option<Vec<f64>>, scores: &mut BlockScores) {
        if let (Some(name), Some(background)) = (&self.names.relative, background) {
            let relative = background.iter().zip(&nearest).map(|(background, nearest)| background - nearest);
            scores.push((name.clone(), relative.collect()));
        }
        if let Some(name) = &self.names.nearest {
            scores.push((name.clone(), nearest.into_iter().map(|distance| -distance).collect()));
        }
    }

    /// Names of the tensors of both Gaussians.
    fn tensors(normalised: bool) -> (&'static str, &'static str) {
        let (nearest, relative) = PAIRS[usize::from(normalised)];
        (nearest.name(), relative.name())
    }

    fn load(
        file: &Reader,
        pair: (Method, Method),
        names: Names,
        dimension: usize,
        classes: usize,
    ) -> Result<Gaussians> {
        let normalised = pair.0 == Method::MdsPp;
        let (own, other) = Gaussians::tensors(normalised);
        let tied = Whitening::load(own, dimension, file)?;
        let rows = if tied.rank == 0 { 0 } else { classes };
        let means = file.get(&format!("{own}.means"), &[Some(rows), Some(tied.rank)])?.1;
        let background =
            names.relative.as_ref().map(|_| Whitening::load(other, dimension, file)).transpose()?;
        Ok(Gaussians { names, normalised, tied, means, background })
    }
}

impl Fitted for Gaussians {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        let features = if self.normalised { rows.normalised() } else { &rows.features };
        let background =
            self.background.as_ref().map(|background| background.distances(features, rows.count));
        self.combine(self.nearest(features, rows.count), background, scores);
    }

    fn save(&self, out: &mut Writer) {
        let (own, other) = Gaussians::tensors(self.normalised);
        self.tied.save(own, out);
        let classes = self.means.len().checked_div(self.tied.rank).unwrap_or(0);
        out.put(&format!("{own}.means"), &[classes, self.tied.rank], &self.means);
        if let Some(background) = &self.background {
            background.save(other, out);
        }
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let rows = if self.normalised { steps.unit() } else { steps.features() };
        let nearest = steps.nearest(rows, &self.tied.projector(), &self.means);
        let background =
            self.background.as_ref().map(|background| steps.norms(rows, &background.projector()));
        Box::new(move |numbers| {
            let mut scores = BlockScores::new();
            let all = |place| numbers.of(place).collect();
            self.combine(all(nearest), background.map(all), &mut scores);
            scores
        })
    }
}

/// One Gaussian of features that are normalised, then standardised.
#[derive(Debug)]
struct Ssd {
    name: String,
    /// Its origin is the mean; applied after the division.
    whitening: Whitening,
    /// Standard deviation of each normalised feature.
    divisor: Vec<f64>,
}

/// Added to standard deviations before dividing by them, as its authors do.
const DEVIATION_FLOOR: f64 = 1e-10;

impl Ssd {
    fn fit(name: String, training: &Training<'_>) -> Result<Ssd> {
        let moments = training.normalised_moments()?;
        let (d, samples) = (moments.dimension(), moments.samples() as f64);
        let mut covariance = moments.global_scatter();
        covariance.iter_mut().for_each(|x| *x /= samples);
        let divisor: Vec<f64> = (0..d).map(|j| covariance[j * d + j].sqrt() + DEVIATION_FLOOR).collect();
        for (index, x) in covariance.iter_mut().enumerate() {
            *x /= divisor[index / d] * divisor[index % d];
        }
        // The mean divided as the features are: what is left is centred at zero.
        let origin =
            moments.global_mean().iter().zip(&divisor).map(|(mean, divisor)| mean / divisor).collect();
        let (whitening, summary) = Whitening::fit(&covariance, origin)?;
        training.summarise(&name, summary);
        Ok(Ssd { name, whitening, divisor })
    }
}

impl Fitted for Ssd {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        let mut features = rows.normalised().to_vec();
        for row in features.chunks_exact_mut(rows.dimension) {
            row.iter_mut().zip(&self.divisor).for_each(|(x, divisor)| *x /= divisor);
        }
        let distances = self.whitening.distances(&features, rows.count);
        scores.push((self.name.clone(), distances.into_iter().map(|distance| -distance).collect()));
    }

    fn save(&self, out: &mut Writer) {
        self.whitening.save(&self.name, out);
        out.put(&format!("{}.divisor", self.name), &[self.divisor.len()], &self.divisor);
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let rows = steps.unit();
        // (x - origin divisor) / divisor: a device subtracts before it divides.
        let shift: Vec<f64> = self.whitening.origin.iter().zip(&self.divisor).map(|(o, d)| o * d).collect();
        let distance = steps.norms_shifted(rows, shift, &self.divisor, &self.whitening.projector());
        Box::new(move |numbers| vec![(self.name.clone(), numbers.of(distance).map(|d| -d).collect())])
    }
}
