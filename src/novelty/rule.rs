//! The rules that choose a threshold, by name.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::values::{did_you_mean, serde_as_text};

/// Every rule by name, for slips of the pen.
const NAMES: [&str; 15] = [
    "conformal",
    "per-class",
    "quantile",
    "p10",
    "p5",
    "mean-std",
    "zscore",
    "midpoint",
    "youden",
    "min-error",
    "intersection",
    "target-fpr",
    "target-tpr",
    "cost",
    "tau",
];

/// The costs of errors, and how often novel samples will come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Cost of a novel sample that is not flagged.
    pub miss: f64,
    /// Cost of a seen sample that is flagged.
    pub alarm: f64,
    /// Share of novel samples where the threshold will be used, 0 to 1; the calibration sample's may differ.
    pub prevalence: f64,
}

/// How a threshold τ is chosen; a sample is flagged as novel if its score is below τ.
///
/// `n` is the number of seen calibration samples and s₁ ≤ … ≤ sₙ are their scores. Rules that count decisions
/// (`conformal`, `per-class`, `youden`, `min-error`, `intersection`, `target-fpr`, `target-tpr`, `cost`) count a sample
/// whose largest logit is the head's own for novel samples as flagged at any threshold, because it will be; the others
/// are statistics of the scores as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// `conformal:A`: τ = sₖ with k = ⌊A(n + 1)⌋, or no flag at all where k = 0. A seen sample that is exchangeable
    /// with the calibration samples is flagged with probability at most A (Vovk, Gammerman, Shafer, 2005).
    Conformal(f64),
    /// `per-class:A`: the same among the calibration samples of one predicted class (Mondrian conformal); a class with
    /// fewer than 1/A − 1 of them has no such threshold and takes the one of all classes together.
    PerClass(f64),
    /// `quantile:A`: the A-quantile of the seen scores, numpy's linear interpolation. No guarantee.
    Quantile(f64),
    /// `p10`: the 10th percentile, as `quantile:0.1`.
    P10,
    /// `p5`: the 5th percentile, as `quantile:0.05`.
    P5,
    /// `mean-std`: mean minus standard deviation (ddof 0) of the seen scores; clipped to 0..1 where the score is a
    /// probability, not clipped elsewhere.
    MeanStd,
    /// `zscore:Z`: mean minus Z standard deviations (ddof 0); never clipped.
    ZScore(f64),
    /// `midpoint`: halfway between the means of seen and novel scores.
    Midpoint,
    /// `youden`: greatest difference between the share of novel and the share of seen samples flagged (Youden, 1950).
    /// Where both have densities, they cross there.
    Youden,
    /// `min-error`: fewest errors of both kinds together, at the calibration sample's own share of novel samples.
    MinError,
    /// `intersection`: where the distribution function of the seen scores crosses the survival function of the novel
    /// ones: the share of seen samples flagged equals the share of novel samples missed as nearly as it can.
    Intersection,
    /// `target-fpr:R`: the highest τ that flags at most the share R of the *seen* calibration samples.
    TargetFpr(f64),
    /// `target-tpr:R`: the lowest τ that flags at least the share R of the *novel* calibration samples.
    TargetTpr(f64),
    /// `cost:MISS,ALARM,PREVALENCE`: least expected cost
    /// `MISS · PREVALENCE · (share of novel missed) + ALARM · (1 − PREVALENCE) · (share of seen flagged)`.
    Cost(Costs),
    /// `tau:V`: V itself.
    Tau(f64),
}

impl Rule {
    /// Every rule with its usual constant, in the order they are shown; `tau` has none.
    pub const DEFAULTS: [Rule; 14] = [
        Rule::Conformal(0.05),
        Rule::PerClass(0.05),
        Rule::Quantile(0.05),
        Rule::P10,
        Rule::P5,
        Rule::MeanStd,
        Rule::ZScore(2.0),
        Rule::Midpoint,
        Rule::Youden,
        Rule::MinError,
        Rule::Intersection,
        Rule::TargetFpr(0.05),
        Rule::TargetTpr(0.95),
        Rule::Cost(Costs { miss: 1.0, alarm: 1.0, prevalence: 0.5 }),
    ];

    /// Whether the rule looks at novel samples.
    pub fn needs_novel(self) -> bool {
        matches!(
            self,
            Rule::Midpoint
                | Rule::Youden
                | Rule::MinError
                | Rule::Intersection
                | Rule::TargetTpr(_)
                | Rule::Cost(_)
        )
    }

    /// The rule's promise about samples it was not calibrated on, in a sentence.
    pub fn guarantee(self) -> String {
        match self {
            Rule::Conformal(share) => format!(
                "a seen sample like the calibration samples is flagged with probability at most {share}"
            ),
            Rule::PerClass(share) => format!(
                "a seen sample predicted as a class with its own threshold is flagged with probability at most {share}"
            ),
            _ => "none for samples it was not calibrated on".to_string(),
        }
    }

    /// How the rule chooses, in a sentence.
    pub fn explanation(self) -> String {
        let percent = |share: f64| format!("{} %", (1e4 * share).round() / 100.0);
        match self {
            Rule::Conformal(share) => format!(
                "Rule: conformal threshold, which calls a seen sample novel with probability at most {} whatever the scores look \
                 like (Vovk et al., 2005).",
                percent(share)
            ),
            Rule::PerClass(share) => format!(
                "Rule: a conformal threshold of {} for each predicted class (Mondrian; Vovk et al., 2005).",
                percent(share)
            ),
            Rule::Quantile(share) => {
                format!("Rule: the score that {} of the seen samples lie below.", percent(share))
            }
            Rule::P10 => "Rule: the 10th percentile of the seen scores.".to_string(),
            Rule::P5 => "Rule: the 5th percentile of the seen scores.".to_string(),
            Rule::MeanStd => "Rule: mean less one standard deviation of the seen scores.".to_string(),
            Rule::ZScore(z) => format!("Rule: mean less {z} standard deviations of the seen scores."),
            Rule::Midpoint => "Rule: halfway between the means of seen and novel scores.".to_string(),
            Rule::Youden => {
                "Rule: the greatest difference between novel caught and seen called novel (Youden, 1950)."
                    .to_string()
            }
            Rule::MinError => "Rule: the fewest errors of both kinds together.".to_string(),
            Rule::Intersection => {
                "Rule: as great a share of seen called novel as of novel missed (equal error rate)."
                    .to_string()
            }
            Rule::TargetFpr(rate) => {
                format!(
                    "Rule: the highest threshold that calls at most {} of the seen samples novel.",
                    percent(rate)
                )
            }
            Rule::TargetTpr(rate) => {
                format!(
                    "Rule: the lowest threshold that catches at least {} of the novel samples.",
                    percent(rate)
                )
            }
            Rule::Cost(Costs { miss, alarm, prevalence }) => format!(
                "Rule: the least expected cost, where a miss costs {miss}, a false alarm {alarm}, and {} of the samples are novel.",
                percent(prevalence)
            ),
            Rule::Tau(tau) => format!("Rule: the threshold {tau}, given by hand."),
        }
    }

    fn check(self) -> Result<Rule> {
        let inside = |value: f64, what: &str| {
            if value > 0.0 && value < 1.0 {
                return Ok(());
            }
            Err(Error::usage(format!("`{self}`: {what} lies between 0 and 1, for instance 0.05")))
        };
        match self {
            // The ends make sense as the rate that another rule attained: no sample flagged, or nearly all.
            Rule::Conformal(share) if (0.0..=1.0).contains(&share) => {}
            Rule::Conformal(share) | Rule::PerClass(share) => {
                inside(share, "the share of seen samples flagged")?
            }
            Rule::Quantile(share) => inside(share, "a quantile")?,
            Rule::TargetFpr(rate) => inside(rate, "the share of seen samples flagged")?,
            Rule::TargetTpr(rate) => inside(rate, "the share of novel samples flagged")?,
            Rule::ZScore(z) | Rule::Tau(z) if !z.is_finite() => {
                return Err(Error::usage(format!("`{self}`: write a finite number")));
            }
            Rule::Cost(costs) => {
                inside(costs.prevalence, "the prevalence of novel samples")?;
                let positive = |cost: f64| cost > 0.0 && cost.is_finite();
                if !positive(costs.miss) || !positive(costs.alarm) {
                    return Err(Error::usage(format!("`{self}`: both costs are positive numbers")));
                }
            }
            _ => {}
        }
        Ok(self)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Conformal(share) => write!(f, "conformal:{share}"),
            Rule::PerClass(share) => write!(f, "per-class:{share}"),
            Rule::Quantile(share) => write!(f, "quantile:{share}"),
            Rule::P10 => f.write_str("p10"),
            Rule::P5 => f.write_str("p5"),
            Rule::MeanStd => f.write_str("mean-std"),
            Rule::ZScore(z) => write!(f, "zscore:{z}"),
            Rule::Midpoint => f.write_str("midpoint"),
            Rule::Youden => f.write_str("youden"),
            Rule::MinError => f.write_str("min-error"),
            Rule::Intersection => f.write_str("intersection"),
            Rule::TargetFpr(rate) => write!(f, "target-fpr:{rate}"),
            Rule::TargetTpr(rate) => write!(f, "target-tpr:{rate}"),
            Rule::Cost(Costs { miss, alarm, prevalence }) => write!(f, "cost:{miss},{alarm},{prevalence}"),
            Rule::Tau(tau) => write!(f, "tau:{tau}"),
        }
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rule> {
        let (name, constants) = match text.split_once(':') {
            Some((name, constants)) => (name, Some(constants)),
            None => (text, None),
        };
        let number = |text: &str| {
            text.trim()
                .parse::<f64>()
                .map_err(|_| Error::usage(format!("the rule `{name}` takes a number, not `{text}`")))
        };
        let one = |usual: Option<f64>| match (constants, usual) {
            (Some(constants), _) => number(constants),
            (None, Some(usual)) => Ok(usual),
            (None, None) => Err(Error::usage(format!("the rule `{name}` needs a number: {name}:NUMBER"))),
        };
        let rule = match name {
            "conformal" => Rule::Conformal(one(Some(0.05))?),
            "per-class" => Rule::PerClass(one(Some(0.05))?),
            "quantile" => Rule::Quantile(one(None)?),
            "zscore" => Rule::ZScore(one(None)?),
            "target-fpr" => Rule::TargetFpr(one(None)?),
            "target-tpr" => Rule::TargetTpr(one(None)?),
            "tau" => Rule::Tau(one(None)?),
            "cost" => {
                let numbers = constants.unwrap_or("").split(',').map(number).collect::<Result<Vec<f64>>>();
                match numbers.as_deref() {
                    Ok(&[miss, alarm, prevalence]) => Rule::Cost(Costs { miss, alarm, prevalence }),
                    _ => {
                        return Err(Error::usage(format!(
                            "`{text}`: write cost:MISS,ALARM,PREVALENCE, for instance cost:5,1,0.3"
                        )));
                    }
                }
            }
            _ => {
                let plain = [
                    Rule::P10,
                    Rule::P5,
                    Rule::MeanStd,
                    Rule::Midpoint,
                    Rule::Youden,
                    Rule::MinError,
                    Rule::Intersection,
                ];
                let found = plain.into_iter().find(|rule| rule.to_string() == name).ok_or_else(|| {
                    Error::usage(format!(
                        "no rule is named `{name}`{}; there are conformal:A, per-class:A, quantile:A, p10, p5, mean-std, \
                         zscore:Z, midpoint, youden, min-error, intersection, target-fpr:R, target-tpr:R, \
                         cost:MISS,ALARM,PREVALENCE and tau:V",
                        did_you_mean(name, NAMES)
                    ))
                })?;
                if let Some(constants) = constants {
                    return Err(Error::usage(format!(
                        "the rule `{name}` takes no number, found `{constants}`"
                    )));
                }
                found
            }
        };
        rule.check()
    }
}

serde_as_text!(Rule);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_measured_against_every_rule() {
        let defaults = Rule::DEFAULTS.map(|rule| rule.to_string());
        let names = defaults.iter().map(|rule| rule.split(':').next().unwrap()).chain(["tau"]);
        assert_eq!(names.collect::<Vec<_>>(), NAMES);
        let error = "youdan".parse::<Rule>().unwrap_err().to_string();
        assert!(error.contains("did you mean `youden`?"), "{error}");
    }

    #[test]
    fn every_rule_is_read_as_it_is_written() {
        for rule in Rule::DEFAULTS.into_iter().chain([Rule::Tau(-3.25), Rule::Conformal(0.1 + 0.2)]) {
            assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
        }
        assert_eq!("conformal".parse::<Rule>().unwrap(), Rule::Conformal(0.05));
    }

    #[test]
    fn what_is_no_rule_is_wrong_use_and_says_what_there_is() {
        for (text, part) in [
            ("median", "no rule is named `median`; there are conformal:A"),
            ("conformal:-0.1", "between 0 and 1"),
            ("conformal:1.5", "between 0 and 1"),
            ("conformal:NaN", "between 0 and 1"),
            ("quantile", "needs a number: quantile:NUMBER"),
            ("p10:3", "takes no number"),
            ("cost:1,2", "cost:MISS,ALARM,PREVALENCE"),
            ("cost:-1,2,0.5", "both costs are positive"),
            ("cost:1,2,7", "prevalence"),
            ("tau:inf", "finite"),
            ("zscore:two", "takes a number, not `two`"),
        ] {
            let error = text.parse::<Rule>().unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
