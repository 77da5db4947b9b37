//! `residua collapse`: NC1..NC5 of one or many checkpoints, with curves.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Common, print};
use crate::collapse::{
    CachePaths, Checkpoint, CollapseReport, CollapseSeries, GlobalMean, Options, checkpoint_of_folder,
    expand_globs, named_cache, over_checkpoints,
};
use crate::error::{Error, Result};
use crate::files;
use crate::report::plots;

/// Arguments of `collapse`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    residua collapse --train train.npz --head head.npz --ood svhn=svhn.npz --out collapse\n  \
    residua collapse --features 'run/features/epoch_*' --train train --ood svhn=svhn --out run/collapse")]
pub struct Arguments {
    /// Folders with the caches of one checkpoint each (patterns are expanded); --train, --test, --head and --ood are
    /// then names inside each folder
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    features: Vec<String>,
    /// Cache of the ID training set: features without augmentation
    #[arg(long, value_name = "CACHE")]
    train: PathBuf,
    /// Cache of the ID test set, for NC4 and accuracy there
    #[arg(long, value_name = "CACHE")]
    test: Option<PathBuf>,
    /// The classifier: an .npz with W (C, D) and b (C)
    #[arg(long, value_name = "FILE", default_value = "head.npz")]
    head: PathBuf,
    /// Cache of an OOD set, for NC5; may be repeated
    #[arg(long, value_name = "NAME=CACHE")]
    ood: Vec<String>,
    /// What the global mean is the mean of
    #[arg(long, value_enum, default_value_t)]
    global_mean: GlobalMean,
    /// Note a checkpoint that cannot be measured, and go on
    #[arg(long)]
    skip_failures: bool,
    /// Folder for collapse.json, collapse.csv, cosines.npy and the figures
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Measures, writes, prints.
pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let ood = arguments.ood.iter().map(|text| named_cache(text)).collect::<Result<Vec<_>>>()?;
    let caches = CachePaths {
        train: arguments.train.clone(),
        test: arguments.test.clone(),
        head: arguments.head.clone(),
        ood,
    };
    // One checkpoint is a series of one, whose caches lie relative to the current folder.
    let single = arguments.features.is_empty();
    let checkpoints = if single {
        vec![Checkpoint { path: arguments.train.clone(), epoch: None }]
    } else {
        expand_globs(&arguments.features)?.into_iter().map(checkpoint_of_folder).collect()
    };
    let options = Options { global_mean: arguments.global_mean };
    let count = checkpoints.len();
    let open = |checkpoint: &Checkpoint| caches.open(if single { Path::new("") } else { &checkpoint.path });
    let series = over_checkpoints(checkpoints, &options, arguments.skip_failures, open, |done| {
        if !common.quiet && count > 1 {
            eprintln!("measured {done} of {count} checkpoints");
        }
    })?;
    series.write(&arguments.out)?;
    write_figures(&series, &arguments.out)?;
    if common.json {
        let text = serde_json::to_string_pretty(&series.report).map_err(|e| Error::invalid(e.to_string()))?;
        print(&(text + "\n"));
    } else {
        print(&series.report.summary());
    }
    Ok(())
}

/// Curves over the checkpoints, and heat map and histogram of the last checkpoint's cosines.
fn write_figures(series: &CollapseSeries, folder: &Path) -> Result<()> {
    let write = |name: &str, figure: plots::Figure| {
        let text = figure.standalone();
        files::write_atomically(&folder.join(name), |out| std::io::Write::write_all(out, text.as_bytes()))
    };
    let panels = plots::collapse_panels(&curve_rows(&series.report));
    if series.report.checkpoints.len() > 1 && !panels.is_empty() {
        let rows: Vec<Vec<plots::Panel>> = panels.into_iter().map(|panel| vec![panel]).collect();
        write("curves.svg", plots::sheet("Neural collapse", &rows)?)?;
    }
    let Some(last) = series.report.checkpoints.last() else { return Ok(()) };
    let classes = last.classes as usize;
    write("cosines.svg", plots::cosine_heat_map(&series.cosines, classes).figure()?)?;
    match plots::angle_histogram(&series.cosines, classes) {
        Some(panel) => write("angles.svg", panel.figure()?),
        None => Ok(()),
    }
}

/// Checkpoints without an epoch are drawn by their place in the series.
fn curve_rows(report: &CollapseReport) -> Vec<plots::CollapseRow> {
    let row = |(place, row): (usize, &crate::collapse::CollapseRow)| plots::CollapseRow {
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
