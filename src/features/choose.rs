//! Which head belongs to the caches of a call.

use std::path::{Path, PathBuf};

use super::agreement::{Agreement, Extent};
use super::head::Head;
use super::set::{FeatureSet, HEAD_FILE, check_same_checkpoint};
use crate::error::{Error, Result};
use crate::files;

/// Relative difference of two heads that rounding to f32 explains.
const SAME_HEAD: f64 = 1e-6;

/// A head, and where it was found.
#[derive(Debug, Clone)]
pub struct ChosenHead {
    /// The head.
    pub head: Head,
    /// Its file.
    pub path: PathBuf,
    /// Notes for a user on the choice.
    pub notes: Vec<String>,
}

/// The head of some caches: the one `given`, else the one that a cache holds itself, else one beside the caches (where earlier
/// versions wrote it) if it gives the logits that they hold.
///
/// # Errors
/// Caches of different checkpoints; caches that hold different heads, unless one is given; no head anywhere; one beside the
/// caches that is not theirs; a damaged file.
pub fn choose_head(given: Option<&Path>, sets: &[&FeatureSet]) -> Result<ChosenHead> {
    check_same_checkpoint(sets)?;
    if let Some(path) = given {
        let head = Head::open(path)?;
        let notes = given_notes(&head, path, sets)?;
        return Ok(ChosenHead { head, path: path.to_path_buf(), notes });
    }
    let mut own = sets.iter().filter_map(|set| Some((*set, set.own_head_path()?)));
    let Some((first, path)) = own.next() else { return beside(sets) };
    let head = Head::open(path)?;
    for (set, other) in own {
        let difference = head.difference(&Head::open(other)?);
        if difference > SAME_HEAD {
            return Err(Error::invalid(format!(
                "{} and {} hold the heads of different networks ({}); extract both with the same one, or name a head with --head",
                first.path().display(),
                set.path().display(),
                in_words(difference)
            )));
        }
    }
    Ok(ChosenHead { head, path: path.to_path_buf(), notes: Vec::new() })
}

/// Says where a given head is not the one that a cache holds.
fn given_notes(head: &Head, path: &Path, sets: &[&FeatureSet]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (set, own) in sets.iter().filter_map(|set| Some((set, set.own_head_path()?))) {
        // A head that is given may be the way round one that is damaged.
        let said = match Head::open(own) {
            Ok(own) => Some(head.difference(&own)).filter(|difference| *difference > SAME_HEAD).map(in_words),
            Err(error) => Some(error.to_string()),
        };
        notes.extend(said.map(|said| {
            format!(
                "{} is not the head inside {} ({said}); the one given counts",
                path.display(),
                set.path().display()
            )
        }));
    }
    Ok(notes)
}

/// The head that lies beside one of the caches, if it is theirs.
fn beside(sets: &[&FeatureSet]) -> Result<ChosenHead> {
    let place = |set: &&FeatureSet| files::parent(set.path()).join(HEAD_FILE);
    let found = sets.iter().map(|set| (*set, place(set))).find(|(_, path)| path.is_file());
    let Some((set, path)) = found else {
        let first =
            sets.first().map_or_else(String::new, |set| format!("{} holds no head; ", set.path().display()));
        return Err(Error::usage(format!(
            "{first}name one with --head: an .npz with W (classes, features) and b (classes)"
        )));
    };
    let head = Head::open(&path)?;
    set.check_shape(head.dimension(), head.classes())?;
    let refused = |why: String| {
        Err(Error::invalid(format!(
            "{} holds no head, and {} beside it {why}; name its own head with --head, or extract again (the head then lies inside \
             the cache)",
            set.path().display(),
            path.display()
        )))
    };
    match Agreement::of(set, &head, Extent::Sample)? {
        None => refused("cannot be compared with it, since no logits are stored".to_string()),
        Some(agreement) if agreement.is_worth_a_warning() && !nearly(set, &agreement) => {
            refused(format!("does not give its logits: {}", agreement.in_words()))
        }
        Some(_) => {
            let note = format!(
                "the head is {}, beside the caches as earlier versions wrote it: it gives the logits of {}",
                path.display(),
                set.path().display()
            );
            Ok(ChosenHead { head, path, notes: vec![note] })
        }
    }
}

/// Whether half precision explains what the logits deviate by.
fn nearly(set: &FeatureSet, agreement: &Agreement) -> bool {
    set.holds_half_precision() && !agreement.is_foreign()
}

fn in_words(difference: f64) -> String {
    if difference.is_finite() {
        format!("their weights differ by {:.2} % of their length", 100.0 * difference)
    } else {
        "they have different numbers of features or classes".to_string()
    }
}
