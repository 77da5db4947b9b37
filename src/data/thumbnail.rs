//! Small copies of images for pages: a `data:` address that a browser shows without asking anybody.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::{RgbImage, resize};
use crate::error::{Error, Result};

/// Images whose longest side is no longer keep their pixels.
const EXACT_SIDE: u32 = 48;
/// The longest side of a copy of any other.
const LONGEST_SIDE: u32 = 96;
/// JPEG quality of copies of photographs.
const QUALITY: u8 = 82;

/// A small copy of an image as a `data:` address: small images as PNG with the pixels they have, others shrunk to 96 pixels and
/// as JPEG.
///
/// # Errors
/// The image is empty or its pixels do not fill the size it claims.
pub fn thumbnail(image: &RgbImage) -> Result<String> {
    let longest = image.width.max(image.height);
    if longest <= EXACT_SIDE && longest > 0 {
        let (width, height) = (image.width, image.height);
        // An encoder panics where the pixels do not fill the size; `resize` says so.
        let image = resize(image, width, height)?;
        let mut png = Vec::new();
        let is_gray = image.pixels.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
        let encoder = PngEncoder::new(&mut png);
        let written = if is_gray {
            let gray: Vec<u8> = image.pixels.chunks_exact(3).map(|pixel| pixel[0]).collect();
            encoder.write_image(&gray, width, height, ExtendedColorType::L8)
        } else {
            encoder.write_image(&image.pixels, width, height, ExtendedColorType::Rgb8)
        };
        written.map_err(|e| Error::invalid(format!("an image cannot be written as PNG: {e}")))?;
        return Ok(format!("data:image/png;base64,{}", STANDARD.encode(png)));
    }
    let side = |side: u32| {
        let scaled = (u64::from(side) * u64::from(LONGEST_SIDE)).div_ceil(u64::from(longest.max(1)));
        scaled.clamp(1, u64::from(LONGEST_SIDE)) as u32
    };
    let small = resize(image, side(image.width), side(image.height))?;
    let mut jpeg = Vec::new();
    jpeg_encoder::Encoder::new(&mut jpeg, QUALITY)
        .encode(&small.pixels, small.width as u16, small.height as u16, jpeg_encoder::ColorType::Rgb)
        .map_err(|e| Error::invalid(format!("an image cannot be written as JPEG: {e}")))?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decode::decode;

    fn image(width: u32, height: u32) -> RgbImage {
        let pixel = |i: u32| [(i % width * 200 / width) as u8, (i / width * 200 / height) as u8, 90];
        RgbImage::new(width, height, (0..width * height).flat_map(pixel).collect())
    }

    fn decoded(address: &str) -> RgbImage {
        let bytes = STANDARD.decode(address.split_once("base64,").unwrap().1).unwrap();
        decode(std::path::Path::new("thumbnail"), &crate::error::Position::File, &bytes).unwrap()
    }

    #[test]
    fn small_images_keep_their_pixels_and_large_ones_their_shape() {
        let small = image(28, 19);
        let address = thumbnail(&small).unwrap();
        assert!(address.starts_with("data:image/png;base64,"), "{address}");
        assert_eq!(decoded(&address).pixels, small.pixels);
        let gray = RgbImage::new(2, 1, vec![7, 7, 7, 9, 9, 9]);
        assert_eq!(decoded(&thumbnail(&gray).unwrap()).pixels, gray.pixels);
        for (width, height, wanted) in
            [(300, 200, (96, 64)), (49, 49, (96, 96)), (9000, 3, (96, 1)), (3, 500, (1, 96))]
        {
            let address = thumbnail(&image(width, height)).unwrap();
            assert!(address.starts_with("data:image/jpeg;base64,"), "{address}");
            let shown = decoded(&address);
            assert_eq!((shown.width, shown.height), wanted, "{width} x {height}");
        }
    }

    #[test]
    fn an_image_without_its_pixels_is_an_error() {
        assert!(thumbnail(&RgbImage::new(4, 4, vec![0; 5])).is_err());
        assert!(thumbnail(&RgbImage::new(0, 0, Vec::new())).is_err());
        assert!(thumbnail(&RgbImage::new(100, 100, Vec::new())).is_err());
    }
}
