//! The score that is thresholded: any score of [`crate::ood`] for the classes a head knows, or the head's own probability
//! of novelty.
//!
//! A head that was trained with outliers as a class of their own gives that class a probability near 1 on outliers, so
//! the largest probability over *all* logits is high on them and says nothing about novelty. Unless asked otherwise,
//! scores are therefore those of the known classes: `msp` is the largest probability of a known class under the softmax
//! over all logits; every other score is computed as if the head had no such logit.

use std::fmt;
use std::str::FromStr;

use super::samples::Scored;
use crate::checkpoint::HeadClasses;
use crate::error::{Error, Position, Result};
use crate::features::{FeatureSet, Head, Matrix};
use crate::linalg::argmax;
use crate::ood::{Compute, Detectors, Method, Options, ScoreSpec, Scores};
use crate::values::{did_you_mean, serde_as_text};

/// A score that can be thresholded; larger = more in-distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Score {
    /// A score of [`crate::ood`], for the classes the head knows.
    Ood(ScoreSpec),
    /// `novel-probability`: 1 − p(novel), of a head with a logit for novel samples.
    NovelProbability,
    /// `notebook-msp`: the largest probability over all logits, that for novel samples among them.
    NotebookMsp,
}

impl Score {
    /// The name of every score.
    #[doc(hidden)]
    pub fn names() -> Vec<String> {
        let methods = Method::ALL.iter().map(|method| Score::from(*method));
        methods.chain([Score::NovelProbability, Score::NotebookMsp]).map(|score| score.to_string()).collect()
    }

    /// Whether the score is a probability, between 0 and 1.
    pub fn is_probability(self) -> bool {
        match self {
            Score::Ood(spec) => {
                matches!(spec.method(), Method::Msp | Method::TempScale | Method::OdinTemperature)
            }
            Score::NovelProbability | Score::NotebookMsp => true,
        }
    }

    /// Whether it is more than a function of a sample's logits: made by detectors, which most scores are fitted for.
    pub fn needs_detectors(self) -> bool {
        matches!(self, Score::Ood(spec) if !spec.method().is_of_logits())
    }

    /// Whether something has to be fitted on training samples first.
    pub fn needs_fit(self) -> bool {
        matches!(self, Score::Ood(spec) if spec.method().needs_training())
    }
}

impl From<Method> for Score {
    fn from(method: Method) -> Score {
        Score::Ood(method.into())
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Score::Ood(spec) => write!(f, "{spec}"),
            Score::NovelProbability => f.write_str("novel-probability"),
            Score::NotebookMsp => f.write_str("notebook-msp"),
        }
    }
}

impl FromStr for Score {
    type Err = Error;

    fn from_str(name: &str) -> Result<Score> {
        match name {
            "novel-probability" => Ok(Score::NovelProbability),
            "notebook-msp" => Ok(Score::NotebookMsp),
            _ if name.contains(':') => name.parse().map(Score::Ood),
            _ => name.parse::<Method>().map(Score::from).map_err(|_| {
                let known: Vec<&str> = Method::ALL.iter().map(|method| method.name()).collect();
                Error::usage(format!(
                    "no score is named `{name}`{}; there are {}, novel-probability and notebook-msp",
                    did_you_mean(name, known.iter().copied().chain(["novel-probability", "notebook-msp"])),
                    known.join(", ")
                ))
            }),
        }
    }
}

serde_as_text!(Score);

/// One score of one head, ready to be computed of any feature cache of that head.
#[derive(Debug, Clone)]
pub struct Scorer {
    score: Score,
    head: Head,
    classes: HeadClasses,
    options: Options,
    detectors: Option<Detectors>,
    /// Scores of the known classes' logits, and of all, that a score without detectors is made of.
    logits: Option<[Detectors; 2]>,
}

impl Scorer {
    /// A score of a head; `temperature` divides the logits of `msp`, `energy`, `react`, `novel-probability` and
    /// `notebook-msp`. Scores that are fitted ([`Score::needs_fit`]) need the features the head was trained on; passes over
    /// them run where `compute` says.
    ///
    /// # Errors
    /// A temperature that is not positive, a score that the head does not have, no training features where some are
    /// needed, features that cannot be fitted, or a device that failed.
    pub fn new(
        compute: &mut dyn Compute,
        score: Score,
        temperature: f64,
        head: Head,
        classes: HeadClasses,
        training: Option<&FeatureSet>,
    ) -> Result<Scorer> {
        let mut scorer = Scorer::without_fit(score, temperature, head, classes)?;
        if score.needs_detectors() && !score.needs_fit() {
            scorer.detectors = Some(Detectors::untrained(&scorer.known_head()?, &scorer.options, None)?);
        }
        if score.needs_fit() {
            let training = training.ok_or_else(|| {
                Error::usage(format!(
                    "the score `{score}` is fitted on training samples; name them (--fit DATA), or choose one that is not, such \
                     as msp, mls, energy or gen"
                ))
            })?;
            let training = scorer.known_part(training, true)?;
            let head = scorer.known_head()?;
            let detectors = Detectors::fit_on(compute, (&training, None), &head, &scorer.options)?;
            if detectors.specs().is_empty() {
                let why = detectors.warnings().join("; ");
                return Err(Error::invalid(format!("the score `{score}` cannot be fitted: {why}")));
            }
            scorer.detectors = Some(detectors);
        }
        Ok(scorer)
    }

    /// The same with a fit that was saved ([`Scorer::detectors`]).
    ///
    /// # Errors
    /// A fit of another score or head.
    pub fn with_fit(
        score: Score,
        temperature: f64,
        head: Head,
        classes: HeadClasses,
        detectors: Option<Detectors>,
    ) -> Result<Scorer> {
        let mut scorer = Scorer::without_fit(score, temperature, head, classes)?;
        if score.needs_detectors() {
            let fits = |fit: &Detectors| fit.specs().iter().any(|spec| Score::Ood(*spec) == score);
            let Some(detectors) = detectors.filter(fits) else {
                return Err(Error::invalid(format!(
                    "the fit of the score `{score}` is missing; calibrate again, and keep the files together"
                )));
            };
            let (found, own) = (detectors.head(), scorer.known_head()?);
            if (found.classes(), found.dimension()) != (own.classes(), own.dimension()) {
                return Err(Error::invalid(format!(
                    "the fit of the score `{score}` is for {} classes and {} features, the network has {} and {}; \
                     calibrate again",
                    found.classes(),
                    found.dimension(),
                    own.classes(),
                    own.dimension()
                )));
            }
            scorer.detectors = Some(detectors);
        }
        Ok(scorer)
    }

    fn without_fit(score: Score, temperature: f64, head: Head, classes: HeadClasses) -> Result<Scorer> {
        if classes.indices.len() != head.classes()
            || classes.novel.is_some_and(|novel| novel >= head.classes())
        {
            return Err(Error::invalid(format!(
                "the head `{}` has {} logits and {} classes",
                classes.name,
                head.classes(),
                classes.indices.len()
            )));
        }
        if classes.novel.is_some() && head.classes() < 2 {
            return Err(Error::invalid(format!("the head `{}` knows no class but `novel`", classes.name)));
        }
        if score == Score::NovelProbability && classes.novel.is_none() {
            return Err(Error::usage(
                "the score `novel-probability` is for heads trained with outliers as a class of their own, and this one \
                 was not; choose msp, for instance",
            ));
        }
        let mut options = Options { temperature, ..Options::default() };
        if let Score::Ood(spec) = score {
            options.methods = vec![spec];
        }
        options.check()?;
        let mut scorer = Scorer { score, head, classes, options, detectors: None, logits: None };
        if !score.needs_detectors() {
            let parts = scorer.parts();
            let of = |head: &Head| Detectors::untrained(head, &parts, None);
            scorer.logits = Some([of(&scorer.known_head()?)?, of(&scorer.head)?]);
        }
        Ok(scorer)
    }

    /// The divisor of the logits.
    pub fn temperature(&self) -> f64 {
        self.options.temperature
    }

    /// The fits, where the score needs them; to be saved beside the thresholds.
    pub fn detectors(&self) -> Option<&Detectors> {
        self.detectors.as_ref()
    }

    /// Meaning of the head's logits.
    pub fn classes(&self) -> &HeadClasses {
        &self.classes
    }

    /// Score and predicted class of every sample of a cache of this head; scores are computed where `compute` says.
    ///
    /// # Errors
    /// A cache of another network, a score that is not finite (named by row), or a device that failed.
    pub fn samples(&self, compute: &mut dyn Compute, set: &FeatureSet) -> Result<Vec<Scored>> {
        set.check_shape(self.head.dimension(), self.head.classes())?;
        let predicted = set.map_logits(&self.head, |logits| {
            let best = argmax(logits);
            (Some(best) != self.classes.novel).then(|| self.classes.indices[best])
        });
        let scores = self.scores(compute, set)?;
        let samples = scores.into_iter().zip(predicted).enumerate().map(|(row, (score, predicted))| {
            if score.is_finite() {
                return Ok(Scored { score, predicted });
            }
            let expected = format!("logits for which `{}` is finite", self.score);
            Err(Error::malformed(set.path(), Position::Row(row as u64), expected, "others"))
        });
        samples.collect()
    }

    fn scores(&self, compute: &mut dyn Compute, set: &FeatureSet) -> Result<Vec<f64>> {
        let take = |mut scores: Scores, name: &str| scores.remove(name).expect("a score that was asked for");
        let name = self.score.to_string();
        if let Some(detectors) = &self.detectors {
            return Ok(take(detectors.score_on(compute, &self.known_part(set, false)?)?, &name));
        }
        let [known, whole] = self.logits.as_ref().expect("made where there are no detectors");
        let is_of_known = match self.score {
            Score::Ood(spec) => self.classes.novel.is_none() || spec.method() != Method::Msp,
            Score::NovelProbability | Score::NotebookMsp => false,
        };
        if is_of_known {
            return Ok(take(known.score_on(compute, &self.known_logits(set)?)?, &name));
        }
        let whole = whole.score_on(compute, set)?;
        if self.score == Score::NotebookMsp {
            return Ok(take(whole, Method::Msp.name()));
        }
        let known = known.score_on(compute, &self.known_logits(set)?)?;
        // With the weights w = exp((l - max l) / T) of all logits, 1 / (sum of w) is the largest probability, and that of the known
        // classes alone is their largest w over the sum of theirs.
        let [msp, mls] = [Method::Msp, Method::Mls].map(Method::name);
        let rows = whole[msp].iter().zip(&whole[mls]).zip(known[msp].iter().zip(&known[mls]));
        let of_row = |((msp, top), (known_msp, known_top)): ((&f64, &f64), (&f64, &f64))| {
            let largest_known = ((known_top - top) / self.options.temperature).exp() * msp;
            match self.score {
                // 1 - p(novel) as the sum of the others, which keeps its digits where p(novel) is all but 1.
                Score::NovelProbability => largest_known / known_msp,
                _ => largest_known,
            }
        };
        Ok(rows.map(of_row).collect())
    }

    /// The options of the scores of logits that this one is made of.
    fn parts(&self) -> Options {
        match self.score {
            Score::Ood(spec) if self.classes.novel.is_none() || spec.method() != Method::Msp => {
                self.options.clone()
            }
            _ => Options { methods: vec![Method::Msp.into(), Method::Mls.into()], ..self.options.clone() },
        }
    }

    /// A set with the logits of the known classes alone, where it has some.
    fn known_logits(&self, set: &FeatureSet) -> Result<FeatureSet> {
        let (Some(novel), Some(logits)) = (self.classes.novel, set.logits()) else {
            return self.known_part(set, false);
        };
        let (mut all, mut known) = (Vec::new(), Vec::new());
        for row in 0..set.len() {
            logits.read_f64(row..row + 1, &mut all);
            known
                .extend(all.iter().enumerate().filter(|(logit, _)| *logit != novel).map(|(_, value)| *value));
        }
        let known = Matrix::from_f64(known, self.head.classes() - 1, "logits")?;
        FeatureSet::from_parts(&set.path().display().to_string(), set.features().clone(), Some(known), None)
    }

    /// The head without its logit for novel samples.
    fn known_head(&self) -> Result<Head> {
        let Some(novel) = self.classes.novel else { return Ok(self.head.clone()) };
        let known = || (0..self.head.classes()).filter(|class| *class != novel);
        let weight = known().flat_map(|class| self.head.class_weight(class)).copied().collect();
        Head::new(weight, known().map(|class| self.head.bias()[class]).collect(), self.head.dimension())
    }

    /// A set as the head without its logit for novel samples sees it; for training also without those samples.
    fn known_part(&self, set: &FeatureSet, training: bool) -> Result<FeatureSet> {
        let Some(novel) = self.classes.novel else { return Ok(set.clone()) };
        let name = set.path().display().to_string();
        if !training {
            // Without stored logits they are computed from the features by the head.
            return FeatureSet::from_parts(&name, set.features().clone(), None, None);
        }
        let labels = set.training_labels(self.head.classes())?;
        let (mut features, mut row, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for (index, label) in labels.into_iter().enumerate().filter(|(_, label)| *label as usize != novel) {
            set.features().read_f32(index..index + 1, &mut row);
            features.extend_from_slice(&row);
            kept.push(i64::from(label) - i64::from(label as usize > novel));
        }
        let features = Matrix::from_f32(features, set.dimension(), "features")?;
        FeatureSet::from_parts(&name, features, None, Some(kept))
    }
}

#[cfg(test)]
#[path = "score_tests.rs"]
mod tests;
