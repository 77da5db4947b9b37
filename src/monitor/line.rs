//! Answers as JSON lines.

use serde::Serialize;

use super::stream::Observed;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, Head};
use crate::novelty::{Hierarchy, LevelEntry, LevelInput, Scorer, decide, judge_level};
use crate::ood::Compute;

/// The answer for a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered<'a> {
    /// The name of the most probable class that the head knows.
    pub class: Option<&'a str>,
    /// The score; larger = more in-distribution.
    pub score: f64,
    /// The score in flagging order, which p-values compare.
    pub place: f64,
    /// The conformal p-value against the calibration samples.
    pub p_value: f64,
    /// Whether the threshold calls it novel.
    pub novel: bool,
}

impl<'a> Answered<'a> {
    /// The answer of one level for a cache of one sample, by its own threshold alone; `scorer` is the entry's
    /// ([`LevelEntry::scorer`]) with this head.
    ///
    /// # Errors
    /// A cache of another network or of more samples, or a score that is not finite.
    pub fn of(
        compute: &mut dyn Compute,
        entry: &'a LevelEntry,
        scorer: &Scorer,
        head: &Head,
        set: &FeatureSet,
    ) -> Result<Answered<'a>> {
        let judged = judge_level(compute, entry, scorer, set, None)?;
        let input = LevelInput { entry, head, set, samples: &judged.samples, flagged: &judged.flagged };
        let answers = decide(Hierarchy::Independent, &[input])?;
        let ([sample], [p_value], [answer]) =
            (judged.samples.as_slice(), judged.p_values.as_slice(), answers[0].as_slice())
        else {
            return Err(Error::invalid(format!("expected one sample, found {}", set.len())));
        };
        Ok(Answered {
            class: entry.class_name(answer.class),
            score: sample.score,
            place: sample.flagging_order(),
            p_value: *p_value,
            novel: answer.novel,
        })
    }
}

#[derive(Serialize)]
struct AnswerLine<'a> {
    row: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    class: Option<&'a str>,
    score: f64,
    p_value: f64,
    novel: bool,
    discovery: bool,
    level: f64,
    martingale: f64,
    alarm: bool,
}

impl Answered<'_> {
    /// The line, with its end: `row`, `image` where it has a name, `class`, `score`, `p_value`, `novel` (the threshold's decision),
    /// `discovery`, `level` (which the p-value was compared with), `martingale` (logarithm to base 10), `alarm`.
    pub fn line(&self, image: Option<&str>, observed: &Observed) -> String {
        let line = AnswerLine {
            row: observed.row,
            image,
            class: self.class,
            score: self.score,
            p_value: self.p_value,
            novel: self.novel,
            discovery: observed.tested.discovery,
            level: observed.tested.level,
            martingale: observed.log10,
            alarm: observed.alarm,
        };
        serde_json::to_string(&line).expect("plain values") + "\n"
    }
}

/// A row that has no answer, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Failed<'a> {
    /// The row, from 0.
    pub row: u64,
    /// What should have been an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<&'a str>,
    /// Why there is no answer.
    pub error: &'a str,
}

impl Failed<'_> {
    /// The line, with its end.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("plain values") + "\n"
    }
}
