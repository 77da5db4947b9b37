//! Calibration: from the feature caches of heads to thresholds, and from thresholds to answers and their metrics. The verbs
//! `calibrate` and `predict` and the stages of recipes share it.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::decide::{Answer, LevelInput, decide};
use super::evaluate::{Judged, LevelMetrics, evaluate};
use super::file::{LevelEntry, Rates, ThresholdFile};
use super::rule::Rule;
use super::samples::{Scored, level_name};
use super::score::{Score, Scorer};
use super::threshold::LevelThreshold;
use super::truth::{Gathered, Truth, truths};
use crate::checkpoint::{HeadClasses, Trained};
use crate::data::{Dataset, Level, SharedDataset};
use crate::error::Result;
use crate::features::{FeatureSet, Head, choose_head, of_head};
use crate::ood::{Compute, Method};

/// How one level's novelty is measured and judged: flags of `calibrate`, and the keys of a level's table in a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LevelChoice {
    /// The score that is thresholded.
    pub score: Score,
    /// The rule that turns scores into a threshold.
    pub rule: Rule,
    /// The divisor of the logits before they are scored; need not be the temperature of the training.
    pub temperature: f64,
}

impl Default for LevelChoice {
    fn default() -> LevelChoice {
        LevelChoice { score: Score::from(Method::Msp), rule: Rule::Conformal(0.05), temperature: 1.0 }
    }
}

/// One head of a network with its caches: one of each set of samples, at the same place for every head.
#[derive(Debug, Clone)]
pub struct HeadSets<'a> {
    /// The network.
    pub trained: &'a Trained,
    /// Meaning of the head's logits.
    pub classes: &'a HeadClasses,
    /// Its last linear map.
    pub head: Head,
    /// Its caches.
    pub sets: Vec<FeatureSet>,
}

/// Places of novel samples among the caches of a head. The superclass head may have others than every other head: an unknown
/// breed is novel as a subclass, but a dog.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Novel {
    /// Those of the superclass head.
    pub superclass: Option<usize>,
    /// Those of a subclass head, or of the only head.
    pub other: Option<usize>,
}

/// Places of the samples that a head is calibrated on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalibrationSets {
    /// Samples the network was trained on, for scores that are fitted.
    pub fit: Option<usize>,
    /// Samples of known classes that the network was not trained on.
    pub seen: usize,
    /// Samples of other classes.
    pub novel: Novel,
}

/// Places of the samples that the answers are reported on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportSets {
    /// Samples of known classes.
    pub seen: Option<usize>,
    /// Samples given as novel; one of a class that a head knows is no test of that head.
    pub novel: Novel,
    /// Sets with classes of their own, whatever their numbers: every sample is novel.
    pub foreign: Range<usize>,
}

impl Novel {
    /// The place of the novel samples of a head.
    pub fn of(self, head: &HeadSets<'_>) -> Option<usize> {
        if head.classes.level == Some(Level::Coarse) { self.superclass } else { self.other }
    }

    /// Every place once.
    pub fn all(self) -> impl Iterator<Item = usize> {
        let own = self.superclass.filter(|_| self.superclass != self.other);
        self.other.into_iter().chain(own)
    }
}

impl<'a> HeadSets<'a> {
    /// Opens the caches of every head of a network that were extracted to `folders`.
    ///
    /// # Errors
    /// A cache is missing, damaged or of another network.
    pub fn open(trained: &'a Trained, folders: &[PathBuf]) -> Result<Vec<HeadSets<'a>>> {
        let kinds = &trained.architecture.heads;
        let open = |(index, classes): (usize, &'a HeadClasses)| {
            let sets = folders.iter().map(|folder| FeatureSet::open(&of_head(kinds, index, folder)));
            let sets = sets.collect::<Result<Vec<_>>>()?;
            let head = choose_head(None, &sets.iter().collect::<Vec<_>>())?.head;
            Ok(HeadSets { trained, classes, head, sets })
        };
        trained.heads.iter().enumerate().map(open).collect()
    }

    /// The name of the level of its classes.
    pub fn level(&self) -> &'static str {
        level_name(self.classes.level)
    }

    /// Whether an entry of a threshold file is of this head.
    pub fn is_of(&self, entry: &LevelEntry) -> bool {
        self.trained.hash == entry.checkpoint && *self.classes == entry.classes
    }

    /// The truths of a data set's samples. All are of unseen classes where the data has other classes than the head.
    pub fn truths(&self, data: &dyn Dataset) -> Vec<Truth> {
        let truths = truths(data, self.classes, self.trained.taxonomy.as_ref());
        truths.unwrap_or_else(|| vec![Truth::Unseen; data.len()])
    }

    /// Scores the samples that the head is calibrated on; `data` holds the sets at their places.
    ///
    /// # Errors
    /// As [`Scorer::new`] and [`Scorer::samples`].
    pub fn calibration(
        &self,
        compute: &mut dyn Compute,
        choice: &LevelChoice,
        data: &[SharedDataset],
        sets: &CalibrationSets,
    ) -> Result<Calibration<'a>> {
        let LevelChoice { score, temperature, .. } = *choice;
        let fit = sets.fit.map(|place| &self.sets[place]);
        let (head, classes) = (self.head.clone(), self.classes.clone());
        let scorer = Scorer::new(compute, score, temperature, head, classes, fit)?;
        let mut samples = |place: Option<usize>| -> Result<(Vec<Truth>, Vec<Scored>)> {
            let Some(place) = place else { return Ok((Vec::new(), Vec::new())) };
            Ok((self.truths(&*data[place]), scorer.samples(compute, &self.sets[place])?))
        };
        let (seen, novel) = (samples(Some(sets.seen))?, samples(sets.novel.of(self))?);
        let gathered = Gathered::new((self.classes.level, score), (&seen.0, &seen.1), (&novel.0, &novel.1));
        Ok(Calibration { trained: self.trained, data: data[sets.seen].clone(), scorer, gathered })
    }
}

/// The scored samples that a head is calibrated on.
#[derive(Debug, Clone)]
pub struct Calibration<'a> {
    trained: &'a Trained,
    data: SharedDataset,
    scorer: Scorer,
    /// The two groups, and how many samples are of neither.
    pub gathered: Gathered,
}

impl Calibration<'_> {
    /// The head's entry in a threshold file.
    pub fn entry(&self, threshold: LevelThreshold) -> LevelEntry {
        LevelEntry::new(self.trained, &*self.data, &self.scorer, threshold, &self.gathered.scores)
    }
}

/// The answers of a threshold file for a data set, level by level.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Score and prediction of each sample.
    pub samples: Vec<Vec<Scored>>,
    /// Conformal p-value of each sample.
    pub p_values: Vec<Vec<f64>>,
    /// Answer for each sample.
    pub answers: Vec<Vec<Answer>>,
}

/// Samples as one level judges them, whatever the other says.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelJudgement {
    /// Score and prediction of each sample.
    pub samples: Vec<Scored>,
    /// Conformal p-value of each sample.
    pub p_values: Vec<f64>,
    /// Whether the level's own threshold flags each sample.
    pub flagged: Vec<bool>,
}

/// Scores, p-values and flags of the samples of a cache; `scorer` is the entry's ([`LevelEntry::scorer`]). With a false discovery rate,
/// samples are flagged by the Benjamini-Hochberg procedure over the whole set instead of by the threshold.
///
/// # Errors
/// As [`Scorer::samples`].
pub fn judge_level(
    compute: &mut dyn Compute,
    entry: &LevelEntry,
    scorer: &Scorer,
    set: &FeatureSet,
    false_discovery_rate: Option<f64>,
) -> Result<LevelJudgement> {
    let samples = scorer.samples(compute, set)?;
    let p_values = super::p_values(&entry.calibration, samples.iter().map(Scored::flagging_order));
    let flagged = match false_discovery_rate {
        None => samples.iter().map(|sample| entry.threshold.flags(sample)).collect(),
        Some(rate) => super::benjamini_hochberg(&p_values, rate),
    };
    Ok(LevelJudgement { samples, p_values, flagged })
}

/// Scores, p-values and answers of the samples at one place among the caches of all heads. With a false discovery rate, samples
/// are flagged by the Benjamini-Hochberg procedure over the whole set instead of by thresholds.
///
/// # Errors
/// Caches that do not fit the heads.
///
/// # Panics
/// If an entry of the file is of none of the heads ([`HeadSets::is_of`]).
pub fn judge(
    compute: &mut dyn Compute,
    file: &ThresholdFile,
    heads: &[HeadSets<'_>],
    place: usize,
    false_discovery_rate: Option<f64>,
) -> Result<Judgement> {
    let heads: Vec<&HeadSets<'_>> = file.levels.iter().map(|entry| own_head(entry, heads)).collect();
    let (mut samples, mut p_values, mut flags) = (Vec::new(), Vec::new(), Vec::new());
    for (entry, own) in file.levels.iter().zip(&heads) {
        let scorer = entry.scorer(own.head.clone())?;
        let judged = judge_level(compute, entry, &scorer, &own.sets[place], false_discovery_rate)?;
        samples.push(judged.samples);
        p_values.push(judged.p_values);
        flags.push(judged.flagged);
    }
    let inputs: Vec<LevelInput<'_>> = file
        .levels
        .iter()
        .enumerate()
        .map(|(level, entry)| LevelInput {
            entry,
            head: &heads[level].head,
            set: &heads[level].sets[place],
            samples: &samples[level],
            flagged: &flags[level],
        })
        .collect();
    let answers = decide(file.hierarchy, &inputs)?;
    Ok(Judgement { samples, p_values, answers })
}

fn own_head<'h, 'a>(entry: &LevelEntry, heads: &'h [HeadSets<'a>]) -> &'h HeadSets<'a> {
    heads.iter().find(|head| head.is_of(entry)).expect("a head for each entry")
}

/// The samples of one level with truths, scores and answers; of one set or several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdicts {
    truths: Vec<Truth>,
    samples: Vec<Scored>,
    answers: Vec<Answer>,
}

/// Judges the samples that the answers are reported on: the verdicts of each level in the file's order. `data` holds the sets
/// at their places.
///
/// # Errors
/// As [`judge`].
pub fn report(
    compute: &mut dyn Compute,
    file: &ThresholdFile,
    heads: &[HeadSets<'_>],
    data: &[SharedDataset],
    sets: &ReportSets,
) -> Result<Vec<Verdicts>> {
    let mut verdicts = vec![Verdicts::default(); file.levels.len()];
    for place in sets.seen.into_iter().chain(sets.novel.all()).chain(sets.foreign.clone()) {
        let judged = judge(compute, file, heads, place, None)?;
        let answers = judged.samples.into_iter().zip(judged.answers);
        for ((entry, verdicts), (samples, answers)) in file.levels.iter().zip(&mut verdicts).zip(answers) {
            let head = own_head(entry, heads);
            let truths = head.truths(&*data[place]).into_iter().map(|truth| match place {
                _ if sets.foreign.contains(&place) => Truth::Unseen,
                _ if sets.seen == Some(place) => truth,
                _ if sets.novel.of(head) == Some(place) => truth.given_as_novel(),
                // Novel samples that are meant for another head are no test of this one.
                _ => Truth::Unknown,
            });
            verdicts.extend(Verdicts { truths: truths.collect(), samples, answers });
        }
    }
    Ok(verdicts)
}

impl Verdicts {
    /// Adds those of other samples.
    pub fn extend(&mut self, other: Verdicts) {
        self.truths.extend(other.truths);
        self.samples.extend(other.samples);
        self.answers.extend(other.answers);
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.truths.is_empty()
    }

    /// The metrics of the answers; `replicates` of the bootstrap give the intervals of AUROC, 0 none.
    ///
    /// # Errors
    /// A bootstrap that is impossible.
    pub fn metrics(&self, replicates: u32, seed: u64) -> Result<LevelMetrics> {
        let judged = Judged { truths: &self.truths, samples: &self.samples, answers: &self.answers };
        evaluate(&judged, replicates, seed)
    }

    /// Shares of the samples that are answered as novel, whoever flagged them.
    pub fn rates(&self) -> Rates {
        Rates::of(&self.truths, &self.answers)
    }
}
