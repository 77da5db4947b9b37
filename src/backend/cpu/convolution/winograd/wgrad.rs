//! The gradient with respect to the weights.
//!
//! The sum over tiles is taken in a few parts, each over blocks in order, and the parts are added in order; how many there are
//! depends on the shape alone. Within a part, a block's x and dy are transformed once, and ranges of output channels are
//! independent.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::grid::Grid;
use super::transform::{PLANES, POINTS, array};
use super::{GAP, Inputs, Source, TILES, transform};
use crate::backend::cpu::convolution::kernel::{
    NOWHERE, Panel, ROWS, panels, registers, store, widest, zeros,
};
use crate::backend::cpu::convolution::wgrad::Cut;
use crate::backend::cpu::scratch::Scratch;
use crate::instructions::arch;
use crate::ops::Conv2d;

/// Tiles of a block at the most.
const MOST_TILES: usize = 128;

fn cut(conv: &Conv2d, grid: &Grid) -> Cut {
    Cut::new(conv.out_channels, PLANES * conv.in_channels * conv.out_channels, grid.blocks())
}

fn grid(conv: &Conv2d) -> Grid {
    let [input, output] = [[conv.height, conv.width], [conv.out_height(), conv.out_width()]];
    // The more sums a block is added to, the more tiles it should add.
    let (depth, channels) = (conv.in_channels, conv.out_channels);
    let tiles = (depth * channels / (depth + channels)).clamp(TILES, MOST_TILES);
    Grid::new(conv.batch, input, output, conv.padding, tiles)
}

/// Bytes of workspace [`wgrad`] wants: the sums of every part.
pub(in super::super) fn workspace(conv: &Conv2d) -> usize {
    cut(conv, &grid(conv)).parts * PLANES * conv.in_channels * conv.out_channels * size_of::<f32>()
}

/// `dweight = sum over tiles`.
pub(in super::super) fn wgrad(
    conv: &Conv2d,
    x: &[f32],
    dy: &[f32],
    dweight: &mut [f32],
    sums: &mut [f32],
    scratch: &Scratch,
) {
    let grid = grid(conv);
    let Cut { parts, range } = cut(conv, &grid);
    let [depth, channels] = [conv.in_channels, conv.out_channels];
    let (row, row_dy, tiles) = (depth + GAP, channels + GAP, grid.block_tiles());
    let (lanes, widest) = registers::<f32>();
    let panels = panels(depth, lanes, widest);
    let part_sums = PLANES * depth * channels;
    sums.par_chunks_exact_mut(part_sums).enumerate().for_each(|(part, sums)| {
        let mut values = scratch.take(PLANES * tiles * (row + row_dy));
        let (inputs, gradients) = values.split_at_mut(PLANES * tiles * row);
        let blocks = part * grid.blocks() / parts..(part + 1) * grid.blocks() / parts;
        for block in blocks.clone() {
            let source = Source { values: x, channels: depth };
            rayon::join(
                || {
                    arch().dispatch(Inputs {
                        grid: &grid,
                        block,
                        source,
                        plane: tiles * row,
                        row,
                        out: inputs,
                    })
                },
                || {
                    let source = Source { values: dy, channels };
                    let (plane, row) = (tiles * row_dy, row_dy);
                    arch().dispatch(Gradients { grid: &grid, block, source, plane, row, out: gradients });
                },
            );
            let (inputs, gradients) = (&*inputs, &*gradients);
            sums.par_chunks_mut(range * PLANES * depth).enumerate().for_each(|(index, sums)| {
                arch().dispatch(Products {
                    inputs,
                    row,
                    gradients,
                    row_dy,
                    tiles: grid.count(block),
                    planes: tiles,
                    first_channel: index * range,
                    depth,
                    panels: &panels,
                    add: block > blocks.start,
                    sums,
                });
            });
        }
    });
    dweight.par_chunks_mut(range * 9 * depth).enumerate().for_each(|(index, dweight)| {
        let first = index * range * PLANES * depth;
        let length = dweight.len() / 9 * PLANES;
        let (sums, rest) = sums.split_at(part_sums);
        arch().dispatch(Filters {
            first: &sums[first..][..length],
            rest: rest.chunks_exact(part_sums).map(|sums| &sums[first..][..length]).collect(),
            depth,
            dweight,
        });
    });
}

/// The gradients of a block's outputs at the points: `out[point * plane + tile * row + channel]`.
struct Gradients<'a> {
    grid: &'a Grid,
    block: usize,
    source: Source<'a>,
    plane: usize,
    row: usize,
    out: &'a mut [f32],
}

impl WithSimd for Gradients<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let source: &[S::f32s] = bytemuck::cast_slice(self.source.values);
        let out: &mut [S::f32s] = bytemuck::cast_slice_mut(self.out);
        let (vectors, row, plane) = (self.source.channels / lanes, self.row / lanes, self.plane / lanes);
        let zero = simd.splat_f32s(0.0);
        for (index, tile) in self.grid.tiles(self.block).enumerate() {
            let pixels = self.grid.outputs(tile, 0);
            for vector in 0..vectors {
                let values = array!(4, |i| array!(4, |j| match pixels[i][j] {
                    NOWHERE => zero,
                    pixel => source[pixel * vectors + vector],
                }));
                let points = transform::output_gradient(simd, values);
                let to = &mut out[index * row + vector..];
                for (point, &value) in points.as_flattened().iter().enumerate() {
                    to[point * plane] = value;
                }
            }
        }
    }
}

/// A block's products for a range of output channels, at all points:
/// `sums[point][k][c] (+)= sum over tiles of gradients[point][tile][k] * inputs[point][tile][c]`.
struct Products<'a> {
    inputs: &'a [f32],
    row: usize,
    gradients: &'a [f32],
    row_dy: usize,
    tiles: usize,
    /// Tiles that a plane has room for.
    planes: usize,
    first_channel: usize,
    depth: usize,
    panels: &'a [Panel],
    add: bool,
    sums: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for point in 0..PLANES {
            for panel in self.panels {
                match panel.vectors {
                    4 if widest::<S>() == 4 => self.panel::<S, 4>(simd, point, panel),
                    2 => self.panel::<S, 2>(simd, point, panel),
                    _ => self.panel::<S, 1>(simd, point, panel),
                }
            }
        }
    }
}

impl Products<'_> {
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, point: usize, panel: &Panel) {
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let (row, row_dy, depth) = (self.row, self.row_dy, self.depth);
        let zero = simd.splat_f32s(0.0);
        let inputs = &self.inputs[point * self.planes * row..][..self.tiles * row];
        let gradients = &self.gradients[point * self.planes * row_dy..][..self.tiles * row_dy];
        let channels = self.sums.len() / (PLANES * depth);
        let sums = &mut self.sums[point * channels * depth..][..channels * depth];
        for (index, filters) in sums.chunks_mut(ROWS * depth).enumerate() {
            let first = self.first_channel + index * ROWS;
            let mut block = zeros::<f32, S, V>(simd);
            for (x, dy) in inputs.chunks_exact(row).zip(gradients.chunks_exact(row_dy)) {
                let x: &[S::f32s] = bytemuck::cast_slice(&x[panel.first..][..V * lanes]);
                let mut vectors = [zero; V];
                vectors.copy_from_slice(x);
                // Behind the last channel comes the gap.
                let dy = &dy[first..][..ROWS];
                for m in 0..ROWS {
                    let factor = simd.splat_f32s(dy[m]);
                    for v in 0..V {
                        block[m][v] = simd.mul_add_e_f32s(factor, vectors[v], block[m][v]);
                    }
                }
            }
            for (filter, block) in filters.chunks_exact_mut(depth).zip(&block) {
                store::<f32, S, V>(simd, block, self.add, &mut filter[panel.first..][..panel.channels]);
            }
        }
    }
}

/// The sums of a range of output channels, part after part, to the gradients of their filters.
struct Filters<'a> {
    /// `[point][k][c]`, of the first part.
    first: &'a [f32],
    /// Of the other parts.
    rest: Vec<&'a [f32]>,
    depth: usize,
    dweight: &'a mut [f32],
}

impl WithSimd for Filters<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let cast = |values| bytemuck::cast_slice::<f32, S::f32s>(values);
        let vectors = self.depth / lanes;
        let first = cast(self.first);
        let rest: Vec<&[S::f32s]> = self.rest.iter().map(|part| cast(part)).collect();
        let dweight: &mut [S::f32s] = bytemuck::cast_slice_mut(self.dweight);
        let plane = first.len() / PLANES;
        for (k, filter) in dweight.chunks_exact_mut(9 * vectors).enumerate() {
            for vector in 0..vectors {
                let sums = array!(6, |i| array!(6, |j| {
                    let at = (POINTS * i + j) * plane + k * vectors + vector;
                    let mut sum = first[at];
                    for part in &rest {
                        sum = simd.add_f32s(sum, part[at]);
                    }
                    sum
                }));
                let taps = transform::filter_gradient(simd, sums);
                for (tap, &value) in taps.as_flattened().iter().enumerate() {
                    filter[tap * vectors + vector] = value;
                }
            }
        }
    }
}
