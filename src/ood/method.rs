//! The scores by name.

use std::fmt;
use std::str::FromStr;

use super::families;
use super::parameters::Parameter;
use crate::error::{Error, Result};
use crate::values::{did_you_mean, same_name};

/// Declares [`Method`], its list and its names.
macro_rules! methods {
    ($($method:ident = $name:literal,)*) => {
        /// An OOD score. Every one is a confidence: larger means more in-distribution. What each measures, needs and costs is
        /// said by the module of its family ([`Method::about`]).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method {
            $(#[doc = concat!("`", $name, "`")] $method,)*
        }

        impl Method {
            /// Every score, in the order they are shown.
            pub const ALL: &[Method] = &[$(Method::$method,)*];

            /// The name on the command line and in files.
            pub fn name(self) -> &'static str {
                match self {
                    $(Method::$method => $name,)*
                }
            }
        }
    };
}

methods! {
    Msp = "msp",
    Mls = "mls",
    Energy = "energy",
    Mahalanobis = "mahalanobis",
    Rmds = "rmds",
    Vim = "vim",
    VimCentered = "vim_centered",
    Residual = "residual",
    Neco = "neco",
    NecoFormula = "neco_formula",
    NecoClassMeans = "neco_class_means",
    NecoOfficial = "neco_official",
    Knn = "knn",
    Gen = "gen",
    React = "react",
    She = "she",
    Nci = "nci",
    TempScale = "tempscale",
    OdinTemperature = "odin_temperature",
    Entropy = "entropy",
    Klm = "klm",
    OpenMax = "openmax",
    GradNorm = "gradnorm",
    Dice = "dice",
    AshP = "ash_p",
    AshB = "ash_b",
    AshS = "ash_s",
    Scale = "scale",
    Vra = "vra",
    VraP = "vra_p",
    VraOpenOod = "vra_openood",
    Fdbd = "fdbd",
    FdbdNorm = "fdbd_norm",
    CadRef = "cadref",
    CaRef = "caref",
    SheEuclidean = "she_euclidean",
    SheCosine = "she_cosine",
    Cosine = "cosine",
    Prototype = "prototype",
    Nac = "nac",
    MdsPp = "mds_pp",
    RmdsPp = "rmds_pp",
    Ssd = "ssd",
    NnGuide = "nnguide",
    Relation = "relation",
    WeiPer = "weiper",
}

/// Other names of scores.
const ALIASES: [(&str, Method); 1] = [("she_ip", Method::She)];

/// What a score is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Features of the samples, beside their logits.
    pub features: bool,
    /// A training set to be fitted on.
    pub training: bool,
    /// The class of every training sample.
    pub labels: bool,
    /// Labelled ID samples outside training, if there are some.
    pub calibration: bool,
}

impl Needs {
    /// A sample's logits.
    pub(super) const LOGITS: Needs =
        Needs { features: false, training: false, labels: false, calibration: false };
    /// A sample's features and the head.
    pub(super) const HEAD: Needs = Needs { features: true, ..Needs::LOGITS };
    /// Training features, whatever their classes.
    pub(super) const TRAINING: Needs = Needs { training: true, ..Needs::HEAD };
    /// Training features and their classes.
    pub(super) const LABELS: Needs = Needs { labels: true, ..Needs::TRAINING };
    /// Labelled ID samples outside training.
    pub(super) const CALIBRATION: Needs = Needs { calibration: true, training: true, ..Needs::LOGITS };
}

/// What a score costs a sample, for D features, C classes and a bank of B training samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// C or C² operations.
    Logits,
    /// A product of features with C directions at the most: D C.
    Head,
    /// A product of features with D directions: D². Its fit has eigenvectors of a D x D matrix.
    Square,
    /// Products with the bank: B (D + C).
    Bank,
    /// Products with many perturbed heads: a hundred times D C.
    Heads,
}

impl Cost {
    /// The cost in words.
    pub fn words(self) -> &'static str {
        match self {
            Cost::Logits => "logits only",
            Cost::Head => "D x C a sample",
            Cost::Square => "D x D a sample",
            Cost::Bank => "the bank x D a sample",
            Cost::Heads => "100 x D x C a sample",
        }
    }
}

/// What is known of a score before anything is fitted.
#[derive(Debug)]
pub struct About {
    /// The score.
    pub method: Method,
    /// What it measures, in a sentence, with its source.
    pub explanation: &'static str,
    /// What it is made of.
    pub needs: Needs,
    /// What it costs.
    pub cost: Cost,
    /// Its constants, in the order in which its name shows them.
    pub parameters: &'static [Parameter],
}

impl Method {
    /// What is known of the score.
    ///
    /// # Panics
    /// Never: a test finds every score in its family.
    pub fn about(self) -> &'static About {
        let mut all = families::ALL.iter().flat_map(|family| family.members());
        all.find(|about| about.method == self).expect("every score has a family")
    }

    /// What the score measures, in a sentence, with its source.
    pub fn explanation(self) -> &'static str {
        self.about().explanation
    }

    /// Whether the score is a function of a sample's logits alone.
    pub fn is_of_logits(self) -> bool {
        let needs = self.about().needs;
        !needs.features && !needs.training
    }

    /// Whether it is fitted on a training set.
    pub fn needs_training(self) -> bool {
        self.about().needs.training
    }

    /// Whether its fit needs the class of every training sample.
    pub fn needs_labels(self) -> bool {
        self.about().needs.labels
    }

    /// Whether it costs no more than a product with the head: no D x D product and no bank.
    pub fn is_cheap(self) -> bool {
        self.about().cost <= Cost::Head
    }

    /// Names of the scores of which something holds, in their order.
    pub(super) fn names_where(holds: impl Fn(Method) -> bool) -> String {
        let names: Vec<&str> =
            Method::ALL.iter().filter(|method| holds(**method)).map(|method| method.name()).collect();
        names.join(",")
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Method> {
        let own = Method::ALL.iter().find(|method| same_name(method.name(), name));
        let alias = || ALIASES.iter().find(|(alias, _)| same_name(alias, name)).map(|(_, method)| *method);
        own.copied().or_else(alias).ok_or_else(|| {
            let known: Vec<&str> = Method::ALL.iter().map(|method| method.name()).collect();
            Error::usage(format!(
                "no score is named `{name}`{}; there are {}, and `all` and `cheap`",
                did_you_mean(name, known.iter().copied()),
                known.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_is_in_one_family_and_says_what_it_is() {
        for &method in Method::ALL {
            let members = families::ALL.iter().flat_map(|family| family.members());
            assert_eq!(members.filter(|about| about.method == method).count(), 1, "{method}");
            assert!(method.explanation().ends_with(").") || method.explanation().contains('('), "{method}");
            assert!(method.about().parameters.len() <= super::super::spec::MOST_PARAMETERS, "{method}");
            assert_eq!(method.name().parse::<Method>().unwrap(), method);
        }
        assert_eq!("SHE-IP".parse::<Method>().unwrap(), Method::She);
        let error = "mahalanobi".parse::<Method>().unwrap_err().to_string();
        assert!(error.contains("mahalanobis"), "{error}");
    }
}
