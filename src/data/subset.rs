//! Data sets made from another: some of its samples, or all of them at another size.

use super::spec::Subset;
use super::{Dataset, RgbImage, SharedDataset, Taxonomy, resize};
use crate::error::Result;
use crate::rng::{Purpose, Stream};

/// Some samples of a data set, in the order of `indices`.
#[derive(Debug)]
pub struct Selected {
    whole: SharedDataset,
    indices: Vec<u32>,
}

impl Selected {
    /// The samples of `whole` at `indices`.
    ///
    /// # Panics
    /// An index is not below `whole.len()`.
    pub fn new(whole: SharedDataset, indices: Vec<u32>) -> Selected {
        assert!(indices.iter().all(|&index| (index as usize) < whole.len()), "an index beyond the data set");
        Selected { whole, indices }
    }

    fn at(&self, index: usize) -> usize {
        self.indices[index] as usize
    }
}

/// The indices a [`Subset`] takes out of `len` samples, ascending; `None` for all of them.
pub(super) fn subset_indices(subset: Subset, len: usize) -> Option<Vec<u32>> {
    match subset {
        Subset::All => None,
        Subset::First(count) => (count < len).then(|| (0..count as u32).collect()),
        Subset::Random { count, .. } if count >= len => None,
        Subset::Random { count, seed } => {
            let mut taken = Stream::for_purpose(seed, Purpose::Subset, &[]).permutation(len);
            taken.truncate(count);
            taken.sort_unstable();
            Some(taken)
        }
    }
}

impl Dataset for Selected {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn class_names(&self) -> &[String] {
        self.whole.class_names()
    }

    fn taxonomy(&self) -> Option<&Taxonomy> {
        self.whole.taxonomy()
    }

    fn label(&self, index: usize) -> i64 {
        self.whole.label(self.at(index))
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        self.whole.image(self.at(index))
    }

    fn sample_name(&self, index: usize) -> String {
        self.whole.sample_name(self.at(index))
    }

    fn undecoded_kind(&self, index: usize) -> Option<&'static str> {
        self.whole.undecoded_kind(self.at(index))
    }

    fn notes(&self) -> Vec<String> {
        self.whole.notes()
    }
}

/// A data set whose images are all resized to `size` x `size` as they are read.
#[derive(Debug)]
pub(super) struct Resized {
    pub(super) whole: SharedDataset,
    pub(super) size: u32,
}

impl Dataset for Resized {
    fn len(&self) -> usize {
        self.whole.len()
    }

    fn class_names(&self) -> &[String] {
        self.whole.class_names()
    }

    fn taxonomy(&self) -> Option<&Taxonomy> {
        self.whole.taxonomy()
    }

    fn label(&self, index: usize) -> i64 {
        self.whole.label(index)
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        let image = self.whole.image(index)?;
        if (image.width, image.height) == (self.size, self.size) {
            return Ok(image);
        }
        resize(&image, self.size, self.size)
    }

    fn sample_name(&self, index: usize) -> String {
        self.whole.sample_name(index)
    }

    fn undecoded_kind(&self, index: usize) -> Option<&'static str> {
        self.whole.undecoded_kind(index)
    }

    fn notes(&self) -> Vec<String> {
        self.whole.notes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::InMemory;

    #[test]
    fn a_random_subset_is_the_documented_one_in_file_order() {
        let taken = subset_indices(Subset::Random { count: 20, seed: 7 }, 1000).unwrap();
        assert!(taken.windows(2).all(|pair| pair[0] < pair[1]));
        // The rule repeated by hand: Fisher-Yates from the end over the stream (7, Subset).
        let stream = Stream::new(7, &[Purpose::Subset as u64]);
        let mut order: Vec<u32> = (0..1000).collect();
        for j in (1..1000).rev() {
            order.swap(j, stream.below(j as u64, j as u64 + 1) as usize);
        }
        let mut expected = order[..20].to_vec();
        expected.sort_unstable();
        assert_eq!(taken, expected);
    }

    #[test]
    fn a_subset_of_more_than_there_is_is_everything() {
        assert_eq!(subset_indices(Subset::First(5), 5), None);
        assert_eq!(subset_indices(Subset::Random { count: 6, seed: 0 }, 5), None);
        assert_eq!(subset_indices(Subset::First(2), 5), Some(vec![0, 1]));
        assert_eq!(subset_indices(Subset::First(0), 5), Some(vec![]));
    }

    #[test]
    fn a_selection_keeps_labels_names_and_images_together() {
        let names = (0..3).map(|i| i.to_string()).collect();
        let whole = Arc::new(InMemory::from_grey(1, 1, &[10, 20, 30], vec![0, 1, 2], names).unwrap());
        let set = Selected::new(whole, vec![2, 0]);
        assert_eq!((set.len(), set.label(0), set.sample_name(1)), (2, 2, "0".to_owned()));
        assert_eq!(set.image(0).unwrap().pixels, [30; 3]);
        assert_eq!(set.class_names().len(), 3);
    }
}
