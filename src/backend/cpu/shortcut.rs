//! He et al.'s parameter-free shortcut (2016, option A): every second pixel, new channels zero.

use rayon::prelude::*;

use super::element::Element;
use crate::ops::ShortcutA;

/// Pairs of (pixel of y, pixel of x) within an image.
fn kept(shortcut: &ShortcutA) -> impl Iterator<Item = (usize, usize)> {
    let ShortcutA { width, stride, .. } = *shortcut;
    let (rows, columns) = (shortcut.out_height(), shortcut.out_width());
    (0..rows * columns).map(move |pixel| (pixel, pixel / columns * stride * width + pixel % columns * stride))
}

/// Elements of an image of x and of y, and the number of zero channels in front.
fn extents(shortcut: &ShortcutA) -> (usize, usize, usize) {
    (
        shortcut.height * shortcut.width * shortcut.in_channels,
        shortcut.out_height() * shortcut.out_width() * shortcut.out_channels,
        (shortcut.out_channels - shortcut.in_channels) / 2,
    )
}

/// `y[n,p,q,front + c] = x[n, p*stride, q*stride, c]`.
pub(super) fn forward<T: Element>(shortcut: &ShortcutA, x: &[T], y: &mut [T]) {
    let (input, output, front) = extents(shortcut);
    y.par_chunks_exact_mut(output).zip(x.par_chunks_exact(input)).for_each(|(y, x)| {
        y.fill(T::ZERO);
        for (to, from) in kept(shortcut) {
            y[to * shortcut.out_channels + front..][..shortcut.in_channels]
                .copy_from_slice(&x[from * shortcut.in_channels..][..shortcut.in_channels]);
        }
    });
}

/// The kept pixels of `dx` get their gradient, the others zero.
pub(super) fn gradient<T: Element>(shortcut: &ShortcutA, dy: &[T], dx: &mut [T]) {
    let (input, output, front) = extents(shortcut);
    dx.par_chunks_exact_mut(input).zip(dy.par_chunks_exact(output)).for_each(|(dx, dy)| {
        dx.fill(T::ZERO);
        for (from, to) in kept(shortcut) {
            dx[to * shortcut.in_channels..][..shortcut.in_channels]
                .copy_from_slice(&dy[from * shortcut.out_channels + front..][..shortcut.in_channels]);
        }
    });
}
