//! Files the tests of data readers read: written with the formats' own words, of pixels known by a formula.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use residua::data::{DataSpec, RgbImage, SharedDataset, Split, open};
use residua::error::Result;

/// The same formula as `pixels` in `tests/fixtures/make_data.py`, from byte `start` on.
pub fn pixels(start: usize, count: usize) -> Vec<u8> {
    (start..start + count).map(|i| ((i as u32).wrapping_mul(40503) >> 8) as u8).collect()
}

/// Image `index` of a row-major array of 32 x 32 RGB images.
pub fn cifar_sized_image(index: usize) -> RgbImage {
    RgbImage::new(32, 32, pixels(index * 3072, 3072))
}

/// A CIFAR record of [`cifar_sized_image`]: labels, then planes.
pub fn cifar_record(labels: &[u8], index: usize) -> Vec<u8> {
    let image = cifar_sized_image(index);
    let planes =
        (0..3).flat_map(|channel| image.pixels[channel..].iter().step_by(3).copied().collect::<Vec<_>>());
    labels.iter().copied().chain(planes).collect()
}

/// An idx file: magic number, extents, bytes.
pub fn idx(magic: u32, extents: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_be_bytes().to_vec();
    extents.iter().for_each(|extent| bytes.extend(extent.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// `bytes` gzipped.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A PNG of one colour.
pub fn png(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(width, height, image::Rgb(colour))
        .write_to(&mut out, image::ImageFormat::Png)
        .unwrap();
    out.into_inner()
}

/// A zip of members.
pub fn zip(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Writes a file in a folder, making folders on the way.
pub fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A file of `tests/fixtures/data`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(name)
}

/// Opens data by name, test split by default.
pub fn open_named(name: &str) -> Result<SharedDataset> {
    open(&name.parse::<DataSpec>()?, Split::Test)
}

/// Grey images of 8 x 8 pixels, class 0 dark and class 1 bright at the top, with some texture.
pub fn write_images(folder: &Path, name: &str, count: u32, tilt: u32) {
    let pixel = |image: u32, y: u32, x: u32| -> u8 {
        let bright = if (y < 4) == (image % 2 == 1) { 170 } else { 60 };
        (bright + (image * 31 + y * 7 + x * (11 + tilt)) % 50) as u8
    };
    let pixels: Vec<u8> = (0..count * 64).map(|i| pixel(i / 64, i % 64 / 8, i % 8)).collect();
    let labels: Vec<u8> = (0..count).map(|image| (image % 2) as u8).collect();
    std::fs::write(folder.join(format!("{name}-images")), idx(0x803, &[count, 8, 8], &pixels)).unwrap();
    std::fs::write(folder.join(format!("{name}-labels")), idx(0x801, &[count], &labels)).unwrap();
}
