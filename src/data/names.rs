//! File names in folders, archives, tables and lists: which are images, which are no content, which stay inside.

use std::path::{Component, Path};

use crate::error::{Error, Position, Result};

/// Endings of images that are decoded, by content: `jfif` and its like are JPEG, `apng` is PNG, `dib` BMP.
const DECODED: [&str; 16] = [
    "jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "png", "apng", "webp", "bmp", "dib", "gif", "ppm", "pgm",
    "pbm", "pnm",
];

/// Endings of images that are not, and what these are called.
const NOT_DECODED: [(&str, &str); 49] = [
    ("tif", "TIFF"),
    ("tiff", "TIFF"),
    ("heic", "HEIC"),
    ("heif", "HEIC"),
    ("hif", "HEIC"),
    ("avif", "AVIF"),
    ("svg", "SVG"),
    ("svgz", "SVG"),
    ("psd", "Photoshop"),
    ("psb", "Photoshop"),
    ("xcf", "GIMP"),
    ("jp2", "JPEG 2000"),
    ("j2k", "JPEG 2000"),
    ("j2c", "JPEG 2000"),
    ("jpc", "JPEG 2000"),
    ("jpf", "JPEG 2000"),
    ("jpx", "JPEG 2000"),
    ("jpm", "JPEG 2000"),
    ("jxl", "JPEG XL"),
    ("jxr", "JPEG XR"),
    ("ico", "icon"),
    ("cur", "icon"),
    ("icns", "icon"),
    ("tga", "Targa"),
    ("dds", "DDS"),
    ("exr", "OpenEXR"),
    ("pcx", "PCX"),
    ("qoi", "QOI"),
    ("pam", "PAM"),
    ("pfm", "PFM"),
    ("sgi", "SGI"),
    ("xbm", "XBM"),
    ("xpm", "XPM"),
    ("wmf", "WMF"),
    ("emf", "EMF"),
    ("bpg", "BPG"),
    ("mng", "MNG"),
    ("dcm", "DICOM"),
    ("fits", "FITS"),
    ("dng", "camera raw"),
    ("cr2", "camera raw"),
    ("cr3", "camera raw"),
    ("nef", "camera raw"),
    ("arw", "camera raw"),
    ("orf", "camera raw"),
    ("rw2", "camera raw"),
    ("raf", "camera raw"),
    ("pef", "camera raw"),
    ("srw", "camera raw"),
];

/// Names that systems and programs leave in folders, and that hold no images of the user's: besides these, everything
/// that begins with a dot (`.DS_Store`, AppleDouble `._x.jpg`, `.ipynb_checkpoints`).
const LEFTOVERS: [&str; 6] =
    ["__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"];

/// Whether a file name ends as an image's does, decoded or not.
pub(super) fn is_image_name(name: &str) -> bool {
    DECODED.contains(&&*ending(name)) || undecoded_kind(name).is_some()
}

/// The kind of image that a name says it is, where that is one which is not decoded.
pub(super) fn undecoded_kind(name: &str) -> Option<&'static str> {
    let ending = ending(name);
    NOT_DECODED.iter().find(|(known, _)| *known == ending).map(|(_, kind)| *kind)
}

fn ending(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.rsplit_once('.').map_or(String::new(), |(_, ending)| ending.to_ascii_lowercase())
}

/// Whether a name, its parts divided by `/`, is hidden or a leftover of some program, or lies in such a folder.
pub(super) fn is_leftover(name: &str) -> bool {
    name.split('/').any(|part| {
        (part.starts_with('.') && part != "." && part != "..")
            || LEFTOVERS.iter().any(|known| part.eq_ignore_ascii_case(known))
    })
}

/// A name as programs on Windows write it, with `/` between its parts.
pub(super) fn with_slashes(name: &str) -> String {
    name.replace('\\', "/")
}

/// A name from a file, with `/` between its parts and without `./` in front. It must lead down into its folder: not
/// absolute, without `..`, drive or NUL.
pub(super) fn inside(file: &Path, at: Position, name: &str) -> Result<String> {
    let divided = with_slashes(name);
    let has_drive = divided.as_bytes().get(1) == Some(&b':') && divided.as_bytes()[0].is_ascii_alphabetic();
    let plain = !divided.is_empty()
        && !divided.contains('\0')
        && !has_drive
        && Path::new(&divided)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && Path::new(&divided).file_name().is_some();
    if plain {
        return Ok(divided.trim_start_matches("./").to_owned());
    }
    Err(Error::malformed(
        file,
        at,
        "a file name inside the folder of images (no `..`, not absolute, no drive)",
        format!("`{name}`"),
    ))
}

/// The name of the file or folder `path` in `folder` as text.
pub(super) fn utf8_name(folder: &Path, path: &Path) -> Result<String> {
    let name = path.file_name().unwrap_or_default();
    name.to_str().map(str::to_string).ok_or_else(|| {
        let found = format!("`{}`; rename it", name.to_string_lossy());
        Error::malformed(folder, Position::File, "file names in UTF-8", found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused_whichever_way_their_slashes_lean() {
        let bad = [
            "../a.png",
            "/etc/passwd",
            "a/../../b",
            "..",
            "",
            ".",
            "a\0b",
            "..\\a",
            "./..",
            "a\\..\\..\\b",
            "C:\\x.png",
            "c:x.png",
            "\\\\server\\share\\x.png",
            "\\x.png",
            ".\\..\\x",
        ];
        for name in bad {
            assert!(inside(Path::new("t.csv"), Position::Row(3), name).is_err(), "{name:?}");
        }
        for (name, found) in [
            ("a.png", "a.png"),
            ("a/b.png", "a/b.png"),
            ("./a.png", "a.png"),
            ("..a/b..png", "..a/b..png"),
            ("a\\b\\c.png", "a/b/c.png"),
            (".\\a.png", "a.png"),
        ] {
            assert_eq!(inside(Path::new("t.csv"), Position::Row(3), name).unwrap(), found);
        }
    }

    #[test]
    fn every_image_ending_is_decoded_or_refused_by_a_name_and_never_both() {
        for ending in DECODED {
            assert!(
                is_image_name(&format!("x.{}", ending.to_uppercase()))
                    && undecoded_kind(&format!("x.{ending}")).is_none()
            );
        }
        for (name, kind) in
            [("a/x.TIF", "TIFF"), ("x.tiff", "TIFF"), ("x.y.heic", "HEIC"), ("x.psd", "Photoshop")]
        {
            assert_eq!((is_image_name(name), undecoded_kind(name)), (true, Some(kind)));
        }
        for name in ["readme.txt", "jpg", "x", "tif.d/x", "labels.csv"] {
            assert!(!is_image_name(name), "{name}");
        }
    }

    #[test]
    fn leftovers_of_programs_are_known_at_any_depth() {
        for name in [
            "__MACOSX/a/._1.png",
            "a/._1.png",
            ".ipynb_checkpoints/1-checkpoint.png",
            "a/.git/x.png",
            "a/Thumbs.db",
            "b/@eaDir/1.jpg",
        ] {
            assert!(is_leftover(name), "{name}");
        }
        for name in ["a/1.png", "./a.png", "macosx/1.png", "a.b/c.png"] {
            assert!(!is_leftover(name), "{name}");
        }
    }
}
