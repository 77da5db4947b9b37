//! The user's choices of data order, classes, heads and losses, by name.

use crate::ops::{Direction, Side};
use crate::values::named;

named! {
    /// Order of the samples in an epoch.
    pub enum Shuffle: "order of samples" {
        /// A new random order in every epoch.
        Epoch = "epoch",
        /// The order of the data set.
        None = "none",
    }
}

named! {
    /// Which samples an epoch has.
    pub enum Sampler: "sampler" {
        /// Every sample once, in the order of `--shuffle`.
        Shuffle = "shuffle",
        /// One draw for each sample of the data: first a class, then one of its samples, so that every class has the same chance.
        Balanced = "balanced",
    }
}

named! {
    /// How much of the network is trained.
    pub enum FineTune: "way of fine-tuning" {
        /// All of it.
        Full = "full",
        /// The heads; the backbone keeps its weights, and its batch normalisation its running statistics.
        Frozen = "frozen",
    }
}

named! {
    /// Weights of classes in the cross-entropy.
    pub enum ClassWeights: "weighting of classes" {
        /// All the same.
        None = "none",
        /// Inversely proportional to the number of samples: n / (classes * n of the class).
        Balanced = "balanced",
    }
}

named! {
    /// The loss of samples of the class `novel`.
    pub enum OutlierLoss: "loss of outliers" {
        /// `novel` is a class like any other.
        ExtraClass = "extra-class",
        /// Every class is equally likely (Hendrycks et al. 2019, outlier exposure).
        Uniform = "uniform",
        /// A high energy, by squared hinges (Liu et al. 2020).
        Energy = "energy",
    }
}

named! {
    /// Between which distributions over superclasses the divergence is taken.
    pub enum KlDirection: "divergence" {
        /// KL(superclass head, subclass head summed up).
        SuperclassToSum = "super_agg",
        /// KL(subclass head summed up, superclass head).
        SumToSuperclass = "agg_super",
        /// Jensen-Shannon divergence.
        JensenShannon = "js",
    }
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

named! {
    /// Which head learns nothing from the divergence.
    pub enum KlDetach: "head to detach" {
        /// Both learn.
        None = "none",
        /// The superclass head is taken as given.
        Superclass = "super",
        /// The subclass head is taken as given.
        Subclass = "sub",
    }
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
