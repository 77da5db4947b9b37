//! What tuning without OOD data found: the constants of each score that tell held-out classes best, and beside them, never
//! mixed with them, what OOD data would have chosen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sample_deviation;
use super::terminal::{push_wrapped, shown};
use crate::text_table::{Column, TextTable};

/// Where the samples come from that stand for OOD data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PseudoOod {
    /// Classes of the training set that fits leave out; the network has seen them.
    #[default]
    HeldOutClasses,
    /// Classes that networks trained for the purpose have never seen.
    UnseenClasses,
}

/// One division of the classes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TuningSplit {
    /// Classes that stand for OOD data, ascending.
    pub held_out: Vec<usize>,
    /// Samples that scores were fitted on.
    pub fitted: u64,
    /// Samples of the other classes, outside the fit.
    pub id: u64,
    /// Samples of the held-out classes.
    pub ood: u64,
}

/// A score with some constants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name, with constants that differ from the default.
    pub score: String,
    /// AUROC on each split.
    pub by_split: Vec<f64>,
    /// Their mean, by which constants are chosen.
    pub auroc: f64,
    /// Their sample standard deviation; of at least two splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_std: Option<f64>,
    /// OOD set → AUROC of the score fitted on the whole training set. It is no part of the choice.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ood: BTreeMap<String, f64>,
}

impl Candidate {
    /// A candidate from its AUROC on each split.
    pub(in crate::ood) fn new(score: String, by_split: Vec<f64>) -> Candidate {
        let auroc = by_split.iter().sum::<f64>() / by_split.len().max(1) as f64;
        let auroc_std = sample_deviation(&by_split);
        Candidate { score, by_split, auroc, auroc_std, ood: BTreeMap::new() }
    }

    /// Mean AUROC over the OOD sets.
    pub fn mean_on_ood(&self) -> Option<f64> {
        let sum: f64 = self.ood.values().sum();
        (!self.ood.is_empty()).then(|| sum / self.ood.len() as f64)
    }
}

/// A score, and what was tried with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TunedScore {
    /// The candidate of the highest mean AUROC over splits, where it is clearly better than the default.
    pub chosen: String,
    /// The one with the default constants, or the first that was asked for.
    pub default: String,
    /// All of them.
    pub candidates: Vec<Candidate>,
}

/// A candidate takes the place of the default where its mean gain is more than so many standard errors of it over the splits.
const CLEARLY: f64 = 2.0;

impl TunedScore {
    /// Chooses among candidates. Where the first is the default of the score, another has to be clearly better than it; of a sweep that
    /// was asked for the one of the highest mean AUROC is taken, and of equal ones the first.
    pub(in crate::ood) fn choose(candidates: Vec<Candidate>, first_is_default: bool) -> Option<TunedScore> {
        let first = candidates.first()?;
        let mut best = first;
        for candidate in &candidates {
            let may = !first_is_default || is_clearly_better(candidate, first);
            if may && candidate.auroc > best.auroc {
                best = candidate;
            }
        }
        Some(TunedScore { chosen: best.score.clone(), default: first.score.clone(), candidates })
    }

    fn candidate(&self, score: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.score == score)
    }

    /// The chosen candidate.
    pub fn chosen_candidate(&self) -> Option<&Candidate> {
        self.candidate(&self.chosen)
    }

    /// The default.
    pub fn default_candidate(&self) -> Option<&Candidate> {
        self.candidate(&self.default)
    }

    /// The candidate of the highest mean AUROC over the OOD sets: what OOD data would have chosen.
    pub fn best_on_ood(&self) -> Option<&Candidate> {
        let mut best: Option<&Candidate> = None;
        for candidate in &self.candidates {
            let mean = candidate.mean_on_ood()?;
            if best.and_then(Candidate::mean_on_ood).is_none_or(|most| mean > most) {
                best = Some(candidate);
            }
        }
        best
    }
}

/// Whether a candidate gains on another, split by split, more than chance would.
fn is_clearly_better(candidate: &Candidate, other: &Candidate) -> bool {
    let gains: Vec<f64> = candidate.by_split.iter().zip(&other.by_split).map(|(a, b)| a - b).collect();
    let mean = gains.iter().sum::<f64>() / gains.len().max(1) as f64;
    let error = sample_deviation(&gains).map(|deviation| deviation / (gains.len() as f64).sqrt());
    error.is_some_and(|error| mean > CLEARLY * error)
}

/// Constants chosen without OOD data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// What stood for OOD data.
    pub pseudo_ood: PseudoOod,
    /// Whether the samples that were scored are outside the network's training set.
    pub outside_training: bool,
    /// The divisions of the classes.
    pub splits: Vec<TuningSplit>,
    /// The scores in the order they are shown.
    pub scores: Vec<TunedScore>,
    /// Words for the reader, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Means over the scores that have more than one candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TuningGain {
    /// How many scores these are.
    pub scores: usize,
    /// Mean AUROC over OOD sets with the default constants.
    pub default: f64,
    /// With the chosen ones.
    pub chosen: f64,
    /// With those that OOD data would have chosen.
    pub best: f64,
}

impl Tuning {
    /// The scores with more than one candidate.
    pub fn tuned(&self) -> impl Iterator<Item = &TunedScore> {
        self.scores.iter().filter(|score| score.candidates.len() > 1)
    }

    /// The chosen score of the highest mean AUROC over splits: what tuning alone would take.
    pub fn best(&self) -> Option<&Candidate> {
        let mut best: Option<&Candidate> = None;
        for candidate in self.scores.iter().filter_map(TunedScore::chosen_candidate) {
            if best.is_none_or(|most| candidate.auroc > most.auroc) {
                best = Some(candidate);
            }
        }
        best
    }

    /// What the choice gained and lost on the OOD sets, where they were compared.
    pub fn gain(&self) -> Option<TuningGain> {
        let mut gain = TuningGain { scores: 0, default: 0.0, chosen: 0.0, best: 0.0 };
        for score in self.tuned() {
            gain.scores += 1;
            gain.default += score.default_candidate()?.mean_on_ood()?;
            gain.chosen += score.chosen_candidate()?.mean_on_ood()?;
            gain.best += score.best_on_ood()?.mean_on_ood()?;
        }
        let count = gain.scores as f64;
        let TuningGain { scores, default, chosen, best } = gain;
        (scores > 0).then_some(TuningGain {
            scores,
            default: default / count,
            chosen: chosen / count,
            best: best / count,
        })
    }

    /// How constants were chosen, in a sentence.
    pub fn heading(&self) -> String {
        let what = match self.pseudo_ood {
            PseudoOod::HeldOutClasses => "classes held out of the fits, which the network has seen",
            PseudoOod::UnseenClasses => "classes that networks trained for it have never seen",
        };
        let sizes = self.splits.iter().map(|split| split.held_out.len());
        let (fewest, most) = (sizes.clone().min().unwrap_or(0), sizes.max().unwrap_or(0));
        let each = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
        let unit = if most == 1 { "class" } else { "classes" };
        let scored = if self.outside_training { "outside the training set" } else { "of the training set" };
        format!(
            "Constants chosen without OOD data, by mean AUROC against {what}: {} splits, {each} {unit} held out in each, samples \
             {scored}",
            self.splits.len()
        )
    }

    /// The choice and what it did on the OOD sets, in words; `None` where nothing was compared.
    pub fn verdict(&self) -> Option<String> {
        let TuningGain { scores, default, chosen, best } = self.gain()?;
        Some(format!(
            "mean AUROC of {scores} tuned scores on the OOD sets: {:.2} with defaults, {:.2} tuned ({:+.2}), {:.2} if OOD data had \
             chosen ({:.2} lost)",
            100.0 * default,
            100.0 * chosen,
            100.0 * (chosen - default),
            100.0 * best,
            100.0 * (best - chosen),
        ))
    }

    /// The table in the terminal.
    pub(super) fn push(&self, width: Option<usize>, text: &mut String) {
        text.push('\n');
        push_wrapped(&self.heading(), width, text);
        let compared = self.gain().is_some();
        let mut columns = vec![
            Column::text("chosen"),
            Column::number("default"),
            Column::number("tuned"),
            Column::number("± std"),
        ];
        if compared {
            columns.extend(["OOD: default", "tuned", "best"].map(Column::number));
        }
        let mut table = TextTable::new(columns);
        let percent = |value: Option<f64>| value.map_or("-".into(), |value| format!("{:.2}", 100.0 * value));
        for score in self.tuned() {
            let (chosen, default, best) =
                (score.chosen_candidate(), score.default_candidate(), score.best_on_ood());
            let mut cells = vec![
                shown(&score.chosen),
                percent(default.map(|candidate| candidate.auroc)),
                percent(chosen.map(|candidate| candidate.auroc)),
                percent(chosen.and_then(|candidate| candidate.auroc_std)),
            ];
            if compared {
                let on_ood = [default, chosen, best];
                cells.extend(on_ood.map(|candidate| percent(candidate.and_then(Candidate::mean_on_ood))));
            }
            table.row(cells);
        }
        text.push_str(&table.render(width));
        if let Some(best) = self.best() {
            let line = format!(
                "highest on held-out classes: {} with AUROC {:.2}",
                shown(&best.score),
                100.0 * best.auroc
            );
            push_wrapped(&line, width, text);
        }
        if let Some(verdict) = self.verdict() {
            push_wrapped(&verdict, width, text);
        }
        for note in &self.notes {
            push_wrapped(&format!("note: {note}"), width, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(score: &str, by_split: &[f64], ood: &[(&str, f64)]) -> Candidate {
        let mut candidate = Candidate::new(score.into(), by_split.to_vec());
        candidate.ood = ood.iter().map(|(set, auroc)| (set.to_string(), *auroc)).collect();
        candidate
    }

    #[test]
    fn the_choice_is_by_splits_alone_and_leaves_the_default_only_for_something_clearly_better() {
        let tried = vec![
            candidate("knn", &[0.8, 0.9], &[("a", 0.5), ("b", 0.7)]),
            candidate("knn:k=1", &[0.9, 0.9], &[("a", 0.6), ("b", 0.7)]),
            candidate("knn:k=5", &[0.7, 0.8], &[("a", 0.9), ("b", 0.7)]),
        ];
        let score = TunedScore::choose(tried, false).unwrap();
        assert_eq!((score.chosen.as_str(), score.default.as_str()), ("knn:k=1", "knn"));
        assert_eq!(score.best_on_ood().unwrap().score, "knn:k=5");
        let equal = vec![candidate("a", &[0.5], &[]), candidate("a:x=1", &[0.5], &[])];
        assert_eq!(TunedScore::choose(equal, false).unwrap().chosen, "a");
        assert!(TunedScore::choose(Vec::new(), true).is_none());
        // A default stays unless the gain is clear: 0.02 with a standard error of 0.02, or of 0.002.
        let chosen = |gains: [f64; 2]| {
            let other = gains.map(|gain| 0.9 + gain);
            let tried = vec![candidate("a", &[0.9, 0.9], &[]), candidate("a:x=1", &other, &[])];
            TunedScore::choose(tried, true).unwrap().chosen
        };
        assert_eq!((chosen([0.0, 0.04]).as_str(), chosen([0.018, 0.022]).as_str()), ("a", "a:x=1"));

        let alone =
            TunedScore::choose(vec![candidate("msp", &[0.95, 0.95], &[("a", 0.1), ("b", 0.1)])], true)
                .unwrap();
        let tuning = Tuning { scores: vec![score, alone], ..Tuning::default() };
        let gain = tuning.gain().unwrap();
        assert_eq!(gain.scores, 1);
        for (found, expected) in [(gain.default, 0.6), (gain.chosen, 0.65), (gain.best, 0.8)] {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(tuning.best().unwrap().score, "msp");
        let mut text = String::new();
        tuning.push(Some(80), &mut text);
        for part in ["knn:k=1", "60.00", "65.00", "80.00", "15.00 lost", "+5.00", "msp with AUROC 95.00"] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
