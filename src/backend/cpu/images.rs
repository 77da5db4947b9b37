//! What stands at the two ends of a step: network inputs from bytes, and its totals.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use super::memory::{bytes, integers, operand};
use crate::error::{Error, Result};
use crate::ops::{ImageBatch, PLACEMENT_NUMBERS, StepTotals};
use crate::tensor::Span;

impl<T: Element> Cpu<T> {
    /// `load_images` of [`crate::ops::Backend`].
    pub(super) fn place_images(
        &mut self,
        attributes: &ImageBatch,
        [pixels, table, placement, y]: [Span; 4],
    ) -> Result<()> {
        let [n_pixels, n_table, n_placement, n_y] = attributes.elements()?;
        let ([pixels, table, placement], [y]) = self.memory.split(
            [
                bytes("pixels", pixels, n_pixels),
                operand::<T>("table", table, n_table),
                integers("placement", placement, n_placement),
            ],
            [operand::<T>("y", y, n_y)],
        )?;
        let table: &[T] = bytemuck::cast_slice(table);
        let placement: &[i32] = bytemuck::cast_slice(placement);
        let y: &mut [T] = bytemuck::cast_slice_mut(y);
        let image = n_pixels / attributes.images;
        if let Some(row) = placement.chunks_exact(PLACEMENT_NUMBERS).position(|numbers| {
            usize::try_from(numbers[0]).is_ok_and(|index| index >= attributes.images) || numbers[0] < 0
        }) {
            return Err(Error::invalid(format!(
                "image {row} of the batch is number {} of {} in memory",
                placement[row * PLACEMENT_NUMBERS],
                attributes.images
            )));
        }
        self.pool.install(|| {
            y.par_chunks_exact_mut(image).zip(placement.par_chunks_exact(PLACEMENT_NUMBERS)).for_each(
                |(y, numbers)| {
                    let from = &pixels[numbers[0] as usize * image..][..image];
                    place(attributes, from, table, numbers, y);
                },
            );
        });
        Ok(())
    }

    /// `step_totals` of [`crate::ops::Backend`].
    pub(super) fn record_totals(
        &mut self,
        attributes: &StepTotals,
        [loss, prediction, labels, hyper, totals]: [Span; 5],
    ) -> Result<()> {
        let n = attributes.batch;
        let ([loss, prediction, labels, hyper], [totals]) = self.memory.split(
            [
                operand::<T>("loss", loss, n),
                integers("prediction", prediction, n),
                integers("labels", labels, n),
                operand::<T>("hyper", hyper, hyper.elements.max(4)),
            ],
            [operand::<T>("totals", totals, attributes.elements()?)],
        )?;
        let (loss, hyper): (&[T], &[T]) = (bytemuck::cast_slice(loss), bytemuck::cast_slice(hyper));
        let (prediction, labels): (&[i32], &[i32]) =
            (bytemuck::cast_slice(prediction), bytemuck::cast_slice(labels));
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
}

/// One image: each output pixel fetched from where the affine map in 16.16 fixed point says.
fn place<T: Element>(attributes: &ImageBatch, from: &[u8], table: &[T], numbers: &[i32], y: &mut [T]) {
    let (side, channels) = (attributes.side as i64, attributes.channels);
    let [_, left, right_of_x, right_of_y, top, down_of_x, down_of_y] =
        std::array::from_fn(|i| i64::from(numbers[i]));
    for (position, pixel) in y.chunks_exact_mut(channels).enumerate() {
        let (column, row) = (position as i64 % side, position as i64 / side);
        let x = (left + column * right_of_x + row * right_of_y) >> 16;
        let y = (top + column * down_of_x + row * down_of_y) >> 16;
        let inside = (0..side).contains(&x) && (0..side).contains(&y);
        for (channel, value) in pixel.iter_mut().enumerate() {
            let byte = if inside { from[channels * (y * side + x) as usize + channel] } else { 0 };
            *value = table[256 * channel + usize::from(byte)];
        }
    }
}
