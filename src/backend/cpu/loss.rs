//! Softmax cross-entropy: losses, predictions and the gradient of the mean loss in one pass over the logits.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use super::memory::{integers, operand};
use crate::error::{Error, Result};
use crate::ops::{CrossEntropy, check};
use crate::tensor::Span;

impl<T: Element> Cpu<T> {
    /// `softmax_cross_entropy` of [`crate::ops::Backend`].
    pub(super) fn cross_entropy(
        &mut self,
        attributes: &CrossEntropy,
        [logits, labels, loss, prediction, dlogits]: [Span; 5],
    ) -> Result<()> {
        let CrossEntropy { batch, classes, .. } = *attributes;
        check(batch > 0 && classes > 0, attributes)?;
        let ([logits, labels], [loss, prediction, dlogits]) = self.memory.split(
            [operand::<T>("logits", logits, batch * classes), integers("labels", labels, batch)],
            [
                operand::<T>("loss", loss, batch),
                integers("prediction", prediction, batch),
                operand::<T>("dlogits", dlogits, batch * classes),
            ],
        )?;
        let (logits, labels) = (bytemuck::cast_slice(logits), bytemuck::cast_slice(labels));
        let (loss, prediction) = (bytemuck::cast_slice_mut(loss), bytemuck::cast_slice_mut(prediction));
        let dlogits = bytemuck::cast_slice_mut(dlogits);
        self.pool
            .install(|| softmax_cross_entropy::<T>(attributes, logits, labels, loss, prediction, dlogits))
    }
}

/// Losses, predictions, gradient. Sums and exponentials are taken in f64.
///
/// # Errors
/// A label that is no class.
fn softmax_cross_entropy<T: Element>(
    attributes: &CrossEntropy,
    logits: &[T],
    labels: &[i32],
    loss: &mut [T],
    prediction: &mut [i32],
    dlogits: &mut [T],
) -> Result<()> {
    let classes = attributes.classes;
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
