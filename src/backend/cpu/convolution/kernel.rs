//! The inner loops of convolutions: blocks of [`ROWS`] x (1, 2 or 4 vectors) of sums that stay in registers.
//!
//! Both read NHWC rows where they lie, through the offset of each row (Dukhan, "The Indirect Convolution Algorithm",
//! 2019): nothing is copied into a patch matrix, and padding, stride and tile shape are a matter of the offsets alone.
//!
//! With 6 rows of 4 vectors, 24 of AVX-512's 32 registers hold sums, 4 a row of weights and 1 a broadcast input, and 24
//! multiply-adds need only 10 loads: the loops are bound by arithmetic, not by memory. AVX2's 16 registers take 6 x 2.

use bytemuck::{cast_slice, cast_slice_mut};
use pulp::{Simd, WithSimd};

use crate::backend::cpu::element::Element;
use crate::instructions::arch;

/// Rows of a register block.
pub(super) const ROWS: usize = 6;

/// An offset, or a pixel, that stands for zeros: the padding.
pub(super) const NOWHERE: usize = usize::MAX;

/// The longest run of products that is summed in registers before it joins the sum in memory. Weights of such a run,
/// 128 x 64 in f32, take 32 KB of L1; short runs also keep rounding errors small.
pub(super) const RUN: usize = 128;

/// Vectors of the widest register block.
pub(super) fn widest<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

/// A block of sums.
pub(super) type Sums<T, S, const V: usize> = [[<T as Element>::Vector<S>; V]; ROWS];

/// A block of zeros.
#[inline(always)]
pub(super) fn zeros<T: Element, S: Simd, const V: usize>(simd: S) -> Sums<T, S, V> {
    [[T::splat(simd, T::ZERO); V]; ROWS]
}

/// `sums[m][v] += rows[m][i] * weights[i][v]`, summed over i.
#[inline(always)]
pub(super) fn inner_products<T: Element, S: Simd, const V: usize>(
    simd: S,
    rows: [&[T]; ROWS],
    weights: &[[T::Vector<S>; V]],
    sums: &mut Sums<T, S, V>,
) {
    let mut block = *sums;
    let rows = rows.map(|row| &row[..weights.len()]);
    for (i, weights) in weights.iter().enumerate() {
        for m in 0..ROWS {
            let input = T::splat(simd, rows[m][i]);
            for v in 0..V {
                block[m][v] = T::multiply_add(simd, input, weights[v], block[m][v]);
            }
        }
    }
    *sums = block;
}

/// One register block of a convolution over several taps.
pub(super) struct Block<'a, T> {
    /// The input that is convolved.
    pub source: &'a [T],
    /// Offset of the row each pixel sees, per tap: `offsets[tap * pixels + pixel]`; the pixels of this block start at 0.
    pub offsets: &'a [usize],
    /// Distance between the offsets of neighbouring taps.
    pub pixels: usize,
    /// Elements to add from each row, at most [`RUN`].
    pub length: usize,
    /// Distance between the weights of neighbouring taps, in rows of weights.
    pub depth: usize,
    /// Number of taps.
    pub taps: usize,
}

impl<T: Element> Block<'_, T> {
    /// The sums over all taps, or nothing when every row of every tap is padding.
    #[inline(always)]
    pub(super) fn sums<S: Simd, const V: usize>(
        &self,
        simd: S,
        weights: &[[T::Vector<S>; V]],
        padding: &[T],
    ) -> Option<Sums<T, S, V>> {
        let mut sums = zeros::<T, S, V>(simd);
        let mut any = false;
        for tap in 0..self.taps {
            let offsets = &self.offsets[tap * self.pixels..][..ROWS];
            if offsets.iter().all(|&offset| offset == NOWHERE) {
                continue;
            }
            any = true;
            let rows = std::array::from_fn(|m| match offsets[m] {
                NOWHERE => padding,
                offset => &self.source[offset..][..self.length],
            });
            inner_products(simd, rows, &weights[tap * self.depth..][..self.length], &mut sums);
        }
        any.then_some(sums)
    }
}

/// `sums[m][v] = sum over pixels of factors[pixel][m] * source[offset + ..][v]`: a block of a wgrad.
#[inline(always)]
pub(super) fn outer_products<T: Element, S: Simd, const V: usize>(
    simd: S,
    pixels: &[(u32, usize)],
    factors: &[[T; ROWS]],
    source: &[T],
) -> Sums<T, S, V> {
    let mut sums = zeros::<T, S, V>(simd);
    let width = V * T::lanes::<S>();
    // A panic inside the loop would keep the sums out of registers, so what lies outside is reported after it.
    let mut outside = false;
    for &(pixel, offset) in pixels {
        let row = source.get(offset..).and_then(|rest| rest.get(..width));
        let (Some(row), Some(factors)) = (row, factors.get(pixel as usize)) else {
            outside = true;
            continue;
        };
        let row: &[T::Vector<S>] = cast_slice(row);
        let row: [T::Vector<S>; V] = std::array::from_fn(|v| row[v]);
        for m in 0..ROWS {
            let factor = T::splat(simd, factors[m]);
            for v in 0..V {
                sums[m][v] = T::multiply_add(simd, factor, row[v], sums[m][v]);
            }
        }
    }
    assert!(!outside, "every row of a tile lies inside its tensor");
    sums
}

/// `to (+)= sums`, for a row of a block; `to` may be shorter than the row.
#[inline(always)]
pub(super) fn store<T: Element, S: Simd, const V: usize>(
    simd: S,
    sums: &[T::Vector<S>; V],
    add: bool,
    to: &mut [T],
) {
    if to.len() == V * T::lanes::<S>() {
        let to: &mut [T::Vector<S>] = cast_slice_mut(to);
        for v in 0..V {
            to[v] = if add { T::add_vectors(simd, to[v], sums[v]) } else { sums[v] };
        }
    } else {
        let sums: &[T] = cast_slice(sums);
        for (to, &sum) in to.iter_mut().zip(sums) {
            *to = if add { *to + sum } else { sum };
        }
    }
}

/// A run of output channels that register blocks of one width compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Panel {
    /// First channel.
    pub first: usize,
    /// Channels that exist.
    pub channels: usize,
    /// Vectors per row of the block.
    pub vectors: usize,
}

/// Cuts channels into panels of 4, 2 or 1 vectors.
pub(super) fn panels(channels: usize, lanes: usize, widest: usize) -> Vec<Panel> {
    let mut panels = Vec::new();
    let mut first = 0;
    while first < channels {
        let left = (channels - first).div_ceil(lanes);
        let vectors = [4, 2, 1].into_iter().find(|&vectors| vectors <= left.min(widest)).unwrap_or(1);
        panels.push(Panel { first, channels: (channels - first).min(vectors * lanes), vectors });
        first += vectors * lanes;
    }
    panels
}

/// (lanes, widest block) of the instruction set in use.
struct Registers<T>(std::marker::PhantomData<T>);

impl<T: Element> WithSimd for Registers<T> {
    type Output = (usize, usize);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
        (T::lanes::<S>(), widest::<S>())
    }
}

/// (lanes, widest block) of the instruction set in use.
pub(super) fn registers<T: Element>() -> (usize, usize) {
    arch().dispatch(Registers::<T>(std::marker::PhantomData))
}

/// Rows side by side: `to[i * width + j] = row(j)[i]`, zero from `rows` on.
pub(super) fn interleave<'a, T: Element>(
    rows: usize,
    row: impl Fn(usize) -> &'a [T],
    width: usize,
    to: &mut [T],
) {
    /// Rows read side by side: few enough for the cache's ways, enough to fill half a cache line of `to`.
    const SIDE: usize = 8;
    if rows < width {
        to.fill(T::ZERO);
    }
    for start in (0..rows).step_by(SIDE) {
        let rows: Vec<&[T]> = (start..rows.min(start + SIDE)).map(&row).collect();
        for (i, to) in to.chunks_exact_mut(width).enumerate() {
            for (to, row) in to[start..].iter_mut().zip(&rows) {
                *to = row[i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_every_channel_once() {
        for channels in 1..200 {
            for (lanes, widest) in [(16, 4), (8, 2), (4, 2), (1, 2)] {
                let panels = panels(channels, lanes, widest);
                let mut next = 0;
                for panel in &panels {
                    assert_eq!(panel.first, next);
                    assert!(panel.vectors <= widest && panel.channels <= panel.vectors * lanes);
                    next += panel.channels;
                }
                assert_eq!(next, channels);
                let vectors: usize = panels.iter().map(|panel| panel.vectors).sum();
                assert_eq!(vectors, channels.div_ceil(lanes));
            }
        }
    }
}
