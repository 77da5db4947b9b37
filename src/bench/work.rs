//! What a call has to do at the least: bytes that must move, floating-point operations.

use crate::backend::cuda::Pass;
use crate::ops::{Access, Call, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad};
use crate::tensor::DType;

/// What a call has to do at the least.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Floating-point operations of matrix products, two per multiply-add; 0 for everything else.
    pub flop: f64,
    /// Bytes that must be read and written, each once.
    pub bytes: f64,
    /// Whether the products may run on tensor cores: those of activations in bf16.
    pub tensor_cores: bool,
}

/// The least a call has to do where activations have the type `working`.
pub fn work<B: Copy>(call: &Call<B>, working: DType) -> Work {
    let bytes = call.operands().into_iter().map(|operand| {
        let times = if operand.access == Access::Update { 2 } else { 1 };
        times * operand.touched * operand.element.dtype(working).size()
    });
    let bytes = bytes.sum::<usize>() as f64;
    Work { flop: call.flop(), bytes, tensor_cores: convolution(call).is_some() && working == DType::Bf16 }
}

/// The convolution a call carries out, and in which direction.
pub(super) fn convolution<B>(call: &Call<B>) -> Option<(Pass, &Conv2d)> {
    match call {
        Call::Conv2dFprop(Conv2dFprop { conv, .. }) => Some((Pass::Forward, conv)),
        Call::Conv2dDgrad(Conv2dDgrad { conv, .. }) => Some((Pass::InputGradient, conv)),
        Call::Conv2dWgrad(Conv2dWgrad { conv, .. }) => Some((Pass::WeightGradient, conv)),
        _ => None,
    }
}

/// Whether that convolution has a prologue.
pub(super) fn has_prologue<B>(call: &Call<B>) -> bool {
    match call {
        Call::Conv2dFprop(Conv2dFprop { prologue, .. }) | Call::Conv2dWgrad(Conv2dWgrad { prologue, .. }) => {
            prologue.is_some()
        }
        _ => false,
    }
}
