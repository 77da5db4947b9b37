//! The novelty threshold of an experiment on one level: chosen on images that were held back from training, measured on the ID
//! test set and on the OOD sets.

use std::path::Path;

use super::sets::{NamedSet, Sets};
use crate::checkpoint::Trained;
use crate::error::Result;
use crate::features::{FeatureSet, choose_head};
use crate::novelty::{
    HeadCaches, Hierarchy, Judgement, KnownSet, LevelCaches, LevelChoice, Rule, Score, ThresholdFile, Truth,
    calibrate_head, judge, truths,
};
use crate::ood::{Method, OnCpu};

/// The score that the threshold is compared with, and the rule that chooses the threshold: the defaults of `calibrate`.
const SCORE: Score = Score::Ood(Method::Msp);
const RULE: Rule = Rule::Conformal(0.05);

/// Chooses the threshold of a trained network whose caches lie in `features`; `None` where no images were held back.
///
/// # Errors
/// A cache is missing or of another network.
pub(super) fn choose(
    sets: &Sets,
    trained: &Trained,
    features: &Path,
    temperature: f64,
) -> Result<Option<ThresholdFile>> {
    let (Some(calibrate), [classes]) = (&sets.calibrate, trained.heads.as_slice()) else { return Ok(None) };
    let known = |set: &NamedSet| -> Result<KnownSet> {
        let cache = FeatureSet::open(&features.join(&set.name))?;
        let truths = truths(&*set.data, classes, trained.taxonomy.as_ref());
        Ok(KnownSet { truths: truths.unwrap_or_else(|| vec![Truth::Unseen; cache.len()]), set: cache })
    };
    let seen = known(calibrate)?;
    let head = choose_head(None, &[&seen.set])?.head;
    let caches = HeadCaches {
        trained,
        data: &*sets.train.data,
        classes,
        head: &head,
        fit: None,
        seen: &seen,
        novel: None,
    };
    let choice = LevelChoice { score: SCORE, rule: RULE, temperature };
    let entry = calibrate_head(&mut OnCpu, &caches, &choice)?.entry;
    let mut file = ThresholdFile::new(Hierarchy::Independent, vec![entry])?;
    let (mut judgement, mut all_truths): (Option<Judgement>, _) = (None, Vec::new());
    for (set, is_novel) in std::iter::once((&sets.id, false)).chain(sets.ood.iter().map(|set| (set, true))) {
        let known = known(set)?;
        let caches = LevelCaches { heads: std::slice::from_ref(&head), sets: &[&known.set] };
        let judged = judge(&mut OnCpu, &file, &caches, None)?;
        // OOD sets have classes of their own, whatever their numbers.
        all_truths.extend(known.truths.iter().map(|truth| if is_novel { Truth::Unseen } else { *truth }));
        judgement = Some(match judgement {
            None => judged,
            Some(before) => before.and(judged),
        });
    }
    if let Some(judgement) = judgement {
        file.levels[0].reported = Some(judgement.rates(0, &all_truths));
    }
    Ok(Some(file))
}
