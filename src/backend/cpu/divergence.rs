//! The divergence of two softmaxes: losses and gradients of their mean in one pass over the logits.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use crate::error::Result;
use crate::ops::{Direction, KlDivergence, Side, SoftmaxDivergence};
use crate::tensor::Span;

pub(super) fn kl_divergence<T: Element>(
    cpu: &mut Cpu<T>,
    op: &SoftmaxDivergence<Span>,
    _: Span,
) -> Result<()> {
    let attributes = &op.attributes;
    let ([first, second], [loss, dfirst, dsecond]) =
        cpu.memory.slices::<T, _, _>([op.first, op.second], [op.loss, op.dfirst, op.dsecond])?;
    let classes = attributes.classes;
    loss.par_iter_mut()
        .zip(dfirst.par_chunks_exact_mut(classes).zip(dsecond.par_chunks_exact_mut(classes)))
        .zip(first.par_chunks_exact(classes).zip(second.par_chunks_exact(classes)))
        .for_each(|((loss, (dfirst, dsecond)), (first, second))| {
            let p = log_softmax(first, attributes.temperature);
            let q = log_softmax(second, attributes.temperature);
            *loss = T::from_f64(one_sample(attributes, &p, &q, dfirst, dsecond));
        });
    Ok(())
}

/// `log softmax(logits / temperature)` in f64.
fn log_softmax<T: Element>(logits: &[T], temperature: f64) -> Vec<f64> {
    let largest = logits.iter().map(|logit| logit.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let shifted = |logit: &T| (logit.to_f64() - largest) / temperature;
    let log_sum = logits.iter().map(|logit| shifted(logit).exp()).sum::<f64>().ln();
    logits.iter().map(|logit| shifted(logit) - log_sum).collect()
}

/// Loss of one sample from the logarithms of p and q; fills its rows of the gradients.
fn one_sample<T: Element>(
    attributes: &KlDivergence,
    p: &[f64],
    q: &[f64],
    dfirst: &mut [T],
    dsecond: &mut [T],
) -> f64 {
    let share = 1.0 / (attributes.batch as f64 * attributes.temperature);
    let share_of = |side| if attributes.detached == Some(side) { 0.0 } else { share };
    let (to_first, to_second) = (share_of(Side::First), share_of(Side::Second));
    match attributes.direction {
        Direction::FirstToSecond => kullback_leibler(p, q, [to_first, to_second], dfirst, dsecond),
        Direction::SecondToFirst => kullback_leibler(q, p, [to_second, to_first], dsecond, dfirst),
        Direction::Both => {
            // log m = log((p + q) / 2)
            let middle: Vec<f64> = p
                .iter()
                .zip(q)
                .map(|(&p, &q)| p.max(q) + (-(p - q).abs()).exp().ln_1p() - std::f64::consts::LN_2)
                .collect();
            let from_first = to_middle(p, &middle, to_first, dfirst);
            0.5 * (from_first + to_middle(q, &middle, to_second, dsecond))
        }
    }
}

/// `sum of p (log p - log q)`, where a class without probability adds nothing.
fn mean_difference(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// KL(p, q), and its gradients with respect to both logits, times the weight of each side.
fn kullback_leibler<T: Element>(
    p: &[f64],
    q: &[f64],
    [to_p, to_q]: [f64; 2],
    dp: &mut [T],
    dq: &mut [T],
) -> f64 {
    let loss = mean_difference(p, q);
    for ((p, q), (dp, dq)) in p.iter().zip(q).zip(dp.iter_mut().zip(dq)) {
        *dp = T::from_f64(to_p * p.exp() * ((p - q) - loss));
        *dq = T::from_f64(to_q * (q.exp() - p.exp()));
    }
    loss
}

/// KL(p, m), and half of its gradient, all that p has in the Jensen-Shannon divergence: m's own change cancels.
fn to_middle<T: Element>(p: &[f64], middle: &[f64], share: f64, dp: &mut [T]) -> f64 {
    let loss = mean_difference(p, middle);
    for ((p, middle), dp) in p.iter().zip(middle).zip(dp) {
        *dp = T::from_f64(0.5 * share * p.exp() * ((p - middle) - loss));
    }
    loss
}
