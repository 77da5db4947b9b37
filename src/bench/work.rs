//! The least work of a call: bytes that must move, floating-point operations.

use crate::backend::cuda::Pass;
use crate::ops::{Access, Call, ElementType};
use crate::tensor::DType;

/// The least work of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Floating-point operations of matrix products, two per multiply-add; 0 for everything else.
    pub flop: f64,
    /// Bytes that must be read and written, each once.
    pub bytes: f64,
    /// The type that decides their rate: bf16 on tensor cores, which convolutions of such activations run on; f64; or f32.
    pub products: DType,
}

/// The least work of a call where activations have the type `working`.
pub fn work<B: Copy>(call: &Call<B>, working: DType) -> Work {
    let bytes = call.operands().into_iter().map(|operand| {
        let times = if operand.access == Access::Update { 2 } else { 1 };
        times * operand.touched * operand.element.dtype(working).size()
    });
    let products = match computes_in(call, working) {
        DType::Bf16 if Pass::of(call).is_none() => DType::F32,
        dtype => dtype,
    };
    Work { flop: call.flop(), bytes: bytes.sum::<usize>() as f64, products }
}

/// The type that a call computes in where activations have the type `working`: passes over rows of features are f64 in any case.
pub(super) fn computes_in<B: Copy>(call: &Call<B>, working: DType) -> DType {
    let depends =
        |element| matches!(element, ElementType::Working | ElementType::Accumulator | ElementType::Float);
    match call {
        // Passes over rows that are f32 whatever the working type.
        Call::RowNormalise(_) | Call::RowNearestF32(_) => DType::F32,
        _ if call.operands().iter().any(|operand| depends(operand.element)) => working,
        _ => DType::F64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Labelled, Projection, RowClassSums, RowProject};

    #[test]
    fn work_counts_every_byte_and_multiply_add_once() {
        let projection = Projection { rows: 10, columns: 4, outputs: 3, shift: true, divisor: true };
        let pass = RowProject::alone(projection);
        let found = work(&pass, DType::F32);
        assert_eq!(found.flop, 2.0 * 10.0 * 4.0 * 3.0);
        assert_eq!(found.bytes, (4 * 40 + 8 * (4 + 4 + 12 + 30)) as f64);
        let sums = RowClassSums::alone(Labelled { rows: 10, columns: 4, classes: 2 });
        let found = work(&sums, DType::Bf16);
        assert_eq!((found.flop, found.bytes), (0.0, (4 * 50 + 2 * 8 * 8) as f64));
        assert_eq!((pass.name(), pass.shape().as_str()), ("row_project", "10x4-k3"));
        assert_eq!(computes_in(&pass, DType::Bf16), DType::F64);
    }
}
