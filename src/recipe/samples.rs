//! Samples of each level of an experiment on two levels, to look at: known ones, outliers, and those of held-out classes.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::scores::{is_stamped, write_stamp};
use super::sets::Fold;
use crate::data::{Selected, SharedDataset};
use crate::error::Result;
use crate::features::FeatureSet;
use crate::novelty::{HeadSets, LevelEntry, ThresholdFile, Truth};
use crate::ood::{Compute, Orientation, Scores, write_scores};
use crate::samples::{self, Images, SAMPLES_FILE, SampleFile, Subject, SubjectSet};

/// Samples of one truth, with everything that is shown of them.
struct Group {
    name: String,
    cache: FeatureSet,
    scores: Scores,
    data: SharedDataset,
}

/// Writes `novelty/LEVEL/samples.json` and `novelty/LEVEL/scores/SET.npz` of samples that chose nothing, judged by the networks of a fold.
pub(super) fn keep_samples(
    compute: &mut dyn Compute,
    folder: &Path,
    (fold, heads): (&Fold, &[HeadSets<'_>]),
    file: &ThresholdFile,
    seed: u64,
) -> Result<()> {
    for head in heads {
        let Some(entry) = file.levels.iter().find(|entry| head.is_of(entry)) else { continue };
        let out = folder.join("novelty").join(head.level());
        let score = entry.threshold.score.to_string();
        let stamp = json!({
            "checkpoint": entry.checkpoint, "score": score, "tau": entry.threshold.tau, "seed": seed,
        });
        if is_stamped(&out, &stamp) {
            continue;
        }
        let groups = groups(compute, fold, head, entry)?;
        if groups.first().is_none_or(|group| group.name != KNOWN) {
            continue;
        }
        let sets = groups.iter().map(|group| SubjectSet {
            name: &group.name,
            cache: &group.cache,
            scores: &group.scores,
            images: Images::Open(group.data.clone()),
        });
        let subject = Subject {
            class_names: &head.classes.classes,
            head: &head.head,
            sets: sets.collect(),
            threshold: Some((score, entry.threshold.tau)),
            best: None,
        };
        let kept = samples::Options { seed, ..samples::Options::default() };
        SampleFile::new(&subject, kept)?.write(&out.join(SAMPLES_FILE))?;
        for group in &groups {
            let path = out.join("scores").join(format!("{}.npz", group.name));
            write_scores(&path, &group.scores, Orientation::Confidence)?;
        }
        write_stamp(&out, &stamp)?;
    }
    Ok(())
}

/// The group of samples whose class the head knows.
const KNOWN: &str = "known";

/// The groups that have samples, the known ones first.
fn groups(
    compute: &mut dyn Compute,
    fold: &Fold,
    head: &HeadSets<'_>,
    entry: &LevelEntry,
) -> Result<Vec<Group>> {
    type Wanted = fn(Truth) -> bool;
    let known: Wanted = |truth| matches!(truth, Truth::Class(_));
    let outlier: Wanted = |truth| truth == Truth::Outlier;
    let unseen: Wanted = |truth| matches!(truth.given_as_novel(), Truth::Outlier | Truth::Unseen);
    let report = &fold.report;
    let mut wanted: Vec<(String, usize, Wanted)> = Vec::new();
    if let Some(seen) = report.seen {
        wanted.extend([(KNOWN.to_string(), seen, known), ("outliers".to_string(), seen, outlier)]);
    }
    wanted.extend(report.novel.of(head).map(|place| ("held_out".to_string(), place, unseen)));
    wanted.extend(report.foreign.clone().map(|place| {
        let every: Wanted = |_| true;
        (fold.sets[place].name.clone(), place, every)
    }));
    let scorer = entry.scorer(head.head.clone())?;
    let mut groups = Vec::new();
    for (name, place, wanted) in wanted {
        let data = &fold.sets[place].data;
        let truths = head.truths(&**data);
        let rows: Vec<u32> = (0..data.len() as u32).filter(|row| wanted(truths[*row as usize])).collect();
        if rows.is_empty() {
            continue;
        }
        let cache = head.sets[place].selected(&rows)?;
        let scored = scorer.samples(compute, &cache)?;
        let scores = scored.iter().map(|sample| sample.score).collect();
        groups.push(Group {
            name,
            cache,
            scores: Scores::from([(entry.threshold.score.to_string(), scores)]),
            data: Arc::new(Selected::new(data.clone(), rows)),
        });
    }
    Ok(groups)
}
