//! Choice of the classes that are held out, and of the held-out classes that thresholds are chosen on.

use serde::{Deserialize, Serialize};

use super::share::share_out;
use super::{Classes, SplitOptions};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Which subclasses a network never sees. In a file `"none"`, a fraction such as `0.15`, or a list such as `[1, 4]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum HoldOut {
    /// None.
    #[default]
    None,
    /// This fraction of the classes, rounded to a whole number of at least one; every superclass gives in proportion
    /// and keeps at least one. Those of the g-th superclass are permuted by the stream (seed,
    /// [`Purpose::HoldOut`], 0, g) and the first taken.
    Fraction(f64),
    /// These, by their index in the data set's files.
    Classes(Vec<usize>),
}

/// [`HoldOut`] as files have it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"none\", a fraction such as 0.15, or a list of subclasses such as [1, 4]"
)]
enum Written {
    Classes(Vec<usize>),
    Fraction(f64),
    Word(String),
}

impl TryFrom<Written> for HoldOut {
    type Error = Error;

    fn try_from(written: Written) -> Result<HoldOut> {
        match written {
            Written::Classes(classes) => Ok(HoldOut::Classes(classes)),
            Written::Fraction(fraction) => Ok(HoldOut::Fraction(fraction)),
            Written::Word(word) if word == "none" => Ok(HoldOut::None),
            Written::Word(word) => Err(Error::usage(format!(
                "`{word}` names no classes to hold out; there are \"none\", a fraction such as 0.15, or a list of \
                 subclasses such as [1, 4]"
            ))),
        }
    }
}

impl From<HoldOut> for Written {
    fn from(hold_out: HoldOut) -> Written {
        match hold_out {
            HoldOut::None => Written::Word("none".to_owned()),
            HoldOut::Fraction(fraction) => Written::Fraction(fraction),
            HoldOut::Classes(classes) => Written::Classes(classes),
        }
    }
}

/// The choice that a stream of [`Purpose::HoldOut`] makes: the word after the purpose.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Fraction,
    Folds,
    /// The held-out classes of a fold that the figures are about.
    Report,
}

/// The classes held out of each fold, ascending.
pub(super) fn choose(classes: &Classes, options: &SplitOptions) -> Result<Vec<Vec<usize>>> {
    let held_out = match (&options.hold_out, options.folds) {
        (HoldOut::None, 0 | 1) => return Ok(vec![Vec::new()]),
        (HoldOut::None, folds) => deal(classes, folds, options.seed),
        (_, 2..) => {
            return Err(Error::usage(format!(
                "folds = {} holds every class out once; leave hold_out away, or set folds = 1",
                options.folds
            )));
        }
        (HoldOut::Fraction(fraction), _) => vec![take_fraction(classes, *fraction, options)?],
        (HoldOut::Classes(given), _) => vec![check_list(classes, given)?],
    };
    for (number, held_out) in held_out.iter().enumerate() {
        let (known, left) = (classes.known(), classes.known() - held_out.len());
        if known < 3 {
            return Err(Error::invalid(format!(
                "one class held out and two to train on are three at least, but there are {known}; add classes, or write \
                 hold_out = \"none\" without folds"
            )));
        }
        if held_out.is_empty() {
            return Err(Error::invalid(format!(
                "folds = {}: there are only {known} classes, and each fold holds at least one out; ask for {known} folds at most",
                options.folds
            )));
        }
        if left < 2 {
            let count = held_out.len();
            return Err(Error::invalid(format!(
                "fold {} holds {count} of {known} classes out, which leaves {left} to train on; a network needs at least two \
                 classes: hold fewer out (with folds, ask for more of them), or add classes",
                number + 1
            )));
        }
    }
    if options.calibrate == 0.0 {
        return Err(Error::usage(
            "classes are held out so that thresholds can be chosen, but calibrate = 0 leaves no seen images for that; \
             give it a share such as 0.1",
        ));
    }
    Ok(held_out)
}

/// Classes to folds in turn, superclass after superclass, each permuted: no fold gets all classes of a superclass that
/// has two.
fn deal(classes: &Classes, folds: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut held_out = vec![Vec::new(); folds.min(classes.known() + 1)];
    let permuted = classes
        .groups
        .iter()
        .enumerate()
        .flat_map(|(number, group)| shuffled(group, seed, &[Choice::Folds as u64, number as u64]));
    let count = held_out.len();
    permuted.enumerate().for_each(|(position, class)| held_out[position % count].push(class));
    held_out.iter_mut().for_each(|classes| classes.sort_unstable());
    held_out
}

fn take_fraction(classes: &Classes, fraction: f64, options: &SplitOptions) -> Result<Vec<usize>> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::usage(format!(
            "hold_out = {fraction}: a fraction of the classes lies between 0 and 1; write \"none\" for none"
        )));
    }
    let count = ((fraction * classes.known() as f64).round() as usize).max(1);
    let spare: Vec<usize> = classes.groups.iter().map(|group| group.len() - 1).collect();
    // Two classes at least are left to train on.
    let all = spare.iter().sum::<usize>().min(classes.known().saturating_sub(2));
    if count > all {
        let (known, groups) = (classes.known(), classes.groups.len());
        let advice = match all {
            0 => "none can be held out: write hold_out = \"none\", or add subclasses".to_owned(),
            // One class cannot serve both the choice and the figures (`divide`).
            1 if options.report > 0.0 => format!(
                "at most 1 can be held out: write hold_out = {} and report = 0, or add subclasses",
                1.0 / known as f64
            ),
            all => format!("at most {all} can be held out: write hold_out = {}", all as f64 / known as f64),
        };
        return Err(Error::invalid(format!(
            "hold_out = {fraction} is {count} of {known} classes, but each of {groups} superclasses must keep one, and two classes be left; {advice}"
        )));
    }
    Ok(take(&classes.groups, &spare, count, options.seed, &[Choice::Fraction as u64]))
}

fn check_list(classes: &Classes, given: &[usize]) -> Result<Vec<usize>> {
    let mut sorted = given.to_vec();
    sorted.sort_unstable();
    if sorted.is_empty() {
        return Err(Error::usage("hold_out = [] names no class; list some, or write hold_out = \"none\""));
    }
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::usage(format!("hold_out names class {} twice", twice[0])));
    }
    for &class in &sorted {
        let problem = match classes.members.get(class) {
            None => {
                format!("class {class}, but there are classes 0 to {} only", classes.names.len().max(1) - 1)
            }
            Some(_) if classes.novel == Some(class) => {
                format!("{}, the outliers, which are no class to be held out", classes.describe(class))
            }
            Some(members) if members.is_empty() => {
                format!("{}, of which there is no image", classes.describe(class))
            }
            Some(_) => continue,
        };
        return Err(Error::usage(format!("hold_out names {problem}")));
    }
    Ok(sorted)
}

/// The held-out classes of a fold that thresholds are chosen on, and those for the figures: in the proportion of
/// `calibrate` to `report`, every superclass in proportion, at least one of each if both are asked for.
pub(super) fn divide(
    classes: &Classes,
    fold: usize,
    held_out: &[usize],
    options: &SplitOptions,
) -> Result<(Vec<usize>, Vec<usize>)> {
    if options.report == 0.0 || held_out.is_empty() {
        return Ok((held_out.to_vec(), Vec::new()));
    }
    if held_out.len() == 1 {
        return Err(Error::invalid(format!(
            "only {} is held out, but thresholds must be reported on other classes than those they are chosen on: \
             hold out at least two (in each fold), or set report = 0",
            classes.describe(held_out[0])
        )));
    }
    let share = options.report / (options.calibrate + options.report);
    let count = ((share * held_out.len() as f64).round() as usize).clamp(1, held_out.len() - 1);
    let groups: Vec<Vec<usize>> = classes
        .groups
        .iter()
        .map(|group| group.iter().copied().filter(|class| held_out.contains(class)).collect())
        .collect();
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    let report = take(&groups, &sizes, count, options.seed, &[Choice::Report as u64, fold as u64]);
    let calibrate = held_out.iter().copied().filter(|class| !report.contains(class)).collect();
    Ok((calibrate, report))
}

/// `count` classes, ascending. Each superclass (class group) gives a number in proportion to its size, at most its entry in
/// `most`: the first of a permutation.
fn take(groups: &[Vec<usize>], most: &[usize], count: usize, seed: u64, words: &[u64]) -> Vec<usize> {
    let all: usize = groups.iter().map(Vec::len).sum();
    let shares: Vec<f64> = groups.iter().map(|group| group.len() as f64 / all as f64).collect();
    let mut counts = share_out(count, &shares, &mut vec![0.0; groups.len()]);
    // Classes that a small superclass cannot give come from the other superclasses, from the one with most to spare first.
    for group in 0..groups.len() {
        while counts[group] > most[group] {
            counts[group] -= 1;
            let roomiest =
                (0..groups.len()).rev().max_by_key(|&other| most[other].saturating_sub(counts[other]));
            counts[roomiest.unwrap_or_default()] += 1;
        }
    }
    let mut taken: Vec<usize> = Vec::with_capacity(count);
    for (number, group) in groups.iter().enumerate() {
        let words: Vec<u64> = words.iter().copied().chain([number as u64]).collect();
        taken.extend(shuffled(group, seed, &words).into_iter().take(counts[number]));
    }
    taken.sort_unstable();
    taken
}

fn shuffled(classes: &[usize], seed: u64, words: &[u64]) -> Vec<usize> {
    let order = Stream::for_purpose(seed, Purpose::HoldOut, words).permutation(classes.len());
    order.into_iter().map(|position| classes[position as usize]).collect()
}
