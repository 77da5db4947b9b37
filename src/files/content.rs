//! Kind of a file by its first bytes, in the words of a message: said where another kind was expected.

/// A kind of content that is known by bytes at a place, and what to do about it.
struct Magic {
    at: usize,
    bytes: &'static [u8],
    /// Name of the kind, and where something helps, what to do.
    name: &'static str,
}

const fn magic(at: usize, bytes: &'static [u8], name: &'static str) -> Magic {
    Magic { at, bytes, name }
}

/// The first that fits counts.
const MAGICS: [Magic; 39] = [
    magic(0, b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    magic(0, b"\x1f\x8b", "gzip; decompress it with gunzip, or unpack it with `tar xzf` if it is a .tar.gz"),
    magic(0, b"\x28\xb5\x2f\xfd", "Zstandard; decompress it with `zstd -d`"),
    magic(0, b"\xfd7zXZ\0", "xz; decompress it with `xz -d`"),
    magic(0, b"BZh", "bzip2; decompress it with `bzip2 -d`"),
    magic(0, b"\x04\x22\x4d\x18", "LZ4; decompress it with `lz4 -d`"),
    magic(0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it with `7z x`"),
    magic(0, b"Rar!\x1a\x07", "a RAR archive; unpack it with `unrar x`"),
    magic(257, b"ustar", "a tar archive; unpack it with `tar xf`"),
    magic(0, b"PK\x03\x04", "a zip archive"),
    magic(0, b"PK\x05\x06", "an empty zip archive"),
    magic(0, b"%PDF-", "a PDF document"),
    magic(0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    magic(0, b"\x93NUMPY", "a NumPy array (.npy)"),
    magic(0, b"MATLAB 5.0 MAT-file", "a MAT-file of version 5"),
    magic(0, b"PAR1", "a Parquet table"),
    magic(0, b"SQLite format 3\0", "an SQLite database"),
    magic(0, b"\x7fELF", "a program or shared library (ELF)"),
    magic(0, b"MZ", "a program for Windows"),
    magic(0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    magic(0, b"\xff\xd8\xff", "a JPEG image"),
    magic(0, b"GIF8", "a GIF image"),
    magic(0, b"II*\0", "a TIFF image; convert it to PNG"),
    magic(0, b"MM\0*", "a TIFF image; convert it to PNG"),
    magic(0, b"II+\0", "a TIFF image; convert it to PNG"),
    magic(8, b"WEBP", "a WebP image"),
    magic(4, b"ftypavif", "an AVIF image; convert it to PNG"),
    magic(4, b"ftypheic", "a HEIC image; convert it to PNG"),
    magic(4, b"ftypmif1", "a HEIC image; convert it to PNG"),
    magic(4, b"ftyp", "a video or image of the MP4 family"),
    magic(0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image; convert it to PNG"),
    magic(0, b"\0\0\0\x0cJXL ", "a JPEG XL image; convert it to PNG"),
    magic(0, b"\xff\x0a", "a JPEG XL image; convert it to PNG"),
    magic(0, b"8BPS", "a Photoshop image; convert it to PNG"),
    magic(0, b"\0\0\x01\0", "an icon; convert it to PNG"),
    magic(0, b"\xff\xfe", "text in UTF-16; save it as UTF-8"),
    magic(0, b"\xfe\xff", "text in UTF-16; save it as UTF-8"),
    magic(0, b"\0\0\x08\x03", "an idx file of images (the MNIST family)"),
    magic(0, b"\0\0\x08\x01", "an idx file of labels (the MNIST family)"),
];

/// Kind of a file with these first bytes, if it is a well-known one, and what to do about it.
pub fn known_content(bytes: &[u8]) -> Option<&'static str> {
    let fits = |magic: &&Magic| bytes.get(magic.at..).is_some_and(|rest| rest.starts_with(magic.bytes));
    if let Some(magic) = MAGICS.iter().find(fits) {
        return Some(magic.name);
    }
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(0);
    let markup = bytes[start..].first() == Some(&b'<');
    let head = bytes[start..].iter().take(256).map(u8::to_ascii_lowercase).collect::<Vec<u8>>();
    let holds = |word: &[u8]| head.windows(word.len()).any(|window| window == word);
    match markup {
        true if holds(b"<svg") => Some("an SVG drawing; convert it to PNG"),
        true if holds(b"<html") || holds(b"<!doctype") => Some("a web page; the download went wrong"),
        true if holds(b"<?xml") => Some("an XML document; did the download go wrong?"),
        _ => None,
    }
}

/// Kind of a file with these first bytes, or the bytes, for the end of `expected …, found`.
pub fn describe_content(bytes: &[u8]) -> String {
    const SHOWN: usize = 8;
    const QUOTED: usize = 24;
    if bytes.is_empty() {
        return "an empty file".to_owned();
    }
    if let Some(known) = known_content(bytes) {
        return known.to_owned();
    }
    let head = &bytes[..bytes.len().min(QUOTED)];
    if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return format!("text, `{}`", String::from_utf8_lossy(head).trim_end());
    }
    let shown: Vec<String> = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    format!("the bytes {}, of no kind that is known", shown.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_files_are_called_by_their_names_and_not_by_their_bytes() {
        for (bytes, name) in [
            (&b"\x1f\x8b\x08\0"[..], "gzip"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
            (b"  \n<!DOCTYPE html><html>", "web page"),
            (b"<?xml version=\"1.0\"?><svg xmlns=\"x\">", "SVG"),
            (b"<?xml version=\"1.0\"?><Error>", "XML"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
            (b"%PDF-1.7", "PDF"),
            (b"", "an empty file"),
            (b"hello\n", "text, `hello`"),
            (b"\x01\x02\xff", "the bytes 01 02 ff"),
        ] {
            assert!(describe_content(bytes).contains(name), "{name}: {}", describe_content(bytes));
        }
        let mut tar = vec![b'a'; 600];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(describe_content(&tar).contains("tar xf"));
        // A `<` alone is no web page.
        assert_eq!(known_content(b"<robin>"), None);
    }
}
