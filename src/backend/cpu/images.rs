//! Network inputs from bytes in memory.

use rayon::prelude::*;

use super::Cpu;
use super::element::Element;
use crate::error::{Error, Result};
use crate::ops::{ImageBatch, LoadImages, PLACEMENT_NUMBERS};
use crate::tensor::Span;

pub(super) fn load_images<T: Element>(cpu: &mut Cpu<T>, op: &LoadImages<Span>, _: Span) -> Result<()> {
    let attributes = &op.attributes;
    let ([pixels, table, placement], [y]) = cpu.memory.split([op.pixels, op.table, op.placement], [op.y])?;
    let table: &[T] = bytemuck::cast_slice(table);
    let placement: &[i32] = bytemuck::cast_slice(placement);
    let y: &mut [T] = bytemuck::cast_slice_mut(y);
    let image = attributes.image_elements();
    if let Some(row) = placement.chunks_exact(PLACEMENT_NUMBERS).position(|numbers| {
        usize::try_from(numbers[0]).is_ok_and(|index| index >= attributes.images) || numbers[0] < 0
    }) {
        return Err(Error::invalid(format!(
            "image {row} of the batch is number {} of {} in memory",
            placement[row * PLACEMENT_NUMBERS],
            attributes.images
        )));
    }
    y.par_chunks_exact_mut(image).zip(placement.par_chunks_exact(PLACEMENT_NUMBERS)).for_each(
        |(y, numbers)| {
            let from = &pixels[numbers[0] as usize * image..][..image];
            place(attributes, from, table, numbers, y);
        },
    );
    Ok(())
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
