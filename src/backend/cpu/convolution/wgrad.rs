//! The gradient of a convolution with respect to its weights (wgrad): `dweight = dyᵀ patches`, a sum over all output pixels.
//!
//! The output channels are cut into ranges and the pixels into a few parts, by shape alone; a task adds up one range over
//! one part, and the parts are added in order. Within a task, a tile of pixels at a time, [`ROWS`] output channels times a
//! panel of input channels of one tap are summed in registers.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::{NOWHERE, Panel, ROWS, outer_products, panels, registers, store, widest};
use super::taps::{Direction, Taps, gather};
use crate::backend::cpu::chunks::{flat, vectorised};
use crate::backend::cpu::element::Element;
use crate::instructions::arch;
use crate::ops::Conv2d;

/// Pixels of a tile: rows of 64 inputs of them take 24 KB of L1.
const TILE: usize = 96;

/// Number of tasks to aim at: parts of the sum times ranges of output channels.
const TASKS: usize = 16;

/// Elements that the sums of all parts may have together, where there is more than one part: 4 MB of f32.
const PART_ELEMENTS: usize = 1 << 20;

/// Fewest blocks of [`ROWS`] output channels in a range: enough to use a tile's inputs well while they are in cache.
const BLOCKS: usize = 8;

/// How a wgrad is cut into tasks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Output channels of a range.
    pub range: usize,
    /// Split-K: the number of parts that the pixels are summed in.
    pub parts: usize,
}

impl Cut {
    /// For sums of `elements` numbers, and at most so many parts. Every range reads all inputs, every part has sums of its own to
    /// be added: where these are few, the sum is cut into parts, and the ranges are wide.
    pub(super) fn new(out_channels: usize, elements: usize, most_parts: usize) -> Cut {
        let blocks = out_channels.div_ceil(ROWS);
        let parts = (PART_ELEMENTS / elements).clamp(1, TASKS);
        let ranges = TASKS.div_ceil(parts).min(blocks.div_ceil(BLOCKS));
        let range = blocks.div_ceil(ranges) * ROWS;
        Cut { range, parts: (TASKS / out_channels.div_ceil(range)).clamp(1, most_parts) }
    }
}

fn cut(conv: &Conv2d) -> Cut {
    Cut::new(conv.out_channels, conv.weights(), conv.out_pixels().div_ceil(TILE))
}

/// Bytes of workspace [`wgrad`] wants: a sum for each part, unless there is only one.
pub(super) fn workspace<T: Element>(conv: &Conv2d) -> usize {
    match cut(conv).parts {
        1 => 0,
        parts => parts * conv.out_channels * conv.filter_elements() * T::DTYPE.size(),
    }
}

/// `dweight = dyᵀ patches`.
pub(super) fn wgrad<T: Element>(conv: &Conv2d, x: &[T], dy: &[T], dweight: &mut [T], workspace: &mut [T]) {
    let parts = cut(conv).parts;
    if parts == 1 {
        sum_parts(conv, x, dy, 1, dweight);
        return;
    }
    sum_parts(conv, x, dy, parts, workspace);
    let weights = dweight.len();
    dweight.par_chunks_mut(flat()).enumerate().for_each(|(index, dweight)| {
        vectorised(
            #[inline(always)]
            || {
                dweight.fill(T::ZERO);
                for part in workspace.chunks_exact(weights) {
                    for (dweight, &part) in dweight.iter_mut().zip(&part[index * flat()..]) {
                        *dweight += part;
                    }
                }
            },
        );
    });
}

/// The sums of all parts, one after the other in `sums`.
fn sum_parts<T: Element>(conv: &Conv2d, x: &[T], dy: &[T], parts: usize, sums: &mut [T]) {
    let filter = conv.filter_elements();
    let range = cut(conv).range;
    let tiles = conv.out_pixels().div_ceil(TILE);
    sums.par_chunks_exact_mut(conv.out_channels * filter)
        .enumerate()
        .flat_map(|(part, sums)| {
            sums.par_chunks_mut(range * filter)
                .enumerate()
                .map(move |(index, sums)| (part, index * range, sums))
        })
        .for_each(|(part, first_channel, sums)| {
            sums.fill(T::ZERO);
            let mut task = Task::new(conv, first_channel, sums.len() / filter);
            for tile in part * tiles / parts..(part + 1) * tiles / parts {
                task.add_tile(x, dy, tile * TILE, sums);
            }
        });
}

/// The sum of a range of output channels over some tiles.
struct Task<'a, T> {
    conv: &'a Conv2d,
    first_channel: usize,
    channels: usize,
    panels: Vec<Panel>,
    /// Elements from one gathered patch to the next; 0 where inputs are read in place.
    patch_stride: usize,
    patches: Vec<T>,
    order: Vec<usize>,
    offsets: Vec<usize>,
    /// Pixels of the tile whose tap falls inside the input, and where.
    seen: Vec<(u32, usize)>,
    /// The tile's `dy`, block by block: `factors[block * TILE + pixel][channel in block]`.
    factors: Vec<[T; ROWS]>,
}

impl<'a, T: Element> Task<'a, T> {
    fn new(conv: &'a Conv2d, first_channel: usize, channels: usize) -> Task<'a, T> {
        let (lanes, widest) = registers::<T>();
        // Rows of whole vectors are read in place; others are gathered into patches padded to whole vectors.
        let in_place = conv.in_channels.is_multiple_of(lanes);
        let filter = conv.filter_elements();
        Task {
            conv,
            first_channel,
            channels,
            panels: panels(if in_place { conv.in_channels } else { filter }, lanes, widest),
            patch_stride: if in_place { 0 } else { filter.next_multiple_of(lanes) },
            patches: Vec::new(),
            order: Vec::new(),
            offsets: Vec::new(),
            seen: Vec::new(),
            factors: vec![[T::ZERO; ROWS]; channels.div_ceil(ROWS) * TILE],
        }
    }

    /// Adds the pixels from `first` on, at most [`TILE`].
    fn add_tile(&mut self, x: &[T], dy: &[T], first: usize, sums: &mut [T]) {
        let conv = self.conv;
        let count = TILE.min(conv.out_pixels() - first);
        for (pixel, dy) in
            dy[first * conv.out_channels..].chunks_exact(conv.out_channels).take(count).enumerate()
        {
            let dy = &dy[self.first_channel..][..self.channels];
            for (block, dy) in dy.chunks(ROWS).enumerate() {
                self.factors[block * TILE + pixel][..dy.len()].copy_from_slice(dy);
            }
        }
        if self.patch_stride == 0 {
            let taps = Taps::new(conv, Direction::Forward);
            self.order.clear();
            self.order.extend(0..count);
            taps.offsets(first, &self.order, conv.in_channels, &mut self.offsets);
            let padded = count.next_multiple_of(ROWS);
            for tap in 0..taps.count() {
                let offsets = &self.offsets[tap * padded..][..count];
                self.seen.clear();
                let seen = offsets.iter().enumerate().filter(|(_, offset)| **offset != NOWHERE);
                self.seen.extend(seen.map(|(pixel, &offset)| (pixel as u32, offset)));
                self.add_rows(x, tap * conv.in_channels, sums);
            }
        } else {
            let mut patches = std::mem::take(&mut self.patches);
            patches.resize(count * self.patch_stride, T::ZERO);
            gather(conv, x, first, self.patch_stride, &mut patches);
            self.seen.clear();
            self.seen.extend((0..count).map(|pixel| (pixel as u32, pixel * self.patch_stride)));
            self.add_rows(&patches, 0, sums);
            self.patches = patches;
        }
    }

    /// Adds the rows of `source` listed in `seen` to the weights that begin at `column` of each filter.
    fn add_rows(&self, source: &[T], column: usize, sums: &mut [T]) {
        let filter = self.conv.filter_elements();
        for panel in &self.panels {
            arch().dispatch(Rows {
                seen: &self.seen,
                factors: &self.factors,
                source: &source[panel.first..],
                panel,
                column: column + panel.first,
                filter,
                sums,
            });
        }
    }
}

/// Some rows times all blocks of a range, for one panel.
struct Rows<'a, T> {
    seen: &'a [(u32, usize)],
    factors: &'a [[T; ROWS]],
    source: &'a [T],
    panel: &'a Panel,
    /// First column of the panel in a filter.
    column: usize,
    filter: usize,
    sums: &'a mut [T],
}

impl<T: Element> WithSimd for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.panel.vectors {
            4 if widest::<S>() == 4 => self.add::<S, 4>(simd),
            2 => self.add::<S, 2>(simd),
            _ => self.add::<S, 1>(simd),
        }
    }
}

impl<T: Element> Rows<'_, T> {
    #[inline(always)]
    fn add<S: Simd, const V: usize>(self, simd: S) {
        let blocks = self.factors.chunks_exact(TILE);
        for (factors, filters) in blocks.zip(self.sums.chunks_mut(ROWS * self.filter)) {
            let block = outer_products::<T, S, V>(simd, self.seen, factors, self.source);
            for (sums, filter) in block.iter().zip(filters.chunks_exact_mut(self.filter)) {
                store::<T, S, V>(simd, sums, true, &mut filter[self.column..][..self.panel.channels]);
            }
        }
    }
}
