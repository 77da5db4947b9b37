//! The scores that kernels compute: the numbers of a row they need, and how a score is made of these.

use super::RowsPrecision;
use super::pipeline::{Numbers, Place, Steps};
use crate::ood::compute::BlockScores;
use crate::ood::detectors::Parts;
use crate::ood::gaussian::Gaussians;
use crate::ood::method::Method;
use crate::ood::neighbours::NORM_FLOOR;
use crate::ood::subspace::Neco;

/// Where the numbers of each fitted score are.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    logits: Vec<(Method, Place)>,
    /// Energies at temperature 1, which ViM is made of.
    energies: Option<Place>,
    /// Squared distances to the nearest class mean, and to the background's.
    gaussians: Option<(Place, Option<Place>)>,
    vim: Option<Place>,
    vim_centered: Option<Place>,
    /// Of each preset, the squared norm inside the subspace and the whole squared norm.
    neco: Vec<(Method, Place, Place)>,
    neighbours: Option<Place>,
}

impl Wanted {
    /// Adds the steps of all fitted scores.
    pub(super) fn new<'a>(parts: &Parts<'a>, steps: &mut Steps<'a>, precision: RowsPrecision) -> Wanted {
        let mut wanted = Wanted::default();
        let temperature = parts.options.temperature;
        let methods = [Method::Msp, Method::Mls, Method::Energy];
        if parts.options.wants(&methods) {
            let places = steps.logit_scores(temperature);
            wanted.logits = methods.into_iter().zip(places).collect();
            wanted.energies = (temperature == 1.0).then_some(places[2]);
        }
        if wanted.energies.is_none() && (parts.vim.is_some() || parts.vim_centered.is_some()) {
            wanted.energies = Some(steps.logit_scores(1.0)[2]);
        }
        wanted.gaussians = parts.gaussians.map(|gaussians| {
            let (map, means) = gaussians.tied();
            let nearest = steps.nearest(&map, means);
            (nearest, gaussians.background().map(|map| steps.norms(&map)))
        });
        wanted.vim = parts.vim.map(|vim| steps.norms(&vim.projector()));
        wanted.vim_centered = parts.vim_centered.map(|vim| steps.norms(&vim.projector()));
        for (preset, neco) in parts.neco {
            let (inside, shift, divisor) = neco.projector();
            wanted.neco.push((*preset, steps.norms(&inside), steps.whole_norms(shift, divisor)));
        }
        wanted.neighbours = parts.neighbours.map(|knn| match precision {
            RowsPrecision::F64 => steps.neighbours(knn.bank(), knn.k(), NORM_FLOOR),
            RowsPrecision::F32 => steps.neighbours_f32(knn.bank().0, knn.k(), NORM_FLOOR),
        });
        wanted
    }

    /// The scores of a block from its numbers.
    pub(super) fn scores(&self, parts: &Parts<'_>, numbers: &Numbers) -> BlockScores {
        let all = |place| numbers.of(place).collect::<Vec<f64>>();
        let roots = |place| numbers.of(place).map(f64::sqrt);
        let negative = |values: &[f64]| values.iter().map(|value| -value).collect::<Vec<f64>>();
        let mut scores: BlockScores =
            self.logits.iter().map(|&(method, place)| (method, all(place))).collect();
        if let Some((nearest, background)) = self.gaussians {
            scores.extend(Gaussians::combine(all(nearest), background.map(all)));
        }
        let energies = || numbers.of(self.energies.unwrap_or(Place::Zeros));
        if let (Some(vim), Some(place)) = (parts.vim, self.vim) {
            let residuals: Vec<f64> = roots(place).collect();
            scores.push((Method::Vim, vim.combine(energies(), &residuals)));
            scores.push((Method::Residual, negative(&residuals)));
        }
        if let (Some(vim), Some(place)) = (parts.vim_centered, self.vim_centered) {
            let residuals: Vec<f64> = roots(place).collect();
            scores.push((Method::VimCentered, vim.combine(energies(), &residuals)));
        }
        for &(preset, inside, whole) in &self.neco {
            scores.push((preset, Neco::combine(roots(inside), roots(whole))));
        }
        if let Some(place) = self.neighbours {
            scores.push((Method::Knn, negative(&all(place))));
        }
        scores
    }
}
