//! Where image files lie: a folder or a zip, read by name, with names kept inside it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::ZipArchive;

use super::RgbImage;
use super::decode::decode;
use super::names::{inside, is_image_name, is_leftover, undecoded_kind, utf8_name, with_slashes};
use crate::archive::{self, SharedMap};
use crate::error::{Error, Position, Result};
use crate::files;

/// An image file larger than this is not read: 64 megapixels of uncompressed 16-bit RGBA, and headers.
const LARGEST_FILE: u64 = (64 << 20) * 8 + (1 << 20);

/// Folders below the folder named, at most: more means links that go round.
const DEEPEST: usize = 32;

/// The kinds of image that are decoded, for messages.
const DECODED: &str = "JPEG, PNG, WebP, BMP, GIF or PNM";

/// A place with image files.
#[derive(Debug)]
pub(super) enum ImageStore {
    /// Files in a folder.
    Folder {
        /// As the user wrote it.
        root: PathBuf,
        /// The folder with all links resolved, where names come from a file and must stay inside.
        fence: Option<PathBuf>,
    },
    /// Members of a zip.
    Zip {
        /// The archive's file.
        path: PathBuf,
        /// Cheap to clone: it shares its directory and the map.
        archive: ZipArchive<Cursor<SharedMap>>,
        /// The place of each image among the members, by name with `/` between its parts.
        members: Arc<BTreeMap<String, usize>>,
        /// `images/` if all of them lie in one folder of that name, so that names may leave it out.
        prefix: String,
        /// How many member names are not in UTF-8, and the first, read as the format says.
        foreign_names: (usize, String),
    },
}

impl ImageStore {
    /// A folder whose files the user (not a file of names) chose.
    pub(super) fn folder(root: &Path) -> ImageStore {
        ImageStore::Folder { root: root.to_path_buf(), fence: None }
    }

    /// A folder or zip that a table or list names files in.
    pub(super) fn fenced(path: &Path) -> Result<ImageStore> {
        let metadata = fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
        if metadata.is_dir() {
            let fence = fs::canonicalize(path).map_err(|e| Error::io("resolve", path, e))?;
            return Ok(ImageStore::Folder { root: path.to_path_buf(), fence: Some(fence) });
        }
        ImageStore::zip(path)
    }

    pub(super) fn zip(path: &Path) -> Result<ImageStore> {
        let map = SharedMap::open(path)?;
        let archive = archive::open(path, map, "a folder, or a zip archive")?;
        let (members, foreign_names) = image_members(path, &archive)?;
        let prefix = common_folder(members.keys());
        Ok(ImageStore::Zip {
            path: path.to_path_buf(),
            archive,
            members: Arc::new(members),
            prefix,
            foreign_names,
        })
    }

    /// The image files, by name relative to the folder or zip, in no order. Those of kinds that are not decoded are among
    /// them, leftovers of programs are not.
    pub(super) fn image_names(&self) -> Result<Vec<String>> {
        match self {
            ImageStore::Folder { root, .. } => {
                let mut names = Vec::new();
                walk(root, "", 0, &mut names)?;
                Ok(names)
            }
            ImageStore::Zip { path, members, .. } => {
                for name in members.keys() {
                    inside(path, Position::File, name)?;
                }
                Ok(members.keys().cloned().collect())
            }
        }
    }

    /// Notes for a user on the names in it.
    pub(super) fn note(&self) -> Option<String> {
        match self {
            ImageStore::Zip { path, foreign_names: (count @ 1.., first), .. } => Some(format!(
                "{}: {count} member names are not in UTF-8 and are read as code page 437, as the zip format says; the first \
                 is `{first}`",
                path.display()
            )),
            _ => None,
        }
    }

    /// Whether there is a file `name`; nothing of it is read.
    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            ImageStore::Folder { root, .. } => {
                fs::metadata(root.join(name)).is_ok_and(|metadata| !metadata.is_dir())
            }
            ImageStore::Zip { members, prefix, .. } => member_index(members, prefix, name).is_some(),
        }
    }

    /// The folder or archive, as the user wrote it.
    pub(super) fn place(&self) -> &Path {
        match self {
            ImageStore::Folder { root, .. } => root,
            ImageStore::Zip { path, .. } => path,
        }
    }

    /// Reads and decodes the image `name`.
    pub(super) fn image(&self, name: &str) -> Result<RgbImage> {
        if let Some(kind) = undecoded_kind(name) {
            let found = format!("one of kind {kind}; convert it to PNG or JPEG");
            let at = Position::Member(name.to_owned());
            let expected = format!("an image that is decoded ({DECODED})");
            return Err(Error::malformed(self.place(), at, expected, found));
        }
        match self {
            ImageStore::Folder { root, fence } => {
                let path = root.join(name);
                if let Some(fence) = fence {
                    stays_inside(&path, fence)?;
                }
                decode_file(&path)
            }
            ImageStore::Zip { path, archive, members, prefix, .. } => {
                let member = Position::Member(name.to_owned());
                let mut archive = archive.clone();
                let index = member_index(members, prefix, name).ok_or_else(|| {
                    Error::malformed(path, member.clone(), "a member of that name", "none in the archive")
                })?;
                let bytes = read_member(path, &member, &mut archive, index)?;
                decode(path, &member, &bytes)
            }
        }
    }
}

/// Reads and decodes one image file.
pub(super) fn decode_file(path: &Path) -> Result<RgbImage> {
    let file = files::open(path)?;
    let metadata = file.metadata().map_err(|e| Error::io("read the size of", path, e))?;
    if !metadata.is_file() {
        return Err(Error::malformed(path, Position::File, "a file", "a device or pipe"));
    }
    if metadata.len() > LARGEST_FILE {
        let found = format!("{} bytes", metadata.len());
        let expected = format!("an image of at most {LARGEST_FILE} bytes");
        return Err(Error::malformed(path, Position::File, expected, found));
    }
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    decode(path, &Position::File, &bytes)
}

/// The image member of a name, which may leave out the folder that all of them lie in.
fn member_index(members: &BTreeMap<String, usize>, prefix: &str, name: &str) -> Option<usize> {
    members.get(name).or_else(|| members.get(&format!("{prefix}{name}"))).copied()
}

fn read_member(
    path: &Path,
    at: &Position,
    archive: &mut ZipArchive<Cursor<SharedMap>>,
    index: usize,
) -> Result<Vec<u8>> {
    let size = archive::member(path, at, archive, index)?.size;
    if size > LARGEST_FILE {
        let found = format!("one of {size} bytes");
        let expected = format!("an image of at most {LARGEST_FILE} bytes");
        return Err(Error::malformed(path, at.clone(), expected, found));
    }
    archive::read_member(path, at, archive, index)
}

/// The images of an archive by name, and how many names are not in UTF-8 with the first of them. Old programs for
/// Windows divide names by backslashes.
fn image_members(
    path: &Path,
    archive: &ZipArchive<Cursor<SharedMap>>,
) -> Result<(BTreeMap<String, usize>, (usize, String))> {
    let (mut members, mut foreign) = (BTreeMap::new(), (0, String::new()));
    for (index, (name, raw)) in archive.file_names().zip(archive.file_names_raw()).enumerate() {
        let name = name.map_err(|e| {
            Error::malformed(path, Position::File, "a zip archive with readable names", e.to_string())
        })?;
        let divided = with_slashes(&name);
        if !is_image_name(&divided) || is_leftover(&divided) {
            continue;
        }
        if std::str::from_utf8(raw).is_err() {
            if foreign.0 == 0 {
                foreign.1 = name.to_string();
            }
            foreign.0 += 1;
        }
        if members.insert(divided, index).is_some() {
            let at = Position::Member(name.into_owned());
            return Err(Error::malformed(path, at, "each name once", "two members of that name"));
        }
    }
    Ok((members, foreign))
}

/// `folder/` if every name lies in it.
fn common_folder<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut common: Option<&str> = None;
    for name in names {
        let folder = name.split_once('/').map_or("", |(folder, _)| folder);
        match common {
            Some(known) if known == folder => {}
            None if !folder.is_empty() => common = Some(folder),
            _ => return String::new(),
        }
    }
    common.map_or(String::new(), |folder| format!("{folder}/"))
}

/// Collects image files below `root`, following links (the user chose this folder), names joined by `/`.
fn walk(root: &Path, below: &str, depth: usize, names: &mut Vec<String>) -> Result<()> {
    let folder = if below.is_empty() { root.to_path_buf() } else { root.join(below) };
    if depth > DEEPEST {
        let found = "more; does a link lead back up?";
        let expected = format!("at most {DEEPEST} folders in folders");
        return Err(Error::malformed(&folder, Position::File, expected, found));
    }
    for path in files::list(&folder)? {
        let name = utf8_name(&folder, &path)?;
        if is_leftover(&name) {
            continue;
        }
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        // A link to nothing is listed if it looks like an image: it is unreadable, not absent.
        if path.is_dir() {
            walk(root, &name, depth + 1, names)?;
        } else if is_image_name(&name) {
            names.push(name);
        }
    }
    Ok(())
}

/// A link must not lead out of the folder.
fn stays_inside(path: &Path, fence: &Path) -> Result<()> {
    let real = fs::canonicalize(path).map_err(|e| Error::io("open", path, e))?;
    if real.starts_with(fence) {
        return Ok(());
    }
    let expected = format!("a file inside {}", fence.display());
    Err(Error::malformed(path, Position::File, expected, format!("a link to {}", real.display())))
}

/// Names in the order a person counts: runs of digits compare as numbers (`2.jpg` before `10.jpg`), the rest bytewise.
pub(super) fn numeric_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    loop {
        match (left.first(), right.first()) {
            (Some(l), Some(r)) if l.is_ascii_digit() && r.is_ascii_digit() => {
                let (number_l, number_r) = (digits(&mut left), digits(&mut right));
                let ordering = number_l.len().cmp(&number_r.len()).then_with(|| number_l.cmp(number_r));
                if ordering != Ordering::Equal {
                    return ordering;
                }
            }
            (Some(l), Some(r)) if l == r => {
                left = &left[1..];
                right = &right[1..];
            }
            // Equal as numbers but not as text (`01`, `1`): any fixed order will do.
            (None, None) => return a.cmp(b),
            (l, r) => return l.cmp(&r),
        }
    }
}

/// Takes the digits at the front, without leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (run, rest) = text.split_at(end);
    *text = rest;
    let zeros = run.iter().position(|&c| c != b'0').unwrap_or(run.len());
    &run[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_a_person_counts() {
        let mut names = vec!["10.jpg", "2.jpg", "b1", "a/12.png", "a/3.png", "1.jpg", "01.jpg"];
        names.sort_by(|a, b| numeric_order(a, b));
        assert_eq!(names, ["01.jpg", "1.jpg", "2.jpg", "10.jpg", "a/3.png", "a/12.png", "b1"]);
    }
}
