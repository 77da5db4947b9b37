//! Constants of scores chosen without OOD data: classes held out in turn stand for it.
//!
//! A split holds some classes out. Scores are fitted on samples of the others, with the head's rows and the logits of the others, and
//! measured by how they tell further samples of the others from samples of the held-out classes. The network has seen these classes
//! ([`tune`]), unless networks were trained for the purpose ([`tune_on`]). The constants of the highest mean AUROC over splits are taken, where
//! they are better than the default by more than twice the standard error of the gain over splits.

mod candidates;
mod splits;

use std::collections::BTreeMap;

use super::compute::Compute;
use super::detectors::{Detectors, Scores};
use super::measure::auroc_against;
use super::options::Options;
use super::run::Sets;
use super::spec::ScoreSpec;
use super::table::{Candidate, PseudoOod, TunedScore, Tuning, TuningSplit};
use crate::error::{Error, Result};
use crate::features::Head;

pub use splits::{Split, keep_out, shares};

/// Chooses constants on classes of the training set that are held out of the fits. Samples outside training (`sets.calibration`) are
/// scored where there are some, else a fifth of each class that fits do not see.
///
/// # Errors
/// No training set, or one without labels; fewer than three classes; a fit that is impossible.
pub fn tune(compute: &mut dyn Compute, sets: Sets<'_>, head: &Head, options: &Options) -> Result<Tuning> {
    tune_among(compute, sets, head, (options, candidates::of(options)))
}

fn tune_among(
    compute: &mut dyn Compute,
    sets: Sets<'_>,
    head: &Head,
    (options, candidates): (&Options, Vec<Vec<ScoreSpec>>),
) -> Result<Tuning> {
    let train = sets.train.ok_or_else(|| {
        Error::usage("--tune holds classes of the training set out, so it needs --train CACHE, with labels")
    })?;
    let (plan, notes) = splits::Classes::plan(train, sets.calibration, head, options.seed)?;
    let mut tuning = measure(compute, plan.splits(), PseudoOod::HeldOutClasses, (options, candidates))?;
    tuning.outside_training = sets.calibration.is_some();
    tuning.notes.splice(0..0, notes);
    if sets.calibration.is_none() {
        tuning.notes.push(
            "the samples scored for tuning are of the training set, which the network knows better than new ones; give labelled \
             samples outside training with --calibration"
                .into(),
        );
    }
    Ok(tuning)
}

/// Chooses constants on these splits, which bring their own networks or share one.
///
/// # Errors
/// No split; a split's sets that do not fit its head; a fit that is impossible.
pub fn tune_on(
    compute: &mut dyn Compute,
    splits: impl Iterator<Item = Result<Split>>,
    pseudo_ood: PseudoOod,
    options: &Options,
) -> Result<Tuning> {
    measure(compute, splits, pseudo_ood, (options, candidates::of(options)))
}

fn measure(
    compute: &mut dyn Compute,
    splits: impl Iterator<Item = Result<Split>>,
    pseudo_ood: PseudoOod,
    (options, candidates): (&Options, Vec<Vec<ScoreSpec>>),
) -> Result<Tuning> {
    let all = with(options, candidates.concat());
    let mut by_score: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    // Networks that never saw the held-out classes never saw the samples that are scored.
    let outside_training = pseudo_ood == PseudoOod::UnseenClasses;
    let mut tuning = Tuning { pseudo_ood, outside_training, ..Tuning::default() };
    for split in splits {
        let Split { held_out, head, train, id, ood } = split?;
        let detectors = Detectors::fit_on(compute, (&train, None), &head, &all)?;
        let (of_id, of_ood) = (detectors.score_on(compute, &id)?, detectors.score_on(compute, &ood)?);
        for name in detectors.names() {
            let (auroc, _) = auroc_against(&of_id[&name], &of_ood[&name])?;
            by_score.entry(name).or_default().push(auroc);
        }
        let [fitted, id, ood] = [train, id, ood].map(|set| set.len() as u64);
        tuning.splits.push(TuningSplit { held_out, fitted, id, ood });
    }
    if tuning.splits.is_empty() {
        return Err(Error::invalid("there is no split of the classes to tune on"));
    }
    let count = tuning.splits.len();
    for own in candidates {
        let measured = own.iter().filter_map(|spec| {
            let by_split = by_score.get(&spec.to_string()).filter(|by_split| by_split.len() == count)?;
            Some(Candidate::new(spec.to_string(), by_split.clone()))
        });
        let measured: Vec<Candidate> = measured.collect();
        if measured.len() < own.len() {
            let missing: Vec<String> = own.iter().map(ToString::to_string).collect();
            let missing = missing.into_iter().filter(|name| measured.iter().all(|one| one.score != *name));
            tuning.notes.push(format!(
                "{}: not tuned on, since it could not be fitted on every split",
                missing.collect::<Vec<String>>().join(", ")
            ));
        }
        let first_is_default =
            own.first().is_some_and(|spec| *spec == ScoreSpec::from(spec.method()) && own.len() > 1);
        tuning.scores.extend(TunedScore::choose(measured, first_is_default));
    }
    Ok(tuning)
}

/// The options with these scores.
fn with(options: &Options, methods: Vec<ScoreSpec>) -> Options {
    Options { methods, ..options.clone() }
}

impl Tuning {
    /// The options with the chosen constants; scores that could not be tuned stay as they are.
    pub fn applied_to(&self, options: &Options) -> Options {
        let chosen = |own: &Vec<ScoreSpec>| {
            let is_own = |score: &&TunedScore| own.iter().any(|spec| spec.to_string() == score.chosen);
            match self.scores.iter().find(is_own) {
                Some(score) => own.iter().copied().filter(|spec| spec.to_string() == score.chosen).collect(),
                None => own.clone(),
            }
        };
        with(options, candidates::of(options).iter().flat_map(chosen).collect::<Vec<ScoreSpec>>())
    }

    /// Adds what each candidate reaches on the OOD sets, fitted on the whole training set; the choice does not change.
    pub(super) fn compare(
        &mut self,
        compute: &mut dyn Compute,
        sets: Sets<'_>,
        head: &Head,
        options: &Options,
    ) -> Result<()> {
        let Some(train) = sets.train else { return Ok(()) };
        let tuned: Vec<ScoreSpec> =
            self.candidates()?.into_iter().filter(|own| own.len() > 1).flatten().collect();
        if tuned.is_empty() {
            return Ok(());
        }
        let detectors = Detectors::fit_on(compute, (train, sets.calibration), head, &with(options, tuned))?;
        let id = detectors.score_on(compute, sets.id)?;
        for input in sets.ood {
            let ood: Scores = detectors.score_on(compute, &input.set)?;
            for candidate in self.scores.iter_mut().flat_map(|score| &mut score.candidates) {
                if let (Some(id), Some(ood)) = (id.get(&candidate.score), ood.get(&candidate.score)) {
                    let (auroc, _) = auroc_against(id, ood)?;
                    candidate.ood.insert(input.name.clone(), auroc);
                }
            }
        }
        Ok(())
    }

    /// The same choice made again among the same candidates; `None` where other networks were trained for it.
    ///
    /// # Errors
    /// As [`tune`]; a candidate that is no score.
    pub(super) fn again(
        &self,
        compute: &mut dyn Compute,
        sets: Sets<'_>,
        head: &Head,
        options: &Options,
    ) -> Result<Option<Tuning>> {
        if self.pseudo_ood == PseudoOod::UnseenClasses {
            return Ok(None);
        }
        let mut tuning = tune_among(compute, sets, head, (options, self.candidates()?))?;
        tuning.compare(compute, sets, head, options)?;
        // What could not be fitted is no candidate here.
        tuning.notes.clone_from(&self.notes);
        Ok(Some(tuning))
    }

    fn candidates(&self) -> Result<Vec<Vec<ScoreSpec>>> {
        let own = |score: &TunedScore| score.candidates.iter().map(|one| one.score.parse()).collect();
        self.scores.iter().map(own).collect()
    }
}
