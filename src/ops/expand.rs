//! Fused operations as the plain ones they stand for: their only definition. A device without a kernel for the fused one runs these.

use super::convolution::{Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue};
use super::{
    BatchNormReduce, BatchNormStatistics, Call, Conv2d, Device, GlobalAveragePool, LinearForward,
    PoolHeadForward, ReluGradientInPlace, ScaleBiasForward,
};
use crate::error::{Error, Result};
use crate::tensor::{DType, Span, aligned};

/// An operand of a part of a fused operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<B> {
    /// One of its own operands.
    Own(B),
    /// A tensor that one part leaves for the next: its number of elements, of the working type.
    Between(usize),
}

/// The parts of a fused operation, in order.
pub type Parts<B> = Vec<Call<Part<B>>>;

impl<B: Copy> Call<B> {
    /// The calls that a fused call stands for; nothing for a plain one. Parts may be fused as well.
    ///
    /// Where there are several, each reads the values that the calls before it stored, rounded as the device rounds.
    pub fn expand(&self) -> Option<Parts<B>> {
        match self {
            Call::Conv2dFprop(fprop) => fprop.without_epilogue().or_else(|| fprop.without_prologue()),
            Call::Conv2dDgrad(dgrad) => dgrad.without_epilogue(),
            Call::Conv2dWgrad(wgrad) => wgrad.without_prologue(),
            Call::PoolHeadForward(head) => Some(head.parts()),
            _ => None,
        }
    }
}

impl<B: Copy> Conv2dFprop<B> {
    /// The statistics of batch normalisation behind it as a pass of their own, if it has them.
    pub(crate) fn without_epilogue(&self) -> Option<Parts<B>> {
        let Some(FpropEpilogue::Statistics(statistics)) = self.epilogue.as_ref() else { return None };
        let own = Part::Own;
        let behind = BatchNormStatistics {
            attributes: statistics.attributes(&self.conv),
            x: own(self.y),
            gamma: own(statistics.gamma),
            beta: own(statistics.beta),
            mean: own(statistics.mean),
            inverse_std: own(statistics.inverse_std),
            scale: own(statistics.scale),
            bias: own(statistics.bias),
            running_mean: own(statistics.running_mean),
            running_variance: own(statistics.running_variance),
        };
        Some(vec![Conv2dFprop { epilogue: None, ..self.map(own) }.into(), behind.into()])
    }

    /// Its prologue as a pass of its own, if it has one.
    pub(crate) fn without_prologue(&self) -> Option<Parts<B>> {
        let (before, z) = prologue(&self.conv, self.x, self.prologue.as_ref()?);
        Some(vec![before, Conv2dFprop { x: z, prologue: None, ..self.map(Part::Own) }.into()])
    }
}

impl<B: Copy> Conv2dDgrad<B> {
    /// The mask and the sums of the batch normalisation below as passes of their own, if it has them.
    pub(crate) fn without_epilogue(&self) -> Option<Parts<B>> {
        let reduce = self.epilogue.as_ref()?;
        let own = Part::Own;
        let dx = own(self.dx);
        let mut parts: Parts<B> = vec![Conv2dDgrad { epilogue: None, ..self.map(own) }.into()];
        if let Some(y) = reduce.mask() {
            parts.push(ReluGradientInPlace { attributes: self.conv.inputs(), y: own(y), x: dx }.into());
        }
        let sums = BatchNormReduce {
            attributes: reduce.attributes(&self.conv),
            dy: dx,
            x: own(reduce.x),
            scale: own(reduce.scale),
            bias: own(reduce.bias),
            mean: own(reduce.mean),
            inverse_std: own(reduce.inverse_std),
            dgamma: own(reduce.dgamma),
            dbeta: own(reduce.dbeta),
        };
        parts.push(sums.into());
        Some(parts)
    }
}

impl<B: Copy> Conv2dWgrad<B> {
    /// Its prologue as a pass of its own, if it has one.
    pub(crate) fn without_prologue(&self) -> Option<Parts<B>> {
        let (before, z) = prologue(&self.conv, self.x, self.prologue.as_ref()?);
        Some(vec![before, Conv2dWgrad { x: z, prologue: None, ..self.map(Part::Own) }.into()])
    }
}

/// A prologue as a pass of its own, and its output.
fn prologue<B: Copy>(conv: &Conv2d, x: B, affine: &super::Affine<B>) -> (Call<Part<B>>, Part<B>) {
    let z = Part::Between(conv.inputs().elements());
    let attributes = affine.attributes(conv);
    let (scale, bias) = (Part::Own(affine.scale), Part::Own(affine.bias));
    (ScaleBiasForward { attributes, x: Part::Own(x), scale, bias, y: z }.into(), z)
}

impl<B: Copy> PoolHeadForward<B> {
    pub(crate) fn parts(&self) -> Parts<B> {
        let PoolHeadForward { attributes, x, weight, bias, features, logits } = self.map(Part::Own);
        vec![
            GlobalAveragePool { attributes: attributes.pool, x, y: features }.into(),
            LinearForward { attributes: attributes.linear(), x: features, weight, bias, y: logits }.into(),
        ]
    }
}

/// Bytes of the tensor between parts.
fn bytes_between<B: Copy>(parts: &Parts<B>, working: DType) -> usize {
    let operands = parts.iter().flat_map(Call::operands);
    let bytes = operands.map(|operand| match operand.place {
        Part::Between(elements) => aligned(elements * working.size()),
        Part::Own(_) => 0,
    });
    bytes.max().unwrap_or(0)
}

/// Bytes of scratch memory that running the parts of a call takes: the tensors between them, and the largest workspace of a part.
pub(crate) fn workspace_of_parts<B: Copy>(device: &dyn Device, parts: &Parts<B>) -> usize {
    let most = parts.iter().map(|part| device.workspace_bytes(&part.map(|_| ()))).max();
    bytes_between(parts, device.dtype()) + most.unwrap_or(0)
}

/// Runs the parts of a call one after the other. What lies between them is at the front of the workspace.
///
/// # Errors
/// The workspace is too small, or the device failed.
pub(crate) fn run_parts(device: &mut dyn Device, parts: &Parts<Span>, workspace: Span) -> Result<()> {
    let between = bytes_between(parts, device.dtype());
    let Some(left) = workspace.bytes().checked_sub(between) else {
        return Err(Error::invalid(format!(
            "a fused operation needs {between} bytes of workspace for what lies between its parts and was given {}; ask \
             workspace_bytes for the size",
            workspace.bytes()
        )));
    };
    let dtype = device.dtype();
    let rest = Span {
        offset: workspace.offset + between,
        elements: left / workspace.dtype.size(),
        dtype: workspace.dtype,
    };
    for part in parts {
        let call = part.map(|operand| match operand {
            Part::Own(span) => span,
            Part::Between(elements) => Span { offset: workspace.offset, elements, dtype },
        });
        device.run(&call, rest)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::ops::Affine;
    use crate::tensor::HostValues;

    #[test]
    fn what_lies_between_parts_is_in_front_and_too_little_scratch_memory_is_told_with_both_sizes() {
        let conv = Conv2d {
            batch: 1,
            height: 3,
            width: 5,
            in_channels: 8,
            out_channels: 16,
            filter_height: 1,
            filter_width: 1,
            stride: 1,
            padding: 0,
        };
        let mut device = Cpu::<f32>::new(1).unwrap();
        let place = |offset, elements| Span { offset, elements, dtype: DType::F32 };
        let [x, scale, bias] = [(0, 120), (512, 8), (576, 8)].map(|(at, elements)| place(at, elements));
        let [weight, y] = [place(640, 128), place(1152, 240)];
        let prologue = Some(Affine { scale, bias, relu: true });
        let call = Conv2dFprop { prologue, ..Conv2dFprop::new(conv, [x, weight, y]) };
        let parts = call.without_prologue().unwrap();
        let bytes = workspace_of_parts(&device, &parts);
        assert!(bytes >= 3 * 5 * 8 * 4);
        device.allocate(4096 + bytes).unwrap();
        let from: Vec<f64> = (0..120).map(f64::from).collect();
        // Every channel twice.
        let twice: Vec<f64> = (0..128).map(|i| f64::from(u8::from(i % 8 == i / 8 % 8))).collect();
        for (to, values) in [(x, &from[..]), (scale, &[2.0; 8]), (bias, &[-50.0; 8]), (weight, &twice)] {
            device.write(to, HostValues::F64(values)).unwrap();
        }
        run_parts(&mut device, &parts, place(4096, bytes / 4)).unwrap();
        let read = |from: Span| {
            let mut values = vec![f64::NAN; from.elements];
            device.read_f64(from, &mut values).unwrap();
            values
        };
        let z: Vec<f64> = from.iter().map(|x| (2.0 * x - 50.0).max(0.0)).collect();
        assert_eq!(read(place(4096, 120)), z);
        assert_eq!(read(y), z.chunks(8).flat_map(|pixel| pixel.repeat(2)).collect::<Vec<_>>());
        let between = aligned(120 * 4);
        let error = run_parts(&mut device, &parts, place(4096, between / 4 - 1)).unwrap_err().to_string();
        let sizes = [format!("needs {between} bytes"), format!("was given {}", between - 4)];
        assert!(sizes.iter().all(|size| error.contains(size)), "{error}");
    }
}
