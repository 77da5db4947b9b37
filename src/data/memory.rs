//! A data set whose pixels are in memory: for embedded data, small formats and tests.

use super::{Dataset, RgbImage, Taxonomy, UNKNOWN_LABEL};
use crate::error::{Error, Result};

/// Images of one size, with labels.
#[derive(Debug, Clone)]
pub struct InMemory {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    labels: Vec<i64>,
    class_names: Vec<String>,
    taxonomy: Option<Taxonomy>,
    notes: Vec<String>,
}

impl InMemory {
    /// A data set of `labels.len()` images of `width` x `height` pixels; `pixels` holds them one after the other,
    /// each row-major with three interleaved channels: `3 * width * height` bytes an image.
    ///
    /// Labels are in `0..class_names.len()`, or [`UNKNOWN_LABEL`].
    ///
    /// # Errors
    /// The number of bytes does not fit the number of labels, or a label has no name.
    pub fn new(
        width: u32,
        height: u32,
        pixels: Vec<u8>,
        labels: Vec<i64>,
        class_names: Vec<String>,
    ) -> Result<InMemory> {
        let wanted = u128::from(width) * u128::from(height) * 3 * labels.len() as u128;
        if wanted != pixels.len() as u128 || width == 0 || height == 0 {
            return Err(Error::invalid(format!(
                "{} images of {width} x {height} RGB pixels have {wanted} bytes, not {}",
                labels.len(),
                pixels.len()
            )));
        }
        let known = |label: &i64| *label == UNKNOWN_LABEL || (0..class_names.len() as i64).contains(label);
        if let Some(row) = labels.iter().position(|label| !known(label)) {
            return Err(Error::invalid(format!(
                "sample {row} has the label {}, but there are names for {} classes",
                labels[row],
                class_names.len()
            )));
        }
        Ok(InMemory { width, height, pixels, labels, class_names, taxonomy: None, notes: Vec::new() })
    }

    /// The same images with two levels of classes; their labels are those of the subclasses.
    ///
    /// # Errors
    /// The number of subclasses is not the number of classes.
    pub fn with_taxonomy(self, taxonomy: Taxonomy) -> Result<InMemory> {
        if taxonomy.subclasses.len() != self.class_names.len() {
            return Err(Error::invalid(format!(
                "a taxonomy of {} subclasses for data with {} classes",
                taxonomy.subclasses.len(),
                self.class_names.len()
            )));
        }
        Ok(InMemory { class_names: taxonomy.subclasses.clone(), taxonomy: Some(taxonomy), ..self })
    }

    /// The same data with a note for the user.
    pub(super) fn with_notes(self, notes: Vec<String>) -> InMemory {
        InMemory { notes, ..self }
    }

    /// The same from images with one grey byte a pixel: each is copied to the three channels.
    ///
    /// # Errors
    /// As [`InMemory::new`].
    pub fn from_grey(
        width: u32,
        height: u32,
        grey: &[u8],
        labels: Vec<i64>,
        class_names: Vec<String>,
    ) -> Result<InMemory> {
        InMemory::new(width, height, grey_to_rgb(grey), labels, class_names)
    }
}

/// Each grey byte three times.
pub(super) fn grey_to_rgb(grey: &[u8]) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(3 * grey.len());
    for &value in grey {
        pixels.extend_from_slice(&[value; 3]);
    }
    pixels
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn taxonomy(&self) -> Option<&Taxonomy> {
        self.taxonomy.as_ref()
    }

    fn label(&self, index: usize) -> i64 {
        self.labels[index]
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        let size = 3 * self.width as usize * self.height as usize;
        let pixels = self.pixels[index * size..(index + 1) * size].to_vec();
        Ok(RgbImage::new(self.width, self.height, pixels))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_and_labels_that_do_not_fit_are_refused() {
        let names = vec!["a".to_owned()];
        assert!(InMemory::new(2, 1, vec![0; 12], vec![0, -1], names.clone()).is_ok());
        assert!(InMemory::new(2, 1, vec![0; 11], vec![0, 0], names.clone()).is_err());
        assert!(InMemory::new(0, 1, vec![], vec![0], names.clone()).is_err());
        let error = InMemory::new(2, 1, vec![0; 12], vec![0, 1], names).unwrap_err();
        assert!(error.to_string().contains("sample 1 has the label 1"), "{error}");
    }

    #[test]
    fn grey_pixels_fill_the_three_channels() {
        let set = InMemory::from_grey(2, 1, &[1, 2, 3, 4], vec![-1, -1], vec![]).unwrap();
        assert_eq!(set.image(1).unwrap().pixels, [3, 3, 3, 4, 4, 4]);
    }
}
