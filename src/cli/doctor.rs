//! `residua doctor`: what there is on this machine to compute with, what is missing, and how to get it.

use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use serde::Serialize;

use super::common::Common;
use super::compute::Compute;
use super::doctor_full::{self, Full};
use super::output::{print_result, width};
use crate::backend::cuda::card::Rates;
use crate::backend::cuda::driver::Driver;
use crate::backend::cuda::driver::cache::Cache;
use crate::backend::cuda::driver::emulator::{Emulator, Options};
use crate::backend::cuda::driver::native::nvrtc::architecture;
use crate::backend::cuda::driver::native::{Gpu, Survey};
use crate::bench::qualify::Record;
use crate::error::{Error, Result, printable};
use crate::instructions::Instructions;
use crate::text_table::wrap;

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua doctor
      What there is to compute with, what is missing, how to get it
  residua doctor --full --device cuda
      Every kernel of a GPU against the CPU
  residua doctor --full --device emulator --only relu
      Some of them without a GPU";

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    full: Full,
    #[command(flatten)]
    compute: Compute,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It is there and can be used.
    Ready,
    /// It is missing or cannot be used; the text says how to get it.
    Missing,
}

/// One part of the machine.
#[derive(Debug, Serialize)]
struct Part {
    part: &'static str,
    state: State,
    /// A description of what was found, or of what is missing and how to get it.
    text: String,
}

/// All there is.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    parts: Vec<Part>,
    /// What was found when kernels were tried here.
    tried: Vec<Record>,
    /// Values that `--device` can have here.
    devices: Vec<String>,
    /// The device that `--device auto` is here.
    auto: String,
}

/// Runs the verb. A missing part is a finding, not an error.
///
/// # Errors
/// With `--full`: the device cannot be had, or an operation is wrong.
pub fn run(arguments: &Arguments, common: &Common, matches: &ArgMatches) -> Result<()> {
    if arguments.full.full {
        let precision_given = matches.value_source("precision") == Some(ValueSource::CommandLine);
        return doctor_full::run(&arguments.full, &arguments.compute, precision_given, common);
    }
    let report = look(common);
    print_result(common, None, &report, || human(&report, width().unwrap_or(80)))
}

fn look(common: &Common) -> Report {
    let survey = Survey::new();
    let cache = Cache::of_user();
    let emulator = Emulator::new(Options { threads: 1, ..Options::default() });
    let mut parts = vec![Part { part: "CPU", state: State::Ready, text: cpu(common) }, driver(&survey)];
    let mut devices = vec!["cpu".to_string()];
    for (ordinal, gpu) in survey.gpus.iter().enumerate() {
        let gpu = self::gpu(ordinal, gpu);
        if gpu.state == State::Ready && survey.nvrtc.is_ok() && cache.is_ok() {
            devices.push(format!("cuda:{ordinal}"));
        }
        parts.push(gpu);
    }
    parts.push(part("NVRTC", &survey.nvrtc, |(path, version)| format!("{version}, {}", path.display())));
    parts.push(part("C++ compiler", &emulator, |emulator| {
        format!("{}, for --device emulator", emulator.properties().versions)
    }));
    parts.push(kernel_cache(&cache));
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e));
    let tried = match (&cache, program) {
        (Ok(cache), Ok(program)) => Record::all(cache, &program).unwrap_or_default(),
        _ => Vec::new(),
    };
    parts.extend(tried_kernels(&survey, &tried));
    if emulator.is_ok() {
        devices.push("emulator".to_string());
    }
    let auto = if devices.iter().any(|device| device == "cuda:0") { "cuda:0" } else { "cpu" };
    Report { version: env!("RESIDUA_VERSION"), parts, tried, devices, auto: auto.to_string() }
}

/// A part that was found, or the reason why not.
fn part<T>(name: &'static str, found: &Result<T>, describe: impl FnOnce(&T) -> String) -> Part {
    match found {
        Ok(found) => Part { part: name, state: State::Ready, text: printable(&describe(found)) },
        Err(error) => Part { part: name, state: State::Missing, text: error.to_string() },
    }
}

fn cpu(common: &Common) -> String {
    let threads = common.threads;
    let plural = if threads == 1 { "" } else { "s" };
    let why = common.threads_by.map_or_else(String::new, |reason| format!(" ({reason})"));
    format!("{threads} thread{plural}{why}, {}", wide_instructions())
}

/// The widest instructions that our operations use here.
fn wide_instructions() -> &'static str {
    match Instructions::in_use() {
        Instructions::Avx512 => "AVX-512",
        Instructions::Avx2 => "AVX2",
        Instructions::Baseline if cfg!(target_arch = "x86_64") => "without AVX2: slow",
        Instructions::Baseline => std::env::consts::ARCH,
    }
}

fn driver(survey: &Survey) -> Part {
    part("GPU driver", &survey.driver, |cuda| {
        let release =
            survey.driver_release.as_deref().map_or_else(String::new, |release| format!("{release}, "));
        format!("{release}CUDA {cuda}")
    })
}

fn gpu(ordinal: usize, gpu: &Result<Gpu>) -> Part {
    let usable = gpu.as_ref().map_err(|error| Error::invalid(error.to_string())).and_then(|gpu| {
        let architecture = architecture(gpu.capability)?;
        let kernels = match gpu.capability {
            (9, 0) => "Hopper's own kernels (WGMMA, TMA)",
            _ => "portable kernels (mma.sync)",
        };
        let rates = match Rates::of_card(&gpu.name) {
            Some(_) => String::new(),
            None => "; its rates are assumed to be those of the nearest known card".to_string(),
        };
        Ok(format!(
            "{} ({architecture}), {:.0} GiB, {} SMs, number {ordinal}: {kernels}{rates}",
            gpu.name,
            gpu.memory_bytes as f64 / f64::from(1 << 30),
            gpu.sms
        ))
    });
    part("GPU", &usable, String::clone)
}

fn kernel_cache(cache: &Result<Cache>) -> Part {
    part("kernel cache", cache, |cache| {
        let usage = Cache::usage(cache.folder());
        let mebibytes = usage.bytes as f64 / f64::from(1 << 20);
        format!("{}, {} files, {mebibytes:.1} MiB", cache.folder().display(), usage.files)
    })
}

/// What was found when kernels were tried on the devices of this machine.
fn tried_kernels(survey: &Survey, records: &[Record]) -> Vec<Part> {
    let mut parts: Vec<Part> = records
        .iter()
        .map(|record| Part {
            part: "tried kernels",
            state: if record.failed.is_empty() { State::Ready } else { State::Missing },
            text: record.summary(),
        })
        .collect();
    for gpu in survey.gpus.iter().flatten() {
        if !records.iter().any(|record| record.subject.card == gpu.name) {
            let text = format!("{}: none yet; --device cuda tries them before their first use", gpu.name);
            parts.push(Part { part: "tried kernels", state: State::Ready, text: printable(&text) });
        }
    }
    parts
}

/// Columns before the text of a part: a mark, its name, spaces.
const INDENT: usize = 17;

fn human(report: &Report, columns: usize) -> String {
    let mut text = String::new();
    for Part { part, state, text: told } in &report.parts {
        let mark = match state {
            State::Ready => console::style("✓").green(),
            State::Missing => console::style("✗").red(),
        };
        for (index, line) in wrap(told, columns.saturating_sub(INDENT).max(30)).into_iter().enumerate() {
            let _ = if index == 0 {
                writeln!(text, "{mark} {part:<14} {line}")
            } else {
                writeln!(text, "{:INDENT$}{line}", "")
            };
        }
    }
    let _ = writeln!(text, "\n--device can be {}; auto is {}.", report.devices.join(", "), report.auto);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_loses_none() {
        let text = "there is no NVIDIA driver: libcuda.so.1 is in none of the system's folders; install it";
        let lines = wrap(text, 30);
        assert_eq!(lines.join(" "), text);
        assert!(lines.iter().all(|line| line.len() <= 30) && lines.len() == 3, "{lines:?}");
        assert_eq!(
            wrap("/a/very/long/path/without/spaces short", 10),
            ["/a/very/long/path/without/spaces", "short"]
        );
        assert_eq!(wrap("", 10), [""]);
    }

    #[test]
    fn a_missing_part_shows_what_to_do_under_its_name() {
        let missing: Result<()> = Err(Error::invalid("there is none; install it"));
        let report = Report {
            version: "0",
            parts: vec![
                Part { part: "CPU", state: State::Ready, text: "2 threads".to_string() },
                part("NVRTC", &missing, |()| String::new()),
            ],
            tried: Vec::new(),
            devices: vec!["cpu".to_string()],
            auto: "cpu".to_string(),
        };
        let text = console::strip_ansi_codes(&human(&report, 80)).into_owned();
        assert!(text.contains("✓ CPU            2 threads\n"), "{text}");
        assert!(text.contains("✗ NVRTC          there is none; install it\n"), "{text}");
        assert!(text.ends_with("--device can be cpu; auto is cpu.\n"), "{text}");
    }
}
