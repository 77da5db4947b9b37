//! Steps that are queued on the device and whose results the host has not read yet.
//!
//! Reading makes the host wait, and then the device. So the results of several steps stay on the device in a ring of
//! slots, are copied together while the next steps run, and are read after those have been queued.

use super::TrainStep;
use super::objective::TermWeights;
use super::running_metrics::TermMetrics;
use crate::error::{Error, Result};
use crate::nn::Model;
use crate::ops::Readback;

/// The result of a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StepResult {
    pub(super) images: usize,
    /// The loss that was minimised, times the number of images.
    pub(super) loss: f64,
    /// Each term of it, summed over the batch.
    pub(super) terms: Vec<TermMetrics>,
}

/// A step that was queued.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) slot: usize,
    /// Its number, counted from 1.
    pub(super) step: u64,
    /// Where its samples are in the data set.
    pub(super) samples: Vec<u32>,
    pub(super) learning_rate: f64,
    /// Their weights in each term of the loss.
    pub(super) terms: Vec<TermWeights>,
}

impl Queued {
    /// The result of a step, from its row of the totals: a pair of numbers for each term.
    fn result(&self, totals: &[f64]) -> StepResult {
        let terms = totals.chunks_exact(2).zip(&self.terms).map(|(pair, weights)| TermMetrics {
            loss: pair[0] * weights.bare,
            weight: weights.total,
            labelled: weights.labelled,
            correct: pair[1] as u64,
        });
        let terms = terms.collect();
        StepResult { images: self.samples.len(), loss: totals.iter().step_by(2).sum(), terms }
    }
}

/// The steps under way of one plan.
#[derive(Default)]
pub(super) struct Queue {
    next_slot: usize,
    waiting: Vec<Queued>,
    copied: Option<(Vec<Queued>, Readback)>,
}

impl Queue {
    /// The slot of the next step.
    pub(super) fn slot(&self) -> usize {
        self.next_slot
    }

    /// Notes that a step was queued; returns the results of earlier steps, if it is time to read them.
    ///
    /// # Errors
    /// The device failed, or a loss is not finite.
    pub(super) fn push(&mut self, model: &Model, plan: &TrainStep, step: Queued) -> Result<Vec<StepResult>> {
        self.waiting.push(step);
        self.next_slot = (self.next_slot + 1) % plan.slots();
        if self.waiting.len() < plan.slots() / 2 {
            return Ok(Vec::new());
        }
        if model.device().steps_in_flight() == 1 {
            return self.flush(model, plan);
        }
        let earlier = self.copied.take();
        let reading = plan.begin_totals(model)?;
        self.copied = Some((std::mem::take(&mut self.waiting), reading));
        earlier.map_or(Ok(Vec::new()), |(steps, reading)| settle(model, plan, &steps, reading))
    }

    /// Waits for all queued steps, and returns their results.
    ///
    /// # Errors
    /// The device failed, or a loss is not finite.
    pub(super) fn flush(&mut self, model: &Model, plan: &TrainStep) -> Result<Vec<StepResult>> {
        let mut results = Vec::new();
        if let Some((steps, reading)) = self.copied.take() {
            results = settle(model, plan, &steps, reading)?;
        }
        if !self.waiting.is_empty() {
            let reading = plan.begin_totals(model)?;
            results.extend(settle(model, plan, &std::mem::take(&mut self.waiting), reading)?);
        }
        Ok(results)
    }
}

/// The results of steps, in order.
fn settle(model: &Model, plan: &TrainStep, steps: &[Queued], reading: Readback) -> Result<Vec<StepResult>> {
    let totals = reading.wait()?;
    steps
        .iter()
        .map(|queued| {
            let columns = 2 * plan.columns();
            let result = queued.result(&totals[columns * queued.slot..][..columns]);
            if result.loss.is_finite() {
                Ok(result)
            } else {
                Err(diverged(model, plan, queued, steps.last().map(|last| last.step)))
            }
        })
        .collect()
}

/// The error for a loss that is not finite; it names the sample where the step's losses are still there.
fn diverged(model: &Model, plan: &TrainStep, queued: &Queued, last: Option<u64>) -> Error {
    let losses = (last == Some(queued.step)).then(|| plan.losses(model)).and_then(Result::ok);
    let row = losses.and_then(|losses| losses.iter().position(|loss| !loss.is_finite()));
    let sample = row.map(|row| queued.samples[row]);
    let sample = sample.map_or(String::new(), |sample| format!(" (sample {sample} of the training data)"));
    Error::invalid(format!(
        "the loss is not finite at step {}{sample}, learning rate {}: the training has diverged; try a smaller --lr or a \
         warm-up. The last checkpoint is untouched",
        queued.step, queued.learning_rate
    ))
}
