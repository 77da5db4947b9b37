//! The way of an image from the data set into the network: size, augmentation, normalisation.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Normalize, Placement, RgbImage, resize};
use crate::error::Result;
use crate::rng::{Purpose, Stream};
use crate::values::named;

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
    /// Random changes, in training only.
    #[serde(default)]
    pub augment: Augment,
    /// An image with a longer side is first shrunk to this many pixels each way. Where outliers were small when the network
    /// learned novelty, all images it ever sees are then as blurred as the outliers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degrade: Option<u32>,
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

named! {
    /// Random changes of training images; zero means black, before normalisation, as in torchvision.
    pub enum Augment: "augmentation" {
        /// None.
        None = "none",
        /// A crop of the image with 4 pixels of zeros around it, then a horizontal flip of every second one.
        CropFlip = "crop-flip",
        /// A horizontal flip of every second image, then a rotation by up to 10 degrees either way, nearest neighbour,
        /// zeros outside.
        ResizeFlipRotate = "resize-flip-rotate",
    }
    default None
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
        Transform { size, small: Small::Pad, normalize, augment: Augment::None, degrade: None }
    }

    /// The random numbers that augment sample `sample` of the data set in epoch `epoch`: the same whatever the batch,
    /// the thread or the point a run was resumed at.
    pub fn stream(seed: u64, epoch: u64, sample: u32) -> Stream {
        Transform::repeated_stream(seed, epoch, sample, 0)
    }

    /// The same where a sample comes several times in an epoch: `repeat` is the number of times it came before.
    pub fn repeated_stream(seed: u64, epoch: u64, sample: u32, repeat: u32) -> Stream {
        let words = [epoch, u64::from(sample), u64::from(repeat)];
        // The first time is the only one in most epochs; its numbers do not depend on whether others follow.
        Stream::for_purpose(seed, Purpose::Augment, &words[..if repeat == 0 { 2 } else { 3 }])
    }

    /// Number of bytes (or, normalised, of floats) of one image: `size * size * 3`.
    pub fn image_len(&self) -> usize {
        3 * self.size as usize * self.size as usize
    }

    /// The normalised value of every byte, channel by channel: the table of [`crate::ops::LoadImages`].
    pub fn table(&self) -> Vec<f32> {
        self.normalize.table().concat()
    }

    /// The image in the size the network gets.
    ///
    /// # Errors
    /// The image is empty.
    pub fn sized<'a>(&self, image: &'a RgbImage) -> Result<Cow<'a, RgbImage>> {
        if let Some(side) = self.degrade.filter(|&side| image.width.max(image.height) > side) {
            let shrunk = resize(image, side, side)?;
            let sized = Transform { degrade: None, ..self.clone() }.sized(&shrunk)?.into_owned();
            return Ok(Cow::Owned(sized));
        }
        let size = self.size;
        Ok(match (image.width, image.height) {
            (width, height) if width == size && height == size => Cow::Borrowed(image),
            (28, 28) if size == 32 && self.small == Small::Pad => Cow::Owned(pad_28_to_32(image)),
            _ => Cow::Owned(resize(image, size, size)?),
        })
    }

    /// Where the pixels of a sized image go: with a stream ([`Transform::stream`]) the image is augmented, without it is
    /// not.
    pub fn placement(&self, stream: Option<&Stream>) -> Placement {
        let side = self.size;
        match (self.augment, stream.map(Choices::draw)) {
            (Augment::None, _) | (_, None) => Placement::WHOLE,
            (Augment::CropFlip, Some(choices)) => {
                let padding = i64::from(CROP_PADDING);
                let window =
                    Placement::window(i64::from(choices.right) - padding, i64::from(choices.down) - padding);
                if choices.flip { window.mirrored_output(side) } else { window }
            }
            (Augment::ResizeFlipRotate, Some(choices)) => {
                let turned = Placement::rotation(side, side, choices.angle);
                if choices.flip { turned.mirrored_input(side) } else { turned }
            }
        }
    }
}

fn pad_28_to_32(image: &RgbImage) -> RgbImage {
    let mut pixels = vec![0; 3 * 32 * 32];
    for (y, row) in image.pixels.chunks_exact(3 * 28).enumerate() {
        let start = 3 * (32 * (y + 2) + 2);
        pixels[start..start + row.len()].copy_from_slice(row);
    }
    RgbImage::new(32, 32, pixels)
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
        RgbImage::new(width, height, pixels)
    }

    /// The image as a device makes it from a placement, as a plain loop.
    fn placed(image: &RgbImage, placement: &Placement) -> RgbImage {
        let mut out = RgbImage { pixels: Vec::new(), warning: None, ..*image };
        for y in 0..i64::from(image.height) {
            for x in 0..i64::from(image.width) {
                let (from_x, from_y) = placement.source(x, y);
                let inside = (0..i64::from(image.width)).contains(&from_x)
                    && (0..i64::from(image.height)).contains(&from_y);
                let at = 3 * (from_y * i64::from(image.width) + from_x);
                let pixel = if inside { &image.pixels[at as usize..][..3] } else { &[0; 3] };
                out.pixels.extend_from_slice(pixel);
            }
        }
        out
    }

    fn applied(transform: &Transform, image: &RgbImage, stream: Option<&Stream>) -> Vec<f32> {
        let sized = transform.sized(image).unwrap();
        let placed = placed(&sized, &transform.placement(stream));
        let table = transform.table();
        placed.pixels.iter().enumerate().map(|(i, &byte)| table[256 * (i % 3) + usize::from(byte)]).collect()
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
    fn a_mirror_image_that_turns_is_turned_from_its_mirror_image() {
        let image = picture(9, 9);
        let mut mirrored = RgbImage { pixels: Vec::new(), warning: None, ..image };
        for row in image.pixels.chunks_exact(27) {
            row.chunks_exact(3).rev().for_each(|pixel| mirrored.pixels.extend_from_slice(pixel));
        }
        for degrees in [0.0, 3.3, -9.7, 90.0] {
            let turn = Placement::rotation(9, 9, degrees);
            assert_eq!(placed(&image, &turn.mirrored_input(9)), placed(&mirrored, &turn), "{degrees}");
        }
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
    fn degraded_images_are_as_blurred_as_small_ones_and_small_ones_stay_as_they_are() {
        let degraded = Transform { degrade: Some(8), ..plain(16, Augment::None) };
        for (width, height) in [(40, 40), (40, 6), (5, 9)] {
            let image = picture(width, height);
            let expected = resize(&resize(&image, 8, 8).unwrap(), 16, 16).unwrap();
            assert_eq!(*degraded.sized(&image).unwrap(), expected);
            assert_ne!(*plain(16, Augment::None).sized(&image).unwrap(), expected);
        }
        let small = picture(8, 8);
        assert_eq!(degraded.sized(&small).unwrap(), plain(16, Augment::None).sized(&small).unwrap());
        // Shrunk to 28 x 28, an image is padded like one that was so from the start.
        let padded = Transform { degrade: Some(28), ..plain(32, Augment::None) };
        assert!(padded.sized(&picture(60, 60)).unwrap().pixels[..3 * 64].iter().all(|&value| value == 0));
        let text = serde_json::to_string(&degraded).unwrap();
        assert_eq!(serde_json::from_str::<Transform>(&text).unwrap(), degraded);
        assert!(!serde_json::to_string(&plain(16, Augment::None)).unwrap().contains("degrade"));
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
