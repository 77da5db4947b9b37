//! Whole steps: training and extraction as the verbs do them, with the images on the device and the captured graph.

use std::collections::VecDeque;
use std::time::Instant;

use super::networks::{NetworkName, OPTIMIZER, Recorded};
use super::results::{CallTime, Kind, Row};
use super::roofline::Rates;
use super::timing::{Patience, cpu_seconds, measure, median};
use super::values::{Values, values};
use super::work::work;
use crate::backend::Choice;
use crate::error::{Error, Result};
use crate::features::batches_in_flight;
use crate::nn::{InferenceReading, Model};
use crate::ops::{Device, ElementType, HardwareKind, ImageBatch, LoadImages};
use crate::plan::{Executable, Fusions};
use crate::tensor::{DType, HostValues};
use crate::train::{BatchTargets, StepInputs, TrainStep};

/// Seconds, about, of a round of steps that are queued without waiting.
const ROUND_SECONDS: f64 = 0.3;
const MOST_STEPS_IN_A_ROUND: f64 = 500.0;

/// The kind of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Forward, backward, update.
    Train,
    /// Features and logits.
    Extract,
}

impl StepKind {
    /// The row's name: `train.resnet18-cifar.32.b512.bf16`.
    pub fn row(self, network: &NetworkName, batch: usize, dtype: DType) -> String {
        let verb = if self == StepKind::Train { "train" } else { "extract" };
        format!("{verb}.{network}.b{batch}.{}", super::precision(dtype))
    }
}

/// One row: a step to be measured.
pub(super) struct StepWork<'a> {
    pub(super) kind: StepKind,
    pub(super) network: &'a NetworkName,
    pub(super) batch: usize,
    pub(super) fusions: Fusions,
    pub(super) patience: Patience,
    pub(super) rates: Option<&'a Rates>,
    /// Whether to say where the time goes.
    pub(super) calls: bool,
    /// When the device was asked for.
    pub(super) started: Instant,
}

impl StepWork<'_> {
    /// Measures it.
    pub(super) fn run(&self, choice: &Choice) -> Result<Row> {
        let device = choice.device()?;
        match self.kind {
            StepKind::Train => self.train(device),
            StepKind::Extract => self.extract(device),
        }
    }

    fn train(&self, device: Box<dyn Device>) -> Result<Row> {
        let Recorded { network, plan, pixels, images } =
            self.network.training(&*device, self.batch, self.fusions)?;
        let mut row = self.row(&*device, plan.executable())?;
        let mut model = Model::new(network, device, plan.executable().bytes())?;
        model.initialise(0)?;
        let batches = Batches::new(&mut model, pixels, images, self.batch)?;
        let mut steps = 0;
        let mut step = |model: &mut Model| {
            let (placement, labels) = batches.next(steps);
            let (targets, rates) = (BatchTargets::plain(labels), OPTIMIZER.rates(0.01, 1));
            let slot = steps % plan.slots();
            plan.load(model, &StepInputs { pixels: &[], placement, targets: &targets, rates: &rates, slot })?;
            steps += 1;
            plan.queue(model)
        };
        step(&mut model)?;
        finite(&plan, &model)?;
        row.first_step_seconds = Some(self.started.elapsed().as_secs_f64());
        // The second step captures where the device can; the third shows how long one takes.
        step(&mut model)?;
        model.synchronise()?;
        let clock = Instant::now();
        step(&mut model)?;
        model.synchronise()?;
        let in_round = steps_in_round(clock);
        let look_every = plan.slots() / 2;
        let cpu = CpuSeconds::of(&model);
        let timing = measure(&self.patience, || {
            let clock = Instant::now();
            let mut reading = None;
            for index in 0..in_round {
                step(&mut model)?;
                // As in training: the results are fetched some steps later, so that the device need not wait.
                if index % look_every == 0
                    && let Some(earlier) = reading.replace(plan.begin_totals(&model)?)
                {
                    earlier.wait()?;
                }
            }
            model.synchronise()?;
            Ok(clock.elapsed().as_secs_f64() / in_round as f64)
        })?;
        row.cpu_seconds = cpu.of_a_step(timing.samples * in_round);
        finite(&plan, &model)?;
        if self.calls {
            row.calls = self.profile(&mut model, plan.executable())?;
        }
        row.timing = Some(timing);
        row.images_per_second = Some(self.batch as f64 / timing.seconds);
        Ok(row)
    }

    fn extract(&self, device: Box<dyn Device>) -> Result<Row> {
        let Recorded { network, plan, pixels, images } =
            self.network.inference(&*device, self.batch, self.fusions)?;
        let mut row = self.row(&*device, plan.executable())?;
        let mut model = Model::new(network, device, plan.executable().bytes())?;
        model.initialise(0)?;
        let batches = Batches::new(&mut model, pixels, images, self.batch)?;
        plan.set_up(&mut model)?;
        // As in extraction: values are looked at some batches later, so that the device need not wait.
        let most = batches_in_flight(model.device());
        let mut passes = 0;
        let mut queue = |model: &mut Model| {
            plan.images().write_bytes(model, plan.executable(), &[], batches.next(passes).0)?;
            passes += 1;
            plan.begin(model)
        };
        let look = |reading: InferenceReading| -> Result<()> {
            let heads = plan.finish(reading)?;
            if heads.iter().all(|head| head.features.iter().all(|value| value.is_finite())) {
                Ok(())
            } else {
                Err(Error::invalid(
                    "a feature is not finite: `residua doctor --full` tells which operation is wrong",
                ))
            }
        };
        let mut round = |model: &mut Model, passes: usize| -> Result<()> {
            let mut in_flight = VecDeque::new();
            for _ in 0..passes {
                in_flight.push_back(queue(model)?);
                if in_flight.len() >= most {
                    in_flight.pop_front().map_or(Ok(()), look)?;
                }
            }
            in_flight.into_iter().try_for_each(look)
        };
        round(&mut model, 1)?;
        row.first_step_seconds = Some(self.started.elapsed().as_secs_f64());
        round(&mut model, 1)?;
        let clock = Instant::now();
        round(&mut model, 1)?;
        let in_round = steps_in_round(clock);
        let cpu = CpuSeconds::of(&model);
        let timing = measure(&self.patience, || {
            let clock = Instant::now();
            round(&mut model, in_round)?;
            Ok(clock.elapsed().as_secs_f64() / in_round as f64)
        })?;
        row.cpu_seconds = cpu.of_a_step(timing.samples * in_round);
        if self.calls {
            row.calls = self.profile(&mut model, plan.executable())?;
        }
        row.timing = Some(timing);
        row.images_per_second = Some(self.batch as f64 / timing.seconds);
        Ok(row)
    }

    /// Times each call of some steps; of calls that are alike the medians over the steps, added up.
    fn profile(&self, model: &mut Model, executable: &Executable) -> Result<Vec<CallTime>> {
        let calls = &executable.plan().calls;
        let mut durations = vec![Vec::new(); calls.len()];
        let begun = Instant::now();
        while durations[0].len() < self.patience.least
            || begun.elapsed().as_secs_f64() < 0.5 * self.patience.seconds
        {
            let mut of_calls = durations.iter_mut();
            model.run_timed(executable, |_, seconds| {
                if let Some(durations) = of_calls.next() {
                    durations.push(seconds);
                }
            })?;
        }
        let dtype = model.device().dtype();
        let mut found: Vec<CallTime> = Vec::new();
        for (call, mut durations) in calls.iter().zip(durations) {
            let name = format!("{} {}", call.name(), call.shape());
            let work = work(call, dtype);
            let at = found.iter().position(|known| known.name == name).unwrap_or_else(|| {
                found.push(CallTime { name, ..CallTime::default() });
                found.len() - 1
            });
            let alike = &mut found[at];
            alike.count += 1;
            alike.seconds += median(&mut durations);
            alike.flop += work.flop;
            alike.bytes += work.bytes;
            if let Some(rates) = self.rates {
                *alike.floor_seconds.get_or_insert(0.0) += rates.floors(&work).larger();
            }
        }
        found.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Ok(found)
    }

    /// The row with the work of the plan, and its floors.
    fn row(&self, device: &dyn Device, executable: &Executable) -> Result<Row> {
        let dtype = device.dtype();
        let mut row = Row::new(self.kind.row(self.network, self.batch, dtype), Kind::Step, dtype);
        let mut ideal = 0.0;
        let (mut flop, mut bytes) = (0.0, 0.0);
        for call in &executable.plan().calls {
            let work = work(call, dtype);
            flop += work.flop;
            bytes += work.bytes;
            ideal += self.rates.map_or(0.0, |rates| rates.floors(&work).larger());
        }
        (row.flop, row.bytes) = (flop, bytes);
        row.floor_seconds = self.rates.map(|_| ideal);
        Ok(row)
    }
}

/// The processor seconds that steps on the CPU use.
struct CpuSeconds {
    before: Option<f64>,
}

impl CpuSeconds {
    fn of(model: &Model) -> CpuSeconds {
        let on_cpu = model.device().hardware().kind == HardwareKind::Cpu;
        CpuSeconds { before: on_cpu.then(cpu_seconds).flatten() }
    }

    fn of_a_step(&self, steps: usize) -> Option<f64> {
        Some((cpu_seconds()? - self.before?) / steps as f64)
    }
}

fn steps_in_round(one: Instant) -> usize {
    (ROUND_SECONDS / one.elapsed().as_secs_f64().max(1e-6)).ceil().min(MOST_STEPS_IN_A_ROUND) as usize
}

fn finite(plan: &TrainStep, model: &Model) -> Result<()> {
    let losses = plan.losses(model)?;
    let loss = losses.iter().sum::<f64>() / losses.len() as f64;
    if loss.is_finite() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the loss is {loss}, so these steps say nothing: `residua doctor --full` tells which operation is wrong"
    )))
}

/// Placements and labels of some batches of random images.
pub(super) struct Batches {
    batch: usize,
    placements: Vec<i32>,
    labels: Vec<i32>,
}

impl Batches {
    /// Puts random images on the device, normalised as bytes between -2 and 2.
    pub(super) fn new(
        model: &mut Model,
        pixels: crate::tensor::Span,
        images: usize,
        batch: usize,
    ) -> Result<Batches> {
        let attributes = ImageBatch { images, batch: images, side: 1, channels: 3 };
        let call = LoadImages::alone(attributes);
        if let Values::Bytes(bytes) = values(&call, ("pixels", ElementType::U8), pixels.elements, DType::F32)
        {
            model.write(pixels, HostValues::U8(&bytes))?;
        }
        let table = model.network().parameters().image_table();
        let normalised: Vec<f32> = (0..table.elements).map(|i| (i % 256) as f32 / 64.0 - 2.0).collect();
        model.write(table, HostValues::F32(&normalised))?;
        let numbers = images * crate::ops::PLACEMENT_NUMBERS;
        let Values::Integers(placements) =
            values(&call, ("placement", ElementType::I32), numbers, DType::F32)
        else {
            unreachable!("placements are integers")
        };
        let classes = model.network().architecture().heads[0].classes as i32;
        Ok(Batches { batch, placements, labels: (0..images as i32).map(|i| i * 7 % classes).collect() })
    }

    /// The batch of a step.
    pub(super) fn next(&self, step: usize) -> (&[i32], &[i32]) {
        let start = step % (self.labels.len() / self.batch) * self.batch;
        let numbers = crate::ops::PLACEMENT_NUMBERS;
        (&self.placements[start * numbers..][..self.batch * numbers], &self.labels[start..][..self.batch])
    }
}
