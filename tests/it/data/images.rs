//! Image files that other programs wrote (`tests/fixtures/images/make_images.py`), against what Pillow decodes from them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use residua::data::RgbImage;
use residua::error::Result;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::support::data_files::open_named;

#[derive(Deserialize)]
struct Expected {
    files: BTreeMap<String, File>,
}

/// Entry of `make_images.py` for a file.
#[derive(Deserialize)]
struct File {
    format: String,
    size: [u32; 2],
    mean: [f64; 3],
    std: [f64; 3],
    sha256: String,
    by: String,
    tolerance: f64,
    tolerance_fancy: Option<f64>,
    pixels: Option<[usize; 2]>,
    same_as: Option<String>,
    may_refuse: Option<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images")
}

fn expected() -> BTreeMap<String, File> {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    serde_json::from_str::<Expected>(&text).unwrap().files
}

fn expected_pixels() -> Vec<u8> {
    let mut pixels = Vec::new();
    let file = std::fs::File::open(folder().join("expected.rgb.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_end(&mut pixels).unwrap();
    pixels
}

fn decoded(name: &str) -> Result<RgbImage> {
    open_named(&format!("images:{}", folder().join(name).display()))?.image(0)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Mean and population standard deviation of each channel.
fn moments(image: &RgbImage) -> ([f64; 3], [f64; 3]) {
    let count = image.pixels.len() as f64 / 3.0;
    let channel = |channel: usize| image.pixels[channel..].iter().step_by(3).map(|&byte| f64::from(byte));
    let mean = std::array::from_fn(|c| channel(c).sum::<f64>() / count);
    let std = std::array::from_fn(|c| {
        (channel(c).map(|value| (value - mean[c] as f64).powi(2)).sum::<f64>() / count).sqrt()
    });
    (mean, std)
}

#[test]
fn every_image_is_within_its_tolerance_of_pillow_or_refused_by_name() {
    let blobs = expected_pixels();
    let (mut wrong, mut refused) = (Vec::new(), Vec::new());
    for (name, file) in expected() {
        let image = match (decoded(&name), &file.may_refuse) {
            (Ok(image), _) => image,
            (Err(error), Some(reason)) if error.to_string().contains(reason) => {
                refused.push(name);
                continue;
            }
            (Err(error), _) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        assert_eq!([image.width, image.height], file.size, "{name}");
        assert_eq!(image.warning, None, "{name}");
        // libjpeg's arithmetic is deterministic, so that nothing is to be tolerated of a JPEG.
        let exact = file.tolerance == 0.0 || (file.format == "jpeg" && file.by == "pillow");
        if exact && sha256(&image.pixels) != file.sha256 {
            wrong.push(format!("{name}: not the pixels of Pillow"));
        }
        if let Some([offset, length]) = file.pixels {
            let pairs = image.pixels.iter().zip(&blobs[offset..offset + length]);
            let distance = pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / length as f64;
            let bound = file.tolerance_fancy.map_or(file.tolerance, |fancy| fancy.min(file.tolerance));
            if distance > bound {
                wrong.push(format!("{name}: {distance:.3} levels apart, at most {bound}"));
            }
        }
        let (mean, std) = moments(&image);
        for channel in 0..3 {
            assert!((mean[channel] - file.mean[channel]).abs() <= file.tolerance + 1e-4, "{name}: mean");
            assert!((std[channel] - file.std[channel]).abs() <= file.tolerance + 1e-4, "{name}: std");
        }
        if let Some(twin) = &file.same_as {
            assert_eq!(image.pixels, decoded(twin).unwrap().pixels, "{name} is {twin} in another form");
        }
    }
    assert!(wrong.is_empty(), "{} images:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(refused, ["tiff_lzw.tiff", "tiff_raw.tiff", "tiff_tiled.tiff"]);
}
