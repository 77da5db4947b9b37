//! Shortcuts that give outliers away without their class: if the size, the sharpness or the colours of an image alone tell
//! outliers from seen images, a network will learn that difference, and says nothing about novelty.

use rayon::prelude::*;
use serde::Serialize;

use super::{Dataset, Transform};
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};

/// Images of each side that are looked at, at most.
const LOOKED_AT: usize = 400;

/// A statistic whose AUROC is above this, or below one minus this, is a shortcut: of a random outlier and a random
/// seen image it alone names the outlier nine times in ten.
pub const LIMIT: f64 = 0.9;

/// One statistic of an image, compared between seen images and outliers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The statistic measured.
    pub statistic: &'static str,
    /// Its mean over the seen images looked at.
    pub seen: f64,
    /// Its mean over the outliers looked at.
    pub outliers: f64,
    /// Difference of the means over the root of the mean of both variances (Cohen's d; 0 where nothing varies and
    /// nothing differs, infinite where nothing varies but the means differ).
    pub standardised_difference: f64,
    /// Probability that an outlier has a larger value than a seen image, ties counting half.
    pub auroc: f64,
}

impl Comparison {
    /// Whether this statistic alone separates outliers from seen images ([`LIMIT`]).
    pub fn is_shortcut(&self) -> bool {
        self.auroc > LIMIT || self.auroc < 1.0 - LIMIT
    }

    /// The sentence for a user, with the numbers; `None` if there is nothing to warn of.
    pub fn warning(&self) -> Option<String> {
        let Comparison { statistic, seen, outliers, standardised_difference, auroc } = self;
        let remedy = if STATISTICS[..OF_RESOLUTION].contains(statistic) {
            "match_seen = true makes all images as blurred as the outliers"
        } else {
            "draw outliers of other classes or from other data"
        };
        self.is_shortcut().then(|| {
            format!(
                "the {statistic} alone tells outliers from seen images: {outliers:.4} against {seen:.4} on average \
                 (standardised difference {standardised_difference:.2}, AUROC {auroc:.3}); a network will learn that \
                 instead of novelty: {remedy}"
            )
        })
    }
}

/// The first `OF_RESOLUTION` of [`STATISTICS`] are about resolution, not colour.
const OF_RESOLUTION: usize = 2;

/// The statistics of an image, in the order of their values in [`measure`].
const STATISTICS: [&str; 8] = [
    "native size (pixels a side)",
    "sharpness (mean absolute Laplacian of the grey values)",
    "mean of red",
    "mean of green",
    "mean of blue",
    "standard deviation of red",
    "standard deviation of green",
    "standard deviation of blue",
];

/// Compares up to 400 images of each side, drawn by the streams (seed, [`Purpose::Compare`], 0 for seen, 1 for
/// outliers), on every statistic; on images as `transform` sizes them, in 0..1, without augmentation. The native size
/// is the root of an image's area before resizing, at most the side that the transform degrades it to.
///
/// # Errors
/// A side is empty, or an image cannot be read.
pub fn compare(
    seen: &dyn Dataset,
    outliers: &dyn Dataset,
    transform: &Transform,
    seed: u64,
) -> Result<Vec<Comparison>> {
    let sides = [(0, seen, "seen images"), (1, outliers, "outliers")];
    let measured = sides.map(|(side, dataset, name)| {
        if dataset.is_empty() {
            return Err(Error::invalid(format!("there are no {name} to compare")));
        }
        let mut drawn = Stream::for_purpose(seed, Purpose::Compare, &[side]).permutation(dataset.len());
        drawn.truncate(LOOKED_AT);
        drawn.par_iter().map(|&index| measure(dataset, index as usize, transform)).collect::<Result<Vec<_>>>()
    });
    let [seen, outliers] = measured;
    let (seen, outliers) = (seen?, outliers?);
    let column =
        |rows: &[[f64; 8]], statistic: usize| rows.iter().map(|row| row[statistic]).collect::<Vec<_>>();
    Ok(STATISTICS
        .iter()
        .enumerate()
        .map(|(number, &statistic)| {
            Comparison::of(statistic, &column(&seen, number), &column(&outliers, number))
        })
        .collect())
}

impl Comparison {
    fn of(statistic: &'static str, seen: &[f64], outliers: &[f64]) -> Comparison {
        let ((seen_mean, seen_variance), (outlier_mean, outlier_variance)) =
            (moments(seen), moments(outliers));
        let difference = outlier_mean - seen_mean;
        let spread = ((seen_variance + outlier_variance) / 2.0).sqrt();
        Comparison {
            statistic,
            seen: seen_mean,
            outliers: outlier_mean,
            standardised_difference: if difference == 0.0 { 0.0 } else { difference / spread },
            auroc: probability_larger(outliers, seen),
        }
    }
}

/// Mean, and variance divided by the number.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count)
}

/// Share of all pairs in which the first is larger, ties counting half.
fn probability_larger(first: &[f64], second: &[f64]) -> f64 {
    let mut sorted = second.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = |value: f64| sorted.partition_point(|other| *other < value);
    let not_above = |value: f64| sorted.partition_point(|other| *other <= value);
    // Twice the number of pairs, in integers.
    let pairs: usize = first.iter().map(|&value| below(value) + not_above(value)).sum();
    pairs as f64 / (2.0 * first.len() as f64 * second.len() as f64)
}

fn measure(dataset: &dyn Dataset, index: usize, transform: &Transform) -> Result<[f64; 8]> {
    let stored = dataset.image(index)?;
    let native = (f64::from(stored.width) * f64::from(stored.height)).sqrt();
    let image = transform.sized(&stored)?;
    let (width, height) = (image.width as usize, image.height as usize);
    let channel = |channel: usize| {
        let values: Vec<f64> =
            image.pixels.iter().skip(channel).step_by(3).map(|&value| f64::from(value) / 255.0).collect();
        values
    };
    let channels = [channel(0), channel(1), channel(2)];
    // Luma of ITU-R BT.601, as grey images are made from colours elsewhere.
    let grey: Vec<f64> = (0..width * height)
        .map(|i| 0.299 * channels[0][i] + 0.587 * channels[1][i] + 0.114 * channels[2][i])
        .collect();
    let colours = channels.map(|values| moments(&values));
    Ok([
        transform.degrade.map_or(native, |side| native.min(f64::from(side))),
        sharpness(&grey, width, height),
        colours[0].0,
        colours[1].0,
        colours[2].0,
        colours[0].1.sqrt(),
        colours[1].1.sqrt(),
        colours[2].1.sqrt(),
    ])
}

/// Mean over the inner pixels of |sum of the four neighbours - 4 times the pixel|; 0 without inner pixels.
fn sharpness(grey: &[f64], width: usize, height: usize) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            let at = y * width + x;
            let around = grey[at - 1] + grey[at + 1] + grey[at - width] + grey[at + width];
            sum += (around - 4.0 * grey[at]).abs();
            count += 1;
        }
    }
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, resize};

    /// Random pixels of `side` x `side`, around a brightness.
    fn noise(count: usize, side: u32, brightness: u64, seed: u64) -> InMemory {
        let stream = Stream::for_purpose(seed, Purpose::Synthetic, &[]);
        let bytes = 3 * u64::from(side * side) * count as u64;
        let pixels = (0..bytes).map(|i| (brightness + stream.below(i, 100)) as u8).collect();
        InMemory::new(side, side, pixels, vec![-1; count], vec![]).unwrap()
    }

    fn transform(degrade: Option<u32>) -> Transform {
        Transform { degrade, ..Transform::new(32, "imagenet".parse().unwrap()) }
    }

    fn shortcuts(seen: &InMemory, outliers: &InMemory, transform: &Transform) -> Vec<&'static str> {
        let compared = compare(seen, outliers, transform, 0).unwrap();
        assert_eq!(compared.len(), STATISTICS.len());
        compared.iter().filter(|found| found.is_shortcut()).map(|found| found.statistic).collect()
    }

    #[test]
    fn images_of_one_kind_have_no_shortcut() {
        let (seen, outliers) = (noise(60, 32, 50, 1), noise(50, 32, 50, 2));
        assert!(shortcuts(&seen, &outliers, &transform(None)).is_empty());
    }

    #[test]
    fn size_and_blur_are_noticed_and_gone_when_all_images_are_degraded_alike() {
        // Notebook A, trap A10: its outliers were 32 pixels blown up, so blur was the label and the accuracy on them 1.
        let (seen, outliers) = (noise(60, 64, 50, 1), noise(50, 8, 50, 2));
        let found = shortcuts(&seen, &outliers, &transform(None));
        assert!(found.iter().any(|name| name.starts_with("native size")), "{found:?}");
        assert!(found.iter().any(|name| name.starts_with("sharpness")), "{found:?}");
        let size = compare(&seen, &outliers, &transform(None), 0).unwrap().swap_remove(0);
        assert!(size.warning().unwrap().contains("match_seen = true"));
        // Images with the same content at the larger size: shrunk, they are what the outliers are.
        let mut pixels = Vec::new();
        for index in 0..60 {
            pixels.extend(resize(&noise(60, 8, 50, 3).image(index).unwrap(), 64, 64).unwrap().pixels);
        }
        let seen = InMemory::new(64, 64, pixels, vec![-1; 60], vec![]).unwrap();
        let compared = compare(&seen, &outliers, &transform(Some(8)), 0).unwrap();
        assert!((compared[0].auroc, compared[0].seen) == (0.5, 8.0), "{:?}", compared[0]);
    }

    #[test]
    fn brightness_is_a_shortcut_and_the_warning_has_the_numbers() {
        let (seen, outliers) = (noise(60, 16, 20, 1), noise(50, 16, 120, 2));
        let compared = compare(&seen, &outliers, &transform(None), 0).unwrap();
        let red = &compared[2];
        assert_eq!((red.statistic, red.auroc), ("mean of red", 1.0));
        assert!((red.outliers - red.seen - 100.0 / 255.0).abs() < 0.01 && red.standardised_difference > 10.0);
        let warning = red.warning().unwrap();
        assert!(
            warning.contains("mean of red alone tells")
                && warning.contains("other classes")
                && warning.contains("AUROC 1.000"),
            "{warning}"
        );
        assert!(compared[0].warning().is_none());
    }

    #[test]
    fn the_probability_is_that_of_a_loop_over_all_pairs() {
        let (first, second) = ([3.0, 1.0, 2.0, 2.0], [2.0, 0.5, 2.0]);
        let mut pairs = 0.0;
        for a in first {
            for b in second {
                pairs += if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                };
            }
        }
        assert_eq!(probability_larger(&first, &second), pairs / 12.0);
    }

    #[test]
    fn sharpness_is_the_mean_absolute_laplacian() {
        let grey = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        // Three columns, four rows: two inner pixels, the bright one and the one below it.
        assert_eq!(sharpness(&grey, 3, 4), (4.0 + 1.0) / 2.0);
        assert_eq!(sharpness(&grey, 12, 1), 0.0);
    }
}
