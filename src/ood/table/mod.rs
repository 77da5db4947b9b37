//! The results of an evaluation: what `metrics.json` holds, and from it the CSV and the terminal table.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::metrics::{Comparison, Interval, Intervals, OodMetrics, ToBest};
use crate::error::{Error, Result};
use crate::files;

mod compact;
mod csv;
mod full_spectrum;
mod notes;
mod terminal;
mod tuning;

pub use full_spectrum::{FullSpectrum, ShiftedEntry, ShiftedSet};
pub(crate) use terminal::p_in_words;
pub use tuning::{Candidate, PseudoOod, TunedScore, Tuning, TuningGain, TuningSplit};

/// The key, among groups, of means over all OOD sets, where there are several.
pub const ALL: &str = "all";
/// Share of tied pairs above which the order of equal scores matters to an AUROC.
const MANY_TIES: f64 = 0.001;

/// The standard deviation of a sample, dividing by n - 1; `None` of fewer than two values, which have none.
pub fn sample_deviation(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt())
}

/// Largest `metrics.json` that is read back: far more than a thousand data sets with twenty scores each need.
const LARGEST_JSON: u64 = 64 << 20;

/// How far an OOD set lies from the ID data, in OpenOOD's two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Semantically close to the ID classes, for instance CIFAR-10 for CIFAR-100.
    Near,
    /// Of another kind, for instance street numbers for CIFAR-100.
    Far,
}

impl Group {
    /// `near` or `far`, as on the command line and in `metrics.json`.
    pub fn name(self) -> &'static str {
        match self {
            Group::Near => "near",
            Group::Far => "far",
        }
    }
}

/// One OOD set of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OodSet {
    /// The name in tables and file names.
    pub name: String,
    /// Its group, if it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// Number of samples.
    pub samples: u64,
}

/// The ID side of an evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IdSet {
    /// Number of samples.
    pub samples: u64,
    /// Closed-set accuracy as a fraction, where labels are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

/// Selective prediction by one score on ID samples alone, where a wrong answer is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IdRisk {
    /// Area under the risk-coverage curve.
    pub aurc: f64,
    /// Area under the generalised risk-coverage curve.
    pub augrc: f64,
}

/// One score on one OOD set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The metrics, as fractions.
    #[serde(flatten)]
    pub metrics: OodMetrics,
    /// DeLong's standard error of the AUROC; of at least two samples a side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_se: Option<f64>,
    /// The 95 % interval of the AUROC by that error, normal on the scale of the logit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_interval95: Option<Interval>,
    /// Area under the risk-coverage curve of ID and OOD samples together, where ID labels are known: a failure is a wrong answer on an ID
    /// sample, or any OOD sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aurc: Option<f64>,
    /// Area under the generalised risk-coverage curve of the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augrc: Option<f64>,
    /// Share of the pairs of an ID and an OOD sample whose scores are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied_pairs: Option<f64>,
    /// The AUROC if all of these were counted against the score, and for it; where they are more than 0.1 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_if_ties_broken: Option<Interval>,
    /// The score against the best of the others on this set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_best: Option<ToBest>,
    /// Area under the open-set classification rate curve, where ID labels are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oscr: Option<f64>,
    /// Bootstrap intervals, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval95: Option<Intervals>,
}

impl From<OodMetrics> for Entry {
    /// The metrics alone.
    fn from(metrics: OodMetrics) -> Entry {
        Entry {
            metrics,
            auroc_se: None,
            auroc_interval95: None,
            aurc: None,
            augrc: None,
            tied_pairs: None,
            auroc_if_ties_broken: None,
            to_best: None,
            oscr: None,
            interval95: None,
        }
    }
}

impl Entry {
    /// Notes the share of ID and OOD pairs that are tied, each of which the AUROC counts half.
    pub(super) fn set_ties(&mut self, tied_pairs: f64) {
        self.tied_pairs = Some(tied_pairs);
        let auroc = self.metrics.auroc;
        let range = [(auroc - tied_pairs / 2.0).max(0.0), (auroc + tied_pairs / 2.0).min(1.0)];
        self.auroc_if_ties_broken = (tied_pairs > MANY_TIES).then_some(range);
    }

    /// The 95 % interval of the AUROC to show: the bootstrap's, where it was asked for, or else DeLong's.
    pub(crate) fn shown_interval(&self) -> Option<Interval> {
        self.interval95.map(|intervals| intervals.auroc).or(self.auroc_interval95)
    }
}

/// Means of a score over the OOD sets of a group, each set counted once whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GroupMean {
    /// Mean area under the ROC curve.
    pub auroc: f64,
    /// Mean false positive rate, OOD positive.
    pub fpr95: f64,
    /// Mean false positive rate, ID positive.
    pub fpr95_id_positive: f64,
    /// Mean average precision, ID positive.
    pub aupr_in: f64,
    /// Mean average precision, OOD positive.
    pub aupr_out: f64,
    /// Mean trapezoid area, ID positive.
    pub aupr_in_trapezoid: f64,
    /// Mean trapezoid area, OOD positive.
    pub aupr_out_trapezoid: f64,
    /// Mean area under the risk-coverage curve, where ID labels are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aurc: Option<f64>,
    /// Mean area under the generalised risk-coverage curve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augrc: Option<f64>,
    /// DeLong's standard error of the mean AUROC: the sets share the ID samples, and what that adds is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_se: Option<f64>,
    /// The 95 % interval of the mean AUROC by that error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_interval95: Option<Interval>,
    /// The score against the best of the others by this mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_best: Option<ToBest>,
}

/// Facts about the training features that one fit found out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FitSummary {
    /// Dimension of the subspace a score works in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dim: Option<usize>,
    /// Numerical rank of the matrix that was inverted or decomposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Ratio of its largest to its smallest kept eigenvalue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<f64>,
    /// Further numbers by name, for instance ViM's α or ReAct's clip.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, f64>,
}

/// Checks that need no ground truth; a result that fails them is not worth reading.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sanity {
    /// AUROC of ID training against ID test samples by score: near 0.5 unless the score memorised the training set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub train_versus_test_auroc: BTreeMap<String, f64>,
    /// AUROC of one half of the ID test samples against the other by score: near 0.5 by construction.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub half_versus_half_auroc: BTreeMap<String, f64>,
    /// Share of ID scores that equal another ID score, by score.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tied_share: BTreeMap<String, f64>,
    /// Warnings for the reader, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What a score is measured on: an OOD set, or a group of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    /// One set, by name.
    Set(&'a str),
    /// A mean over sets, by the key in `groups`.
    Mean(&'a str),
}

impl Part<'_> {
    /// A score against the best of the others here.
    pub(crate) fn to_best(self, evaluation: &Evaluation, method: &str) -> Option<ToBest> {
        match self {
            Part::Set(name) => evaluation.entry(name, method)?.to_best,
            Part::Mean(group) => evaluation.groups.get(group)?.get(method)?.to_best,
        }
    }

    /// AUROC and FPR95 (OOD positive) of a score here.
    pub(crate) fn rates(self, evaluation: &Evaluation, method: &str) -> Option<(f64, f64)> {
        match self {
            Part::Set(name) => {
                evaluation.entry(name, method).map(|entry| (entry.metrics.auroc, entry.metrics.fpr95))
            }
            Part::Mean(group) => {
                evaluation.groups.get(group)?.get(method).map(|mean| (mean.auroc, mean.fpr95))
            }
        }
    }

    /// The largest AUROC of a score here.
    pub(crate) fn best_auroc(self, evaluation: &Evaluation) -> f64 {
        let aurocs = evaluation.methods.iter().filter_map(|method| Some(self.rates(evaluation, method)?.0));
        aurocs.fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Everything `metrics.json` holds. Rates are fractions; scores are confidences (larger = in-distribution).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The ID side.
    #[serde(default)]
    pub id: IdSet,
    /// The OOD sets in the order they were given.
    #[serde(default)]
    pub datasets: Vec<OodSet>,
    /// The scores in the order they are shown.
    #[serde(default)]
    pub methods: Vec<String>,
    /// OOD set → score → metrics.
    pub ood: BTreeMap<String, BTreeMap<String, Entry>>,
    /// Group (`near`, `far`; of several sets also `all`) → score → means.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, BTreeMap<String, GroupMean>>,
    /// Score → selective prediction on ID samples alone, where ID labels are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub id_risk: BTreeMap<String, IdRisk>,
    /// How scores were compared with the best one, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// The same with covariate-shifted ID sets on the ID side, where there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_spectrum: Option<FullSpectrum>,
    /// How constants were chosen without OOD data, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
    /// Score → what its fit found.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fits: BTreeMap<String, FitSummary>,
    /// Sanity checks.
    #[serde(default)]
    pub sanity: Sanity,
}

impl Evaluation {
    /// The score of the highest mean AUROC over the OOD sets; of equal ones the first.
    pub fn best_method(&self) -> Option<String> {
        let mean = |method: &String| {
            let own = self.ood.values().filter_map(|by_method| Some(by_method.get(method)?.metrics.auroc));
            let aurocs: Vec<f64> = own.collect();
            aurocs.iter().sum::<f64>() / aurocs.len().max(1) as f64
        };
        let mut best: Option<(f64, &String)> = None;
        for method in &self.methods {
            let own = mean(method);
            if best.is_none_or(|(most, _)| own > most) {
                best = Some((own, method));
            }
        }
        best.map(|(_, method)| method.clone())
    }

    /// An evaluation without results yet.
    pub fn new(id: IdSet) -> Evaluation {
        Evaluation { id, ..Evaluation::default() }
    }

    /// Adds the results of one OOD set: pairs of score name and metrics, in the order they are shown.
    ///
    /// # Errors
    /// When the name is `id` (reserved for the ID scores) or was added before.
    pub fn add(&mut self, set: OodSet, results: impl IntoIterator<Item = (String, Entry)>) -> Result<()> {
        if set.name == "id" {
            return Err(Error::invalid(
                "an OOD set is named `id`; that name is reserved for the ID scores: rename it",
            ));
        }
        if self.ood.contains_key(&set.name) {
            return Err(Error::invalid(format!("two OOD sets are named `{}`; rename one of them", set.name)));
        }
        let mut by_method = BTreeMap::new();
        for (method, entry) in results {
            if !self.methods.contains(&method) {
                self.methods.push(method.clone());
            }
            by_method.insert(method, entry);
        }
        self.ood.insert(set.name.clone(), by_method);
        self.datasets.push(set);
        self.groups = self.group_means();
        Ok(())
    }

    /// The scores that may be the best one on a set or by the mean over a group, in the order they are shown.
    pub(crate) fn within_noise(&self, of: Part<'_>) -> Vec<&str> {
        let own = |method: &String| of.to_best(self, method).is_some_and(|to_best| to_best.within_noise);
        self.methods.iter().filter(|method| own(method)).map(String::as_str).collect()
    }

    /// The metrics of one score on one OOD set.
    pub fn entry(&self, dataset: &str, method: &str) -> Option<&Entry> {
        self.ood.get(dataset)?.get(method)
    }

    fn group_means(&self) -> BTreeMap<String, BTreeMap<String, GroupMean>> {
        let mut groups = BTreeMap::new();
        let all = (self.datasets.len() > 1).then_some((ALL, None));
        let parts = [Group::Near, Group::Far].map(|group| (group.name(), Some(group)));
        for (name, group) in parts.into_iter().chain(all) {
            let means: BTreeMap<String, GroupMean> = self
                .methods
                .iter()
                .filter_map(|method| Some((method.clone(), self.group_mean(group, method)?)))
                .collect();
            if !means.is_empty() {
                groups.insert(name.to_string(), means);
            }
        }
        groups
    }

    /// The mean over a group, or over all sets, if the score has a result on every one of them.
    fn group_mean(&self, group: Option<Group>, method: &str) -> Option<GroupMean> {
        let members: Vec<&Entry> = self
            .datasets
            .iter()
            .filter(|set| group.is_none() || set.group == group)
            .map(|set| self.entry(&set.name, method))
            .collect::<Option<_>>()?;
        if members.is_empty() {
            return None;
        }
        let mean = |value: fn(&OodMetrics) -> f64| {
            members.iter().map(|entry| value(&entry.metrics)).sum::<f64>() / members.len() as f64
        };
        let known = |value: fn(&Entry) -> Option<f64>| {
            let values = members.iter().map(|entry| value(entry)).collect::<Option<Vec<f64>>>()?;
            Some(values.iter().sum::<f64>() / values.len() as f64)
        };
        Some(GroupMean {
            aurc: known(|entry| entry.aurc),
            augrc: known(|entry| entry.augrc),
            auroc_se: None,
            auroc_interval95: None,
            to_best: None,
            auroc: mean(|m| m.auroc),
            fpr95: mean(|m| m.fpr95),
            fpr95_id_positive: mean(|m| m.fpr95_id_positive),
            aupr_in: mean(|m| m.aupr_in),
            aupr_out: mean(|m| m.aupr_out),
            aupr_in_trapezoid: mean(|m| m.aupr_in_trapezoid),
            aupr_out_trapezoid: mean(|m| m.aupr_out_trapezoid),
        })
    }

    /// Writes `metrics.json`.
    ///
    /// # Errors
    /// When the file cannot be written; an older one is then untouched.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        files::write_json(path, self)
    }

    /// Reads `metrics.json` back; a file that has only the `ood` part serves as well.
    ///
    /// # Errors
    /// When the file is missing, larger than 64 MiB, or not the expected JSON; the message names line and column.
    pub fn read_json(path: &Path) -> Result<Evaluation> {
        let expected = "the metrics of an OOD evaluation (`{\"ood\": {data set: {score: {…}}}}`)";
        let mut evaluation: Evaluation = files::read_json(path, LARGEST_JSON, expected)?;
        evaluation.complete_lists();
        Ok(evaluation)
    }

    /// Names that occur under `ood` but in no list go to the end of the lists, in alphabetical order.
    fn complete_lists(&mut self) {
        for (dataset, by_method) in &self.ood {
            if !self.datasets.iter().any(|set| set.name == *dataset) {
                let samples = by_method.values().next().map_or(0, |entry| entry.metrics.n_ood);
                self.datasets.push(OodSet { name: dataset.clone(), group: None, samples });
            }
            for method in by_method.keys() {
                if !self.methods.contains(method) {
                    self.methods.push(method.clone());
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
