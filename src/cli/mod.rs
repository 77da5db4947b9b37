//! The command line: one file per verb; each parses, calls the library, prints. No arithmetic here.

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::Result;

mod bench;
mod calibrate;
mod collapse;
mod collapse_checkpoints;
mod completions;
mod compute;
mod data;
mod demo;
mod doctor;
mod doctor_full;
mod experiment;
mod extract;
mod levels;
mod ood;
mod predict;
mod progress;
mod report;
mod run;
mod stop;
mod train;
mod weights;

/// Train ResNets with hand-written kernels and measure what they do not know.
#[derive(Debug, Parser)]
#[command(name = "residua", version = env!("RESIDUA_VERSION"), about, propagate_version = true, arg_required_else_help = true, args_override_self = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags that every verb understands.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Number of CPU threads; 0 uses every core
    #[arg(long, global = true, default_value_t = 0, value_name = "N", help_heading = "Common options")]
    pub threads: usize,
    /// Print results and errors only, no progress
    #[arg(long, global = true, help_heading = "Common options")]
    pub quiet: bool,
    /// Print the result as JSON on standard output
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The whole story on images inside the binary: train, score, collapse, report
    Demo(demo::Arguments),
    /// Run a whole experiment from a recipe; finished stages are not repeated
    Run(run::Arguments),
    /// Train a network, or fine-tune one
    Train(Box<train::Arguments>),
    /// Run a network over a data set and keep features, logits and labels
    Extract(extract::Arguments),
    /// Fit, score and evaluate OOD detectors from feature caches
    Ood(Box<ood::Arguments>),
    /// Measure neural collapse, NC1 to NC5, of one or many checkpoints
    Collapse(collapse::Arguments),
    /// Choose novelty thresholds on samples of known and of held-out classes, and say what they are worth
    Calibrate(Box<calibrate::Arguments>),
    /// Classify images, with novelty decided by calibrated thresholds
    Predict(predict::Arguments),
    /// (Re)build the self-contained HTML page and the figures of a run folder
    Report(report::Arguments),
    /// Inspect, import and export weights: safetensors and PyTorch files
    Weights(weights::Arguments),
    /// Inspect or verify data sets: counts, classes, sizes, checksums, duplicates, unreadable images
    Data(data::Arguments),
    /// Show which devices, drivers and compilers are there, what is missing, and how to get it; --full checks every kernel
    Doctor(doctor::Arguments),
    /// Time every operation and whole steps, beside the floors of the roofline and earlier results
    Bench(Box<bench::Arguments>),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

/// Runs the command line and returns the process exit code: 0 done, 1 failed, 2 wrong use.
pub fn main() -> ExitCode {
    let parsed =
        Cli::command().try_get_matches().and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(cli, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: Cli, matches: &ArgMatches) -> Result<()> {
    let common = &cli.common;
    if common.threads > 0 {
        // Only the first call in a process has an effect, and this is it.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(common.threads).build_global();
    }
    let (_, own) = matches.subcommand().expect("clap demands a verb");
    match cli.verb {
        Verb::Demo(arguments) => demo::run(&arguments, common),
        Verb::Run(arguments) => run::run(&arguments, common),
        Verb::Train(arguments) => train::run(&arguments, common, own),
        Verb::Collapse(arguments) => collapse::run(&arguments, common),
        Verb::Ood(arguments) => ood::run(&arguments, common),
        Verb::Calibrate(arguments) => calibrate::run(&arguments, common),
        Verb::Predict(arguments) => predict::run(&arguments, common),
        Verb::Extract(arguments) => extract::run(&arguments, common),
        Verb::Data(arguments) => data::run(&arguments, common),
        Verb::Bench(arguments) => bench::run(&arguments, common),
        Verb::Completions(arguments) => completions::run(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments, common, own),
        Verb::Report(arguments) => report::run(&arguments, common),
        Verb::Weights(arguments) => weights::run(&arguments, common),
    }
}

/// Writes lines to standard output; a closed pipe (`| head`) is not an error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
