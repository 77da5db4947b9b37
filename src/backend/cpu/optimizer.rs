//! Parameter updates: SGD, Adam and AdamW with PyTorch's formulas, each in one pass over the parameters.

use std::ops::Range;

use rayon::prelude::*;

use super::Cpu;
use super::chunks::{flat, vectorised};
use super::element::Element;
use crate::error::Result;
use crate::ops::{Adam, AdamStep, HYPER_ROW, Segment, Segments, Sgd, SgdStep};
use crate::tensor::Span;

pub(super) fn sgd<T: Element>(cpu: &mut Cpu<T>, op: &SgdStep<Span>, _: Span) -> Result<()> {
    let attributes = &op.attributes;
    let ([gradients, hyper], [parameters, velocity, copies]) =
        cpu.memory.slices::<T, _, _>([op.gradients, op.hyper], [op.parameters, op.velocity, op.copies])?;
    for (segment, range) in ranges(&attributes.segments) {
        // Without momentum there is no velocity.
        let velocity = velocity.get_mut(range.clone()).unwrap_or_default();
        let (parameters, gradients) = (&mut parameters[range.clone()], &gradients[range]);
        let learning_rate = hyper[segment.row * HYPER_ROW];
        sgd_segment(attributes, segment, parameters, gradients, velocity, learning_rate);
    }
    if attributes.copy {
        copies.copy_from_slice(parameters);
    }
    Ok(())
}

pub(super) fn adam<T: Element>(cpu: &mut Cpu<T>, op: &AdamStep<Span>, _: Span) -> Result<()> {
    let attributes = &op.attributes;
    let ([gradients, hyper], [parameters, first, second, copies]) = cpu
        .memory
        .slices::<T, _, _>([op.gradients, op.hyper], [op.parameters, op.first, op.second, op.copies])?;
    for (segment, range) in ranges(&attributes.segments) {
        let numbers = &hyper[segment.row * HYPER_ROW..];
        let numbers = [0, 1, 2].map(|index| numbers[index].to_f64());
        let moments = (&mut first[range.clone()], &mut second[range.clone()]);
        let (parameters, gradients) = (&mut parameters[range.clone()], &gradients[range]);
        adam_segment(attributes, segment, parameters, gradients, moments, numbers);
    }
    if attributes.copy {
        copies.copy_from_slice(parameters);
    }
    Ok(())
}

/// Every segment and the elements it has.
fn ranges(segments: &Segments) -> impl Iterator<Item = (&Segment, Range<usize>)> {
    segments.iter().scan(0, |end, segment| {
        let start = *end;
        *end += segment.elements;
        Some((segment, start..*end))
    })
}

/// One step of SGD; `velocity` is not touched (and may be empty) without momentum.
fn sgd_segment<T: Element>(
    attributes: &Sgd,
    segment: &Segment,
    parameters: &mut [T],
    gradients: &[T],
    velocity: &mut [T],
    learning_rate: T,
) {
    let decay = T::from_f64(segment.weight_decay);
    let momentum = T::from_f64(attributes.momentum);
    let pieces = parameters.par_chunks_mut(flat()).zip(gradients.par_chunks(flat()));
    if attributes.momentum == 0.0 {
        pieces.for_each(|(parameters, gradients)| {
            vectorised(
                #[inline(always)]
                || {
                    for (p, &g) in parameters.iter_mut().zip(gradients) {
                        *p -= learning_rate * (g + decay * *p);
                    }
                },
            );
        });
        return;
    }
    let nesterov = attributes.nesterov;
    pieces.zip(velocity.par_chunks_mut(flat())).for_each(|((parameters, gradients), velocity)| {
        vectorised(
            #[inline(always)]
            || {
                for ((p, &g), v) in parameters.iter_mut().zip(gradients).zip(velocity) {
                    let g = g + decay * *p;
                    *v = momentum * *v + g;
                    *p -= learning_rate * if nesterov { g + momentum * *v } else { *v };
                }
            },
        );
    });
}

/// One step of Adam or AdamW; `hyper = [lr, 1 - beta1^t, sqrt(1 - beta2^t)]`.
fn adam_segment<T: Element>(
    attributes: &Adam,
    segment: &Segment,
    parameters: &mut [T],
    gradients: &[T],
    (first, second): (&mut [T], &mut [T]),
    hyper: [f64; 3],
) {
    let [learning_rate, correction1, correction2] = hyper;
    let step = T::from_f64(learning_rate / correction1);
    let correction2 = T::from_f64(correction2);
    let epsilon = T::from_f64(attributes.epsilon);
    let (new1, new2) = (T::from_f64(1.0 - attributes.beta1), T::from_f64(1.0 - attributes.beta2));
    let beta2 = T::from_f64(attributes.beta2);
    let (penalty, kept) = if attributes.decoupled {
        (T::ZERO, T::from_f64(1.0 - learning_rate * segment.weight_decay))
    } else {
        (T::from_f64(segment.weight_decay), T::ONE)
    };
    let pieces = parameters.par_chunks_mut(flat()).zip(gradients.par_chunks(flat()));
    let moments = first.par_chunks_mut(flat()).zip(second.par_chunks_mut(flat()));
    pieces.zip(moments).for_each(|((parameters, gradients), (first, second))| {
        vectorised(
            #[inline(always)]
            || {
                for (((p, &g), m), v) in parameters.iter_mut().zip(gradients).zip(first).zip(second) {
                    let g = g + penalty * *p;
                    *m += new1 * (g - *m);
                    *v = beta2 * *v + new2 * (g * g);
                    *p = kept * *p - step * *m / (v.square_root() / correction2 + epsilon);
                }
            },
        );
    });
}
