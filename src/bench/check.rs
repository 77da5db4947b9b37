//! The checks of `doctor --full`: every operation of a device against the same call on the CPU in f64, as the device carries it out and
//! by every kernel that could; whole training steps against the CPU's, and on a GPU against themselves without overlapped launches.

use serde::Serialize;

use super::configurations::{KernelName, configurations, table};
use super::edge_cases::edge_cases;
use super::networks::NetworkName;
use super::roofline::Rates;
use super::stage::Stage;
use super::steps::StepKind;
use super::suite::Filter;
use super::timing::{Patience, Timing, Until, time_call};
use super::values::{Values, values};
use super::whole_steps::{compare_launches, compare_with_cpu};
use super::work::{computes_in, work};
use crate::backend::Choice;
use crate::backend::cpu::Cpu;
use crate::backend::cuda::{Cuda, TakenSources};
use crate::error::{Error, Result};
use crate::ops::{Access, Call, Device, HardwareKind, Operand, Part};
use crate::plan::Fusions;
use crate::tensor::DType;

/// Images in a batch unless another number is given; an emulator takes fewer.
const BATCH: usize = 32;
/// Images in a batch of the small networks whose steps are compared with the CPU's.
const STEPS_BATCH: usize = 16;
/// These networks: both kinds of block, both stems; four pixels at least in the last stage, for normalisation to have something to
/// go by.
const STEPS_NETWORKS: [&str; 3] =
    ["resnet18-cifar.16.w0.125", "resnet50-cifar.16.w0.125", "resnet18-imagenet.64.w0.125"];

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
    /// Checks that were not made: the time did not suffice, or the device answers nothing any more.
    pub cut: Vec<String>,
    /// After which check the device answers nothing any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
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

/// Something to check.
enum Task {
    /// A call as the device carries it out.
    Call(Call<()>),
    /// A call by a kernel of convolutions, whatever the device would choose.
    Kernel(KernelName, Call<()>),
    /// Training steps against the CPU.
    Steps(NetworkName),
    /// Training steps whose launches overlap, against serial ones.
    Launches(NetworkName),
}

/// Checks every operation of a device, every kernel of convolutions in every form, and whole steps. What leaves the device without an
/// answer to anything else is the last check.
///
/// # Errors
/// The device cannot be had. What it does wrong is in the result.
pub fn check(choice: &Choice, options: &CheckOptions, observer: &mut dyn CheckObserver) -> Result<Checks> {
    let mut device = choice.device()?;
    let mut reference = Cpu::<f64>::new(choice.threads)?;
    let hardware = device.hardware();
    let tasks = tasks(choice, options, &*device)?;
    if tasks.is_empty() {
        return Err(Error::usage("no operation is called like that; without --only all are checked"));
    }
    let timed = options.patience.filter(|_| hardware.kind != HardwareKind::Emulator);
    let rates = if timed.is_some() { Rates::of(&mut *device)? } else { None };
    let mut checks = Checks {
        card: hardware.name,
        driver: hardware.versions,
        program: env!("RESIDUA_VERSION").to_string(),
        date: super::results::now(),
        kernels: choice.kernels_taken(),
        checks: Vec::new(),
        cut: Vec::new(),
        stopped: None,
    };
    observer.begin(tasks.len());
    let mut using: Option<(KernelName, Cuda)> = None;
    for (name, task) in &tasks {
        if options.until.is_over() || checks.stopped.is_some() {
            checks.cut.push(name.clone());
            continue;
        }
        observer.check(name);
        let check = match task {
            Task::Call(call) => {
                let mut check = judge(&mut *device, &mut reference, name.clone(), call)?;
                if let Some(patience) = timed.filter(|_| check.failure.is_none()) {
                    time(&mut *device, call, &patience, rates.as_ref(), &mut check);
                }
                check
            }
            Task::Kernel(kernel, call) => {
                if using.as_ref().is_none_or(|(used, _)| used != kernel) {
                    let calls = tasks.iter().filter_map(|(_, task)| match task {
                        Task::Kernel(other, call) if other == kernel => Some(*call),
                        _ => None,
                    });
                    let cuda = choice.kernels()?.without_table();
                    let table = table(&cuda, kernel, &calls.collect::<Vec<_>>())?;
                    using = Some((kernel.clone(), cuda.with_table(table)?));
                }
                let (_, cuda) = using.as_mut().expect("set above");
                judge(cuda, &mut reference, name.clone(), call)?
            }
            Task::Steps(network) => compare_with_cpu(choice, network, STEPS_BATCH, name.clone()),
            Task::Launches(network) => {
                compare_launches(choice, network, options.batch.unwrap_or(BATCH), name.clone())
            }
        };
        observer.done(&check);
        // A fault or a hang may leave a context that answers nothing any more.
        if let (Some(_), Err(error)) = (&check.failure, device.synchronise()) {
            checks.stopped = Some(format!("the device answers nothing after {name}: {error}"));
        }
        checks.checks.push(check);
    }
    Ok(checks)
}

/// What is to be checked, by name: calls, edge cases first; then kernels; then whole steps.
fn tasks(choice: &Choice, options: &CheckOptions, device: &dyn Device) -> Result<Vec<(String, Task)>> {
    let kind = device.hardware().kind;
    let (networks, _) = NetworkName::or_standard(&options.networks, &[], kind);
    let batch = options.batch.unwrap_or(if kind == HardwareKind::Emulator { 2 } else { BATCH });
    let wants = |name: &String| options.filter.wants(name);
    let named = |call: &Call<()>| {
        let precision = super::precision(computes_in(call, device.dtype()));
        format!("{}.{}.{precision}", call.name(), call.shape())
    };
    let mut calls: Vec<(String, Call<()>)> = Vec::new();
    let mut add = |call: Call<()>| {
        let name = named(&call);
        if wants(&name) && calls.iter().all(|(known, _)| *known != name) {
            calls.push((name, call));
        }
    };
    edge_cases().into_iter().for_each(&mut add);
    for network in &networks {
        network.calls(device, batch, Fusions::ALL)?.into_iter().for_each(&mut add);
    }
    let mut tasks: Vec<(String, Task)> =
        calls.into_iter().map(|(name, call)| (name, Task::Call(call))).collect();
    if choice.has_kernels() {
        for (kernel, calls) in configurations(&choice.kernels()?)? {
            let of_kernel = calls.into_iter().map(|call| {
                (format!("{}@{}", named(&call), kernel.name), Task::Kernel(kernel.clone(), call))
            });
            tasks.extend(of_kernel.filter(|(name, _)| wants(name)));
        }
    }
    let steps = |network: &NetworkName, batch| StepKind::Train.row(network, batch, device.dtype());
    if kind != HardwareKind::Cpu || device.dtype() == DType::F32 {
        for network in STEPS_NETWORKS.map(|name| name.parse::<NetworkName>().expect("these names parse")) {
            tasks.push((format!("steps.{}", steps(&network, STEPS_BATCH)), Task::Steps(network)));
        }
    }
    if kind == HardwareKind::Gpu {
        for network in networks {
            let name = format!("overlapped_launches.{}", steps(&network, options.batch.unwrap_or(BATCH)));
            tasks.push((name, Task::Launches(network)));
        }
    }
    tasks.retain(|(name, _)| wants(name));
    Ok(tasks)
}

/// Random values for a call's operands, which the device's type holds exactly.
fn inputs(call: &Call<()>, dtype: DType) -> Result<Vec<Values>> {
    call.check_attributes()?;
    let values =
        |operand: Operand<()>| values(call, (operand.name, operand.element), operand.elements, dtype);
    Ok(call.operands().into_iter().map(values).collect())
}

/// Runs a call on the device and on the reference, and compares their results.
pub(super) fn judge(
    device: &mut dyn Device,
    reference: &mut Cpu<f64>,
    name: String,
    call: &Call<()>,
) -> Result<Check> {
    judge_watched(device, reference, name, call, &mut || Ok(()))
}

/// The same; `is_done` is called between the device's work and the reference's.
pub(super) fn judge_watched(
    device: &mut dyn Device,
    reference: &mut Cpu<f64>,
    name: String,
    call: &Call<()>,
    is_done: &mut dyn FnMut() -> Result<()>,
) -> Result<Check> {
    let inputs = inputs(call, device.dtype())?;
    let dtype = computes_in(call, device.dtype());
    let check = Check::new(name, dtype, limit(dtype));
    match results(device, call, &inputs) {
        Ok(found) => {
            is_done()?;
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
            "conv2d_fprop-bias-relu",
            "conv2d_fprop-bias-residual",
            "conv2d_fprop-bias-residual-relu",
            "conv2d_fprop-statistics",
            "conv2d_wgrad",
            "conv2d_wgrad-affine",
            "conv2d_wgrad-affine-relu",
        ];
        assert_eq!(forms, expected);
    }
}
