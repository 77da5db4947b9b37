//! Metrics of the answers of one level: of seen samples, of outliers, of classes that training never saw.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::decide::Answer;
use super::notebook::NotebookMetrics;
use super::proportion::Proportion;
use super::samples::Scored;
use super::truth::Truth;
use crate::error::{Error, Result};
use crate::ood::metrics::{COVERAGE, Curves, Interval, oscr};

/// The samples of one level, with truths, scores and answers.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// Class of each sample; samples of unknown class count nowhere.
    pub truths: &'a [Truth],
    /// Score of each.
    pub samples: &'a [Scored],
    /// Answer for each.
    pub answers: &'a [Answer],
}

/// How well a score separates seen samples from others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Separation {
    /// Area under the ROC curve.
    pub auroc: f64,
    /// 95 % bootstrap interval of it, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auroc_interval95: Option<Interval>,
    /// Area under the open-set classification rate curve, which ends at the closed-set accuracy (Dhamija et al., 2018).
    pub oscr: f64,
}

/// Numbers of one level. Shares come with Clopper-Pearson bounds; a share of no samples is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LevelMetrics {
    /// All samples answered correctly: a seen one by its class, any other as novel. Says little where one group is large.
    pub overall_accuracy: Option<Proportion>,
    /// Seen samples answered by their class.
    pub seen_accuracy: Option<Proportion>,
    /// Samples of the class `novel` answered as novel.
    pub novel_accuracy: Option<Proportion>,
    /// Samples of classes that training never saw answered as novel.
    pub pseudo_novel_flagged: Option<Proportion>,
    /// Seen samples answered as novel, and nothing else.
    pub false_novel_rate: Option<Proportion>,
    /// Seen samples answered by another class.
    pub confusion_rate: Option<Proportion>,
    /// Seen samples whose class has the largest logit, whatever the thresholds say.
    pub closed_set_accuracy: Option<Proportion>,
    /// Mean over classes of the share answered correctly, each class counted once; all that is novel is one class.
    pub macro_accuracy: Option<f64>,
    /// Mean over classes of F1, novel among them; classes that occur as truth or as answer.
    pub macro_f1: Option<f64>,
    /// Seen samples against classes that training never saw.
    pub unseen: Option<Separation>,
    /// Seen samples against the class `novel`; easy where training saw it.
    pub outliers: Option<Separation>,
    /// The metrics that notebook A calls by these names.
    pub notebook: NotebookMetrics,
}

/// Judges the answers of one level; `replicates` of the bootstrap give the intervals of AUROC, 0 none.
///
/// # Errors
/// Numbers of samples that differ, or a bootstrap that is impossible.
pub fn evaluate(judged: &Judged<'_>, replicates: u32, seed: u64) -> Result<LevelMetrics> {
    let counts = [judged.truths.len(), judged.samples.len(), judged.answers.len()];
    if counts.iter().any(|count| *count != counts[0]) {
        return Err(Error::invalid(format!(
            "an evaluation needs a truth, a score and an answer for each sample; found {counts:?}"
        )));
    }
    let pairs = || judged.truths.iter().zip(judged.answers);
    // The share of the samples of some truths whose answer is as wanted.
    let share = |among: fn(&Truth) -> bool, wanted: fn(&Truth, &Answer) -> bool| {
        let group = pairs().filter(|(truth, _)| among(truth));
        Proportion::of(group.map(|(truth, answer)| wanted(truth, answer)))
    };
    let known = |truth: &Truth| *truth != Truth::Unknown;
    let seen = |truth: &Truth| matches!(truth, Truth::Class(_));
    let outlier = |truth: &Truth| *truth == Truth::Outlier;
    let unseen = |truth: &Truth| *truth == Truth::Unseen;
    let correct = |truth: &Truth, answer: &Answer| is_correct(truth, answer.known());
    let novel = |_: &Truth, answer: &Answer| answer.novel;
    let confused = |truth: &Truth, answer: &Answer| !answer.novel && !is_correct(truth, answer.known());
    let closed_set = |truth: &Truth, answer: &Answer| is_correct(truth, Some(answer.class));
    let (seen_accuracy, novel_accuracy) = (share(seen, correct), share(outlier, correct));
    let pseudo_novel_flagged = share(unseen, novel);
    let (macro_accuracy, macro_f1) = macro_figures(pairs());
    let validation = share(|truth| matches!(truth, Truth::Class(_) | Truth::Outlier), correct);
    let notebook = NotebookMetrics::new(validation, seen_accuracy, novel_accuracy, pseudo_novel_flagged);
    Ok(LevelMetrics {
        overall_accuracy: share(known, correct),
        seen_accuracy,
        novel_accuracy,
        pseudo_novel_flagged,
        false_novel_rate: share(seen, novel),
        confusion_rate: share(seen, confused),
        closed_set_accuracy: share(seen, closed_set),
        macro_accuracy,
        macro_f1,
        unseen: separation(judged, Truth::Unseen, replicates, seed)?,
        outliers: separation(judged, Truth::Outlier, replicates, seed)?,
        notebook,
    })
}

/// Whether an answer (a class, or `None` for novel) is the true one.
fn is_correct(truth: &Truth, answer: Option<i64>) -> bool {
    match truth {
        Truth::Class(class) => answer == Some(*class),
        Truth::Outlier | Truth::Unseen => answer.is_none(),
        Truth::Unknown => false,
    }
}

/// Mean recall over the classes that occur, and mean F1 over the classes that occur or are answered; `None` is the class of
/// everything novel.
fn macro_figures<'a>(pairs: impl Iterator<Item = (&'a Truth, &'a Answer)>) -> (Option<f64>, Option<f64>) {
    let (mut true_count, mut answered, mut both) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (truth, answer) in pairs {
        let class = match truth {
            Truth::Class(class) => Some(*class),
            Truth::Outlier | Truth::Unseen => None,
            Truth::Unknown => continue,
        };
        *true_count.entry(class).or_insert(0u64) += 1;
        *answered.entry(answer.known()).or_insert(0u64) += 1;
        *both.entry(class).or_insert(0u64) += u64::from(class == answer.known());
    }
    let count =
        |counts: &BTreeMap<Option<i64>, u64>, class: &Option<i64>| *counts.get(class).unwrap_or(&0) as f64;
    let mean =
        |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let recalls = true_count.keys().map(|class| count(&both, class) / count(&true_count, class)).collect();
    let classes: BTreeSet<&Option<i64>> = true_count.keys().chain(answered.keys()).collect();
    let f1 = |class: &Option<i64>| {
        2.0 * count(&both, class) / (count(&true_count, class) + count(&answered, class))
    };
    (mean(recalls), mean(classes.into_iter().map(f1).collect()))
}

/// Seen samples against those of another group, if there are both.
fn separation(judged: &Judged<'_>, against: Truth, replicates: u32, seed: u64) -> Result<Option<Separation>> {
    let (mut seen, mut correct, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for ((truth, sample), answer) in judged.truths.iter().zip(judged.samples).zip(judged.answers) {
        if matches!(truth, Truth::Class(_)) {
            seen.push(sample.score);
            correct.push(is_correct(truth, Some(answer.class)));
        } else if *truth == against {
            other.push(sample.score);
        }
    }
    if seen.is_empty() || other.is_empty() {
        return Ok(None);
    }
    let curves = Curves::new(&seen, &other)?;
    let interval = (replicates > 0).then(|| curves.bootstrap(replicates, seed)).transpose()?;
    Ok(Some(Separation {
        auroc: curves.id_positive.auroc(),
        auroc_interval95: interval.map(|interval| interval.auroc),
        oscr: oscr(&seen, &correct, &other)?,
    }))
}

const _: () = assert!(COVERAGE == 0.95, "`auroc_interval95` says so");

#[cfg(test)]
#[path = "evaluate_tests.rs"]
pub(super) mod tests;
