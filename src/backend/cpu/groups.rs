//! Logits of superclasses (class groups), and the way of their gradient back to the classes.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use crate::error::Result;
use crate::ops::{ClassGroups, LogSumGroups, LogSumGroupsGradient};
use crate::tensor::Span;

pub(super) fn log_sum_groups<T: Element>(cpu: &mut Cpu<T>, op: &LogSumGroups<Span>, _: Span) -> Result<()> {
    let ([x, group_of], [y]) = cpu.memory.split([op.x, op.group_of], [op.y])?;
    let (x, y): (&[T], &mut [T]) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(y));
    let group_of: &[i32] = bytemuck::cast_slice(group_of);
    let ClassGroups { classes, groups, temperature, .. } = op.attributes;
    y.par_chunks_exact_mut(groups).zip(x.par_chunks_exact(classes)).for_each(|(y, x)| {
        let members = || {
            let numbers = x.iter().map(|x| x.to_f64());
            numbers.zip(group_of).filter_map(|(x, &g)| Some((x, known(g, groups)?)))
        };
        let mut largest = vec![f64::NEG_INFINITY; groups];
        members().for_each(|(x, g)| largest[g] = largest[g].max(x));
        let mut sums = vec![0.0; groups];
        members().for_each(|(x, g)| sums[g] += ((x - largest[g]) / temperature).exp());
        for ((y, largest), sum) in y.iter_mut().zip(largest).zip(sums) {
            *y = T::from_f64(largest + temperature * sum.ln());
        }
    });
    Ok(())
}

pub(super) fn log_sum_groups_gradient<T: Element>(
    cpu: &mut Cpu<T>,
    op: &LogSumGroupsGradient<Span>,
    _: Span,
) -> Result<()> {
    let ([x, group_of, y, dy], [dx]) = cpu.memory.split([op.x, op.group_of, op.y, op.dy], [op.dx])?;
    let [x, y, dy]: [&[T]; 3] = [x, y, dy].map(bytemuck::cast_slice);
    let (group_of, dx): (&[i32], &mut [T]) = (bytemuck::cast_slice(group_of), bytemuck::cast_slice_mut(dx));
    let ClassGroups { classes, groups, temperature, .. } = op.attributes;
    let of_groups = y.par_chunks_exact(groups).zip(dy.par_chunks_exact(groups));
    let rows = dx.par_chunks_exact_mut(classes).zip(x.par_chunks_exact(classes)).zip(of_groups);
    rows.for_each(|((dx, x), (y, dy))| {
        for ((dx, x), &g) in dx.iter_mut().zip(x).zip(group_of) {
            *dx = known(g, groups).map_or(T::ZERO, |g| {
                let share = ((x.to_f64() - y[g].to_f64()) / temperature).exp();
                T::from_f64(dy[g].to_f64() * share)
            });
        }
    });
    Ok(())
}

/// The index of a group, if it is one of `groups`.
fn known(group: i32, groups: usize) -> Option<usize> {
    usize::try_from(group).ok().filter(|&group| group < groups)
}
