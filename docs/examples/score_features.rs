//! Scores features from files: fits detectors on the training set, and measures how well they tell OOD samples from test samples.
//!
//! ```sh
//! cargo run --release --example score_features -- DIR
//! ```
//!
//! ```text
//! DIR/train/      features.npy (N, D), logits.npy (N, C), labels.npy (N,; -1 is unknown)
//! DIR/id/         the same of the test set
//! DIR/ood/NAME/   the same of each OOD set; labels are not looked at
//! DIR/head.npz    the classifier: W (C, D) and b (C,), so that logits = W f + b; a copy inside each folder serves as well
//! ```
//!
//! Numpy writes such files (`np.save`, `np.savez`), as do `residua extract` and the example `train_network`. In place of a folder there may
//! be an archive with the same arrays, `train.npz`. The figures are those of
//! `residua ood --train DIR/train --id DIR/id --ood NAME=DIR/ood/NAME --methods msp,energy,mahalanobis,vim,knn`.

use std::path::{Path, PathBuf};

use residua::features::{Extent, FeatureSet, ForeignLogits, check_logits, choose_head};
use residua::ood::metrics::OodMetrics;
use residua::ood::{Detectors, Method, Options};
use residua::{Error, Result};

const METHODS: [Method; 5] = [Method::Msp, Method::Energy, Method::Mahalanobis, Method::Vim, Method::Knn];

/// How well one score tells one OOD set from the test set.
pub struct Row {
    pub set: String,
    pub score: String,
    pub metrics: OodMetrics,
}

/// The cache of a name: a folder, or an archive.
fn cache(folder: &Path, name: &str) -> PathBuf {
    let archive = folder.join(format!("{name}.npz"));
    if archive.is_file() { archive } else { folder.join(name) }
}

/// The OOD sets in a folder, by name.
fn ood_sets(folder: &Path) -> Result<Vec<(String, FeatureSet)>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io("list", folder, error))?;
    let mut sets = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::io("list", folder, error))?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        sets.push((name, FeatureSet::open(&path)?));
    }
    sets.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(sets)
}

/// Fits, scores and measures.
pub fn score(folder: &Path) -> Result<Vec<Row>> {
    // Files are mapped and checked: shapes, finite numbers, labels.
    let train = FeatureSet::open(&cache(folder, "train"))?;
    let id = FeatureSet::open(&cache(folder, "id"))?;
    let ood = ood_sets(&folder.join("ood"))?;

    // The head inside the caches or beside them, and whether it makes these logits of these features: with the head of
    // another network every score would be a number that means nothing.
    let mut sets = vec![&train, &id];
    sets.extend(ood.iter().map(|(_, set)| set));
    let head = choose_head(None, &sets)?.head;
    for set in sets {
        set.check_shape(head.dimension(), head.classes())?;
        if let Some(warning) = check_logits(set, &head, Extent::All, ForeignLogits::Refuse)? {
            eprintln!("warning: {warning}");
        }
    }

    // One pass over the training features fits all detectors. Of every score a larger value means more in-distribution.
    let options = Options::of(&METHODS);
    let detectors = Detectors::fit(&train, &head, &options)?;
    for warning in detectors.warnings() {
        eprintln!("warning: {warning}");
    }
    let id_scores = detectors.score(&id)?;
    let mut rows = Vec::new();
    for (name, set) in &ood {
        let ood_scores = detectors.score(set)?;
        // A score that could not be fitted has left a warning, and is not among these.
        for score in detectors.names() {
            let metrics = OodMetrics::evaluate(&id_scores[&score], &ood_scores[&score])?;
            rows.push(Row { set: name.clone(), score, metrics });
        }
    }
    Ok(rows)
}

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).ok_or_else(|| {
        Error::usage(
            "name the folder that holds train, id and ood: cargo run --example score_features -- DIR",
        )
    })?;
    println!("set                  score         AUROC  FPR95 (OOD positive)  FPR95 (ID positive)");
    for Row { set, score, metrics } in score(Path::new(&folder))? {
        let [auroc, ood, id] =
            [metrics.auroc, metrics.fpr95, metrics.fpr95_id_positive].map(|share| 100.0 * share);
        println!("{set:<20} {score:<12} {auroc:6.2} {ood:21.2} {id:20.2}");
    }
    Ok(())
}
