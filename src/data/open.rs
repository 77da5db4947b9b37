//! From the name of a data set to the data set.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::cifar::{Cifar, Kind, binary_files};
use super::cifar_pickle;
use super::idx::Idx;
use super::image_files::{ImageFiles, SingleImage};
use super::spec::{DataSpec, DemoSet, Source};
use super::subset::{Resized, Selected, subset_indices};
use super::svhn::Svhn;
use super::{Dataset, SharedDataset, Split, demo};
use crate::error::{Error, Position, Result};
use crate::files;

/// Opens the data a user named. `default_split` counts where the name has parts and says nothing (`cifar10:`,
/// `cifar100:`); a `folder:` is taken whole unless `split=` names a subfolder, every other source is one file.
///
/// # Errors
/// A file is missing or not what its format promises; the message names it, the position, what was expected. Images of
/// kinds that are not decoded are among those taken.
pub fn open(spec: &DataSpec, default_split: Split) -> Result<SharedDataset> {
    let data = open_with_unreadable(spec, default_split)?;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut first = None;
    for index in 0..data.len() {
        if let Some(kind) = data.undecoded_kind(index) {
            *kinds.entry(kind).or_default() += 1;
            first.get_or_insert(index);
        }
    }
    let Some(first) = first else { return Ok(data) };
    let counts: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    Err(Error::invalid(format!(
        "{spec}: {} of {} images are of kinds that are not decoded ({}), the first is `{}`; convert them to PNG or JPEG, \
         take them out, or leave them out with --skip-unreadable (train, extract, predict)",
        kinds.values().sum::<usize>(),
        data.len(),
        counts.join(", "),
        data.sample_name(first)
    )))
}

/// As [`open`], but takes images of kinds that are not decoded; reading one of them is an error. For callers that list
/// unreadable images, or leave them out.
///
/// # Errors
/// As [`open`], except for images of such kinds.
pub fn open_with_unreadable(spec: &DataSpec, default_split: Split) -> Result<SharedDataset> {
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
    if let Some((place, files)) = binary_files(folder, kind, split) {
        return Ok(Arc::new(Cifar::open(&place, &files, kind, split)?));
    }
    if let Some((place, files)) = cifar_pickle::pickled_files(folder, kind, split) {
        return Ok(Arc::new(cifar_pickle::open(&place, &files, kind, split)?));
    }
    if folder.is_file() {
        let found = files::describe_content(&files::map(folder)?);
        let expected = format!("the folder with the files of {}", kind.name());
        return Err(Error::malformed(folder, Position::File, expected, found));
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
