//! From flags to answers, on one level or on two that have to agree.

use super::file::LevelEntry;
use super::samples::Scored;
use crate::data::Level;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head, block_rows};
use crate::linalg::argmax;
use crate::values::named;

named! {
    /// How the answers of two levels are brought together.
    pub enum Hierarchy: "hierarchy" {
        /// Each level answers for itself; a subclass may be of another superclass than the one given, or be given where
        /// the superclass is novel.
        Independent = "independent",
        /// The superclass is decided first. If it is novel, so is the subclass; else the subclass is the most probable one
        /// of that superclass, and novel if its own level flags the sample or the superclass has no subclass the head
        /// knows.
        Mask = "mask",
        /// The pair of a superclass and one of its subclasses with the largest product of probabilities (softmax over all
        /// logits at each level's temperature). Then each level's own flag makes its answer novel, and a novel superclass
        /// makes the subclass novel.
        Joint = "joint",
    }
    default Independent
}

/// The input of one level: its part of the threshold file, its last layer, and the features, scores and flags of the samples.
#[derive(Debug, Clone, Copy)]
pub struct LevelInput<'a> {
    /// The level's part of the threshold file: what its logits mean.
    pub entry: &'a LevelEntry,
    /// The head's last layer.
    pub head: &'a Head,
    /// The head's feature cache of the samples.
    pub set: &'a FeatureSet,
    /// Score and prediction of each sample ([`super::Scorer::samples`]).
    pub samples: &'a [Scored],
    /// Whether the level's own threshold (or p-value) flags each sample.
    pub flagged: &'a [bool],
}

/// One level's answer for one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The most probable class that the head knows and the hierarchy allows, by its index in the data set's files.
    pub class: i64,
    /// Whether the level itself flags the sample: by its threshold, or by the head's logit for novel samples.
    pub flagged: bool,
    /// Whether the sample is answered as novel: flagged, or novel one level up.
    pub novel: bool,
}

impl Answer {
    /// The class, or `None` where the answer is that the sample is novel.
    pub fn known(&self) -> Option<i64> {
        (!self.novel).then_some(self.class)
    }
}

/// The answers of every level (in the order given) for every sample.
///
/// # Errors
/// No level, more than two, levels with different numbers of samples, or a hierarchy other than `independent` without
/// a superclass and a subclass level.
pub fn decide(hierarchy: Hierarchy, levels: &[LevelInput<'_>]) -> Result<Vec<Vec<Answer>>> {
    let Some(first) = levels.first() else {
        return Err(Error::invalid("there is no level to decide; calibrate at least one"));
    };
    for level in levels {
        let counts = [level.set.len(), level.samples.len(), level.flagged.len()];
        if counts.iter().any(|count| *count != first.set.len()) {
            return Err(Error::invalid(format!(
                "the levels have {counts:?} and {} samples; extract the same data for each",
                first.set.len()
            )));
        }
        level.set.check_shape(level.head.dimension(), level.head.classes())?;
    }
    let pairing = Pairing::new(hierarchy, &levels.iter().map(|level| level.entry).collect::<Vec<_>>())?;
    let mut answers = vec![Vec::with_capacity(first.set.len()); levels.len()];
    let widest =
        levels.iter().map(|level| level.head.classes().max(level.set.dimension())).max().unwrap_or(1);
    let mut logits = vec![Vec::new(); levels.len()];
    for start in (0..first.set.len()).step_by(block_rows(widest)) {
        let end = (start + block_rows(widest)).min(first.set.len());
        for (level, logits) in levels.iter().zip(&mut logits) {
            level.set.read_logits(level.head, start..end, logits);
        }
        for row in start..end {
            let rows: Vec<&[f64]> = levels
                .iter()
                .zip(&logits)
                .map(|(level, logits)| {
                    let classes = level.head.classes();
                    &logits[(row - start) * classes..][..classes]
                })
                .collect();
            let flags: Vec<bool> = levels
                .iter()
                .map(|level| level.flagged[row] || level.samples[row].predicted.is_none())
                .collect();
            for (answers, answer) in answers.iter_mut().zip(pairing.answer(&rows, &flags)) {
                answers.push(answer);
            }
        }
    }
    Ok(answers)
}

/// Which logits of the two levels go together.
pub(super) struct Pairing<'a> {
    hierarchy: Hierarchy,
    entries: Vec<&'a LevelEntry>,
    /// Places of the superclass and the subclass level.
    coarse: usize,
    fine: usize,
    /// For each logit of the superclass head the logits of its subclasses; empty for the one of novel samples.
    children: Vec<Vec<usize>>,
}

impl<'a> Pairing<'a> {
    /// Sorts out who belongs to whom.
    ///
    /// # Errors
    /// A hierarchy other than `independent` without two levels, or one in which no subclass belongs to a superclass.
    pub fn new(hierarchy: Hierarchy, entries: &[&'a LevelEntry]) -> Result<Pairing<'a>> {
        let place = |level| entries.iter().position(|entry| entry.classes.level == Some(level));
        let mut pairing =
            Pairing { hierarchy, entries: entries.to_vec(), coarse: 0, fine: 0, children: Vec::new() };
        if hierarchy == Hierarchy::Independent {
            return Ok(pairing);
        }
        let (Some(coarse), Some(fine), 2) = (place(Level::Coarse), place(Level::Fine), entries.len()) else {
            return Err(Error::usage(format!(
                "--hierarchy {hierarchy} needs a superclass and a subclass level; give both models, or use independent"
            )));
        };
        (pairing.coarse, pairing.fine) = (coarse, fine);
        let (above, below) = (entries[coarse], entries[fine]);
        let belongs = |fine: usize, superclass: i64| below.parents.get(fine) == Some(&superclass);
        for (logit, superclass) in above.classes.indices.iter().enumerate() {
            let known = (0..below.classes.indices.len()).filter(|fine| Some(*fine) != below.classes.novel);
            let is_novel = Some(logit) == above.classes.novel;
            pairing.children.push(known.filter(|fine| !is_novel && belongs(*fine, *superclass)).collect());
        }
        if pairing.children.iter().all(Vec::is_empty) {
            return Err(Error::invalid(format!(
                "no subclass belongs to a superclass that the other head knows, so --hierarchy {hierarchy} has nothing to \
                 go by; use independent"
            )));
        }
        Ok(pairing)
    }

    /// The answers of every level for one sample, from all its logits and the levels' own flags.
    pub fn answer(&self, logits: &[&[f64]], flags: &[bool]) -> Vec<Answer> {
        let class = |place: usize, logit: usize| self.entries[place].classes.indices[logit];
        let alone = |place: usize| Answer {
            class: class(place, self.most_probable(place, logits[place])),
            flagged: flags[place],
            novel: flags[place],
        };
        let mut answers: Vec<Answer> = (0..self.entries.len()).map(alone).collect();
        let (coarse, fine) = (self.coarse, self.fine);
        let chosen = match self.hierarchy {
            Hierarchy::Independent => return answers,
            Hierarchy::Mask => {
                let above = self.most_probable(coarse, logits[coarse]);
                let children = &self.children[above];
                let values: Vec<f64> = children.iter().map(|child| logits[fine][*child]).collect();
                (!children.is_empty()).then(|| (above, children[argmax(&values)]))
            }
            Hierarchy::Joint => self.most_probable_pair(logits[coarse], logits[fine]),
        };
        if let Some((above, below)) = chosen {
            answers[coarse].class = class(coarse, above);
            answers[fine].class = class(fine, below);
        }
        answers[fine].novel |= answers[coarse].novel || chosen.is_none();
        answers
    }

    /// The largest logit of a class the head knows; of equal ones the first.
    fn most_probable(&self, place: usize, logits: &[f64]) -> usize {
        let novel = self.entries[place].classes.novel;
        let lowered =
            |(logit, value): (usize, &f64)| if Some(logit) == novel { f64::NEG_INFINITY } else { *value };
        argmax(&logits.iter().enumerate().map(lowered).collect::<Vec<f64>>())
    }

    /// The superclass and subclass logit that go together with the largest product of probabilities.
    fn most_probable_pair(&self, coarse: &[f64], fine: &[f64]) -> Option<(usize, usize)> {
        // Both normalisers are the same for every pair, so the sum of tempered logits orders them.
        let (above, below) = (self.entries[self.coarse].temperature, self.entries[self.fine].temperature);
        let pairs = self
            .children
            .iter()
            .enumerate()
            .flat_map(|(above, children)| children.iter().map(move |below| (above, *below)));
        let sum =
            |(superclass, subclass): (usize, usize)| coarse[superclass] / above + fine[subclass] / below;
        let mut best: Option<((usize, usize), f64)> = None;
        for pair in pairs {
            if best.is_none_or(|(_, largest)| sum(pair) > largest) {
                best = Some((pair, sum(pair)));
            }
        }
        best.map(|(pair, _)| pair)
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
pub(super) mod tests;
