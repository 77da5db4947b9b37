//! Fused operations as the plain ones they stand for: their only definition. A device without a kernel for the fused one runs these.

use super::convolution::{Conv2dDgrad, Conv2dFprop, Conv2dWgrad, FpropEpilogue};
use super::{
    BatchNormReduce, BatchNormStatistics, Call, Conv2d, GlobalAveragePool, LinearForward, PoolHeadForward,
    ReluGradientInPlace, ScaleBiasForward,
};

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
        Some(vec![Conv2dFprop { epilogue: None, ..self.map(&mut Part::Own) }.into(), behind.into()])
    }

    /// Its prologue as a pass of its own, if it has one.
    pub(crate) fn without_prologue(&self) -> Option<Parts<B>> {
        let (before, z) = prologue(&self.conv, self.x, self.prologue.as_ref()?);
        Some(vec![before, Conv2dFprop { x: z, prologue: None, ..self.map(&mut Part::Own) }.into()])
    }
}

impl<B: Copy> Conv2dDgrad<B> {
    /// ReLU backward and the BN reduction of the layer below as passes of their own, if it has them.
    pub(crate) fn without_epilogue(&self) -> Option<Parts<B>> {
        let reduce = self.epilogue.as_ref()?;
        let own = Part::Own;
        let dx = own(self.dx);
        let mut parts: Parts<B> = vec![Conv2dDgrad { epilogue: None, ..self.map(&mut Part::Own) }.into()];
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
        Some(vec![before, Conv2dWgrad { x: z, prologue: None, ..self.map(&mut Part::Own) }.into()])
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
        let PoolHeadForward { attributes, x, weight, bias, features, logits } = self.map(&mut Part::Own);
        vec![
            GlobalAveragePool { attributes: attributes.pool, x, y: features }.into(),
            LinearForward { attributes: attributes.linear(), x: features, weight, bias, y: logits }.into(),
        ]
    }
}
