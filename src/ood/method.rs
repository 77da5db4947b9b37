//! The scores by name, and the options that shape them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::values::{Reals, Wholes, did_you_mean, same_name};

/// An OOD score. Every one is a confidence: larger means more in-distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Maximum softmax probability (Hendrycks and Gimpel, 2017).
    Msp,
    /// Maximum logit (Hendrycks et al., 2022).
    Mls,
    /// Negative free energy `T logsumexp(l / T)` (Liu et al., 2020).
    Energy,
    /// Negative squared Mahalanobis distance to the nearest class mean, tied covariance (Lee et al., 2018).
    Mahalanobis,
    /// Relative Mahalanobis: minus the class distance plus the distance to one background Gaussian (Ren et al., 2021).
    Rmds,
    /// Virtual-logit matching about the uncentred origin (Wang et al., 2022).
    Vim,
    /// The same with the covariance centred, as `np.cov` does.
    VimCentered,
    /// The negative norm of ViM's residual alone.
    Residual,
    /// NECO (Ammar et al., 2024): centred numerator, raw denominator.
    Neco,
    /// NECO as its formula is printed: nothing centred.
    NecoFormula,
    /// NECO with the span of the class means as subspace.
    NecoClassMeans,
    /// NECO on standardised features, as its authors' code does for ResNets.
    NecoOfficial,
    /// Negative squared distance to the k-th nearest normalised training feature (Sun et al., 2022).
    Knn,
    /// Generalised entropy of the largest probabilities (Liu et al., 2023).
    Gen,
    /// Energy after clipping features at a percentile (Sun et al., 2021).
    React,
    /// Inner product with the stored pattern of the predicted class (Zhang et al., 2023).
    She,
    /// Neural-collapse-inspired proximity to the weight vector of the predicted class (Liu and Qin, 2023).
    Nci,
}

impl Method {
    /// Every score, in the order they are shown.
    pub const ALL: [Method; 17] = [
        Method::Msp,
        Method::Mls,
        Method::Energy,
        Method::Mahalanobis,
        Method::Rmds,
        Method::Vim,
        Method::VimCentered,
        Method::Residual,
        Method::Neco,
        Method::NecoFormula,
        Method::NecoClassMeans,
        Method::NecoOfficial,
        Method::Knn,
        Method::Gen,
        Method::React,
        Method::She,
        Method::Nci,
    ];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Method::Msp => "msp",
            Method::Mls => "mls",
            Method::Energy => "energy",
            Method::Mahalanobis => "mahalanobis",
            Method::Rmds => "rmds",
            Method::Vim => "vim",
            Method::VimCentered => "vim_centered",
            Method::Residual => "residual",
            Method::Neco => "neco",
            Method::NecoFormula => "neco_formula",
            Method::NecoClassMeans => "neco_class_means",
            Method::NecoOfficial => "neco_official",
            Method::Knn => "knn",
            Method::Gen => "gen",
            Method::React => "react",
            Method::She => "she",
            Method::Nci => "nci",
        }
    }

    /// What the score measures, in a sentence, with its source.
    pub fn explanation(self) -> &'static str {
        match self {
            Method::Msp => "Score: the largest softmax probability (Hendrycks and Gimpel, 2017).",
            Method::Mls => "Score: the largest logit (Hendrycks et al., 2022).",
            Method::Energy => {
                "Score: negative free energy, the log-sum-exp of the logits (Liu et al., 2020)."
            }
            Method::Mahalanobis => {
                "Score: minus the squared Mahalanobis distance to the nearest class mean, with one covariance for all classes (Lee et \
                 al., 2018)."
            }
            Method::Rmds => {
                "Score: relative Mahalanobis distance, that to the nearest class less that to one Gaussian of all training features \
                 (Ren et al., 2021)."
            }
            Method::Vim => {
                "Score: virtual-logit matching, the energy less a logit made of the feature's residual outside the principal subspace \
                 (Wang et al., 2022)."
            }
            Method::VimCentered => "Score: vim with features centred at their mean (Wang et al., 2022).",
            Method::Residual => "Score: minus the norm of the residual of vim alone (Wang et al., 2022).",
            Method::Neco => {
                "Score: NECO, the share of a feature's length inside the principal subspace of the training features (Ammar et al., \
                 2024)."
            }
            Method::NecoFormula => {
                "Score: NECO as its formula is printed, nothing centred (Ammar et al., 2024)."
            }
            Method::NecoClassMeans => {
                "Score: NECO with the span of the class means as the subspace (Ammar et al., 2024)."
            }
            Method::NecoOfficial => {
                "Score: NECO on standardised features, as its authors' code does for ResNets (Ammar et al., 2024)."
            }
            Method::Knn => {
                "Score: minus the squared distance to the k-th nearest training feature, all normalised (Sun et al., 2022)."
            }
            Method::Gen => {
                "Score: minus the generalised entropy of the largest probabilities (Liu et al., 2023)."
            }
            Method::React => "Score: energy after features are clipped at a percentile (Sun et al., 2021).",
            Method::She => {
                "Score: inner product of a feature with the mean training feature of the predicted class (Zhang et al., 2023)."
            }
            Method::Nci => {
                "Score: alignment of the centred feature with the weight vector of the predicted class, plus a little of the feature's \
                 norm (Liu and Qin, 2023)."
            }
        }
    }

    /// Whether the score is a function of a sample's logits alone, so that nothing is fitted on training features.
    pub fn needs_no_fit(self) -> bool {
        matches!(self, Method::Msp | Method::Mls | Method::Energy | Method::Gen)
    }

    /// Whether its fit needs the class of every training sample.
    pub fn needs_labels(self) -> bool {
        !self.needs_no_fit() && !matches!(self, Method::Knn | Method::React)
    }

    /// A comma-separated list of names, or `all`; repetitions count once.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn parse_list(text: &str) -> Result<Vec<Method>> {
        if text.trim() == "all" {
            return Ok(Method::ALL.to_vec());
        }
        let mut methods = Vec::new();
        for name in text.split(',').map(str::trim) {
            let method = name.parse()?;
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        Ok(methods)
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
        Method::ALL.into_iter().find(|method| same_name(method.name(), name)).ok_or_else(|| {
            let known: Vec<&str> = Method::ALL.iter().map(|method| method.name()).collect();
            Error::usage(format!(
                "no score is named `{name}`{}; there are {} and `all`",
                did_you_mean(name, known.iter().copied()),
                known.join(", ")
            ))
        })
    }
}

/// Number of principal directions of a subspace.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The usual rule of the score: ViM's paper (1000 from D = 2048 on, 512 from 768 on, else D / 2), NECO's C - 1.
    #[default]
    Rule,
    /// This many.
    Count(usize),
    /// The fewest directions that explain this share of the variance, between 0 and 1.
    Variance(f64),
}

impl Dimension {
    /// Checks that ViM's principal directions leave a residual of `size` features.
    ///
    /// # Errors
    /// They do not; the message says how many would.
    pub(super) fn check_residual(self, size: usize) -> Result<()> {
        const LEAVE_OUT: &str = "leave vim, vim_centered and residual out of the scores";
        match self {
            _ if size < 2 => Err(Error::usage(format!(
                "ViM needs at least 2 features to leave a residual, here is 1; {LEAVE_OUT}"
            ))),
            Dimension::Count(count) if count >= size => Err(Error::usage(format!(
                "vim-dim {count} leaves no residual of {size} features; choose {}, or {LEAVE_OUT}",
                if size == 2 { "1".to_string() } else { format!("1 to {}", size - 1) }
            ))),
            _ => Ok(()),
        }
    }

    /// The smallest number of leading values of `descending` whose sum reaches the share `share` of the total.
    pub(super) fn explaining(descending: impl Iterator<Item = f64> + Clone, share: f64) -> usize {
        let total: f64 = descending.clone().map(|value| value.max(0.0)).sum();
        let mut sum = 0.0;
        let reached = descending.map(|value| value.max(0.0)).take_while(|value| {
            let before = sum;
            sum += value;
            before < share * total
        });
        reached.count().max(1)
    }
}

impl FromStr for Dimension {
    type Err = Error;

    fn from_str(text: &str) -> Result<Dimension> {
        if text == "paper" || text == "rule" {
            return Ok(Dimension::Rule);
        }
        if let Ok(count) = text.parse::<usize>() {
            return if count > 0 {
                Ok(Dimension::Count(count))
            } else {
                Err(Error::usage("`0` is no dimension: a subspace has at least 1; write a number such as 64"))
            };
        }
        match text.parse::<f64>() {
            Ok(share) if share > 0.0 && share < 1.0 => Ok(Dimension::Variance(share)),
            _ => Err(Error::usage(format!(
                "`{text}` is no dimension; write a number such as 64, a share of the variance above 0 and below 1 such as 0.9, \
                 or the rule of the score, `paper` or `rule`"
            ))),
        }
    }
}

/// Percentiles.
pub const PERCENT: Reals = Reals::between(0.0, 100.0);

/// The scores to fit, and their constants. The defaults are those of the papers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The scores wanted.
    pub methods: Vec<Method>,
    /// T of `energy` and `react`, also of `msp` (the others have none).
    pub temperature: f64,
    /// Principal directions that ViM and `residual` remove.
    pub vim_dim: Dimension,
    /// Dimension of NECO's principal subspace.
    pub neco_dim: Dimension,
    /// Which neighbour `knn` measures the distance to.
    pub knn_k: usize,
    /// Training samples `knn` compares with at most; a random subset is drawn from more.
    pub knn_bank: usize,
    /// Percentile of all training features at which `react` clips, 0 to 100.
    pub react_percentile: f64,
    /// Exponent γ of `gen`.
    pub gen_gamma: f64,
    /// How many of the largest probabilities `gen` looks at.
    pub gen_m: usize,
    /// Seed of every random subset.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            methods: Method::ALL.to_vec(),
            temperature: 1.0,
            vim_dim: Dimension::Rule,
            neco_dim: Dimension::Rule,
            knn_k: 50,
            knn_bank: 50_000,
            react_percentile: 90.0,
            gen_gamma: 0.1,
            gen_m: 100,
            seed: 0,
        }
    }
}

impl Options {
    /// The key of a constant that makes no sense, with what was expected.
    pub fn wrong(&self) -> Option<(&'static str, String)> {
        if self.methods.is_empty() {
            return Some(("methods", "no score asked for; name some, or `all`".into()));
        }
        let wholes = [("knn_k", self.knn_k), ("knn_bank", self.knn_bank), ("gen_m", self.gen_m)];
        let reals = [
            ("temperature", self.temperature, Reals::POSITIVE),
            ("gen_gamma", self.gen_gamma, Reals::POSITIVE),
            ("react_percentile", self.react_percentile, PERCENT),
        ];
        let of_wholes = wholes.into_iter().filter_map(|(key, value)| {
            let range = Wholes::<usize>::POSITIVE.check(value as u64).err()?;
            Some((key, format!("{range}, found {value}")))
        });
        let of_reals = reals.into_iter().filter_map(|(key, value, range)| {
            Some((key, format!("{}, found {value}", range.check(value).err()?)))
        });
        of_wholes.chain(of_reals).next()
    }

    /// Checks that every constant makes sense.
    ///
    /// # Errors
    /// No score, a temperature or γ that is not positive, k or M of zero, a percentile outside 0..100.
    pub fn check(&self) -> Result<()> {
        match self.wrong() {
            None => Ok(()),
            Some((key, what)) => Err(Error::usage(format!("--{}: {what}", key.replace('_', "-")))),
        }
    }

    /// Whether any wanted score is fitted on training features.
    pub fn needs_training(&self) -> bool {
        !self.methods.iter().all(|method| method.needs_no_fit())
    }

    /// Checks that no wanted score needs a training set.
    ///
    /// # Errors
    /// One does; the message names it.
    pub fn check_untrained(&self) -> Result<()> {
        match self.methods.iter().find(|method| !method.needs_no_fit()) {
            None => Ok(()),
            Some(method) => Err(Error::usage(format!(
                "{method} is fitted on training features; give their cache with --train, or ask for scores of logits alone \
                 (--methods msp,mls,energy,gen)"
            ))),
        }
    }

    /// Whether any wanted score is fitted on labelled training features.
    pub fn needs_labels(&self) -> bool {
        self.methods.iter().any(|method| method.needs_labels())
    }

    /// Checks the constants against a network of `dimension` features and a training set of `samples` samples, where known, so
    /// that errors show before a training. Returns in sentences what will be done otherwise than asked.
    ///
    /// # Errors
    /// A subspace for ViM that leaves no residual.
    pub fn check_for(&self, dimension: usize, samples: Option<usize>) -> Result<Vec<String>> {
        let residual = [Method::Vim, Method::VimCentered, Method::Residual];
        if self.wants(&residual) {
            self.vim_dim.check_residual(dimension)?;
        }
        let mut notes = Vec::new();
        let neco = [Method::Neco, Method::NecoFormula, Method::NecoOfficial];
        let highest = samples.map_or(dimension, |samples| dimension.min(samples.saturating_sub(1))).max(1);
        if let Dimension::Count(count) = self.neco_dim
            && self.wants(&neco)
            && count > highest
        {
            notes.push(format!(
                "neco-dim {count}: {dimension} features{} span {highest} dimensions at most; {highest} will be used",
                samples.map_or(String::new(), |samples| format!(" of {samples} training samples"))
            ));
        }
        let held = samples.map_or(self.knn_bank, |samples| samples.min(self.knn_bank));
        if self.wants(&[Method::Knn]) && self.knn_k > held {
            notes.push(format!(
                "knn-k {}: knn compares with {held} training samples; the farthest of them, k = {held}, will count",
                self.knn_k
            ));
        }
        Ok(notes)
    }

    /// Whether any of these scores is wanted.
    pub(super) fn wants(&self, methods: &[Method]) -> bool {
        methods.iter().any(|method| self.methods.contains(method))
    }
}
