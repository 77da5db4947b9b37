//! Placement of an augmented image's pixels: one affine map in 16.16 fixed point for all augmentations together.
//!
//! The map goes from output to input: the output's pixel (x, y) is the input's pixel
//! `((left + x right_of_x + y right_of_y) >> 16, (top + x down_of_x + y down_of_y) >> 16)`, zero outside. Whoever holds the
//! pixels applies it: [`crate::ops::LoadImages`], on any device.

use crate::ops::PLACEMENT_NUMBERS;

/// An affine map from output positions to input positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    left: i64,
    right_of_x: i64,
    right_of_y: i64,
    top: i64,
    down_of_x: i64,
    down_of_y: i64,
}

/// One pixel.
const ONE: i64 = 1 << 16;

impl Placement {
    /// Every pixel where it is.
    pub const WHOLE: Placement =
        Placement { left: 0, right_of_x: ONE, right_of_y: 0, top: 0, down_of_x: 0, down_of_y: ONE };

    /// The window that begins `right` columns right of the image's corner and `down` rows below it; either may be
    /// negative.
    pub(super) fn window(right: i64, down: i64) -> Placement {
        Placement { left: right * ONE, top: down * ONE, ..Placement::WHOLE }
    }

    /// The same window of an output of `side` columns, mirrored.
    pub(super) fn mirrored_output(self, side: u32) -> Placement {
        let last = i64::from(side) - 1;
        Placement {
            left: self.left + last * self.right_of_x,
            right_of_x: -self.right_of_x,
            top: self.top + last * self.down_of_x,
            down_of_x: -self.down_of_x,
            ..self
        }
    }

    /// The same map of the mirror image of an input of `side` columns.
    ///
    /// Column c of the mirror image is column `side - 1 - c` of the input, and `side - 1 - (v >> 16)` is
    /// `(side * 2^16 - 1 - v) >> 16`.
    pub(super) fn mirrored_input(self, side: u32) -> Placement {
        Placement {
            left: i64::from(side) * ONE - 1 - self.left,
            right_of_x: -self.right_of_x,
            right_of_y: -self.right_of_y,
            ..self
        }
    }

    /// A turn by `degrees` counter-clockwise about the centre of an image of `width` x `height`, nearest neighbour: pixel
    /// for pixel Pillow's `Image.rotate` (which torchvision's `RandomRotation` calls).
    pub(super) fn rotation(width: u32, height: u32, degrees: f64) -> Placement {
        let radians = -degrees.rem_euclid(360.0).to_radians();
        let (sin, cos) = (fifteen_digits(radians.sin()), fifteen_digits(radians.cos()));
        // An output position (x, y) comes from (cos x + sin y + left, -sin x + cos y + top).
        let (centre_x, centre_y) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
        let left = centre_x - cos * centre_x - sin * centre_y;
        let top = centre_y + sin * centre_x - cos * centre_y;
        // Pixels are sampled at their centres.
        Placement {
            left: fixed(left + 0.5 * cos + 0.5 * sin),
            right_of_x: fixed(cos),
            right_of_y: fixed(sin),
            top: fixed(top - 0.5 * sin + 0.5 * cos),
            down_of_x: fixed(-sin),
            down_of_y: fixed(cos),
        }
    }

    /// The input position of an output position; it may lie outside the image.
    pub fn source(&self, x: i64, y: i64) -> (i64, i64) {
        (
            (self.left + x * self.right_of_x + y * self.right_of_y) >> 16,
            (self.top + x * self.down_of_x + y * self.down_of_y) >> 16,
        )
    }

    /// As [`crate::ops::LoadImages`] reads it, for image `index` of those in memory.
    ///
    /// # Panics
    /// The image is larger than [`super::LARGEST_SIDE`]; transforms are not.
    pub fn numbers(&self, index: usize) -> [i32; PLACEMENT_NUMBERS] {
        let all = [
            index as i64,
            self.left,
            self.right_of_x,
            self.right_of_y,
            self.top,
            self.down_of_x,
            self.down_of_y,
            0,
        ];
        all.map(|number| i32::try_from(number).expect("positions in images fit 16.16 fixed point"))
    }
}

/// 16.16 fixed point, rounded to nearest.
fn fixed(value: f64) -> i64 {
    (value * 65536.0 + 0.5).floor() as i64
}

/// Rounded to fifteen decimals, so that 90 degrees have a cosine of exactly zero.
fn fifteen_digits(value: f64) -> f64 {
    (value * 1e15).round() / 1e15
}
