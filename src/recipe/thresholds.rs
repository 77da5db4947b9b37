//! The novelty threshold of an experiment on one level: chosen on images that were held back from training, measured on the ID
//! test set and on the OOD sets.

use std::path::Path;

use super::sets::{NamedSet, Sets};
use crate::checkpoint::Trained;
use crate::error::Result;
use crate::novelty::{
    CalibrationSets, HeadSets, Hierarchy, LevelChoice, Novel, ReportSets, ThresholdFile, calibrate_level,
    report,
};

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
    let (Some(calibrate), [_]) = (&sets.calibrate, trained.heads.as_slice()) else { return Ok(None) };
    let all: Vec<&NamedSet> = [calibrate, &sets.id].into_iter().chain(&sets.ood).collect();
    let folders: Vec<_> = all.iter().map(|set| features.join(&set.name)).collect();
    let data: Vec<_> = all.iter().map(|set| set.data.clone()).collect();
    let heads = HeadSets::open(trained, &folders)?;
    let choice = LevelChoice { temperature, ..LevelChoice::default() };
    let seen = CalibrationSets { fit: None, seen: 0, novel: Novel::default() };
    let calibration = heads[0].calibration(&choice, &data, &seen)?;
    let threshold = calibrate_level(&calibration.gathered.scores, choice.rule)?;
    let mut file = ThresholdFile::new(Hierarchy::Independent, vec![calibration.entry(threshold)])?;
    let reported = ReportSets { seen: Some(1), novel: Novel::default(), foreign: 2..all.len() };
    let verdicts = report(&file, &heads, &data, &reported)?;
    file.levels[0].reported = Some(verdicts[0].rates());
    Ok(Some(file))
}
