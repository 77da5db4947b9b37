//! `residua bench`: how fast every operation and whole steps are, beside the floors of the roofline.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::common::Common;
use super::compute::Compute;
use super::output::{print_result as print, width};
use super::progress::Progress;
use super::stop;
use crate::bench::calibrate::{self, Calibration};
use crate::bench::model::{Card, ModelRequest, model};
use crate::bench::tune::{self, TuneRequest};
use crate::bench::{
    Comparison, Filter, NetworkName, Observer, Patience, Results, Row, Suite, Until, bench, merge,
};
use crate::error::{Error, Result};
use crate::files;
use crate::ops::Hardware;
use crate::plan::Fusions;
use crate::values::{Reals, Wholes};

/// For how long a row may be measured.
const SECONDS: Reals = Reals::between(0.0, 3600.0);

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua bench --arch resnet20-cifar.32 --steps --batch-size 128
      Whole steps of a network
  residua bench --only 'conv2d_fprop*' --out before.json
      Some operations, kept to compare with
  residua bench --only 'conv2d_fprop*' --compare before.json
      The same beside that
  residua bench --model --card H200
      What a step would take on a card that is not here";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    /// Networks whose steps and operations are measured: ARCH-STEM.SIDE, or ARCH-STEM.SIDE.wWIDTH [default:
    /// resnet18-cifar.32, resnet50-cifar.64, resnet50-imagenet.64; toys on the emulator; and passes over rows of features]
    #[arg(long = "arch", value_name = "NETWORK,…", value_delimiter = ',', help_heading = "What to measure")]
    networks: Vec<NetworkName>,
    /// Images in a batch; operations are measured at the first [default: 128; 4 on the emulator]
    #[arg(value_parser = Wholes::<usize>::POSITIVE, long = "batch-size", value_name = "N,…", value_delimiter = ',', help_heading = "What to measure")]
    batches: Vec<usize>,
    /// Whole steps only
    #[arg(long, conflicts_with = "operations", help_heading = "What to measure")]
    steps: bool,
    /// Single operations only
    #[arg(long, help_heading = "What to measure")]
    operations: bool,
    /// Say of each step where its time goes, call by call
    #[arg(long, conflicts_with_all = ["operations", "tune", "model", "merge"], help_heading = "What to measure")]
    calls: bool,
    /// Which calls of a step are fused: all, none, or some of prologue, statistics, residual-gradient, masks, pool-head (prologue:
    /// where kernels for compute capability 9.0 gain by it)
    #[arg(long, default_value_t = Fusions::ALL, value_name = "FUSION,…", help_heading = "What to measure")]
    fuse: Fusions,
    /// Rows whose name contains this text, or matches it where it has * or ?
    #[arg(long, value_name = "PATTERN", help_heading = "What to measure")]
    only: Option<String>,
    /// Seconds to measure each row for, warm-up apart
    #[arg(long, value_parser = SECONDS, default_value_t = 0.5, value_name = "SECONDS", help_heading = "What to measure")]
    seconds: f64,
    /// Measurements per row and series, at the least
    #[arg(long, value_parser = Wholes::<usize>::POSITIVE, default_value_t = 3, value_name = "N", help_heading = "What to measure")]
    repeats: usize,
    /// Begin no row after this number of seconds; rows that are cut are named in the result
    #[arg(long, value_parser = Reals::NOT_NEGATIVE, value_name = "SECONDS", help_heading = "What to measure")]
    budget: Option<f64>,
    /// Measure every kernel that can compute each convolution, and write the fastest to a file for --kernel-table; kernels that are
    /// wrong on this device are named and left out, and the exit code is then 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["steps", "operations", "only", "compare", "model", "kernel_table"], help_heading = "Kernels")]
    tune: Option<PathBuf>,
    /// Predict, call by call, what the steps take on a card that need not be there; on a GPU, measure beside it
    #[arg(long, conflicts_with_all = ["steps", "operations", "only", "budget", "compare"], help_heading = "Kernels")]
    model: bool,
    /// The card to predict for: 5090, B200, H200, H100, 4090, 3090, A6000, A100, or a card file [default: the GPU that is there, else H200]
    #[arg(long, value_name = "CARD", requires = "model", help_heading = "Kernels")]
    card: Option<String>,
    /// Measure what predictions assume of a card (memory, L2, launches, tensor cores, TMA: some 25 numbers for --seconds each) and write
    /// it to a card file, for --card
    #[arg(long, value_name = "FILE", conflicts_with_all = ["networks", "batches", "steps", "operations", "only", "compare", "model", "tune"], help_heading = "Kernels")]
    calibrate: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    /// Write the result as JSON; - is standard output
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Compare with an earlier result, row by row
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    compare: Option<PathBuf>,
    /// Measure nothing: merge the results that benches/gpu.sh left in a folder, PyTorch's beside ours
    #[arg(long, value_name = "DIR", conflicts_with_all = ["networks", "batches", "steps", "operations", "only", "budget", "compare", "model", "tune"], help_heading = "Output")]
    merge: Option<PathBuf>,
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    for out in [&arguments.out, &arguments.tune, &arguments.calibrate].into_iter().flatten() {
        files::check_output_file(out, &[])?;
    }
    if let Some(folder) = &arguments.merge {
        let merged = merge(folder)?;
        if let Some(out) = &arguments.out {
            merged.write(out)?;
        }
        return print(common, arguments.out.as_deref(), &merged, || merged.table(width()));
    }
    if let Some(table) = &arguments.tune {
        return tune(arguments, table, common);
    }
    if let Some(card_file) = &arguments.calibrate {
        return calibrate(arguments, card_file, common);
    }
    if arguments.model {
        return predict(arguments, common);
    }
    // A file that cannot be compared with is better known before the measurements.
    let before = arguments.compare.as_deref().map(Results::read).transpose()?;
    let suite = suite(arguments)?;
    let mut watcher = Watcher { quiet: common.quiet, progress: None };
    let out = arguments.out.as_deref();
    let results = bench(&arguments.compute.choice(common)?, &suite, &mut watcher)?;
    drop(watcher);
    if let Some(out) = out {
        results.write(out)?;
    }
    match before.map(|before| Comparison::new(&before, &results, |row| suite.wants(row))) {
        None => print(common, out, &results, || results.table(width()))?,
        Some(comparison) => {
            let both = serde_json::json!({ "results": results, "comparison": comparison });
            print(common, out, &both, || {
                format!("{}\n{}", results.table(width()), comparison.table(width()))
            })?;
        }
    }
    if stop::is_asked() && !results.cut.is_empty() {
        let kept = out.map_or_else(|| "stand above".to_string(), |out| format!("are in {}", out.display()));
        let (done, cut) = (results.rows.len(), results.cut.len());
        return Err(Error::Interrupted(format!(
            "the {done} rows that were measured {kept}; {cut} were not begun"
        )));
    }
    if results.rows.iter().all(|row| row.timing.is_none()) && !results.rows.is_empty() {
        return Err(Error::invalid("no row could be measured; the reasons stand above"));
    }
    Ok(())
}

/// Measures kernels against each other.
fn tune(arguments: &Arguments, table: &Path, common: &Common) -> Result<()> {
    let Suite { networks, batches, patience, until, .. } = suite(arguments)?;
    let request = TuneRequest { networks, batches, patience, until, table };
    let mut shown: Option<Progress> = None;
    let mut progress = |convolutions: usize, name: &str| {
        let begun = shown.is_some();
        let shown = shown.get_or_insert_with(|| {
            Progress::of_named("tuning", convolutions as u64, "convolutions", common.quiet)
        });
        if begun {
            shown.add(1);
        }
        shown.message(name.to_string());
    };
    let tuning = arguments
        .compute
        .choice(common)?
        .kernels()
        .and_then(|cuda| tune::tune(cuda, &request, &mut progress));
    drop(shown);
    let tuning = tuning?;
    print(common, Some(table), &tuning, || {
        format!("{}written to {}\n", tuning.table(width()), table.display())
    })?;
    match tuning.refused.len() {
        0 if stop::is_asked() => Err(Error::Interrupted(format!(
            "{} has the {} convolutions that were tuned; {} were not; another run adds to the file",
            table.display(),
            tuning.tuned.len(),
            tuning.cut
        ))),
        0 => Ok(()),
        wrong => Err(Error::invalid(format!(
            "{wrong} times a kernel did not compute on this device what the CPU computes, and is not in the table for it; without a \
             table it may be chosen, so use {} in all that you compute, and please report this with the list above",
            table.display()
        ))),
    }
}

/// Measures what predictions assume.
fn calibrate(arguments: &Arguments, card_file: &Path, common: &Common) -> Result<()> {
    let Suite { patience, until, .. } = suite(arguments)?;
    let choice = arguments.compute.choice(common)?;
    let mut watcher = Calibrating { card_file, quiet: common.quiet, progress: None };
    let calibration = calibrate::calibrate(&choice, &patience, &until, &mut watcher)?;
    drop(watcher);
    calibration.write(card_file)?;
    print(common, Some(card_file), &calibration, || {
        format!("{}written to {}\n", calibration.table(width()), card_file.display())
    })?;
    if stop::is_asked() && !calibration.cut.is_empty() {
        return Err(Error::Interrupted(format!(
            "{} has the {} numbers that were measured; {} were not",
            card_file.display(),
            calibration.measurements.len(),
            calibration.cut.len()
        )));
    }
    Ok(())
}

/// Writes the card file anew after each measurement: what is measured is not lost with what comes behind it.
struct Calibrating<'a> {
    card_file: &'a Path,
    quiet: bool,
    progress: Option<Progress>,
}

impl calibrate::Watcher for Calibrating<'_> {
    fn comes(&mut self, measurements: usize) {
        self.progress =
            Some(Progress::of_named("calibrating", measurements as u64, "measurements", self.quiet));
    }

    fn begins(&mut self, name: &str) {
        if let Some(progress) = &self.progress {
            progress.announce(name);
        }
    }

    fn ended(&mut self, so_far: &Calibration) -> Result<()> {
        if let (Some(progress), Some(newest)) = (&mut self.progress, so_far.measurements.last()) {
            progress.found(&newest.in_words());
            progress.add(1);
        }
        so_far.write(self.card_file)
    }
}

/// A card by its name, or out of a card file.
fn card(text: &str) -> Result<Card> {
    let is_file = text.ends_with(".json") || text.contains(std::path::MAIN_SEPARATOR);
    if is_file { Ok(Calibration::read(Path::new(text))?.card) } else { Card::named(text) }
}

/// Predicts instead of measuring.
fn predict(arguments: &Arguments, common: &Common) -> Result<()> {
    let suite = suite(arguments)?;
    let passes = (suite.operations && suite.networks.is_empty()).then(|| suite.filter.clone());
    let request = ModelRequest {
        passes,
        networks: suite.networks,
        batches: suite.batches,
        fusions: suite.fusions,
        card: arguments.card.as_deref().map(card).transpose()?,
        patience: suite.patience,
    };
    let model = model(&arguments.compute.choice_with_kernels(common)?, &request)?;
    if let Some(out) = &arguments.out {
        model.write(out)?;
    }
    print(common, arguments.out.as_deref(), &model, || model.table(width()))
}

/// The suite that the flags ask for.
fn suite(arguments: &Arguments) -> Result<Suite> {
    Ok(Suite {
        networks: arguments.networks.clone(),
        batches: arguments.batches.clone(),
        fusions: arguments.fuse,
        operations: !arguments.steps && !arguments.calls,
        steps: !arguments.operations,
        calls: arguments.calls,
        filter: Filter::new(arguments.only.as_deref())?,
        patience: Patience { seconds: arguments.seconds, least: arguments.repeats, most: 1000 },
        until: until(arguments.budget)?,
    })
}

/// The end of measuring: nothing new begins `budget` seconds from now, or after a signal.
pub fn until(budget: Option<f64>) -> Result<Until> {
    let mut until = Until { deadline: None, stop: Some(stop::listen()) };
    if let Some(seconds) = budget {
        let budget = Duration::try_from_secs_f64(seconds).ok();
        until.deadline = budget.and_then(|budget| Instant::now().checked_add(budget));
        if until.deadline.is_none() {
            return Err(Error::usage(format!("--budget {seconds}: it is a number of seconds from now")));
        }
    }
    Ok(until)
}

struct Watcher {
    quiet: bool,
    progress: Option<Progress>,
}

impl Observer for Watcher {
    fn begin(&mut self, hardware: &Hardware, rows: usize) {
        let progress = Progress::of_named("measuring", rows as u64, "rows", self.quiet);
        if !self.quiet {
            progress.line(&format!("{rows} rows on {}", hardware.name));
        }
        self.progress = Some(progress);
    }

    fn row(&mut self, name: &str) {
        if let Some(progress) = &self.progress {
            progress.announce(name);
        }
    }

    fn done(&mut self, row: &Row) {
        if let Some(progress) = &mut self.progress {
            if let Some(error) = &row.error {
                progress.failed(&format!("{}: {error}", row.name));
            }
            if let Some(seconds) = row.seconds() {
                progress.found(&format!("{}: {:.1} µs", row.name, 1e6 * seconds));
            }
            progress.add(1);
        }
    }
}
