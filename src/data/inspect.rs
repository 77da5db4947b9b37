//! The content of a data set: counts, sizes, colours, checksums, duplicates, and the images that cannot be read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use super::{Dataset, Level, RgbImage, Selected, SharedDataset};
use crate::error::{Error, Result};

/// A sample whose image cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Index of the sample.
    pub index: usize,
    /// Its file or record.
    pub name: String,
    /// The error, with the file and the place.
    pub error: String,
}

/// A sample whose image is damaged and was decoded all the same, as Pillow does: parts of it are made up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// Index of the sample.
    pub index: usize,
    /// Its file or record.
    pub name: String,
    /// First warning of the decoder.
    pub warning: String,
}

/// Reads every image and lists the unreadable ones, in order.
pub fn unreadable(dataset: &dyn Dataset) -> Vec<Unreadable> {
    (0..dataset.len())
        .into_par_iter()
        .filter_map(|index| Some(describe_unreadable(dataset, index, &dataset.image(index).err()?)))
        .collect()
}

/// The data set without the images that cannot be read, and the list of those (`--skip-unreadable`).
///
/// # Errors
/// No image can be read; the message is that of the first.
pub fn skip_unreadable(dataset: SharedDataset) -> Result<(SharedDataset, Vec<Unreadable>)> {
    let skipped = unreadable(&*dataset);
    if skipped.is_empty() {
        return Ok((dataset, skipped));
    }
    if skipped.len() == dataset.len() {
        return Err(Error::invalid(format!(
            "none of {} images can be read; the first: {}",
            dataset.len(),
            skipped[0].error
        )));
    }
    let mut left = skipped.iter().map(|sample| sample.index).peekable();
    let kept = (0..dataset.len())
        .filter(|&index| left.next_if_eq(&index).is_none())
        .map(|index| index as u32)
        .collect();
    Ok((Arc::new(Selected::new(dataset, kept)), skipped))
}

fn describe_unreadable(dataset: &dyn Dataset, index: usize, error: &Error) -> Unreadable {
    Unreadable { index, name: dataset.sample_name(index), error: error.to_string() }
}

/// Everything [`inspect`] finds out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Number of samples.
    pub samples: usize,
    /// Samples without a known class.
    pub unlabelled: u64,
    /// The classes, by label.
    pub classes: Vec<ClassCount>,
    /// The superclasses, by index, where both levels are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub superclasses: Vec<SuperclassCount>,
    /// The sizes images have, the smallest first.
    pub sizes: Vec<SizeCount>,
    /// Mean of each channel over all pixels of all images, 0..1, as `--normalize` takes it.
    pub mean: [f64; 3],
    /// Standard deviation of each channel over all pixels of all images (divided by their number).
    pub std: [f64; 3],
    /// BLAKE3 over every sample in order: width, height, label (32, 32, 64 bits, little-endian), RGB bytes; an
    /// unreadable one counts as 0 x 0. The same for the same images in another format.
    pub checksum: String,
    /// Groups of samples with identical images, by index.
    pub duplicates: Vec<Vec<usize>>,
    /// Number of these groups whose labels differ.
    pub contradicting_duplicates: usize,
    /// Images that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Damaged images that were decoded all the same.
    pub damaged: Vec<Damaged>,
    /// Notes for a user on files that were found and missed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Digest of each image, for comparing sets.
    #[serde(skip)]
    digests: Vec<Option<Digest>>,
}

/// Samples of a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Name of the class.
    pub name: String,
    /// Its samples.
    pub count: u64,
}

/// Samples and subclasses of a superclass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SuperclassCount {
    /// Name of the superclass.
    pub name: String,
    /// Its samples.
    pub count: u64,
    /// Its subclasses, whether there are samples of them or not.
    pub subclasses: usize,
}

/// Images of a size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SizeCount {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Images of that size.
    pub count: u64,
}

type Digest = [u8; 32];

/// The facts that one image adds to the counts.
struct Seen {
    size: (u32, u32),
    digest: Digest,
    sums: [u64; 3],
    squares: [u64; 3],
    warning: Option<Box<str>>,
}

/// Samples read in parallel before their findings are added up, in order; it bounds the memory.
const AT_A_TIME: usize = 1024;

/// Reads every sample once. `progress` hears the number of samples done.
pub fn inspect(dataset: &dyn Dataset, progress: &mut dyn FnMut(usize)) -> Inspection {
    let mut counts = vec![0u64; dataset.class_names().len()];
    let (mut unlabelled, mut unreadable, mut digests) = (0, Vec::new(), Vec::with_capacity(dataset.len()));
    let mut damaged = Vec::new();
    let mut sizes: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    let mut checksum = blake3::Hasher::new();
    // Sums of integers are exact, so no order of adding changes them.
    let (mut sums, mut squares, mut pixels) = ([0u128; 3], [0u128; 3], 0u128);
    for start in (0..dataset.len()).step_by(AT_A_TIME) {
        let end = (start + AT_A_TIME).min(dataset.len());
        let seen: Vec<Result<Seen>> =
            (start..end).into_par_iter().map(|index| examine(dataset, index)).collect();
        for (index, seen) in (start..end).zip(seen) {
            match usize::try_from(dataset.label(index)) {
                Ok(class) => counts[class] += 1,
                Err(_) => unlabelled += 1,
            }
            let (digest, size) = match seen {
                Ok(seen) => {
                    *sizes.entry(seen.size).or_default() += 1;
                    for channel in 0..3 {
                        sums[channel] += u128::from(seen.sums[channel]);
                        squares[channel] += u128::from(seen.squares[channel]);
                    }
                    pixels += u128::from(seen.size.0) * u128::from(seen.size.1);
                    damaged.extend(seen.warning.map(|warning| Damaged {
                        index,
                        name: dataset.sample_name(index),
                        warning: warning.into(),
                    }));
                    (Some(seen.digest), seen.size)
                }
                Err(error) => {
                    unreadable.push(describe_unreadable(dataset, index, &error));
                    (None, (0, 0))
                }
            };
            checksum.update(&size.0.to_le_bytes());
            checksum.update(&size.1.to_le_bytes());
            checksum.update(&dataset.label(index).to_le_bytes());
            checksum.update(&digest.unwrap_or_default());
            digests.push(digest);
        }
        progress(end);
    }
    let (mean, std) = moments(sums, squares, pixels);
    let duplicates = duplicate_groups(&digests);
    let contradicts =
        |group: &&Vec<usize>| group.iter().any(|&i| dataset.label(i) != dataset.label(group[0]));
    let contradicting_duplicates = duplicates.iter().filter(contradicts).count();
    let superclasses = superclasses(dataset, &counts);
    let names = dataset.class_names().iter().cloned();
    Inspection {
        samples: dataset.len(),
        unlabelled,
        classes: names.zip(counts).map(|(name, count)| ClassCount { name, count }).collect(),
        superclasses,
        sizes: sizes.into_iter().map(|((width, height), count)| SizeCount { width, height, count }).collect(),
        mean,
        std,
        checksum: checksum.finalize().to_hex().to_string(),
        duplicates,
        contradicting_duplicates,
        unreadable,
        damaged,
        notes: dataset.notes(),
        digests,
    }
}

impl Inspection {
    /// Pairs (index here, index in `other`) of samples with identical images; each sample here appears once, with
    /// the first of its equals there.
    pub fn shared_with(&self, other: &Inspection) -> Vec<(usize, usize)> {
        let mut first = HashMap::new();
        for (index, digest) in other.digests.iter().enumerate() {
            if let Some(digest) = digest {
                first.entry(digest).or_insert(index);
            }
        }
        let find = |(index, digest): (usize, &Option<Digest>)| Some((index, *first.get(digest.as_ref()?)?));
        self.digests.iter().enumerate().filter_map(find).collect()
    }
}

/// Counts the samples of each subclass.
fn superclasses(dataset: &dyn Dataset, counts: &[u64]) -> Vec<SuperclassCount> {
    let Some(taxonomy) = dataset.taxonomy() else { return Vec::new() };
    let empty = |name: &String| SuperclassCount { name: name.clone(), count: 0, subclasses: 0 };
    let mut found: Vec<SuperclassCount> = taxonomy.superclasses.iter().map(empty).collect();
    for (subclass, count) in (0i64..).zip(counts) {
        if let Ok(superclass) = usize::try_from(taxonomy.label(Level::Coarse, subclass)) {
            found[superclass].count += count;
            found[superclass].subclasses += 1;
        }
    }
    found
}

fn examine(dataset: &dyn Dataset, index: usize) -> Result<Seen> {
    let image = dataset.image(index)?;
    let (mut sums, mut squares) = ([0u64; 3], [0u64; 3]);
    for pixel in image.pixels.chunks_exact(3) {
        for channel in 0..3 {
            let value = u64::from(pixel[channel]);
            sums[channel] += value;
            squares[channel] += value * value;
        }
    }
    let size = (image.width, image.height);
    Ok(Seen { size, digest: *digest(&image).as_bytes(), sums, squares, warning: image.warning })
}

/// BLAKE3 of an image: of its width (32 bits, little-endian) and RGB bytes.
pub(super) fn digest(image: &RgbImage) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    // Without the width, a 2 x 3 and a 3 x 2 image of the same bytes would be the same.
    hasher.update(&image.width.to_le_bytes());
    hasher.update(&image.pixels);
    hasher.finalize()
}

fn moments(sums: [u128; 3], squares: [u128; 3], pixels: u128) -> ([f64; 3], [f64; 3]) {
    let count = pixels.max(1) as f64;
    let mean = sums.map(|sum| sum as f64 / count / 255.0);
    let std = std::array::from_fn(|channel| {
        // N * sum of squares - (sum)^2 in integers: no cancellation.
        let spread = (pixels * squares[channel]).saturating_sub(sums[channel] * sums[channel]);
        (spread as f64).sqrt() / count / 255.0
    });
    (mean, std)
}

fn duplicate_groups(digests: &[Option<Digest>]) -> Vec<Vec<usize>> {
    let mut groups: HashMap<&Digest, Vec<usize>> = HashMap::new();
    for (index, digest) in digests.iter().enumerate() {
        if let Some(digest) = digest {
            groups.entry(digest).or_default().push(index);
        }
    }
    let mut duplicates: Vec<Vec<usize>> = groups.into_values().filter(|group| group.len() > 1).collect();
    duplicates.sort_unstable();
    duplicates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, Taxonomy, UNKNOWN_LABEL};

    fn five() -> InMemory {
        // Samples 0, 2 and 4 are the same image; 4 has another label.
        let grey = [0, 255, 10, 10, 0, 255, 20, 30, 0, 255];
        InMemory::from_grey(
            2,
            1,
            &grey,
            vec![0, 1, 0, UNKNOWN_LABEL, 1],
            vec!["a".into(), "b".into(), "c".into()],
        )
        .unwrap()
    }

    #[test]
    fn counts_moments_and_duplicates_are_those_of_a_plain_loop() {
        let found = inspect(&five(), &mut |_| {});
        assert_eq!((found.samples, found.unlabelled), (5, 1));
        assert_eq!(found.classes.iter().map(|class| class.count).collect::<Vec<_>>(), [2, 2, 0]);
        assert_eq!(found.sizes, [SizeCount { width: 2, height: 1, count: 5 }]);
        assert_eq!((found.duplicates, found.contradicting_duplicates), (vec![vec![0, 2, 4]], 1));
        let values = [0.0, 255.0, 10.0, 10.0, 0.0, 255.0, 20.0, 30.0, 0.0, 255.0].map(|v: f64| v / 255.0);
        let mean = values.iter().sum::<f64>() / 10.0;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 10.0).sqrt();
        for channel in 0..3 {
            assert!((found.mean[channel] - mean).abs() < 1e-12 && (found.std[channel] - std).abs() < 1e-12);
        }
    }

    #[test]
    fn superclasses_have_the_samples_of_their_subclasses() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let taxonomy = Taxonomy {
            superclasses: names(&["dog", "bird", "novel"]),
            subclasses: names(&["beagle", "pug", "unheard of"]),
            parents: vec![Some(0), Some(0), None],
        };
        let found = inspect(&five().with_taxonomy(taxonomy).unwrap(), &mut |_| {});
        let found: Vec<_> = found.superclasses.iter().map(|s| (&*s.name, s.count, s.subclasses)).collect();
        assert_eq!(found, [("dog", 4, 2), ("bird", 0, 0), ("novel", 0, 0)]);
    }

    #[test]
    fn the_checksum_depends_on_pixels_labels_and_order() {
        let checksum = |grey: &[u8], labels: Vec<i64>| {
            let names = vec!["a".into(), "b".into()];
            inspect(&InMemory::from_grey(1, 1, grey, labels, names).unwrap(), &mut |_| {}).checksum
        };
        let one = checksum(&[1, 2], vec![0, 1]);
        assert_eq!(one, checksum(&[1, 2], vec![0, 1]));
        for other in
            [checksum(&[1, 3], vec![0, 1]), checksum(&[2, 1], vec![0, 1]), checksum(&[1, 2], vec![0, 0])]
        {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn images_shared_between_two_sets_are_found() {
        let other = InMemory::from_grey(2, 1, &[7, 7, 20, 30, 10, 10], vec![-1; 3], vec![]).unwrap();
        let (here, there) = (inspect(&five(), &mut |_| {}), inspect(&other, &mut |_| {}));
        assert_eq!(here.shared_with(&there), [(1, 2), (3, 1)]);
    }

    /// Samples with an odd index cannot be read.
    #[derive(Debug)]
    struct HalfDamaged(InMemory);

    impl Dataset for HalfDamaged {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn class_names(&self) -> &[String] {
            self.0.class_names()
        }
        fn label(&self, index: usize) -> i64 {
            self.0.label(index)
        }
        fn image(&self, index: usize) -> Result<RgbImage> {
            if index % 2 == 1 { Err(Error::invalid("damaged")) } else { self.0.image(index) }
        }
    }

    #[test]
    fn unreadable_images_are_listed_and_can_be_left_out() {
        let damaged = Arc::new(HalfDamaged(five()));
        let found = inspect(&*damaged, &mut |_| {});
        assert_eq!(found.unreadable.iter().map(|u| u.index).collect::<Vec<_>>(), [1, 3]);
        let (kept, skipped) = skip_unreadable(damaged).unwrap();
        assert_eq!(skipped, found.unreadable);
        assert_eq!((0..kept.len()).map(|i| kept.sample_name(i)).collect::<Vec<_>>(), ["0", "2", "4"]);
        let (again, skipped) = skip_unreadable(kept).unwrap();
        assert_eq!((again.len(), skipped.len()), (3, 0));
        let odd = Selected::new(Arc::new(HalfDamaged(five())), vec![1, 3]);
        assert!(skip_unreadable(Arc::new(odd)).unwrap_err().to_string().contains("none of 2 images"));
    }
}
