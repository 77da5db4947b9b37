//! Softmax cross-entropy: losses, predictions and the gradient of the mean loss in one pass over the logits; weights of
//! samples, and the totals of a step.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use crate::error::{Error, Result};
use crate::ops::{CrossEntropy, RecordTotals, ScaleRows, SoftmaxCrossEntropy};
use crate::tensor::Span;

/// Losses, predictions, gradient. Sums and exponentials are taken in f64.
///
/// # Errors
/// A label that is no class.
pub(super) fn softmax_cross_entropy<T: Element>(
    cpu: &mut Cpu<T>,
    op: &SoftmaxCrossEntropy<Span>,
    _: Span,
) -> Result<()> {
    let attributes = &op.attributes;
    let classes = attributes.classes;
    let ([logits, labels], [loss, prediction, dlogits]) =
        cpu.memory.split([op.logits, op.labels], [op.loss, op.prediction, op.dlogits])?;
    let (logits, labels): (&[T], &[i32]) = (bytemuck::cast_slice(logits), bytemuck::cast_slice(labels));
    let [loss, dlogits]: [&mut [T]; 2] = [loss, dlogits].map(bytemuck::cast_slice_mut);
    let prediction: &mut [i32] = bytemuck::cast_slice_mut(prediction);
    if let Some((sample, label)) =
        labels.iter().enumerate().find(|(_, label)| usize::try_from(**label).map_or(true, |l| l >= classes))
    {
        return Err(Error::invalid(format!(
            "sample {sample} of the batch has label {label}, but the network has {classes} classes, counted from \
             0; check that data and head belong together"
        )));
    }
    let outputs =
        loss.par_iter_mut().zip(prediction.par_iter_mut()).zip(dlogits.par_chunks_exact_mut(classes));
    outputs.zip(logits.par_chunks_exact(classes)).zip(labels).for_each(
        |((((loss, prediction), dlogits), logits), &label)| {
            let (row_loss, row_prediction) = one_sample(attributes, logits, label as usize, dlogits);
            *loss = T::from_f64(row_loss);
            *prediction = row_prediction as i32;
        },
    );
    Ok(())
}

/// Loss and prediction of one sample; fills its row of the gradient.
fn one_sample<T: Element>(
    attributes: &CrossEntropy,
    logits: &[T],
    label: usize,
    dlogits: &mut [T],
) -> (f64, usize) {
    let mut largest = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[largest] {
            largest = class;
        }
    }
    let shift = logits[largest].to_f64();
    let sum: f64 = logits.iter().map(|logit| (logit.to_f64() - shift).exp()).sum();
    let log_sum = sum.ln();
    let spread = attributes.smoothing / attributes.classes as f64;
    let mut loss = 0.0;
    for (class, (dlogit, logit)) in dlogits.iter_mut().zip(logits).enumerate() {
        let log_probability = logit.to_f64() - shift - log_sum;
        let target = if class == label { 1.0 - attributes.smoothing + spread } else { spread };
        // A class without target adds nothing, even where its probability underflowed to 0.
        if target != 0.0 {
            loss -= target * log_probability;
        }
        *dlogit = T::from_f64((log_probability.exp() - target) / attributes.batch as f64);
    }
    (loss, largest)
}

pub(super) fn scale_rows<T: Element>(cpu: &mut Cpu<T>, op: &ScaleRows<Span>, _: Span) -> Result<()> {
    let ([weights], [x]) = cpu.memory.slices::<T, _, _>([op.weights], [op.x])?;
    for (row, &weight) in x.chunks_exact_mut(op.attributes.channels).zip(weights) {
        row.iter_mut().for_each(|x| *x = *x * weight);
    }
    Ok(())
}

pub(super) fn step_totals<T: Element>(cpu: &mut Cpu<T>, op: &RecordTotals<Span>, _: Span) -> Result<()> {
    let attributes = &op.attributes;
    let ([loss, prediction, labels, hyper], [totals]) =
        cpu.memory.split([op.loss, op.prediction, op.labels, op.hyper], [op.totals])?;
    let [loss, hyper]: [&[T]; 2] = [loss, hyper].map(bytemuck::cast_slice);
    let [prediction, labels]: [&[i32]; 2] = [prediction, labels].map(bytemuck::cast_slice);
    let slot = hyper[3].to_f64() as usize;
    if slot >= attributes.slots {
        return Err(Error::invalid(format!("slot {slot} of {} for a step's totals", attributes.slots)));
    }
    let totals: &mut [T] = bytemuck::cast_slice_mut(totals);
    let hits = prediction.iter().zip(labels).filter(|(prediction, label)| prediction == label).count();
    let place = 2 * (slot * attributes.columns + attributes.column);
    totals[place] = T::from_f64(loss.iter().map(|&loss| loss.to_f64()).sum());
    totals[place + 1] = T::from_f64(hits as f64);
    Ok(())
}
