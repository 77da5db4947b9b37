//! `samples.json`: the samples of a page, and their thumbnails.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Position, Result};
use crate::files;

/// The file's name beside the scores it is of.
pub const SAMPLES_FILE: &str = "samples.json";
/// A thousand thumbnails and ten thousand places are about ten megabytes.
const LONGEST: u64 = 64 << 20;
/// Thumbnails and samples of a file that this program writes are far fewer.
const MOST_SAMPLES: usize = 100_000;

/// Everything the file holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleFile {
    /// Names of the classes, by logit; may be empty.
    pub classes: Vec<String>,
    /// The sets, the one of known classes first.
    pub sets: Vec<SetInfo>,
    /// The threshold whose false alarms are listed.
    pub threshold: Option<Threshold>,
    /// Lists of samples.
    pub lists: Vec<List>,
    /// The maps that samples have places on, in the order of [`Shown::at`].
    pub maps: Vec<Projection>,
    /// The samples.
    pub shown: Vec<Shown>,
    /// Small copies of images, as `data:` addresses.
    pub thumbnails: Vec<String>,
    /// Thumbnails at most.
    pub budget: usize,
    /// Seed of samples that were drawn.
    pub seed: u64,
}

/// A set of samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// Number of its samples.
    pub samples: u64,
    /// The reason why its images are not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// Chosen images that could not be read.
    #[serde(default)]
    pub unreadable: u64,
}

/// A threshold of a score: below it a sample is novel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// The score.
    pub score: String,
    /// The threshold.
    pub tau: f64,
    /// Whether it was calibrated; otherwise it keeps 95 % of the samples of known classes.
    pub calibrated: bool,
}

/// What the samples of a list have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListKind {
    /// Classified wrongly, the surest first.
    Mistakes,
    /// Of known classes and below the threshold, some at random where they are many.
    FalseAlarms,
    /// Of the highest scores; of an OOD set they are the hardest.
    MostFamiliar,
    /// Of the lowest scores.
    LeastFamiliar,
}

/// Some samples of one set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// What they have in common.
    pub kind: ListKind,
    /// Their set.
    pub set: usize,
    /// The score that ranks them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// Places in the list of samples.
    pub samples: Vec<usize>,
    /// The number of samples they were taken from.
    pub of: u64,
}

/// A map of the features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// `pca`: principal components of the features; `class_means`: those of the class means.
    pub name: String,
    /// Shares of the variance along both axes.
    pub explained: [f64; 2],
}

/// One sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// Its set.
    pub set: usize,
    /// Its row there.
    pub row: usize,
    /// The name of its image: a file, or the number of a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its class by logit, in the set of known classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<i64>,
    /// Its class by name, in other sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The class of its largest logit.
    pub predicted: usize,
    /// The softmax probability of that class.
    pub confidence: f64,
    /// Its thumbnail's place in [`SampleFile::thumbnails`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<usize>,
    /// Its places on the maps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<[f64; 2]>,
}

impl SampleFile {
    /// Writes the file, without white space: people look at the page.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).expect("a file is plain values");
        files::write(path, text)
    }

    /// Reads a file; every place in it is checked, and a thumbnail is nothing but an image.
    ///
    /// # Errors
    /// The file is damaged or somebody has changed it.
    pub fn read(path: &Path) -> Result<SampleFile> {
        let file: SampleFile =
            files::read_json(path, LONGEST, "samples of a page (classes, sets, lists, shown, thumbnails)")?;
        match file.fault() {
            None => Ok(file),
            Some((member, expected, found)) => {
                Err(Error::malformed(path, Position::Member(member.to_string()), expected, found))
            }
        }
    }

    /// The first thing that is not as [`SampleFile::new`] makes it: where, what was expected, what was found.
    fn fault(&self) -> Option<(&'static str, String, String)> {
        let shown = self.shown.len();
        if shown.max(self.thumbnails.len()) > MOST_SAMPLES {
            return Some(("shown", format!("at most {MOST_SAMPLES} samples"), format!("{shown}")));
        }
        if let Some(odd) = self.thumbnails.iter().position(|address| !is_image(address)) {
            let expected = "images as data:image/png;base64,… or data:image/jpeg;base64,…";
            return Some(("thumbnails", expected.to_string(), format!("something else in place {odd}")));
        }
        let sets = self.sets.len();
        let below = |what: &str, bound: usize| format!("a {what} below {bound}");
        for (place, sample) in self.shown.iter().enumerate() {
            if sample.set >= sets {
                return Some(("shown", below("set", sets), format!("{} in place {place}", sample.set)));
            }
            if sample.thumbnail.is_some_and(|own| own >= self.thumbnails.len()) {
                let found = format!("{:?} in place {place}", sample.thumbnail);
                return Some(("shown", below("thumbnail", self.thumbnails.len()), found));
            }
            if !sample.at.is_empty() && sample.at.len() != self.maps.len() {
                let expected = format!("no place or one on each of {} maps", self.maps.len());
                return Some(("shown", expected, format!("{} in place {place}", sample.at.len())));
            }
        }
        for list in &self.lists {
            let odd =
                list.samples.iter().find(|place| **place >= shown || self.shown[**place].set != list.set);
            if let Some(odd) = odd {
                return Some((
                    "lists",
                    format!("samples of set {} below {shown}", list.set),
                    odd.to_string(),
                ));
            }
            if list.set >= sets {
                return Some(("lists", below("set", sets), list.set.to_string()));
            }
        }
        None
    }
}

/// Whether an address holds an image, and not a character beside it: it stands in a style sheet.
fn is_image(address: &str) -> bool {
    let kinds = ["data:image/png;base64,", "data:image/jpeg;base64,"];
    let data = kinds.iter().find_map(|kind| address.strip_prefix(kind));
    data.is_some_and(|data| {
        !data.is_empty() && data.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
    })
}
