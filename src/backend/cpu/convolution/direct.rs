//! The direct algorithm: tile by tile of output pixels, as products of rows of inputs with packed weights.
//!
//! Weights are packed once per call into panels whose number of output channels is the width of a register block:
//! `panel[(tap * depth + c) * width + channel]`, so that a block reads them in one run. Everything else is read where it
//! lies. A dgrad is the same loop with the roles of the channels exchanged and the filter taps looked up backwards.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::{Block, NOWHERE, Panel, ROWS, RUN, interleave, panels, registers, store, widest};
use super::taps::{Direction, Taps, gather};
use super::{Epilogue, TileEpilogue};
use crate::backend::cpu::chunks::vectorised;
use crate::backend::cpu::element::Element;
use crate::instructions::arch;
use crate::ops::Conv2d;

/// Inputs with fewer channels than this are gathered into patches first.
const FEW_CHANNELS: usize = 8;

/// Bytes of packed weights, for outputs of `channels` channels and inputs of `rows` rows of weights.
fn packed_bytes<T: Element>(channels: usize, rows: usize) -> usize {
    channels.next_multiple_of(registers::<T>().0) * rows * T::DTYPE.size()
}

/// Bytes of workspace [`forward`] wants.
pub(super) fn forward_workspace<T: Element>(conv: &Conv2d) -> usize {
    packed_bytes::<T>(conv.out_channels, conv.filter_elements())
}

/// Bytes of workspace [`dgrad`] wants.
pub(super) fn dgrad_workspace<T: Element>(conv: &Conv2d) -> usize {
    packed_bytes::<T>(conv.in_channels, conv.filter_height * conv.filter_width * conv.out_channels)
}

/// Fills each panel by `pack(panel, elements)`, in parallel.
fn pack<T: Element>(
    panels: &[Panel],
    lanes: usize,
    rows: usize,
    mut packed: &mut [T],
    pack: impl Fn(&Panel, &mut [T]) + Sync,
) {
    let mut parts = Vec::new();
    for panel in panels {
        let (part, rest) = packed.split_at_mut(panel.vectors * lanes * rows);
        parts.push((panel, part));
        packed = rest;
    }
    parts.into_par_iter().for_each(|(panel, part)| pack(panel, part));
}

/// One tile: where its rows are read and written.
struct Tile<'a, T> {
    source: &'a [T],
    /// Elements of a row of the source.
    depth: usize,
    taps: usize,
    offsets: &'a [usize],
    /// Row of `out` of each pixel.
    order: &'a [usize],
    panels: &'a [Panel],
    packed: &'a [T],
    /// Elements of a row of `out`.
    channels: usize,
    add: bool,
    out: &'a mut [T],
}

impl<T: Element> WithSimd for Tile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut packed = self.packed;
        for panel in self.panels {
            let elements = panel.vectors * T::lanes::<S>() * self.taps * self.depth;
            let (weights, rest) = packed.split_at(elements);
            packed = rest;
            match panel.vectors {
                4 if widest::<S>() == 4 => self.panel::<S, 4>(simd, panel, weights),
                2 => self.panel::<S, 2>(simd, panel, weights),
                _ => self.panel::<S, 1>(simd, panel, weights),
            }
        }
    }
}

impl<T: Element> Tile<'_, T> {
    /// Computes a panel: run by run of taps and input channels, for each run block by block of pixels, so that the
    /// run's weights stay in L1.
    #[inline(always)]
    fn panel<S: Simd, const V: usize>(&mut self, simd: S, panel: &Panel, weights: &[T]) {
        let (weights, _) = bytemuck::cast_slice::<T, T::Vector<S>>(weights).as_chunks::<V>();
        let taps_at_once = (RUN / self.depth).clamp(1, self.taps);
        let padding = [T::ZERO; RUN];
        let mut add = self.add;
        for tap in (0..self.taps).step_by(taps_at_once) {
            for channel in (0..self.depth).step_by(RUN) {
                let length = RUN.min(self.depth - channel);
                let run = (tap, taps_at_once.min(self.taps - tap), channel, length);
                self.run::<S, V>(
                    simd,
                    panel,
                    &weights[tap * self.depth + channel..],
                    &padding[..length],
                    run,
                    add,
                );
                add = true;
            }
        }
    }

    #[inline(always)]
    fn run<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        panel: &Panel,
        weights: &[[T::Vector<S>; V]],
        padding: &[T],
        (tap, taps, channel, length): (usize, usize, usize, usize),
        add: bool,
    ) {
        let padded = self.order.len().next_multiple_of(ROWS);
        for (index, rows) in self.order.chunks(ROWS).enumerate() {
            let block = Block {
                source: &self.source[channel..],
                offsets: &self.offsets[tap * padded + index * ROWS..],
                pixels: padded,
                length,
                depth: self.depth,
                taps,
            };
            let Some(sums) = block.sums::<S, V>(simd, weights, padding) else {
                if !add {
                    for &row in rows {
                        self.out[row * self.channels + panel.first..][..panel.channels].fill(T::ZERO);
                    }
                }
                continue;
            };
            for (&row, sums) in rows.iter().zip(&sums) {
                let to = &mut self.out[row * self.channels + panel.first..][..panel.channels];
                store::<T, S, V>(simd, sums, add, to);
            }
        }
    }
}

/// Memory that a thread keeps from tile to tile.
struct TileBuffers<T> {
    order: Vec<usize>,
    offsets: Vec<usize>,
    patches: Vec<T>,
}

impl<T> TileBuffers<T> {
    fn new() -> TileBuffers<T> {
        TileBuffers { order: Vec::new(), offsets: Vec::new(), patches: Vec::new() }
    }
}

/// `y = conv(x, weight)`, followed by the epilogue if there is one.
pub(super) fn forward<T: Element>(
    conv: &Conv2d,
    [x, weight]: [&[T]; 2],
    epilogue: Option<Epilogue<'_, T>>,
    [y, packed]: [&mut [T]; 2],
    tile_epilogue: &TileEpilogue<'_, T>,
) {
    let (channels, filter) = (conv.out_channels, conv.filter_elements());
    let (lanes, widest) = registers::<T>();
    let panels = panels(channels, lanes, widest);
    pack(&panels, lanes, filter, packed, |panel, to| {
        let row = |j: usize| &weight[(panel.first + j) * filter..][..filter];
        interleave(panel.channels, row, panel.vectors * lanes, to);
    });
    let packed = &*packed;
    let taps = Taps::new(conv, Direction::Forward);
    let few_channels = conv.in_channels < FEW_CHANNELS;
    y.par_chunks_mut(taps.tile() * channels).enumerate().for_each_init(
        TileBuffers::<T>::new,
        |buffers, (index, y)| {
            let TileBuffers { order, offsets, patches } = buffers;
            let (first, count) = (index * taps.tile(), y.len() / channels);
            let (source, depth, taps) = if few_channels {
                order.clear();
                order.extend(0..count);
                offsets.clear();
                offsets.extend((0..count).map(|pixel| pixel * filter));
                offsets.resize(count.next_multiple_of(ROWS), NOWHERE);
                patches.resize(count * filter, T::ZERO);
                gather(conv, x, first, filter, patches);
                (&patches[..], filter, 1)
            } else {
                taps.order(first, count, order);
                taps.offsets(first, order, conv.in_channels, offsets);
                (x, conv.in_channels, taps.count())
            };
            arch().dispatch(Tile {
                source,
                depth,
                taps,
                offsets,
                order,
                panels: &panels,
                packed,
                channels,
                add: false,
                out: y,
            });
            if let Some(epilogue) = &epilogue {
                finish(epilogue, first * channels, y);
            }
            tile_epilogue(index, first * channels, y);
        },
    );
}

/// Bias, residual and rectifier for the outputs from element `first` on.
fn finish<T: Element>(epilogue: &Epilogue<'_, T>, first: usize, y: &mut [T]) {
    let channels = epilogue.bias.len();
    let residual = epilogue.residual.map(|residual| &residual[first..][..y.len()]);
    vectorised(
        #[inline(always)]
        || {
            for (index, row) in y.chunks_exact_mut(channels).enumerate() {
                for (y, &bias) in row.iter_mut().zip(epilogue.bias) {
                    *y += bias;
                }
                if let Some(residual) = residual {
                    for (y, &residual) in row.iter_mut().zip(&residual[index * channels..]) {
                        *y += residual;
                    }
                }
                if epilogue.relu {
                    for y in row {
                        *y = y.rectified();
                    }
                }
            }
        },
    );
}

/// `dx (+)=` the gradient of the input.
pub(super) fn dgrad<T: Element>(
    conv: &Conv2d,
    [dy, weight]: [&[T]; 2],
    accumulate: bool,
    [dx, packed]: [&mut [T]; 2],
    tile_epilogue: &TileEpilogue<'_, T>,
) {
    let (channels, filter) = (conv.in_channels, conv.filter_elements());
    let taps = Taps::new(conv, Direction::Backward);
    let (lanes, widest) = registers::<T>();
    let panels = panels(channels, lanes, widest);
    // panel[(tap * out_channels + k) * width + j] = weight[k, tap, first + j]
    pack(&panels, lanes, taps.count() * conv.out_channels, packed, |panel, to| {
        let width = panel.vectors * lanes;
        for (row, to) in to.chunks_exact_mut(width).enumerate() {
            let (tap, k) = (row / conv.out_channels, row % conv.out_channels);
            let from = &weight[k * filter + tap * channels + panel.first..][..panel.channels];
            to[..panel.channels].copy_from_slice(from);
            to[panel.channels..].fill(T::ZERO);
        }
    });
    let packed = &*packed;
    dx.par_chunks_mut(taps.tile() * channels).enumerate().for_each_init(
        TileBuffers::<T>::new,
        |buffers, (index, dx)| {
            let TileBuffers { order, offsets, .. } = buffers;
            let first = index * taps.tile();
            taps.order(first, dx.len() / channels, order);
            taps.offsets(first, order, conv.out_channels, offsets);
            arch().dispatch(Tile {
                source: dy,
                depth: conv.out_channels,
                taps: taps.count(),
                offsets,
                order,
                panels: &panels,
                packed,
                channels,
                add: accumulate,
                out: dx,
            });
            tile_epilogue(index, first * channels, dx);
        },
    );
}
