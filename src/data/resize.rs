//! Resizing to the pixels of Pillow's bilinear filter, which is what torchvision's `Resize` calls.
//!
//! Pillow computes with integers: weights are rounded to 22 bits behind the point, one axis is resized first and rounded to
//! bytes, then the other. No crate does the same (`fast_image_resize` is off by one level), and a
//! network trained on one kind of pixels decides differently on another.

use super::RgbImage;
use crate::error::{Error, Result};

/// Bits behind the point of a weight: 8 bits of a sample and 2 of headroom are left of 32.
const PRECISION: u32 = 32 - 8 - 2;

/// Half a unit, so that cutting a sum off rounds it.
const HALF: i32 = 1 << (PRECISION - 1);

/// Rows that are resized together.
const ROWS: usize = 16;

/// Bytes that are summed up at a time, in registers: a pixel of each of these rows.
const LANES: usize = 3 * ROWS;

/// An image resized to `width` x `height` pixels, bit for bit Pillow's (version 13) `resize((width, height), BILINEAR)`:
/// a triangle filter whose support grows with the scale when shrinking.
///
/// # Errors
/// The image or the result is empty, or the pixels do not fill the size the image claims.
pub fn resize(image: &RgbImage, width: u32, height: u32) -> Result<RgbImage> {
    let refused = |reason: &str| {
        Err(Error::invalid(format!(
            "cannot resize an image of {} x {} pixels to {width} x {height}: {reason}",
            image.width, image.height
        )))
    };
    if width == 0 || height == 0 || image.width == 0 || image.height == 0 {
        return refused("a side is zero");
    }
    if image.pixels.len() as u64 != 3 * u64::from(image.width) * u64::from(image.height) {
        return refused("it has another number of pixels");
    }
    let (from, row_len) = (image.width, 3 * image.width as usize);
    // The passes are inlined into a function compiled for the widest instructions there are.
    let pixels = crate::instructions::arch().dispatch(
        #[inline(always)]
        || match (width != from, height != image.height) {
            (false, false) => image.pixels.clone(),
            (true, false) => resize_rows(&image.pixels, from, width),
            (false, true) => resize_columns(&image.pixels, row_len, image.height, height),
            (true, true) if columns_come_first(image, width, height) => {
                resize_rows(&resize_columns(&image.pixels, row_len, image.height, height), from, width)
            }
            (true, true) => {
                let rows = resize_rows(&image.pixels, from, width);
                resize_columns(&rows, 3 * width as usize, image.height, height)
            }
        },
    );
    Ok(RgbImage { width, height, pixels, warning: image.warning.clone() })
}

/// Whether Pillow resizes columns before rows: since version 13, where the resize removes more than twice as many rows as
/// columns.
/// (Versions before always began with rows; tall images differ by one level here and there.)
fn columns_come_first(image: &RgbImage, width: u32, height: u32) -> bool {
    let taken = |from: u32, to: u32| i64::from(from) - i64::from(to);
    taken(image.height, height) > 0 && taken(image.height, height) > 2 * taken(image.width, width)
}

/// Every row, of `from` pixels, made `to` pixels long.
///
/// Sixteen rows at a time are laid out pixel by pixel (the first pixel of all sixteen, then the second of all): there a position
/// of the result is a sum of runs of bytes, as it is for columns.
#[inline(always)]
fn resize_rows(pixels: &[u8], from: u32, to: u32) -> Vec<u8> {
    let filter = Filter::new(from, to);
    let (source_len, target_len) = (3 * from as usize, 3 * to as usize);
    let mut out = vec![0; pixels.len() / source_len * target_len];
    let mut together = vec![0; LANES * from as usize];
    let blocks = pixels.chunks(ROWS * source_len).zip(out.chunks_mut(ROWS * target_len));
    for (sources, targets) in blocks {
        // Rows that the last block lacks keep the values of the block before; nobody reads their sums.
        for (row, source) in sources.chunks_exact(source_len).enumerate() {
            for (place, pixel) in
                together.as_chunks_mut::<LANES>().0.iter_mut().zip(source.as_chunks::<3>().0)
            {
                place[3 * row..3 * row + 3].copy_from_slice(pixel);
            }
        }
        for (position, (first, weights)) in filter.windows().enumerate() {
            let mut result = [0; LANES];
            weigh(&together[first * LANES..], LANES, weights, &mut result);
            for (target, pixel) in targets.chunks_exact_mut(target_len).zip(result.as_chunks::<3>().0) {
                target[3 * position..3 * position + 3].copy_from_slice(pixel);
            }
        }
    }
    out
}

/// Rows of `row_len` bytes, `from` of them, made into `to` rows.
#[inline(always)]
fn resize_columns(rows: &[u8], row_len: usize, from: u32, to: u32) -> Vec<u8> {
    let filter = Filter::new(from, to);
    let mut out = vec![0; row_len * to as usize];
    for (target, (first, weights)) in out.chunks_exact_mut(row_len).zip(filter.windows()) {
        weigh(&rows[first * row_len..], row_len, weights, target);
    }
    out
}

/// The weighted sum of the first `weights.len()` rows of `window`, `row_len` bytes each.
#[inline(always)]
fn weigh(window: &[u8], row_len: usize, weights: &[i32], target: &mut [u8]) {
    if let Some(last) = row_len.checked_sub(LANES) {
        // The last block may overlap the one before: the same sums twice.
        for start in (0..last).step_by(LANES).chain([last]) {
            let mut sums = [HALF; LANES];
            for (row, &weight) in window.chunks_exact(row_len).zip(weights) {
                let samples: &[u8; LANES] = row[start..].first_chunk().expect("a block of the row");
                for lane in 0..LANES {
                    sums[lane] += i32::from(samples[lane]) * weight;
                }
            }
            let block: &mut [u8; LANES] = target[start..].first_chunk_mut().expect("a block of the row");
            for lane in 0..LANES {
                block[lane] = byte(sums[lane]);
            }
        }
        return;
    }
    for (lane, target) in target.iter_mut().enumerate() {
        let samples = window.chunks_exact(row_len).map(|row| i32::from(row[lane]));
        *target = byte(samples.zip(weights).fold(HALF, |sum, (sample, &weight)| sum + sample * weight));
    }
}

/// A sum of weighted samples, half a unit included, as a byte.
#[inline(always)]
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The weights of one axis: for every position of the result the samples it is made of.
struct Filter {
    /// First sample and number of weights of each position.
    spans: Vec<(u32, u32)>,
    /// The weights of all positions, one behind the other, times 2^[`PRECISION`].
    weights: Vec<i32>,
}

impl Filter {
    fn new(from: u32, to: u32) -> Filter {
        let scale = f64::from(from) / f64::from(to);
        let support = scale.max(1.0);
        let (mut spans, mut weights, mut exact) = (Vec::with_capacity(to as usize), Vec::new(), Vec::new());
        for position in 0..to {
            let center = (f64::from(position) + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as u32;
            let end = ((center + support + 0.5) as u32).min(from);
            let triangle = |sample: u32| {
                let distance = (f64::from(sample) - center + 0.5) * (1.0 / support);
                (1.0 - distance.abs()).max(0.0)
            };
            exact.clear();
            exact.extend((first..end).map(triangle));
            let total: f64 = exact.iter().sum();
            let rounded = |weight: &f64| {
                let share = if total == 0.0 { *weight } else { weight / total };
                (0.5 + share * f64::from(1 << PRECISION)) as i32
            };
            weights.extend(exact.iter().map(rounded));
            spans.push((first, end - first));
        }
        Filter { spans, weights }
    }

    /// First sample and weights of each position.
    #[inline(always)]
    fn windows(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut rest = &self.weights[..];
        self.spans.iter().map(move |&(first, count)| {
            let (weights, behind) = rest.split_at(count as usize);
            rest = behind;
            (first as usize, weights)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_empty_or_lacks_pixels_is_refused() {
        let image = RgbImage::new(2, 2, vec![7; 12]);
        assert_eq!(resize(&image, 1, 1).unwrap().pixels, [7; 3]);
        assert!(resize(&image, 0, 1).is_err());
        assert!(resize(&RgbImage::new(0, 2, Vec::new()), 1, 1).is_err());
        assert!(resize(&RgbImage::new(2, 3, vec![7; 12]), 1, 1).is_err());
    }
}
