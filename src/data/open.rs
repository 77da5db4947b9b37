//! From the name of a data set to the data set.

use std::path::Path;
use std::sync::Arc;

use super::cifar::{Cifar, Kind, binary_folder};
use super::cifar_pickle;
use super::idx::Idx;
use super::image_files::{ImageFiles, SingleImage};
use super::spec::{DataSpec, DemoSet, Source};
use super::subset::{Resized, Selected, subset_indices};
use super::svhn::Svhn;
use super::{Dataset, SharedDataset, Split, demo};
use crate::error::{Error, Position, Result};

/// Opens the data a user named. `default_split` counts where the name has parts and says nothing (`cifar10:`,
/// `cifar100:`); a `folder:` is taken whole unless `split=` names a subfolder, every other source is one file.
///
/// # Errors
/// A file is missing or not what its format promises; the message names it, the position, what was expected.
pub fn open(spec: &DataSpec, default_split: Split) -> Result<SharedDataset> {
    let whole = open_source(&spec.source, spec.split, default_split)?;
    let taken = match subset_indices(spec.subset, whole.len()) {
        None => whole,
        Some(indices) if indices.is_empty() => {
            return Err(Error::usage(format!("`{spec}` takes no sample at all; ask for at least one")));
        }
        Some(indices) => Arc::new(Selected::new(whole, indices)),
    };
    Ok(match spec.size {
        None => taken,
        Some(size) => Arc::new(Resized { whole: taken, size }),
    })
}

fn open_source(source: &Source, split: Option<Split>, default_split: Split) -> Result<SharedDataset> {
    let part = split.unwrap_or(default_split);
    Ok(match source {
        Source::Cifar10 { folder } => open_cifar(folder, Kind::Ten, part)?,
        Source::Cifar100 { folder, level } => open_cifar(folder, Kind::Hundred(*level), part)?,
        Source::Svhn { file } => Arc::new(Svhn::open(file)?),
        Source::Idx { images, labels } => Arc::new(Idx::open(images, labels.as_deref())?),
        Source::Folder { folder } => {
            let folder = split.map_or_else(|| folder.clone(), |split| folder.join(split.to_string()));
            Arc::new(ImageFiles::class_folders(&folder)?)
        }
        Source::Csv { table, images, level } => Arc::new(ImageFiles::table(table, images, *level)?),
        Source::List { list, root } => Arc::new(ImageFiles::list(list, root)?),
        Source::Images { path } => match SingleImage::recognise(path) {
            Some(image) => Arc::new(image) as Arc<dyn Dataset>,
            None => Arc::new(ImageFiles::unlabelled(path)?),
        },
        Source::Demo { set } => match (set, part) {
            (DemoSet::FashionMnist, Split::Train) => demo::train()?,
            (DemoSet::FashionMnist, Split::Test) => demo::test()?,
            (DemoSet::Unseen, _) => demo::near()?,
            (DemoSet::Digits, _) => demo::far()?,
        },
    })
}

fn open_cifar(folder: &Path, kind: Kind, split: Split) -> Result<SharedDataset> {
    if let Some(place) = binary_folder(folder, kind, split) {
        return Ok(Arc::new(Cifar::open(&place, kind, split)?));
    }
    if let Some(place) = cifar_pickle::folder(folder, kind, split) {
        return Ok(Arc::new(cifar_pickle::open(&place, kind, split)?));
    }
    if !folder.is_dir() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::io("open the folder", folder, missing));
    }
    Err(Error::malformed(
        folder,
        Position::File,
        format!("the {split} files of {} (the binary or the python version)", kind.name()),
        "none of them; name the folder that holds them, or its parent",
    ))
}
