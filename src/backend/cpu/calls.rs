//! What several calls of the backend share: inference convolutions, passes over two operands, conversions.

use super::convolution::{self, Epilogue};
use super::element::Element;
use super::memory::{Memory, Operand, operand, scratch};
use super::{Cpu, pointwise};
use crate::error::Result;
use crate::ops::{Conv2dInference, Rows};
use crate::tensor::Span;

/// Numbers an optimizer reads from memory: at least as many as it needs.
pub(super) fn hyper<T: Element>(span: Span, needed: usize) -> Operand {
    operand::<T>("hyper", span, span.elements.max(needed))
}

impl<T: Element> Cpu<T> {
    /// A convolution of inference, with or without a residual.
    pub(super) fn convolve(
        &self,
        memory: &mut Memory,
        attributes: &Conv2dInference,
        [x, weight, bias]: [Span; 3],
        residual: Option<Span>,
        y: Span,
        workspace: Span,
    ) -> Result<()> {
        let conv = &attributes.conv;
        let [n_x, n_weight, n_y] = conv.elements()?;
        let bytes = convolution::forward_workspace::<T>(conv);
        let ([x, weight, bias, residual_values], [y, packed]) = memory.slices::<T, 4, 2>(
            [
                operand::<T>("x", x, n_x),
                operand::<T>("weight", weight, n_weight),
                operand::<T>("bias", bias, conv.out_channels),
                residual.map_or(operand::<T>("bias", bias, conv.out_channels), |residual| {
                    operand::<T>("residual", residual, n_y)
                }),
            ],
            [operand::<T>("y", y, n_y), scratch::<T>(workspace, bytes)?],
        )?;
        let residual = residual.map(|_| residual_values);
        let epilogue = Epilogue { bias, residual, relu: attributes.relu };
        self.pool.install(|| convolution::forward(conv, x, weight, Some(epilogue), y, packed));
        Ok(())
    }

    /// `y = f(a, b)` element by element.
    pub(super) fn pass2(
        &self,
        memory: &mut Memory,
        extent: &Rows,
        [a, b]: [(&'static str, Span); 2],
        y: (&'static str, Span),
        f: impl Fn(T, T) -> T + Send + Sync,
    ) -> Result<()> {
        let n = extent.elements()?;
        let ([a, b], [y]) = memory.slices::<T, 2, 1>(
            [operand::<T>(a.0, a.1, n), operand::<T>(b.0, b.1, n)],
            [operand::<T>(y.0, y.1, n)],
        )?;
        self.pool.install(|| pointwise::map2(a, b, y, f));
        Ok(())
    }
}

/// Copies values of one floating-point type to another.
pub(super) fn convert<A: Element, B: Element>(from: &[A], to: &mut [B]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = B::from_f64(from.to_f64());
    }
}
