//! Logits of groups of classes, and the way of their gradient back to the classes.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use super::memory::{integers, operand};
use crate::error::Result;
use crate::ops::ClassGroups;
use crate::tensor::Span;

impl<T: Element> Cpu<T> {
    /// `log_sum_groups` of [`crate::ops::Backend`].
    pub(super) fn sum_groups(&mut self, attributes: &ClassGroups, [x, group_of, y]: [Span; 3]) -> Result<()> {
        let [n_x, n_classes, n_y] = attributes.elements()?;
        let ([x, group_of], [y]) = self.memory.split(
            [operand::<T>("x", x, n_x), integers("group_of", group_of, n_classes)],
            [operand::<T>("y", y, n_y)],
        )?;
        let (x, y): (&[T], &mut [T]) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(y));
        let group_of: &[i32] = bytemuck::cast_slice(group_of);
        let ClassGroups { classes, groups, temperature, .. } = *attributes;
        self.pool.install(|| {
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
        });
        Ok(())
    }

    /// `log_sum_groups_gradient` of [`crate::ops::Backend`].
    pub(super) fn sum_groups_gradient(
        &mut self,
        attributes: &ClassGroups,
        [x, group_of, y, dy, dx]: [Span; 5],
    ) -> Result<()> {
        let [n_x, n_classes, n_y] = attributes.elements()?;
        let ([x, group_of, y, dy], [dx]) = self.memory.split(
            [
                operand::<T>("x", x, n_x),
                integers("group_of", group_of, n_classes),
                operand::<T>("y", y, n_y),
                operand::<T>("dy", dy, n_y),
            ],
            [operand::<T>("dx", dx, n_x)],
        )?;
        let [x, y, dy]: [&[T]; 3] = [x, y, dy].map(bytemuck::cast_slice);
        let (group_of, dx): (&[i32], &mut [T]) =
            (bytemuck::cast_slice(group_of), bytemuck::cast_slice_mut(dx));
        let ClassGroups { classes, groups, temperature, .. } = *attributes;
        self.pool.install(|| {
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
        });
        Ok(())
    }
}

/// The index of a group, if it is one of `groups`.
fn known(group: i32, groups: usize) -> Option<usize> {
    usize::try_from(group).ok().filter(|&group| group < groups)
}
