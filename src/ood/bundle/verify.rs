//! Verifying a bundle: what it holds against the manifest, and against what is computed anew.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::caches::locate;
use super::compare::Tally;
use super::levels::{self, Caches, Held};
use super::manifest::{MANIFEST, Manifest, Role};
use super::report::{Level, Report, State};
use crate::archive::SharedMap;
use crate::archive::canonical::{self, Entry};
use crate::error::{Error, Position, Result};
use crate::features::hex;
use crate::files;

/// A bundle whose manifest was read, and whose entries are those of the manifest.
pub(super) struct Bundle {
    pub path: PathBuf,
    pub manifest: Manifest,
    file: SharedMap,
    entries: Vec<Entry>,
}

impl Bundle {
    /// Opens a bundle.
    ///
    /// # Errors
    /// It is none, has bytes that its writer does not write, entries that the manifest does not list, or lacks some.
    fn open(path: &Path) -> Result<Bundle> {
        let file = SharedMap::open(path)?;
        let bytes = file.as_ref();
        if !bytes.starts_with(b"PK\x03\x04") {
            let expected = "a result bundle, as `residua ood --bundle` writes it";
            let found = match bytes.is_empty() {
                true => "an empty file".to_string(),
                false => files::describe_content(bytes),
            };
            return Err(Error::malformed(path, Position::File, expected, found));
        }
        let entries = canonical::read(path, bytes)?;
        let wrong = |name: &str, expected: &str, found: String| {
            Err(Error::malformed(path, Position::Member(name.to_string()), expected, found))
        };
        let [manifest, rest @ ..] = entries.as_slice() else {
            unreachable!("a file that begins with an entry")
        };
        if manifest.name != MANIFEST {
            let expected = "`manifest.json` first, as in a result bundle of `residua ood --bundle`";
            return wrong(&manifest.name, expected, "this entry in its place".into());
        }
        if manifest.checksum != manifest.stated_checksum {
            let found =
                format!("{:08x}: it was changed, so nothing in it can be relied on", manifest.checksum);
            return wrong(MANIFEST, &format!("checksum {:08x}", manifest.stated_checksum), found);
        }
        let read = Manifest::read(path, &bytes[manifest.content.clone()])?;
        for record in &read.entries {
            if !rest.iter().any(|entry| entry.name == record.name) {
                return wrong(
                    &record.name,
                    "this entry, which the manifest lists",
                    "no entry of this name".into(),
                );
            }
        }
        for (index, entry) in rest.iter().enumerate() {
            match read.entries.get(index) {
                Some(record) if record.name == entry.name => {}
                _ if !read.entries.iter().any(|record| record.name == entry.name) => {
                    let found = "an entry that the manifest does not list".to_string();
                    return wrong(&entry.name, "entries of the manifest and nothing else", found);
                }
                _ => {
                    return wrong(
                        &entry.name,
                        "entries in the order of the manifest",
                        format!("it as number {}", index + 2),
                    );
                }
            }
        }
        Ok(Bundle { path: path.to_path_buf(), manifest: read, entries, file })
    }

    /// Whether there is an entry of this name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// An entry that the manifest lists, and its content.
    ///
    /// # Panics
    /// If the manifest does not list it.
    pub fn entry(&self, name: &str) -> (&Entry, SharedMap) {
        let entry = self.entries.iter().find(|entry| entry.name == name);
        let entry = entry.unwrap_or_else(|| panic!("the manifest lists no `{name}`"));
        (entry, self.file.part(entry.content.clone()))
    }
}

/// Verifies a bundle at levels 1 and 2, and with a folder of caches at levels 3 and 4. Differences are results and no errors:
/// [`Report::holds`] says whether there are any.
///
/// # Errors
/// The file cannot be read, is no bundle, or is one that was packed or edited by another program, so that no level can be
/// asked about; the message names the entry, or the position.
pub fn verify(path: &Path, caches: Option<&Path>) -> Result<Report> {
    let bundle = Bundle::open(path)?;
    let mut report =
        Report::of(&bundle.manifest, path, bundle.file.as_ref().len() as u64, bundle.entries.len());
    report.sha256 = hex(&Sha256::digest(bundle.file.as_ref()));
    report.levels[0].done(levels::hashes(&bundle), String::new());
    let held = Held::read(&bundle);
    let tables = held
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|held| levels::tables(&bundle, held).map_err(|error| error.to_string()));
    finish(&mut report.levels[1], tables.map(|tally| (tally, String::new())));
    let Some(folder) = caches else {
        let reason = "needs the feature caches: --caches DIR";
        report.levels[2..].iter_mut().for_each(|level| level.not_done(reason));
        return Ok(report.judged());
    };
    let Ok(held) = held else {
        let reason = "the bundle could not be read, see level 2";
        report.levels[2..].iter_mut().for_each(|level| level.not_done(reason));
        return Ok(report.judged());
    };
    let located = match locate(&bundle.manifest, folder) {
        Ok(located) => located,
        Err(error) => {
            report.levels[2].failed(&error.to_string());
            report.levels[3].not_done("the caches are not those of the bundle, see level 3");
            return Ok(report.judged());
        }
    };
    report.caches = located.taken.clone();
    let caches = Caches::new(&bundle.manifest, located);
    let scores = levels::scores_from_fit(&bundle, &held, &caches).map_err(|error| error.to_string());
    finish(&mut report.levels[2], scores.map(|tally| (tally, String::new())));
    let fit = levels::fit_from_caches(&bundle, &held, &caches).map_err(|error| error.to_string());
    let is_fitted = bundle.manifest.of_role(Role::Train).next().is_some();
    let untrained = |note: String| if is_fitted { note } else { format!("no score is fitted; {note}") };
    finish(&mut report.levels[3], fit.map(|(tally, note)| (tally, untrained(note))));
    Ok(report.judged())
}

fn finish(level: &mut Level, outcome: Result<(Tally, String), String>) {
    match outcome {
        Ok((tally, note)) => level.done(tally, note),
        Err(message) => level.failed(&message),
    }
    debug_assert_ne!(level.state, State::NotDone);
}
