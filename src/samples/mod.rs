//! The samples a reader wants to look at: the most and the least familiar ones, confident mistakes, false alarms; and where samples lie
//! on a map of the features.
//!
//! They are chosen while the images are at hand, and kept with small copies in `samples.json`, so that a report needs neither the data
//! nor the caches.
//!
//! | file | holds |
//! |---|---|
//! | `choose` | which samples of which set, for each score |
//! | `map` | two-dimensional projections of the features |
//! | `file` | `samples.json` |

use std::collections::BTreeMap;

use crate::data::{self, DataSpec, Dataset, SharedDataset, Split, thumbnail};
use crate::error::{Error, Result};
use crate::eval::Answer;
use crate::features::{FeatureSet, Head};
use crate::ood::{OodInput, Outcome, Scores};
use crate::rng::{Purpose, Stream};

mod choose;
mod file;
mod map;

pub use file::{List, ListKind, Projection, SAMPLES_FILE, SampleFile, SetInfo, Shown};

/// Thumbnails that a page holds unless another number is asked for: about two megabytes.
pub const BUDGET: usize = 600;
/// Samples of the first set on the map at most, and of all others together.
const MAP_SAMPLES: [usize; 2] = [1500, 1500];
/// Second words of the streams that draw samples for the map, and among false alarms.
const MAP: u64 = 21;
const ALARMS: u64 = 22;

/// How samples are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Thumbnails at most.
    pub budget: usize,
    /// Seed of samples that are drawn.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { budget: BUDGET, seed: 0 }
    }
}

/// Where the images of a set are.
#[derive(Debug, Clone)]
pub enum Images {
    /// At hand.
    Open(SharedDataset),
    /// Not at hand, and why.
    Absent(String),
}

/// A set whose samples may be shown.
#[derive(Debug, Clone)]
pub struct SubjectSet<'a> {
    /// Its name on the page.
    pub name: &'a str,
    /// Features, logits and labels. Labels of the first set are classes of the head; those of others need not be.
    pub cache: &'a FeatureSet,
    /// Its scores by name, a number a sample; larger = more familiar.
    pub scores: &'a Scores,
    /// Its images.
    pub images: Images,
}

/// The sets of one head: first the one of known classes, then the others.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// Names of the classes, by logit; may be empty.
    pub class_names: &'a [String],
    /// The head.
    pub head: &'a Head,
    /// The sets.
    pub sets: Vec<SubjectSet<'a>>,
    /// The score that decides and the threshold below which a sample is novel; without one the threshold keeps 95 % of the first set.
    pub threshold: Option<(String, f64)>,
    /// The score whose false alarms are shown where there is no threshold.
    pub best: Option<String>,
}

impl Images {
    /// The images of a cache: those of the data set that its `meta.json` names, where it can be opened and is the same.
    pub fn of_cache(cache: &FeatureSet) -> Images {
        match &cache.meta().data {
            Some(named) => Images::named(named, cache.len(), cache.labels()),
            None => Images::Absent(format!("{} does not say which images it is of", cache.path().display())),
        }
    }

    /// The images of the data set that a cache of `samples` rows names. Where the name says nothing of a part, that is the training set, as
    /// for `extract`, or the test set, as in recipes: the one that fits.
    pub fn named(named: &str, samples: usize, labels: Option<&[i64]>) -> Images {
        let described = named.split(" (labels ").next().unwrap_or(named);
        let open = |split| -> std::result::Result<SharedDataset, String> {
            let data = described.parse::<DataSpec>().and_then(|spec| data::open(&spec, split));
            let data = data.map_err(|error| format!("`{described}` cannot be opened: {error}"))?;
            if data.len() != samples {
                let (found, changed) = (data.len(), "the data has changed since");
                return Err(format!("`{described}` holds {found} images, the cache {samples}: {changed}"));
            }
            match labels {
                Some(labels) if !agree(&*data, labels) => {
                    Err(format!("the images of `{described}` have other classes than the rows of the cache"))
                }
                _ => Ok(data),
            }
        };
        let found = open(Split::Train).or_else(|first| open(Split::Test).map_err(|_| first));
        found.map_or_else(Images::Absent, Images::Open)
    }
}

/// Whether images of one class in the data are of one class in the cache, which may number classes otherwise: a sign that they are the same
/// images in the same order.
fn agree(data: &dyn Dataset, labels: &[i64]) -> bool {
    let mut own = BTreeMap::new();
    labels.iter().enumerate().all(|(row, label)| *own.entry(data.label(row)).or_insert(*label) == *label)
}

impl SampleFile {
    /// Chooses samples and makes their thumbnails. The same bits for any number of threads.
    ///
    /// # Errors
    /// There is no set, or the shapes of a set, its scores and the head differ.
    pub fn new(subject: &Subject<'_>, options: Options) -> Result<SampleFile> {
        check(subject)?;
        let choice = choose::choose(subject, options);
        let map = map_rows(subject, options);
        let listed = choice.lists.iter().flat_map(|list| list.rows.iter().map(|row| (list.set, *row)));
        let wanted: Vec<(usize, usize)> = listed.collect();
        // Listed samples come first, so the budget goes to them first.
        let mut places: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let mut order = Vec::new();
        for key in wanted.iter().chain(&map) {
            places.entry(*key).or_insert_with(|| {
                order.push(*key);
                order.len() - 1
            });
        }
        let mut file = SampleFile {
            classes: subject.class_names.to_vec(),
            threshold: choice.threshold.clone(),
            budget: options.budget,
            seed: options.seed,
            ..SampleFile::default()
        };
        for set in &subject.sets {
            let absent = match &set.images {
                Images::Open(_) => None,
                Images::Absent(why) => Some(why.clone()),
            };
            file.sets.push(SetInfo {
                name: set.name.to_string(),
                samples: set.cache.len() as u64,
                absent,
                unreadable: 0,
            });
        }
        for (set, row) in &order {
            let shown = file.shown(subject, *set, *row);
            file.shown.push(shown);
        }
        file.lists = choice.lists.into_iter().map(|list| list.placed(&places)).collect();
        let on_map: Vec<usize> = map.iter().map(|key| places[key]).collect();
        file.project(subject, &order, &on_map)?;
        Ok(file)
    }

    /// Samples of an evaluation of OOD scores, with the images that the caches name: those of the ID set and of the OOD sets.
    ///
    /// # Errors
    /// As [`SampleFile::new`].
    pub fn of_scores(
        outcome: &Outcome,
        (id, ood): (&FeatureSet, &[OodInput]),
        head: &Head,
        options: Options,
    ) -> Result<SampleFile> {
        let caches = std::iter::once(id).chain(ood.iter().map(|input| &input.set));
        let images = |cache| match options.budget {
            0 => Images::Absent("none were asked for".to_string()),
            _ => Images::of_cache(cache),
        };
        let sets: Vec<(&FeatureSet, Images)> = caches.map(|cache| (cache, images(cache))).collect();
        let names = class_names(id, &sets[0].1, head.classes());
        SampleFile::of_scored(outcome, sets, (head, &names), None, options)
    }

    /// Labelled samples of one set, ranked by confidence (the largest softmax probability).
    ///
    /// # Errors
    /// As [`SampleFile::new`].
    pub fn of_labelled(
        cache: &FeatureSet,
        images: Images,
        (head, class_names): (&Head, &[String]),
        options: Options,
    ) -> Result<SampleFile> {
        let scores = Scores::from([(
            "confidence".to_string(),
            cache.map_logits(head, |logits| Answer::of(logits).confidence),
        )]);
        let set = SubjectSet { name: "labelled", cache, scores: &scores, images };
        SampleFile::new(&Subject { class_names, head, sets: vec![set], threshold: None, best: None }, options)
    }

    /// The same with images at hand: `sets` are the ID set and the OOD sets, in their order; with the calibrated threshold of a score, if
    /// there is one.
    ///
    /// # Errors
    /// As [`SampleFile::new`].
    pub fn of_scored(
        outcome: &Outcome,
        sets: Vec<(&FeatureSet, Images)>,
        (head, class_names): (&Head, &[String]),
        threshold: Option<(String, f64)>,
        options: Options,
    ) -> Result<SampleFile> {
        let named = std::iter::once(("id", &outcome.id));
        let named = named.chain(outcome.ood.iter().map(|(name, scores)| (name.as_str(), scores)));
        let sets = sets.into_iter().zip(named).map(|((cache, images), (name, scores))| SubjectSet {
            name,
            cache,
            scores,
            images,
        });
        let best = outcome.evaluation.best_method();
        let subject = Subject { class_names, head, sets: sets.collect(), threshold, best };
        SampleFile::new(&subject, options)
    }

    /// A sample with the network's answer and, where the budget allows, its image.
    fn shown(&mut self, subject: &Subject<'_>, set: usize, row: usize) -> Shown {
        let SubjectSet { cache, images, .. } = &subject.sets[set];
        let mut logits = Vec::new();
        cache.read_logits(subject.head, row..row + 1, &mut logits);
        let Answer { predicted, confidence } = Answer::of(&logits);
        let predicted = predicted as usize;
        let label = cache.labels().map(|labels| labels[row]).filter(|label| set == 0 && *label >= 0);
        let mut shown = Shown { set, row, label, predicted, confidence, ..Shown::default() };
        let Images::Open(data) = images else { return shown };
        shown.name = Some(data.sample_name(row));
        if set > 0 {
            let class = usize::try_from(data.label(row)).ok();
            shown.class = class.and_then(|class| data.class_names().get(class).cloned());
        }
        if self.thumbnails.len() < self.budget {
            match data.image(row).and_then(|image| thumbnail(&image)) {
                Ok(address) => {
                    shown.thumbnail = Some(self.thumbnails.len());
                    self.thumbnails.push(address);
                }
                // It was readable when its features were made; a page can do without.
                Err(_) => self.sets[set].unreadable += 1,
            }
        }
        shown
    }

    /// Places samples on the maps.
    fn project(&mut self, subject: &Subject<'_>, order: &[(usize, usize)], on_map: &[usize]) -> Result<()> {
        let dimension = subject.head.dimension();
        let (mut features, mut row_features) = (Vec::with_capacity(on_map.len() * dimension), Vec::new());
        for place in on_map {
            let (set, row) = order[*place];
            subject.sets[set].cache.features().read_f64(row..row + 1, &mut row_features);
            features.extend_from_slice(&row_features);
        }
        let familiar = on_map.iter().take_while(|place| order[**place].0 == 0).count();
        let first = subject.sets[0].cache;
        for projection in map::projections(first, subject.head.classes(), &features, familiar, dimension)? {
            for (place, at) in on_map.iter().zip(&projection.places) {
                self.shown[*place].at.push(*at);
            }
            self.maps.push(Projection { name: projection.name.to_string(), explained: projection.explained });
        }
        Ok(())
    }
}

/// Names of the classes by logit, as the labels of a cache and the data behind it tell them: empty where they do not tell all.
pub fn class_names(cache: &FeatureSet, images: &Images, classes: usize) -> Vec<String> {
    let (Images::Open(data), Some(labels)) = (images, cache.labels()) else { return Vec::new() };
    let mut names: Vec<Option<&String>> = vec![None; classes];
    for (row, label) in labels.iter().enumerate() {
        let name = usize::try_from(data.label(row)).ok().and_then(|class| data.class_names().get(class));
        if let Some(place) = usize::try_from(*label).ok().and_then(|label| names.get_mut(label)) {
            *place = name.or(*place);
        }
    }
    let all: Option<Vec<String>> = names.into_iter().map(|name| name.cloned()).collect();
    all.unwrap_or_default()
}

fn check(subject: &Subject<'_>) -> Result<()> {
    if subject.sets.is_empty() {
        return Err(Error::invalid("there is no set whose samples could be shown"));
    }
    for set in &subject.sets {
        set.cache.check_shape(subject.head.dimension(), subject.head.classes())?;
        if let Some((name, scores)) = set.scores.iter().find(|(_, scores)| scores.len() != set.cache.len()) {
            return Err(Error::invalid(format!(
                "{} holds {} samples, and there are {} scores {name} of it",
                set.cache.path().display(),
                set.cache.len(),
                scores.len()
            )));
        }
    }
    Ok(())
}

/// (set, row) of the samples on the map, set by set; where there are more than fit, drawn at random.
fn map_rows(subject: &Subject<'_>, options: Options) -> Vec<(usize, usize)> {
    let others = (subject.sets.len() - 1).max(1);
    let mut rows = Vec::new();
    for (index, set) in subject.sets.iter().enumerate() {
        let most = if index == 0 { MAP_SAMPLES[0] } else { (MAP_SAMPLES[1] / others).max(100) };
        let drawn = drawn(set.cache.len(), most, options.seed, [MAP, index as u64]);
        rows.extend(drawn.into_iter().map(|row| (index, row)));
    }
    rows
}

/// At most `most` of `0..count`, ascending: all of them, or some drawn at random.
fn drawn(count: usize, most: usize, seed: u64, words: [u64; 2]) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    let mut rows = Stream::for_purpose(seed, Purpose::Subset, &words).permutation(count);
    rows.truncate(most);
    rows.sort_unstable();
    rows.into_iter().map(|row| row as usize).collect()
}

#[cfg(test)]
mod tests;
