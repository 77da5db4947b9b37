//! Rotation about the centre by nearest neighbour, pixel for pixel as Pillow's `Image.rotate` (which torchvision's
//! `RandomRotation` calls): positions in 16.16 fixed point, zeros outside.

use super::RgbImage;

/// The image turned by `degrees` counter-clockwise about its centre, in its own size.
pub(super) fn rotate(image: &RgbImage, degrees: f64) -> RgbImage {
    let (width, height) = (i64::from(image.width), i64::from(image.height));
    let radians = -degrees.rem_euclid(360.0).to_radians();
    let (sin, cos) = (fifteen_digits(radians.sin()), fifteen_digits(radians.cos()));
    // An output position (x, y) comes from (cos x + sin y + left, -sin x + cos y + top).
    let (centre_x, centre_y) = (width as f64 / 2.0, height as f64 / 2.0);
    let left = centre_x - cos * centre_x - sin * centre_y;
    let top = centre_y + sin * centre_x - cos * centre_y;
    let (step_cos, step_sin) = (fixed(cos), fixed(sin));
    let step_minus_sin = fixed(-sin);
    // Pixels are sampled at their centres.
    let start_x = fixed(left + 0.5 * cos + 0.5 * sin);
    let start_y = fixed(top - 0.5 * sin + 0.5 * cos);
    let mut pixels = vec![0; image.pixels.len()];
    for (position, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (x, y) = (position as i64 % width, position as i64 / width);
        let from_x = (start_x + x * step_cos + y * step_sin) >> 16;
        let from_y = (start_y + x * step_minus_sin + y * step_cos) >> 16;
        if (0..width).contains(&from_x) && (0..height).contains(&from_y) {
            let at = 3 * (from_y * width + from_x) as usize;
            pixel.copy_from_slice(&image.pixels[at..at + 3]);
        }
    }
    RgbImage { pixels, ..*image }
}

/// 16.16 fixed point, rounded to nearest.
fn fixed(value: f64) -> i64 {
    (value * 65536.0 + 0.5).floor() as i64
}

/// Rounded to fifteen decimals, so that 90 degrees have a cosine of exactly zero.
fn fifteen_digits(value: f64) -> f64 {
    (value * 1e15).round() / 1e15
}
