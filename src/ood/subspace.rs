//! Scores of a subspace: ViM and its residual (how far outside), NECO (what share inside).

use super::compute::{Compute, Projector, ResidualSums};
use super::logit_scores::energy;
use super::method::{Dimension, Method};
use super::rows::Rows;
use super::saved::{Reader, Writer};
use super::table::FitSummary;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head, Moments};
use crate::linalg::{Svd, SymmetricEigen, squared_norm};

/// Coordinates of rows `(h - origin)` in an orthonormal basis.
#[derive(Debug, Clone, PartialEq)]
struct Projection {
    origin: Vec<f64>,
    /// Row-major, D x size.
    basis: Vec<f64>,
    size: usize,
}

impl Projection {
    /// Norm of the coordinates of each of `count` rows.
    fn norms(&self, features: &[f64], count: usize) -> Vec<f64> {
        self.projector().norms(features, count)
    }

    /// The map as devices apply it.
    fn projector(&self) -> Projector<'_> {
        Projector { shift: Some(&self.origin), divisor: None, basis: &self.basis, outputs: self.size }
    }

    fn save(&self, name: &str, out: &mut Writer) {
        out.put(&format!("{name}.origin"), &[self.origin.len()], &self.origin);
        out.put(&format!("{name}.basis"), &[self.origin.len(), self.size], &self.basis);
    }

    fn load(name: &str, dimension: usize, file: &Reader) -> Result<Projection> {
        let origin = file.get(&format!("{name}.origin"), &[Some(dimension)])?.1;
        let (shape, basis) = file.get(&format!("{name}.basis"), &[Some(dimension), None])?;
        if shape[1] == 0 {
            return Err(file.malformed(name, "a basis of at least one direction", "none"));
        }
        Ok(Projection { origin, basis, size: shape[1] })
    }
}

/// ViM: `logsumexp(l) - α |(h - u) R|`, u = -pinv(W) b, R the directions of least variance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Vim {
    residual: Projection,
    alpha: f64,
}

impl Vim {
    /// Fits the residual space of the training features about `u` (`centred`: of their covariance instead), and α,
    /// the ratio of the mean largest logit to the mean residual.
    pub fn fit(
        train: &FeatureSet,
        head: &Head,
        moments: &Moments,
        dimension: Dimension,
        centred: bool,
        compute: &mut dyn Compute,
    ) -> Result<(Vim, FitSummary)> {
        let size = head.dimension();
        let negative_bias: Vec<f64> = head.bias().iter().map(|b| -b).collect();
        let origin = Svd::new(head.weight(), head.classes(), size)?.solve(&negative_bias);
        let scatter = if centred { moments.global_scatter() } else { moments.scatter_about(&origin) };
        let eigen = SymmetricEigen::new(&scatter, size)?;
        let removed = vim_dimension(dimension, &eigen)?;
        let kept = size - removed;
        let residual = Projection { origin, basis: eigen.columns(0..kept), size: kept };
        let ResidualSums { logits, residuals, norms } =
            compute.residual_sums(train, head, &residual.projector())?;
        // Rounding leaves residuals of about 1e-8 of the features where the exact residual is zero.
        if residuals <= 1e-7 * norms {
            let smaller = if removed > 1 { "choose a smaller vim-dim, or " } else { "" };
            return Err(Error::invalid(format!(
                "the training features have no residual outside {removed} principal directions, so ViM's scale would \
                 be infinite; {smaller}leave vim, vim_centered and residual out of the scores"
            )));
        }
        let alpha = logits / residuals;
        let top = eigen.values[size - 1].max(f64::MIN_POSITIVE);
        let summary = FitSummary {
            dim: Some(removed),
            rank: Some(eigen.values.iter().filter(|&&v| v > size as f64 * f64::EPSILON * top).count()),
            parameters: [("alpha".to_string(), alpha)].into(),
            ..FitSummary::default()
        };
        Ok((Vim { residual, alpha }, summary))
    }

    /// Norm of each sample in the residual space.
    pub fn residuals(&self, rows: &Rows) -> Vec<f64> {
        self.residual.norms(&rows.features, rows.count)
    }

    /// The score of each sample, given its residual.
    pub fn score(&self, rows: &Rows, residuals: &[f64]) -> Vec<f64> {
        self.combine(rows.logits().map(|logits| energy(logits, 1.0)), residuals)
    }

    /// The score of each sample from its energy (at temperature 1) and its residual.
    pub fn combine(&self, energies: impl Iterator<Item = f64>, residuals: &[f64]) -> Vec<f64> {
        energies.zip(residuals).map(|(energy, residual)| energy - self.alpha * residual).collect()
    }

    /// The map onto the residual space.
    pub fn projector(&self) -> Projector<'_> {
        self.residual.projector()
    }

    pub fn save(&self, name: &str, out: &mut Writer) {
        self.residual.save(name, out);
        out.put(&format!("{name}.alpha"), &[1], &[self.alpha]);
    }

    pub fn load(name: &str, dimension: usize, file: &Reader) -> Result<Vim> {
        let alpha = file.get(&format!("{name}.alpha"), &[Some(1)])?.1[0];
        Ok(Vim { residual: Projection::load(name, dimension, file)?, alpha })
    }
}

/// Number of principal directions ViM removes.
fn vim_dimension(asked: Dimension, eigen: &SymmetricEigen) -> Result<usize> {
    let size = eigen.values.len();
    asked.check_residual(size)?;
    let dimension = match asked {
        Dimension::Rule if size >= 2048 => 1000,
        Dimension::Rule if size >= 768 => 512,
        Dimension::Rule => (size / 2).max(1),
        Dimension::Count(count) => count,
        Dimension::Variance(share) => Dimension::explaining(eigen.values.iter().rev().copied(), share),
    };
    if dimension >= size {
        return Err(Error::invalid(format!(
            "vim-dim asks for a share of the variance that only all {size} directions explain, so nothing is left for the residual; \
             choose a smaller share, or a number from 1 to {}",
            size - 1
        )));
    }
    Ok(dimension)
}

/// NECO: the norm of a feature inside a subspace relative to its whole norm.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Neco {
    /// Divisors of every feature, applied first (standard deviations for `neco_official`).
    scale: Option<Vec<f64>>,
    /// Mean that is removed before dividing by `scale`, for numerator and denominator alike.
    mean: Option<Vec<f64>>,
    subspace: Projection,
}

/// A norm this small is no norm at all; NECO's authors add the same to theirs.
const SMALLEST_NORM: f64 = 1e-12;

impl Neco {
    /// Fits one of the presets; `None` with a reason if its subspace is the whole space.
    pub fn fit(
        preset: Method,
        moments: &Moments,
        dimension: Dimension,
    ) -> Result<(Result<Neco, String>, FitSummary, Option<String>)> {
        if preset == Method::NecoClassMeans {
            return Neco::fit_class_means(moments);
        }
        let size = moments.dimension();
        let samples = moments.samples() as f64;
        let (mut scatter, centre) = (moments.global_scatter(), moments.global_mean());
        let mut neco_scale = None;
        if preset == Method::NecoOfficial {
            let scale: Vec<f64> = (0..size)
                .map(|j| {
                    let deviation = (scatter[j * size + j] / samples).sqrt();
                    let constant = 10.0 * f64::EPSILON * centre[j].abs().max(1.0);
                    if deviation > constant { deviation } else { 1.0 }
                })
                .collect();
            for (index, x) in scatter.iter_mut().enumerate() {
                *x /= scale[index / size] * scale[index % size];
            }
            neco_scale = Some(scale);
        }
        let eigen = SymmetricEigen::new(&scatter, size)?;
        let highest = size.min(moments.samples().saturating_sub(1) as usize).max(1);
        let wanted = match dimension {
            Dimension::Rule => (moments.classes() - 1).max(1),
            Dimension::Count(count) => count,
            Dimension::Variance(share) => Dimension::explaining(eigen.values.iter().rev().copied(), share),
        };
        let used = wanted.min(highest);
        let clamped = (used < wanted).then(|| {
            format!("{preset}: a subspace of {wanted} dimensions is more than the data have; {used} are used")
        });
        let total: f64 = eigen.values.iter().sum();
        let explained = eigen.values[size - used..].iter().sum::<f64>() / total;
        let summary = FitSummary {
            dim: Some(used),
            parameters: [("explained_variance".to_string(), explained)]
                .into_iter()
                .filter(|x| x.1.is_finite())
                .collect(),
            ..FitSummary::default()
        };
        if used >= size && preset != Method::Neco {
            return Ok((Err(whole_space(preset, used)), summary, clamped));
        }
        let origin = if preset == Method::Neco { centre.clone() } else { vec![0.0; size] };
        let subspace = Projection { origin, basis: eigen.columns(size - used..size), size: used };
        let mean = neco_scale.is_some().then_some(centre);
        Ok((Ok(Neco { scale: neco_scale, mean, subspace }), summary, clamped))
    }

    fn fit_class_means(moments: &Moments) -> Result<(Result<Neco, String>, FitSummary, Option<String>)> {
        let size = moments.dimension();
        let svd = Svd::new(moments.means(), moments.classes(), size)?;
        let (rank, thin) = (svd.rank(), svd.values.len());
        let summary = FitSummary { dim: Some(rank), rank: Some(rank), ..FitSummary::default() };
        if rank >= size {
            return Ok((Err(whole_space(Method::NecoClassMeans, rank)), summary, None));
        }
        if rank == 0 {
            let reason = "neco_class_means is left out: every class mean is zero".to_string();
            return Ok((Err(reason), summary, None));
        }
        let basis = svd.right.chunks_exact(thin).flat_map(|row| row[..rank].iter().copied()).collect();
        let subspace = Projection { origin: vec![0.0; size], basis, size: rank };
        Ok((Ok(Neco { scale: None, mean: None, subspace }), summary, None))
    }

    /// The score of each sample.
    pub fn score(&self, rows: &Rows) -> Vec<f64> {
        let mut standardised = Vec::new();
        let features = match (&self.mean, &self.scale) {
            (Some(mean), Some(scale)) => {
                standardised.extend_from_slice(&rows.features);
                for row in standardised.chunks_exact_mut(rows.dimension) {
                    for ((x, mean), scale) in row.iter_mut().zip(mean).zip(scale) {
                        *x = (*x - mean) / scale;
                    }
                }
                &standardised
            }
            _ => &rows.features,
        };
        let whole = features.chunks_exact(rows.dimension).map(|row| squared_norm(row).sqrt());
        Neco::combine(self.subspace.norms(features, rows.count).into_iter(), whole)
    }

    /// The score of each sample from its norm inside the subspace and its whole norm.
    pub fn combine(inside: impl Iterator<Item = f64>, whole: impl Iterator<Item = f64>) -> Vec<f64> {
        inside.zip(whole).map(|(inside, whole)| inside / (whole + SMALLEST_NORM)).collect()
    }

    /// The map onto the subspace, and the standardisation that numerator and denominator share: mean and divisor.
    pub fn projector(&self) -> (Projector<'_>, Option<&[f64]>, Option<&[f64]>) {
        let inside = match (&self.mean, &self.scale) {
            // Only the standardised preset has these, and its subspace goes through their origin.
            (Some(mean), Some(scale)) => {
                Projector { shift: Some(mean), divisor: Some(scale), ..self.subspace.projector() }
            }
            _ => self.subspace.projector(),
        };
        (inside, self.mean.as_deref(), self.scale.as_deref())
    }

    pub fn save(&self, name: &str, out: &mut Writer) {
        self.subspace.save(name, out);
        if let (Some(mean), Some(scale)) = (&self.mean, &self.scale) {
            out.put(&format!("{name}.mean"), &[mean.len()], mean);
            out.put(&format!("{name}.scale"), &[scale.len()], scale);
        }
    }

    pub fn load(preset: Method, dimension: usize, file: &Reader) -> Result<Neco> {
        let name = preset.name();
        let subspace = Projection::load(name, dimension, file)?;
        let vector = |part: &str| -> Result<Option<Vec<f64>>> {
            if preset != Method::NecoOfficial {
                return Ok(None);
            }
            Ok(Some(file.get(&format!("{name}.{part}"), &[Some(dimension)])?.1))
        };
        Ok(Neco { scale: vector("scale")?, mean: vector("mean")?, subspace })
    }
}

fn whole_space(preset: Method, dimension: usize) -> String {
    format!(
        "{preset} is left out: its subspace of {dimension} dimensions is the whole space, so the score would be constant"
    )
}
