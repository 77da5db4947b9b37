//! Images and labels from disk: what a data set is, and how its name on the command line opens one.
//!
//! | file | holds |
//! |---|---|
//! | `spec`, `open` | the names (`cifar100:DIR?labels=coarse`), and from a name to a data set |
//! | `cifar` (`cifar_pickle`), `idx`, `svhn` (in a `mat` file), `image_files` (from a `table`, in a `store`) | the formats |
//! | `mapping`, `taxonomy` | names of classes, and which of them belong together on two levels |
//! | `class_names` | which classes of two sets, or of a set and a network, are the same |
//! | `names` | file names: which are images, which are no content at all, which stay inside their folder |
//! | `memory`, `subset`, `combine` | data sets made of pixels in memory, of parts of another, of several others |
//! | `bytes`, `decode` (with `jpeg`) | bounded reading: inflation, image files to pixels |
//! | `splits` | parts for training, choosing, calibrating and reporting; classes held out |
//! | `outliers`, `shortcuts` | images of other classes to train against; what gives them away but the class |
//! | `transform` (with `resize`, `placement`, `normalize`) | from any image to a network's input |
//! | `loader` | batches, made ahead of time |
//! | `inspect` | what a set holds: counts, checksums, duplicates, what cannot be read |

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Result;

mod bytes;
mod cifar;
mod cifar_pickle;
mod class_names;
mod combine;
mod decode;
mod demo;
mod idx;
mod image_files;
mod inspect;
mod jpeg;
mod loader;
mod mapping;
mod mat;
mod memory;
mod names;
mod normalize;
mod open;
pub(crate) mod outliers;
#[cfg(test)]
mod pillow_tests;
mod placement;
mod resize;
pub(crate) mod shortcuts;
mod spec;
pub(crate) mod splits;
mod store;
mod subset;
mod svhn;
mod table;
mod taxonomy;
mod thumbnail;
mod transform;

pub use class_names::{
    Basis, ClassMatch, KnownClasses, are_numbers, in_numbering_of, listed, samples_of_classes,
};
pub use combine::{Concatenated, Relabelled};
pub use inspect::{
    ClassCount, Damaged, Inspection, SizeCount, SuperclassCount, Unreadable, inspect, skip_unreadable,
    unreadable,
};
pub use loader::{AllPixels, Batch, Loader, LoaderOptions, Order};
pub use memory::InMemory;
pub use normalize::Normalize;
pub use open::{open, open_with_unreadable};
pub use placement::Placement;
pub use resize::resize;
#[doc(hidden)]
pub use spec::SCHEMES;
pub use spec::{DataSpec, DemoSet, LARGEST_SIDE, Level, Source, Subset};
pub use subset::Selected;
pub use taxonomy::{NOVEL, Taxonomy, is_novel, novel_class};
pub use thumbnail::thumbnail;
pub use transform::{Augment, Small, Transform};

/// The largest image that is read, in pixels: 64 megapixels.
pub const LARGEST_IMAGE: u64 = 64 << 20;

/// An 8-bit RGB image; row-major, channels last: pixel (x, y) begins at byte `3 * (y * width + x)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `3 * width * height` bytes.
    pub pixels: Vec<u8>,
    /// Warning of the decoder about a damaged file whose pixels it gives all the same, as Pillow does.
    pub warning: Option<Box<str>>,
}

impl RgbImage {
    /// An image of `3 * width * height` bytes, row by row, three interleaved channels.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> RgbImage {
        RgbImage { width, height, pixels, warning: None }
    }
}

/// Label of a sample whose class is not known.
pub const UNKNOWN_LABEL: i64 = -1;

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The images a network is trained on.
    Train,
    /// The images it is tested on.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Test => "test",
        })
    }
}

/// A data set: samples 0..len, each an image and a label, in an order that never changes.
pub trait Dataset: Send + Sync + std::fmt::Debug {
    /// Number of samples.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Names of the classes, by label; empty if the samples have no labels.
    fn class_names(&self) -> &[String];
    /// Both levels of classes, where there are two; labels are then subclasses.
    fn taxonomy(&self) -> Option<&Taxonomy> {
        None
    }
    /// Class of a sample, in 0..class_names().len(), or [`UNKNOWN_LABEL`].
    fn label(&self, index: usize) -> i64;
    /// The image of a sample, as stored (any size), RGB.
    ///
    /// # Errors
    /// The file vanished, is unreadable or not an image; the message names it.
    fn image(&self, index: usize) -> Result<RgbImage>;
    /// The sample's name for people: a file name, or the record number.
    fn sample_name(&self, index: usize) -> String {
        index.to_string()
    }
    /// The kind of the sample's image, where its name says that it is one of those which are not decoded (`TIFF`).
    fn undecoded_kind(&self, _index: usize) -> Option<&'static str> {
        None
    }
    /// Notes for a user on files that were found and missed, a sentence each.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A data set many threads read from.
pub type SharedDataset = Arc<dyn Dataset>;
