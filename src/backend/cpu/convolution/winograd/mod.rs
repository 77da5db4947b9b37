//! Winograd's algorithm F(4x4, 3x3) for 3x3 convolutions of stride 1 and their gradients, in f32.
//!
//! A tile of 4x4 outputs sees 6x6 inputs. Taken as polynomials along both axes, inputs and filter are turned into their values at
//! 6x6 points; there a convolution is one product per channel pair and point: 36 instead of 144. So for each point the sum
//! over channels is a matrix product, tiles x channels times channels x filters, and its results are turned back into outputs
//! (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). A dgrad is the same with the filters mirrored. Of a
//! wgrad the product at each point sums over tiles, channels of dy x tiles times tiles x channels of x, and the sums
//! are turned into filters at the end.
//!
//! Tiles are taken in blocks whose transformed inputs and products stay in L2. Within a block the points are independent, so
//! idle threads help with the points where there are few blocks.
//!
//! The results are those of the direct algorithm up to rounding: about five times its error. f64 stays with the direct
//! algorithm, which is the reference.

mod grid;
#[cfg(test)]
mod tests;
mod transform;
mod wgrad;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use self::grid::Grid;
use self::transform::{OUTPUTS, PLANES, POINTS, array};
use super::kernel::{
    NOWHERE, Panel, ROWS, RUN, inner_products, interleave, panels, registers, store, widest, zeros,
};
use super::{Epilogue, TileEpilogue};
use crate::backend::cpu::scratch::Scratch;
use crate::instructions::arch;
use crate::ops::Conv2d;

pub(super) use wgrad::{wgrad, workspace as wgrad_workspace};

/// Channels come in multiples of this: whole vectors of every instruction set.
const CHANNELS: usize = 16;

/// Fewest channels, in and out, for which the transforms are paid for by the products they save.
const FEWEST_CHANNELS: usize = 32;

/// Elements between the end of a row of transformed values and the next: rows of a power of two would share few sets of L1.
const GAP: usize = 16;

/// Tiles of a block at the most, where a row of the map does not have more. Their products fill 8 blocks of registers.
const TILES: usize = 8 * ROWS;

/// Whether this algorithm computes the convolution and its gradients: where it needs less than two thirds of the products.
pub(super) fn fits(conv: &Conv2d) -> bool {
    let suits = conv.filter_height == 3
        && conv.filter_width == 3
        && conv.stride == 1
        && conv.padding <= 2
        && [conv.in_channels, conv.out_channels]
            .iter()
            .all(|channels| channels.is_multiple_of(CHANNELS) && *channels >= FEWEST_CHANNELS);
    // Filter taps that see an input, along an axis; the direct algorithm leaves the others out where maps are small.
    let seen = |input: usize, output: usize| -> usize {
        let taps =
            |at: usize| (0..3_usize).filter(|tap| (at + tap).wrapping_sub(conv.padding) < input).count();
        (0..output).map(taps).sum()
    };
    let (rows, columns) = (conv.out_height(), conv.out_width());
    suits && {
        let direct = seen(conv.height, rows) * seen(conv.width, columns);
        let tiles = rows.div_ceil(OUTPUTS) * columns.div_ceil(OUTPUTS);
        2 * direct >= 3 * PLANES * tiles
    }
}

/// Bytes of workspace that [`forward`] and [`dgrad`] want: the transformed filters.
pub(super) fn workspace(conv: &Conv2d) -> usize {
    PLANES * conv.in_channels * conv.out_channels * size_of::<f32>()
}

/// `y = conv(x, weight)`, followed by the epilogue.
pub(super) fn forward(
    conv: &Conv2d,
    [x, weight]: [&[f32]; 2],
    epilogue: Option<Epilogue<'_, f32>>,
    [y, filters]: [&mut [f32]; 2],
    scratch: &Scratch,
    tile_epilogue: &TileEpilogue<'_, f32>,
) {
    let [depth, channels] = [conv.in_channels, conv.out_channels];
    // Filters are rows of the channels of each tap; a panel wants the same channel of its filters side by side.
    transform_filters(depth, channels, filters, scratch, |panel, run, tap, to| {
        let row = |j: usize| &weight[((panel.first + j) * 9 + tap) * depth..][run.clone()];
        interleave(panel.channels, row, panel.channels, to);
    });
    let grid = Grid::new(
        conv.batch,
        [conv.height, conv.width],
        [conv.out_height(), conv.out_width()],
        conv.padding,
        TILES,
    );
    let target = Target { channels, epilogue, add: false };
    convolve(&grid, Source { values: x, channels: depth }, filters, &target, y, scratch, tile_epilogue);
}

/// `dx (+)=` the gradient of the input: a convolution of dy with the mirrored filters.
pub(super) fn dgrad(
    conv: &Conv2d,
    [dy, weight]: [&[f32]; 2],
    accumulate: bool,
    [dx, filters]: [&mut [f32]; 2],
    scratch: &Scratch,
    tile_epilogue: &TileEpilogue<'_, f32>,
) {
    let [depth, channels] = [conv.out_channels, conv.in_channels];
    transform_filters(depth, channels, filters, scratch, |panel, run, tap, to| {
        for (to, k) in to.chunks_exact_mut(panel.channels).zip(run) {
            to.copy_from_slice(&weight[(k * 9 + 8 - tap) * channels + panel.first..][..panel.channels]);
        }
    });
    let grid = Grid::new(
        conv.batch,
        [conv.out_height(), conv.out_width()],
        [conv.height, conv.width],
        2 - conv.padding,
        TILES,
    );
    let target = Target { channels, epilogue: None, add: accumulate };
    convolve(&grid, Source { values: dy, channels: depth }, filters, &target, dx, scratch, tile_epilogue);
}

/// The map that is convolved.
#[derive(Clone, Copy)]
struct Source<'a> {
    values: &'a [f32],
    channels: usize,
}

/// What becomes of the outputs.
struct Target<'a> {
    channels: usize,
    epilogue: Option<Epilogue<'a, f32>>,
    /// Whether outputs are added to what is there.
    add: bool,
}

/// All blocks.
fn convolve(
    grid: &Grid,
    source: Source<'_>,
    filters: &[f32],
    target: &Target<'_>,
    mut out: &mut [f32],
    scratch: &Scratch,
    tile_epilogue: &TileEpilogue<'_, f32>,
) {
    let mut parts = Vec::with_capacity(grid.blocks());
    for block in 0..grid.blocks() {
        let pixels = grid.first_pixel(block + 1) - grid.first_pixel(block);
        let (part, rest) = out.split_at_mut(pixels * target.channels);
        parts.push(part);
        out = rest;
    }
    let tiles = grid.block_tiles();
    let (row, row_out) = (source.channels + GAP, target.channels + GAP);
    let (lanes, widest) = registers::<f32>();
    let panels = panels(target.channels, lanes, widest);
    parts.into_par_iter().enumerate().for_each(|(block, out)| {
        let tiles_here = grid.count(block);
        let mut values = scratch.take(PLANES * tiles * (row + row_out));
        let (inputs, products) = values.split_at_mut(PLANES * tiles * row);
        arch().dispatch(Inputs { grid, block, source, plane: tiles * row, row, out: inputs });
        let inputs = &*inputs;
        products
            .par_chunks_exact_mut(tiles * row_out)
            .zip(inputs.par_chunks_exact(tiles * row))
            .enumerate()
            .for_each(|(point, (products, inputs))| {
                arch().dispatch(Product {
                    inputs,
                    row,
                    tiles: tiles_here,
                    depth: source.channels,
                    filters,
                    point,
                    panels: &panels,
                    products,
                    row_out,
                });
            });
        let (plane, row) = (tiles * row_out, row_out);
        arch().dispatch(Outputs { grid, block, products, plane, row, target, out: &mut *out });
        tile_epilogue(block, grid.first_pixel(block) * target.channels, out);
    });
}

/// Transforms filters: `filters[panel][run of channels][point][channel of the run][filter of the panel]`.
///
/// `gather(panel, run, tap, to)` puts the panel's filters at a tap, for a run of channels, into `to[channel][filter]`.
fn transform_filters(
    depth: usize,
    channels: usize,
    mut filters: &mut [f32],
    scratch: &Scratch,
    gather: impl Fn(&Panel, std::ops::Range<usize>, usize, &mut [f32]) + Sync,
) {
    let (lanes, widest) = registers::<f32>();
    let mut parts = Vec::new();
    for panel in panels(channels, lanes, widest) {
        for first in (0..depth).step_by(RUN) {
            let run = first..depth.min(first + RUN);
            let (part, rest) = filters.split_at_mut(PLANES * run.len() * panel.channels);
            parts.push((panel, run, part));
            filters = rest;
        }
    }
    parts.into_par_iter().for_each(|(panel, run, part)| {
        let plane = run.len() * panel.channels;
        let mut taps = scratch.take(9 * plane);
        for (tap, to) in taps.chunks_exact_mut(plane).enumerate() {
            gather(&panel, run.clone(), tap, to);
        }
        arch().dispatch(Filters { taps: &taps, out: part });
    });
}

/// The transform of some filters: nine planes of taps to [`PLANES`] planes.
struct Filters<'a> {
    taps: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Filters<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let taps: &[S::f32s] = bytemuck::cast_slice(self.taps);
        let out: &mut [S::f32s] = bytemuck::cast_slice_mut(self.out);
        let plane = taps.len() / 9;
        for at in 0..plane {
            let filter = array!(3, |r| array!(3, |s| taps[(3 * r + s) * plane + at]));
            let points = transform::filter(simd, filter);
            for (point, &value) in points.as_flattened().iter().enumerate() {
                out[point * plane + at] = value;
            }
        }
    }
}

/// The inputs of a block's tiles at the points: `out[point * plane + tile * row + channel]`.
struct Inputs<'a> {
    grid: &'a Grid,
    block: usize,
    source: Source<'a>,
    plane: usize,
    row: usize,
    out: &'a mut [f32],
}

impl WithSimd for Inputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let source: &[S::f32s] = bytemuck::cast_slice(self.source.values);
        let out: &mut [S::f32s] = bytemuck::cast_slice_mut(self.out);
        let (vectors, row, plane) = (self.source.channels / lanes, self.row / lanes, self.plane / lanes);
        let zero = simd.splat_f32s(0.0);
        for (index, tile) in self.grid.tiles(self.block).enumerate() {
            let pixels = self.grid.inputs(tile);
            let inside = pixels[0][0] != NOWHERE && pixels[POINTS - 1][POINTS - 1] != NOWHERE;
            let line = self.grid.seen[1];
            for vector in 0..vectors {
                let values = if inside {
                    let from = &source[pixels[0][0] * vectors + vector..];
                    array!(6, |i| array!(6, |j| from[(i * line + j) * vectors]))
                } else {
                    array!(6, |i| array!(6, |j| match pixels[i][j] {
                        NOWHERE => zero,
                        pixel => source[pixel * vectors + vector],
                    }))
                };
                let points = transform::input(simd, values);
                let to = &mut out[index * row + vector..];
                for (point, &value) in points.as_flattened().iter().enumerate() {
                    to[point * plane] = value;
                }
            }
        }
    }
}

/// The product at one point: `products[tile][filter] = sum over channels of inputs[tile][channel] * filters[channel][filter]`.
struct Product<'a> {
    inputs: &'a [f32],
    /// Elements from one tile's inputs to the next.
    row: usize,
    tiles: usize,
    /// Channels that are summed over.
    depth: usize,
    /// All points of all filters, as [`transform_filters`] leaves them.
    filters: &'a [f32],
    point: usize,
    panels: &'a [Panel],
    products: &'a mut [f32],
    /// Elements from one tile's products to the next.
    row_out: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for panel in self.panels {
            match panel.vectors {
                4 if widest::<S>() == 4 => self.panel::<S, 4>(simd, panel),
                2 => self.panel::<S, 2>(simd, panel),
                _ => self.panel::<S, 1>(simd, panel),
            }
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, panel: &Panel) {
        for first in (0..self.depth).step_by(RUN) {
            let length = RUN.min(self.depth - first);
            let part = PLANES * (panel.first * self.depth + first * panel.channels);
            let filters =
                &self.filters[part + self.point * length * panel.channels..][..length * panel.channels];
            let (filters, _) = bytemuck::cast_slice::<f32, S::f32s>(filters).as_chunks::<V>();
            for tile in (0..self.tiles).step_by(ROWS) {
                let count = ROWS.min(self.tiles - tile);
                // Rows beyond the last tile repeat it.
                let rows = std::array::from_fn(|m| {
                    &self.inputs[(tile + m.min(count - 1)) * self.row + first..][..length]
                });
                let mut sums = zeros::<f32, S, V>(simd);
                inner_products::<f32, S, V>(simd, rows, filters, &mut sums);
                for (m, sums) in sums.iter().take(count).enumerate() {
                    let to = &mut self.products[(tile + m) * self.row_out + panel.first..][..panel.channels];
                    store::<f32, S, V>(simd, sums, first > 0, to);
                }
            }
        }
    }
}

/// A block's products to its outputs.
struct Outputs<'a> {
    grid: &'a Grid,
    block: usize,
    products: &'a [f32],
    plane: usize,
    row: usize,
    target: &'a Target<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Outputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<S::f32s>() / size_of::<f32>();
        let products: &[S::f32s] = bytemuck::cast_slice(self.products);
        let out: &mut [S::f32s] = bytemuck::cast_slice_mut(self.out);
        let (vectors, row, plane) = (self.target.channels / lanes, self.row / lanes, self.plane / lanes);
        let first = self.grid.first_pixel(self.block);
        let epilogue = self.target.epilogue.as_ref();
        let bias = epilogue.map(|epilogue| bytemuck::cast_slice::<f32, S::f32s>(epilogue.bias));
        let residual = epilogue.and_then(|epilogue| epilogue.residual);
        let residual =
            residual.map(|all| &bytemuck::cast_slice::<f32, S::f32s>(all)[first * vectors..][..out.len()]);
        let relu = epilogue.is_some_and(|epilogue| epilogue.relu);
        let zero = simd.splat_f32s(0.0);
        for (index, tile) in self.grid.tiles(self.block).enumerate() {
            let pixels = self.grid.outputs(tile, first);
            for vector in 0..vectors {
                let from = &products[index * row + vector..];
                let points = array!(6, |i| array!(6, |j| from[(POINTS * i + j) * plane]));
                let outputs = transform::output(simd, points);
                for (&pixel, &value) in pixels.as_flattened().iter().zip(outputs.as_flattened()) {
                    if pixel == NOWHERE {
                        continue;
                    }
                    let at = pixel * vectors + vector;
                    let mut value = value;
                    if self.target.add {
                        value = simd.add_f32s(out[at], value);
                    }
                    if let Some(bias) = bias {
                        value = simd.add_f32s(value, bias[vector]);
                    }
                    if let Some(residual) = residual {
                        value = simd.add_f32s(value, residual[at]);
                    }
                    if relu {
                        let negative = simd.less_than_or_equal_f32s(value, zero);
                        value = simd.select_f32s(negative, zero, value);
                    }
                    out[at] = value;
                }
            }
        }
    }
}
