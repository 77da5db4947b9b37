//! `residua ood`: fit, score and evaluate from feature caches.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use rayon::prelude::*;

use super::common::Common;
use super::compute::DeviceFlags;
use super::experiment::Shown;
use super::output::{in_shell, print_result, tell, width};
use super::stop;
use crate::error::{Error, Result};
use crate::features::{FeatureSet, ForeignLogits, choose_head};
use crate::files;
use crate::ood::table::{Group, PseudoOod};
use crate::ood::{
    Dimension, Method, OodInput, Options, Orientation, Outcome, PERCENT, Parameter, RowsPrecision,
    RunOptions, ScoreSpec, Sets, ShiftedInput, bundle, on_chosen, run_on, run_tuned_on, tuning,
};
use crate::recipe::Retraining;
use crate::report::plots;
use crate::samples::{self, SAMPLES_FILE, SampleFile};
use crate::text_table::wrap;
use crate::values::{Reals, Wholes, named};

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua ood --train runs/first/train --id runs/first/test \\
      --ood far:digits=runs/first/digits --out runs/first/ood
      Every score, on caches that `extract` wrote
  residua ood --id test.npz --ood near:other=other.npz --methods msp,energy \\
      --bootstrap 1000 --out scores
      Two scores of anybody's logits, with intervals
  residua ood --train t.npz --id i.npz --ood near:a=a.npz --ood far:b=b.npz \\
      --shifted blurred=blurred.npz --compact --out scores
      The full spectrum too, and one table for all OOD sets
  residua ood --train t.npz --calibration c.npz --id i.npz --ood near:a=a.npz \\
      --tune --compact --out scores
      Constants chosen on held-out classes, compared with the OOD set's choice
  residua ood --train runs/first/train --id runs/first/test \\
      --ood far:digits=runs/first/digits --tune retrain=3 --run runs/first \\
      --out runs/first/ood
      The same on three networks that never saw a third of the classes
  residua ood --id i.npz --ood a=a.npz --methods msp --out scores \\
      --bundle result.zip
      One file that `residua verify` checks, hash by hash and number by number";

/// The examples, then all scores with what they cost and their constants, within 80 columns.
fn after_long_help() -> String {
    let mut text =
        format!("{EXAMPLES}\n\nScores, what they cost (* cheap), and their constants with defaults:\n");
    let defaults = Options::default();
    for &method in Method::ALL {
        let (mark, about) = (if method.is_cheap() { '*' } else { ' ' }, method.about());
        let _ = writeln!(text, "  {mark} {:<18}{}", method.name(), about.cost.words());
        for constant in about.parameters {
            let constant = format!(
                "{}={}: {}{}",
                constant.name,
                (constant.default)(&defaults),
                constant.meaning,
                tried(constant)
            );
            for (number, line) in wrap(&constant, 70).iter().enumerate() {
                let _ = writeln!(text, "{}{line}", if number == 0 { "      " } else { "        " });
            }
        }
    }
    text.push_str("Pages of reports explain each score in a sentence, with its paper.");
    text
}

/// The values that tuning tries, in words.
fn tried(constant: &Parameter) -> String {
    if constant.grid.is_empty() {
        String::new()
    } else {
        format!("; --tune tries {}", constant.grid.join(", "))
    }
}

/// Flags of `ood`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = after_long_help())]
pub struct Arguments {
    /// Features of the ID training set: a cache folder or an .npz with features, logits, labels. Scores
    /// of logits, and of the head alone, do without (msp, energy, gen, gradnorm); knn, react and others without its labels
    #[arg(long, value_name = "CACHE")]
    train: Option<PathBuf>,
    /// Features of the ID test set
    #[arg(long, value_name = "CACHE")]
    id: PathBuf,
    /// Features of an OOD set; `near:` or `far:` puts it into a group. May be repeated
    #[arg(long, value_name = "[near:|far:]NAME=CACHE", required = true)]
    ood: Vec<String>,
    /// Features of a covariate-shifted ID set: the known classes, blurred, drawn, photographed elsewhere. It joins the ID side of a
    /// full-spectrum evaluation (OpenOOD's fsood) beside the plain one. May be repeated
    #[arg(long, value_name = "NAME=CACHE")]
    shifted: Vec<String>,
    /// The last layer: an .npz with W (classes, features) and b (classes); by default the one inside the caches
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Go on, with a warning, where the logits of a cache are not W f + b of the head: softmax probabilities, the head of
    /// another network. Otherwise that is an error
    #[arg(long)]
    allow_foreign_logits: bool,
    /// Scores, separated by commas; `all`; or `cheap`, those that cost no more than a product with the head. A constant stands behind
    /// the name, alternatives of it behind `|`: knn:k=10|50|200. They are listed at the end of --help
    #[arg(long, default_value = "all", value_name = "LIST")]
    methods: String,
    /// Features of labelled ID samples outside training, which tempscale and klm are fitted on; without, a tenth of the training set
    #[arg(long, value_name = "CACHE")]
    calibration: Option<PathBuf>,
    /// Choose the constants of scores without OOD data: classes of the training set are held out in turn and stand for it. `classes` (the
    /// default) holds them out of the fits; `retrain=K` trains K networks by the recipe of --run that never see them, which is surer and
    /// takes K trainings. What is tried is listed at the end of --help, or given as a sweep. The results compare with what the OOD sets
    /// would have chosen
    #[arg(long, value_name = "classes|retrain=K", num_args = 0..=1, default_missing_value = "classes")]
    tune: Option<Tune>,
    /// The run folder of the network behind the caches, for --tune retrain=K
    #[arg(long, value_name = "RUN")]
    run: Option<PathBuf>,
    /// Folder for fit.safetensors, scores/, metrics.json, metrics.csv and plots/
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also write a result bundle: a zip with tables, scores, fit and the hashes of everything that went in, which
    /// `residua verify` checks. Hashes prove integrity, not authorship
    #[arg(long, value_name = "FILE.zip")]
    bundle: Option<PathBuf>,
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
    /// Print one table of AUROC and one of FPR95 for all OOD sets, instead of a table each
    #[arg(long)]
    compact: bool,
    /// Scores that get figures in plots/: the ten with the highest AUROC on each OOD set, all, or none
    #[arg(long, default_value_t, value_name = "WHICH")]
    plots: Figures,
    /// Which way the scores in the files point: larger is in-distribution, or larger is novel
    #[arg(long, default_value_t = Orientation::Confidence)]
    orientation: Orientation,
    /// Replicates for 95 % bootstrap intervals of all metrics; 0 for none. AUROC has DeLong's without
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

/// What stands for OOD data where constants are tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tune {
    /// Classes that fits leave out.
    Classes,
    /// Classes that this many networks, each without some, have never seen.
    Retrain(usize),
}

/// Networks that are trained again: one says nothing of the spread, and a hundred take long.
const NETWORKS: Wholes<usize> = Wholes::between(2, 100);

impl FromStr for Tune {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Tune, String> {
        match text.split_once('=') {
            None if text == "classes" => Ok(Tune::Classes),
            Some(("retrain", networks)) => NETWORKS.parse(networks).map(Tune::Retrain),
            _ => Err("expected `classes` or `retrain=K`, such as retrain=5".into()),
        }
    }
}

/// Checks the flags of tuning against each other.
///
/// # Errors
/// A run without networks to train, or networks without a run; no training set.
fn check_tuning(arguments: &Arguments) -> Result<()> {
    match (arguments.tune, &arguments.run) {
        (Some(Tune::Retrain(_)), None) => Err(Error::usage(
            "--tune retrain=K trains networks by the recipe of a run: say which with --run RUN, the folder that `train` wrote",
        )),
        (Some(Tune::Classes) | None, Some(_)) => {
            Err(Error::usage("--run is for --tune retrain=K; leave it out, or ask for retraining"))
        }
        (Some(_), _) if arguments.train.is_none() => Err(Error::usage(
            "--tune needs --train CACHE: constants are chosen for scores that are fitted on it",
        )),
        _ => Ok(()),
    }
}

/// Numbers of thumbnails: ten thousand are thirty megabytes of a page.
const THUMBNAILS: Wholes<usize> = Wholes::between(0, 10_000);

/// Runs the verb.
pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    let options = options(arguments)?;
    check_tuning(arguments)?;
    files::check_output_folder(&arguments.out)?;
    let named: Vec<(Option<Group>, &str, PathBuf)> =
        arguments.ood.iter().map(|text| parse_ood(text)).collect::<Result<_>>()?;
    if arguments.train.is_none() {
        options.scores.check_untrained()?;
    }
    let train = arguments.train.as_deref().map(FeatureSet::open).transpose()?;
    let calibration = arguments.calibration.as_deref().map(FeatureSet::open).transpose()?;
    let id = FeatureSet::open(&arguments.id)?;
    let ood = named
        .into_iter()
        .map(|(group, name, path)| {
            Ok(OodInput { name: name.to_string(), group, set: FeatureSet::open(&path)? })
        })
        .collect::<Result<Vec<_>>>()?;
    let named = arguments.shifted.iter().map(|text| parse_shifted(text)).collect::<Result<Vec<_>>>()?;
    let shifted = named
        .into_iter()
        .map(|(name, path)| Ok(ShiftedInput { name: name.to_string(), set: FeatureSet::open(&path)? }))
        .collect::<Result<Vec<_>>>()?;
    let tested = ood.iter().map(|input: &OodInput| &input.set);
    let tested = tested.chain(shifted.iter().map(|input: &ShiftedInput| &input.set));
    let sets: Vec<&FeatureSet> = train.iter().chain(&calibration).chain([&id]).chain(tested).collect();
    let chosen = choose_head(arguments.head.as_deref(), &sets)?;
    let head = &chosen.head;
    if !common.quiet {
        chosen.notes.iter().for_each(|note| tell(&format!("note: {note}")));
    }
    check_bundle(arguments, &options, &sets)?;
    let choice = arguments.device.choice_for_rows(common)?;
    if arguments.rows_precision == RowsPrecision::F32 && !choice.has_kernels() {
        return Err(Error::usage(
            "--rows-precision f32 is for kernels, and the CPU computes; leave it out, or add --device cuda",
        ));
    }
    let sets = Sets {
        train: train.as_ref(),
        calibration: calibration.as_ref(),
        id: &id,
        shifted: &shifted,
        ood: &ood,
    };
    let retrained = match (arguments.tune, &arguments.run) {
        (Some(Tune::Retrain(networks)), Some(run)) => {
            let retraining = Retraining {
                run,
                networks,
                seed: arguments.seed,
                choice: &choice,
                folder: arguments.out.join("tuning"),
                stop: stop::listen(),
            };
            Some(retraining.splits(head, &mut Shown::new(common.quiet))?)
        }
        _ => None,
    };
    let outcome = on_chosen(&choice, arguments.rows_precision, |compute| {
        let out = &arguments.out;
        match (arguments.tune, &retrained) {
            (None, _) => run_on(compute, sets, head, &options, out),
            (Some(_), Some(splits)) => run_tuned_on(compute, sets, head, &options, out, |compute| {
                tuning::tune_on(
                    compute,
                    splits.iter().cloned().map(Ok),
                    PseudoOod::UnseenClasses,
                    &options.scores,
                )
            }),
            (Some(_), None) => run_tuned_on(compute, sets, head, &options, out, |compute| {
                tuning::tune(compute, sets, head, &options.scores)
            }),
        }
    })?;
    if let Some(file) = &arguments.bundle {
        let mut options = options.clone();
        if let Some(tuning) = &outcome.evaluation.tuning {
            options.scores = tuning.applied_to(&options.scores);
        }
        let written = bundle::write(file, sets, &chosen, &options, (&outcome, &arguments.out))?;
        if !common.quiet {
            tell(&format!(
                "bundle: {} ({} bytes), SHA-256 {}; check it with `residua verify {}`",
                file.display(),
                written.bytes,
                written.sha256,
                in_shell(file)
            ));
        }
    }
    let passed_over = write_figures(&outcome, arguments.plots, &arguments.out.join("plots"))?;
    if passed_over && arguments.plots == Figures::Best && !common.quiet {
        tell(&format!("note: figures are of the {BEST} best scores of each OOD set; --plots all has all"));
    }
    let rows: usize = outcome.evaluation.ood.values().map(|by_method| by_method.len()).sum();
    if rows > MANY_ROWS && !arguments.compact && !common.quiet && !common.json {
        tell("note: --compact prints one table for all OOD sets");
    }
    let kept = samples::Options { budget: arguments.thumbnails, seed: arguments.seed };
    SampleFile::of_scores(&outcome, (&id, &ood), head, kept)?.write(&arguments.out.join(SAMPLES_FILE))?;
    print_result(common, None, &outcome.evaluation, || match arguments.compact {
        true => outcome.evaluation.compact_summary_within(width()),
        false => outcome.evaluation.summary_within(width()),
    })
}

/// Refuses a bundle that could not be written, or verified, before the work.
fn check_bundle(arguments: &Arguments, options: &RunOptions, sets: &[&FeatureSet]) -> Result<()> {
    let Some(file) = &arguments.bundle else { return Ok(()) };
    if !files::is_replaceable(file) {
        return Err(Error::usage(format!("--bundle {}: expected the name of a file", file.display())));
    }
    if arguments.rows_precision == RowsPrecision::F32 {
        return Err(Error::usage(
            "--bundle is verified in f64, and --rows-precision f32 is off by more than that allows; leave one out",
        ));
    }
    let inputs: Vec<&Path> = sets.iter().map(|set| set.path()).chain(arguments.head.as_deref()).collect();
    files::check_output_file(file, &inputs)?;
    bundle::check_options(options)
}

named! {
    /// Scores that get figures.
    pub enum Figures: "choice of figures" {
        /// Of each OOD set the ten with the highest AUROC.
        Best = "best",
        /// All.
        All = "all",
        /// None: figures of many scores take longer than the scores.
        None = "none",
    }
    default Best
}

/// Rows of results after which a shorter table is pointed to.
const MANY_ROWS: usize = 60;
/// Scores with figures by default.
const BEST: usize = 10;

/// For every OOD set the comparison over some scores, and a sheet for each of these, from all samples. Returns whether some
/// scores were passed over.
fn write_figures(outcome: &Outcome, figures: Figures, folder: &Path) -> Result<bool> {
    let write = |name: String, figure: plots::Figure| files::write(&folder.join(name), figure.standalone());
    let mut passed_over = false;
    for (set, scores) in &outcome.ood {
        let auroc =
            |name: &String| outcome.evaluation.entry(set, name).map_or(0.0, |entry| entry.metrics.auroc);
        let mut names: Vec<&String> = scores.keys().collect();
        if figures == Figures::None {
            names.clear();
        } else if figures == Figures::Best && names.len() > BEST {
            // In the order of their names again, as a sheet of all has them.
            names.sort_by(|a, b| auroc(b).total_cmp(&auroc(a)).then(a.cmp(b)));
            names.truncate(BEST);
            names.sort();
        }
        passed_over |= names.len() < scores.len();
        if names.is_empty() {
            continue;
        }
        let pairs = names
            .into_par_iter()
            .map(|name| plots::ScoredPair::new(name, &outcome.id[name], &scores[name]))
            .collect::<Result<Vec<_>>>()?;
        write(
            format!("{set}_comparison.svg"),
            plots::comparison_sheet(&format!("Scores on {set}"), &pairs)?,
        )?;
        pairs.par_iter().try_for_each(|pair| {
            let name = pair.name();
            let file = name.replace([':', '='], "-");
            write(format!("{set}_{file}.svg"), plots::score_sheet(&format!("{name} on {set}"), pair)?)
        })?;
    }
    Ok(passed_over)
}

fn options(arguments: &Arguments) -> Result<RunOptions> {
    let scores = Options {
        methods: ScoreSpec::parse_list(&arguments.methods)?,
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

/// `NAME=CACHE`.
fn parse_shifted(text: &str) -> Result<(&str, PathBuf)> {
    let (name, path) = text.split_once('=').ok_or_else(|| {
        Error::usage(format!("--shifted {text}: write NAME=CACHE, for instance blurred=blurred.npz"))
    })?;
    OodInput::check_name(name)?;
    Ok((name, PathBuf::from(path)))
}
