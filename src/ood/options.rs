//! The scores to fit, and their constants.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::method::Method;
use super::parameters::Parameters;
use super::spec::ScoreSpec;
use crate::error::{Error, Result};
use crate::values::{Reals, Wholes};

/// Percentiles.
pub const PERCENT: Reals = Reals::between(0.0, 100.0);

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

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dimension::Rule => f.write_str("rule"),
            Dimension::Count(count) => write!(f, "{count}"),
            Dimension::Variance(share) => write!(f, "{share}"),
        }
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

/// The scores to fit, and constants of some of them, which count where a score does not bring its own ([`ScoreSpec`]). The
/// defaults are those of the papers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The scores wanted.
    pub methods: Vec<ScoreSpec>,
    /// T of `msp`, `energy` and `react`.
    pub temperature: f64,
    /// Principal directions that ViM and `residual` remove.
    pub vim_dim: Dimension,
    /// Dimension of NECO's principal subspace.
    pub neco_dim: Dimension,
    /// Which neighbour `knn` measures the distance to.
    pub knn_k: usize,
    /// Training samples of the bank of `knn`, `nnguide` and `relation`; a random subset is drawn from more.
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
            methods: Method::ALL.iter().map(|method| ScoreSpec::from(*method)).collect(),
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

/// A score to fit: its name, and all its constants.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// With the constants it was asked for with.
    pub name: String,
    pub method: Method,
    pub parameters: Parameters,
}

impl Options {
    /// These scores, with the defaults.
    pub fn of(methods: &[Method]) -> Options {
        Options {
            methods: methods.iter().map(|method| ScoreSpec::from(*method)).collect(),
            ..Options::default()
        }
    }

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

    /// The scores wanted, each once and in the order they are shown: by method, then as they were asked for.
    pub fn specs(&self) -> Vec<ScoreSpec> {
        let of = |method: &Method| {
            let method = *method;
            self.methods.iter().copied().filter(move |spec| spec.method() == method)
        };
        let mut specs: Vec<ScoreSpec> = Vec::new();
        for spec in Method::ALL.iter().flat_map(of) {
            if !specs.contains(&spec) {
                specs.push(spec);
            }
        }
        specs
    }

    /// The same with all their constants.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let of = |spec: ScoreSpec| Wanted {
            name: spec.to_string(),
            method: spec.method(),
            parameters: spec.parameters(self),
        };
        self.specs().into_iter().map(of).collect()
    }

    /// Whether any wanted score is fitted on a training set.
    pub fn needs_training(&self) -> bool {
        self.methods.iter().any(|spec| spec.method().needs_training())
    }

    /// Whether any wanted score looks at features, beside logits.
    pub fn needs_features(&self) -> bool {
        self.methods.iter().any(|spec| spec.method().about().needs.features)
    }

    /// Checks that no wanted score needs a training set.
    ///
    /// # Errors
    /// One does; the message names it.
    pub fn check_untrained(&self) -> Result<()> {
        match self.methods.iter().find(|spec| spec.method().needs_training()) {
            None => Ok(()),
            Some(spec) => Err(Error::usage(format!(
                "{spec} is fitted on a training set; give its cache with --train, or ask for scores that need none \
                 (--methods {})",
                Method::names_where(|method| !method.needs_training())
            ))),
        }
    }

    /// Whether any wanted score is fitted on a labelled training set.
    pub fn needs_labels(&self) -> bool {
        self.methods.iter().any(|spec| spec.method().needs_labels())
    }

    /// Checks the constants against a network of `dimension` features and a training set of `samples` samples, where known, so
    /// that errors show before a training. Returns in sentences what will be done otherwise than asked.
    ///
    /// # Errors
    /// A subspace for ViM that leaves no residual.
    pub fn check_for(&self, dimension: usize, samples: Option<usize>) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for Wanted { method, parameters, .. } in self.wanted() {
            match method {
                Method::Vim | Method::VimCentered | Method::Residual => {
                    parameters.dimension("dim").check_residual(dimension)?;
                }
                Method::Neco | Method::NecoFormula | Method::NecoOfficial => {
                    let highest =
                        samples.map_or(dimension, |samples| dimension.min(samples.saturating_sub(1))).max(1);
                    if let Dimension::Count(count) = parameters.dimension("dim")
                        && count > highest
                    {
                        notes.push(format!(
                            "neco-dim {count}: {dimension} features{} span {highest} dimensions at most; {highest} will be used",
                            samples.map_or(String::new(), |samples| format!(" of {samples} training samples"))
                        ));
                    }
                }
                Method::Knn => {
                    let (k, bank) = (parameters.whole("k"), parameters.whole("bank"));
                    let held = samples.map_or(bank, |samples| samples.min(bank));
                    if k > held {
                        notes.push(format!(
                            "knn-k {k}: knn compares with {held} training samples; the farthest of them, k = {held}, will count"
                        ));
                    }
                }
                _ => {}
            }
        }
        notes.dedup();
        Ok(notes)
    }
}
