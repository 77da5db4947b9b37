//! Writing a bundle of an evaluation.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::content::{CORRECT, TRAINING_SCORES, array_entry, flags_as_npy};
use super::manifest::{EntryRecord, HeadRecord, Input, MANIFEST, Manifest, Role, Settings};
use super::{MOST_REPLICATES, inside};
use crate::archive::{SharedMap, canonical};
use crate::error::{Error, Result};
use crate::features::{ChosenHead, hex, npz_bytes};
use crate::files;
use crate::ood::run::{Outcome, RunOptions, Sets, score_arrays};

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Entries, the manifest among them.
    pub entries: usize,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of all of them, in hexadecimal digits.
    pub sha256: String,
}

/// Bytes of an entry.
enum Content {
    File(SharedMap),
    Made(Vec<u8>),
}

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        match self {
            Content::File(map) => map.as_ref(),
            Content::Made(bytes) => bytes,
        }
    }
}

/// Checks before an evaluation that a bundle of it can be written.
///
/// # Errors
/// More bootstrap replicates than one verifies.
pub(crate) fn check_options(options: &RunOptions) -> Result<()> {
    if options.bootstrap > MOST_REPLICATES {
        return Err(Error::usage(format!(
            "--bundle takes at most --bootstrap {MOST_REPLICATES}, found {}: whoever verifies it draws as many",
            options.bootstrap
        )));
    }
    Ok(())
}

/// Writes the bundle of an evaluation whose files are in the folder `out`; equal inputs give equal bytes. An older file stays whole
/// if writing fails.
///
/// # Errors
/// A file of the evaluation is missing, the disk is full.
pub fn write(
    bundle: &Path,
    sets: Sets<'_>,
    head: &ChosenHead,
    options: &RunOptions,
    (outcome, out): (&Outcome, &Path),
) -> Result<Written> {
    check_options(options)?;
    let Sets { train, calibration, id, shifted, ood } = sets;
    let plain = [(Role::Train, train), (Role::Calibration, calibration), (Role::Id, Some(id))];
    let plain = plain.into_iter().filter_map(|(role, set)| Some(Input::of(role, role.name(), None, set?)));
    let shifted = shifted.iter().map(|input| Input::of(Role::Shifted, &input.name, None, &input.set));
    let ood = ood.iter().map(|input| Input::of(Role::Ood, &input.name, input.group, &input.set));
    let known = &outcome.known;
    let mut manifest = Manifest::new(
        Settings::of(options),
        HeadRecord::of(&head.head, &head.path),
        plain.chain(shifted).chain(ood).collect(),
        known.warnings.clone(),
    );
    let content = |name: &String| -> Result<Content> {
        let of_set = known.correct.iter().find(|(set, _)| *name == array_entry(CORRECT, set));
        Ok(match (of_set, &known.training) {
            (Some((_, flags)), _) => Content::Made(flags_as_npy(flags)),
            (None, Some(training)) if name == TRAINING_SCORES => {
                let arrays = score_arrays(training, options.orientation);
                Content::Made(npz_bytes(
                    &arrays.iter().map(|(name, array)| (*name, array)).collect::<Vec<_>>(),
                ))
            }
            _ => Content::File(SharedMap::open(&inside(out, name))?),
        })
    };
    let names = manifest.entry_names(|set| known.correct.contains_key(set));
    if names.len() >= canonical::MOST_ENTRIES {
        return Err(Error::invalid(format!(
            "a bundle of {} entries; {} at most can be verified: evaluate fewer sets at once",
            names.len() + 1,
            canonical::MOST_ENTRIES
        )));
    }
    let contents = names.iter().map(content).collect::<Result<Vec<Content>>>()?;
    let record = |(name, content): (&String, &Content)| EntryRecord {
        name: name.clone(),
        size: content.as_ref().len() as u64,
        sha256: hex(&Sha256::digest(content.as_ref())),
    };
    manifest.entries = names.iter().zip(&contents).map(record).collect();
    let text = manifest.text();
    let entries = names.iter().map(String::as_str).zip(contents.iter().map(AsRef::as_ref));
    let entries: Vec<(&str, &[u8])> = [(MANIFEST, text.as_bytes())].into_iter().chain(entries).collect();
    let (mut bytes, mut hash) = (0, Sha256::new());
    files::write_atomically(bundle, |file| {
        let mut counted = Counted { file, bytes: 0, hash: Sha256::new() };
        canonical::write(&mut counted, &entries)?;
        (bytes, hash) = (counted.bytes, counted.hash);
        Ok(())
    })?;
    Ok(Written { entries: entries.len(), bytes, sha256: hex(&hash.finalize()) })
}

/// Counts and hashes what goes through.
struct Counted<W> {
    file: W,
    bytes: u64,
    hash: Sha256,
}

impl<W: io::Write> io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
