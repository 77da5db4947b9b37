//! `residua doctor --full`: every operation of the device against the CPU in f64.

use super::bench::until;
use super::common::Common;
use super::compute::Compute;
use super::output::{print_result, width};
use super::progress::Progress;
use super::stop;
use crate::backend::{Choice, Precision};
use crate::bench::{Check, CheckObserver, CheckOptions, Checks, Filter, NetworkName, Patience, check};
use crate::error::{Error, Result};
use crate::values::{Reals, Wholes};

/// The checks of `--full`.
#[derive(Debug, clap::Args)]
pub struct Full {
    /// Check every operation of the device against the CPU in f64, and time it; in f32 and bf16 unless --precision is given
    #[arg(long, help_heading = "Full check")]
    pub full: bool,
    /// Networks whose shapes are checked [default: those of `bench`]
    #[arg(
        long = "arch",
        value_name = "NETWORK,…",
        value_delimiter = ',',
        requires = "full",
        help_heading = "Full check"
    )]
    networks: Vec<NetworkName>,
    /// Images in a batch [default: 32; 2 on the emulator]
    #[arg(value_parser = Wholes::<usize>::POSITIVE, long = "batch-size", value_name = "N", requires = "full", help_heading = "Full check")]
    batch: Option<usize>,
    /// Checks whose name contains this text, or matches it where it has * or ?: operations (conv2d_fprop), kernels (sm90-rows-256x128, or
    /// sm90, cluster, halo, stream), whole steps (steps.)
    #[arg(long, value_name = "PATTERN", requires = "full", help_heading = "Full check")]
    only: Option<String>,
    /// Build kernels for debugging: on Hopper, a wait for a barrier that takes two seconds ends the kernel with an error, which names it,
    /// instead of hanging the GPU
    #[arg(long, requires = "full", help_heading = "Full check")]
    trap: bool,
    /// Begin no check after this number of seconds; checks that are cut are named in the result
    #[arg(long, value_parser = Reals::NOT_NEGATIVE, value_name = "SECONDS", requires = "full", help_heading = "Full check")]
    budget: Option<f64>,
}

/// Seconds to time each operation for.
const SECONDS: f64 = 0.05;

/// Checks every precision of the device, or the one that is asked for.
pub fn run(full: &Full, compute: &Compute, precision_given: bool, common: &Common) -> Result<()> {
    let options = CheckOptions {
        networks: full.networks.clone(),
        batch: full.batch,
        filter: Filter::new(full.only.as_deref().map(kernels_of_group))?,
        patience: Some(Patience { seconds: SECONDS, least: 2, most: 1000 }),
        until: until(full.budget)?,
    };
    // What is left out by the record is checked as well; what is left out by hand is not.
    let mut chosen = Choice { qualifier: None, ..compute.choice(common)? };
    if full.trap {
        if !chosen.has_kernels() {
            return Err(Error::usage("--trap: the CPU computes, which runs no kernels; add --device cuda"));
        }
        chosen.kernels = chosen.kernels.with_traps();
    }
    let precisions = match (precision_given, chosen.has_kernels()) {
        (true, _) => vec![chosen.precision],
        (false, true) => vec![Precision::F32, Precision::Bf16],
        (false, false) => vec![Precision::F32],
    };
    let mut all = Vec::new();
    for precision in precisions {
        let choice = Choice { precision, ..chosen.clone() };
        let mut watcher = Watcher { quiet: common.quiet, progress: None };
        all.push(check(&choice, &options, &mut watcher)?);
    }
    print_result(common, None, &all, || {
        all.iter().map(|checks| checks.table(width())).collect::<Vec<_>>().join("\n")
    })?;
    match all.iter().map(Checks::wrong).sum::<usize>() {
        0 if stop::is_asked() => {
            let cut: usize = all.iter().map(|checks| checks.cut.len()).sum();
            Err(Error::Interrupted(format!("{cut} checks were not begun; those above are done")))
        }
        0 => Ok(()),
        wrong => Err(Error::invalid(format!(
            "{wrong} operations are wrong on this device, so nothing it computes can be trusted; use --device cpu, and \
             please report the lines above"
        ))),
    }
}

/// The part of kernels' names that a word of `--exclude` stands for.
fn kernels_of_group(pattern: &str) -> &str {
    match pattern {
        "halo" => "sm90-rows-",
        "stream" => "sm90-stream-",
        other => other,
    }
}

struct Watcher {
    quiet: bool,
    progress: Option<Progress>,
}

impl CheckObserver for Watcher {
    fn begin(&mut self, checks: usize) {
        self.progress = Some(Progress::of_named("checking", checks as u64, "checks", self.quiet));
    }

    fn check(&mut self, name: &str) {
        if let Some(progress) = &self.progress {
            progress.announce(name);
        }
    }

    fn done(&mut self, check: &Check) {
        if let Some(progress) = &mut self.progress {
            if !check.passed {
                progress.failed(&format!("wrong: {}: {}", check.name, check.what_is_wrong()));
            } else if let Some(error) = check.error {
                progress
                    .found(&format!("{}: right, {error:.1e} off (limit {:.0e})", check.name, check.limit));
            }
            progress.add(1);
        }
    }
}
