//! What a user may choose about data order, classes, heads and losses, by name.

use serde::{Deserialize, Serialize};

use crate::ops::{Direction, Side};

/// Order of the samples in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Shuffle {
    /// A new random order in every epoch.
    Epoch,
    /// The order of the data set.
    None,
}

/// Which samples an epoch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// Every sample once, in the order of `--shuffle`.
    Shuffle,
    /// As many samples as the data has, each drawn from a class that is drawn first: every class has the same chance.
    Balanced,
}

/// How much of the network is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FineTune {
    /// All of it.
    Full,
    /// The heads; the backbone keeps its weights, and its batch normalisation its running statistics.
    Frozen,
}

/// Weights of classes in the cross-entropy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// All the same.
    None,
    /// Inversely proportional to the number of samples: n / (classes * n of the class).
    Balanced,
}

/// What samples of the class `novel` teach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OutlierLoss {
    /// `novel` is a class like any other.
    ExtraClass,
    /// Every class is equally likely (Hendrycks et al. 2019, outlier exposure).
    Uniform,
    /// A high energy, by squared hinges (Liu et al. 2020).
    Energy,
}

/// Between which distributions over superclasses the divergence is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum KlDirection {
    /// KL(superclass head, subclass head summed up).
    #[serde(rename = "super_agg")]
    #[value(name = "super_agg")]
    SuperclassToSum,
    /// KL(subclass head summed up, superclass head).
    #[serde(rename = "agg_super")]
    #[value(name = "agg_super")]
    SumToSuperclass,
    /// Jensen-Shannon divergence.
    #[serde(rename = "js")]
    #[value(name = "js")]
    JensenShannon,
}

impl KlDirection {
    /// As the operation calls it, the superclass head being its first operand.
    pub fn direction(self) -> Direction {
        match self {
            KlDirection::SuperclassToSum => Direction::FirstToSecond,
            KlDirection::SumToSuperclass => Direction::SecondToFirst,
            KlDirection::JensenShannon => Direction::Both,
        }
    }
}

/// Which head learns nothing from the divergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum KlDetach {
    /// Both learn.
    #[serde(rename = "none")]
    #[value(name = "none")]
    None,
    /// The superclass head is taken as given.
    #[serde(rename = "super")]
    #[value(name = "super")]
    Superclass,
    /// The subclass head is taken as given.
    #[serde(rename = "sub")]
    #[value(name = "sub")]
    Subclass,
}

impl KlDetach {
    /// As the operation calls it.
    pub fn side(self) -> Option<Side> {
        match self {
            KlDetach::None => None,
            KlDetach::Superclass => Some(Side::First),
            KlDetach::Subclass => Some(Side::Second),
        }
    }
}
