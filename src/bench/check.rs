//! The checks of `doctor --full`: every operation of a device against the same call on the CPU in f64, and whole training steps of a
//! GPU against themselves without overlapped launches.

use serde::Serialize;

use super::edge_cases::edge_cases;
use super::networks::NetworkName;
use super::overlap::compare_launches;
use super::roofline::Rates;
use super::stage::Stage;
use super::steps::StepKind;
use super::suite::Filter;
use super::timing::{Patience, Timing, Until, time_call};
use super::values::{Values, values};
use super::work::{computes_in, work};
use crate::backend::cpu::Cpu;
use crate::backend::cuda::TakenSources;
use crate::backend::{Choice, DeviceName};
use crate::error::{Error, Result};
use crate::ops::{Access, Call, Device, HardwareKind, Operand, Part};
use crate::plan::Fusions;
use crate::tensor::DType;

/// Images in a batch unless another number is given; an emulator takes fewer.
const BATCH: usize = 32;

/// A request to check.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Networks whose shapes are checked; none: the standard ones of the device.
    pub networks: Vec<NetworkName>,
    /// Images in a batch; none: 32, on an emulator 2.
    pub batch: Option<usize>,
    /// Which operations, by name.
    pub filter: Filter,
    /// How long to time each; none: not at all.
    pub patience: Option<Patience>,
    /// Checks that would begin later than this are cut, and named.
    pub until: Until,
}

/// One operation at one shape, checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Check {
    /// `conv2d_forward.2x5x7x3-k5-1x1-s1p0.bf16`.
    pub name: String,
    /// Type of activations.
    pub precision: &'static str,
    /// ‖out − reference‖ / ‖reference‖ of the worst result; of integers, the share that differs.
    pub error: Option<f64>,
    /// The worst result.
    pub operand: &'static str,
    /// The largest error allowed.
    pub limit: f64,
    /// Whether the error is within the limit.
    pub passed: bool,
    /// The device's error, where it gave no result.
    pub failure: Option<String>,
    /// How long it takes.
    #[serde(flatten)]
    pub timing: Option<Timing>,
    /// Floating-point operations a second / 10^12, where it multiplies matrices.
    pub teraflops: Option<f64>,
    /// Bytes that must move, a second / 10^9.
    pub gigabytes_per_second: Option<f64>,
    /// Share of the larger floor in the time.
    pub share: Option<f64>,
}

impl Check {
    /// One about to be made.
    pub(super) fn new(name: String, dtype: DType, limit: f64) -> Check {
        Check { name, precision: super::precision(dtype), limit, ..Check::default() }
    }

    pub(super) fn found(&mut self, error: f64) {
        self.error = Some(error);
        self.passed = error <= self.limit;
    }
}

/// All checks of a device in one precision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checks {
    /// The card or processor.
    pub card: String,
    /// Versions of driver and compiler.
    pub driver: String,
    /// Version and commit of this program.
    pub program: String,
    /// When, in UTC.
    pub date: String,
    /// The folder that kernels were taken from, where it is not the binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernels: Option<TakenSources>,
    /// One by one.
    pub checks: Vec<Check>,
    /// Checks that the time did not suffice for.
    pub cut: Vec<String>,
}

impl Checks {
    /// Number of checks that are wrong.
    pub fn wrong(&self) -> usize {
        self.checks.iter().filter(|check| !check.passed).count()
    }
}

/// Receives the progress of the checks.
pub trait CheckObserver {
    /// `checks` checks are to come.
    fn begin(&mut self, checks: usize);
    /// One begins.
    fn check(&mut self, name: &str);
    /// One is done.
    fn done(&mut self, check: &Check);
}

/// The largest error by type, for fresh random inputs that the type holds exactly.
fn limit(dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => 1e-2,
        DType::F64 => 1e-12,
        _ => 1e-5,
    }
}

/// Checks every operation of a device.
///
/// # Errors
/// The device cannot be had. What it does wrong is in the result.
pub fn check(choice: &Choice, options: &CheckOptions, observer: &mut dyn CheckObserver) -> Result<Checks> {
    let trainings = trainings(choice, options);
    let mut checks = check_calls(&mut *choice.device()?, options, trainings.len(), observer, choice.threads)?;
    checks.kernels = choice.kernels_taken();
    for (name, network) in trainings {
        if options.until.is_over() {
            checks.cut.push(name);
            continue;
        }
        observer.check(&name);
        let check = compare_launches(choice, &network, options.batch.unwrap_or(BATCH), name);
        observer.done(&check);
        checks.checks.push(check);
    }
    Ok(checks)
}

/// Networks that are trained with overlapped launches and without, under the names of these checks; on a GPU alone.
fn trainings(choice: &Choice, options: &CheckOptions) -> Vec<(String, NetworkName)> {
    if !choice.has_kernels() || choice.device == DeviceName::Emulator {
        return Vec::new();
    }
    let (networks, _) = NetworkName::or_standard(&options.networks, &[], HardwareKind::Gpu);
    let batch = options.batch.unwrap_or(BATCH);
    let named = networks.into_iter().map(|network| {
        let step = StepKind::Train.row(&network, batch, choice.dtype());
        (format!("overlapped_launches.{step}"), network)
    });
    named.filter(|(name, _)| options.filter.wants(name)).collect()
}

/// Checks calls, edge cases first; `others` checks of another kind follow.
fn check_calls(
    device: &mut dyn Device,
    options: &CheckOptions,
    others: usize,
    observer: &mut dyn CheckObserver,
    threads: usize,
) -> Result<Checks> {
    let mut reference = Cpu::<f64>::new(threads)?;
    let hardware = device.hardware();
    let emulated = hardware.kind == HardwareKind::Emulator;
    let (networks, _) = NetworkName::or_standard(&options.networks, &[], hardware.kind);
    let batch = options.batch.unwrap_or(if emulated { 2 } else { BATCH });
    let mut calls: Vec<(String, Call<()>)> = Vec::new();
    let mut add = |call: Call<()>| {
        let name = format!(
            "{}.{}.{}",
            call.name(),
            call.shape(),
            super::precision(computes_in(&call, device.dtype()))
        );
        if options.filter.wants(&name) && calls.iter().all(|(known, _)| *known != name) {
            calls.push((name, call));
        }
    };
    edge_cases().into_iter().for_each(&mut add);
    for network in networks {
        network.calls(device, batch, Fusions::ALL)?.into_iter().for_each(&mut add);
    }
    if calls.is_empty() && others == 0 {
        return Err(Error::usage("no operation is called like that; without --only all are checked"));
    }
    let timed = options.patience.filter(|_| !emulated);
    let rates = if timed.is_some() { Rates::of(device)? } else { None };
    let mut checks = Checks {
        card: hardware.name,
        driver: hardware.versions,
        program: env!("RESIDUA_VERSION").to_string(),
        date: super::results::now(),
        kernels: None,
        checks: Vec::new(),
        cut: Vec::new(),
    };
    observer.begin(calls.len() + others);
    for (name, call) in calls {
        if options.until.is_over() {
            checks.cut.push(name);
            continue;
        }
        observer.check(&name);
        let mut check = judge(device, &mut reference, name, &call)?;
        if let Some(patience) = timed.filter(|_| check.failure.is_none()) {
            time(device, &call, &patience, rates.as_ref(), &mut check);
        }
        observer.done(&check);
        checks.checks.push(check);
    }
    Ok(checks)
}

/// Random values for a call's operands, which the device's type holds exactly.
fn inputs(call: &Call<()>, dtype: DType) -> Result<Vec<Values>> {
    call.check_attributes()?;
    let values =
        |operand: Operand<()>| values(call, (operand.name, operand.element), operand.elements, dtype);
    Ok(call.operands().into_iter().map(values).collect())
}

/// Runs a call on the device and on the reference, and compares their results.
fn judge(device: &mut dyn Device, reference: &mut Cpu<f64>, name: String, call: &Call<()>) -> Result<Check> {
    let inputs = inputs(call, device.dtype())?;
    let dtype = computes_in(call, device.dtype());
    let check = Check::new(name, dtype, limit(dtype));
    match results(device, call, &inputs) {
        Ok(found) => {
            let expected = expected(reference, call, inputs, &found)?;
            Ok(compare(check, call, &found, &expected))
        }
        Err(error) => Ok(Check { failure: Some(error.to_string()), ..check }),
    }
}

/// The device's results beside the expected ones.
fn compare(mut check: Check, call: &Call<()>, found: &[Values], expected: &[Values]) -> Check {
    let mut worst = 0.0;
    for ((operand, found), expected) in call.operands().into_iter().zip(found).zip(expected) {
        let written = operand.access != Access::Read;
        let error = if written { difference(found, expected) } else { 0.0 };
        if error > worst || check.operand.is_empty() && written {
            (worst, check.operand) = (error.max(worst), operand.name);
        }
    }
    check.found(worst);
    check
}

/// A plain call and the CPU's results: computed once, for all kernels that can carry it out.
pub(super) struct Reference {
    call: Call<()>,
    inputs: Vec<Values>,
    expected: Vec<Values>,
}

impl Reference {
    /// With random values that a type holds exactly.
    pub fn new(reference: &mut Cpu<f64>, call: Call<()>, dtype: DType) -> Result<Reference> {
        let inputs = inputs(&call, dtype)?;
        let expected = results(reference, &call, &inputs)?;
        Ok(Reference { call, inputs, expected })
    }

    /// Holds a device to it.
    pub fn judge(&self, device: &mut dyn Device, name: String) -> Check {
        let check = Check::new(name, device.dtype(), limit(device.dtype()));
        match results(device, &self.call, &self.inputs) {
            Ok(found) => compare(check, &self.call, &found, &self.expected),
            Err(error) => Check { failure: Some(error.to_string()), ..check },
        }
    }
}

/// The reference's results for a call's operands. Of a call of several parts the last reads the values that the device stored,
/// rounded as the device rounds: a spread of two rows would else be judged by their roundings. Values between parts are stored
/// nowhere.
fn expected(
    reference: &mut Cpu<f64>,
    call: &Call<()>,
    inputs: Vec<Values>,
    found: &[Values],
) -> Result<Vec<Values>> {
    let numbered = call.numbered();
    let own = |part: &Part<usize>| match *part {
        Part::Own(operand) => Some(operand),
        Part::Between(_) => None,
    };
    let parts = numbered.expand().and_then(|parts| {
        let calls = parts.iter().map(|part| {
            let stored = part.operands().iter().all(|operand| own(&operand.place).is_some());
            stored.then(|| part.map(|operand| own(&operand).expect("an operand that is stored")))
        });
        calls.collect::<Option<Vec<_>>>()
    });
    let parts = parts.unwrap_or_else(|| vec![numbered]);
    let (mut expected, mut given) = (inputs.clone(), inputs);
    for (index, part) in parts.iter().enumerate() {
        let operands = part.operands();
        let read: Vec<Values> = operands.iter().map(|operand| given[operand.place].clone()).collect();
        let written = results(reference, &part.map(|_| ()), &read)?;
        let before_last = index + 2 == parts.len();
        for (operand, written) in operands.iter().zip(written) {
            if operand.access != Access::Read {
                given[operand.place] =
                    if before_last { found[operand.place].clone() } else { written.clone() };
                expected[operand.place] = written;
            }
        }
    }
    Ok(expected)
}

fn results(device: &mut dyn Device, call: &Call<()>, inputs: &[Values]) -> Result<Vec<Values>> {
    let mut stage = Stage::new(device, std::slice::from_ref(call), 1)?;
    stage.load(inputs)?;
    stage.run(0)?;
    stage.read()
}

/// ‖found − expected‖ / ‖expected‖; of integers, the share that differs. NaN in one of them only is infinitely wrong.
fn difference(found: &Values, expected: &Values) -> f64 {
    match (found, expected) {
        (Values::Numbers(found), Values::Numbers(expected)) => relative_error(found, expected),
        (Values::Integers(found), Values::Integers(expected)) => {
            let wrong = found.iter().zip(expected).filter(|(a, b)| a != b).count();
            wrong as f64 / expected.len().max(1) as f64
        }
        _ => 0.0,
    }
}

/// ‖found − expected‖ / ‖expected‖; NaN in one of them only is infinitely wrong.
pub(super) fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() || found.iter().zip(expected).any(|(a, b)| a.is_nan() != b.is_nan()) {
        return f64::INFINITY;
    }
    let pairs = || found.iter().zip(expected).filter(|(a, _)| !a.is_nan());
    let difference: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(_, b)| b * b).sum();
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// Adds the time; a device that fails now was wrong.
fn time(
    device: &mut dyn Device,
    call: &Call<()>,
    patience: &Patience,
    rates: Option<&Rates>,
    check: &mut Check,
) {
    let measured = time_call(device, call, patience);
    match measured {
        Ok(timing) => {
            let work = work(call, device.dtype());
            check.timing = Some(timing);
            check.teraflops = (work.flop > 0.0).then(|| work.flop / timing.seconds / 1e12);
            check.gigabytes_per_second = Some(work.bytes / timing.seconds / 1e9);
            check.share = rates.map(|rates| rates.floors(&work).larger() / timing.seconds);
        }
        Err(error) => {
            check.passed = false;
            check.failure = Some(error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_relative_and_nan_is_infinitely_wrong() {
        let numbers = |values: &[f64]| Values::Numbers(values.to_vec());
        assert_eq!(difference(&numbers(&[3.0, 4.0]), &numbers(&[3.0, 4.0])), 0.0);
        assert_eq!(difference(&numbers(&[3.0, 9.0]), &numbers(&[3.0, 4.0])), 1.0);
        assert_eq!(difference(&numbers(&[f64::NAN, 4.0]), &numbers(&[3.0, 4.0])), f64::INFINITY);
        assert_eq!(difference(&numbers(&[1.0]), &numbers(&[0.0])), f64::INFINITY);
        assert_eq!(difference(&Values::Integers(vec![1, 2]), &Values::Integers(vec![1, 3])), 0.5);
    }

    #[test]
    fn the_edge_cases_have_every_operation() {
        let mut names: Vec<&str> = edge_cases().iter().map(Call::name).collect();
        names.sort_unstable();
        names.dedup();
        let mut declared = Call::<()>::NAMES.to_vec();
        declared.sort_unstable();
        assert!(declared.len() > 30);
        assert_eq!(names, declared);
    }

    #[test]
    fn the_edge_cases_have_convolutions_with_every_prologue_and_epilogue() {
        let form = |call: &Call<()>| {
            let shape = call.shape();
            let fused = shape.strip_prefix("2x5x7x3-k5-1x1-s1p0")?;
            Some(format!("{}{fused}", call.name()))
        };
        let mut forms: Vec<String> = edge_cases().iter().filter_map(form).collect();
        forms.sort_unstable();
        let expected = [
            "conv2d_dgrad",
            "conv2d_dgrad-add",
            "conv2d_dgrad-add-mask-reduce",
            "conv2d_dgrad-add-reduce",
            "conv2d_dgrad-add-reduce-relu",
            "conv2d_dgrad-mask-reduce",
            "conv2d_dgrad-reduce",
            "conv2d_dgrad-reduce-relu",
            "conv2d_fprop",
            "conv2d_fprop-affine",
            "conv2d_fprop-affine-relu",
            "conv2d_fprop-affine-relu-statistics",
            "conv2d_fprop-bias",
            "conv2d_fprop-bias-residual-relu",
            "conv2d_fprop-statistics",
            "conv2d_wgrad",
            "conv2d_wgrad-affine",
            "conv2d_wgrad-affine-relu",
        ];
        assert_eq!(forms, expected);
    }
}
