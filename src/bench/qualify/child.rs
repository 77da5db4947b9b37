//! The child process: carries out trials on a device, and says on standard output what it is about to do and what came of it.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::trial::{Mechanism, Trial};
use crate::backend::cpu::Cpu;
use crate::backend::cuda::driver::Launches;
use crate::backend::cuda::driver::recorder::Recorder;
use crate::backend::cuda::{Cuda, Exclusions, GRAPHS, Sources};
use crate::backend::{Choice, Precision};
use crate::bench::check::judge_watched;
use crate::bench::configurations::{KernelName, on_paper, table};
use crate::bench::stage::Stage;
use crate::error::{Error, Result};
use crate::ops::{Call, Device};
use crate::tensor::{DType, HostValues, Span, aligned};

/// Trials to carry out, and the device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// As `--device` names it.
    pub device: String,
    /// As `--precision` names it.
    pub precision: Precision,
    /// The folder of edited kernels, if there is one.
    pub kernels: Option<PathBuf>,
    /// A folder of kernels that were compiled elsewhere, if there is one.
    pub kernel_cache: Option<PathBuf>,
    /// CPU threads; 0 means one per core.
    pub threads: usize,
    /// How long to wait for the device, in seconds.
    pub timeout: f64,
    /// What is known not to work.
    pub exclusions: Exclusions,
    /// Only compile, for the processes that try: compilers work for one thread of a process at a time.
    pub compile_only: bool,
    /// What to try, in order.
    pub trials: Vec<Trial>,
}

/// A line of the child's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "event")]
pub enum Event {
    /// It compiles the kernels of a trial.
    Compiling {
        /// The place of the trial in the job.
        trial: usize,
    },
    /// The device runs a call of a trial.
    Running {
        /// The place of the trial in the job.
        trial: usize,
        /// The call, by name and shape.
        call: String,
    },
    /// The device is done with that call; the CPU computes what should have come of it.
    Judging {
        /// The place of the trial in the job.
        trial: usize,
    },
    /// A trial is over.
    Done {
        /// The place of the trial in the job.
        trial: usize,
        /// Its outcome.
        outcome: Outcome,
    },
}

/// The outcome of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Outcome {
    /// Every result is within its bounds.
    Right,
    /// A result is not.
    Wrong {
        /// The call, by name and shape.
        call: String,
        /// How wrong, in words.
        how: String,
    },
    /// There is no result: it does not compile, load, launch or end, or the device failed.
    Failed {
        /// The call, by name and shape.
        call: String,
        /// The error.
        error: String,
    },
}

/// Carries out the job on standard input, until the first trial that leaves the device in doubt.
///
/// # Errors
/// No job, a device that cannot be had, or nobody who reads.
pub fn carry_out(mut input: impl BufRead, mut output: impl Write) -> Result<()> {
    let mut text = String::new();
    input.read_to_string(&mut text).map_err(|e| Error::io("read", "standard input", e))?;
    let job: Job = serde_json::from_str(&text).map_err(|error| {
        Error::usage(format!(
            "this verb is how the program tries kernels in a process of its own, and reads what to try from standard input; \
             found something else: {error}"
        ))
    })?;
    let choice = Choice {
        device: job.device.parse()?,
        precision: job.precision,
        threads: job.threads,
        kernels: job.kernels.as_deref().map_or_else(|| Ok(Sources::default()), Sources::of_folder)?,
        kernel_cache: job.kernel_cache.clone(),
        launches: Launches::Serial,
        exclusions: job.exclusions.clone(),
        timeout: Some(std::time::Duration::from_secs_f64(job.timeout)),
        ..Choice::default()
    };
    let mut tell = |event: &Event| -> Result<()> {
        let line = serde_json::to_string(event).expect("events are plain values");
        writeln!(output, "{line}")
            .and_then(|()| output.flush())
            .map_err(|e| Error::io("write", "standard output", e))
    };
    if job.compile_only {
        compile_only(&choice, &job.trials);
        return Ok(());
    }
    probe(&choice, &job.trials)?;
    let mut reference = Cpu::<f64>::new(job.threads)?;
    let mut culprits: Vec<&KernelName> = Vec::new();
    for (index, trial) in job.trials.iter().enumerate() {
        // A kernel that fails in one form is used in none.
        if trial.kernel.as_ref().is_some_and(|kernel| culprits.contains(&kernel)) {
            continue;
        }
        tell(&Event::Compiling { trial: index })?;
        let outcome = match trial.mechanism {
            None => kernel(&choice, &mut reference, trial, index, &mut tell),
            Some(mechanism) => compare(&choice, mechanism, trial, index, &mut tell),
        };
        let outcome = outcome?;
        let is_right = outcome == Outcome::Right;
        let is_in_doubt = matches!(outcome, Outcome::Failed { .. });
        tell(&Event::Done { trial: index, outcome })?;
        if is_in_doubt || !is_right && trial.word().is_none() {
            break;
        }
        if !is_right {
            culprits.extend(&trial.kernel);
        }
    }
    Ok(())
}

/// Takes the memory that the largest trial needs, and writes and reads some of it: what fails here is no kernel's fault.
fn probe(choice: &Choice, trials: &[Trial]) -> Result<()> {
    const NUMBERS: usize = 1 << 16;
    let mut device = choice.kernels()?;
    let calls = trials.iter().filter(|trial| trial.mechanism.is_none()).flat_map(|trial| &trial.calls);
    let bytes = calls.map(|call| Stage::bytes(&device, std::slice::from_ref(call)));
    let most = bytes.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
    let span = Span { offset: aligned(device.red_zone()), elements: NUMBERS, dtype: DType::F32 };
    device.allocate((2 * most).max(2 * span.bytes() + 4 * span.offset))?;
    let values: Vec<f64> = (0..NUMBERS).map(|number| number as f64).collect();
    let mut read = vec![0.0; NUMBERS];
    device.write(span, HostValues::F64(&values))?;
    device.read_f64(span, &mut read)?;
    if read == values {
        return Ok(());
    }
    Err(Error::invalid(
        "the device's memory does not hold what is written to it: copies to it and back give other numbers",
    ))
}

type Tell<'a> = dyn FnMut(&Event) -> Result<()> + 'a;

fn name(call: &Call<()>) -> String {
    format!("{}.{}", call.name(), call.shape())
}

/// Tries a kernel on the calls of its trial.
fn kernel(
    choice: &Choice,
    reference: &mut Cpu<f64>,
    trial: &Trial,
    index: usize,
    tell: &mut Tell<'_>,
) -> Result<Outcome> {
    let failed =
        |call: &Call<()>, error: &Error| Outcome::Failed { call: name(call), error: error.to_string() };
    let (mut device, mut paper, recorder) = devices(choice, trial)?;
    for call in &trial.calls {
        if let Err(error) = compile(&device, &mut paper, &recorder, call) {
            return Ok(failed(call, &error));
        }
    }
    for call in &trial.calls {
        tell(&Event::Running { trial: index, call: name(call) })?;
        let mut is_done = || tell(&Event::Judging { trial: index });
        let check = judge_watched(&mut device, reference, name(call), call, &mut is_done)?;
        if let Some(failure) = check.failure {
            return Ok(Outcome::Failed { call: check.name, error: failure });
        }
        if !check.passed {
            let how = format!(
                "`{}` is {:.1e} of its norm off the CPU's in f64 (limit {:.0e})",
                check.operand,
                check.error.unwrap_or(f64::NAN),
                check.limit
            );
            return Ok(Outcome::Wrong { call: check.name, how });
        }
    }
    Ok(Outcome::Right)
}

/// Compiles the kernels of trials, as far as they compile: the process that tries them says what does not.
fn compile_only(choice: &Choice, trials: &[Trial]) {
    let of_trial = |trial: &Trial| -> Result<()> {
        let (device, mut paper, recorder) = devices(choice, trial)?;
        for call in &trial.calls {
            Stage::new(&mut paper, std::slice::from_ref(call), 1)?.run(0)?;
            recorder.take().iter().try_for_each(|launch| device.compile(&launch.source))?;
        }
        Ok(())
    };
    for trial in trials {
        let _ = of_trial(trial);
    }
}

/// The device of a trial, the same on paper, and what remembers the launches of that.
fn devices(choice: &Choice, trial: &Trial) -> Result<(Cuda, Cuda, Arc<Recorder>)> {
    let device = choice.kernels()?;
    let (paper, recorder) = on_paper(&device)?;
    let Some(kernel) = &trial.kernel else { return Ok((device, paper, recorder)) };
    let table = table(&device, kernel, &trial.calls)?;
    Ok((device.with_table(table.clone())?, paper.with_table(table)?, recorder))
}

/// Compiles and loads the kernels that a call launches, so that running them is nothing but running.
fn compile(device: &Cuda, paper: &mut Cuda, recorder: &Recorder, call: &Call<()>) -> Result<()> {
    Stage::new(paper, std::slice::from_ref(call), 1)?.run(0)?;
    recorder.take().iter().try_for_each(|launch| device.load(&launch.source))
}

/// Runs calls one behind the other without a mechanism and with it: no bit may differ.
fn compare(
    choice: &Choice,
    mechanism: Mechanism,
    trial: &Trial,
    index: usize,
    tell: &mut Tell<'_>,
) -> Result<Outcome> {
    let call = format!("{} calls of the plan, one behind the other", trial.calls.len());
    let plain: Exclusions = GRAPHS.parse()?;
    let without = Choice { exclusions: choice.exclusions.and(&plain), ..choice.clone() };
    let with = match mechanism {
        Mechanism::Graphs => choice.clone(),
        Mechanism::Pdl => Choice { launches: Launches::Overlapped, ..without.clone() },
    };
    let mut run = |choice: &Choice| -> Result<String> {
        let mut device = choice.kernels()?;
        let (mut paper, recorder) = on_paper(&device)?;
        for call in &trial.calls {
            compile(&device, &mut paper, &recorder, call)?;
        }
        tell(&Event::Running { trial: index, call: call.clone() })?;
        let mut stage = Stage::new(&mut device, &trial.calls, 1)?;
        stage.fill()?;
        stage.run(0)?;
        match stage.capture(1)? {
            Some(graph) => stage.replay(&graph)?,
            None => stage.run(0)?,
        }
        stage.fingerprint()
    };
    Ok(match run(&without).and_then(|expected| Ok((expected, run(&with)?))) {
        Ok((expected, found)) if expected == found => Outcome::Right,
        Ok(_) => Outcome::Wrong { call, how: "their results have other bits than without".into() },
        Err(error) => Outcome::Failed { call, error: error.to_string() },
    })
}
