//! Scores of a subspace: ViM and its residual (how far outside), NECO (what share inside).

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::features::{Head, Moments};
use crate::linalg::{Svd, SymmetricEigen, squared_norm};
use crate::ood::compute::{BlockScores, Projector, ResidualSums};
use crate::ood::device::{FromNumbers, Place, Steps};
use crate::ood::family::{Family, Fits, Fitted};
use crate::ood::method::{About, Cost, Method, Needs};
use crate::ood::options::{Dimension, Wanted};
use crate::ood::parameters::{Parameter, Range, Value};
use crate::ood::rows::Rows;
use crate::ood::saved::{Reader, Writer};
use crate::ood::table::FitSummary;
use crate::ood::training::Training;

/// ViM and its residual.
pub(super) struct VimFamily;

const VIM_DIM: Parameter = Parameter {
    name: "dim",
    range: Range::Dimension,
    default: |options| Value::Dimension(options.vim_dim),
    grid: &["rule", "0.8", "0.95", "0.99"],
    meaning: "principal directions that are removed: a number, a share of the variance, or `rule`",
};

const VIM_ORIGIN: Parameter = Parameter {
    name: "origin",
    range: Range::Word(&["u", "mean"]),
    default: |_| Value::Word("u"),
    grid: &[],
    meaning: "where directions start: u = -pinv(W) b of the paper, or the mean of the training features (oodeel)",
};

const VIM_MEMBERS: &[About] = &[
    About {
        method: Method::Vim,
        explanation: "Score: virtual-logit matching, the energy less a logit made of the feature's residual outside the principal \
                      subspace (Wang et al., 2022).",
        needs: Needs::LABELS,
        cost: Cost::Square,
        parameters: &[VIM_DIM, VIM_ORIGIN],
    },
    About {
        method: Method::VimCentered,
        explanation: "Score: vim with features centred at their mean (Wang et al., 2022).",
        needs: Needs::LABELS,
        cost: Cost::Square,
        parameters: &[VIM_DIM],
    },
    About {
        method: Method::Residual,
        explanation: "Score: minus the norm of the residual of vim alone (Wang et al., 2022).",
        needs: Needs::LABELS,
        cost: Cost::Square,
        parameters: &[VIM_DIM, VIM_ORIGIN],
    },
];

/// NECO and its presets.
pub(super) struct NecoFamily;

const NECO_DIM: Parameter = Parameter {
    name: "dim",
    range: Range::Dimension,
    default: |options| Value::Dimension(options.neco_dim),
    grid: &["rule", "0.8", "0.95", "0.99"],
    meaning: "dimension of the subspace: a number, a share of the variance, or `rule`, classes - 1",
};

const fn neco(
    method: Method,
    explanation: &'static str,
    cost: Cost,
    parameters: &'static [Parameter],
) -> About {
    About { method, explanation, needs: Needs::LABELS, cost, parameters }
}

const NECO_MEMBERS: &[About] = &[
    neco(
        Method::Neco,
        "Score: NECO, the share of a feature's length inside the principal subspace of the training features (Ammar et al., 2024).",
        Cost::Square,
        &[NECO_DIM],
    ),
    neco(
        Method::NecoFormula,
        "Score: NECO as its formula is printed, nothing centred (Ammar et al., 2024).",
        Cost::Square,
        &[NECO_DIM],
    ),
    neco(
        Method::NecoClassMeans,
        "Score: NECO with the span of the class means as the subspace (Ammar et al., 2024).",
        Cost::Square,
        &[],
    ),
    neco(
        Method::NecoOfficial,
        "Score: NECO on standardised features, as its authors' code does for ResNets (Ammar et al., 2024).",
        Cost::Square,
        &[NECO_DIM],
    ),
];

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

/// The point that residuals are measured from, and the scatter whose directions are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Centring {
    /// u = -pinv(W) b, and the scatter about it.
    Uncentred,
    /// The mean, and the scatter about it.
    Mean,
    /// u, and the scatter about the mean (`vim_centered`).
    Covariance,
}

impl Centring {
    fn of(wanted: &Wanted) -> Centring {
        match wanted.method {
            Method::VimCentered => Centring::Covariance,
            _ if wanted.parameters.word("origin") == "mean" => Centring::Mean,
            _ => Centring::Uncentred,
        }
    }

    /// The prefix of its tensors.
    fn tensors(self) -> &'static str {
        match self {
            Centring::Uncentred => "vim",
            Centring::Mean => "vim:origin=mean",
            Centring::Covariance => "vim_centered",
        }
    }
}

/// ViM: `logsumexp(l) - α |(h - o) R|`, R the directions of least variance; for one or several dimensions.
#[derive(Debug)]
struct Vim {
    centring: Centring,
    /// Onto the directions of least variance, as many as any of the scores keeps.
    residual: Projection,
    scores: Vec<VimScores>,
}

/// The scores of one dimension.
#[derive(Debug, Clone, Default, PartialEq)]
struct VimScores {
    vim: Option<String>,
    residual: Option<String>,
    asked: Option<Dimension>,
    /// Directions that are left.
    kept: usize,
    alpha: f64,
}

impl VimScores {
    /// Those of one centring, by dimension.
    fn of(centring: Centring, wanted: &[Wanted]) -> Vec<VimScores> {
        let mut all: Vec<VimScores> = Vec::new();
        for wanted in wanted.iter().filter(|wanted| Centring::of(wanted) == centring) {
            let asked = Some(wanted.parameters.dimension("dim"));
            let place = all.iter().position(|scores| scores.asked == asked);
            let place = place.unwrap_or_else(|| {
                all.push(VimScores { asked, ..VimScores::default() });
                all.len() - 1
            });
            let name = Some(wanted.name.clone());
            if wanted.method == Method::Residual { all[place].residual = name } else { all[place].vim = name }
        }
        all
    }
}

impl Vim {
    /// Fits the residual space of the training features, and for each dimension α, the ratio of the mean largest logit to the
    /// mean residual.
    fn fit(centring: Centring, mut scores: Vec<VimScores>, training: &Training<'_>) -> Result<Vim> {
        let head = training.head;
        let size = head.dimension();
        let moments = training.moments()?;
        let origin = if centring == Centring::Mean {
            moments.global_mean()
        } else {
            let negative_bias: Vec<f64> = head.bias().iter().map(|b| -b).collect();
            Svd::new(head.weight(), head.classes(), size)?.solve(&negative_bias)
        };
        let scatter = match centring {
            Centring::Covariance => moments.global_scatter(),
            _ => moments.scatter_about(&origin),
        };
        let eigen = SymmetricEigen::new(&scatter, size)?;
        let top = eigen.values[size - 1].max(f64::MIN_POSITIVE);
        let rank = eigen.values.iter().filter(|&&v| v > size as f64 * f64::EPSILON * top).count();
        for own in &mut scores {
            let removed = vim_dimension(own.asked.unwrap_or_default(), &eigen)?;
            own.kept = size - removed;
            let basis = eigen.columns(0..own.kept);
            let residual = Projection { origin: origin.clone(), basis, size: own.kept };
            let ResidualSums { logits, residuals, norms } = training
                .compute(|compute| compute.residual_sums(training.set, head, &residual.projector()))?;
            // Rounding leaves residuals of about 1e-8 of the features where the exact residual is zero.
            if residuals <= 1e-7 * norms {
                let smaller = if removed > 1 { "choose a smaller vim-dim, or " } else { "" };
                return Err(Error::invalid(format!(
                    "the training features have no residual outside {removed} principal directions, so ViM's scale would \
                     be infinite; {smaller}leave vim, vim_centered and residual out of the scores"
                )));
            }
            own.alpha = logits / residuals;
            let summary = FitSummary { dim: Some(removed), rank: Some(rank), ..FitSummary::default() };
            if let Some(name) = &own.residual {
                training.summarise(name, summary.clone());
            }
            if let Some(name) = &own.vim {
                let parameters = [("alpha".to_string(), own.alpha)].into();
                training.summarise(name, FitSummary { parameters, ..summary });
            }
        }
        let kept = scores.iter().map(|own| own.kept).max().unwrap_or(1);
        let residual = Projection { origin, basis: eigen.columns(0..kept), size: kept };
        Ok(Vim { centring, residual, scores })
    }

    /// Appends the scores of one dimension from energies (at temperature 1) and residuals.
    fn combine(
        own: &VimScores,
        energies: impl Iterator<Item = f64>,
        residuals: &[f64],
        scores: &mut BlockScores,
    ) {
        if let Some(name) = &own.vim {
            let values = energies.zip(residuals).map(|(energy, residual)| energy - own.alpha * residual);
            scores.push((name.clone(), values.collect()));
        }
        if let Some(name) = &own.residual {
            scores.push((name.clone(), residuals.iter().map(|residual| -residual).collect()));
        }
    }

    fn load(centring: Centring, mut scores: Vec<VimScores>, dimension: usize, file: &Reader) -> Result<Vim> {
        let name = centring.tensors();
        let residual = Projection::load(name, dimension, file)?;
        let alphas = file.get(&format!("{name}.alpha"), &[Some(scores.len())])?.1;
        let kept = if file.has(&format!("{name}.kept")) {
            file.get(&format!("{name}.kept"), &[Some(scores.len())])?.1
        } else {
            vec![residual.size as f64; scores.len()]
        };
        for ((own, alpha), kept) in scores.iter_mut().zip(alphas).zip(kept) {
            if !(kept >= 1.0 && kept <= residual.size as f64 && kept.fract() == 0.0) {
                let expected = format!("whole numbers from 1 to {}", residual.size);
                return Err(file.malformed(&format!("{name}.kept"), &expected, &kept.to_string()));
            }
            (own.alpha, own.kept) = (alpha, kept as usize);
        }
        Ok(Vim { centring, residual, scores })
    }
}

impl Family for VimFamily {
    fn members(&self) -> &'static [About] {
        VIM_MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        let mut fits = Fits::new();
        for centring in [Centring::Uncentred, Centring::Mean, Centring::Covariance] {
            let scores = VimScores::of(centring, wanted);
            if !scores.is_empty() {
                fits.push(Arc::new(Vim::fit(centring, scores, training)?));
            }
        }
        Ok(fits)
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        let mut fits = Fits::new();
        for centring in [Centring::Uncentred, Centring::Mean, Centring::Covariance] {
            let scores = VimScores::of(centring, wanted);
            if !scores.is_empty() {
                fits.push(Arc::new(Vim::load(centring, scores, head.dimension(), file)?));
            }
        }
        Ok(fits)
    }
}

impl Fitted for Vim {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        let kept: Vec<usize> = self.scores.iter().map(|own| own.kept).collect();
        let norms = self.residual.projector().leading_norms(&rows.features, rows.count, &kept);
        for (own, residuals) in self.scores.iter().zip(norms) {
            Vim::combine(own, rows.energies(), &residuals, scores);
        }
    }

    fn save(&self, out: &mut Writer) {
        let name = self.centring.tensors();
        self.residual.save(name, out);
        let of = |value: fn(&VimScores) -> f64| self.scores.iter().map(value).collect::<Vec<f64>>();
        out.put(&format!("{name}.alpha"), &[self.scores.len()], &of(|own| own.alpha));
        out.put(&format!("{name}.kept"), &[self.scores.len()], &of(|own| own.kept as f64));
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let energies = steps.logit_scores(1.0).energy;
        let rows = steps.features();
        let residuals: Vec<Place> = self
            .scores
            .iter()
            .map(|own| steps.leading_norms(rows, &self.residual.projector(), own.kept))
            .collect();
        Box::new(move |numbers| {
            let mut scores = BlockScores::new();
            for (own, residuals) in self.scores.iter().zip(&residuals) {
                let residuals: Vec<f64> = numbers.of(*residuals).map(f64::sqrt).collect();
                Vim::combine(own, numbers.of(energies), &residuals, &mut scores);
            }
            scores
        })
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
#[derive(Debug)]
struct Neco {
    name: String,
    /// Divisors of every feature, applied first (standard deviations for `neco_official`).
    scale: Option<Vec<f64>>,
    /// Mean that is removed before dividing by `scale`, for numerator and denominator alike.
    mean: Option<Vec<f64>>,
    subspace: Projection,
}

/// A norm this small is no norm at all; NECO's authors add the same to theirs.
const SMALLEST_NORM: f64 = 1e-12;

impl Family for NecoFamily {
    fn members(&self) -> &'static [About] {
        NECO_MEMBERS
    }

    fn fit(&self, wanted: &[Wanted], training: &Training<'_>) -> Result<Fits> {
        let mut fits = Fits::new();
        for wanted in wanted {
            let (neco, summary, warning) = Neco::fit(wanted, training.moments()?)?;
            if let Some(warning) = warning {
                training.note(warning);
            }
            match neco {
                Ok(neco) => {
                    training.summarise(&wanted.name, summary);
                    fits.push(Arc::new(neco));
                }
                Err(reason) => training.leave_out(&wanted.name, reason),
            }
        }
        Ok(fits)
    }

    fn load(&self, wanted: &[Wanted], file: &Reader, head: &Head) -> Result<Fits> {
        wanted.iter().map(|wanted| Ok(Arc::new(Neco::load(wanted, head.dimension(), file)?) as _)).collect()
    }
}

impl Fitted for Neco {
    fn score(&self, rows: &Rows, _head: &Head, scores: &mut BlockScores) {
        scores.push((self.name.clone(), self.values(rows)));
    }

    fn save(&self, out: &mut Writer) {
        let name = &self.name;
        self.subspace.save(name, out);
        if let (Some(mean), Some(scale)) = (&self.mean, &self.scale) {
            out.put(&format!("{name}.mean"), &[mean.len()], mean);
            out.put(&format!("{name}.scale"), &[scale.len()], scale);
        }
    }

    fn on_device<'a>(&'a self, _head: &'a Head, steps: &mut Steps<'a>) -> FromNumbers<'a> {
        let (inside, shift, divisor) = self.projector();
        let rows = steps.features();
        let (inside, whole) = (steps.norms(rows, &inside), steps.whole_norms(shift, divisor));
        Box::new(move |numbers| {
            let roots = |place| numbers.of(place).map(f64::sqrt);
            vec![(self.name.clone(), Neco::combine(roots(inside), roots(whole)))]
        })
    }
}

impl Neco {
    /// Fits one of the presets; a reason instead if its subspace is the whole space.
    fn fit(wanted: &Wanted, moments: &Moments) -> Result<(Result<Neco, String>, FitSummary, Option<String>)> {
        let (preset, name) = (wanted.method, &wanted.name);
        if preset == Method::NecoClassMeans {
            return Neco::fit_class_means(name, moments);
        }
        let dimension = wanted.parameters.dimension("dim");
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
            format!("{name}: a subspace of {wanted} dimensions is more than the data have; {used} are used")
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
            return Ok((Err(whole_space(name, used)), summary, clamped));
        }
        let origin = if preset == Method::Neco { centre.clone() } else { vec![0.0; size] };
        let subspace = Projection { origin, basis: eigen.columns(size - used..size), size: used };
        let mean = neco_scale.is_some().then_some(centre);
        Ok((Ok(Neco { name: name.clone(), scale: neco_scale, mean, subspace }), summary, clamped))
    }

    fn fit_class_means(
        name: &str,
        moments: &Moments,
    ) -> Result<(Result<Neco, String>, FitSummary, Option<String>)> {
        let size = moments.dimension();
        let svd = Svd::new(moments.means(), moments.classes(), size)?;
        let (rank, thin) = (svd.rank(), svd.values.len());
        let summary = FitSummary { dim: Some(rank), rank: Some(rank), ..FitSummary::default() };
        if rank >= size {
            return Ok((Err(whole_space(name, rank)), summary, None));
        }
        if rank == 0 {
            let reason = format!("{name} is left out: every class mean is zero");
            return Ok((Err(reason), summary, None));
        }
        let basis = svd.right.chunks_exact(thin).flat_map(|row| row[..rank].iter().copied()).collect();
        let subspace = Projection { origin: vec![0.0; size], basis, size: rank };
        Ok((Ok(Neco { name: name.to_string(), scale: None, mean: None, subspace }), summary, None))
    }

    /// The score of each sample.
    fn values(&self, rows: &Rows) -> Vec<f64> {
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
    fn combine(inside: impl Iterator<Item = f64>, whole: impl Iterator<Item = f64>) -> Vec<f64> {
        inside.zip(whole).map(|(inside, whole)| inside / (whole + SMALLEST_NORM)).collect()
    }

    /// The map onto the subspace, and the standardisation that numerator and denominator share: mean and divisor.
    fn projector(&self) -> (Projector<'_>, Option<&[f64]>, Option<&[f64]>) {
        let inside = match (&self.mean, &self.scale) {
            // Only the standardised preset has these, and its subspace goes through their origin.
            (Some(mean), Some(scale)) => {
                Projector { shift: Some(mean), divisor: Some(scale), ..self.subspace.projector() }
            }
            _ => self.subspace.projector(),
        };
        (inside, self.mean.as_deref(), self.scale.as_deref())
    }

    fn load(wanted: &Wanted, dimension: usize, file: &Reader) -> Result<Neco> {
        let name = &wanted.name;
        let subspace = Projection::load(name, dimension, file)?;
        let vector = |part: &str| -> Result<Option<Vec<f64>>> {
            if wanted.method != Method::NecoOfficial {
                return Ok(None);
            }
            Ok(Some(file.get(&format!("{name}.{part}"), &[Some(dimension)])?.1))
        };
        Ok(Neco { name: name.clone(), scale: vector("scale")?, mean: vector("mean")?, subspace })
    }
}

fn whole_space(name: &str, dimension: usize) -> String {
    format!(
        "{name} is left out: its subspace of {dimension} dimensions is the whole space, so the score would be constant"
    )
}
