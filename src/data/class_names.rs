//! Matches the classes of a data set by name with known classes: those of a head of a network, or of the data it was trained on.
//!
//! Numbers of classes shift where a folder lacks one, and a set of other classes has the same numbers, so names decide.
//! Where names say nothing (a bare weights file has none; a list has only numbers), equal counts of classes are taken for
//! the same classes, and the user is told so; unequal ones are not.

use std::collections::HashMap;
use std::sync::Arc;

use super::taxonomy::is_novel;
use super::{Dataset, Level, Relabelled, SharedDataset, Taxonomy, UNKNOWN_LABEL};
use crate::error::{Error, Result};

/// Names that a message lists; the rest are counted.
const LISTED: usize = 5;

/// The classes that are known.
#[derive(Debug, Clone, Copy)]
pub struct KnownClasses<'a> {
    /// Their names; empty where nothing says them, as in a bare weights file.
    pub names: &'a [String],
    /// The number of each in the files it comes from.
    pub numbers: &'a [i64],
    /// Number of classes in those files; classes that were held out are not among `names`.
    pub numbered: usize,
}

/// Basis on which classes are taken for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// Their names.
    Names,
    /// Their numbers, because names could not be compared; the text says why.
    Numbers(String),
    /// Nothing: they are other classes; the text says how that is known.
    Others(String),
}

/// The known class that each class of a data set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMatch {
    /// By the data set's own number of a class: its place among the known ones.
    pub places: Vec<Option<usize>>,
    /// The basis of the decision.
    pub basis: Basis,
}

impl ClassMatch {
    /// Compares the classes of a data set, given by name, with the known classes.
    pub fn new(known: KnownClasses<'_>, names: &[String]) -> ClassMatch {
        if names.is_empty() {
            return ClassMatch { places: Vec::new(), basis: Basis::Names };
        }
        let same_count = known.numbered == names.len();
        let counts = format!("the data has {} classes instead of {}", names.len(), known.numbered);
        let by_number = |why: &str| ClassMatch {
            basis: Basis::Numbers(why.to_owned()),
            ..ClassMatch::by_number(known, names.len())
        };
        let others = |why: String| ClassMatch { places: vec![None; names.len()], basis: Basis::Others(why) };
        if known.names.is_empty() {
            return match same_count {
                true => by_number("the weights file does not name its classes"),
                false => others(format!("the weights file does not name its classes, and {counts}")),
            };
        }
        let numbers = (0..names.len() as i64).collect::<Vec<_>>();
        let only_numbers = (are_numbers(known.names, known.numbers), are_numbers(names, &numbers));
        match only_numbers {
            (true, true) if same_count => by_number("both have only numbers for names"),
            (true, true) => others(format!("both have only numbers for names, and {counts}")),
            (false, true) => others("its classes have only numbers for names".to_owned()),
            _ => {
                let places = by_name(known, names);
                match (places.iter().any(Option::is_some), only_numbers.0) {
                    (true, _) => ClassMatch { places, basis: Basis::Names },
                    (false, true) if same_count => by_number("only numbers are known for names"),
                    (false, true) => others(format!("only numbers are known for names, and {counts}")),
                    (false, false) => others("none of their names is the same".to_owned()),
                }
            }
        }
    }

    /// Takes equal numbers for the same classes, whatever their names, of a data set of `count` classes.
    pub fn by_number(known: KnownClasses<'_>, count: usize) -> ClassMatch {
        let places: HashMap<i64, usize> =
            known.numbers.iter().enumerate().map(|(place, number)| (*number, place)).collect();
        let places = (0..count as i64).map(|number| places.get(&number).copied()).collect();
        ClassMatch { places, basis: Basis::Numbers("as asked for".to_owned()) }
    }

    /// Number of the data set's classes that are known.
    pub fn known(&self) -> usize {
        self.places.iter().flatten().count()
    }
}

/// Places by name. Where two known classes have one name, the one of the same number counts, or else none.
fn by_name(known: KnownClasses<'_>, names: &[String]) -> Vec<Option<usize>> {
    let mut places: HashMap<&str, Option<usize>> = HashMap::new();
    let mut numbers: HashMap<i64, usize> = HashMap::new();
    for (place, (name, number)) in known.names.iter().zip(known.numbers).enumerate() {
        places.entry(name).and_modify(|place| *place = None).or_insert(Some(place));
        numbers.insert(*number, place);
    }
    let place = |(number, name): (usize, &String)| {
        let same_number = numbers.get(&(number as i64)).copied().filter(|&place| known.names[place] == *name);
        same_number.or_else(|| places.get(name.as_str()).copied().flatten())
    };
    names.iter().enumerate().map(place).collect()
}

/// Whether names are only the numbers of their classes, as in a list or table without names.
pub fn are_numbers(names: &[String], numbers: &[i64]) -> bool {
    !names.is_empty() && names.iter().zip(numbers).all(|(name, number)| *name == number.to_string())
}

/// Some names for a message: the first few quoted, the rest counted.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let mut names = names.into_iter();
    let shown: Vec<String> = names.by_ref().take(LISTED).map(|name| format!("`{name}`")).collect();
    match names.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The number of samples of each class.
pub fn samples_of_classes(data: &dyn Dataset) -> Vec<usize> {
    let mut counts = vec![0; data.class_names().len()];
    for label in (0..data.len()).map(|index| data.label(index)) {
        if let Some(count) = usize::try_from(label).ok().and_then(|label| counts.get_mut(label)) {
            *count += 1;
        }
    }
    counts
}

/// Another labelled set (`what`, such as "the validation data") in the numbering of the training data, and a note for the
/// user on how its labels were understood. A set may lack classes; it may not have others.
///
/// # Errors
/// Classes that the training data does not have, by name; one of the sets has two levels of classes and the other one; a
/// subclass lies in another superclass.
pub fn in_numbering_of(
    training: &SharedDataset,
    other: SharedDataset,
    what: &str,
) -> Result<(SharedDataset, Option<String>)> {
    let has_levels = [training, &other].map(|data| data.taxonomy().is_some());
    if has_levels[0] != has_levels[1] {
        let (with, without) =
            if has_levels[0] { ("the training data", what) } else { (what, "the training data") };
        return Err(Error::invalid(format!(
            "{with} has superclasses and subclasses, {without} does not; both need labels=both"
        )));
    }
    let (known, names) = (training.class_names(), other.class_names());
    if known == names && training.taxonomy() == other.taxonomy() {
        return Ok((other, None));
    }
    let numbers: Vec<i64> = (0..known.len() as i64).collect();
    let matched =
        ClassMatch::new(KnownClasses { names: known, numbers: &numbers, numbered: known.len() }, names);
    let counts = samples_of_classes(&*other);
    let is_unknown = |class: &usize| counts[*class] > 0 && matched.places[*class].is_none();
    let unknown: Vec<usize> = (0..names.len()).filter(is_unknown).collect();
    if !unknown.is_empty() {
        let why = match &matched.basis {
            Basis::Others(why) => format!(" ({why})"),
            Basis::Names | Basis::Numbers(_) => String::new(),
        };
        return Err(Error::invalid(format!(
            "{what} has classes that the training data does not have{why}: {} are none of {}; both need the same classes, \
             under the same names",
            listed(unknown.iter().map(|&class| &names[class])),
            listed(known)
        )));
    }
    if let (Some(own), Some(others)) = (training.taxonomy(), other.taxonomy()) {
        check_parents(own, others, &matched, what)?;
    }
    let label = |index: usize| {
        let place = usize::try_from(other.label(index)).ok().and_then(|label| matched.places[label]);
        place.map_or(UNKNOWN_LABEL, |place| place as i64)
    };
    let labels: Vec<i64> = (0..other.len()).map(label).collect();
    let note = match &matched.basis {
        Basis::Numbers(why) => Some(format!(
            "{what}: names of classes could not be compared ({why}); its labels are taken for the same numbers"
        )),
        _ if (0..other.len()).all(|index| labels[index] == other.label(index)) => None,
        _ => Some(format!(
            "{what}: labels are matched to those of the training data by the names of classes ({} of {} are there)",
            matched.known(),
            known.len()
        )),
    };
    let relabelled = Relabelled::new(other, labels, known.to_vec(), training.taxonomy().cloned())?;
    Ok((Arc::new(relabelled), note))
}

/// A subclass must lie in the same superclass in both, as far as both say.
fn check_parents(own: &Taxonomy, others: &Taxonomy, matched: &ClassMatch, what: &str) -> Result<()> {
    for (class, place) in matched.places.iter().enumerate() {
        let Some(place) = place else { continue };
        let name = |taxonomy: &Taxonomy, class: usize| {
            let parent = taxonomy.label(Level::Coarse, class as i64);
            usize::try_from(parent).ok().map(|parent| taxonomy.superclasses[parent].clone())
        };
        if let (Some(own), Some(other)) = (name(own, *place), name(others, class))
            && own != other
            && !(is_novel(&own) && is_novel(&other))
        {
            return Err(Error::invalid(format!(
                "subclass `{}` lies in superclass `{own}` in the training data and in `{other}` in {what}; both need the same",
                others.subclasses[class]
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "class_names_tests.rs"]
mod tests;
