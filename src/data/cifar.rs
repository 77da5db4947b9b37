//! CIFAR-10 and CIFAR-100 in the binary version of their authors' page: records of label bytes and three 32x32
//! planes (red, green, blue), row-major; mapped, not copied.

use std::path::{Path, PathBuf};

use super::spec::Level;
use super::taxonomy::{ONE_SUPERCLASS, Parents};
use super::{Dataset, RgbImage, Split, Taxonomy};
use crate::error::{Error, Position, Result};
use crate::files::{self, Mapped};

/// Pixels per row and column.
pub(super) const SIDE: usize = 32;
/// Bytes of an image.
pub(super) const IMAGE: usize = 3 * SIDE * SIDE;

/// CIFAR-10's classes, by label.
const TEN: &str = "\
    airplane automobile bird cat deer dog frog horse ship truck";

/// CIFAR-100's superclasses, by coarse label.
const COARSE: &str = "\
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices \
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes \
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals \
    trees vehicles_1 vehicles_2";

/// CIFAR-100's classes, by fine label.
const FINE: &str = "\
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel \
    can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur \
    dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion \
    lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree \
    pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea \
    seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank \
    telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm";

/// The two data sets; they differ in label bytes and file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// CIFAR-10: one label byte.
    Ten,
    /// CIFAR-100: a coarse and a fine label byte; which of them is the label.
    Hundred(Level),
}

impl Kind {
    fn label_bytes(self) -> usize {
        match self {
            Kind::Ten => 1,
            Kind::Hundred(_) => 2,
        }
    }

    fn label_byte(self) -> usize {
        match self {
            Kind::Ten | Kind::Hundred(Level::Coarse) => 0,
            Kind::Hundred(Level::Fine | Level::Both) => 1,
        }
    }

    pub(super) fn classes(self) -> usize {
        match self {
            Kind::Ten => 10,
            Kind::Hundred(Level::Coarse) => 20,
            Kind::Hundred(Level::Fine | Level::Both) => 100,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Ten => "CIFAR-10",
            Kind::Hundred(_) => "CIFAR-100",
        }
    }

    fn files(self, split: Split) -> Vec<String> {
        self.batches(split).into_iter().map(|batch| format!("{batch}.bin")).collect()
    }

    /// The files of a split without their ending: in the python version they have none.
    pub(super) fn batches(self, split: Split) -> Vec<String> {
        match (self, split) {
            (Kind::Ten, Split::Train) => (1..=5).map(|i| format!("data_batch_{i}")).collect(),
            (Kind::Ten, Split::Test) => vec!["test_batch".to_owned()],
            (Kind::Hundred(_), split) => vec![split.to_string()],
        }
    }

    /// Note for a user that some files of a split are missing: these `files` are there, with this number of records.
    pub(super) fn note(
        self,
        split: Split,
        place: &Path,
        files: &[PathBuf],
        records: usize,
    ) -> Option<String> {
        let all = match split {
            Split::Train => 50_000,
            Split::Test => 10_000,
        };
        let missing = self.batches(split).len() - files.len();
        if missing == 0 && records >= all {
            return None;
        }
        let batches = match missing {
            0 => String::new(),
            _ => {
                let names =
                    files.iter().filter_map(|file| file.file_name()).map(|name| name.to_string_lossy());
                let names = names.collect::<Vec<_>>().join(", ");
                format!("{} of {} batches ({names}), ", files.len(), files.len() + missing)
            }
        };
        Some(format!(
            "{}: {batches}{records} of the {all} {split} records of {}",
            place.display(),
            self.name()
        ))
    }

    fn subfolder(self) -> &'static str {
        match self {
            Kind::Ten => "cifar-10-batches-bin",
            Kind::Hundred(_) => "cifar-100-binary",
        }
    }

    fn names_file(self) -> &'static str {
        match self {
            Kind::Ten => "batches.meta.txt",
            Kind::Hundred(Level::Fine | Level::Both) => "fine_label_names.txt",
            Kind::Hundred(Level::Coarse) => "coarse_label_names.txt",
        }
    }

    /// The names the file of names holds.
    pub(super) fn built_in_names(self) -> Vec<String> {
        let names = match self {
            Kind::Ten => TEN,
            Kind::Hundred(Level::Coarse) => COARSE,
            Kind::Hundred(Level::Fine | Level::Both) => FINE,
        };
        names.split_whitespace().map(str::to_owned).collect()
    }
}

/// One split of a CIFAR set.
#[derive(Debug)]
pub(super) struct Cifar {
    kind: Kind,
    batches: Vec<Mapped>,
    /// Number of samples before each batch, and at the end the number of all.
    starts: Vec<usize>,
    class_names: Vec<String>,
    taxonomy: Option<Taxonomy>,
    note: Option<String>,
}

/// The folder that holds the binary files of a split, `folder` itself or the customary folder in it, and those files.
pub(super) fn binary_files(folder: &Path, kind: Kind, split: Split) -> Option<(PathBuf, Vec<PathBuf>)> {
    present_files(folder, kind.subfolder(), &kind.files(split))
}

/// The files of `names` that are in `folder` or else in its subfolder `customary`; some may be missing.
pub(super) fn present_files(
    folder: &Path,
    customary: &str,
    names: &[String],
) -> Option<(PathBuf, Vec<PathBuf>)> {
    let present = |place: PathBuf| {
        let files: Vec<PathBuf> =
            names.iter().map(|name| place.join(name)).filter(|file| file.is_file()).collect();
        (!files.is_empty()).then_some((place, files))
    };
    present(folder.to_path_buf()).or_else(|| present(folder.join(customary)))
}

impl Cifar {
    /// Opens the batches of a split, which lie in `folder`.
    pub(super) fn open(folder: &Path, batches: &[PathBuf], kind: Kind, split: Split) -> Result<Cifar> {
        let record = kind.label_bytes() + IMAGE;
        let class_names = read_names(folder, kind)?;
        let (batch_maps, note) = (Vec::new(), None);
        let mut set = Cifar { kind, batches: batch_maps, starts: vec![0], class_names, taxonomy: None, note };
        for path in batches {
            let bytes = files::map(path)?;
            if bytes.is_empty() || bytes.len() % record != 0 {
                let found = match files::known_content(&bytes) {
                    _ if bytes.is_empty() => "an empty file".to_owned(),
                    Some(content) => content.to_owned(),
                    None => format!("{} bytes in all", bytes.len()),
                };
                return Err(Error::malformed(
                    path,
                    Position::Byte((bytes.len() - bytes.len() % record) as u64),
                    format!("whole records of {record} bytes of {}", kind.name()),
                    found,
                ));
            }
            check_labels(path, &bytes, kind)?;
            set.starts.push(set.starts[set.starts.len() - 1] + bytes.len() / record);
            set.batches.push(bytes);
        }
        if kind == Kind::Hundred(Level::Both) {
            set.taxonomy = Some(set.read_taxonomy(folder, split)?);
        }
        set.note = kind.note(split, folder, batches, set.len());
        Ok(set)
    }

    /// The coarse class of each fine one, as the records of the only file of a split say.
    fn read_taxonomy(&self, folder: &Path, split: Split) -> Result<Taxonomy> {
        let file = folder.join(self.kind.files(split).swap_remove(0));
        let coarse = Kind::Hundred(Level::Coarse);
        let superclasses = read_names(folder, coarse)?;
        let mut parents = Parents::new(superclasses, self.class_names.clone());
        for row in 0..self.len() {
            let [superclass, subclass] = [coarse, self.kind].map(|kind| self.record(row)[kind.label_byte()]);
            let at = Position::Row(row as u64);
            let wrong = |expected: &str, found: String| Error::malformed(&file, at.clone(), expected, found);
            if usize::from(superclass) >= coarse.classes() {
                let found = format!("{superclass}; is this another data set?");
                return Err(wrong("a coarse label below 20 (CIFAR-100)", found));
            }
            parents
                .add(superclass.into(), subclass.into(), at.clone())
                .map_err(|found| wrong(ONE_SUPERCLASS, found))?;
        }
        Ok(parents.finish())
    }

    fn record(&self, index: usize) -> &[u8] {
        let batch = self.starts.partition_point(|&start| start <= index) - 1;
        let size = self.kind.label_bytes() + IMAGE;
        let offset = (index - self.starts[batch]) * size;
        &self.batches[batch][offset..offset + size]
    }
}

/// Touches every label once, so that a wrong one is an error now and not in the middle of training.
fn check_labels(path: &Path, bytes: &[u8], kind: Kind) -> Result<()> {
    for (row, record) in bytes.chunks_exact(kind.label_bytes() + IMAGE).enumerate() {
        let label = record[kind.label_byte()];
        if usize::from(label) >= kind.classes() {
            let expected = format!("a label below {} ({})", kind.classes(), kind.name());
            let found = format!("{label}; is this another data set?");
            return Err(Error::malformed(path, Position::Row(row as u64), expected, found));
        }
    }
    Ok(())
}

/// Class names, one a line, from the file beside the batches; the built-in ones if there is no such file.
fn read_names(folder: &Path, kind: Kind) -> Result<Vec<String>> {
    const LARGEST: u64 = 1 << 16;
    let path = folder.join(kind.names_file());
    if !path.is_file() {
        return Ok(kind.built_in_names());
    }
    let names: Vec<String> = files::read_text(&path, LARGEST)?
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    if names.len() != kind.classes() {
        let expected = format!("{} class names, one a line", kind.classes());
        return Err(Error::malformed(&path, Position::File, expected, format!("{} lines", names.len())));
    }
    Ok(names)
}

impl Dataset for Cifar {
    fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn taxonomy(&self) -> Option<&Taxonomy> {
        self.taxonomy.as_ref()
    }

    fn label(&self, index: usize) -> i64 {
        i64::from(self.record(index)[self.kind.label_byte()])
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        Ok(image_from_planes(&self.record(index)[self.kind.label_bytes()..]))
    }

    fn notes(&self) -> Vec<String> {
        self.note.iter().cloned().collect()
    }
}

/// A 32x32 image from its red, green and blue planes.
pub(super) fn image_from_planes(planes: &[u8]) -> RgbImage {
    const AREA: usize = SIDE * SIDE;
    let mut pixels = vec![0; IMAGE];
    for (position, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        pixel.copy_from_slice(&[planes[position], planes[AREA + position], planes[2 * AREA + position]]);
    }
    RgbImage::new(SIDE as u32, SIDE as u32, pixels)
}
