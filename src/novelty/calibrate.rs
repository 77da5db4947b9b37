//! From the feature caches of a head to its thresholds, and from thresholds to their metrics.

use super::decide::{Answer, LevelInput, decide};
use super::evaluate::{Judged, LevelMetrics, evaluate};
use super::file::{LevelEntry, Rates, ThresholdFile};
use super::rule::Rule;
use super::samples::Scored;
use super::score::{Score, Scorer};
use super::threshold::{LevelThreshold, calibrate_level, candidates};
use super::truth::{Gathered, Truth};
use crate::checkpoint::{HeadClasses, Trained};
use crate::data::Dataset;
use crate::error::Result;
use crate::features::{FeatureSet, Head};
use crate::ood::Compute;

/// A feature cache with the truths of its samples for its head.
#[derive(Debug, Clone)]
pub struct KnownSet {
    /// The cache.
    pub set: FeatureSet,
    /// A truth for each sample.
    pub truths: Vec<Truth>,
}

/// One head of a network with the caches it is calibrated on.
#[derive(Debug, Clone)]
pub struct HeadCaches<'a> {
    /// The network.
    pub trained: &'a Trained,
    /// Meaning of the head's logits.
    pub classes: &'a HeadClasses,
    /// Its last linear map.
    pub head: &'a Head,
    /// The data set of the seen samples; its names of classes count where the checkpoint does not have both levels.
    pub data: &'a dyn Dataset,
    /// Samples the network was trained on, for scores that are fitted.
    pub fit: Option<&'a FeatureSet>,
    /// Samples of known classes that the network was not trained on.
    pub seen: &'a KnownSet,
    /// Samples of other classes.
    pub novel: Option<&'a KnownSet>,
}

/// The choices with which one level is calibrated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelChoice {
    /// The score that is thresholded.
    pub score: Score,
    /// How the threshold is chosen.
    pub rule: Rule,
    /// The divisor of the logits before the softmax; need not be the temperature of the training.
    pub temperature: f64,
}

/// A calibrated head, with details for people.
#[derive(Debug, Clone)]
pub struct CalibratedHead {
    /// For the threshold file.
    pub entry: LevelEntry,
    /// The two groups, and how many samples are of neither.
    pub gathered: Gathered,
    /// The threshold of every rule these samples allow.
    pub candidates: Vec<LevelThreshold>,
}

/// Scores the caches of a head and chooses its threshold.
///
/// # Errors
/// As [`Scorer::new`], [`Scorer::samples`] and [`calibrate_level`].
pub fn calibrate_head(
    compute: &mut dyn Compute,
    caches: &HeadCaches<'_>,
    choice: &LevelChoice,
) -> Result<CalibratedHead> {
    let LevelChoice { score, rule, temperature } = *choice;
    let scorer = Scorer::new(score, temperature, caches.head.clone(), caches.classes.clone(), caches.fit)?;
    let seen = scorer.samples_on(compute, &caches.seen.set)?;
    let novel = match caches.novel {
        None => Vec::new(),
        Some(novel) => scorer.samples_on(compute, &novel.set)?,
    };
    let novel_truths = caches.novel.map_or(&[][..], |novel| &novel.truths);
    let level = caches.classes.level;
    let gathered = Gathered::new((level, score), (&caches.seen.truths, &seen), (novel_truths, &novel));
    let threshold = calibrate_level(&gathered.scores, rule)?;
    let candidates = candidates(&gathered.scores)?;
    let entry = LevelEntry::new(caches.trained, caches.data, &scorer, threshold, &gathered.scores);
    Ok(CalibratedHead { entry, gathered, candidates })
}

/// One data set's caches, one for each level of a threshold file in its order, and the heads they are of.
#[derive(Debug, Clone, Copy)]
pub struct LevelCaches<'a> {
    /// The last linear map of each level's head.
    pub heads: &'a [Head],
    /// The cache of each level.
    pub sets: &'a [&'a FeatureSet],
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

/// Scores, p-values and answers of a data set. With a false discovery rate, samples are flagged by the
/// Benjamini-Hochberg procedure over the whole set instead of by thresholds.
///
/// # Errors
/// Caches that do not fit the heads.
///
/// # Panics
/// If the number of heads or of caches is not the number of levels.
pub fn judge(
    compute: &mut dyn Compute,
    file: &ThresholdFile,
    caches: &LevelCaches<'_>,
    false_discovery_rate: Option<f64>,
) -> Result<Judgement> {
    let LevelCaches { heads, sets } = *caches;
    assert_eq!((heads.len(), sets.len()), (file.levels.len(), file.levels.len()), "a cache for each level");
    let (mut samples, mut p_values, mut flags) = (Vec::new(), Vec::new(), Vec::new());
    for ((entry, head), set) in file.levels.iter().zip(heads).zip(sets) {
        let scored = entry.scorer(head.clone())?.samples_on(compute, set)?;
        let p = super::p_values(&entry.calibration, scored.iter().map(Scored::flagging_order));
        flags.push(match false_discovery_rate {
            None => scored.iter().map(|sample| entry.threshold.flags(sample)).collect(),
            Some(rate) => super::benjamini_hochberg(&p, rate),
        });
        samples.push(scored);
        p_values.push(p);
    }
    let inputs: Vec<LevelInput<'_>> = file
        .levels
        .iter()
        .enumerate()
        .map(|(level, entry)| LevelInput {
            entry,
            head: &heads[level],
            set: sets[level],
            samples: &samples[level],
            flagged: &flags[level],
        })
        .collect();
    let answers = decide(file.hierarchy, &inputs)?;
    Ok(Judgement { samples, p_values, answers })
}

impl Judgement {
    /// Both data sets one after the other, for instance seen and novel samples that are evaluated together.
    pub fn and(mut self, other: Judgement) -> Judgement {
        for (own, other) in self.samples.iter_mut().zip(other.samples) {
            own.extend(other);
        }
        for (own, other) in self.p_values.iter_mut().zip(other.p_values) {
            own.extend(other);
        }
        for (own, other) in self.answers.iter_mut().zip(other.answers) {
            own.extend(other);
        }
        self
    }

    /// The numbers of one level; `replicates` of the bootstrap give the intervals of AUROC, 0 none.
    ///
    /// # Errors
    /// The numbers of truths and samples differ.
    pub fn evaluate(
        &self,
        level: usize,
        truths: &[Truth],
        replicates: u32,
        seed: u64,
    ) -> Result<LevelMetrics> {
        let judged = Judged { truths, samples: &self.samples[level], answers: &self.answers[level] };
        evaluate(&judged, replicates, seed)
    }

    /// Shares of the samples of one level that are answered as novel, whoever flagged them.
    pub fn rates(&self, level: usize, truths: &[Truth]) -> Rates {
        Rates::of(truths, &self.answers[level])
    }
}
