//! `residua predict`: classes, superclasses and novelty of images, by calibrated thresholds.

use std::path::PathBuf;

use super::common::Common;
use super::compute::Compute;
use super::extract::open_readable;
use super::levels::{NamedData, extract_heads, missing_head, open_networks};
use super::output::{in_json, print_beside, warn, width};
use crate::data::{DataSpec, SharedDataset, Split, UNKNOWN_LABEL};
use crate::error::{Error, Result};
use crate::eval::{self, Results};
use crate::files;
use crate::novelty::{
    self, Columns, Dashboard, HeadSets, ImageNames, Judgement, LevelEntry, LevelMetrics, ReportSets,
    ThresholdFile, judge, predictions_csv,
};
use crate::ood;
use crate::values::{Reals, Wholes, shown};

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua predict --checkpoint runs/first \\
      --thresholds runs/first/thresholds.toml --data images:photos \\
      --out predictions.csv
      A class or `novel` for every image of a folder
  residua predict --checkpoint runs/first \\
      --thresholds runs/first/thresholds.toml --data images:photos.zip \\
      --fdr 0.05 --with-scores --out -
      At most 5 % of the flags false in expectation, on standard output
  residua predict --checkpoint runs/first \\
      --thresholds runs/first/thresholds.toml --data folder:val \\
      --labels --out predictions.csv
      How good the decisions are, where a folder for each class tells the
      truth";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// The checkpoint the thresholds were calibrated for; twice for a superclass and a subclass model
    #[arg(long, value_name = "CHECKPOINT", required = true)]
    checkpoint: Vec<PathBuf>,
    /// Thresholds that `calibrate` has written
    #[arg(long, value_name = "FILE")]
    thresholds: PathBuf,
    /// Images, such as images:DIR, images:FILE.zip, images:FILE.png or list:FILE,root=DIR
    #[arg(long, value_name = "DATA")]
    data: DataSpec,
    /// CSV of the predictions: image (its path below the folder or in the zip), superclass_index, subclass_index (class_index
    /// where classes have one level); - is standard output
    #[arg(long, value_name = "FILE.csv")]
    out: PathBuf,
    /// How `image` names an image: by its path below the folder or in the zip, or by its bare file name, as some
    /// competitions want it
    #[arg(long, default_value_t)]
    names: ImageNames,
    /// Leave out images that cannot be read, and say how many; otherwise they are an error
    #[arg(long)]
    skip_unreadable: bool,
    /// Add each level's class name, score, and whether it flags the image
    #[arg(long)]
    with_scores: bool,
    /// Add each level's conformal p-value: how unlike the calibration images of known classes it is
    #[arg(long)]
    p_values: bool,
    /// Flag by the Benjamini-Hochberg procedure over all images, with this share of false flags in expectation, instead
    /// of by thresholds
    #[arg(long, value_parser = Reals::INNER_SHARE, value_name = "SHARE")]
    fdr: Option<f64>,
    /// Say how good the decisions are: the data is labelled (class per folder, a table, a list). Classes that no head knows count as
    /// novel
    #[arg(long)]
    labels: bool,
    /// Images per step
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, default_value_t = 250)]
    batch_size: usize,
    #[command(flatten)]
    compute: Compute,
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let file = ThresholdFile::read(&arguments.thresholds)?;
    let wanted: Vec<&str> = file.levels.iter().map(|entry| entry.checkpoint.as_str()).collect();
    let networks = open_networks(&arguments.checkpoint, &wanted, common)?;
    for trained in &networks {
        file.entries_of(trained)?;
    }
    if let Some(entry) =
        file.levels.iter().find(|entry| networks.iter().all(|trained| trained.hash != entry.checkpoint))
    {
        return Err(Error::usage(format!(
            "{} holds thresholds of a {} model as well (checkpoint {}); give it with a second --checkpoint",
            arguments.thresholds.display(),
            entry.name(),
            entry.checkpoint
        )));
    }
    let paths = arguments.data.source.paths();
    let inputs = std::iter::once(&arguments.thresholds).chain(&paths).map(PathBuf::as_path);
    files::check_output_file(&arguments.out, &inputs.collect::<Vec<_>>())?;
    let data = NamedData {
        spec: arguments.data.clone(),
        data: open_readable(&arguments.data, Split::Test, arguments.skip_unreadable)?,
    };
    for note in data.data.notes() {
        warn(&note);
    }
    let folder = files::temporary_folder_beside(&arguments.out)?;
    let heads = extract_heads(
        &networks,
        std::slice::from_ref(&data),
        folder.path(),
        arguments.batch_size,
        &arguments.compute,
        common,
    )?;
    if let Some(entry) = file.levels.iter().find(|entry| !heads.iter().any(|head| head.is_of(entry))) {
        return Err(missing_head(&arguments.thresholds, entry));
    }
    let Arguments { compute, fdr, .. } = arguments;
    let judgement = compute.on_rows(common, |compute| judge(compute, &file, &heads, 0, *fdr))?;
    let Arguments { with_scores: scores, p_values, names, .. } = *arguments;
    let columns = Columns { scores, p_values, names };
    let csv = predictions_csv(&file, data.data.as_ref(), &judgement, columns)?;
    files::write(&arguments.out, csv)?;
    let labelled = || compute.on_rows(common, |compute| Labelled::new(compute, &file, &heads, &data.data));
    let labelled = arguments.labels.then(labelled).transpose()?;
    report(arguments, &file, &judgement, labelled.as_ref(), common)
}

/// Replicates behind intervals of the metrics of labelled data.
const REPLICATES: u32 = 1000;

/// How good decisions are on labelled data.
struct Labelled {
    /// The decisions of each level, thresholds applied.
    decisions: Vec<LevelMetrics>,
    /// The classification of each head, whatever the thresholds say; `None` where no sample is of its classes.
    classification: Vec<Option<Results>>,
    /// Names of the levels.
    levels: Vec<&'static str>,
}

impl Labelled {
    fn new(
        compute: &mut dyn ood::Compute,
        file: &ThresholdFile,
        heads: &[HeadSets<'_>],
        data: &SharedDataset,
    ) -> Result<Labelled> {
        if data.class_names().is_empty() || (0..data.len()).all(|row| data.label(row) == UNKNOWN_LABEL) {
            return Err(Error::usage(
                "--labels: the data has no labels; give a folder with a folder for each class, a table or a list with labels, or leave \
                 --labels out",
            ));
        }
        let sets = ReportSets { seen: Some(0), ..ReportSets::default() };
        let verdicts = novelty::report(compute, file, heads, std::slice::from_ref(data), &sets)?;
        let decisions = verdicts.iter().map(|verdicts| verdicts.metrics(REPLICATES, 0));
        let classification = file.levels.iter().map(|entry| {
            let head =
                heads.iter().find(|head| head.is_of(entry)).expect("checked before the samples were judged");
            let is_labelled =
                head.sets[0].labels().is_some_and(|labels| labels.iter().any(|label| *label >= 0));
            let options = eval::Options {
                class_names: head.classes.classes.clone(),
                replicates: REPLICATES,
                ..eval::Options::default()
            };
            let evaluated =
                is_labelled.then(|| eval::evaluate(&head.sets[0], &head.head, &options)).transpose()?;
            Ok(evaluated.map(|evaluated| evaluated.results))
        });
        Ok(Labelled {
            decisions: decisions.collect::<Result<_>>()?,
            classification: classification.collect::<Result<_>>()?,
            levels: file.levels.iter().map(LevelEntry::name).collect(),
        })
    }

    fn as_json(&self) -> serde_json::Value {
        let levels = self.levels.iter().zip(self.decisions.iter().zip(&self.classification));
        let level = |(name, (decisions, results)): (&&str, (&LevelMetrics, &Option<Results>))| {
            ((*name).to_string(), serde_json::json!({ "decisions": decisions, "classification": results }))
        };
        serde_json::Value::Object(levels.map(level).collect())
    }

    fn as_text(&self) -> String {
        let mut dashboard = Dashboard::default();
        for (name, decisions) in self.levels.iter().zip(&self.decisions) {
            dashboard.level("labelled", name, decisions);
        }
        let mut text = format!("\n{}", dashboard.table_within(width()));
        for (name, results) in self.levels.iter().zip(&self.classification) {
            if let Some(results) = results {
                text += &format!("\n{name}, whatever the thresholds say: {}", results.summary(width()));
            }
        }
        text
    }
}

fn report(
    arguments: &Arguments,
    file: &ThresholdFile,
    judgement: &Judgement,
    labelled: Option<&Labelled>,
    common: &Common,
) -> Result<()> {
    let images = judgement.answers.first().map_or(0, Vec::len);
    let novel: Vec<usize> = judgement
        .answers
        .iter()
        .map(|answers| answers.iter().filter(|answer| answer.novel).count())
        .collect();
    if common.json {
        let levels: serde_json::Map<String, serde_json::Value> = file
            .levels
            .iter()
            .zip(&novel)
            .map(|(entry, novel)| (entry.name().into(), (*novel).into()))
            .collect();
        let mut text = serde_json::json!({
            "out": in_json(&arguments.out), "images": images, "hierarchy": file.hierarchy, "novel": levels,
        });
        if let Some(labelled) = labelled {
            text["labelled"] = labelled.as_json();
        }
        return print_beside(common, Some(&arguments.out), &format!("{text}\n"));
    }
    let mut text = format!("{images} images: {}\n", arguments.out.display());
    for (entry, novel) in file.levels.iter().zip(&novel) {
        let rule = match arguments.fdr {
            None if !entry.threshold.flags_by_score() => format!("{} flags nothing", entry.threshold.score),
            None => format!("{} below {}", entry.threshold.score, shown(entry.threshold.tau)),
            Some(rate) => {
                format!("{}, at most {rate} of the flags false in expectation", entry.threshold.score)
            }
        };
        text += &format!("{:<10}  {novel} novel ({rule})\n", entry.name());
    }
    text += &labelled.map_or_else(String::new, Labelled::as_text);
    print_beside(common, Some(&arguments.out), &text)
}
