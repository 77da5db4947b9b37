//! A tensor as a view into a storage: where its elements lie, and what kind they are.

use super::super::ElementType;
use crate::pickle::Global;

/// A reference to a run of elements: `('storage', type, key, device, elements[, view])`.
pub(super) struct StorageReference<'p> {
    pub(super) key: &'p str,
    /// `None` for an untyped storage, whose elements are bytes.
    pub(super) element: Option<ElementType>,
    /// Bytes of the whole storage.
    pub(super) length: usize,
    /// Bytes before the part that is meant (legacy files only), and the bytes of that part.
    pub(super) view: Option<(usize, usize)>,
}

/// A tensor as the pickle describes it.
pub(super) struct View<'p> {
    pub(super) storage: StorageReference<'p>,
    pub(super) element: ElementType,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl View<'_> {
    /// The number of elements, if every one of them lies among the `available` ones of the storage. A view that
    /// repeats elements (stride 0) is none, so a tensor is never larger than its storage.
    pub(super) fn element_count(&self, available: usize) -> Option<usize> {
        let count = self.shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent));
        if self.shape.contains(&0) {
            return Some(0);
        }
        let mut last = self.offset;
        for (extent, stride) in self.shape.iter().zip(&self.strides) {
            last = last.checked_add((extent - 1).checked_mul(*stride)?)?;
        }
        count.filter(|&count| count <= available && last < available)
    }

    /// The bytes of the elements in row-major order.
    pub(super) fn gather(&self, storage: &[u8], count: usize) -> Vec<u8> {
        let size = self.element.size();
        if self.is_contiguous() {
            return storage[self.offset * size..(self.offset + count) * size].to_vec();
        }
        let mut out = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let at =
                self.offset + index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>();
            out.extend_from_slice(&storage[at * size..(at + 1) * size]);
            for dimension in (0..index.len()).rev() {
                index[dimension] += 1;
                if index[dimension] < self.shape[dimension] {
                    break;
                }
                index[dimension] = 0;
            }
        }
        out
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(extent, stride)| {
            let fits = *extent == 1 || *stride == expected;
            expected *= extent;
            fits
        })
    }
}

/// The elements of a storage class: `Some(None)` for an untyped one, `None` for what is no storage.
pub(super) fn storage_element(class: Global) -> Option<Option<ElementType>> {
    Some(Some(match class.name {
        "BoolStorage" => ElementType::Bool,
        "CharStorage" => ElementType::I8,
        "ShortStorage" => ElementType::I16,
        "IntStorage" => ElementType::I32,
        "LongStorage" => ElementType::I64,
        "ByteStorage" => ElementType::U8,
        "HalfStorage" => ElementType::F16,
        "BFloat16Storage" => ElementType::Bf16,
        "FloatStorage" => ElementType::F32,
        "DoubleStorage" => ElementType::F64,
        "UntypedStorage" => return Some(None),
        _ => return None,
    }))
}

pub(super) fn dtype_element(dtype: Global) -> Option<ElementType> {
    Some(match dtype.name {
        "bool" => ElementType::Bool,
        "int8" => ElementType::I8,
        "int16" => ElementType::I16,
        "int32" => ElementType::I32,
        "int64" => ElementType::I64,
        "uint8" => ElementType::U8,
        "uint16" => ElementType::U16,
        "uint32" => ElementType::U32,
        "uint64" => ElementType::U64,
        "float16" => ElementType::F16,
        "bfloat16" => ElementType::Bf16,
        "float32" => ElementType::F32,
        "float64" => ElementType::F64,
        _ => return None,
    })
}
