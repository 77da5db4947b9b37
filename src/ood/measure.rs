//! Results from scores: of each score on each OOD set, of means over sets, and how scores compare with the best one.
//!
//! All scores are of the same samples, so what is hard for every score cancels in their differences: DeLong's covariances are sums
//! of products of what each sample contributes to two AUROCs. A contribution is the sample's placement less the AUROC, over
//! √(n (n − 1)), so that the sum of squares over both sides is DeLong's variance. A mean over OOD sets has the mean contribution of each ID
//! sample, since the sets share the ID samples, and 1 / sets of that of each OOD sample.

use rayon::prelude::*;

use super::detectors::Scores;
use super::metrics::{
    Comparison, Curves, Estimate, Ordered, Placements, RiskAreas, RiskCoverage, ToBest, auroc_interval,
    with_best,
};
use super::rows::random_subset;
use super::run::RunOptions;
use super::table::{ALL, Entry, Evaluation, Group, IdRisk, OodSet};
use crate::error::Result;

/// The ID side of an evaluation.
pub(super) struct IdSide<'a> {
    /// Its scores.
    pub scores: &'a Scores,
    /// Whether each sample's class is predicted, where that is known.
    pub correct: Option<&'a [bool]>,
}

/// Measures scores, `names` in the order they are shown, on every OOD set and adds the results to an evaluation.
///
/// # Errors
/// A score that is not finite, two sets of one name.
pub(super) fn measure(
    evaluation: &mut Evaluation,
    names: &[String],
    id: &IdSide<'_>,
    sets: Vec<(OodSet, &Scores)>,
    options: &RunOptions,
) -> Result<()> {
    let whole: Vec<Ordered> =
        names.par_iter().map(|name| Ordered::new(&id.scores[name], "ID")).collect::<Result<_>>()?;
    if let Some(correct) = id.correct {
        let failures: Vec<bool> = correct.iter().map(|correct| !correct).collect();
        let risk = |name: &String| {
            let areas = RiskCoverage::new(&id.scores[name], &failures)?.areas();
            Ok((name.clone(), IdRisk { aurc: areas.aurc, augrc: areas.augrc }))
        };
        evaluation.id_risk = names.par_iter().map(risk).collect::<Result<_>>()?;
    }
    let mut means: Vec<Mean> = Vec::new();
    for (set, scores) in sets {
        let (mut entries, of_set) = of_set(names, (id, &whole), (scores, set.samples), options)?;
        if of_set.has_variance() {
            let compared = of_set.compare();
            entries.iter_mut().zip(compared).for_each(|(entry, to_best)| entry.to_best = Some(to_best));
        }
        for group in set.group.map(Group::name).into_iter().chain([ALL]) {
            match means.iter_mut().find(|mean| mean.group == group) {
                Some(mean) => mean.add(&of_set),
                None => means.push(Mean { group, sets: 1, sum: of_set.clone() }),
            }
        }
        evaluation.add(set, names.iter().cloned().zip(entries))?;
    }
    for Mean { group, sets, sum } in means {
        // Of a single set there is no mean over all.
        let (Some(own), true) = (evaluation.groups.get_mut(group), sum.has_variance()) else { continue };
        let mean = sum.over(sets);
        let (estimates, compared) = (mean.estimates(), mean.compare());
        for (index, name) in names.iter().enumerate() {
            let Some(found) = own.get_mut(name) else { continue };
            let estimate = estimates[index];
            found.auroc_se = Some(estimate.error);
            found.auroc_interval95 = Some(auroc_interval(&estimate, (mean.fewest, mean.fewest)));
            found.to_best = compared.get(index).copied();
        }
    }
    evaluation.comparison = (names.len() > 1).then(Comparison::default);
    Ok(())
}

/// Every score on one OOD set of so many samples, and the covariances of the AUROCs; `ordered` are the ID scores.
fn of_set(
    names: &[String],
    (id, ordered): (&IdSide<'_>, &[Ordered]),
    (scores, samples): (&Scores, u64),
    options: &RunOptions,
) -> Result<(Vec<Entry>, Covariances)> {
    let sides = Sides::choose(ordered.first().map_or(0, Ordered::len), samples as usize, options);
    let one = |(name, ordered): (&String, &Ordered)| {
        sides.measure((&id.scores[name], ordered), id.correct, &scores[name], options)
    };
    let measured: Vec<Measured> = names.par_iter().zip(ordered).map(one).collect::<Result<_>>()?;
    let (entries, contributions): (Vec<Entry>, Vec<Contributions>) =
        measured.into_iter().map(|one| (one.entry, one.contributions)).unzip();
    let (of_id, of_ood): (Vec<Vec<f64>>, Vec<Vec<f64>>) =
        contributions.into_iter().map(|one| (one.of_id, one.of_ood)).unzip();
    let aurocs = entries.iter().map(|entry| entry.metrics.auroc).collect();
    let covariances = Covariances { aurocs, of_ood: products(&of_ood), of_id, fewest: sides.fewest() };
    Ok((entries, covariances))
}

/// The samples of both sides that metrics compare; `None` is all of them.
struct Sides {
    id: Option<Vec<usize>>,
    ood: Option<Vec<usize>>,
    /// Numbers of ID and OOD samples before the choice.
    all: (usize, usize),
}

/// One score on one OOD set.
struct Measured {
    entry: Entry,
    contributions: Contributions,
}

/// What each sample contributes to the error of an AUROC; nothing where a sample was not chosen.
struct Contributions {
    of_id: Vec<f64>,
    of_ood: Vec<f64>,
}

impl Sides {
    fn choose(id: usize, ood: usize, options: &RunOptions) -> Sides {
        let smaller = id.min(ood);
        let subset = |count| {
            (options.balance && count > smaller).then(|| random_subset(count, smaller, options.scores.seed))
        };
        Sides { id: subset(id), ood: subset(ood), all: (id, ood) }
    }

    /// The number of samples of the smaller side.
    fn fewest(&self) -> usize {
        self.all.0.min(self.all.1)
    }

    fn measure(
        &self,
        (id, whole): (&[f64], &Ordered),
        correct: Option<&[bool]>,
        ood: &[f64],
        options: &RunOptions,
    ) -> Result<Measured> {
        fn pick<T: Copy>(all: &[T], chosen: &[usize]) -> Vec<T> {
            chosen.iter().map(|&index| all[index]).collect()
        }
        let chosen = self.id.as_ref().map(|chosen| Ordered::new(&pick(id, chosen), "ID")).transpose()?;
        let id = chosen.as_ref().unwrap_or(whole);
        let ood = match &self.ood {
            Some(chosen) => Ordered::new(&pick(ood, chosen), "OOD")?,
            None => Ordered::new(ood, "OOD")?,
        };
        let correct = correct.map(|correct| match &self.id {
            Some(chosen) => pick(correct, chosen),
            None => correct.to_vec(),
        });
        let (curves, placements) = (Curves::of_ordered(id, &ood), Placements::new(id, &ood));
        let mut entry = Entry::from(curves.metrics());
        if options.bootstrap > 0 {
            entry.interval95 = Some(curves.bootstrap(options.bootstrap, options.scores.seed)?);
        }
        if let Some(correct) = correct {
            let areas = RiskAreas::with_ood(id, &ood, &correct);
            (entry.aurc, entry.augrc) = (Some(areas.aurc), Some(areas.augrc));
            // The area under the OSCR curve: of correct ID samples, the share of OOD samples below.
            let kept = placements.of_id.iter().zip(&correct).filter(|(_, correct)| **correct);
            entry.oscr = Some(kept.map(|(placement, _)| placement).sum::<f64>() / id.len() as f64);
        }
        entry.set_ties(placements.tied_pairs);
        let auroc = placements.auroc;
        let contributions = Contributions {
            of_id: contributions(&placements.of_id, auroc, self.id.as_deref(), self.all.0),
            of_ood: contributions(&placements.of_ood, auroc, None, ood.len()),
        };
        if id.len() > 1 && ood.len() > 1 {
            let square = |values: &[f64]| dot(values, values);
            let error = (square(&contributions.of_id) + square(&contributions.of_ood)).sqrt();
            let estimate = Estimate { value: auroc, error };
            entry.auroc_se = Some(error);
            entry.auroc_interval95 = Some(auroc_interval(&estimate, (id.len(), ood.len())));
        }
        Ok(Measured { entry, contributions })
    }
}

/// The AUROC of ID samples against those of another set, with its standard error where both have more than one sample.
///
/// # Errors
/// A score that is not finite.
pub(super) fn auroc_against(id: &[f64], other: &[f64]) -> Result<(f64, Option<f64>)> {
    let (id, other) = (Ordered::new(id, "ID")?, Ordered::new(other, "shifted ID")?);
    let placements = Placements::new(&id, &other);
    let side = |placements: &[f64], mean| {
        let own = contributions(placements, mean, None, placements.len());
        dot(&own, &own)
    };
    let variance = side(&placements.of_id, placements.auroc) + side(&placements.of_ood, placements.auroc);
    let error = (id.len() > 1 && other.len() > 1).then(|| variance.sqrt());
    Ok((placements.auroc, error))
}

/// The contribution of each of `all` samples of a side, whose placements are those of the `chosen` ones; 0 of a side of one sample,
/// which has no variance.
fn contributions(placements: &[f64], auroc: f64, chosen: Option<&[usize]>, all: usize) -> Vec<f64> {
    let count = placements.len() as f64;
    let scale = if count > 1.0 { 1.0 / (count * (count - 1.0)).sqrt() } else { 0.0 };
    let own = placements.iter().map(|placement| (placement - auroc) * scale);
    let Some(chosen) = chosen else { return own.collect() };
    let mut spread = vec![0.0; all];
    chosen.iter().zip(own).for_each(|(&sample, own)| spread[sample] = own);
    spread
}

/// AUROCs of all scores and what their covariances are made of.
#[derive(Clone)]
struct Covariances {
    aurocs: Vec<f64>,
    /// Of each score the contribution of each ID sample.
    of_id: Vec<Vec<f64>>,
    /// The part of the covariances that OOD samples make, row-major.
    of_ood: Vec<f64>,
    /// Samples of the smallest side.
    fewest: usize,
}

impl Covariances {
    /// Whether every side has more than one sample.
    fn has_variance(&self) -> bool {
        self.fewest > 1
    }

    fn matrix(&self) -> Vec<f64> {
        products(&self.of_id).iter().zip(&self.of_ood).map(|(id, ood)| id + ood).collect()
    }

    fn estimates(&self) -> Vec<Estimate> {
        let count = self.aurocs.len();
        let variance = |i: usize| dot(&self.of_id[i], &self.of_id[i]) + self.of_ood[i * count + i];
        let estimate = |(i, auroc): (usize, &f64)| Estimate { value: *auroc, error: variance(i).sqrt() };
        self.aurocs.iter().enumerate().map(estimate).collect()
    }

    fn compare(&self) -> Vec<ToBest> {
        with_best(&self.aurocs, &self.matrix(), self.fewest as f64 - 1.0)
    }

    /// The mean over `sets` whose sum this is.
    fn over(mut self, sets: usize) -> Covariances {
        let share = 1.0 / sets as f64;
        self.aurocs.iter_mut().for_each(|auroc| *auroc *= share);
        self.of_id.iter_mut().flatten().for_each(|own| *own *= share);
        self.of_ood.iter_mut().for_each(|own| *own *= share * share);
        self
    }
}

/// The sum over the OOD sets of a group.
struct Mean {
    group: &'static str,
    sets: usize,
    sum: Covariances,
}

impl Mean {
    fn add(&mut self, other: &Covariances) {
        let add = |sum: &mut [f64], own: &[f64]| sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        add(&mut self.sum.aurocs, &other.aurocs);
        add(&mut self.sum.of_ood, &other.of_ood);
        self.sum.of_id.iter_mut().zip(&other.of_id).for_each(|(sum, own)| add(sum, own));
        self.sum.fewest = self.sum.fewest.min(other.fewest);
        self.sets += 1;
    }
}

/// Products of every two rows, row-major.
fn products(rows: &[Vec<f64>]) -> Vec<f64> {
    let count = rows.len();
    let upper: Vec<Vec<f64>> = (0..count)
        .into_par_iter()
        .map(|i| rows[i..].iter().map(|other| dot(&rows[i], other)).collect())
        .collect();
    (0..count * count)
        .map(|cell| {
            let (low, high) = ((cell / count).min(cell % count), (cell / count).max(cell % count));
            upper[low][high - low]
        })
        .collect()
}

/// The product of two rows, summed in eight lanes: always in the same order, and in wide instructions.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
