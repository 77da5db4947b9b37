//! Meaning of a data set's labels for a head of a trained network: which logit is a sample's true class.

use super::{HeadClasses, Trained};
use crate::data::{
    Basis, ClassMatch, Dataset, KnownClasses, Level, Taxonomy, UNKNOWN_LABEL, is_novel, listed,
    samples_of_classes,
};
use crate::error::{Error, Result};
use crate::nn::SUPERCLASS_HEAD;
use crate::values::named;

named! {
    /// How labels of a data set are understood.
    pub enum LabelsBy: "way to understand labels" {
        /// By the names of classes.
        Names = "names",
        /// As the numbers of the network's classes, whatever they are called.
        Numbers = "numbers",
    }
    default Names
}

/// The logit of each label of a data set, for one head.
#[derive(Debug, Clone)]
pub struct HeadLabels {
    /// By label; [`UNKNOWN_LABEL`] where the head has no logit.
    logits: Vec<i64>,
    basis: Basis,
    /// Classes with samples that neither the head nor the training behind it knows, and how many samples.
    foreign: (Vec<String>, usize),
    /// Classes with samples that the training knows but left without a logit, and how many samples.
    held_out: (Vec<String>, usize),
    /// Whether the numbers of the classes are other ones than in the network's files.
    renumbered: bool,
    /// How many classes the data set has, of how many that the network has.
    counts: (usize, usize),
    /// Some names on both sides, for messages.
    examples: [String; 2],
}

impl HeadLabels {
    /// Meaning of the labels of `data` for head `head` of a network.
    pub fn new(trained: &Trained, head: usize, data: &dyn Dataset, by: LabelsBy) -> HeadLabels {
        match trained.heads.get(head) {
            Some(classes) => HeadLabels::of(classes, trained.taxonomy.as_ref(), data, by),
            None => {
                let count = trained.architecture.heads[head].classes;
                let unnamed = HeadClasses {
                    classes: Vec::new(),
                    indices: (0..count as i64).collect(),
                    ..HeadClasses::single(Vec::new())
                };
                HeadLabels::of(&unnamed, None, data, by)
            }
        }
    }

    /// Notes for a user on how the heads of a network understand the labels of `what`.
    pub fn notes(trained: &Trained, data: &dyn Dataset, by: LabelsBy, what: &str) -> Vec<String> {
        let heads = 0..trained.architecture.heads.len();
        let mut notes: Vec<String> =
            heads.filter_map(|head| HeadLabels::new(trained, head, data, by).note(what)).collect();
        notes.dedup();
        notes
    }

    /// The same from the classes of a head and, where the training data has two levels, both of them.
    pub fn of(
        head: &HeadClasses,
        taxonomy: Option<&Taxonomy>,
        data: &dyn Dataset,
        by: LabelsBy,
    ) -> HeadLabels {
        let mut level = head.level.unwrap_or_default();
        let names = data.taxonomy().map_or_else(|| data.class_names(), |own| own.names(level));
        let numbered = head.indices.iter().max().map_or(0, |&largest| largest as usize + 1);
        let numbered = taxonomy.map_or(numbered, |all| all.names(level).len().max(numbered));
        let known = KnownClasses { names: &head.classes, numbers: &head.indices, numbered };
        let mut matched = match by {
            LabelsBy::Names => ClassMatch::new(known, names),
            LabelsBy::Numbers => ClassMatch::by_number(known, names.len()),
        };
        // Labels of one level may be subclasses whose superclasses the network knows from its training.
        if let (None, Some(Level::Coarse), Some(taxonomy)) = (data.taxonomy(), head.level, taxonomy) {
            let subclasses = superclasses_of(head, taxonomy, names, by);
            let declared = head.name == SUPERCLASS_HEAD;
            let better = subclasses.known() > matched.known();
            if better || (declared && subclasses.known() > 0 && subclasses.known() == matched.known()) {
                matched = subclasses;
                level = Level::Fine;
            }
        }
        HeadLabels::put_together(head, (taxonomy, level), data, names, matched)
    }

    /// `level` is that of `names`: of subclasses, where these say which superclass of the head is meant.
    fn put_together(
        head: &HeadClasses,
        (taxonomy, level): (Option<&Taxonomy>, Level),
        data: &dyn Dataset,
        names: &[String],
        matched: ClassMatch,
    ) -> HeadLabels {
        // The class of the head's level that a label of the data set is of.
        let own = |label: usize| {
            let own = data.taxonomy().map_or(label as i64, |taxonomy| taxonomy.label(level, label as i64));
            usize::try_from(own).ok()
        };
        let counts = samples_of_classes(data);
        let logit = |label: usize| own(label).and_then(|own| matched.places[own]);
        let logits: Vec<Option<usize>> = (0..counts.len()).map(logit).collect();
        let mut samples = vec![0; names.len()];
        for (label, count) in counts.iter().enumerate() {
            if let Some(own) = own(label) {
                samples[own] += count;
            }
        }
        let by_name = matched.basis == Basis::Names;
        let in_training =
            |name: &String| by_name && taxonomy.is_some_and(|taxonomy| taxonomy.names(level).contains(name));
        let (mut foreign, mut held_out) = ((Vec::new(), 0), (Vec::new(), 0));
        for (class, name) in names.iter().enumerate() {
            if samples[class] > 0 && matched.places[class].is_none() {
                let list = if in_training(name) || is_novel(name) { &mut held_out } else { &mut foreign };
                list.0.push(name.clone());
                list.1 += samples[class];
            }
        }
        let moved = |(class, place): (usize, &Option<usize>)| {
            place.is_some_and(|place| samples[class] > 0 && head.indices[place] != class as i64)
        };
        let is_own_level = level == head.level.unwrap_or_default();
        let with_samples = (0..names.len()).filter(|&class| samples[class] > 0);
        HeadLabels {
            logits: logits
                .into_iter()
                .map(|logit| logit.map_or(UNKNOWN_LABEL, |logit| logit as i64))
                .collect(),
            renumbered: by_name && is_own_level && matched.places.iter().enumerate().any(moved),
            basis: matched.basis,
            foreign,
            held_out,
            counts: (with_samples.clone().count(), head.indices.len()),
            examples: [listed(with_samples.map(|class| &names[class])), listed(&head.classes)],
        }
    }

    /// The logit of the class that a sample with this label belongs to, or [`UNKNOWN_LABEL`].
    pub fn logit(&self, label: i64) -> i64 {
        let logit = usize::try_from(label).ok().and_then(|label| self.logits.get(label));
        logit.copied().unwrap_or(UNKNOWN_LABEL)
    }

    /// Whether the labels are of other classes than the head's, so that equal numbers mean nothing.
    pub fn are_others(&self) -> bool {
        matches!(self.basis, Basis::Others(_)) && self.counts.0 > 0
    }

    /// Whether labels are other ones than the data set's own numbers, because names say so.
    pub fn are_renumbered(&self) -> bool {
        self.renumbered || (self.basis == Basis::Names && !self.foreign.0.is_empty())
    }

    /// Whether classes were taken for the same by their numbers, because names could not be compared.
    pub fn are_by_number(&self) -> bool {
        matches!(self.basis, Basis::Numbers(_))
    }

    /// Note for a user on how the labels of `what` were understood.
    pub fn note(&self, what: &str) -> Option<String> {
        let [own, networks] = &self.examples;
        let (foreign, samples) = (&self.foreign.0, self.foreign.1);
        let unknown = || match foreign.len() {
            0 => String::new(),
            1 => format!(
                "its class {} is none of the network's: {samples} samples are labelled -1 (unknown) and count in no accuracy",
                listed(foreign)
            ),
            count => format!(
                "{count} of its classes are none of the network's ({}): {samples} samples are labelled -1 (unknown) and \
                 count in no accuracy",
                listed(foreign)
            ),
        };
        match &self.basis {
            Basis::Others(why) if self.counts.0 > 0 => Some(format!(
                "{what}: its classes ({own}) are not those of the network{}: {why}; every label is -1 (unknown), and no \
                 accuracy is measured",
                if networks.is_empty() { String::new() } else { format!(" ({networks})") }
            )),
            Basis::Numbers(why) => Some(format!(
                "{what}: names of classes could not be compared ({why}); labels are taken for the numbers of the network's \
                 classes{}",
                if foreign.is_empty() { String::new() } else { format!("; {}", unknown()) }
            )),
            Basis::Names if !foreign.is_empty() => Some(format!("{what}: {}", unknown())),
            Basis::Names if self.renumbered => Some(format!(
                "{what}: labels are matched to the network's classes by name ({} of {} are there)",
                self.counts.0, self.counts.1
            )),
            Basis::Names if !self.held_out.0.is_empty() => Some(format!(
                "{what}: the network was trained without {}: {} samples are labelled -1 (unknown) and count in no accuracy",
                listed(&self.held_out.0),
                self.held_out.1
            )),
            Basis::Others(_) | Basis::Names => None,
        }
    }

    /// Checks that a data set given for samples of the network's own classes has no others.
    ///
    /// # Errors
    /// Names the classes on both sides.
    pub fn require_known(&self, what: &str) -> Result<()> {
        let [own, networks] = &self.examples;
        let known = if networks.is_empty() { String::new() } else { format!(" ({networks})") };
        let (subject, why) = match &self.basis {
            Basis::Others(why) if self.counts.0 > 0 => {
                (format!("the labels of {what} ({own})"), format!(", because {why}"))
            }
            Basis::Names if !self.foreign.0.is_empty() => {
                let (names, samples) = &self.foreign;
                (format!("{samples} samples of {what} ({})", listed(names)), String::new())
            }
            _ => return Ok(()),
        };
        Err(Error::invalid(format!(
            "{subject} are of other classes than those of the network{known}{why}; give samples of the same classes, with \
             the same labels= option"
        )))
    }
}

/// The logits of a superclass head for classes that are subclasses of its training data.
fn superclasses_of(head: &HeadClasses, taxonomy: &Taxonomy, names: &[String], by: LabelsBy) -> ClassMatch {
    let all: Vec<i64> = (0..taxonomy.subclasses.len() as i64).collect();
    let known = KnownClasses { names: &taxonomy.subclasses, numbers: &all, numbered: all.len() };
    let mut matched = match by {
        LabelsBy::Names => ClassMatch::new(known, names),
        LabelsBy::Numbers => ClassMatch::by_number(known, names.len()),
    };
    for place in &mut matched.places {
        *place = place.and_then(|subclass| {
            let superclass = taxonomy.label(Level::Coarse, subclass as i64);
            head.indices.iter().position(|&index| index == superclass)
        });
    }
    matched
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;
