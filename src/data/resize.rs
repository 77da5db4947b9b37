//! Resizing as Pillow's antialiased bilinear filter does it, which is what torchvision's `Resize` calls.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::RgbImage;
use crate::error::{Error, Result};

/// An image resized to `width` x `height` pixels, within one grey level of Pillow's `resize(…, BILINEAR)`: a triangle
/// filter whose support grows with the scale when shrinking.
///
/// # Errors
/// The image or the result is empty, or the pixels do not fill the size the image claims.
pub fn resize(image: &RgbImage, width: u32, height: u32) -> Result<RgbImage> {
    let refused = |reason: String| {
        Error::invalid(format!(
            "cannot resize an image of {} x {} pixels to {width} x {height}: {reason}",
            image.width, image.height
        ))
    };
    if width == 0 || height == 0 || image.width == 0 || image.height == 0 {
        return Err(refused("a side is zero".to_owned()));
    }
    let source = ImageRef::new(image.width, image.height, &image.pixels, PixelType::U8x3)
        .map_err(|e| refused(e.to_string()))?;
    let mut target = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut target, &options).map_err(|e| refused(e.to_string()))?;
    Ok(RgbImage { width, height, pixels: target.into_vec() })
}
