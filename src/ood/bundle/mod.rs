//! Result bundles: one file with everything that the tables of an evaluation are made of, which anybody can check.
//!
//! A bundle is a zip of entries that are stored, without compression, in canonical form (`archive/canonical.rs`), so that equal
//! results give equal bytes and no byte is without meaning:
//!
//! | entry | content |
//! |---|---|
//! | `manifest.json` | format, program, parameters, the head's hash, of every input its role and the SHA-256 of its arrays, of every entry its size and SHA-256 |
//! | `fit.safetensors` | the fitted detectors, and the head |
//! | `scores/id.npz`, `scores/NAME.npz` | the scores of a set: of each score an f64 array with a number for each sample |
//! | `correct/id.npy`, `correct/NAME.npy` | of the ID test set and shifted ID sets, where labels are known: 1 where the class of a sample is predicted, else 0 |
//! | `checks/train.npz` | the scores of the training samples that the sanity checks compare with the ID test set |
//! | `metrics.json`, `metrics.csv` | the tables |
//!
//! [`verify`] takes a bundle at four levels: (1) hashes of the entries; (2) tables from scores; (3) scores from fit and caches; (4) fit from
//! caches. Levels 1 and 2 need the bundle alone, 3 and 4 the feature caches. Hashes show that a bundle is as it was written. They do not show
//! who wrote it: that takes a SHA-256 of the whole bundle from a source that is trusted.
//!
//! # What is compared, and how closely
//!
//! A difference is a share of a size: of numbers in tables the larger of both, but at least 1e-6 (fractions carry roundings of 1e-16); of scores the
//! largest absolute value of that score on that set; of a tensor its largest absolute value. Shares up to [`TOLERANCE`], 1e-9, hold. Counts, names,
//! texts and predicted classes have to be equal.
//!
//! A fit made anew may differ in ways that mean nothing: eigenvectors have no sign, and equal eigenvalues no order. So a fit is compared by
//! the scores that it gives to every sample of the bundle, by its rank, dimension, condition (its inverse, as a share of 1) and constants, and
//! by its tensors except bases and what stands in coordinates of a basis. Rounding in a score of an inverted matrix grows with
//! that matrix's condition number; from 3e5 on, what such a score may differ by at level 4 is 16 ε of it, in place of 1e-9.
//!
//! Constants that were chosen on classes held out of the fits are chosen again at level 4, among the same candidates. Where networks were trained
//! for it (`--tune retrain=K`) the choice is recorded, and not verified.

use std::path::Path;

mod caches;
mod compare;
mod content;
mod levels;
mod manifest;
mod report;
mod verify;
mod write;

pub use compare::{Difference, Largest};
pub use report::{Level, Report, State, TakenCache};
pub use verify::verify;
pub(crate) use write::check_options;
pub use write::{Written, write};

/// Differences up to this share of a size hold.
pub const TOLERANCE: f64 = 1e-9;
/// The most bootstrap replicates of a bundle, so that verifying one ends.
pub const MOST_REPLICATES: u32 = 100_000;
/// Hashes do not show who wrote a bundle.
pub const AUTHORSHIP: &str = "Hashes prove integrity, not authorship: they show that the entries are as they were when the bundle was written, and anybody \
     can write one. Compare the SHA-256 of the bundle with one from a source that you trust.";

/// The name of a file for messages about an entry of a bundle.
fn inside(bundle: &Path, entry: &str) -> std::path::PathBuf {
    bundle.join(entry)
}
