//! From spans to slices where that takes more than a line: convolutions with their workspace, passes over two operands,
//! values of the host.

use super::convolution::{self, Epilogue};
use super::element::Element;
use super::memory::{Memory, Operand, bytes, integers, operand, scratch};
use super::{Cpu, pointwise, weight_gradient};
use crate::error::Result;
use crate::ops::{Conv2d, Conv2dGradient, Conv2dInference, Rows};
use crate::tensor::{HostValues, Span};

/// Numbers an optimizer reads from memory: at least as many as it needs.
pub(super) fn hyper<T: Element>(span: Span, needed: usize) -> Operand {
    operand::<T>("hyper", span, span.elements.max(needed))
}

impl<T: Element> Cpu<T> {
    /// `conv2d_forward` of [`crate::ops::Backend`].
    pub(super) fn convolution(
        &mut self,
        conv: &Conv2d,
        [x, weight, y]: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        let [n_x, n_weight, n_y] = conv.elements()?;
        let bytes = convolution::forward_workspace::<T>(conv);
        let ([x, weight], [y, packed]) = self.memory.slices::<T, 2, 2>(
            [operand::<T>("x", x, n_x), operand::<T>("weight", weight, n_weight)],
            [operand::<T>("y", y, n_y), scratch::<T>(workspace, bytes)?],
        )?;
        self.pool.install(|| convolution::forward(conv, x, weight, None, y, packed));
        Ok(())
    }

    /// `conv2d_input_gradient` of [`crate::ops::Backend`].
    pub(super) fn convolution_to_input(
        &mut self,
        attributes: &Conv2dGradient,
        [dy, weight, dx]: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        let Conv2dGradient { conv, accumulate } = attributes;
        let [n_x, n_weight, n_y] = conv.elements()?;
        let bytes = convolution::input_gradient_workspace::<T>(conv);
        let ([dy, weight], [dx, packed]) = self.memory.slices::<T, 2, 2>(
            [operand::<T>("dy", dy, n_y), operand::<T>("weight", weight, n_weight)],
            [operand::<T>("dx", dx, n_x), scratch::<T>(workspace, bytes)?],
        )?;
        self.pool.install(|| convolution::input_gradient(conv, dy, weight, *accumulate, dx, packed));
        Ok(())
    }

    /// `conv2d_weight_gradient` of [`crate::ops::Backend`].
    pub(super) fn convolution_to_weight(
        &mut self,
        conv: &Conv2d,
        [x, dy, dweight]: [Span; 3],
        workspace: Span,
    ) -> Result<()> {
        let [n_x, n_weight, n_y] = conv.elements()?;
        let bytes = weight_gradient::workspace::<T>(conv);
        let ([x, dy], [dweight, workspace]) = self.memory.slices::<T, 2, 2>(
            [operand::<T>("x", x, n_x), operand::<T>("dy", dy, n_y)],
            [operand::<T>("dweight", dweight, n_weight), scratch::<T>(workspace, bytes)?],
        )?;
        self.pool.install(|| weight_gradient::weight_gradient(conv, x, dy, dweight, workspace));
        Ok(())
    }

    /// A convolution of inference, with or without a residual.
    pub(super) fn convolve(
        &mut self,
        attributes: &Conv2dInference,
        [x, weight, bias]: [Span; 3],
        residual: Option<Span>,
        y: Span,
        workspace: Span,
    ) -> Result<()> {
        let conv = &attributes.conv;
        let [n_x, n_weight, n_y] = conv.elements()?;
        let bytes = convolution::forward_workspace::<T>(conv);
        let ([x, weight, bias, residual_values], [y, packed]) = self.memory.slices::<T, 4, 2>(
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

    /// `dx` becomes zero where `y > 0` does not hold.
    pub(super) fn mask(&mut self, extent: &Rows, [y, dx]: [Span; 2]) -> Result<()> {
        let n = extent.elements()?;
        let ([y], [dx]) =
            self.memory.slices::<T, 1, 1>([operand::<T>("y", y, n)], [operand::<T>("dx", dx, n)])?;
        self.pool.install(|| pointwise::update(y, dx, pointwise::passed));
        Ok(())
    }

    /// `y = f(a, b)` element by element.
    pub(super) fn pass2(
        &mut self,
        extent: &Rows,
        [a, b]: [(&'static str, Span); 2],
        y: (&'static str, Span),
        f: impl Fn(T, T) -> T + Send + Sync,
    ) -> Result<()> {
        let n = extent.elements()?;
        let ([a, b], [y]) = self.memory.slices::<T, 2, 1>(
            [operand::<T>(a.0, a.1, n), operand::<T>(b.0, b.1, n)],
            [operand::<T>(y.0, y.1, n)],
        )?;
        self.pool.install(|| pointwise::map2(a, b, y, f));
        Ok(())
    }
}

/// Writes the host's values to a span.
pub(super) fn write<T: Element>(memory: &mut Memory, to: Span, values: HostValues<'_>) -> Result<()> {
    let floats = |elements| operand::<T>("destination", to, elements);
    match values {
        HostValues::I32(values) => {
            let place = memory.write(integers("destination", to, values.len()))?;
            bytemuck::cast_slice_mut(place).copy_from_slice(values);
        }
        HostValues::U8(values) => {
            memory.write(bytes("destination", to, values.len()))?.copy_from_slice(values);
        }
        HostValues::F32(values) => {
            convert(values, bytemuck::cast_slice_mut::<u8, T>(memory.write(floats(values.len()))?));
        }
        HostValues::F64(values) => {
            convert(values, bytemuck::cast_slice_mut::<u8, T>(memory.write(floats(values.len()))?));
        }
    }
    Ok(())
}

/// Reads a floating-point span.
pub(super) fn read<T: Element, V: Element>(memory: &Memory, from: Span, values: &mut [V]) -> Result<()> {
    let bytes = memory.read(operand::<T>("source", from, values.len()))?;
    convert(bytemuck::cast_slice::<u8, T>(bytes), values);
    Ok(())
}

/// Reads a span of integers.
pub(super) fn read_integers(memory: &Memory, from: Span, values: &mut [i32]) -> Result<()> {
    let bytes = memory.read(integers("source", from, values.len()))?;
    values.copy_from_slice(bytemuck::cast_slice(bytes));
    Ok(())
}

/// Copies values of one floating-point type to another.
fn convert<A: Element, B: Element>(from: &[A], to: &mut [B]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = B::from_f64(from.to_f64());
    }
}
