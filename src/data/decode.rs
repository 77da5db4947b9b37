//! Image files to pixels, with the size bounded before anything is allocated.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{LARGEST_IMAGE, RgbImage, jpeg};
use crate::error::{Error, Position, Result};
use crate::files::describe_content;

/// Sixteen bits of four channels for the largest image, and as much again for a decoder's own buffers.
const LARGEST_ALLOCATION: u64 = 2 * 8 * LARGEST_IMAGE;

/// Decodes JPEG, PNG, WebP, BMP, GIF (its first frame) or PNM, recognised by content. Grey becomes RGB, sixteen bits
/// become eight, transparency is dropped (the colour beneath it stays, as Pillow's `convert("RGB")` does).
///
/// `path` and `at` say where the bytes came from.
///
/// # Errors
/// Not an image, cut short, damaged, or larger than 64 megapixels.
pub(super) fn decode(path: &Path, at: &Position, bytes: &[u8]) -> Result<RgbImage> {
    let wrong = |found: String| {
        Error::malformed(path, at.clone(), "an image (JPEG, PNG, WebP, BMP, GIF or PNM) that decodes", found)
    };
    if jpeg::is_jpeg(bytes) {
        return jpeg::decode(bytes).map_err(wrong);
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(LARGEST_ALLOCATION);
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| wrong(e.to_string()))?;
    let decoded = [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif, ImageFormat::Pnm];
    if !reader.format().is_some_and(|format| decoded.contains(&format)) {
        return Err(wrong(describe_content(bytes)));
    }
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| wrong(e.to_string()))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > LARGEST_IMAGE || width == 0 || height == 0 {
        let expected = "an image of one pixel to 64 megapixels";
        return Err(Error::malformed(path, at.clone(), expected, format!("{width} x {height} pixels")));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(|e| wrong(e.to_string()))?;
    Ok(RgbImage::new(width, height, image.into_rgb8().into_raw()))
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, RgbaImage};

    use super::*;

    fn encoded(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        image.write_to(&mut out, format).unwrap();
        out.into_inner()
    }

    fn decoded(bytes: &[u8]) -> Result<RgbImage> {
        decode(Path::new("x"), &Position::File, bytes)
    }

    #[test]
    fn grey_and_transparent_images_become_rgb() {
        let grey = DynamicImage::ImageLuma8(GrayImage::from_raw(2, 1, vec![7, 200]).unwrap());
        assert_eq!(decoded(&encoded(grey, ImageFormat::Png)).unwrap().pixels, [7, 7, 7, 200, 200, 200]);
        let clear = DynamicImage::ImageRgba8(RgbaImage::from_raw(1, 1, vec![1, 2, 3, 0]).unwrap());
        assert_eq!(decoded(&encoded(clear, ImageFormat::Png)).unwrap().pixels, [1, 2, 3]);
    }

    #[test]
    fn every_truncation_of_an_image_is_an_error() {
        let image = || {
            DynamicImage::ImageRgb8(image::RgbImage::from_fn(9, 7, |x, y| {
                image::Rgb([x as u8 * 20, y as u8, 90])
            }))
        };
        let jpeg = include_bytes!("../../tests/fixtures/images/jpeg_420_progressive.jpg").to_vec();
        let png = encoded(image(), ImageFormat::Png);
        for (bytes, end) in [(jpeg, 0), (png, 16), (encoded(image(), ImageFormat::Bmp), 16)] {
            assert!(decoded(&bytes).is_ok());
            // The last bytes of a PNG are an end chunk without pixels.
            for length in 0..bytes.len() - end {
                assert!(decoded(&bytes[..length]).is_err(), "{:?} cut to {length} bytes", &bytes[..4]);
            }
        }
    }

    #[test]
    fn what_is_no_image_is_called_by_its_kind() {
        for (bytes, name) in [
            (&b""[..], "an empty file"),
            (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
            (b"II*\0\x08\0\0\0", "a TIFF image; convert it to PNG"),
        ] {
            let error = decoded(bytes).unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn a_header_of_more_than_64_megapixels_is_refused_before_decoding() {
        let mut png = encoded(DynamicImage::ImageLuma8(GrayImage::new(1, 1)), ImageFormat::Png);
        png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        let error = decoded(&png).unwrap_err().to_string();
        assert!(error.contains("60000 x 60000") || error.contains("limit"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
        })
    }
}
