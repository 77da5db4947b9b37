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

/// A call's spans as slices: those it reads, and those it writes.
pub(super) type Slices<'a, T, const R: usize, const W: usize> = ([&'a [T]; R], [&'a mut [T]; W]);

/// The place of an operand that is not there: an empty slice.
pub(super) const NOTHING: Span = Span { offset: 0, elements: 0, dtype: DType::U8 };

/// A workspace: whatever its type, `bytes` of it as elements of the working type.
pub(super) fn scratch<T: Element>(span: Span, bytes: usize) -> Result<Span> {
    if span.bytes() < bytes {
        return Err(Error::invalid(format!(
            "this call needs {bytes} bytes of workspace and was given {}; ask workspace_bytes for the size",
            span.bytes()
        )));
    }
    Ok(Span { offset: span.offset, elements: bytes / T::DTYPE.size(), dtype: T::DTYPE })
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

    /// Its size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of a span, once alignment and bounds are checked. An empty span is everywhere.
    fn range(&self, name: &'static str, span: Span) -> Result<Range<usize>> {
        let Span { offset, elements, dtype } = span;
        if elements == 0 {
            return Ok(0..0);
        }
        let end = elements.checked_mul(dtype.size()).and_then(|bytes| offset.checked_add(bytes));
        match end {
            Some(end) if end <= self.bytes() && offset.is_multiple_of(ALIGNMENT) => Ok(offset..end),
            _ => Err(Error::invalid(format!(
                "{name}, {elements} elements at byte {offset}, is not aligned to {ALIGNMENT} or leaves the memory of {} \
                 bytes",
                self.bytes()
            ))),
        }
    }

    /// The bytes of one of the host's spans, once type and size are checked too.
    fn range_of(
        &self,
        name: &'static str,
        span: Span,
        elements: usize,
        dtype: DType,
    ) -> Result<Range<usize>> {
        if span.dtype != dtype || span.elements != elements {
            return Err(Error::invalid(format!(
                "{name} has {} elements of {:?}; the call needs {elements} of {dtype:?}",
                span.elements, span.dtype
            )));
        }
        self.range(name, span)
    }

    /// The bytes of a span that the host reads, and the element type it must have.
    pub(super) fn read(&self, from: Span, elements: usize, dtype: DType) -> Result<&[u8]> {
        let range = self.range_of("operand `source`", from, elements, dtype)?;
        Ok(&self.bytes[range])
    }

    /// The bytes of a span that the host writes, and the element type it must have.
    pub(super) fn write(&mut self, to: Span, elements: usize, dtype: DType) -> Result<&mut [u8]> {
        let range = self.range_of("operand `destination`", to, elements, dtype)?;
        Ok(&mut self.bytes[range])
    }

    /// The bytes of a call's operands and workspace: shared where they are read, exclusive where they are written.
    ///
    /// # Errors
    /// A span outside the memory, misaligned, or written while another overlaps it.
    pub(super) fn split<const R: usize, const W: usize>(
        &mut self,
        reads: [Span; R],
        writes: [Span; W],
    ) -> Result<Slices<'_, u8, R, W>> {
        let mut read_ranges = [const { 0..0 }; R];
        let mut write_ranges = [const { 0..0 }; W];
        let spans = reads.iter().chain(&writes);
        for (range, &span) in read_ranges.iter_mut().chain(&mut write_ranges).zip(spans) {
            *range = self.range("an operand or the workspace", span)?;
        }
        for (i, written) in write_ranges.iter().enumerate() {
            for other in read_ranges.iter().chain(&write_ranges[..i]) {
                if written.start < other.end && other.start < written.end {
                    return Err(Error::invalid(format!(
                        "bytes {written:?} are written and overlap bytes {other:?}; operands and workspace of one call are \
                         disjoint"
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
        reads: [Span; R],
        writes: [Span; W],
    ) -> Result<Slices<'_, T, R, W>> {
        let (reads, writes) = self.split(reads, writes)?;
        // Type and alignment were checked; bytemuck checks once more and panics rather than misread.
        Ok((reads.map(bytemuck::cast_slice), writes.map(bytemuck::cast_slice_mut)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: usize, elements: usize) -> Span {
        Span { offset, elements, dtype: DType::F32 }
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
        assert!(memory.write(span(1024 - 64, 16), 16, DType::F32).is_ok());
        for wrong in [span(1024 - 64, 17), span(32, 4), span(usize::MAX - 63, 16), span(0, usize::MAX / 2)] {
            assert!(memory.write(wrong, wrong.elements, DType::F32).is_err(), "{wrong:?}");
            assert!(memory.slices::<f32, 1, 0>([wrong], []).is_err(), "{wrong:?}");
            assert!(memory.slices::<f32, 0, 1>([], [wrong]).is_err(), "{wrong:?}");
        }
        assert!(memory.read(span(0, 5), 4, DType::F32).is_err());
        assert!(memory.read(span(0, 5), 5, DType::F64).is_err());
    }

    #[test]
    fn an_empty_span_is_an_empty_slice_wherever_it_lies() {
        let mut memory = Memory::new(1024).unwrap();
        for empty in [NOTHING, span(70, 0), span(2048, 0)] {
            let ([read], [written, all]) =
                memory.slices::<f32, 1, 2>([empty], [empty, span(0, 256)]).unwrap();
            assert_eq!((read.len(), written.len(), all.len()), (0, 0, 256));
        }
    }
}
