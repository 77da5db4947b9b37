//! The CPU's flat memory, and the one checked way in which its spans become slices.

use std::ops::Range;

use memmap2::MmapMut;

use super::element::Element;
use crate::error::{Error, Result};
use crate::tensor::{ALIGNMENT, DType, Span};

/// One flat piece of memory: zeroed, and aligned to a page (hence to [`ALIGNMENT`]).
#[derive(Debug)]
pub(super) struct Memory {
    bytes: MmapMut,
}

/// A span together with what a call expects it to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    /// The operand's name in the list of operations, for messages.
    pub name: &'static str,
    /// Where it lies.
    pub span: Span,
    /// How many elements the call's attributes ask for.
    pub elements: usize,
    /// The type the call asks for.
    pub dtype: DType,
}

/// A call's operands as slices: those it reads, and those it writes.
pub(super) type Slices<'a, T, const R: usize, const W: usize> = ([&'a [T]; R], [&'a mut [T]; W]);

/// An operand of the working type.
pub(super) fn operand<T: Element>(name: &'static str, span: Span, elements: usize) -> Operand {
    Operand { name, span, elements, dtype: T::DTYPE }
}

/// An operand of integers.
pub(super) fn integers(name: &'static str, span: Span, elements: usize) -> Operand {
    Operand { name, span, elements, dtype: DType::I32 }
}

/// An operand of bytes.
pub(super) fn bytes(name: &'static str, span: Span, elements: usize) -> Operand {
    Operand { name, span, elements, dtype: DType::U8 }
}

/// A workspace: whatever its type, `bytes` of it as elements of the working type.
pub(super) fn scratch<T: Element>(span: Span, bytes: usize) -> Result<Operand> {
    if span.bytes() < bytes {
        return Err(Error::invalid(format!(
            "this call needs {bytes} bytes of workspace and was given {}; ask workspace_bytes for the size",
            span.bytes()
        )));
    }
    let elements = bytes / T::DTYPE.size();
    let span = Span { offset: span.offset, elements, dtype: T::DTYPE };
    Ok(Operand { name: "workspace", span, elements, dtype: T::DTYPE })
}

impl Operand {
    /// The bytes of the span, once type, size, alignment and bounds are known to be right.
    fn range(&self, memory_bytes: usize) -> Result<Range<usize>> {
        let Operand { name, span, elements, dtype } = *self;
        if span.dtype != dtype || span.elements != elements {
            return Err(Error::invalid(format!(
                "operand `{name}` has {} elements of {:?}; the call needs {elements} of {dtype:?}",
                span.elements, span.dtype
            )));
        }
        let end = elements.checked_mul(dtype.size()).and_then(|bytes| span.offset.checked_add(bytes));
        match end {
            Some(end) if end <= memory_bytes && span.offset.is_multiple_of(ALIGNMENT) => Ok(span.offset..end),
            _ => Err(Error::invalid(format!(
                "operand `{name}`, {elements} elements at byte {}, is not aligned to {ALIGNMENT} or leaves the \
                 memory of {memory_bytes} bytes",
                span.offset
            ))),
        }
    }
}

impl Memory {
    /// Zeroed memory.
    ///
    /// # Errors
    /// The system has not that much.
    pub(super) fn new(bytes: usize) -> Result<Memory> {
        // A map of length zero is an error on some systems.
        let map = MmapMut::map_anon(bytes.max(ALIGNMENT)).map_err(|source| {
            Error::invalid(format!(
                "cannot reserve {:.1} MB of memory ({source}); take a smaller batch or network",
                bytes as f64 / 1e6
            ))
        })?;
        // Activations are read in long runs: 2 MB pages save most misses of the address-translation cache. It is a
        // wish: a system that knows no huge pages may refuse it.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Memory { bytes: map })
    }

    /// The bytes of a span that is read from the host.
    pub(super) fn read(&self, operand: Operand) -> Result<&[u8]> {
        let range = operand.range(self.bytes.len())?;
        Ok(&self.bytes[range])
    }

    /// The bytes of a span that is written from the host.
    pub(super) fn write(&mut self, operand: Operand) -> Result<&mut [u8]> {
        let range = operand.range(self.bytes.len())?;
        Ok(&mut self.bytes[range])
    }

    /// The bytes of all operands of a call: shared for those that are read, exclusive for those that are written.
    ///
    /// # Errors
    /// A span of the wrong type or size, outside the memory, misaligned, or written while another operand overlaps it.
    pub(super) fn split<const R: usize, const W: usize>(
        &mut self,
        reads: [Operand; R],
        writes: [Operand; W],
    ) -> Result<Slices<'_, u8, R, W>> {
        let limit = self.bytes.len();
        let mut read_ranges = [const { 0..0 }; R];
        for (range, operand) in read_ranges.iter_mut().zip(&reads) {
            *range = operand.range(limit)?;
        }
        let mut write_ranges = [const { 0..0 }; W];
        for (range, operand) in write_ranges.iter_mut().zip(&writes) {
            *range = operand.range(limit)?;
        }
        for (i, written) in write_ranges.iter().enumerate() {
            let others = read_ranges.iter().zip(&reads).chain(write_ranges[..i].iter().zip(&writes[..i]));
            for (other, operand) in others {
                if written.start < other.end && other.start < written.end {
                    return Err(Error::invalid(format!(
                        "operand `{}` is written and overlaps operand `{}`; operands of one call are disjoint",
                        writes[i].name, operand.name
                    )));
                }
            }
        }
        let base = self.bytes.as_mut_ptr();
        // SAFETY: every range lies inside the memory, which `self` lends exclusively for the lifetime of the result;
        // a written range overlaps no other range, so no exclusive slice aliases any other slice.
        unsafe {
            Ok((
                read_ranges.map(|range| std::slice::from_raw_parts(base.add(range.start), range.len())),
                write_ranges.map(|range| std::slice::from_raw_parts_mut(base.add(range.start), range.len())),
            ))
        }
    }

    /// [`Memory::split`] for a call whose operands all have the working type.
    pub(super) fn slices<T: Element, const R: usize, const W: usize>(
        &mut self,
        reads: [Operand; R],
        writes: [Operand; W],
    ) -> Result<Slices<'_, T, R, W>> {
        let (reads, writes) = self.split(reads, writes)?;
        // Type and alignment were checked; bytemuck checks once more and panics rather than misread.
        Ok((reads.map(bytemuck::cast_slice), writes.map(bytemuck::cast_slice_mut)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: usize, elements: usize) -> Operand {
        operand::<f32>("x", Span { offset, elements, dtype: DType::F32 }, elements)
    }

    #[test]
    fn a_written_span_overlaps_nothing() {
        let mut memory = Memory::new(1024).unwrap();
        assert!(memory.slices::<f32, 1, 1>([span(0, 16)], [span(64, 16)]).is_ok());
        assert!(memory.slices::<f32, 2, 1>([span(0, 16), span(0, 16)], [span(64, 16)]).is_ok());
        assert!(memory.slices::<f32, 1, 1>([span(0, 17)], [span(64, 16)]).is_err());
        assert!(memory.slices::<f32, 0, 2>([], [span(64, 17), span(128, 3)]).is_err());
    }

    #[test]
    fn a_span_stays_inside_the_memory_and_keeps_its_alignment_type_and_size() {
        let mut memory = Memory::new(1024).unwrap();
        assert!(memory.write(span(1024 - 64, 16)).is_ok());
        for wrong in [span(1024 - 64, 17), span(32, 4), span(usize::MAX - 63, 16), span(0, usize::MAX / 2)] {
            assert!(memory.write(wrong).is_err(), "{wrong:?}");
        }
        assert!(memory.read(Operand { elements: 4, ..span(0, 5) }).is_err());
        assert!(memory.read(Operand { dtype: DType::F64, ..span(0, 5) }).is_err());
    }
}
