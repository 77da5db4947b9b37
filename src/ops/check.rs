//! The checks of every call before a device sees it: sensible extents, operands of the declared type, size and place, and nothing
//! that is written shared.

use super::{Access, Call, ElementType, Operand};
use crate::error::{Error, Result};
use crate::tensor::{ALIGNMENT, DType, Span};

impl Call<Span> {
    /// Checks the operands against the list, in a memory of `memory_bytes` bytes, and that the workspace lies apart from them.
    ///
    /// # Errors
    /// Extents that make no sense; an operand of another type or size, misaligned or outside the memory; one that is written and
    /// overlaps another.
    pub(crate) fn check(&self, workspace: Span, working: DType, memory_bytes: usize) -> Result<()> {
        self.check_attributes()?;
        let operands = self.operands();
        let mut float = None;
        for (index, operand) in operands.iter().enumerate() {
            if operand.element == ElementType::Float {
                // The first says which of the two types they all have.
                let dtype = *float.get_or_insert(operand.place.dtype);
                let known = dtype == working || dtype == working.accumulator();
                operand.check(if known { dtype } else { working }, memory_bytes)?;
            } else {
                operand.check(operand.element.dtype(working), memory_bytes)?;
            }
            for other in &operands[..index] {
                operand.check_apart(other)?;
            }
        }
        let workspace =
            Operand::new("workspace", workspace, Access::Write, ElementType::U8, workspace.elements);
        operands.iter().try_for_each(|operand| operand.check_apart(&workspace))
    }
}

impl<B> Operand<B> {
    /// An operand all of whose elements are touched.
    pub(super) fn new(
        name: &'static str,
        place: B,
        access: Access,
        element: ElementType,
        elements: usize,
    ) -> Operand<B> {
        Operand { name, place, access, element, elements, touched: elements }
    }
}

impl Operand<Span> {
    fn check(&self, dtype: DType, memory_bytes: usize) -> Result<()> {
        let Operand { name, place: span, elements, .. } = *self;
        if span.elements != elements || (elements > 0 && span.dtype != dtype) {
            return Err(Error::invalid(format!(
                "operand `{name}` has {} elements of {:?}; the call needs {elements} of {dtype:?}",
                span.elements, span.dtype
            )));
        }
        if elements == 0 {
            return Ok(());
        }
        if !span.offset.is_multiple_of(ALIGNMENT) {
            return Err(Error::invalid(format!(
                "operand `{name}` begins at byte {}, which is not aligned to {ALIGNMENT}",
                span.offset
            )));
        }
        let end = elements.checked_mul(dtype.size()).and_then(|bytes| span.offset.checked_add(bytes));
        if end.is_none_or(|end| end > memory_bytes) {
            return Err(Error::invalid(format!(
                "operand `{name}`, {elements} elements of {dtype:?} at byte {}, leaves the memory of {memory_bytes} bytes",
                span.offset
            )));
        }
        Ok(())
    }

    fn check_apart(&self, other: &Operand<Span>) -> Result<()> {
        let (a, b) = (self.place, other.place);
        let shares = a.elements > 0
            && b.elements > 0
            && a.offset < b.offset + b.bytes()
            && b.offset < a.offset + a.bytes();
        if shares && (self.access != Access::Read || other.access != Access::Read) {
            return Err(Error::invalid(format!(
                "operands `{}` and `{}` overlap and one of them is written; operands of one call are disjoint",
                other.name, self.name
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Add, GlobalAveragePool, GlobalPool, Relu, Rows, Segment, Sgd, SgdStep};

    const MEMORY: usize = 1024;

    const NOWHERE: Span = Span { offset: 0, elements: 0, dtype: DType::F32 };

    fn span(offset: usize, elements: usize) -> Span {
        Span { offset, elements, dtype: DType::F32 }
    }

    /// The check of a copy with a rectifier, with the number of elements of x.
    fn relu(x: Span, y: Span) -> Result<()> {
        let attributes = Rows { rows: 1, channels: x.elements };
        Call::from(Relu { attributes, x, y }).check(NOWHERE, DType::F32, MEMORY)
    }

    fn message(result: Result<()>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_written_operand_overlaps_nothing() {
        relu(span(0, 16), span(64, 16)).unwrap();
        let error = message(relu(span(0, 17), span(64, 17)));
        assert!(error.contains("`x` and `y` overlap"), "{error}");
        relu(span(128, 16), span(64, 17)).unwrap_err();
        let attributes = Rows { rows: 2, channels: 8 };
        let add =
            |b, y| Call::from(Add { attributes, a: span(0, 16), b, y }).check(NOWHERE, DType::F32, MEMORY);
        // Two that are read may share.
        add(span(0, 16), span(64, 16)).unwrap();
        let error = message(add(span(64, 16), span(64, 16)));
        assert!(error.contains("`b` and `y` overlap"), "{error}");
    }

    #[test]
    fn an_operand_stays_inside_the_memory_and_is_aligned() {
        relu(span(MEMORY - 64, 16), span(0, 16)).unwrap();
        for wrong in [
            span(MEMORY - 64, 17),
            span(32, 4),
            span(MEMORY, 1),
            span(usize::MAX - 63, 16),
            span(0, usize::MAX / 2),
        ] {
            let apart = span(512, wrong.elements);
            let error = message(relu(wrong, apart));
            assert!(error.contains("operand `x`"), "{error}");
        }
        let error = message(relu(span(0, 4), span(96, 4)));
        assert!(error.contains("operand `y` begins at byte 96"), "{error}");
    }

    #[test]
    fn an_operand_has_the_type_and_size_of_the_list() {
        let error = message(relu(span(0, 5), span(64, 4)));
        assert!(error.contains("operand `y` has 4 elements of F32; the call needs 5 of F32"), "{error}");
        let other = |dtype| relu(span(0, 5), Span { dtype, ..span(64, 5) });
        let error = message(other(DType::F64));
        assert!(error.contains("operand `y` has 5 elements of F64; the call needs 5 of F32"), "{error}");
        message(other(DType::I32));
        // All floats of a call have the same of the two types, the working type or its accumulator.
        let half = |offset| Span { dtype: DType::Bf16, ..span(offset, 5) };
        let narrow = |x, y| {
            let attributes = Rows { rows: 1, channels: 5 };
            Call::from(Relu { attributes, x, y }).check(NOWHERE, DType::Bf16, MEMORY)
        };
        narrow(half(0), half(64)).unwrap();
        narrow(span(0, 5), span(64, 5)).unwrap();
        message(narrow(half(0), span(64, 5)));
        message(relu(half(0), half(64)));
        let pool = GlobalPool { batch: 1, height: 1, width: 1, channels: 5 };
        let average = |x, y| {
            Call::from(GlobalAveragePool { attributes: pool, x, y }).check(NOWHERE, DType::Bf16, MEMORY)
        };
        average(half(0), span(64, 5)).unwrap();
        message(average(half(0), half(64)));
    }

    #[test]
    fn operands_that_are_not_needed_are_empty_and_their_place_does_not_matter() {
        let attributes =
            Sgd { segments: Segment::alone(8, 0.0), momentum: 0.0, nesterov: false, copy: false };
        let sgd = |velocity, copies| {
            let (parameters, gradients, hyper) = (span(0, 8), span(64, 8), span(128, 8));
            Call::from(SgdStep { attributes, parameters, gradients, velocity, hyper, copies }).check(
                NOWHERE,
                DType::F32,
                MEMORY,
            )
        };
        let empty = |offset| Span { dtype: DType::U8, ..span(offset, 0) };
        sgd(empty(0), empty(0)).unwrap();
        sgd(empty(2 * MEMORY), empty(MEMORY + 6)).unwrap();
        sgd(empty(6), empty(70)).unwrap();
        message(sgd(span(192, 8), empty(0)));
        message(sgd(empty(0), span(192, 8)));
    }

    #[test]
    fn the_workspace_lies_apart_from_every_operand() {
        let attributes = Rows { rows: 1, channels: 16 };
        let relu = Call::from(Relu { attributes, x: span(0, 16), y: span(64, 16) });
        let with = |workspace| relu.check(workspace, DType::F32, MEMORY);
        with(span(128, 4)).unwrap();
        for workspace in [span(0, 1), span(64, 4), span(32, 40)] {
            let error = message(with(workspace));
            assert!(error.contains("workspace") && error.contains("overlap"), "{error}");
        }
    }

    #[test]
    fn extents_that_make_no_sense_are_refused_before_operands() {
        let error = message(relu(span(0, 0), span(0, 0)));
        assert!(error.contains("cannot have the extents"), "{error}");
    }
}
