//! Which samples of which set are shown, for each score.

use std::collections::{BTreeMap, BTreeSet};

use super::file::{List, ListKind, Threshold};
use super::{ALARMS, Options, Subject, drawn};
use crate::eval::Answer;
use crate::ood::metrics::TPR;

/// Samples at each end of a score, from the most that are shown to the fewest.
const ENDS: [usize; 8] = [12, 10, 8, 6, 4, 3, 2, 1];
/// Mistakes and false alarms that are shown.
const MOST: usize = 24;
/// Share of the budget that is left to the map.
const FOR_MAP: f64 = 0.25;

/// A list of rows of one set.
pub(super) struct Chosen {
    pub kind: ListKind,
    pub set: usize,
    pub score: Option<String>,
    pub rows: Vec<usize>,
    /// Number of samples that they were taken from.
    pub of: usize,
}

/// Everything that is shown.
pub(super) struct Choice {
    pub lists: Vec<Chosen>,
    pub threshold: Option<Threshold>,
}

impl Chosen {
    /// The list by the places of its samples in the file.
    pub fn placed(self, places: &BTreeMap<(usize, usize), usize>) -> List {
        let samples = self.rows.iter().map(|row| places[&(self.set, *row)]).collect();
        List { kind: self.kind, set: self.set, score: self.score, samples, of: self.of as u64 }
    }
}

/// Chooses the lists; as many samples at each end of a score as the budget allows.
pub(super) fn choose(subject: &Subject<'_>, options: Options) -> Choice {
    let mut lists: Vec<Chosen> = mistakes(subject).into_iter().collect();
    let threshold = threshold(subject);
    if let Some(threshold) = &threshold {
        lists.push(false_alarms(subject, threshold, options));
    }
    let room = (options.budget as f64 * (1.0 - FOR_MAP)) as usize;
    let rows: Vec<Vec<(&String, Vec<usize>)>> = subject
        .sets
        .iter()
        .map(|set| set.scores.iter().map(|(name, scores)| (name, ranked(scores))).collect())
        .collect();
    let keys = |ends: usize| -> BTreeSet<(usize, usize)> {
        let ranked =
            rows.iter().enumerate().flat_map(|(set, scores)| scores.iter().map(move |(_, rows)| (set, rows)));
        let of_ends = ranked.flat_map(|(set, rows)| {
            rows.iter().take(ends).chain(rows.iter().rev().take(ends)).map(move |row| (set, *row))
        });
        let listed = lists.iter().flat_map(|list| list.rows.iter().map(|row| (list.set, *row)));
        of_ends.chain(listed).collect()
    };
    let ends = ENDS.into_iter().find(|ends| keys(*ends).len() <= room).unwrap_or(1);
    for (set, scores) in rows.into_iter().enumerate() {
        for (name, rows) in scores {
            let ends = ends.min(rows.len());
            let least: Vec<usize> = rows.iter().rev().take(ends).copied().collect();
            for (kind, chosen) in
                [(ListKind::MostFamiliar, rows[..ends].to_vec()), (ListKind::LeastFamiliar, least)]
            {
                lists.push(Chosen { kind, set, score: Some(name.clone()), rows: chosen, of: rows.len() });
            }
        }
    }
    Choice { lists, threshold }
}

/// Rows from the largest score to the smallest, of equal ones the first first. Only the ends are kept.
fn ranked(scores: &[f64]) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..scores.len()).collect();
    rows.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    rows
}

/// Samples of known classes that are classified wrongly, the surest first.
fn mistakes(subject: &Subject<'_>) -> Option<Chosen> {
    let set = &subject.sets[0];
    let labels = set.cache.labels()?;
    let answers = set.cache.map_logits(subject.head, Answer::of);
    let is_wrong = |row: &usize| labels[*row] >= 0 && i64::from(answers[*row].predicted) != labels[*row];
    let mut rows: Vec<usize> = (0..answers.len()).filter(is_wrong).collect();
    let of = rows.len();
    rows.sort_by(|a, b| answers[*b].confidence.total_cmp(&answers[*a].confidence).then(a.cmp(b)));
    rows.truncate(MOST);
    (of > 0).then_some(Chosen { kind: ListKind::Mistakes, set: 0, score: None, rows, of })
}

/// The threshold whose false alarms are shown: the one that was chosen, or the one that keeps 95 % of the known samples.
fn threshold(subject: &Subject<'_>) -> Option<Threshold> {
    let scores = subject.sets[0].scores;
    if let Some((score, tau)) = &subject.threshold
        && tau.is_finite()
        && scores.contains_key(score)
    {
        return Some(Threshold { score: score.clone(), tau: *tau, calibrated: true });
    }
    if subject.sets.len() == 1 {
        // Nothing is to be told apart.
        return None;
    }
    // A calibrated threshold that flags nothing has no false alarms to look at.
    let wanted = subject.threshold.as_ref().map(|(score, _)| score).into_iter().chain(&subject.best);
    let mut wanted = wanted.filter_map(|score| scores.get_key_value(score));
    let (score, values) = wanted.next().or_else(|| scores.first_key_value())?;
    let rows = ranked(values);
    let kept = (TPR * rows.len() as f64).ceil() as usize;
    let last = *rows.get(kept.checked_sub(1)?)?;
    Some(Threshold { score: score.clone(), tau: values[last], calibrated: false })
}

/// Samples of known classes below the threshold; where they are many, some at random.
fn false_alarms(subject: &Subject<'_>, threshold: &Threshold, options: Options) -> Chosen {
    let scores = &subject.sets[0].scores[&threshold.score];
    let flagged: Vec<usize> = (0..scores.len()).filter(|row| scores[*row] < threshold.tau).collect();
    let picked = drawn(flagged.len(), MOST, options.seed, [ALARMS, 0]);
    let rows = picked.into_iter().map(|place| flagged[place]).collect();
    let score = Some(threshold.score.clone());
    Chosen { kind: ListKind::FalseAlarms, set: 0, score, rows, of: flagged.len() }
}
