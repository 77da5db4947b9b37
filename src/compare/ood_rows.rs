//! Rows of OOD sets: AUROC by DeLong's covariance, FPR95 by the bootstrap, a row for each set and score.

use std::collections::BTreeMap;

use super::Options;
use super::id_rows::pair_of;
use super::pairing::{self, Pairing};
use super::rows::{At, Metric, Section, Table};
use super::runs::{Run, Training, one_line};
use super::statistics::Found;
use crate::error::Result;
use crate::ood::metrics::{Curves, DeLong, Estimate, FprDifference, ScoredSides, fpr95_differences};
use crate::ood::table::Entry;

/// AUROC in `metrics.json` and of the stored scores may differ by rounding only.
const SAME_AUROC: f64 = 1e-9;

/// Confidences of one score: of ID and of OOD samples.
type Sides = (Vec<f64>, Vec<f64>);

/// Differences on one OOD set, by score.
#[derive(Default)]
struct OfSet {
    paired: bool,
    aurocs: BTreeMap<String, Found>,
    rates: BTreeMap<String, FprDifference>,
}

/// Adds a row for each OOD set, score and metric, and notes where samples are not the same.
///
/// # Errors
/// Stored scores are damaged.
pub(super) fn add(table: &mut Table, runs: &[Run], options: &Options, notes: &mut Vec<String>) -> Result<()> {
    let (sets, methods) = names(runs);
    for set in &sets {
        let mut found = Vec::new();
        for run in 1..runs.len() {
            found.push(match (runs[0].single(), runs[run].single()) {
                (Some(base), Some(other)) => {
                    let of_set = of_set(set, &methods, [base, other], options, notes)?;
                    if let (Some(_), Some(Pairing::Unpaired(why))) = &of_set {
                        notes.push(format!(
                            "{}: scores of {} and {} may be of different samples ({why}): intervals are unpaired and wider{}",
                            one_line(set),
                            runs[0].name,
                            runs[run].name,
                            if why.contains("no cache") { "; --paired vouches that they are the same" } else { "" }
                        ));
                    }
                    of_set.0
                }
                _ => None,
            });
        }
        for method in &methods {
            for metric in [Metric::Auroc, Metric::Fpr95, Metric::Fpr95IdPositive] {
                let at = At { section: Section::Ood, set: Some(set), score: Some(method), metric };
                let number = |training: &Training| {
                    let metrics = entry(training, set, method)?.metrics;
                    let value = match metric {
                        Metric::Auroc => metrics.auroc,
                        Metric::Fpr95 => metrics.fpr95,
                        _ => metrics.fpr95_id_positive,
                    };
                    value.is_finite().then_some(value)
                };
                table.add(runs, at, number, |run| {
                    let of_set = found[run - 1].as_ref()?;
                    let rate = |(value, interval): (f64, [f64; 2])| {
                        let method = if of_set.paired { "paired bootstrap" } else { "unpaired bootstrap" };
                        Found { value, interval: Some(interval), p_value: None, method }
                    };
                    let found = match metric {
                        Metric::Auroc => *of_set.aurocs.get(method)?,
                        Metric::Fpr95 => rate(of_set.rates.get(method)?.fpr95),
                        _ => rate(of_set.rates.get(method)?.fpr95_id_positive),
                    };
                    Some((found, of_set.paired))
                });
            }
        }
    }
    Ok(())
}

/// Names of the OOD sets and of the scores, in the order of the first run that has them.
fn names(runs: &[Run]) -> (Vec<String>, Vec<String>) {
    let (mut sets, mut methods): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let trainings = runs.iter().flat_map(|run| &run.trainings);
    for evaluation in trainings.filter_map(|training| training.parts.as_ref()?.evaluation()) {
        for set in evaluation.datasets.iter().filter(|set| evaluation.ood.contains_key(&set.name)) {
            if !sets.contains(&set.name) {
                sets.push(set.name.clone());
            }
        }
        for method in &evaluation.methods {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
    }
    (sets, methods)
}

fn entry<'a>(training: &'a Training, set: &str, method: &str) -> Option<&'a Entry> {
    training.parts.as_ref()?.evaluation()?.entry(set, method)
}

/// The differences between two trainings on one set, where both have its scores; and whether they are of the same samples.
fn of_set(
    set: &str,
    methods: &[String],
    trainings: [&Training; 2],
    options: &Options,
    notes: &mut Vec<String>,
) -> Result<(Option<OfSet>, Option<Pairing>)> {
    let [Some(first), Some(second)] =
        [confidences(set, methods, trainings[0], notes)?, confidences(set, methods, trainings[1], notes)?]
    else {
        return Ok((None, None));
    };
    let common: Vec<&String> =
        methods.iter().filter(|method| first.contains_key(*method) && second.contains_key(*method)).collect();
    let Some(&any) = common.first() else { return Ok((None, None)) };
    let pairing = pairing(set, trainings, [&first[any], &second[any]], options)?;
    let paired = pairing.is_paired();
    let sides = |of: &Sides| (of.0.len(), of.1.len());
    // All scores of a folder are of the same samples; one that is not cannot be compared.
    let extents = [sides(&first[any]), sides(&second[any])];
    let fits = |method: &&&String| [sides(&first[**method]), sides(&second[**method])] == extents;
    let common: Vec<&String> = common.iter().filter(fits).copied().collect();
    let mut found = OfSet { paired, ..OfSet::default() };
    let mut pairs: Vec<(ScoredSides<'_>, ScoredSides<'_>)> = Vec::new();
    for method in &common {
        let (a, b) = (&first[*method], &second[*method]);
        let (a, b): (ScoredSides<'_>, ScoredSides<'_>) = ((&a.0, &a.1), (&b.0, &b.1));
        pairs.push((a, b));
        if extents.iter().all(|(n, m)| *n > 1 && *m > 1) {
            found.aurocs.insert((*method).clone(), auroc_difference(a, b, paired)?);
        }
    }
    if options.bootstrap > 1 {
        let rates = fpr95_differences(&pairs, paired, options.bootstrap, options.seed)?;
        found.rates = common.iter().map(|method| (*method).clone()).zip(rates).collect();
    }
    Ok((Some(found), Some(pairing)))
}

/// The AUROC of the second minus that of the first.
fn auroc_difference(first: ScoredSides<'_>, second: ScoredSides<'_>, paired: bool) -> Result<Found> {
    let (estimate, method) = if paired {
        (DeLong::new(&[first, second])?.difference(1, 0), "DeLong, paired")
    } else {
        let [a, b] = [DeLong::new(&[first])?.estimate(0), DeLong::new(&[second])?.estimate(0)];
        (Estimate { value: b.value - a.value, error: a.error.hypot(b.error) }, "DeLong, unpaired")
    };
    let Estimate { value, .. } = estimate;
    Ok(Found { value, interval: Some(estimate.interval()), p_value: Some(estimate.p_value()), method })
}

/// ID and OOD samples must be the same; the ID samples of scores are those of the test set's cache, where there is one.
fn pairing(set: &str, trainings: [&Training; 2], scores: [&Sides; 2], options: &Options) -> Result<Pairing> {
    let assume = options.assume_paired;
    let id = match pair_of(trainings[0], trainings[1], options) {
        Some(pair)
            if scores.iter().zip([pair.first, pair.second]).all(|(s, p)| s.0.len() == p.labels.len()) =>
        {
            pair.pairing
        }
        _ => pairing::of_ood_set("id", trainings, scores.map(|scores| scores.0.len()), assume)?,
    };
    match id {
        Pairing::Unpaired(why) => Ok(Pairing::Unpaired(format!("ID: {why}"))),
        Pairing::Paired => pairing::of_ood_set(set, trainings, scores.map(|scores| scores.1.len()), assume),
    }
}

/// Stored scores of a training on a set, as confidences; `None` where it kept none.
fn confidences(
    set: &str,
    methods: &[String],
    training: &Training,
    notes: &mut Vec<String>,
) -> Result<Option<BTreeMap<String, Sides>>> {
    let Some(parts) = &training.parts else { return Ok(None) };
    if parts.evaluation().is_none() {
        return Ok(None);
    }
    let (Some(id), Some(ood)) = (parts.scores("id")?, parts.scores(set)?) else { return Ok(None) };
    let mut found = BTreeMap::new();
    for method in methods {
        let (Some(mut own_id), Some(mut own_ood)) = (id.of(method)?, ood.of(method)?) else { continue };
        if own_id.is_empty() || own_ood.is_empty() {
            continue;
        }
        if let Some(entry) = entry(training, set, method) {
            let auroc = Curves::new(&own_id, &own_ood)?.id_positive.auroc();
            let stated = entry.metrics.auroc;
            // Scores may have been kept the other way round (larger = more novel), which their AUROC tells.
            if (1.0 - auroc - stated).abs() < (auroc - stated).abs() {
                own_id.iter_mut().chain(&mut own_ood).for_each(|score| *score = 0.0 - *score);
            }
            let confidence = (auroc - stated).abs().min((1.0 - auroc - stated).abs());
            let whole =
                (entry.metrics.n_id, entry.metrics.n_ood) == (own_id.len() as u64, own_ood.len() as u64);
            let folder = parts.ood().display();
            let note = match whole {
                true if confidence > SAME_AUROC => Some(format!(
                    "{folder}: the scores {} kept on {} are not those that metrics.json was computed from; run `residua ood` again",
                    one_line(method),
                    one_line(set)
                )),
                false => Some(format!(
                    "{folder}: metrics.json is of a balanced part of the scores kept; differences and intervals on {} are of all of them",
                    one_line(set)
                )),
                true => None,
            };
            notes.extend(note.filter(|note| !notes.contains(note)));
        }
        found.insert(method.clone(), (own_id, own_ood));
    }
    Ok(Some(found))
}
