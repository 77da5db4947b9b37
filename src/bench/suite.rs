//! The measurements of `bench`, in order, within a time.

use std::time::Instant;

use super::networks::NetworkName;
use super::results::{Kind, Results, Row};
use super::roofline::{Floors, Rates};
use super::row_scores::{Measured, measured};
use super::steps::{StepKind, StepWork};
use super::timing::{Patience, Until, time_calls};
use super::work::{computes_in, work};
use crate::backend::Choice;
use crate::error::{Error, Result};
use crate::ops::{Call, Device, Hardware, HardwareKind};
use crate::plan::Fusions;
use crate::tensor::DType;

/// Which rows are wanted: any whose name contains the text, or matches it where it has `*` or `?`.
#[derive(Debug, Clone)]
pub enum Filter {
    /// All rows.
    All,
    /// Rows whose name contains a text.
    Contains(String),
    /// Rows whose name matches a pattern.
    Matches(glob::Pattern),
}

impl Filter {
    /// A filter from the user's text.
    ///
    /// # Errors
    /// A pattern that makes no sense.
    pub fn new(text: Option<&str>) -> Result<Filter> {
        match text {
            None => Ok(Filter::All),
            Some(text) if text.contains(['*', '?', '[']) => {
                let pattern = glob::Pattern::new(text)
                    .map_err(|error| Error::usage(format!("--only {text}: {error}")))?;
                Ok(Filter::Matches(pattern))
            }
            Some(text) => Ok(Filter::Contains(text.to_string())),
        }
    }

    /// Whether a row is wanted.
    pub fn wants(&self, name: &str) -> bool {
        match self {
            Filter::All => true,
            Filter::Contains(text) => name.contains(text.as_str()),
            Filter::Matches(pattern) => pattern.matches(name),
        }
    }
}

/// A request to measure.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Networks; none: the standard ones of the device.
    pub networks: Vec<NetworkName>,
    /// Images in a batch; none: the standard one of the device. Operations are measured at the first.
    pub batches: Vec<usize>,
    /// The fusions of their plans.
    pub fusions: Fusions,
    /// Whether to measure single operations.
    pub operations: bool,
    /// Whether to measure whole steps.
    pub steps: bool,
    /// Whether to say of each step where its time goes.
    pub calls: bool,
    /// The rows to measure.
    pub filter: Filter,
    /// How long to measure each.
    pub patience: Patience,
    /// Rows that would begin later than this are cut, and named.
    pub until: Until,
}

/// Receives the progress of the measurements.
pub trait Observer {
    /// `rows` rows are to come, on this device.
    fn begin(&mut self, hardware: &Hardware, rows: usize);
    /// A row begins.
    fn row(&mut self, name: &str);
    /// A row is done.
    fn done(&mut self, row: &Row);
}

/// Measures.
///
/// # Errors
/// The device cannot be had, or nothing is to be measured. A row that fails holds its error, and the others go on.
pub fn bench(choice: &Choice, suite: &Suite, observer: &mut dyn Observer) -> Result<Results> {
    let Plan { hardware, dtype, rates, mut calls, networks, batches } =
        suite.survey(&mut *choice.device()?)?;
    let steps: Vec<_> = steps(suite, &networks, &batches, dtype);
    calls.extend(suite.row_passes(choice, hardware.kind));
    if calls.is_empty() && steps.is_empty() {
        return Err(Error::usage(
            "no row is called like that; without --only all of them are measured and printed by name",
        ));
    }
    let mut results = Results::new(&hardware, rates.clone(), choice.kernels_taken());
    observer.begin(&hardware, calls.len() + steps.len());
    let mut stopped = false;
    for (kind, network, batch, name) in steps {
        if suite.until.is_over() || stopped {
            results.cut.push(name);
            continue;
        }
        observer.row(&name);
        let started = Instant::now();
        let (fusions, patience, rates) = (suite.fusions, suite.patience, rates.as_ref());
        let row = StepWork { kind, network, batch, fusions, patience, rates, calls: suite.calls, started }
            .run(choice)
            .unwrap_or_else(|error| {
                stopped = stopped || answers_nothing(choice, &error);
                failed(name, Kind::Step, dtype, &error)
            });
        observer.done(&row);
        results.push(row);
    }
    if !calls.is_empty() {
        let device = &mut *choice.device()?;
        for (name, calls) in calls {
            if suite.until.is_over() || stopped {
                results.cut.push(name);
                continue;
            }
            observer.row(&name);
            let dtype = computes_in(&calls[0], dtype);
            let row = operation(device, name.clone(), &calls, &suite.patience, rates.as_ref())
                .unwrap_or_else(|error| {
                    stopped = stopped || device.synchronise().is_err();
                    failed(name, Kind::Operation, dtype, &error)
                });
            observer.done(&row);
            results.push(row);
        }
    }
    Ok(results)
}

/// Whether a device that failed answers nothing any more: a GPU that hangs, or a context that a fault has left.
fn answers_nothing(choice: &Choice, error: &Error) -> bool {
    matches!(error, Error::DeviceHangs(_)) || choice.device().and_then(|device| device.synchronise()).is_err()
}

/// Rows, features and classes of the passes over rows of features on a GPU.
pub(super) const PASSES_ON_A_GPU: [usize; 3] = [1_000_000, 512, 100];

impl Suite {
    /// Whether a row of another run is one that this suite asks for, as far as its name and kind tell.
    pub fn wants(&self, row: &Row) -> bool {
        let kind = if row.kind == Kind::Step { self.steps } else { self.operations };
        kind && self.filter.wants(&row.name)
    }

    /// The passes over rows of features, which belong to no network: a million rows, on an emulator as few as take it a
    /// moment.
    fn row_passes(&self, choice: &Choice, kind: HardwareKind) -> Vec<Measured> {
        if !self.operations || !self.networks.is_empty() || !choice.has_kernels() {
            return Vec::new();
        }
        let [rows, columns, classes] =
            if kind == HardwareKind::Emulator { [70, 33, 5] } else { PASSES_ON_A_GPU };
        let passes = measured(rows, columns, classes).into_iter();
        passes.filter(|(name, _)| self.filter.wants(name)).collect()
    }
}

fn failed(name: String, kind: Kind, dtype: DType, error: &Error) -> Row {
    Row { error: Some(error.to_string()), ..Row::new(name, kind, dtype) }
}

/// The steps that are wanted, those of large batches last: they need the most memory.
fn steps<'a>(
    suite: &Suite,
    networks: &'a [NetworkName],
    batches: &[usize],
    dtype: DType,
) -> Vec<(StepKind, &'a NetworkName, usize, String)> {
    let mut steps = Vec::new();
    for kind in [StepKind::Train, StepKind::Extract] {
        for &batch in batches {
            for network in networks {
                let name = kind.row(network, batch, dtype);
                if suite.steps && suite.filter.wants(&name) {
                    steps.push((kind, network, batch, name));
                }
            }
        }
    }
    steps
}

/// The calls and steps to measure.
struct Plan {
    hardware: Hardware,
    dtype: DType,
    rates: Option<Rates>,
    calls: Vec<Measured>,
    networks: Vec<NetworkName>,
    batches: Vec<usize>,
}

impl Suite {
    /// The calls and steps to measure on a device.
    fn survey(&self, device: &mut dyn Device) -> Result<Plan> {
        let (hardware, dtype) = (device.hardware(), device.dtype());
        let (networks, batches) = NetworkName::or_standard(&self.networks, &self.batches, hardware.kind);
        let mut calls: Vec<Measured> = Vec::new();
        for network in if self.operations { networks.as_slice() } else { &[] } {
            for call in network.calls(device, batches[0], self.fusions)? {
                let name = format!("{}.{}.{}", call.name(), call.shape(), super::precision(dtype));
                if self.filter.wants(&name) && calls.iter().all(|(known, _)| *known != name) {
                    calls.push((name, vec![call]));
                }
            }
        }
        // Operations of a kind beside each other, in the order of their first appearance.
        let order: Vec<&str> = calls.iter().map(|(_, calls)| calls[0].name()).collect();
        let mut sorted = calls.clone();
        sorted.sort_by_key(|(_, calls)| order.iter().position(|name| *name == calls[0].name()));
        Ok(Plan { rates: Rates::of(device)?, calls: sorted, hardware, dtype, networks, batches })
    }
}

/// Times calls one after the other, and sets the sums of their floors beside it.
fn operation(
    device: &mut dyn Device,
    name: String,
    calls: &[Call<()>],
    patience: &Patience,
    rates: Option<&Rates>,
) -> Result<Row> {
    let works: Vec<_> = calls.iter().map(|call| work(call, device.dtype())).collect();
    let dtype = computes_in(&calls[0], device.dtype());
    let mut row = Row::new(name, Kind::Operation, dtype);
    row.flop = works.iter().map(|work| work.flop).sum();
    row.bytes = works.iter().map(|work| work.bytes).sum();
    row.timing = Some(time_calls(device, calls, patience)?);
    if let Some(rates) = rates {
        let floors: Vec<_> = works.iter().map(|work| rates.floors(work)).collect();
        let arithmetic = floors.iter().filter_map(|floors| floors.arithmetic);
        row.floor_arithmetic_seconds = arithmetic.reduce(|a, b| a + b);
        row.floor_memory_seconds = Some(floors.iter().map(|floors| floors.memory).sum());
        row.floor_seconds = Some(floors.iter().map(Floors::larger).sum());
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_takes_a_part_of_a_name_or_a_pattern() {
        let wants = |text: &str, name: &str| Filter::new(Some(text)).unwrap().wants(name);
        assert!(wants("conv2d", "conv2d_forward.1x1x1x1-k1.f32") && !wants("conv3d", "conv2d_forward.f32"));
        assert!(wants("train.*.b512.*", "train.resnet18-cifar.32.b512.bf16"));
        assert!(!wants("train.*.b512", "train.resnet18-cifar.32.b512.bf16"));
        assert_eq!(Filter::new(Some("train.[")).unwrap_err().exit_code(), 2);
    }
}
