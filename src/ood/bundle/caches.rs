//! Finding the feature caches that a bundle was made from in a folder, by name and by what they hold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::manifest::{Input, Manifest};
use super::report::TakenCache;
use crate::error::{Error, Result, printable};
use crate::features::{FeatureSet, StoredArray};
use crate::files;

/// Folders below the one that is named.
const DEEPEST: usize = 8;
/// Caches that are looked at.
const MOST: usize = 10_000;

/// A folder or file that may be a cache, opened when it is first asked for.
struct Candidate {
    path: PathBuf,
    name: String,
    opened: Option<Result<FeatureSet, String>>,
    hashed: Option<Vec<StoredArray>>,
}

impl Candidate {
    fn set(&mut self) -> Result<&FeatureSet, &String> {
        let path = &self.path;
        self.opened.get_or_insert_with(|| FeatureSet::open(path).map_err(|error| error.to_string())).as_ref()
    }

    /// The first array that is not the one wanted: its name, and both descriptions; hashes are computed only where shapes agree.
    fn first_difference(&mut self, input: &Input) -> Result<Option<(String, String, String)>, String> {
        let described = self.set().map_err(|error| error.clone())?.described_arrays();
        let of_shape = |arrays: &[StoredArray]| {
            arrays.len() == input.arrays.len()
                && arrays.iter().zip(&input.arrays).all(|(own, wanted)| own.is_shaped_like(wanted))
        };
        let is_shaped = of_shape(&described);
        let arrays = match (is_shaped, &self.hashed) {
            (false, _) => described,
            (true, Some(hashed)) => hashed.clone(),
            (true, None) => {
                let hashed = self.set().map_err(|error| error.clone())?.stored_arrays();
                self.hashed = Some(hashed.clone());
                hashed
            }
        };
        let words = |array: &StoredArray, is_shaped: bool| match is_shaped {
            true => format!("SHA-256 {}", array.sha256),
            false => format!("{} of shape {:?}", array.dtype, array.shape),
        };
        for wanted in &input.arrays {
            let Some(own) = arrays.iter().find(|own| own.name == wanted.name) else {
                return Ok(Some((wanted.name.clone(), "no such array".into(), words(wanted, false))));
            };
            let alike = own.is_shaped_like(wanted);
            if !alike || is_shaped && own.sha256 != wanted.sha256 {
                return Ok(Some((own.name.clone(), words(own, alike), words(wanted, alike))));
            }
        }
        let more = arrays.iter().find(|own| !input.arrays.iter().any(|wanted| wanted.name == own.name));
        Ok(more.map(|own| (own.name.clone(), words(own, false), "no such array".into())))
    }
}

/// The caches of a bundle, in the order of its inputs.
pub(super) struct Located {
    pub sets: Vec<FeatureSet>,
    pub taken: Vec<TakenCache>,
}

/// Finds the cache of every input: one of the recorded name if what it holds is right, else any that holds the same.
///
/// # Errors
/// The folder cannot be listed; an input without a cache: the nearest one is named with its array, and both hashes.
pub(super) fn locate(manifest: &Manifest, folder: &Path) -> Result<Located> {
    let mut candidates = candidates(folder)?;
    // The same few caches are asked for again and again.
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        by_name.entry(candidate.name.clone()).or_default().push(index);
    }
    let (mut sets, mut taken) = (Vec::new(), Vec::new());
    for input in &manifest.inputs {
        let named = by_name.get(&input.cache).cloned().unwrap_or_default();
        let others = (0..candidates.len()).filter(|index| !named.contains(index)).collect::<Vec<_>>();
        let (mut found, mut nearest) = (None, None);
        for (index, is_named) in
            named.iter().map(|index| (*index, true)).chain(others.into_iter().map(|index| (index, false)))
        {
            let candidate = &mut candidates[index];
            match candidate.first_difference(input) {
                Ok(None) => {
                    found = Some((index, is_named));
                    break;
                }
                Ok(Some((array, own, wanted))) if is_named && nearest.is_none() => {
                    nearest = Some(format!(
                        "{}: array `{array}`: expected {wanted}, found {own}; this is not the cache that the bundle was made from",
                        candidate.path.display()
                    ));
                }
                Err(error) if is_named && nearest.is_none() => nearest = Some(error),
                _ => {}
            }
        }
        let Some((index, by_name)) = found else {
            let title = input.title();
            return Err(Error::invalid(match nearest {
                Some(nearest) => format!("cache of {title}: {nearest}"),
                None => format!(
                    "cache of {title}: expected `{}`, or another with the same arrays, in {} and the folders below; none of the {} \
                     caches there has them",
                    printable(&input.cache),
                    folder.display(),
                    candidates.len()
                ),
            }));
        };
        let set = candidates[index].set().map_err(|error| Error::invalid(error.clone()))?.clone();
        taken.push(TakenCache {
            input: input.title(),
            path: candidates[index].path.display().to_string(),
            found_by: if by_name { "name and hashes" } else { "hashes" },
        });
        sets.push(set);
    }
    Ok(Located { sets, taken })
}

/// All that may be a cache, in the order of their names: the folder itself, folders with `features.npy`, `.npz` and `.npy` files.
fn candidates(folder: &Path) -> Result<Vec<Candidate>> {
    let (mut found, mut waiting) = (Vec::new(), vec![(folder.to_path_buf(), 0)]);
    while let Some((place, depth)) = waiting.pop() {
        if place.join("features.npy").is_file() {
            found.push(place);
            continue;
        }
        let mut inside = files::list(&place)?;
        inside.sort();
        for path in inside {
            let extension = path.extension().and_then(|extension| extension.to_str());
            if path.is_dir() {
                if depth < DEEPEST {
                    waiting.push((path, depth + 1));
                }
            } else if matches!(extension, Some("npz" | "npy")) {
                found.push(path);
            }
        }
        if found.len() > MOST {
            return Err(Error::invalid(format!(
                "{} has more than {MOST} files that may be caches; name a folder nearer to those of the bundle",
                folder.display()
            )));
        }
    }
    found.sort();
    let candidate = |path: PathBuf| Candidate {
        name: super::manifest::last_name(&path),
        path,
        opened: None,
        hashed: None,
    };
    Ok(found.into_iter().map(candidate).collect())
}
