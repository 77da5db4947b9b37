//! What is compared: a run folder, a folder of several seeds, what `ood --out` or `collapse --out` wrote, or a cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::RunSummary;
use super::predictions::Predictions;
use crate::checkpoint::read_meta;
use crate::error::{Error, Result, printable};
use crate::features::CacheMeta;
use crate::files;
use crate::report::parts::{Parts, seed_folders};

/// A cache's meta data is a page of text.
const LARGEST_META: u64 = 1 << 20;

/// One run of a comparison: a training, or several that differ in their seed.
pub(super) struct Run {
    pub name: String,
    path: PathBuf,
    pub trainings: Vec<Training>,
    /// What a reader should know of it.
    pub notes: Vec<String>,
}

/// One training of a run.
pub(super) struct Training {
    /// The seed, by the folder's name or the recipe.
    pub seed: Option<u64>,
    folder: PathBuf,
    /// Logs, metrics and scores; a lone cache has none.
    pub parts: Option<Parts>,
    /// Answers on the labelled test set.
    pub predictions: Option<Predictions>,
    /// The folder that holds the caches of the checkpoint, one a data set.
    caches: Option<PathBuf>,
}

impl Run {
    /// Reads a folder; `set` is the name of the labelled test set's cache.
    ///
    /// # Errors
    /// It is no run, which the message says with what was expected; or a file in it is damaged.
    pub fn read(folder: &Path, name: String, set: &str) -> Result<Run> {
        if !folder.exists() {
            return Err(Error::invalid(format!(
                "{}: there is no such folder; give the folder of a run, of several seeds, of what `ood --out` wrote, or a feature \
                 cache",
                folder.display()
            )));
        }
        let mut notes = Vec::new();
        let seeds = seed_folders(folder)?;
        let trainings = if seeds.is_empty() {
            vec![Training::read(folder, None, set, &mut notes)?]
        } else {
            let read = |(seed, path): &(u64, PathBuf)| Training::read(path, Some(*seed), set, &mut notes);
            seeds.iter().map(read).collect::<Result<_>>()?
        };
        notes = notes.into_iter().map(|note| format!("{name}: {note}")).collect();
        Ok(Run { name, path: folder.to_path_buf(), trainings, notes })
    }

    /// The training of a run that is one.
    pub fn single(&self) -> Option<&Training> {
        match self.trainings.as_slice() {
            [training] => Some(training),
            _ => None,
        }
    }

    /// Names for tables and programs.
    pub fn summary(&self) -> RunSummary {
        let seeds = match self.single() {
            Some(_) => Vec::new(),
            None => self.trainings.iter().filter_map(|training| training.seed).collect(),
        };
        let title = self.trainings.iter().find_map(|training| training.parts.as_ref()?.name());
        RunSummary {
            name: self.name.clone(),
            path: self.path.clone(),
            title: title.map(|title| one_line(&title)),
            seeds,
        }
    }

    /// The resolved recipe, of the first seed.
    pub fn recipe(&self) -> Option<&toml::Table> {
        self.trainings.first()?.parts.as_ref()?.recipe()
    }
}

impl Training {
    fn read(folder: &Path, seed: Option<u64>, set: &str, notes: &mut Vec<String>) -> Result<Training> {
        let is_cache = folder.is_file() || folder.join("features.npy").is_file();
        let parts = if is_cache { None } else { Some(Parts::read(folder)?) };
        let caches = if is_cache { None } else { caches(folder)? };
        let cache = if is_cache {
            Some(folder.to_path_buf())
        } else {
            caches.as_ref().map(|caches| caches.join(set))
        };
        let predictions = match cache.filter(|cache| is_cache || cache.is_dir()) {
            Some(cache) => {
                let read = Predictions::read(&cache)?;
                if read.is_none() {
                    notes.push(format!(
                        "{} has no labels, or no logits, so answers are not compared",
                        cache.display()
                    ));
                }
                read
            }
            None => None,
        };
        let recipe = parts.as_ref().and_then(Parts::recipe);
        let own = recipe.and_then(|recipe| recipe.get("seed")?.as_integer()?.try_into().ok());
        Ok(Training { seed: seed.or(own), folder: folder.to_path_buf(), parts, predictions, caches })
    }

    /// The data behind a cache of an OOD set, as its `meta.json` names it.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn data(&self, set: &str) -> Result<Option<String>> {
        let plain = !set.is_empty() && !set.starts_with('.') && !set.contains(['/', '\\', '\0', ':']);
        let Some(caches) = self.caches.as_ref().filter(|_| plain) else { return Ok(None) };
        let path = caches.join(set).join("meta.json");
        if !path.is_file() {
            return Ok(None);
        }
        let meta: CacheMeta =
            files::read_json(&path, LARGEST_META, "an object with data, transform, checkpoint, rows")?;
        Ok(meta.data)
    }

    /// Names of the network's classes, by number; none where no checkpoint tells.
    pub fn classes(&self) -> Vec<String> {
        read_meta(&self.folder).map(|meta| meta.classes).unwrap_or_default()
    }
}

/// The folder with the caches of a run's last checkpoint: the one that `last` points to, else the last by name.
fn caches(folder: &Path) -> Result<Option<PathBuf>> {
    let features = folder.join("features");
    if !features.is_dir() {
        return Ok(None);
    }
    let last = fs::canonicalize(folder.join("checkpoints").join("last")).ok();
    if let Some(name) = last.as_deref().and_then(Path::file_name).filter(|name| features.join(name).is_dir())
    {
        return Ok(Some(features.join(name)));
    }
    let mut found: Vec<PathBuf> = files::list(&features)?.into_iter().filter(|path| path.is_dir()).collect();
    found.sort_by(|a, b| files::compare_naturally(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(found.pop())
}

/// A unique name for each folder: the last part of its path, with as many parts before it as tell it from others; the same folder twice
/// is numbered.
pub(super) fn names(folders: &[PathBuf]) -> Vec<String> {
    let parts: Vec<Vec<String>> = folders.iter().map(|folder| path_parts(folder)).collect();
    let most = parts.iter().map(Vec::len).max().unwrap_or(1);
    let tail = |parts: &[String], length: usize| parts[parts.len().saturating_sub(length.max(1))..].join("/");
    let names = parts.iter().map(|own| {
        let is_other =
            |parts: &&Vec<String>, name: &str, length: usize| *parts != own && tail(parts, length) == name;
        let unique = |length: &usize| {
            let name = tail(own, *length);
            !parts.iter().any(|parts| is_other(&parts, &name, *length))
        };
        tail(own, (1..=most).find(unique).unwrap_or(most))
    });
    let mut taken = BTreeSet::new();
    let free = |name: String| {
        let numbered = (2..).map(|number| format!("{name} ({number})"));
        let name =
            std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(name);
        taken.insert(name.clone());
        name
    };
    names.map(free).collect()
}

fn path_parts(folder: &Path) -> Vec<String> {
    let real = match folder.file_name() {
        Some(_) => folder.to_path_buf(),
        None => fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf()),
    };
    let parts: Vec<String> = real
        .components()
        .filter_map(|part| match part {
            std::path::Component::Normal(part) => Some(one_line(&part.to_string_lossy())),
            _ => None,
        })
        .collect();
    if parts.is_empty() { vec![one_line(&folder.display().to_string())] } else { parts }
}

/// A name from a file or a path in one line, without control characters.
pub(super) fn one_line(text: &str) -> String {
    printable(text).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_no_longer_than_needed() {
        let cases: [(&[&str], &[&str]); 4] = [
            (&["runs/a", "runs/b"], &["a", "b"]),
            (&["x/run", "y/run", "z"], &["x/run", "y/run", "z"]),
            (&["runs/a", "runs/a", "./runs/a/"], &["a", "a (2)", "a (3)"]),
            (&["a", "b/a"], &["a", "b/a"]),
        ];
        for (folders, expected) in cases {
            let folders: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
            assert_eq!(names(&folders), expected);
        }
        assert_eq!(names(&["\u{1b}[2J\nx".into(), "y".into()])[0], "\\u{1b}[2J x");
    }
}
