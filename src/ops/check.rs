//! What every call is held to before a device sees it: sensible extents, operands of the right type, size and place, and nothing
//! that is written shared.

use super::{Access, Call, ElementType, Operand};
use crate::error::{Error, Result};
use crate::tensor::{ALIGNMENT, DType, Span};

impl Call<Span> {
    /// Holds the operands to what the list says of them, in a memory of so many bytes.
    ///
    /// # Errors
    /// Extents that make no sense; an operand of another type or size, misaligned or outside the memory; one that is written and
    /// overlaps another.
    pub(crate) fn check(&self, working: DType, memory_bytes: usize) -> Result<()> {
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
        Ok(())
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
        let shares = a.offset < b.offset + b.bytes() && b.offset < a.offset + a.bytes();
        if shares && (self.access != Access::Read || other.access != Access::Read) {
            return Err(Error::invalid(format!(
                "operands `{}` and `{}` overlap and one of them is written; operands of one call are disjoint",
                other.name, self.name
            )));
        }
        Ok(())
    }
}
