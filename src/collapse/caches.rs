//! Collapse from feature caches, without the network: of one checkpoint, or of every `features/CHECKPOINT` folder.

use std::path::{Path, PathBuf};

use super::measure::Subject;
use super::series::Checkpoint;
use crate::error::{Error, Result};
use crate::features::{ChosenHead, FeatureSet, choose_head};

/// Where the caches of a checkpoint lie; relative to the checkpoint's folder where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePaths {
    /// The ID training set.
    pub train: PathBuf,
    /// An ID test set.
    pub test: Option<PathBuf>,
    /// The classifier, an `.npz` with `W` and `b`; `None` where the caches hold it.
    pub head: Option<PathBuf>,
    /// Named OOD sets.
    pub ood: Vec<(String, PathBuf)>,
}

impl CachePaths {
    /// Opens the caches; `folder` is what relative paths start from.
    ///
    /// # Errors
    /// As [`FeatureSet::open`] and [`choose_head`].
    pub fn open(&self, folder: &Path) -> Result<Subject> {
        let open = |path: &PathBuf| FeatureSet::open(&folder.join(path));
        let (train, test) = (open(&self.train)?, self.test.as_ref().map(open).transpose()?);
        let ood = self.ood.iter().map(|(name, path)| Ok((name.clone(), open(path)?)));
        let ood = ood.collect::<Result<Vec<_>>>()?;
        let sets: Vec<&FeatureSet> =
            std::iter::once(&train).chain(&test).chain(ood.iter().map(|(_, set)| set)).collect();
        let given = self.head.as_ref().map(|head| folder.join(head));
        let ChosenHead { head, notes, .. } = choose_head(given.as_deref(), &sets)?;
        Ok(Subject { train, test, head, ood, notes })
    }
}

/// A folder of caches as a checkpoint: `epoch_0040` and `resnet_40_epoch` are of epoch 40.
pub fn checkpoint_of_folder(path: PathBuf) -> Checkpoint {
    let unnumbered = Checkpoint { path, epoch: None };
    let epoch = epoch_in_name(&unnumbered.name());
    Checkpoint { epoch, ..unnumbered }
}

/// The number beside the word `epoch`, after it or before it.
fn epoch_in_name(name: &str) -> Option<u64> {
    let (before, after) = name.split_once("epoch")?;
    let after = after.trim_start_matches(['_', '-', '=']);
    let before = before.trim_end_matches(['_', '-']);
    let first = &after[..after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())];
    let last = &before[before.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |i| {
        // The next character boundary: the character at `i` may be longer than a byte.
        i + before[i..].chars().next().map_or(1, char::len_utf8)
    })..];
    first.parse().or_else(|_| last.parse()).ok()
}

/// Splits `NAME=WHERE`; a group before the name (`near:NAME=WHERE`) is understood and makes no difference here.
///
/// # Errors
/// When there is no `=`, no name or nothing after it.
pub fn named_set(text: &str) -> Result<(String, String)> {
    let split = text.split_once('=').filter(|(name, place)| !name.is_empty() && !place.is_empty());
    let Some((name, place)) = split else {
        return Err(Error::usage(format!("`{text}` is not NAME=WHERE, for instance svhn=svhn.npz")));
    };
    let plain = name.strip_prefix("near:").or_else(|| name.strip_prefix("far:")).unwrap_or(name);
    if plain.is_empty() {
        return Err(Error::usage(format!(
            "`{text}` has a group but no name, for instance near:cifar10=cifar10.npz"
        )));
    }
    Ok((plain.to_string(), place.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_read_from_the_name() {
        let of = |name: &str| checkpoint_of_folder(PathBuf::from("features").join(name)).epoch;
        assert_eq!(of("epoch_0040"), Some(40));
        assert_eq!(of("resnet_110_epoch.pth"), Some(110));
        assert_eq!(of("run2-epoch=7-best"), Some(7));
        assert_eq!(of("é9_epoch"), Some(9));
        for name in ["best", "last", "epoch", "epoch_", "é_epoch", "epoch_99999999999999999999999"] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn an_ood_set_has_a_name_and_a_path() {
        assert_eq!(named_set("svhn=a/b=c.npz").unwrap(), ("svhn".into(), "a/b=c.npz".into()));
        assert_eq!(named_set("near:cifar10=c.npz").unwrap(), ("cifar10".into(), "c.npz".into()));
        for text in ["svhn", "=a.npz", "svhn=", "far:=a.npz"] {
            assert_eq!(named_set(text).unwrap_err().exit_code(), 2, "{text}");
        }
    }
}
