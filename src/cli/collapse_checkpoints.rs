//! `residua collapse --checkpoints`: one pass of each network over each data set, then NC1..NC5 from those features.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use clap::Args;

use super::collapse::Task;
use super::compute::Compute;
use super::extract::{Extraction, SIDE, transform};
use super::output::{say, warn};
use super::progress::Progress;
use crate::checkpoint::{self, CheckpointRef, HeadLabels, LabelsBy, Trained};
use crate::collapse::{CachePaths, Checkpoint, CollapseSeries, Subject, over_checkpoints};
use crate::data::{self, DataSpec, Normalize, SharedDataset, Split};
use crate::error::{Error, Result};
use crate::features::Request;
use crate::files;
use crate::report::plots::{self, TrainingPoint};
use crate::values::Wholes;

/// Arguments that run the network; without them `collapse` works from caches.
#[derive(Debug, Args)]
pub struct NetworkArguments {
    /// Checkpoints in any order: folders, run folders, weights files (patterns are expanded)
    #[arg(long, value_name = "GLOB", num_args = 1.., requires = "data", help_heading = "From checkpoints")]
    checkpoints: Vec<String>,
    /// ID training data, such as cifar100:DIR; never augmented; `split` is `train` unless given
    #[arg(long, value_name = "DATA", requires = "checkpoints", help_heading = "From checkpoints")]
    data: Option<DataSpec>,
    /// Keep the features in DIR/CHECKPOINT, and use what is there already
    #[arg(long, value_name = "DIR", requires = "checkpoints", help_heading = "From checkpoints")]
    keep_features: Option<PathBuf>,
    /// Normalisation, for weights files that do not say
    #[arg(long, value_name = "PRESET|MEAN/STD", help_heading = "From checkpoints")]
    normalize: Option<Normalize>,
    /// Which network of weights files that hold several: its key, such as state_dict_ema, or the prefix of its names
    #[arg(long, value_name = "KEY", requires = "checkpoints", help_heading = "From checkpoints")]
    weights_key: Option<String>,
    /// Side of the images the network gets, for weights files that do not say
    #[arg(long, value_parser = SIDE, value_name = "PIXELS", default_value_t = 32, help_heading = "From checkpoints")]
    size: u32,
    /// How labels are understood: by the names of classes, or as the numbers of the network's classes whatever they are
    /// called (for weights and lists that name none)
    #[arg(long, default_value_t, help_heading = "From checkpoints")]
    labels: LabelsBy,
    /// Images per step
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, default_value_t = 250, help_heading = "From checkpoints")]
    batch_size: usize,
    #[command(flatten)]
    pub(super) compute: Compute,
}

/// A data set to extract: the name of its cache, the data, and how the user named them.
struct Named {
    cache: String,
    data: SharedDataset,
    description: String,
}

/// Measures every checkpoint on its own features.
pub(super) fn measure(arguments: &NetworkArguments, task: &Task) -> Result<CollapseSeries> {
    let found = checkpoint::list(&arguments.checkpoints)?;
    if let Some(key) = arguments.weights_key.as_deref().filter(|_| found.iter().all(|one| one.ours)) {
        return Err(Error::usage(format!(
            "--weights-key {key} chooses in weights files, and all checkpoints given are folders, which hold one network each"
        )));
    }
    write_training_curves(&found, task.out)?;
    let checkpoints: Vec<Checkpoint> = found.into_iter().map(Checkpoint::from).collect();
    let sets = open_sets(arguments, task)?;
    // Features go to disk and are mapped, so that a large data set needs no memory; beside the results, because a
    // temporary folder of the system may be small.
    let temporary = match &arguments.keep_features {
        Some(_) => None,
        None => Some(files::temporary_folder_beside(task.out)?),
    };
    if arguments.keep_features.is_some() {
        refuse_equal_names(&checkpoints)?;
    }
    let count = checkpoints.len();
    let extract = |checkpoint: &Checkpoint| {
        let folder = match (&arguments.keep_features, &temporary) {
            (Some(kept), _) => kept.join(checkpoint.name()),
            (None, Some(temporary)) => {
                let folder = temporary.path().join("features");
                // The caches of the checkpoint before have been measured.
                if folder.exists() {
                    std::fs::remove_dir_all(&folder).map_err(|e| Error::io("remove", &folder, e))?;
                }
                folder
            }
            (None, None) => unreachable!("features are kept, or go to a temporary folder"),
        };
        extract(arguments, task, &sets, checkpoint, &folder)
    };
    arguments.compute.on_rows(task.common, |compute| {
        let told = |done| task.progress(done, count);
        over_checkpoints(compute, checkpoints.clone(), &task.options, task.skip_failures, extract, told)
    })
}

/// One pass of one checkpoint over every set that has no cache of it in `folder` yet.
fn extract(
    arguments: &NetworkArguments,
    task: &Task,
    sets: &[Named],
    checkpoint: &Checkpoint,
    folder: &Path,
) -> Result<Subject> {
    // Folders of ours may stand among the files; they hold one network each.
    let key = arguments.weights_key.as_deref().filter(|_| !checkpoint.path.is_dir());
    let trained = Trained::open_by_key(&checkpoint.path, key)?;
    say(trained.note.as_deref(), task.common);
    let transform = transform(&trained, arguments.normalize, arguments.size)?;
    let request = |set: &Named| Request {
        data: set.data.clone(),
        description: set.description.clone(),
        folder: folder.join(&set.cache),
        labels: arguments.labels,
    };
    for set in sets {
        check_labels(&trained, set, arguments.labels)?;
    }
    let mut requests: Vec<Request> = sets.iter().map(request).collect();
    requests.retain(|request| !request.is_done(&trained, &transform));
    if !requests.is_empty() {
        let samples = requests.iter().map(|request| request.data.len() as u64).sum();
        let extraction = Extraction {
            trained: &trained,
            transform: &transform,
            batch: arguments.batch_size,
            requests: &requests,
            progress: Progress::new(&checkpoint.name(), samples, "images", task.common.quiet),
        };
        extraction.run(&arguments.compute.choice(task.common)?)?;
    }
    let caches = CachePaths {
        train: "train".into(),
        test: task.test.map(|_| "test".into()),
        head: None,
        ood: task.ood.iter().map(|(name, _)| (name.clone(), name.into())).collect(),
    };
    caches.open(folder)
}

/// Checks that the samples of ID sets are of the network's classes, and says how their labels are understood.
fn check_labels(trained: &Trained, set: &Named, by: LabelsBy) -> Result<()> {
    // OOD sets have classes of their own.
    if !["train", "test"].contains(&set.cache.as_str()) {
        return Ok(());
    }
    for head in 0..trained.architecture.heads.len() {
        HeadLabels::new(trained, head, &*set.data, by).require_known(&set.description)?;
    }
    for note in HeadLabels::notes(trained, &*set.data, by, &set.description) {
        warn(&note);
    }
    Ok(())
}

fn open_sets(arguments: &NetworkArguments, task: &Task) -> Result<Vec<Named>> {
    let open = |cache: &str, spec: &DataSpec, split: Split| {
        let description = spec.to_string();
        Ok::<_, Error>(Named { cache: cache.into(), data: data::open(spec, split)?, description })
    };
    let Some(train) = &arguments.data else {
        return Err(Error::usage("--checkpoints needs --data, the training data of the checkpoints"));
    };
    let mut sets = vec![open("train", train, Split::Train)?];
    if let Some(test) = task.test {
        sets.push(open("test", &test.parse()?, Split::Test)?);
    }
    for (name, text) in &task.ood {
        check_cache_name(name, &sets)?;
        sets.push(open(name, &text.parse()?, Split::Test)?);
    }
    Ok(sets)
}

/// An OOD set's name becomes a folder beside `train` and `test`.
fn check_cache_name(name: &str, taken: &[Named]) -> Result<()> {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    if !plain || name == "head.npz" {
        return Err(Error::usage(format!(
            "`{name}` cannot name an OOD set: its features go to a folder of that name"
        )));
    }
    if taken.iter().any(|set| set.cache == name) || name == "test" {
        return Err(Error::usage(format!("the name `{name}` is taken; give the OOD set another one")));
    }
    Ok(())
}

fn refuse_equal_names(checkpoints: &[Checkpoint]) -> Result<()> {
    let mut seen = HashSet::new();
    match checkpoints.iter().find(|checkpoint| !seen.insert(checkpoint.name())) {
        None => Ok(()),
        Some(twice) => Err(Error::usage(format!(
            "two checkpoints are called {}; --keep-features needs a folder for each: measure them one after the other",
            twice.name()
        ))),
    }
}

/// Draws the training that a weights file remembers (`train_losses`, `val_accuracies` and so on): that of the last one.
fn write_training_curves(found: &[CheckpointRef], out: &Path) -> Result<()> {
    let Some(last) = found.iter().rev().find(|checkpoint| !checkpoint.ours) else { return Ok(()) };
    let record = checkpoint::read_training_record(&last.path)?;
    let points = |split: &'static str, losses: &[f64], accuracies: &[f64]| -> Vec<TrainingPoint> {
        (0..losses.len().max(accuracies.len()))
            .map(|epoch| TrainingPoint {
                epoch: epoch as f64 + 1.0,
                split: split.into(),
                loss: losses.get(epoch).copied(),
                accuracy: accuracies.get(epoch).copied(),
                learning_rate: None,
            })
            .collect()
    };
    let mut all = points("train", record.series("train_losses"), record.series("train_accuracies"));
    all.extend(points("val", record.series("val_losses"), record.series("val_accuracies")));
    if all.is_empty() {
        return Ok(());
    }
    let panels = vec![plots::accuracy_curves(&all), plots::loss_curves(&all)];
    let sheet = plots::sheet(&format!("Training, as {} remembers it", last.name()), &[panels])?.standalone();
    files::write(&out.join("training.svg"), sheet)
}
