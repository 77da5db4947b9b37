//! What happens to an image between the data set and the network: size, augmentation, normalisation.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::rotate::rotate;
use super::{Normalize, RgbImage, resize};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Zero pixels around the image that a random crop is taken from, on each side (torchvision's usage for CIFAR).
const CROP_PADDING: u32 = 4;

/// Largest angle of a random rotation, in degrees.
const LARGEST_ANGLE: f64 = 10.0;

/// From an image of any size to a network's input. It is stored in checkpoints, so that everything the network ever
/// sees goes the same way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Side of the square the network gets, in pixels.
    pub size: u32,
    /// How 28 x 28 images become 32 x 32.
    #[serde(default)]
    pub small: Small,
    /// Mean and standard deviation of the channels.
    pub normalize: Normalize,
    /// What happens in training only.
    #[serde(default)]
    pub augment: Augment,
}

/// How a 28 x 28 image (the MNIST family) becomes 32 x 32. Every other change of size is a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Small {
    /// Two rows and columns of zeros on each side: every stroke stays as sharp as it was.
    #[default]
    Pad,
    /// Bilinear, as any other size.
    Resize,
}

/// Random changes of training images; zero means black, before normalisation, as in torchvision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augment {
    /// None.
    #[default]
    None,
    /// A crop of the image with 4 pixels of zeros around it, then a horizontal flip of every second one.
    CropFlip,
    /// A horizontal flip of every second image, then a rotation by up to 10 degrees either way, nearest neighbour,
    /// zeros outside.
    ResizeFlipRotate,
}

impl FromStr for Augment {
    type Err = Error;

    fn from_str(text: &str) -> Result<Augment> {
        [Augment::None, Augment::CropFlip, Augment::ResizeFlipRotate]
            .into_iter()
            .find(|augment| augment.to_string() == text)
            .ok_or_else(|| {
                Error::usage(format!(
                    "`{text}` is no augmentation; there are none, crop-flip, resize-flip-rotate"
                ))
            })
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Augment::None => "none",
            Augment::CropFlip => "crop-flip",
            Augment::ResizeFlipRotate => "resize-flip-rotate",
        })
    }
}

/// The random choices for one image. Each has its own index in the image's stream, so that none depends on which
/// of the others are made.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Choices {
    /// Rows and columns the crop begins below and right of the padding's corner, 0..=2 * [`CROP_PADDING`].
    down: u32,
    right: u32,
    flip: bool,
    /// Degrees, counter-clockwise.
    angle: f64,
}

impl Choices {
    fn draw(stream: &Stream) -> Choices {
        let offsets = 2 * u64::from(CROP_PADDING) + 1;
        Choices {
            down: stream.below(0, offsets) as u32,
            right: stream.below(1, offsets) as u32,
            flip: stream.uniform(2) < 0.5,
            angle: LARGEST_ANGLE * (2.0 * stream.uniform(3) - 1.0),
        }
    }
}

impl Transform {
    /// A transform without augmentation.
    pub fn new(size: u32, normalize: Normalize) -> Transform {
        Transform { size, small: Small::Pad, normalize, augment: Augment::None }
    }

    /// The random numbers that augment sample `sample` of the data set in epoch `epoch`: the same whatever the batch,
    /// the thread or the point a run was resumed at.
    pub fn stream(seed: u64, epoch: u64, sample: u32) -> Stream {
        Stream::for_purpose(seed, Purpose::Augment, &[epoch, u64::from(sample)])
    }

    /// Number of floats of one image: `size * size * 3`.
    pub fn image_len(&self) -> usize {
        3 * self.size as usize * self.size as usize
    }

    /// Ready to be applied to many images.
    pub fn prepare(&self) -> Prepared {
        Prepared { transform: self.clone(), table: self.normalize.table() }
    }
}

/// A [`Transform`] with its normalisation worked out for every byte.
#[derive(Debug, Clone)]
pub struct Prepared {
    transform: Transform,
    table: [[f32; 256]; 3],
}

impl Prepared {
    /// Writes the network's input for `image` to `out`, of [`Transform::image_len`] floats: row-major, channels last
    /// (one image of NHWC). With a stream ([`Transform::stream`]) the image is augmented, without it is not.
    ///
    /// # Errors
    /// The image is empty.
    ///
    /// # Panics
    /// `out` has another length.
    pub fn apply(&self, image: &RgbImage, stream: Option<&Stream>, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), self.transform.image_len(), "the output holds one image");
        let sized = self.resize(image)?;
        match (self.transform.augment, stream.map(Choices::draw)) {
            (Augment::None, _) | (_, None) => self.write(&sized, CROP_PADDING, CROP_PADDING, false, out),
            (Augment::CropFlip, Some(choices)) => {
                self.write(&sized, choices.down, choices.right, choices.flip, out);
            }
            (Augment::ResizeFlipRotate, Some(choices)) => {
                let rotated =
                    rotate(&if choices.flip { flipped(&sized) } else { sized.into_owned() }, choices.angle);
                self.write(&rotated, CROP_PADDING, CROP_PADDING, false, out);
            }
        }
        Ok(())
    }

    fn resize<'a>(&self, image: &'a RgbImage) -> Result<Cow<'a, RgbImage>> {
        let size = self.transform.size;
        Ok(match (image.width, image.height) {
            (width, height) if width == size && height == size => Cow::Borrowed(image),
            (28, 28) if size == 32 && self.transform.small == Small::Pad => Cow::Owned(pad_28_to_32(image)),
            _ => Cow::Owned(resize(image, size, size)?),
        })
    }

    /// Writes the window of the zero-padded image that begins `down` rows and `right` columns from the padding's
    /// corner, mirrored if `flip`.
    fn write(&self, image: &RgbImage, down: u32, right: u32, flip: bool, out: &mut [f32]) {
        let side = self.transform.size as usize;
        let zero = [self.table[0][0], self.table[1][0], self.table[2][0]];
        for (y, row) in out.chunks_exact_mut(3 * side).enumerate() {
            let from_y = (y + down as usize).wrapping_sub(CROP_PADDING as usize);
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let x = if flip { side - 1 - x } else { x };
                let from_x = (x + right as usize).wrapping_sub(CROP_PADDING as usize);
                // What lies above or left of the image wrapped to a huge number.
                if from_y < side && from_x < side {
                    let at = 3 * (from_y * side + from_x);
                    for (channel, value) in pixel.iter_mut().enumerate() {
                        *value = self.table[channel][usize::from(image.pixels[at + channel])];
                    }
                } else {
                    pixel.copy_from_slice(&zero);
                }
            }
        }
    }
}

fn flipped(image: &RgbImage) -> RgbImage {
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for row in image.pixels.chunks_exact(3 * image.width as usize) {
        for pixel in row.chunks_exact(3).rev() {
            pixels.extend_from_slice(pixel);
        }
    }
    RgbImage { pixels, ..*image }
}

fn pad_28_to_32(image: &RgbImage) -> RgbImage {
    let mut pixels = vec![0; 3 * 32 * 32];
    for (y, row) in image.pixels.chunks_exact(3 * 28).enumerate() {
        let start = 3 * (32 * (y + 2) + 2);
        pixels[start..start + row.len()].copy_from_slice(row);
    }
    RgbImage { width: 32, height: 32, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values 0..=255 as they are.
    fn plain(size: u32, augment: Augment) -> Transform {
        Transform { augment, ..Transform::new(size, Normalize { mean: [0.0; 3], std: [1.0 / 255.0; 3] }) }
    }

    fn picture(width: u32, height: u32) -> RgbImage {
        let pixels = (0..3 * width * height).map(|i| (i * 7 % 251 + 1) as u8).collect();
        RgbImage { width, height, pixels }
    }

    fn applied(transform: &Transform, image: &RgbImage, stream: Option<&Stream>) -> Vec<f32> {
        let mut out = vec![f32::NAN; transform.image_len()];
        transform.prepare().apply(image, stream, &mut out).unwrap();
        out
    }

    #[test]
    fn without_augmentation_pixels_are_only_normalised_in_the_order_they_lie() {
        let image = picture(5, 5);
        let transform = Transform::new(5, "imagenet".parse().unwrap());
        let out = applied(&transform, &image, None);
        for (i, (&value, &byte)) in out.iter().zip(&image.pixels).enumerate() {
            let (mean, std) = (transform.normalize.mean[i % 3], transform.normalize.std[i % 3]);
            let expected = (f64::from(byte) / 255.0 - mean) / std;
            assert!((f64::from(value) - expected).abs() < 1e-6 * (1.0 + expected.abs()));
        }
    }

    #[test]
    fn crop_and_flip_equal_a_plain_loop_over_the_padded_image() {
        let (side, image) = (6u32, picture(6, 6));
        let transform = plain(side, Augment::CropFlip);
        let mut seen = std::collections::BTreeSet::new();
        for sample in 0..200 {
            let stream = Transform::stream(3, 1, sample);
            let choices = Choices::draw(&stream);
            seen.insert((choices.down, choices.right, choices.flip));
            let out = applied(&transform, &image, Some(&stream));
            for y in 0..side as i64 {
                for x in 0..side as i64 {
                    let column = if choices.flip { i64::from(side) - 1 - x } else { x };
                    let (from_y, from_x) =
                        (y + i64::from(choices.down) - 4, column + i64::from(choices.right) - 4);
                    for channel in 0..3 {
                        let inside = (0..6).contains(&from_y) && (0..6).contains(&from_x);
                        let expected = if inside {
                            image.pixels[(3 * (from_y * 6 + from_x) + channel) as usize]
                        } else {
                            0
                        };
                        let value = out[(3 * (y * 6 + x) + channel) as usize];
                        assert!((value - f32::from(expected)).abs() < 1e-3);
                    }
                }
            }
        }
        assert!(seen.len() > 100, "offsets and flips vary: {}", seen.len());
        assert_eq!(seen.iter().map(|choice| choice.0).max(), Some(8));
    }

    #[test]
    fn augmentation_is_a_function_of_seed_epoch_and_sample() {
        let image = picture(8, 8);
        let transform = plain(8, Augment::ResizeFlipRotate);
        let with =
            |seed, epoch, sample| applied(&transform, &image, Some(&Transform::stream(seed, epoch, sample)));
        assert_eq!(with(1, 2, 3), with(1, 2, 3));
        let others = [with(1, 2, 4), with(1, 3, 3), with(2, 2, 3)];
        assert!(others.iter().filter(|other| **other != with(1, 2, 3)).count() >= 2);
    }

    #[test]
    fn mnist_images_are_padded_by_default_and_resized_on_request() {
        let image = picture(28, 28);
        let padded = applied(&plain(32, Augment::None), &image, None);
        assert!(padded[..3 * 64].iter().all(|&value| value == 0.0));
        assert!((padded[3 * (2 * 32 + 2)] - f32::from(image.pixels[0])).abs() < 1e-3);
        let resized = applied(&Transform { small: Small::Resize, ..plain(32, Augment::None) }, &image, None);
        assert!(resized[0] > 0.0);
    }

    #[test]
    fn a_transform_survives_its_journey_through_a_checkpoint() {
        let transform = plain(32, Augment::CropFlip);
        let text = serde_json::to_string(&transform).unwrap();
        assert!(text.contains("crop-flip"), "{text}");
        assert_eq!(serde_json::from_str::<Transform>(&text).unwrap(), transform);
        assert!("crop".parse::<Augment>().is_err());
    }
}
