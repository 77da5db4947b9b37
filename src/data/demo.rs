//! The images inside the binary, `demo:NAME` on the command line, of which `residua demo` makes its experiment: eight classes of Fashion-MNIST to train and test on, its other
//! two as near OOD, handwritten digits as far OOD. Their sources and licences: `data/demo/README.md`.

use std::path::Path;
use std::sync::Arc;

use super::bytes::Bytes;
use super::idx::{self, Idx};
use super::subset::Resized;
use super::{Relabelled, SharedDataset};
use crate::error::{Error, Position, Result};

/// Pixels on a side of every image, as Fashion-MNIST's own.
pub const SIDE: u32 = 28;

/// Fashion-MNIST's label and name of each seen class, by the label used here.
const SEEN: [(u8, &str); 8] = [
    (0, "T-shirt/top"),
    (1, "trouser"),
    (2, "pullover"),
    (3, "dress"),
    (4, "coat"),
    (5, "sandal"),
    (8, "bag"),
    (9, "ankle boot"),
];

/// A gzipped idx file inside the binary.
struct Embedded {
    name: &'static str,
    bytes: &'static [u8],
}

macro_rules! embedded {
    ($name:literal) => {
        Embedded { name: $name, bytes: include_bytes!(concat!("../../data/demo/", $name)) }
    };
}

/// 6,000 training images of the eight seen classes, 750 of each.
///
/// # Errors
/// The binary is damaged.
pub fn train() -> Result<SharedDataset> {
    labelled(&embedded!("train-images.gz"), &embedded!("train-labels.gz"))
}

/// 2,000 test images of the seen classes, 250 of each.
///
/// # Errors
/// The binary is damaged.
pub fn test() -> Result<SharedDataset> {
    labelled(&embedded!("test-images.gz"), &embedded!("test-labels.gz"))
}

/// Near OOD: 1,000 test images of the two classes that the training never sees, shirts and sneakers; no labels.
///
/// # Errors
/// The binary is damaged.
pub fn near() -> Result<SharedDataset> {
    unlabelled(&embedded!("near-images.gz"))
}

/// Far OOD: 1,797 handwritten digits, enlarged from 8 x 8 pixels; no labels.
///
/// # Errors
/// The binary is damaged.
pub fn far() -> Result<SharedDataset> {
    unlabelled(&embedded!("far-images.gz"))
}

fn labelled(images: &Embedded, labels: &Embedded) -> Result<SharedDataset> {
    let label =
        |stored: &u8| SEEN.iter().position(|(original, _)| original == stored).map(|index| index as i64);
    let stored = labels.inflate(idx::LABELS_MAGIC)?;
    let labels: Option<Vec<i64>> = stored[8..].iter().map(label).collect();
    let labels = labels.ok_or_else(|| {
        let found = "another label: the binary is damaged";
        Error::malformed(images.name, Position::File, "labels of seen classes", found)
    })?;
    let names = SEEN.iter().map(|(_, name)| (*name).to_string()).collect();
    Ok(Arc::new(Relabelled::new(unlabelled(images)?, labels, names, None)?))
}

/// Grey images as RGB of [`SIDE`] x [`SIDE`] pixels.
fn unlabelled(images: &Embedded) -> Result<SharedDataset> {
    let stored = Bytes::Inflated(images.inflate(idx::IMAGES_MAGIC)?);
    let stored = Arc::new(Idx::of_images(Path::new(images.name), stored)?);
    Ok(Arc::new(Resized { whole: stored, size: SIDE }))
}

impl Embedded {
    fn inflate(&self, magic: u32) -> Result<Vec<u8>> {
        idx::inflate(Path::new(self.name), self.bytes, magic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::UNKNOWN_LABEL;

    #[test]
    fn seen_classes_are_balanced_and_named() {
        for (set, of_each) in [(train().unwrap(), 750), (test().unwrap(), 250)] {
            assert_eq!((set.len(), set.class_names().len()), (8 * of_each, 8));
            for class in 0..8 {
                let count = (0..set.len()).filter(|index| set.label(*index) == class).count();
                assert_eq!(count, of_each, "{}", set.class_names()[class as usize]);
            }
        }
    }

    #[test]
    fn every_image_has_one_size_and_none_is_blank() {
        let sets = [(train(), 6000), (test(), 2000), (near(), 1000), (far(), 1797)];
        for (set, count) in sets {
            let set = set.unwrap();
            assert_eq!(set.len(), count);
            for index in (0..count).step_by(7) {
                let image = set.image(index).unwrap();
                assert_eq!((image.width, image.height, image.pixels.len()), (SIDE, SIDE, 3 * 784));
                let (darkest, brightest) =
                    (image.pixels.iter().min().unwrap(), image.pixels.iter().max().unwrap());
                assert!(brightest - darkest > 40, "image {index} of {count} is all but uniform");
            }
        }
    }

    #[test]
    fn ood_images_carry_no_label() {
        for set in [near().unwrap(), far().unwrap()] {
            assert!(set.class_names().is_empty());
            assert!((0..set.len()).all(|index| set.label(index) == UNKNOWN_LABEL));
        }
    }

    #[test]
    fn no_test_image_is_a_training_image() {
        let train = train().unwrap();
        let seen: std::collections::HashSet<Vec<u8>> =
            (0..train.len()).map(|index| train.image(index).unwrap().pixels).collect();
        for set in [test().unwrap(), near().unwrap()] {
            let twice =
                (0..set.len()).filter(|index| seen.contains(&set.image(*index).unwrap().pixels)).count();
            assert_eq!(twice, 0);
        }
    }

    #[test]
    fn the_first_training_image_is_the_one_of_the_original_file() {
        // Fashion-MNIST's first training image is an ankle boot; its 4th row from the top begins with 12 zeros and 1.
        let set = train().unwrap();
        assert_eq!(set.class_names()[set.label(0) as usize], "ankle boot");
        let image = set.image(0).unwrap();
        let row: Vec<u8> = image.pixels[3 * 28 * 3..][..13 * 3].iter().step_by(3).copied().collect();
        assert_eq!(row, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
