//! `residua collapse`: NC1..NC5 of one or many checkpoints, with curves.

use std::path::{Path, PathBuf};

use clap::Args;

use super::collapse_checkpoints::{self, NetworkArguments};
use super::common::Common;
use super::output::{print_result, tell, width};
use crate::collapse::{
    CachePaths, Checkpoint, CollapseReport, CollapseRow, CollapseSeries, GlobalMean, Options,
    checkpoint_of_folder, expand_globs, named_set, over_checkpoints,
};
use crate::error::Result;
use crate::features::ForeignLogits;
use crate::files;
use crate::report::plots;

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua collapse --checkpoints runs/first --data demo:fashion-mnist \\
      --ood digits=demo:digits --out runs/first/collapse
      Every checkpoint of a run
  residua collapse --checkpoints 'resnet_*_epoch.pth' \\
      --data cifar100:data/cifar-100-binary --normalize notebook \\
      --out collapse
      Weights files of another program
  residua collapse --train train.npz --head head.npz --ood svhn=svhn.npz \\
      --out collapse
      Caches of one checkpoint
  residua collapse --features 'runs/first/features/epoch_*' --train train \\
      --ood svhn=svhn --out collapse
      Caches of many";

/// Arguments of `collapse`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    network: NetworkArguments,
    /// Folders with the caches of one checkpoint each (patterns are expanded); --train, --test, --head and --ood are
    /// then names inside each folder
    #[arg(long, value_name = "GLOB", num_args = 1.., requires = "train", help_heading = "From caches")]
    features: Vec<String>,
    /// Cache of the ID training set: features without augmentation
    #[arg(
        long,
        value_name = "CACHE",
        required_unless_present = "checkpoints",
        conflicts_with = "checkpoints",
        help_heading = "From caches"
    )]
    train: Option<PathBuf>,
    /// The classifier: an .npz with W (C, D) and b (C); by default the one inside the caches
    #[arg(long, value_name = "FILE", conflicts_with = "checkpoints", help_heading = "From caches")]
    head: Option<PathBuf>,
    /// Go on, with a warning, where the logits of a cache are not W f + b of the classifier
    #[arg(long, conflicts_with = "checkpoints", help_heading = "From caches")]
    allow_foreign_logits: bool,
    /// ID test set (data with --checkpoints, else a cache), for NC4 and accuracy there
    #[arg(long, value_name = "DATA|CACHE")]
    test: Option<String>,
    /// OOD set (data with --checkpoints, else a cache), for NC5; may be repeated
    #[arg(long, value_name = "NAME=DATA|CACHE")]
    ood: Vec<String>,
    /// The kind of mean that the global mean is
    #[arg(long, default_value_t)]
    global_mean: GlobalMean,
    /// Note a checkpoint that cannot be measured, and go on
    #[arg(long)]
    skip_failures: bool,
    /// Folder for collapse.json, collapse.csv, cosines.npy and the figures
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Options that both ways of measuring share.
pub(super) struct Task<'a> {
    pub options: Options,
    pub test: Option<&'a str>,
    pub ood: Vec<(String, String)>,
    pub skip_failures: bool,
    pub out: &'a Path,
    pub common: &'a Common,
}

impl Task<'_> {
    /// Says how far a series is.
    pub fn progress(&self, done: usize, count: usize) {
        if !self.common.quiet && count > 1 {
            tell(&format!("measured {done} of {count} checkpoints"));
        }
    }
}

/// Measures, writes, prints.
pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    files::check_output_folder(&arguments.out)?;
    let task = Task {
        options: Options {
            global_mean: arguments.global_mean,
            foreign_logits: if arguments.allow_foreign_logits {
                ForeignLogits::Allow
            } else {
                ForeignLogits::Refuse
            },
        },
        test: arguments.test.as_deref(),
        ood: arguments.ood.iter().map(|text| named_set(text)).collect::<Result<_>>()?,
        skip_failures: arguments.skip_failures,
        out: &arguments.out,
        common,
    };
    let series = match &arguments.train {
        Some(train) => from_caches(train, arguments, &task)?,
        None => collapse_checkpoints::measure(&arguments.network, &task)?,
    };
    series.write(&arguments.out)?;
    write_figures(&series, &arguments.out)?;
    print_result(common, None, &series.report, || series.report.summary_within(width()))
}

fn from_caches(train: &Path, arguments: &Arguments, task: &Task) -> Result<CollapseSeries> {
    let caches = CachePaths {
        train: train.into(),
        test: task.test.map(PathBuf::from),
        head: arguments.head.clone(),
        ood: task.ood.iter().map(|(name, path)| (name.clone(), path.into())).collect(),
    };
    // One checkpoint is a series of one, whose caches lie relative to the current folder.
    let single = arguments.features.is_empty();
    let checkpoints = if single {
        vec![Checkpoint { path: train.into(), epoch: None }]
    } else {
        expand_globs(&arguments.features)?.into_iter().map(checkpoint_of_folder).collect()
    };
    let count = checkpoints.len();
    let open = |checkpoint: &Checkpoint| caches.open(if single { Path::new("") } else { &checkpoint.path });
    arguments.network.compute.on_rows(task.common, |compute| {
        let told = |done| task.progress(done, count);
        over_checkpoints(compute, checkpoints.clone(), &task.options, task.skip_failures, open, told)
    })
}

/// Curves over the checkpoints, and heat map and histogram of the last checkpoint's cosines.
fn write_figures(series: &CollapseSeries, folder: &Path) -> Result<()> {
    let write = |name: &str, figure: plots::Figure| files::write(&folder.join(name), figure.standalone());
    let panels = plots::collapse_panels(&curve_rows(&series.report));
    if series.report.checkpoints.len() > 1 && !panels.is_empty() {
        let rows: Vec<Vec<plots::Panel>> = panels.into_iter().map(|panel| vec![panel]).collect();
        write("curves.svg", plots::sheet("Neural collapse", &rows)?)?;
    }
    let Some(last) = series.report.checkpoints.last() else { return Ok(()) };
    let classes = last.classes as usize;
    write("cosines.svg", plots::cosine_heat_map(&series.cosines, classes, &[]).figure()?)?;
    match plots::angle_histogram(&series.cosines, classes) {
        Some(panel) => write("angles.svg", panel.figure()?),
        None => Ok(()),
    }
}

/// Checkpoints without an epoch are drawn by their place in the series.
fn curve_rows(report: &CollapseReport) -> Vec<plots::CollapseRow> {
    let row = |(place, row): (usize, &CollapseRow)| plots::CollapseRow {
        epoch: row.epoch.map_or(place as f64 + 1.0, |epoch| epoch as f64),
        nc1: Some(row.nc1),
        nc2_equinorm: Some(row.nc2_equinorm),
        nc2_equiangular: Some(row.nc2_equiangular),
        nc3: Some(row.nc3),
        nc4: Some(row.nc4),
        nc5: row.nc5,
    };
    report.checkpoints.iter().enumerate().map(row).collect()
}
