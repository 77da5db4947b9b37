//! The training loop: batches in, parameters and a run folder out.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint_manager::{CheckpointManager, Position};
use super::metrics_log::{Metrics, MetricsLog, Scope};
use super::objective::{BatchTargets, Objective};
use super::queue::{Queue, Queued, StepResult};
use super::run_record::OpenRecord;
use super::running_metrics::{Measured, RunningMetrics};
use super::sampler::balanced;
use super::step::{StepInputs, TrainStep};
use super::targets::Targets;
use super::teacher::Teacher;
use super::{FineTune, Rates, RunFolder, Sampler, Schedule, Shuffle, TrainOptions};
use crate::checkpoint::{StateDict, network};
use crate::data::{AllPixels, Batch, Loader, LoaderOptions, Order, SharedDataset, Transform};
use crate::error::Result;
use crate::features::{Evaluation, Pass};
use crate::nn::{Architecture, ImageSource, Images, Kind, Learned, Model, Network};
use crate::ops::Device;
use crate::plan::PlanId;
use crate::tensor::{DType, HostValues};

/// Data to validate on, and its name in the log.
#[derive(Debug, Clone)]
pub struct Validation {
    /// The samples.
    pub data: SharedDataset,
    /// `val`, or `test` where somebody chose to validate on test data.
    pub split: &'static str,
}

/// Everything a training starts from.
pub struct Job<'a> {
    /// The user's choices, checked.
    pub options: &'a TrainOptions,
    /// Seed of initial weights, order and augmentation.
    pub seed: u64,
    /// The training data.
    pub data: SharedDataset,
    /// The validation data.
    pub validation: Option<Validation>,
    /// From image to network input, augmentation included.
    pub transform: Transform,
    /// The network's architecture.
    pub architecture: Architecture,
    /// The target of each head for each sample.
    pub targets: &'a Targets,
    /// The loss.
    pub objective: &'a Objective,
    /// A trained model that the subclass head should agree with.
    pub teacher: Option<&'a Teacher>,
    /// Weights to start from, instead of random ones, and the file they come from.
    pub initial: Option<(&'a StateDict, &'a Path)>,
    /// Where results go.
    pub folder: &'a RunFolder,
    /// Whether to continue from the folder's last checkpoint.
    pub resume: bool,
    /// Set from outside (Ctrl-C) to stop at the next step, with a checkpoint.
    pub stop: &'a AtomicBool,
}

/// Receives the progress of a training.
pub trait Observer {
    /// The training begins, or goes on, at a step; `total` steps in all.
    fn begin(&mut self, step: u64, total: u64);
    /// A step is done, on `images` images, with the mean loss `loss`.
    fn step(&mut self, images: usize, loss: f64);
    /// A line was written to the log.
    fn logged(&mut self, metrics: &Metrics);
    /// Something that the user should know.
    fn note(&mut self, _text: &str) {}
}

/// Looks at nothing.
impl Observer for () {
    fn begin(&mut self, _step: u64, _total: u64) {}
    fn step(&mut self, _images: usize, _loss: f64) {}
    fn logged(&mut self, _metrics: &Metrics) {}
}

/// The outcome of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Steps done, from the very first.
    pub steps: u64,
    /// Whole epochs done.
    pub epochs: u64,
    /// Whether every epoch was done (not stopped by `max_steps` or the user).
    pub finished: bool,
    /// Last line of the log about the training data.
    pub train: Option<Metrics>,
    /// Last line about validation data.
    pub validation: Option<Metrics>,
    /// Seconds of this run, from its first step to the end.
    pub seconds: f64,
    /// Steps done in this run: fewer than all after a resume.
    pub steps_of_run: u64,
    /// Images trained on in this run.
    pub images_of_run: u64,
}

/// Trains on a device.
///
/// # Errors
/// Data that cannot be read, a loss that is not finite (nothing of that step is kept), a full disk, weights that do not
/// fit; the message says which.
pub fn train(device: Box<dyn Device>, job: &Job<'_>, observer: &mut dyn Observer) -> Result<Summary> {
    Trainer::new(device, job)?.run(observer)
}

struct Trainer<'a> {
    job: &'a Job<'a>,
    schedule: Schedule,
    head_schedule: Schedule,
    full: TrainStep,
    rest: Option<TrainStep>,
    resident: bool,
    queue: Queue,
    pass: Option<Pass>,
    model: Model,
    checkpoints: CheckpointManager<'a>,
    log: MetricsLog,
    position: Position,
    /// The training plan that is set up in memory.
    set_up: Option<PlanId>,
    validation: Option<Metrics>,
    /// Images trained on in this run.
    images: u64,
}

impl<'a> Trainer<'a> {
    fn new(device: Box<dyn Device>, job: &'a Job<'a>) -> Result<Trainer<'a>> {
        let options = job.options;
        let optimizer = options.optimizer();
        let learned = if options.fine_tune == FineTune::Frozen { Learned::Heads } else { Learned::All };
        let mut network =
            Network::partly_learned(&job.architecture, device.dtype(), Some(optimizer.slots()), learned);
        if let Some(teacher) = job.teacher {
            network.add_teacher(&teacher.trained.architecture, device.dtype());
        }
        let source = image_source(&mut network, &*device, job);
        // They are read while plans are made, and kernels compiled and tried.
        let images = match source {
            ImageSource::Resident { pixels, .. } => {
                Some((pixels, AllPixels::begin(job.data.clone(), &job.transform)?))
            }
            ImageSource::Bytes | ImageSource::Numbers => None,
        };
        let size = job.transform.size as usize;
        let extent = [size, size, job.architecture.in_channels];
        let samples = job.data.len();
        let batch = options.batch_size.min(samples);
        let step = |batch| {
            let images = Images { batch, extent, source };
            TrainStep::new(&network, &*device, &optimizer, &images, job.objective)
        };
        let full = step(batch);
        let rest = (!samples.is_multiple_of(batch)).then(|| step(samples % batch));
        let pass = job.validation.as_ref().map(|v| Pass::new(&network, &*device, batch, v.data.len(), size));
        let bytes = [
            Some(full.executable().bytes()),
            rest.as_ref().map(|r| r.executable().bytes()),
            pass.as_ref().map(Pass::bytes),
        ];
        let mut model = Model::new(network, device, bytes.into_iter().flatten().max().unwrap_or(0))?;
        let schedule = Schedule {
            kind: options.schedule,
            peak: options.rate(),
            epochs: options.epochs,
            steps_per_epoch: samples.div_ceil(batch) as u64,
            warmup_epochs: options.warmup_epochs,
            milestones: options.milestones(),
            decay: options.lr_decay,
        };
        let head_schedule = Schedule { peak: options.head_rate(), ..schedule.clone() };
        let mut checkpoints = CheckpointManager::new(job);
        let position = if job.resume {
            checkpoints.resume(&mut model)?
        } else {
            model.initialise(job.seed)?;
            if let Some((state, path)) = job.initial {
                network::load_start(&mut model, state, path)?;
            }
            Position::default()
        };
        if let Some(Teacher { trained, .. }) = job.teacher {
            network::load_teacher(&mut model, &trained.state, &trained.path)?;
        }
        let log = if job.resume {
            MetricsLog::resume(&job.folder.metrics(), position.step)?
        } else {
            MetricsLog::create(&job.folder.metrics())?
        };
        let resident = images.is_some();
        if let Some((pixels, images)) = images {
            model.write(pixels, HostValues::U8(&images.wait()?))?;
        }
        let queue = Queue::default();
        let validation = None;
        Ok(Trainer {
            job,
            schedule,
            head_schedule,
            full,
            rest,
            resident,
            queue,
            pass,
            model,
            checkpoints,
            log,
            position,
            set_up: None,
            validation,
            images: 0,
        })
    }

    fn run(mut self, observer: &mut dyn Observer) -> Result<Summary> {
        let (started, before) = (Instant::now(), self.position.step);
        let total = self.job.options.epochs * self.schedule.steps_per_epoch;
        let total = self.job.options.max_steps.map_or(total, |most| total.min(most));
        observer.begin(self.position.step, total);
        if let Some(note) = self.checkpoints.note.take() {
            observer.note(&note);
        }
        let (mut record, note) = OpenRecord::begin(
            self.job.folder.path(),
            self.job.resume,
            self.model.device(),
            self.position.step,
        );
        if let Some(note) = note {
            observer.note(&note);
        }
        let mut last = None;
        let mut stopped = false;
        while self.position.epoch < self.job.options.epochs && !stopped {
            let Some(metrics) = self.epoch(total, observer)? else {
                stopped = true;
                break;
            };
            last = Some(metrics);
            record.update(self.position.step, started.elapsed().as_secs_f64())?;
            stopped = self.position.step >= total && self.position.epoch < self.job.options.epochs;
        }
        record.update(self.position.step, started.elapsed().as_secs_f64())?;
        Ok(Summary {
            steps: self.position.step,
            epochs: self.position.epoch,
            finished: !stopped,
            train: last,
            validation: self.validation,
            seconds: started.elapsed().as_secs_f64(),
            steps_of_run: self.position.step - before,
            images_of_run: self.images,
        })
    }

    /// Trains to the end of the current epoch, validates, keeps a checkpoint. `None`: stopped before the end.
    fn epoch(&mut self, total: u64, observer: &mut dyn Observer) -> Result<Option<Metrics>> {
        let options = self.job.options;
        let epoch = self.position.epoch;
        let order = match (options.sampler, options.shuffle) {
            (Sampler::Balanced, _) => Order::Given(balanced(self.job.targets, self.job.seed, epoch).into()),
            (Sampler::Shuffle, Shuffle::Epoch) => Order::Shuffled,
            (Sampler::Shuffle, Shuffle::None) => Order::Sequential,
        };
        let start_batch = (self.position.step - epoch * self.schedule.steps_per_epoch) as usize;
        let mut loader = Loader::new(
            self.job.data.clone(),
            &self.job.transform,
            LoaderOptions {
                batch_size: options.batch_size.min(self.job.data.len()),
                order,
                seed: self.job.seed,
                epoch,
                start_batch,
                augment: true,
                resident: self.resident,
            },
        )?;
        let table = self.model.network().parameters().image_table();
        self.model.write(table, HostValues::F32(&self.job.transform.table()))?;
        let (epoch_clock, mut recent_clock) = (Instant::now(), Instant::now());
        let (mut recent, mut images) = (RunningMetrics::default(), 0);
        while let Some(batch) = loader.next() {
            let batch = batch?;
            let log = options.log_every > 0 && (self.position.step + 1).is_multiple_of(options.log_every);
            let in_epoch = self.position.step + 1 - epoch * self.schedule.steps_per_epoch;
            let ended = in_epoch == self.schedule.steps_per_epoch;
            let stopping =
                !ended && (self.position.step + 1 >= total || self.job.stop.load(Ordering::Relaxed));
            for result in self.step(&batch, log || ended || stopping)? {
                self.position.sums.add(&result);
                recent.add(&result);
                observer.step(result.images, result.loss / result.images as f64);
            }
            images += batch.labels.len();
            self.images += batch.labels.len() as u64;
            loader.recycle(batch);
            if log {
                let speed = recent.images as f64 / recent_clock.elapsed().as_secs_f64();
                let line = self.metrics("train", Scope::Step, self.measure(&recent), speed);
                self.log.append(&line)?;
                (recent, recent_clock) = (RunningMetrics::default(), Instant::now());
            }
            if stopping {
                self.checkpoints.keep(&self.model, &self.position, None)?;
                return Ok(None);
            }
        }
        let speed = images as f64 / epoch_clock.elapsed().as_secs_f64();
        self.position.epoch += 1;
        let sums = std::mem::take(&mut self.position.sums);
        let line = self.metrics("train", Scope::Epoch, self.measure(&sums), speed);
        self.log.append(&line)?;
        observer.logged(&line);
        let measured = self.validate(observer)?;
        self.checkpoints.keep(&self.model, &self.position, measured.as_ref())?;
        if self.checkpoints.is_kept(self.position.epoch) {
            self.log_weights()?;
        }
        let stop = self.job.stop.load(Ordering::Relaxed) && self.position.epoch < options.epochs;
        Ok((!stop).then_some(line))
    }

    /// Queues a step; returns the results that are read now: with `settle` those of all steps under way.
    fn step(&mut self, batch: &Batch, settle: bool) -> Result<Vec<StepResult>> {
        let is_full = batch.labels.len() == self.job.options.batch_size.min(self.job.data.len());
        let mut results = Vec::new();
        let plan = if is_full {
            &self.full
        } else {
            // The plans share memory: nothing of the one may be under way when the other runs.
            results = self.queue.flush(&self.model, &self.full)?;
            self.rest.as_ref().expect("only the last batch of an epoch is short")
        };
        if plan.needs_set_up() && self.set_up != Some(plan.executable().id()) {
            plan.set_up(&mut self.model)?;
            self.set_up = Some(plan.executable().id());
        }
        let targets = self.targets(&batch.indices);
        let (rates, learning_rate) = self.rates();
        let inputs = StepInputs {
            pixels: &batch.pixels,
            placement: &batch.placement,
            targets: &targets,
            rates: &rates,
            slot: self.queue.slot(),
        };
        plan.load(&mut self.model, &inputs)?;
        plan.queue(&mut self.model)?;
        self.position.step += 1;
        let queued = Queued {
            slot: self.queue.slot(),
            step: self.position.step,
            samples: batch.indices.clone(),
            learning_rate,
            terms: targets.terms,
        };
        results.extend(self.queue.push(&self.model, plan, queued)?);
        if settle {
            results.extend(self.queue.flush(&self.model, plan)?);
        }
        Ok(results)
    }

    /// The targets of a batch.
    fn targets(&self, samples: &[u32]) -> BatchTargets {
        let Job { targets, objective, .. } = self.job;
        let labels = |head: usize| {
            let all = targets.labels(head);
            samples.iter().map(|&sample| all[sample as usize]).collect()
        };
        let outliers = match objective.exposure {
            Some(_) => samples.iter().map(|&sample| targets.is_outlier(sample as usize)).collect(),
            None => Vec::new(),
        };
        objective.batch((0..targets.heads.len()).map(labels).collect(), outliers)
    }

    /// The numbers that the optimizer reads at the next step, and its learning rate.
    fn rates(&self) -> (Rates, f64) {
        let rate = self.schedule.learning_rate(self.position.step);
        let head_rate = self.head_schedule.learning_rate(self.position.step);
        (self.job.options.optimizer().two_rates(rate, head_rate, self.position.step + 1), rate)
    }

    fn validate(&mut self, observer: &mut dyn Observer) -> Result<Option<Measured>> {
        let options = self.job.options;
        let due =
            self.position.epoch.is_multiple_of(options.eval_every) || self.position.epoch == options.epochs;
        let (Some(validation), Some(pass), true) = (&self.job.validation, &self.pass, due) else {
            return Ok(None);
        };
        let clock = Instant::now();
        // The plans share memory.
        self.set_up = None;
        let heads = &self.job.targets.heads;
        let taxonomy = validation.data.taxonomy();
        let mut evaluations = vec![Evaluation::default(); heads.len()];
        pass.run(&mut self.model, &validation.data, &self.job.transform, |batch| {
            for ((head, values), evaluation) in heads.iter().zip(&batch.heads).zip(&mut evaluations) {
                let labels: Vec<i64> =
                    batch.labels.iter().map(|&label| head.logit(taxonomy, label)).collect();
                evaluation.add(&values.logits, &labels);
            }
            Ok(())
        })?;
        let speed = validation.data.len() as f64 / clock.elapsed().as_secs_f64();
        let Some(measured) = Measured::of(&evaluations, heads) else { return Ok(None) };
        let line = self.metrics(validation.split, Scope::Epoch, measured.clone(), speed);
        self.log.append(&line)?;
        observer.logged(&line);
        self.validation = Some(line);
        Ok(Some(measured))
    }

    /// Histograms of the weights, with each checkpoint that stays.
    fn log_weights(&mut self) -> Result<()> {
        for entry in self.model.network().parameters().entries() {
            let has_many = matches!(entry.kind, Kind::ConvWeight | Kind::LinearWeight | Kind::CosineWeight);
            if has_many {
                let values = self.model.read_f32(entry.parameter.value)?;
                self.log.histogram(self.position.step, &format!("weights/{}", entry.name), &values)?;
            }
        }
        Ok(())
    }

    fn measure(&self, metrics: &RunningMetrics) -> Measured {
        metrics.measure(self.job.objective, &self.job.targets.heads)
    }

    fn metrics(&self, split: &str, scope: Scope, measured: Measured, images_per_second: f64) -> Metrics {
        let Measured { loss, accuracy, further } = measured;
        Metrics {
            step: self.position.step,
            epoch: self.position.step as f64 / self.schedule.steps_per_epoch as f64,
            split: split.to_string(),
            scope,
            loss,
            accuracy,
            lr: self.schedule.learning_rate(self.position.step.saturating_sub(1)),
            images_per_second,
            further,
        }
    }
}

/// The way of a training's images to the device: all of them once, where it has memory of its own and they take no
/// more than a quarter of it; batch by batch otherwise.
fn image_source(network: &mut Network, device: &dyn Device, job: &Job<'_>) -> ImageSource {
    let (images, bytes) = (job.data.len(), job.data.len() * job.transform.image_len());
    match device.own_memory_bytes() {
        Some(memory) if bytes <= memory / 4 => {
            ImageSource::Resident { pixels: network.reserve(bytes, DType::U8), images }
        }
        _ => ImageSource::Bytes,
    }
}
