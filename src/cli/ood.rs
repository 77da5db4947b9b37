//! `residua ood`: fit, score and evaluate from feature caches.

use std::path::{Path, PathBuf};

use clap::Args;

use super::common::Common;
use super::compute::DeviceFlags;
use super::output::{print_result, tell, width};
use crate::error::{Error, Result};
use crate::features::{ChosenHead, FeatureSet, ForeignLogits, choose_head};
use crate::files;
use crate::ood::table::Group;
use crate::ood::{
    Compute, Dimension, Method, OnCpu, OnDevice, OodInput, Options, Orientation, Outcome, PERCENT,
    RowsPrecision, RunOptions,
};
use crate::report::plots;
use crate::samples::{self, SAMPLES_FILE, SampleFile};
use crate::values::{Reals, Wholes};

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua ood --train runs/first/train --id runs/first/test \\
      --ood far:digits=runs/first/digits --out runs/first/ood
      Every score, on caches that `extract` wrote
  residua ood --id test.npz --ood near:other=other.npz --methods msp,energy \\
      --bootstrap 1000 --out scores
      Two scores of anybody's logits, with intervals";

/// Flags of `ood`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Features of the ID training set: a cache folder or an .npz with features, logits, labels. Scores of logits alone (msp,
    /// mls, energy, gen) do without; knn and react without its labels
    #[arg(long, value_name = "CACHE")]
    train: Option<PathBuf>,
    /// Features of the ID test set
    #[arg(long, value_name = "CACHE")]
    id: PathBuf,
    /// Features of an OOD set; `near:` or `far:` puts it into a group. May be repeated
    #[arg(long, value_name = "[near:|far:]NAME=CACHE", required = true)]
    ood: Vec<String>,
    /// The last layer: an .npz with W (classes, features) and b (classes); by default the one inside the caches
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Go on, with a warning, where the logits of a cache are not W f + b of the head: softmax probabilities, the head of
    /// another network. Otherwise that is an error
    #[arg(long)]
    allow_foreign_logits: bool,
    /// Scores, separated by commas, or `all`
    #[arg(long, default_value = "all", value_name = "LIST")]
    methods: String,
    /// Folder for fit.safetensors, scores/, metrics.json, metrics.csv and plots/
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Temperature of msp, energy and react
    #[arg(long, value_parser = Reals::POSITIVE, default_value_t = 1.0, value_name = "T")]
    temperature: f64,
    /// Principal directions ViM removes: a number, a share of the variance (0.9), or the paper's rule
    #[arg(long, default_value = "paper", value_name = "N|SHARE|paper")]
    vim_dim: String,
    /// Dimension of NECO's subspace: a number, a share of the variance, or `rule` (classes - 1)
    #[arg(long, default_value = "rule", value_name = "N|SHARE|rule")]
    neco_dim: String,
    /// Which neighbour knn measures the distance to
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, default_value_t = 50, value_name = "K")]
    knn_k: usize,
    /// Training samples knn compares with at most
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, default_value_t = 50_000, value_name = "N")]
    knn_bank: usize,
    /// Percentile of the training features at which react clips
    #[arg(long, value_parser = PERCENT, default_value_t = 90.0, value_name = "PERCENT")]
    react_percentile: f64,
    /// Exponent of gen
    #[arg(long, value_parser = Reals::POSITIVE, default_value_t = 0.1, value_name = "GAMMA")]
    gen_gamma: f64,
    /// Largest probabilities gen looks at
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, default_value_t = 100, value_name = "M")]
    gen_m: usize,
    /// Which way the scores in the files point: larger is in-distribution, or larger is novel
    #[arg(long, default_value_t = Orientation::Confidence)]
    orientation: Orientation,
    /// Replicates for 95 % bootstrap intervals; 0 for none
    #[arg(long, value_parser = Wholes::<u32>::ANY, default_value_t = 0, value_name = "N")]
    bootstrap: u32,
    /// Compare equal numbers of ID and OOD samples: a random subset of the larger side
    #[arg(long)]
    balance: bool,
    /// Seed of random subsets and resamples
    #[arg(long, value_parser = Wholes::<u64>::ANY, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// Precision of products in passes over rows on a GPU: f64, or f32 for knn's distances, for cards for graphics, which multiply f64 at
    /// a 64th of that rate (off by 5e-7 of their mean at the most in the reference cases); the other scores stay f64
    #[arg(long, default_value_t, value_name = "TYPE", help_heading = "Compute")]
    rows_precision: RowsPrecision,
    /// Small copies of images to keep for the report, from the data that the caches name; 0 keeps none
    #[arg(long, value_parser = THUMBNAILS, default_value_t = samples::BUDGET, value_name = "N")]
    thumbnails: usize,
    #[command(flatten)]
    device: DeviceFlags,
}

/// Numbers of thumbnails: ten thousand are thirty megabytes of a page.
const THUMBNAILS: Wholes<usize> = Wholes::between(0, 10_000);

/// Runs the verb.
pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let options = options(arguments)?;
    files::check_output_folder(&arguments.out)?;
    let named: Vec<(Option<Group>, &str, PathBuf)> =
        arguments.ood.iter().map(|text| parse_ood(text)).collect::<Result<_>>()?;
    if arguments.train.is_none() {
        options.scores.check_untrained()?;
    }
    let train = arguments.train.as_deref().map(FeatureSet::open).transpose()?;
    let id = FeatureSet::open(&arguments.id)?;
    let ood = named
        .into_iter()
        .map(|(group, name, path)| {
            Ok(OodInput { name: name.to_string(), group, set: FeatureSet::open(&path)? })
        })
        .collect::<Result<Vec<_>>>()?;
    let sets: Vec<&FeatureSet> =
        train.iter().chain([&id]).chain(ood.iter().map(|input: &OodInput| &input.set)).collect();
    let ChosenHead { head, notes, .. } = choose_head(arguments.head.as_deref(), &sets)?;
    if !common.quiet {
        notes.iter().for_each(|note| tell(&format!("note: {note}")));
    }
    let choice = arguments.device.choice_for_rows(common)?;
    if arguments.rows_precision == RowsPrecision::F32 && !choice.has_kernels() {
        return Err(Error::usage(
            "--rows-precision f32 is for kernels, and the CPU computes; leave it out, or add --device cuda",
        ));
    }
    let sets = (train.as_ref(), &id, ood.as_slice());
    let outcome = choice.on_device_for_rows(|device| {
        let mut compute: Box<dyn Compute> = match device {
            Some(device) => Box::new(OnDevice::new(device).with_precision(arguments.rows_precision)),
            None => Box::new(OnCpu),
        };
        crate::ood::run_on(&mut *compute, sets, &head, &options, &arguments.out)
    })?;
    write_figures(&outcome, &arguments.out.join("plots"))?;
    let kept = samples::Options { budget: arguments.thumbnails, seed: arguments.seed };
    SampleFile::of_scores(&outcome, (&id, &ood), &head, kept)?.write(&arguments.out.join(SAMPLES_FILE))?;
    print_result(common, None, &outcome.evaluation, || outcome.evaluation.summary_within(width()))
}

/// For every OOD set the comparison over all scores, and a sheet a score, from all samples.
fn write_figures(outcome: &Outcome, folder: &Path) -> Result<()> {
    let write = |name: String, figure: plots::Figure| files::write(&folder.join(name), figure.standalone());
    for (set, scores) in &outcome.ood {
        let pairs = scores
            .iter()
            .map(|(method, ood)| plots::ScoredPair::new(method, &outcome.id[method], ood))
            .collect::<Result<Vec<_>>>()?;
        write(
            format!("{set}_comparison.svg"),
            plots::comparison_sheet(&format!("Scores on {set}"), &pairs)?,
        )?;
        for pair in &pairs {
            let name = pair.name();
            write(format!("{set}_{name}.svg"), plots::score_sheet(&format!("{name} on {set}"), pair)?)?;
        }
    }
    Ok(())
}

fn options(arguments: &Arguments) -> Result<RunOptions> {
    let scores = Options {
        methods: Method::parse_list(&arguments.methods)?,
        temperature: arguments.temperature,
        vim_dim: arguments.vim_dim.parse::<Dimension>()?,
        neco_dim: arguments.neco_dim.parse::<Dimension>()?,
        knn_k: arguments.knn_k,
        knn_bank: arguments.knn_bank,
        react_percentile: arguments.react_percentile,
        gen_gamma: arguments.gen_gamma,
        gen_m: arguments.gen_m,
        seed: arguments.seed,
    };
    let foreign_logits =
        if arguments.allow_foreign_logits { ForeignLogits::Allow } else { ForeignLogits::Refuse };
    let Arguments { orientation, bootstrap, balance, .. } = *arguments;
    let options = RunOptions { scores, orientation, bootstrap, balance, foreign_logits };
    options.check()?;
    Ok(options)
}

/// `[near:|far:]NAME=CACHE`; a cache's path may hold further `=` and `:`.
fn parse_ood(text: &str) -> Result<(Option<Group>, &str, PathBuf)> {
    let (name, path) = text
        .split_once('=')
        .ok_or_else(|| Error::usage(format!("--ood {text}: write NAME=CACHE, for instance svhn=svhn.npz")))?;
    let (group, name) = match name.split_once(':') {
        Some(("near", name)) => (Some(Group::Near), name),
        Some(("far", name)) => (Some(Group::Far), name),
        Some((other, _)) => {
            return Err(Error::usage(format!("--ood {text}: the group is `near` or `far`, not `{other}`")));
        }
        None => (None, name),
    };
    OodInput::check_name(name)?;
    Ok((group, name, PathBuf::from(path)))
}
