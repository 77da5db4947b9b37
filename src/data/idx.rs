//! The MNIST family: idx files as LeCun's page defines them (big-endian header, then bytes), gzipped or not.
//!
//! ```text
//! images   00 00 08 03 | count | rows | columns | count * rows * columns bytes, row-major
//! labels   00 00 08 01 | count | count bytes
//! ```

use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::bytes::{Bytes, big_endian_u32, expect_end, inflate_exactly};
use super::memory::grey_to_rgb;
use super::{Dataset, LARGEST_IMAGE, RgbImage, UNKNOWN_LABEL};
use crate::error::{Error, Position, Result};
use crate::files;

pub(super) const IMAGES_MAGIC: u32 = 0x0803;
pub(super) const LABELS_MAGIC: u32 = 0x0801;

/// Grey images and, if there is a file of them, labels.
#[derive(Debug)]
pub(super) struct Idx {
    rows: usize,
    columns: usize,
    images: Bytes,
    labels: Option<Bytes>,
    count: usize,
    class_names: Vec<String>,
}

impl Idx {
    pub(super) fn open(images_path: &Path, labels_path: Option<&Path>) -> Result<Idx> {
        let set = Idx::of_images(images_path, read(images_path, IMAGES_MAGIC)?)?;
        let Some(labels_path) = labels_path else { return Ok(set) };
        let labels = read_labels(labels_path, set.count, images_path)?;
        let classes = labels[8..].iter().max().map_or(0, |&largest| usize::from(largest) + 1);
        let class_names = (0..classes).map(|class| class.to_string()).collect();
        Ok(Idx { labels: Some(labels), class_names, ..set })
    }

    /// Images without labels: the whole file at `path`, inflated, of the length that its header says.
    pub(super) fn of_images(path: &Path, images: Bytes) -> Result<Idx> {
        let extent = |dimension: usize| big_endian_u32(&images, 4 + 4 * dimension).unwrap_or(0) as usize;
        let (count, rows, columns) = (extent(0), extent(1), extent(2));
        if rows == 0 || columns == 0 || rows as u64 * columns as u64 > LARGEST_IMAGE {
            let expected = "images of one pixel to 64 megapixels";
            let found = format!("{rows} rows of {columns} pixels");
            return Err(Error::malformed(path, Position::Byte(8), expected, found));
        }
        if count == 0 || u32::try_from(count).is_err() {
            let found = format!("{count}");
            return Err(Error::malformed(path, Position::Byte(4), "at least one image", found));
        }
        Ok(Idx { rows, columns, images, labels: None, count, class_names: Vec::new() })
    }
}

fn read_labels(path: &Path, images: usize, images_path: &Path) -> Result<Bytes> {
    let labels = read(path, LABELS_MAGIC)?;
    let count = labels.len() - 8;
    if count != images {
        let expected = format!("{images} labels, as there are images in {}", images_path.display());
        let found = format!("{count}; do the two files belong together?");
        return Err(Error::malformed(path, Position::Byte(4), expected, found));
    }
    Ok(labels)
}

/// The whole file, inflated if it is gzipped; its length is exactly what its header says.
fn read(path: &Path, magic: u32) -> Result<Bytes> {
    let map = files::map(path)?;
    let header = header_length(magic);
    if !map.starts_with(&[0x1f, 0x8b]) {
        let wanted = declared_size(path, &map, magic, header)?;
        if map.len() as u64 != wanted {
            let expected = format!("{wanted} bytes, as the header says");
            let found = format!("{} bytes", map.len());
            return Err(Error::malformed(
                path,
                Position::Byte(wanted.min(map.len() as u64)),
                expected,
                found,
            ));
        }
        return Ok(Bytes::Mapped(map));
    }
    inflate(path, &map, magic).map(Bytes::Inflated)
}

/// A gzipped file as a whole.
pub(super) fn inflate(path: &Path, gzipped: &[u8], magic: u32) -> Result<Vec<u8>> {
    let (mut reader, compressed) = (MultiGzDecoder::new(gzipped), gzipped.len() as u64);
    let header = header_length(magic);
    let mut bytes = Vec::new();
    inflate_exactly(path, &mut reader, compressed, header as u64, &mut bytes)?;
    let wanted = declared_size(path, &bytes, magic, header)?;
    inflate_exactly(path, &mut reader, compressed, wanted - header as u64, &mut bytes)?;
    expect_end(path, &mut reader, wanted)?;
    Ok(bytes)
}

/// The magic number, whose last byte is the number of dimensions, and an extent for each.
fn header_length(magic: u32) -> usize {
    4 + 4 * (magic & 0xff) as usize
}

/// Header and data together, from the header.
fn declared_size(path: &Path, bytes: &[u8], magic: u32, header: usize) -> Result<u64> {
    let kind = if magic == IMAGES_MAGIC { "images" } else { "labels" };
    match big_endian_u32(bytes, 0) {
        Some(found) if found == magic => {}
        found => {
            let found = match found {
                Some(_) => files::describe_content(bytes),
                None => format!("{} bytes in all", bytes.len()),
            };
            let expected = format!("the magic number {magic:#010x} of an idx file of {kind}");
            return Err(Error::malformed(path, Position::Byte(0), expected, found));
        }
    }
    let mut size = 1u64;
    for offset in (4..header).step_by(4) {
        let extent = big_endian_u32(bytes, offset).ok_or_else(|| {
            Error::malformed(
                path,
                Position::Byte(offset as u64),
                "an extent of four bytes",
                "the end of the file",
            )
        })?;
        size = size.checked_mul(u64::from(extent)).ok_or_else(|| {
            Error::malformed(
                path,
                Position::Byte(4),
                "a size a computer can hold",
                "a product beyond 64 bits",
            )
        })?;
    }
    size.checked_add(header as u64).ok_or_else(|| {
        Error::malformed(path, Position::Byte(4), "a size a computer can hold", "a sum beyond 64 bits")
    })
}

impl Dataset for Idx {
    fn len(&self) -> usize {
        self.count
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn label(&self, index: usize) -> i64 {
        self.labels.as_ref().map_or(UNKNOWN_LABEL, |labels| i64::from(labels[8 + index]))
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        let size = self.rows * self.columns;
        let start = 16 + index * size;
        let pixels = grey_to_rgb(&self.images[start..start + size]);
        Ok(RgbImage::new(self.columns as u32, self.rows as u32, pixels))
    }
}
