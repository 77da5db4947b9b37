//! The command line: one file per verb; each parses, calls the library, prints. No arithmetic here.

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::backend::cuda::watch_compiling;
use crate::error::{Error, Result};
use crate::instructions::Instructions;
use crate::threads;

mod bench;
mod calibrate;
mod collapse;
mod collapse_checkpoints;
mod common;
mod compare;
mod completions;
mod compute;
mod data;
mod demo;
mod doctor;
mod doctor_full;
mod eval;
mod experiment;
mod extract;
mod kernels;
mod levels;
mod monitor;
mod monitor_input;
mod ood;
mod output;
mod predict;
mod progress;
mod qualify;
mod report;
mod run;
mod stop;
mod train;
mod verify;
mod weights;

use common::Common;
use output::{print, warn};

/// Train ResNets with hand-written kernels and measure what they do not know.
#[derive(Debug, Parser)]
#[command(name = "residua", version = env!("RESIDUA_VERSION"), about, propagate_version = true, arg_required_else_help = true, args_override_self = true)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
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
    /// Evaluate a checkpoint, or a cache, on labelled data: accuracy, classes, calibration, risk-coverage, with intervals
    Eval(Box<eval::Arguments>),
    /// Fit, score and evaluate OOD detectors from feature caches
    Ood(Box<ood::Arguments>),
    /// Verify a result bundle of `ood --bundle`: hashes, tables from scores, with --caches also scores and fit
    Verify(verify::Arguments),
    /// Measure neural collapse, NC1 to NC5, of one or many checkpoints
    Collapse(collapse::Arguments),
    /// Choose novelty thresholds on samples of known and of held-out classes, and say what they are worth
    Calibrate(Box<calibrate::Arguments>),
    /// Classify images, with novelty decided by calibrated thresholds
    Predict(predict::Arguments),
    /// Watch a stream of images or features: p-values, discoveries with a false discovery rate, a drift alarm; JSON lines
    Monitor(Box<monitor::Arguments>),
    /// (Re)build the self-contained HTML page and the figures of a run folder
    Report(report::Arguments),
    /// Set runs beside each other: differences with intervals, curves, recipes, answers that differ
    Compare(compare::Arguments),
    /// Inspect, import and export weights: safetensors and PyTorch files
    Weights(weights::Arguments),
    /// Inspect or verify data sets: counts, classes, sizes, checksums, duplicates, unreadable images
    Data(data::Arguments),
    /// Show which devices, drivers and compilers are there, what is missing, and how to get it; --full checks every kernel
    Doctor(doctor::Arguments),
    /// Compile kernels where there is no GPU, for carrying or for a container image
    Kernels(kernels::Arguments),
    /// Time every operation and whole steps, beside the floors of the roofline and earlier results
    Bench(Box<bench::Arguments>),
    /// Try kernels: how the program does it in a process of its own, before it uses them
    #[command(hide = true)]
    Qualify,
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

/// The command line as it is parsed: `-1` behind a flag is its value, so that the flag says which numbers it takes.
pub fn command() -> clap::Command {
    fn with_negative_numbers(command: clap::Command) -> clap::Command {
        let command = command.mut_args(|arg| {
            let takes = arg.get_action().takes_values() && !arg.is_positional();
            if takes { arg.allow_negative_numbers(true) } else { arg }
        });
        let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_string()).collect();
        verbs.into_iter().fold(command, |command, verb| command.mut_subcommand(verb, with_negative_numbers))
    }
    /// Gives actions of a verb the examples of the verb.
    fn with_examples(verb: clap::Command) -> clap::Command {
        let Some(examples) = verb.get_after_long_help().cloned() else { return verb };
        verb.mut_subcommands(|action| action.after_long_help(examples.clone()))
    }
    with_negative_numbers(Cli::command()).mut_subcommands(with_examples)
}

/// Runs the command line and returns the process exit code: 0 done, 1 failed, 2 wrong use, 128 and its number after a signal.
pub fn main() -> ExitCode {
    let parsed =
        command().try_get_matches().and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let printed = error.print();
            if error.use_stderr() {
                return ExitCode::from(2);
            }
            return code(match printed {
                Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                    Err(Error::io("write", "standard output", e))
                }
                _ => Ok(()),
            });
        }
    };
    code(stop::watch().and_then(|()| run(cli, &matches)))
}

fn code(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Error::Interrupted(kept) = &error {
                output::tell(&format!("interrupted: {kept}"));
                return ExitCode::from(stop::exit_code());
            }
            output::tell(&format!("error: {error}"));
            if matches!(error, Error::DeviceHangs(_)) {
                stop::leave(error.exit_code());
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(mut cli: Cli, matches: &ArgMatches) -> Result<()> {
    let decided = threads::threads(cli.common.threads)?;
    (cli.common.threads, cli.common.threads_by) = (decided.count, Some(decided.reason));
    let common = &cli.common;
    if !common.quiet {
        watch_compiling(progress::compiling_kernels);
    }
    common.instructions.map_or(Ok(()), Instructions::limit)?;
    rayon::ThreadPoolBuilder::new().num_threads(common.threads).build_global().map_err(|error| {
        Error::invalid(format!(
            "cannot start {} threads: {error}; ask for fewer by --threads",
            common.threads
        ))
    })?;
    let (_, own) = matches.subcommand().expect("clap demands a verb");
    match cli.verb {
        Verb::Demo(arguments) => demo::run(&arguments, common),
        Verb::Run(arguments) => run::run(&arguments, common),
        Verb::Train(arguments) => train::run(&arguments, common, own),
        Verb::Collapse(arguments) => collapse::run(&arguments, common),
        Verb::Eval(arguments) => eval::run(&arguments, common),
        Verb::Ood(arguments) => ood::run(&arguments, common),
        Verb::Verify(arguments) => verify::run(&arguments, common),
        Verb::Calibrate(arguments) => calibrate::run(&arguments, common),
        Verb::Predict(arguments) => predict::run(&arguments, common),
        Verb::Monitor(arguments) => monitor::run(&arguments, common),
        Verb::Extract(arguments) => extract::run(&arguments, common),
        Verb::Data(arguments) => data::run(&arguments, common),
        Verb::Kernels(arguments) => kernels::run(&arguments, common),
        Verb::Bench(arguments) => bench::run(&arguments, common),
        Verb::Qualify => qualify::run(),
        Verb::Completions(arguments) => completions::run(&arguments, &mut command()),
        Verb::Doctor(arguments) => doctor::run(&arguments, common, own),
        Verb::Report(arguments) => report::run(&arguments, common),
        Verb::Compare(arguments) => compare::run(&arguments, common),
        Verb::Weights(arguments) => weights::run(&arguments, common),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands of a text of examples.
    fn examples(text: &str) -> Vec<Vec<String>> {
        let text = text.replace("\\\n", " ");
        let lines = text.lines().filter(|line| line.starts_with("  residua "));
        let words = |line: &str| {
            let line = line.split(" > ").next().unwrap_or(line);
            line.split_whitespace().map(|word| word.trim_matches('\'').to_string()).collect()
        };
        lines.map(words).collect()
    }

    #[test]
    fn every_verb_has_examples_and_they_are_commands_of_the_program() {
        let mut command = command();
        command.build();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
        {
            let name = verb.get_name();
            let help =
                verb.get_after_long_help().unwrap_or_else(|| panic!("{name} has no examples")).to_string();
            let examples = examples(&help);
            assert!(help.starts_with("Examples:\n") && examples.len() > 1, "{name}: {help}");
            assert!(help.lines().all(|line| line.len() < 80), "{name}: {help}");
            assert!(examples.iter().any(|words| words[1] == name), "{name} is in none of its examples");
            for words in examples {
                let parsed = super::command().try_get_matches_from(&words);
                let parsed = parsed.and_then(|matches| Cli::from_arg_matches(&matches));
                assert!(parsed.is_ok(), "{words:?}: {}", parsed.unwrap_err());
            }
            for action in verb.get_subcommands().filter(|action| action.get_name() != "help") {
                assert!(
                    action.get_after_long_help().is_some(),
                    "{name} {} has no examples",
                    action.get_name()
                );
            }
        }
    }
}
