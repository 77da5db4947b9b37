//! Kernels and mechanisms that are not used on a card, because they failed there or because somebody says so.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::kernel::Kernel;
use super::kernels::kernels;
use super::problem::Pass;
use crate::error::{Error, Result};
use crate::tensor::DType;
use crate::values::did_you_mean;

/// Kernels of convolutions, by group or by name, and mechanisms. Without them another kernel computes the same, rounded otherwise.
///
/// | word | leaves out |
/// |---|---|
/// | `sm90` | every kernel written for Hopper (WGMMA and TMA) |
/// | `cluster` | kernels whose thread blocks form clusters |
/// | `halo` | kernels that keep image rows with their halo for all taps |
/// | `stream` | streaming wgrads |
/// | `NAME`, `PASS.NAME`, `PASS.NAME.TYPE` | a kernel: `sm90-rows-256x128`, `fprop.sm90-rows-256x128.bf16` |
/// | `pdl` | programmatic dependent launches; kernels follow each other serially |
/// | `graphs` | captured graphs; kernels are launched one by one |
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Exclusions {
    words: BTreeSet<String>,
}

/// A group of kernels.
type Group = (&'static str, fn(&Kernel) -> bool);

const GROUPS: [Group; 4] = [
    ("sm90", |kernel| kernel.name.starts_with("sm90-")),
    ("cluster", |kernel| kernel.blocks() > 1),
    ("halo", |kernel| kernel.name.starts_with("sm90-rows-")),
    ("stream", |kernel| kernel.name.starts_with("sm90-stream-")),
];

/// Programmatic dependent launch.
pub const PDL: &str = "pdl";
/// Captured graphs.
pub const GRAPHS: &str = "graphs";

impl Kernel {
    /// Its name among all kernels: `fprop.sm90-rows-256x128.bf16`.
    pub fn full_name(&self) -> String {
        full_name(self.pass, self.name, self.dtype)
    }

    /// Whether it computes what nothing else fits: rows of any alignment. It cannot be left out by hand.
    fn is_last_resort(&self) -> bool {
        self.vector == [false, false]
    }
}

/// The name of a kernel among all.
pub fn full_name(pass: Pass, name: &str, dtype: DType) -> String {
    format!("{}.{name}.{}", pass.word(), if dtype == DType::Bf16 { "bf16" } else { "f32" })
}

/// Whether a word names a kernel: by its full name, or by the first parts of it.
fn names(word: &str, kernel: &Kernel) -> bool {
    match GROUPS.iter().find(|(group, _)| *group == word) {
        Some((_, has)) => has(kernel),
        None => {
            let full = kernel.full_name();
            word == kernel.name
                || full.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }
    }
}

impl Exclusions {
    /// Words that name more than one kernel.
    pub fn groups() -> impl Iterator<Item = &'static str> {
        GROUPS.iter().map(|(name, _)| *name).chain([PDL, GRAPHS])
    }

    /// Leaves out what a word names as well; tells whether that is more than before.
    ///
    /// # Errors
    /// A word that names nothing.
    pub fn insert(&mut self, word: &str) -> Result<bool> {
        let is_mechanism = [PDL, GRAPHS].contains(&word);
        if !is_mechanism && !kernels().any(|kernel| names(word, kernel)) {
            return Err(Error::usage(format!(
                "nothing is called `{word}`{}; kernels are left out as sm90, cluster, halo, stream or by name \
                 (sm90-rows-256x128, wgrad.sm90-stream-64x576), mechanisms as pdl and graphs",
                did_you_mean(
                    word,
                    GROUPS.iter().map(|(group, _)| *group).chain(kernels().map(|kernel| kernel.name))
                )
            )));
        }
        Ok(self.words.insert(word.to_string()))
    }

    /// Whether a word names the kernel whose full name a text is, or begins with.
    pub fn covers(word: &str, text: &str) -> bool {
        kernels().any(|kernel| names(word, kernel) && text.starts_with(&kernel.full_name()))
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether a kernel is left out.
    pub(super) fn excludes(&self, kernel: &Kernel) -> bool {
        self.words.iter().any(|word| names(word, kernel))
    }

    /// Whether a mechanism, or a group or a kernel by exactly this word, is left out.
    pub fn has(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    /// Everything that either leaves out.
    #[must_use]
    pub fn and(&self, others: &Exclusions) -> Exclusions {
        Exclusions { words: self.words.union(&others.words).cloned().collect() }
    }

    /// The words that name kernels. Mechanisms change no result.
    #[must_use]
    pub fn of_kernels(&self) -> Exclusions {
        let is_kernel = |word: &&String| ![PDL, GRAPHS].contains(&word.as_str());
        Exclusions { words: self.words.iter().filter(is_kernel).cloned().collect() }
    }

    /// Whether both leave out the same kernels, in whatever words.
    pub fn same_kernels(&self, others: &Exclusions) -> bool {
        kernels().all(|kernel| self.excludes(kernel) == others.excludes(kernel))
    }

    /// Refuses to leave out kernels for which there is no other.
    ///
    /// # Errors
    /// Names the kernel.
    pub fn check_by_hand(&self) -> Result<()> {
        match kernels().find(|kernel| kernel.is_last_resort() && self.excludes(kernel)) {
            None => Ok(()),
            Some(kernel) => Err(Error::usage(format!(
                "--exclude {self}: {} computes the convolutions that fit no other kernel, so it cannot be left out; use \
                 --device cpu",
                kernel.full_name()
            ))),
        }
    }
}

impl FromStr for Exclusions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Exclusions> {
        let mut exclusions = Exclusions::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            exclusions.insert(word)?;
        }
        Ok(exclusions)
    }
}

impl TryFrom<String> for Exclusions {
    type Error = Error;

    fn try_from(text: String) -> Result<Exclusions> {
        text.parse()
    }
}

impl From<Exclusions> for String {
    fn from(exclusions: Exclusions) -> String {
        exclusions.to_string()
    }
}

impl fmt::Display for Exclusions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.iter().map(String::as_str).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(words: &str) -> Vec<String> {
        let exclusions: Exclusions = words.parse().unwrap();
        kernels().filter(|kernel| exclusions.excludes(kernel)).map(Kernel::full_name).collect()
    }

    #[test]
    fn a_word_leaves_out_the_kernels_it_names_and_no_others() {
        assert_eq!(left_out("fprop.sm90-rows-256x128.bf16"), ["fprop.sm90-rows-256x128.bf16"]);
        assert_eq!(left_out("fprop.sm90-rows-256x128"), ["fprop.sm90-rows-256x128.bf16"]);
        assert_eq!(
            left_out("sm90-rows-256x128"),
            ["fprop.sm90-rows-256x128.bf16", "dgrad.sm90-rows-256x128.bf16"]
        );
        // A name that begins like another is not the other.
        assert!(left_out("fprop.sm90-128x128.bf16").len() == 1 && left_out("sm80-64x64").len() == 6);
        assert!(
            left_out("halo").iter().all(|name| name.contains("sm90-rows")) && left_out("halo").len() == 6
        );
        assert!(left_out("cluster").iter().all(|name| name.contains("cluster")));
        assert!(left_out("sm90").len() > 20 && left_out("sm90").iter().all(|name| name.contains(".sm90-")));
        assert!(left_out("pdl,graphs").is_empty() && left_out(" ").is_empty());
    }

    #[test]
    fn a_name_of_nothing_is_refused_and_the_nearest_one_is_named() {
        let error = "sm90-row-256x128".parse::<Exclusions>().unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("`sm90-rows-256x128`"), "{error}");
        let error = "sm80-64x64-gather".parse::<Exclusions>().unwrap().check_by_hand().unwrap_err();
        assert!(error.to_string().contains("--device cpu"), "{error}");
        assert!("sm90,cluster,pdl".parse::<Exclusions>().unwrap().check_by_hand().is_ok());
    }

    #[test]
    fn the_same_kernels_may_be_left_out_in_other_words() {
        let parse = |words: &str| words.parse::<Exclusions>().unwrap();
        let (group, names) = (parse("stream,pdl"), parse(&left_out("stream").join(",")));
        assert!(group != names && group.same_kernels(&names) && !group.same_kernels(&parse("halo")));
        assert_eq!(group.of_kernels().to_string(), "stream");
        assert_eq!(group.and(&parse("halo")).to_string(), "halo,pdl,stream");
    }
}
