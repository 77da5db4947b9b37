//! Where image files lie: a folder or a zip, read by name, with names kept inside it.

use std::cmp::Ordering;
use std::fs;
use std::io::Cursor;
use std::path::{Component, Path, PathBuf};

use zip::ZipArchive;

use super::RgbImage;
use super::decode::decode;
use crate::archive::{self, SharedMap};
use crate::error::{Error, Position, Result};
use crate::files;

/// An image file larger than this is not read: 64 megapixels of uncompressed 16-bit RGBA, and headers.
const LARGEST_FILE: u64 = (64 << 20) * 8 + (1 << 20);

/// Folders below the folder named, at most: more means links that go round.
const DEEPEST: usize = 32;

/// File name endings taken as images when a folder or zip is listed.
const ENDINGS: [&str; 10] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "ppm", "pgm", "pbm", "pnm"];

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
        /// `images/` if all members lie in one folder of that name, so that names may leave it out.
        prefix: String,
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
        let prefix = common_folder(&archive);
        Ok(ImageStore::Zip { path: path.to_path_buf(), archive, prefix })
    }

    /// The image files, by name relative to the folder (in no order) or zip (in its order).
    pub(super) fn image_names(&self) -> Result<Vec<String>> {
        match self {
            ImageStore::Folder { root, .. } => {
                let mut names = Vec::new();
                walk(root, "", 0, &mut names)?;
                Ok(names)
            }
            ImageStore::Zip { path, archive, .. } => {
                let mut names = Vec::new();
                for name in archive.file_names() {
                    let name = name.map_err(|e| {
                        Error::malformed(
                            path,
                            Position::File,
                            "a zip archive with readable names",
                            e.to_string(),
                        )
                    })?;
                    // `__MACOSX/._x.jpg` holds attributes, not an image.
                    if is_image_name(&name) && !name.starts_with("__MACOSX/") {
                        check_name(path, Position::File, &name)?;
                        names.push(name.into_owned());
                    }
                }
                Ok(names)
            }
        }
    }

    /// Whether there is a file `name`; nothing of it is read.
    pub(super) fn contains(&self, name: &str) -> bool {
        match self {
            ImageStore::Folder { root, .. } => {
                fs::metadata(root.join(name)).is_ok_and(|metadata| !metadata.is_dir())
            }
            ImageStore::Zip { archive, prefix, .. } => member_index(archive, prefix, name).is_some(),
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
        match self {
            ImageStore::Folder { root, fence } => {
                let path = root.join(name);
                if let Some(fence) = fence {
                    stays_inside(&path, fence)?;
                }
                decode_file(&path)
            }
            ImageStore::Zip { path, archive, prefix } => {
                let member = Position::Member(name.to_owned());
                let mut archive = archive.clone();
                let index = member_index(&archive, prefix, name).ok_or_else(|| {
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
        return Err(Error::malformed(
            path,
            Position::File,
            format!("an image of at most {LARGEST_FILE} bytes"),
            found,
        ));
    }
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    decode(path, &Position::File, &bytes)
}

/// The member of a name, which may leave out the folder that all members lie in.
fn member_index(archive: &ZipArchive<Cursor<SharedMap>>, prefix: &str, name: &str) -> Option<usize> {
    archive.index_for_name(name).or_else(|| archive.index_for_name(&format!("{prefix}{name}")))
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
        return Err(Error::malformed(
            path,
            at.clone(),
            format!("an image of at most {LARGEST_FILE} bytes"),
            found,
        ));
    }
    archive::read_member(path, at, archive, index)
}

/// `folder/` if every member lies in it.
fn common_folder(archive: &ZipArchive<Cursor<SharedMap>>) -> String {
    let mut common: Option<String> = None;
    for name in
        archive.file_names().flatten().filter(|name| is_image_name(name) && !name.starts_with("__MACOSX/"))
    {
        let folder = name.split_once('/').map_or("", |(folder, _)| folder);
        match &common {
            Some(known) if known == folder => {}
            None if !folder.is_empty() => common = Some(folder.to_owned()),
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
        return Err(Error::malformed(
            &folder,
            Position::File,
            format!("at most {DEEPEST} folders in folders"),
            found,
        ));
    }
    for entry in fs::read_dir(&folder).map_err(|e| Error::io("list", &folder, e))? {
        let entry = entry.map_err(|e| Error::io("list", &folder, e))?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::malformed(&folder, Position::File, "file names in UTF-8", name.to_string_lossy())
        })?;
        if name.starts_with('.') {
            continue;
        }
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let path = root.join(&name);
        // A link to nothing is listed if it looks like an image: it is unreadable, not absent.
        if fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            walk(root, &name, depth + 1, names)?;
        } else if is_image_name(&name) {
            names.push(name);
        }
    }
    Ok(())
}

/// Whether a file name ends as an image's does.
pub(super) fn is_image_name(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// A name from a file must lead down into its folder: not absolute, without `..`, drive or NUL.
pub(super) fn check_name(file: &Path, at: Position, name: &str) -> Result<()> {
    let plain = !name.is_empty()
        && !name.contains(['\0', '\\'])
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && Path::new(name).file_name().is_some();
    if plain {
        return Ok(());
    }
    Err(Error::malformed(
        file,
        at,
        "a file name inside the folder of images (no `..`, not absolute)",
        format!("`{name}`"),
    ))
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

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        for name in ["../a.png", "/etc/passwd", "a/../../b", "..", "", ".", "a\0b", "..\\a", "./.."] {
            assert!(check_name(Path::new("t.csv"), Position::Row(3), name).is_err(), "{name:?}");
        }
        for name in ["a.png", "a/b.png", "./a.png", "..a/b..png"] {
            assert!(check_name(Path::new("t.csv"), Position::Row(3), name).is_ok(), "{name:?}");
        }
    }
}
